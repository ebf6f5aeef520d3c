//! What the listeners really serve is looked at.

use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::json;

use super::{Running, pair};
use crate::acme_worker::pebble::Pebble;
use crate::support::process::free_port;
use crate::support::volume::Volume;

/// Answers TLS there with a certificate of its own.
fn stranger(address: (&str, u16)) {
    let pair = pair("mqtt.test", (-5, 5));
    let chain = CertificateDer::pem_slice_iter(&pair.fullchain).map(|each| each.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_slice(&pair.privkey).expect("a key");
    let versions = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let versions = versions.with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(versions.with_no_client_auth().with_single_cert(chain, key).expect("a pair"));
    let listener = TcpListener::bind(address).expect("a port");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut session = ServerConnection::new(Arc::clone(&config)).expect("a session");
            let _ = session.complete_io(&mut stream);
        }
    });
}

#[test]
fn a_listener_that_serves_another_certificate_is_said_and_made_to_use_the_right_one() {
    // The name of the listener leads elsewhere after it was bound: whoever connects meets somebody else.
    let volume = Volume::new("1m");
    let mut running = Running::of_domain(&[("RENEWAL", "reload")]);
    let hosts = running.folder.write("hosts", "127.0.0.1 localhost\n127.0.0.1 listener.test\n");
    volume.run(&["mount", "--bind", &hosts.display().to_string(), "/etc/hosts"]);
    running.within = volume.within();
    let tls_port = running.tls_port;
    let conf = std::fs::read_to_string(running.folder.path().join("mosquitto.conf")).expect("the configuration");
    running
        .folder
        .write("mosquitto.conf", conf.replace(&format!("listener {tls_port} 127.0.0.1"), &format!("listener {tls_port} listener.test")));
    let (old, new) = (pair("mqtt.test", (-1, 89)), pair("mqtt.test", (0, 90)));
    running.install("mqtt.test", &old);
    running.start();
    let visit = format!("on port {tls_port}.");
    let is_visited = |log: &str| log.lines().any(|line| line.contains("New connection from") && line.ends_with(&visit));
    running.wait_for("the first look", |running| is_visited(&running.log()));
    std::thread::sleep(std::time::Duration::from_secs(1));
    stranger(("127.0.0.9", tls_port));
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.9 listener.test\n").expect("written");
    running.install("mqtt.test", &new);
    let words = format!("the listener on port {tls_port} serves another certificate than ");
    running.wait_for("the warning", |running| running.log().contains(&format!("{words}{}", running.live("fullchain.pem").display())));
    running.wait_for("the row", |running| running.darner(&["cert"]).1.contains(&words));
    std::fs::write(&hosts, "127.0.0.1 localhost\n127.0.0.1 listener.test\n").expect("written");
    running.wait_for("the right one", |running| running.log().contains("The listeners serve the certificates that they are to serve."));
    assert!(running.log().matches("Reload done").count() >= 2, "{}", running.log());
    running.wait_for("no row", |running| !running.darner(&["cert"]).1.contains(&words) && running.serves(&new));
}

#[test]
fn every_kind_of_tls_listener_is_looked_at_and_what_is_right_is_no_news() {
    let mut running = Running::of_domain(&[("RENEWAL", "reload")]);
    let live = running.folder.path().join("letsencrypt/live/mqtt.test").display().to_string();
    let files = format!("certfile {live}/fullchain.pem\nkeyfile {live}/privkey.pem\n");
    let ports: Vec<_> = (0..3).map(|_| free_port()).collect();
    let conf = std::fs::read_to_string(running.folder.path().join("mosquitto.conf")).expect("the configuration");
    let more = format!(
        "listener {} 127.0.0.1\nprotocol websockets\n{files}listener {} 127.0.0.1\nenable_proxy_protocol 1\n{files}\
         listener {} 127.0.0.1\nrequire_certificate true\ncafile {live}/chain.pem\n{files}",
        ports[0], ports[1], ports[2]
    );
    running.folder.write("mosquitto.conf", format!("{conf}{more}"));
    let first = pair("mqtt.test", (-1, 89));
    running.install("mqtt.test", &first);
    running.start();
    let ca = Pebble::start(&json!({}), &[]);
    let target = |port: u16, is_proxied: bool| json!({ "host": "127.0.0.1", "port": port, "is_proxied": is_proxied });
    let targets = json!([target(running.tls_port, false), target(ports[0], false), target(ports[1], true), target(ports[2], false),]);
    let leaf = first.leaf().expect("a leaf").fingerprint();
    let probed = ca.work(&ca.request(&json!({ "mode": "probe", "targets": targets })));
    assert_eq!(probed["leaves"], json!([leaf, leaf, leaf, leaf]), "{}", running.log());
    // PID 1's own look after a renewal.
    let second = pair("mqtt.test", (0, 90));
    running.install("mqtt.test", &second);
    running.wait_for("the new certificate", |running| running.serves(&second));
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(
        !running.log().contains("serves another certificate") && running.log().matches("Reload done").count() == 1,
        "{}",
        running.log()
    );
}
