//! What a reload may find half done: the running pair goes on until a whole one is there, on MQTT and on WebSocket listeners.

use std::process::Command;

use nix::sys::signal::Signal;

use super::{LISTENER, folder, path, publish, serial, start};
use crate::support::process::{Broker, free_port, run, wait_until};

const KINDS: [&str; 2] = ["", "protocol websockets\n"];

fn refused(broker: &Broker, times: usize) {
    broker.signal(Signal::SIGHUP);
    wait_until("the refusal", || broker.log().matches("goes on with the one it has").count() == times);
    assert_eq!(serial(broker), "serial=01", "{}", broker.log());
}

#[test]
fn the_key_may_be_renewed_first_and_files_may_be_missing_meanwhile() {
    for kind in KINDS {
        let (folder, authority) = folder();
        authority.sign(&folder, "new", Some("localhost"), 0x44);
        let broker = start(folder, &format!("allow_anonymous true\n{kind}"));
        let take = |ending: &str| {
            std::fs::copy(path(&broker, &format!("new.{ending}")), path(&broker, &format!("server.{ending}"))).expect("copied");
        };
        take("key");
        refused(&broker, 1);
        std::fs::remove_file(path(&broker, "server.crt")).expect("removed");
        refused(&broker, 2);
        take("crt");
        broker.signal(Signal::SIGHUP);
        wait_until("the new certificate", || serial(&broker) == "serial=44");
    }
}

#[test]
fn the_authority_of_clients_and_the_revocation_list_are_read_anew() {
    let (folder, authority) = folder();
    authority.sign(&folder, "anna", Some("anna"), 2);
    authority.revoke(&folder, &[]);
    let more = "allow_anonymous true\ncafile {folder}/ca.crt\ncrlfile {folder}/ca.crl\nrequire_certificate true\n";
    let broker = start(folder, more);
    assert_eq!(publish(&broker, Some("anna"), "a"), 0, "{}", broker.log());
    authority.revoke(&broker.folder, &[2]);
    broker.signal(Signal::SIGHUP);
    wait_until("the new list", || publish(&broker, Some("anna"), "a") != 0);
    broker.wait_for_log("Revoked");
}

#[test]
fn a_port_of_tls_never_becomes_one_without() {
    for kind in KINDS {
        let (folder, _) = folder();
        let broker = start(folder, &format!("allow_anonymous true\n{kind}"));
        let without = format!("listener {} 127.0.0.1\nallow_anonymous true\n{kind}", broker.port);
        broker.folder.write("mosquitto.conf", without);
        refused(&broker, 1);
        broker.wait_for_log("Restart the broker to use the listeners of");
    }
}

#[test]
fn a_folder_of_authorities_is_read_and_ciphers_are_a_choice_in_tls_1_2() {
    let (folder, authority) = folder();
    authority.sign(&folder, "anna", Some("anna"), 2);
    std::fs::create_dir(folder.path().join("trusted")).expect("a folder");
    std::fs::copy(folder.path().join("ca.crt"), folder.path().join("trusted/ca.pem")).expect("copied");
    assert_eq!(run(Command::new("openssl").arg("rehash").arg(folder.path().join("trusted"))).0, 0);
    super::Authority::new(&folder, "other").sign(&folder, "stranger", Some("anna"), 3);
    let more = "allow_anonymous true\ncapath {folder}/trusted\nrequire_certificate true\nciphers ECDHE-ECDSA-AES128-GCM-SHA256\n";
    let broker = start(folder, more);
    assert_eq!(publish(&broker, Some("anna"), "a"), 0, "{}", broker.log());
    assert_ne!(publish(&broker, Some("stranger"), "a"), 0);
    let attempt = |cipher: &str| {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-tls1_2", "-connect", &format!("127.0.0.1:{}", broker.port), "-cipher", cipher]);
        client.arg("-cert").arg(path(&broker, "anna.crt")).arg("-key").arg(path(&broker, "anna.key"));
        let (code, said, _) = run(&mut client);
        (code == 0, said)
    };
    let (worked, said) = attempt("ECDHE-ECDSA-AES128-GCM-SHA256");
    assert!(worked && said.contains("Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"), "{said}");
    assert!(!attempt("ECDHE-ECDSA-AES256-GCM-SHA384").0);
}

#[test]
fn a_listener_that_loses_its_files_at_the_start_is_no_open_port() {
    let (folder, _) = folder();
    let port = free_port();
    let conf = LISTENER.replace("{port}", &port.to_string()).replace("{folder}/server.key", "/nowhere/server.key");
    let conf = folder.write("mosquitto.conf", conf.replace("{folder}", &folder.path().display().to_string()) + "allow_anonymous true\n");
    let (code, _, said) = run(Command::new(crate::support::process::darner()).args(["broker", "-c"]).arg(&conf));
    assert_eq!(code, 1, "{said}");
}
