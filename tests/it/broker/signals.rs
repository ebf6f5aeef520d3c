//! TERM, HUP, USR1, USR2 on a broker that stands alone.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use darner::mqtt::ProtocolVersion;
use nix::sys::signal::Signal;

use super::client::{Client, Ended};
use crate::support::process::{Broker, Folder, darner, run, wait_until};

#[test]
fn a_thousand_clients_are_told_and_the_broker_ends_soon() {
    super::allow_open_files();
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let connect = |number: usize| Client::log_in(broker.port, &format!("c{number}"), None, ProtocolVersion::V5);
    let mut clients: Vec<_> = (0..1000).map(connect).collect();
    assert!(clients.iter().all(|(_, code)| *code == Some(0)));
    let begin = Instant::now();
    assert_eq!(broker.stop(), 0);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    for (client, _) in &mut clients {
        let goodbye = client.receive_bytes().expect("a DISCONNECT");
        assert_eq!((goodbye[0], goodbye[2]), (0xe0, 0x8b), "server shutting down");
        assert_eq!(client.receive_bytes(), Err(Ended));
    }
}

/// He would lose his connection twice; what listens behind a broker that ends takes him in.
#[test]
fn whoever_comes_back_before_the_broker_is_gone_is_not_let_in() {
    let mut broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let mut asleep = Client::connect(broker.port, "asleep");
    asleep.subscribe("t");
    let mut writer = Client::connect(broker.port, "writer");
    // More than sockets hold: the broker waits a moment for this reader to take it.
    for _ in 0..1000 {
        writer.publish("t", &[7; 10_000]);
    }
    writer.ping();
    broker.signal(Signal::SIGTERM);
    writer.wait_for_end();
    let mut connect = vec![0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 4];
    connect.extend(b"back");
    let mut answer = [0; 4];
    if let Ok(mut back) = std::net::TcpStream::connect(("127.0.0.1", broker.port)) {
        let answered = back.write_all(&connect).and_then(|()| back.read(&mut answer)).unwrap_or_default();
        assert_eq!(&answer[..answered], b"");
    }
    assert_eq!(broker.exit_code(), 0);
}

#[test]
fn the_pid_file_is_there_while_the_broker_runs() {
    let broker = Broker::start("user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npid_file {folder}/pid\n");
    broker.wait_for_log("running");
    let path = broker.folder.path().join("pid");
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), broker.pid().to_string());
    broker.signal(Signal::SIGINT);
    broker.wait_for_log("terminating");
    wait_until("the pid file to go", || !path.exists());
}

#[test]
fn usr1_and_usr2_leave_the_broker_running() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let mut client = Client::connect(broker.port, "someone");
    client.subscribe("a/+/b");
    broker.signal(Signal::SIGUSR1);
    broker.signal(Signal::SIGUSR2);
    broker.signal(Signal::SIGPIPE);
    broker.wait_for_log("a/+/b <- someone");
    client.ping();
    assert_eq!(broker.stop(), 0);
}

fn set_password(folder: &Folder, user: &str, password: &str) {
    let path = folder.path().join("pw");
    let path = path.to_str().unwrap();
    if !std::fs::exists(path).unwrap() {
        folder.write("pw", "");
    }
    let (code, _, stderr) = run(Command::new(darner()).args(["mosquitto_passwd", "-b", path, user, password]));
    assert_eq!(code, 0, "{stderr}");
}

const WITH_PASSWORDS: &str = "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\npassword_file {folder}/pw\n";

#[test]
fn a_reload_closes_those_whose_password_changed_and_only_those() {
    let folder = Folder::new("reload");
    set_password(&folder, "anna", "one");
    set_password(&folder, "bert", "one");
    let broker = Broker::start_in(folder, WITH_PASSWORDS);
    let log_in = |id, name, word| Client::log_in(broker.port, id, Some((name, word)), ProtocolVersion::V311);
    let (mut anna, code) = log_in("anna", "anna", "one");
    assert_eq!(code, Some(0));
    let (mut bert, code) = log_in("bert", "bert", "one");
    assert_eq!(code, Some(0));
    let (_, code) = log_in("wrong", "bert", "two");
    assert_eq!(code, Some(5), "not authorised");
    let mut nobody = Client::connect(broker.port, "nobody");
    set_password(&broker.folder, "anna", "two");
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Reloading config.");
    anna.wait_for_end();
    bert.ping();
    nobody.ping();
    assert_eq!(log_in("anna", "anna", "one").1, Some(5), "the old password is not remembered");
    assert_eq!(log_in("anna", "anna", "two").1, Some(0));
}

#[test]
fn a_reload_that_forbids_anonymous_clients_closes_them() {
    let folder = Folder::new("reload");
    set_password(&folder, "anna", "one");
    let broker = Broker::start_in(folder, WITH_PASSWORDS);
    let mut nobody = Client::connect(broker.port, "nobody");
    let (mut anna, _) = Client::log_in(broker.port, "anna", Some(("anna", "one")), ProtocolVersion::V311);
    let conf = std::fs::read_to_string(broker.folder.path().join("mosquitto.conf")).unwrap();
    broker.folder.write("mosquitto.conf", conf.replace("allow_anonymous true", "allow_anonymous false"));
    broker.signal(Signal::SIGHUP);
    nobody.wait_for_end();
    anna.ping();
}

/// mosquitto assigns identifiers without their prefix after a HUP.
#[test]
fn auto_id_prefix_begins_assigned_identifiers_before_and_after_a_reload() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nauto_id_prefix house-\n");
    let conf = std::fs::read_to_string(broker.folder.path().join("mosquitto.conf")).unwrap();
    let (mut first, id) = Client::without_id(broker.port);
    assert!(id.starts_with("house-") && id.len() == "house-".len() + 36, "{id}");
    let reload = |conf: String| {
        let before = broker.log().matches("Reloading config.").count();
        broker.folder.write("mosquitto.conf", conf);
        broker.signal(Signal::SIGHUP);
        wait_until("the reload", || broker.log().matches("Reloading config.").count() > before);
        Client::connect(broker.port, "after-the-reload");
    };
    for (conf, prefix) in [
        (conf.clone(), "house-"),
        (conf.replace("house-", "garden-"), "garden-"),
        (conf.replace("auto_id_prefix house-\n", ""), "auto-"),
        (conf.clone(), "house-"),
    ] {
        reload(conf);
        let named = || broker.log().matches(&format!(" as {prefix}")).count();
        let before = named();
        let (_, id) = Client::without_id(broker.port);
        assert!(id.starts_with(prefix), "{id} does not begin with {prefix}");
        // Version 3 is not told; the log is.
        let _ = Client::connect(broker.port, "");
        wait_until("the log of both", || named() == before + 2);
    }
    first.ping();
}

#[test]
fn a_reload_changes_what_a_connected_client_may_read() {
    let folder = Folder::new("reload");
    folder.write("acl", "topic readwrite open/#\n");
    let broker = Broker::start_in(folder, "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nacl_file {folder}/acl\n");
    let mut client = Client::connect(broker.port, "client");
    client.subscribe("#");
    client.publish("closed/a", b"not yet");
    client.publish("open/a", b"one");
    assert_eq!(client.receive_payload(), b"one");
    broker.folder.write("acl", "topic readwrite closed/#\n");
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Reloading config.");
    // The signal is handled in some turn after the line: the first message may still meet the old rules.
    wait_until("the new rules", || {
        client.publish("closed/a", b"two");
        client.send(&darner::mqtt::Packet::Pingreq);
        let mut seen = false;
        loop {
            let bytes = client.receive_bytes().expect("a packet");
            match bytes[0] & 0xf0 {
                0x30 => seen = true,
                _ => return seen,
            }
        }
    });
    client.publish("open/a", b"three");
    client.ping();
}

#[test]
fn a_reload_of_a_broken_configuration_changes_nothing() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let conf = broker.folder.path().join("mosquitto.conf");
    let good = std::fs::read_to_string(&conf).unwrap();
    broker.folder.write("mosquitto.conf", format!("{}nonsense 1\n", good.replace("allow_anonymous true", "allow_anonymous false")));
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Unknown configuration variable 'nonsense'");
    broker.wait_for_log("The new configuration is not used");
    drop(Client::connect(broker.port, "still-anonymous"));
    broker.folder.write("mosquitto.conf", format!("{good}listener 1 127.0.0.1\n"));
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Error: It is not currently possible to add/remove listeners when reloading the config file.");
    drop(Client::connect(broker.port, "still-there"));
    assert_eq!(broker.stop(), 0);
}
