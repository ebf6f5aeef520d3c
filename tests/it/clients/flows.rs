//! Conversations that a comparison of outputs does not show.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use crate::support::peer::{Peer, debian};
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

/// The examples of mosquitto_sub(1). Debian's waits on where the acknowledgement of the last removal comes before its message.
#[test]
fn all_that_is_retained_is_removed_but_what_is_filtered_out() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    for topic in ["bbc", "bbc/bbc1", "bbc/bbc2", "itv"] {
        assert_eq!(run(tool("mosquitto_pub", broker.port).args(["-t", topic, "-m", "x", "-r", "-q", "1"])).0, 0);
    }
    let sub = |arguments: &[&str]| {
        let (code, stdout, _) = run(tool("mosquitto_sub", broker.port).args(["-v", "-W", "2"]).args(arguments));
        let mut lines: Vec<_> = stdout.lines().map(str::to_owned).collect();
        lines.sort();
        (code, lines.join(" "))
    };
    assert_eq!(sub(&["-t", "bbc/#", "-T", "bbc/bbc1", "--remove-retained", "--retained-only"]), (0, "bbc x bbc/bbc2 x".into()));
    assert_eq!(sub(&["-t", "#"]), (27, "bbc/bbc1 x itv x".into()));
    assert_eq!(sub(&["-t", "#", "--remove-retained", "--retained-only"]), (0, "bbc/bbc1 x itv x".into()));
    assert_eq!(sub(&["-t", "#"]), (27, String::new()));
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
fn options_that_cannot_be_honoured_are_refused_with_the_reason() {
    for (arguments, reason) in [
        (&["--psk", "00"][..], "pre-shared keys"),
        (&["--psk-identity", "me"], "pre-shared keys"),
        (&["--tls-engine", "x"], "engines"),
        (&["--tls-engine-kpass-sha1", "00"], "engines"),
        (&["--keyform", "engine"], "engines"),
        (&["-S"], "SRV records"),
    ] {
        for tool in ["mosquitto_pub", "mosquitto_sub"] {
            let (code, stdout, stderr) = run(Command::new(darner()).arg(tool).args(["-t", "a"]).args(arguments));
            assert_eq!((code, stdout.as_str()), (1, ""));
            assert!(stderr.contains(reason), "{stderr}");
        }
    }
}

#[test]
fn a_unix_socket_leads_to_the_broker() {
    let broker = Broker::start("listener {port} 127.0.0.1\nlistener 0 {folder}/socket\nallow_anonymous true\n");
    let socket = broker.folder.path().join("socket").display().to_string();
    for (number, place) in [["--unix", &socket].to_vec(), ["-h", &socket, "-p", "0"].to_vec()].iter().enumerate() {
        let topic = format!("unix/{number}");
        for command in [&mut Command::new(darner()), &mut debian("mosquitto_pub")] {
            if command.get_program() == darner().as_os_str() {
                command.arg("mosquitto_pub");
            }
            let (code, stdout, stderr) = run(command.args(place).args(["-t", &topic, "-m", "hi", "-r", "-q", "1"]));
            assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
        }
        for command in [&mut Command::new(darner()), &mut debian("mosquitto_sub")] {
            if command.get_program() == darner().as_os_str() {
                command.arg("mosquitto_sub");
            }
            assert_eq!(
                run(command.args(place).args(["-t", &topic, "-C", "1", "-v", "-W", "20"])),
                (0, format!("{topic} hi\n"), String::new())
            );
        }
    }
    assert!(broker.log().contains("New client connected from"), "{}", broker.log());
}

#[test]
fn random_filter_prints_its_share_and_counts_them_all() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n");
    for (chance, expected) in [("0.1", 0..=20), ("50", 400..=600), ("99.9", 980..=1000), ("100", 1000..=1000)] {
        let mut subscriber = spawn(tool("mosquitto_sub", broker.port).args([
            "-t",
            "many",
            "-q",
            "1",
            "-C",
            "1000",
            "-W",
            "60",
            "-d",
            "-F",
            "[%p]",
            "--random-filter",
            chance,
        ]));
        let mut lines = BufReader::new(subscriber.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("Subscribed")));
        let mut publisher =
            tool("mosquitto_pub", broker.port).args(["-t", "many", "-q", "1", "-l"]).stdin(Stdio::piped()).spawn().expect("a publisher");
        publisher.stdin.take().expect("stdin").write_all("x\n".repeat(1000).as_bytes()).expect("written");
        let printed = lines.filter(|line| line.starts_with('[')).count();
        assert!(expected.contains(&printed), "{printed} of 1000 with {chance}");
        assert!(publisher.wait().expect("ended").success() && subscriber.wait().expect("ended").success());
    }
}

/// The will of a tool that is killed, and of one that leaves at its timeout: version 5 lets it say so (3.14.2.1), version 3 does not.
#[test]
fn wills_are_delivered_as_those_of_debians_tools() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let with_will: &[&str] = &["-t", "nothing", "--will-topic", "gone", "--will-payload", "by will", "--will-qos", "1", "--will-retain"];
    let properties: &[&str] = &["-D", "will", "content-type", "text", "-D", "will", "user-property", "k", "v"];
    for (version, is_killed, delivered) in [
        ("311", true, "1 1 by will ()\n"),
        ("5", true, "1 1 by will (k:v)text\n"),
        ("311", false, ""),
        ("5", false, "1 1 by will (k:v)text\n"),
    ] {
        for whose in ["ours", "debian"] {
            let id = format!("{whose}-{version}-{is_killed}");
            let mut command = if whose == "ours" { tool("mosquitto_sub", broker.port) } else { debian("mosquitto_sub") };
            command.args(["-h", "127.0.0.1", "-p", &broker.port.to_string(), "-V", version, "-i", &id]).args(with_will);
            if version == "5" {
                command.args(properties);
            }
            let mut child = spawn(if is_killed { &mut command } else { command.args(["-W", "1"]) });
            if is_killed {
                broker.wait_for_log(&format!("as {id} "));
                child.kill().expect("it dies");
            }
            let _ = child.wait();
            broker.wait_for_log(&format!("Client {id} "));
            let mut reader = tool("mosquitto_sub", broker.port);
            // Retained, and so there whenever it is asked for; taken away for the next case.
            let reader =
                reader.args(["-t", "gone", "-q", "2", "-V", "5", "-C", "1", "-W", "1", "--remove-retained", "-F", "%q %r %p (%P)%C"]);
            assert_eq!(run(reader).1, delivered, "{id}");
        }
    }
}

/// What is printed of the time, with the digits that change within a second masked. Both are asked until they fall into one second.
#[test]
fn times_are_printed_as_debians_tool_prints_them() {
    let peer = Peer::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let port = peer.port.to_string();
    assert_eq!(run(tool("mosquitto_pub", peer.port).args(["-t", "r", "-m", "x", "-r", "-q", "1"])).0, 0);
    let format = "%I|%30I|%-30I|%030I|%.10I|%12.4I|%-12.4I|%U|%40U|@N|@s|@a|@A|@b|@B|@c|@C|@d|@D|@e|@F|@g|@G|@h|@H|@I|@j|@k|@l|@m|@M|@n|@p|@P|@r|@R|@S|@t|@T|@u|@U|@V|@w|@W|@x|@X|@y|@Y|@z|@Z|@%|@@";
    let masked = |text: &str| -> String {
        let mut masked = String::new();
        for field in text.split('|') {
            // Nine digits behind a point or alone are nanoseconds.
            let digits = field.chars().filter(char::is_ascii_digit).count();
            let mut after_point = digits == 9 && field.len() == 9;
            for letter in field.chars() {
                masked.push(if letter.is_ascii_digit() && after_point { '#' } else { letter });
                after_point = (after_point && letter.is_ascii_digit()) || letter == '.';
            }
            masked.push('|');
        }
        masked
    };
    for zone in ["UTC", "Europe/Berlin", "America/St_Johns", "XYZ-5:30"] {
        let print = |mut command: Command| {
            let (code, stdout, stderr) =
                run(command.args(["-h", "127.0.0.1", "-p", &port, "-t", "r", "-C", "1", "-W", "20", "-F", format]).env("TZ", zone));
            assert_eq!((code, stderr.as_str()), (0, ""));
            masked(&stdout)
        };
        let (mut ours, mut debians) = (String::new(), String::new());
        for _ in 0..20 {
            ours = print(tool("mosquitto_sub", peer.port));
            debians = print(debian("mosquitto_sub"));
            if ours == debians {
                break;
            }
        }
        assert_eq!(ours, debians, "{zone}");
        assert!(ours.contains(".#########|") && ours.contains("|#########|"), "{ours}");
    }
}
