//! `mosquitto_pub` and `mosquitto_sub` over TLS, beside Debian's.

use std::process::{Command, Stdio};

use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, darner, run};
use crate::tls::{Authority, folder};

const LISTENER: &str = "listener {port}\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\nallow_anonymous true\nlog_type all\n";

fn ours(tool: &str) -> Command {
    let mut command = Command::new(darner());
    command.arg(tool).stdin(Stdio::null());
    command
}

fn start(folder: Folder, more: &str) -> Broker {
    Broker::start_in(folder, &format!("{LISTENER}{more}"))
}

fn path(broker: &Broker, name: &str) -> String {
    broker.folder.path().join(name).display().to_string()
}

/// Exit codes of Debian's tool and of ours for the same arguments, and what ours said.
fn both(broker: &Broker, tool: &str, arguments: &[&str]) -> (i32, i32, String) {
    let port = broker.port.to_string();
    let code = |mut command: Command| run(command.args(["-p", &port]).args(arguments));
    let (theirs, ours) = (code(debian(tool)), code(ours(tool)));
    (theirs.0, ours.0, ours.2)
}

#[test]
fn small_and_large_messages_go_both_ways_over_tls() {
    let (folder, _) = folder();
    let broker = start(folder, "");
    let (port, ca) = (broker.port.to_string(), path(&broker, "ca.crt"));
    let large = "x".repeat(1_500_000);
    let file = broker.folder.write("large", &large);
    let mut reader = ours("mosquitto_sub");
    reader.args(["-h", "localhost", "-p", &port, "--cafile", &ca, "-i", "reader", "-q", "2", "-t", "a/#", "-C", "4", "-W", "60"]);
    let reader = reader.stdout(Stdio::piped()).spawn().expect("it starts");
    broker.wait_for_log("Sending SUBACK to reader");
    for (topic, qos, what) in
        [("a/1", "0", ["-m", "small"]), ("a/2", "2", ["-f", file.to_str().expect("UTF-8")]), ("a/3", "1", ["-m", "last"])]
    {
        let (code, _, said) =
            run(ours("mosquitto_pub").args(["-h", "localhost", "-p", &port, "--cafile", &ca, "-q", qos, "-t", topic]).args(what));
        assert_eq!(code, 0, "{said}");
    }
    let url = format!("mqtts://localhost:{port}/a/4");
    let (code, _, said) = run(ours("mosquitto_pub").args(["--cafile", &ca, "-L", &url, "-m", "by URL", "--tls-version", "tlsv1.2"]));
    assert_eq!(code, 0, "{said}");
    let output = reader.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == format!("small\n{large}\nlast\nby URL\n").into_bytes(), "{} bytes came", output.stdout.len());
}

#[test]
fn a_broker_is_trusted_as_debians_tools_trust_it() {
    let (folder, authority) = folder();
    Authority::new(&folder, "other");
    authority.sign(&folder, "client", Some("client"), 7);
    let capath = folder.path().join("authorities");
    std::fs::create_dir(&capath).expect("a folder");
    std::fs::copy(folder.path().join("ca.crt"), capath.join("ca.pem")).expect("copied");
    assert_eq!(run(Command::new("openssl").arg("rehash").arg(&capath)).0, 0);
    let broker = start(folder, "");
    let (ca, other, capath) = (path(&broker, "ca.crt"), path(&broker, "other.crt"), path(&broker, "authorities"));
    let publish = ["-t", "a", "-m", "b", "-q", "1"];
    let cases: &[(&[&str], bool)] = &[
        (&["-h", "localhost", "--cafile", &ca], true),
        (&["-h", "localhost", "--capath", &capath], true),
        (&["-h", "localhost", "--cafile", &other], false),
        (&["-h", "localhost", "--cafile", &other, "--insecure"], false),
        (&["-h", "localhost", "--tls-use-os-certs"], false),
        // The certificate is for localhost, not for the address.
        (&["-h", "127.0.0.1", "--cafile", &ca], false),
        (&["-h", "127.0.0.1", "--cafile", &ca, "--insecure"], true),
        (&["-h", "localhost", "--cafile", &ca, "--tls-version", "tlsv1.3"], true),
        (&["-h", "localhost", "--cafile", "/nonexistent"], false),
        (&["-h", "localhost"], false),
    ];
    for (arguments, works) in cases {
        let (theirs, ours, said) = both(&broker, "mosquitto_pub", &[*arguments, &publish].concat());
        assert_eq!((theirs == 0, ours == 0), (*works, *works), "{arguments:?}: {said}");
    }
    let (_, _, said) = both(&broker, "mosquitto_pub", &[&["-h", "localhost", "--cafile", &other], &publish[..]].concat());
    assert!(said.starts_with("Unable to connect (A TLS error occurred.): ") && said.contains("UnknownIssuer"), "{said}");
    let (_, _, said) = both(&broker, "mosquitto_pub", &[&["-h", "localhost", "--cafile", "/nonexistent"], &publish[..]].concat());
    assert!(said.starts_with("Error: Problem setting TLS options: /nonexistent: No such file"), "{said}");
}

#[test]
fn a_certificate_of_the_client_opens_a_listener_that_requires_one() {
    let (folder, authority) = folder();
    authority.sign(&folder, "client", Some("anna"), 7);
    let broker = start(folder, "cafile {folder}/ca.crt\nrequire_certificate true\nuse_identity_as_username true\n");
    let (ca, cert, key) = (path(&broker, "ca.crt"), path(&broker, "client.crt"), path(&broker, "client.key"));
    let publish = ["-h", "localhost", "--cafile", &ca, "-t", "a", "-m", "b", "-q", "1"];
    let (theirs, ours, said) = both(&broker, "mosquitto_pub", &[&["--cert", &cert, "--key", &key], &publish[..]].concat());
    assert_eq!((theirs, ours), (0, 0), "{said}");
    broker.wait_for_log("u'anna'");
    let (theirs, ours, _) = both(&broker, "mosquitto_pub", &publish);
    assert!(theirs != 0 && ours != 0, "{theirs} {ours}");
    let (theirs, ours, said) = both(&broker, "mosquitto_pub", &[&["--cert", &cert], &publish[..]].concat());
    assert_eq!((theirs, ours), (1, 1));
    assert!(said.starts_with("Error: Both certfile and keyfile must be provided if one of them is set."), "{said}");
}

#[test]
fn a_certificate_without_alternative_names_is_for_the_host_of_its_common_name() {
    let (folder, _) = folder();
    let openssl =
        |arguments: &[&str]| assert_eq!(run(Command::new("openssl").args(arguments).current_dir(folder.path())).0, 0, "{arguments:?}");
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "root.key",
        "-out",
        "root.crt",
        "-subj",
        "/CN=house",
        "-days",
        "9",
    ]);
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost"]);
    folder.write("extensions", "basicConstraints=CA:FALSE\n");
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "root.crt",
        "-CAkey",
        "root.key",
        "-CAcreateserial",
        "-out",
        "server.crt",
        "-days",
        "9",
        "-extfile",
        "extensions",
    ]);
    let broker = start(folder, "");
    let root = path(&broker, "root.crt");
    for (host, works) in [("localhost", true), ("127.0.0.1", false)] {
        let (theirs, ours, said) = both(&broker, "mosquitto_pub", &["-h", host, "--cafile", &root, "-t", "a", "-m", "b", "-q", "1"]);
        assert_eq!((theirs == 0, ours == 0), (works, works), "{host}: {said}");
    }
}

/// Of 2.1; Debian's 2.0.11 does not know it.
#[test]
fn no_tls_undoes_the_options_of_the_users_own_file() {
    let home = Folder::new("home");
    home.write(".config/mosquitto_pub", "--cafile /nonexistent\n--cert /nonexistent\n");
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let publish = |more: &[&str]| {
        let mut command = ours("mosquitto_pub");
        command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-t", "a", "-m", "b", "-q", "1"]).args(more);
        run(command.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME")).0
    };
    assert_eq!((publish(&[]), publish(&["--no-tls"])), (1, 0));
}

/// Cipher suites and the whole of the first handshake message that a tool sends.
fn hello(mut command: Command, arguments: &[&str]) -> (Vec<u16>, Vec<u8>) {
    use std::io::Read as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port().to_string();
    command.args(["-h", "127.0.0.1", "-p", &port, "-t", "a", "-m", "b"]).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let (mut stream, _) = listener.accept().expect("a client");
    let mut head = [0; 5];
    stream.read_exact(&mut head).expect("a record");
    assert_eq!(head[0], 22, "a handshake");
    let mut bytes = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut bytes).expect("a ClientHello");
    drop(stream);
    let _ = child.wait_with_output();
    // Type, length, version and random, then the session's name, then the suites.
    let at = 38 + 1 + usize::from(bytes[38]);
    let len = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    let suites = bytes[at + 2..at + 2 + len].chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    (suites, bytes)
}

#[test]
fn ciphers_and_the_application_protocol_are_asked_for_as_named() {
    /// ECDHE-RSA-AES128-GCM-SHA256, ECDHE-ECDSA-AES256-GCM-SHA384, and TLS_AES_128_GCM_SHA256.
    const SUITES: [u16; 3] = [0xc02f, 0xc02c, 0x1301];
    let (folder, _) = folder();
    let ca = folder.path().join("ca.crt").display().to_string();
    for (ciphers, alpn, offered) in [
        ("ECDHE-RSA-AES128-GCM-SHA256", "mqtt", [true, false]),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", "x-amzn-mqtt-ca", [false, true]),
        ("ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256", "a", [true, true]),
    ] {
        for command in [ours("mosquitto_pub"), debian("mosquitto_pub")] {
            let (suites, bytes) = hello(command, &["--cafile", &ca, "--ciphers", ciphers, "--tls-alpn", alpn]);
            assert_eq!([suites.contains(&SUITES[0]), suites.contains(&SUITES[1])], offered, "{ciphers}: {suites:x?}");
            let protocol = [&[0, 16, 0, alpn.len() as u8 + 3, 0, alpn.len() as u8 + 1, alpn.len() as u8][..], alpn.as_bytes()].concat();
            assert!(bytes.windows(protocol.len()).any(|window| window == protocol), "{alpn}");
        }
    }
    let (suites, bytes) = hello(ours("mosquitto_pub"), &["--cafile", &ca]);
    assert!(SUITES.iter().all(|suite| suites.contains(suite)), "{suites:x?}");
    assert!(!bytes.windows(4).any(|window| window == b"mqtt"), "nothing is asked for that nobody named");
}

#[test]
fn keyform_pem_ciphers_and_the_application_protocol_work_with_a_broker() {
    let (folder, authority) = folder();
    authority.sign(&folder, "client", Some("anna"), 7);
    let broker = start(folder, "cafile {folder}/ca.crt\nrequire_certificate true\nuse_identity_as_username true\n");
    let (ca, cert, key) = (path(&broker, "ca.crt"), path(&broker, "client.crt"), path(&broker, "client.key"));
    let publish = ["-h", "localhost", "--cafile", &ca, "--cert", &cert, "--key", &key, "-t", "a", "-m", "b", "-q", "1"];
    for (more, works) in [
        (&["--keyform", "pem"][..], true),
        (&["--keyform", "der"], false),
        (&["--tls-alpn", "mqtt"], true),
        (&["--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"], true),
        (&["--ciphers", "NOT-A-CIPHER"], false),
    ] {
        let (theirs, ours, said) = both(&broker, "mosquitto_pub", &[&publish, more].concat());
        assert_eq!((theirs == 0, ours == 0), (works, works), "{more:?}: {theirs} {ours} {said}");
    }
}
