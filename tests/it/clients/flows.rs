//! Conversations that a comparison of outputs does not show.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::support::peer::Peer;
use crate::support::process::{Broker, darner, run};

fn tool(name: &str, port: u16) -> Command {
    let mut command = Command::new(darner());
    command.args([name, "-h", "127.0.0.1", "-p", &port.to_string()]).env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
    command
}

/// A listener that plays the broker by hand.
fn stage() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tool starts")
}

fn outcome(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().expect("the tool ends");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

const CONNACK: &[u8] = &[0x20, 2, 0, 0];

fn read_some(stream: &mut std::net::TcpStream) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let len = stream.read(&mut buffer).expect("bytes");
    buffer[..len].to_vec()
}

#[test]
fn a_connection_lost_before_the_acknowledgement_ends_pub_with_7() {
    let (listener, port) = stage();
    let child = spawn(tool("mosquitto_pub", port).args(["-t", "a", "-m", "x", "-q", "1"]));
    let (mut stream, _) = listener.accept().expect("a client");
    read_some(&mut stream);
    stream.write_all(CONNACK).expect("sent");
    let publish = read_some(&mut stream);
    assert_eq!(publish.first(), Some(&0x32), "PUBLISH at QoS 1");
    drop(stream);
    assert_eq!(outcome(child), (Some(7), String::new(), "Error: The connection was lost.\n".into()));
}

#[test]
fn sub_connects_again_after_a_lost_connection() {
    let (listener, port) = stage();
    let child = spawn(tool("mosquitto_sub", port).args(["-t", "a", "-C", "1", "-W", "20"]));
    for attempt in 0..2 {
        let (mut stream, _) = listener.accept().expect("a client");
        assert_eq!(read_some(&mut stream).first(), Some(&0x10), "CONNECT");
        if attempt == 0 {
            continue;
        }
        stream.write_all(CONNACK).expect("sent");
        assert_eq!(read_some(&mut stream).first(), Some(&0x82), "SUBSCRIBE");
        stream.write_all(&[0x90, 3, 0, 1, 0, 0x30, 5, 0, 1, b'a', b'h', b'i']).expect("sent");
        assert_eq!(read_some(&mut stream), [0xE0, 0], "DISCONNECT");
    }
    assert_eq!(outcome(child), (Some(0), "hi\n".into(), String::new()));
}

#[test]
fn bytes_that_are_not_mqtt_end_sub_with_2() {
    let (listener, port) = stage();
    let child = spawn(tool("mosquitto_sub", port).args(["-t", "a", "-W", "20"]));
    let (mut stream, _) = listener.accept().expect("a client");
    read_some(&mut stream);
    stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("sent");
    let (code, _, stderr) = outcome(child);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr, "Error: A network protocol error occurred when communicating with the broker.\n");
}

#[test]
fn an_idle_subscriber_pings_within_the_keep_alive() {
    let (listener, port) = stage();
    let child = spawn(tool("mosquitto_sub", port).args(["-t", "a", "-k", "5", "-C", "1", "-W", "30"]));
    let (mut stream, _) = listener.accept().expect("a client");
    read_some(&mut stream);
    stream.write_all(CONNACK).expect("sent");
    assert_eq!(read_some(&mut stream).first(), Some(&0x82), "SUBSCRIBE");
    stream.write_all(&[0x90, 3, 0, 1, 0]).expect("sent");
    assert_eq!(read_some(&mut stream), [0xC0, 0], "PINGREQ");
    stream.write_all(&[0xD0, 0, 0x30, 5, 0, 1, b'a', b'h', b'i']).expect("sent");
    assert_eq!(outcome(child).0, Some(0));
}

#[test]
fn sigterm_makes_sub_say_goodbye() {
    let (listener, port) = stage();
    let child = spawn(tool("mosquitto_sub", port).args(["-t", "a"]));
    let (mut stream, _) = listener.accept().expect("a client");
    read_some(&mut stream);
    stream.write_all(CONNACK).expect("sent");
    assert_eq!(read_some(&mut stream).first(), Some(&0x82), "SUBSCRIBE");
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the tool is there");
    assert_eq!(read_some(&mut stream), [0xE0, 0], "DISCONNECT");
    assert_eq!(outcome(child).0, Some(0));
}

#[test]
fn a_thousand_messages_of_each_qos_arrive_once_and_in_order() {
    let conf = "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n";
    many_messages(Peer::start(conf).port);
    many_messages(Broker::start(conf).port);
}

fn many_messages(port: u16) {
    for qos in ["0", "1", "2"] {
        let mut subscriber = tool("mosquitto_sub", port)
            .args(["-t", "many", "-q", qos, "-C", "1000", "-W", "60", "-d"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a subscriber");
        let mut lines = BufReader::new(subscriber.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("Subscribed")));
        let mut publisher =
            tool("mosquitto_pub", port).args(["-t", "many", "-q", qos, "-l"]).stdin(Stdio::piped()).spawn().expect("a publisher");
        let mut stdin = publisher.stdin.take().expect("stdin");
        for number in 0..1000 {
            writeln!(stdin, "{number}").expect("written");
        }
        drop(stdin);
        let received: Vec<u32> = lines.filter_map(|line| line.parse().ok()).collect();
        assert_eq!(received, (0..1000).collect::<Vec<_>>(), "QoS {qos}");
        assert!(publisher.wait().expect("ended").success());
        assert!(subscriber.wait().expect("ended").success());
    }
}

#[test]
fn remove_retained_clears_what_it_prints() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    for topic in ["old/a", "old/b"] {
        assert_eq!(run(tool("mosquitto_pub", broker.port).args(["-t", topic, "-m", "x", "-r", "-q", "1"])).0, 0);
    }
    let (code, stdout, _) = run(tool("mosquitto_sub", broker.port).args(["-t", "old/#", "-v", "-C", "2", "--remove-retained", "-W", "10"]));
    assert_eq!((code, stdout.as_str()), (0, "old/a x\nold/b x\n"));
    let (code, stdout, _) = run(tool("mosquitto_sub", broker.port).args(["-t", "old/#", "-W", "1"]));
    assert_eq!((code, stdout.as_str()), (27, ""));
}

#[test]
fn a_socks_proxy_is_asked_for_the_way_to_the_broker() {
    let (listener, port) = stage();
    let mut command = tool("mosquitto_pub", 1883);
    let proxy = format!("socks5h://me:secret@127.0.0.1:{port}");
    let child = spawn(command.args(["-h", "broker.example", "-t", "a", "-m", "x", "--proxy", &proxy]));
    let (mut stream, _) = listener.accept().expect("a client");
    for (expected, answer) in [
        (&b"\x05\x01\x02"[..], &b"\x05\x02"[..]),
        (b"\x01\x02me\x06secret", b"\x01\x00"),
        (b"\x05\x01\x00\x03\x0ebroker.example\x07\x5b", b"\x05\x00\x00\x01\x7f\x00\x00\x01\x07\x5b"),
    ] {
        assert_eq!(read_some(&mut stream), expected);
        stream.write_all(answer).expect("sent");
    }
    assert_eq!(read_some(&mut stream).first(), Some(&0x10), "CONNECT");
    stream.write_all(CONNACK).expect("sent");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("the rest");
    assert_eq!(rest, b"\x30\x04\x00\x01ax\xe0\x00");
    assert_eq!(outcome(child).0, Some(0));
}

#[test]
fn topic_aliases_are_followed_as_far_as_they_were_allowed() {
    for (allowed, expected) in [(&["-D", "connect", "topic-alias-maximum", "1"][..], (Some(0), "a x\na y\n")), (&[], (Some(2), ""))] {
        let (listener, port) = stage();
        let child = spawn(tool("mosquitto_sub", port).args(["-t", "a", "-V", "5", "-v", "-C", "2", "-W", "20"]).args(allowed));
        let (mut stream, _) = listener.accept().expect("a client");
        read_some(&mut stream);
        stream.write_all(b"\x20\x03\x00\x00\x00").expect("CONNACK");
        assert_eq!(read_some(&mut stream).first(), Some(&0x82), "SUBSCRIBE");
        stream.write_all(b"\x90\x04\x00\x01\x00\x00").expect("SUBACK");
        stream.write_all(b"\x30\x08\x00\x01a\x03\x23\x00\x01x\x30\x07\x00\x00\x03\x23\x00\x01y").expect("PUBLISH twice");
        let (code, stdout, _) = outcome(child);
        assert_eq!((code, stdout.as_str()), expected);
    }
}

#[test]
fn options_for_pre_shared_keys_and_engines_are_refused_with_the_reason() {
    for arguments in [&["--psk", "00"][..], &["--psk-identity", "me"], &["--tls-engine", "x"], &["--keyform", "engine"]] {
        let mut command = Command::new(darner());
        let (code, stdout, stderr) = run(command.arg("mosquitto_pub").args(["-t", "a", "-m", "x"]).args(arguments));
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.contains("pre-shared keys") || stderr.contains("engines"), "{stderr}");
    }
}
