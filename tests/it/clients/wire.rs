//! What the tools say to a broker, byte by byte, and what comes of its answers: ours beside Debian's 2.0.11, before a broker that is played
//! by hand.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use darner::mqtt::codec::{Decoded, decode_from_client, encode};
use darner::mqtt::{Ack, Packet, Properties, ProtocolVersion, Qos, ReasonCode, Suback, Unsuback};

use crate::support::peer::debian;
use crate::support::process::{darner, run};

/// How the broker is.
#[derive(Clone, Copy)]
struct Manner {
    /// The code of CONNACK; `None` says nothing at all.
    connack: Option<u8>,
    /// What is sent instead of an answer to PUBLISH or SUBSCRIBE.
    instead: &'static [u8],
    /// Reason Code of PUBACK, PUBREC, SUBACK and UNSUBACK; `None` leaves them out.
    answer: Option<ReasonCode>,
    pings: bool,
}

const KIND: Manner = Manner { connack: Some(0), instead: &[], answer: Some(ReasonCode::Success), pings: true };

/// Serves one connection to its end and gives back each packet that came, in hex.
fn serve(mut stream: TcpStream, manner: Manner) -> Vec<String> {
    let (mut version, mut incoming, mut said) = (ProtocolVersion::V311, Vec::new(), Vec::new());
    let mut buffer = [0; 4096];
    loop {
        let mut answers = Vec::new();
        while let Ok(Decoded::Packet { packet, len }) = decode_from_client(&incoming, version, u32::MAX) {
            if let Packet::Connect(connect) = &packet {
                version = connect.version;
            }
            answer(&packet, version, manner, &mut answers);
            said.push(incoming.drain(..len).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
        }
        if !answers.is_empty() && stream.write_all(&answers).is_err() {
            return said;
        }
        match stream.read(&mut buffer) {
            Ok(len @ 1..) => incoming.extend_from_slice(&buffer[..len]),
            Ok(_) | Err(_) => return said,
        }
    }
}

fn answer(packet: &Packet<'_>, version: ProtocolVersion, manner: Manner, out: &mut Vec<u8>) {
    let none = Properties::new();
    let packet = match (packet, manner.answer) {
        (Packet::Connect(_), _) => {
            let Some(code) = manner.connack else { return };
            let bytes: &[u8] = if version == ProtocolVersion::V5 { &[0x20, 3, 0, code, 0] } else { &[0x20, 2, 0, code] };
            return out.extend_from_slice(bytes);
        }
        (Packet::Publish(_) | Packet::Subscribe(_), None) => return out.extend_from_slice(manner.instead),
        (Packet::Pingreq, _) if manner.pings => Packet::Pingresp,
        (Packet::Publish(publish), Some(reason)) => {
            let Some(packet_id) = publish.packet_id else { return };
            let ack = Ack { packet_id, reason, properties: none };
            if publish.qos == Qos::ExactlyOnce { Packet::Pubrec(ack) } else { Packet::Puback(ack) }
        }
        (Packet::Pubrel(ack), Some(_)) => Packet::Pubcomp(Ack { packet_id: ack.packet_id, reason: ReasonCode::Success, properties: none }),
        (Packet::Subscribe(subscribe), Some(reason)) => {
            let reasons = vec![reason; subscribe.subscriptions.len()];
            Packet::Suback(Suback { packet_id: subscribe.packet_id, reasons, properties: none })
        }
        (Packet::Unsubscribe(unsubscribe), Some(reason)) => {
            let reasons = vec![reason; unsubscribe.filters.len()];
            Packet::Unsuback(Unsuback { packet_id: unsubscribe.packet_id, reasons, properties: none })
        }
        _ => return,
    };
    encode(&packet, version, out);
}

/// Exit code, stdout, stderr, and the packets of each connection.
type Outcome = (i32, String, String, Vec<Vec<String>>);

/// Longest run of a tool; one that hangs ends with 124.
const PATIENCE_SECS: &str = "30";

/// `tool`: the program, and what its command line begins with.
fn play(tool: &[&OsStr], line: &str, stdin: &str, manner: Manner) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = std::thread::spawn(move || {
        let mut connections = Vec::new();
        // A connection that says nothing is the test's own, and the last.
        for stream in listener.incoming().map_while(Result::ok) {
            let said = serve(stream, manner);
            if said.is_empty() {
                break;
            }
            connections.push(said);
        }
        connections
    });
    let words = line.split(' ').skip(1).map(|word| word.replace('_', " "));
    let mut command = Command::new("timeout");
    command.arg(PATIENCE_SECS).args(tool).args(["-h", "127.0.0.1", "-p", &port.to_string()]).args(words);
    command.env("HOME", "/nonexistent").env("TZ", "UTC").env_remove("XDG_CONFIG_HOME");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tool starts");
    let _ = child.stdin.take().expect("piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("the tool ends");
    drop(TcpStream::connect(("127.0.0.1", port)));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr), serving.join().expect("served"))
}

fn ours_and_debians(line: &str, stdin: &str, manner: Manner) -> [Outcome; 2] {
    let tool = OsStr::new(line.split(' ').next().expect("a tool"));
    let (ours, debians) = (darner(), debian(&tool.to_string_lossy()));
    [play(&[ours.as_os_str(), tool], line, stdin, manner), play(&[debians.get_program()], line, stdin, manner)]
}

const SAYS_MORE: &[&str] = &[
    "Error: the broker did not answer within the keep alive time.\n",
    "Error: The broker ended the connection: Server shutting down.\n",
    "Error: The broker ended the connection: Session taken over.\n",
];
const WORDLESS: &[&str] = &["Error: Unknown error.\n", "Error: The client is not currently connected.\n", ""];

/// Both do the same for every case, and it ends with the exit code that is expected, where one is.
fn compare(cases: &[(&str, &str, Manner, Option<i32>)]) {
    let (next, differences) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some((line, stdin, manner, code)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let [ours, debians] = ours_and_debians(line, stdin, *manner);
            let unexpected = code.is_some_and(|code| code != debians.0);
            // Ours says why where Debian's has no words for it.
            let says_more = SAYS_MORE.contains(&ours.2.as_str()) && WORDLESS.contains(&debians.2.as_str());
            if (ours.0, &ours.1, &ours.3) != (debians.0, &debians.1, &debians.3) || (ours.2 != debians.2 && !says_more) || unexpected {
                differences.lock().expect("a lock").push(format!("{line}\n  ours:     {ours:?}\n  Debian's: {debians:?}"));
            }
        }
    };
    // Several at a time, as each waits more than it works.
    std::thread::scope(|scope| (0..8).for_each(|_| drop(scope.spawn(work))));
    let differences = differences.into_inner().expect("a lock");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// `_` stands for a space within a word.
const SAID: &[(&str, &str)] = &[
    ("mosquitto_pub -i me -t a -m hi", ""),
    ("mosquitto_pub -i me -t a -m hi -q 1 -r -V 31", ""),
    ("mosquitto_pub -i me -t a -m hi -q 2 -k 10 -c -u name -P word", ""),
    ("mosquitto_pub -t a -m hi -V 5 -x 30", ""),
    ("mosquitto_pub -i me -t a -n -r", ""),
    ("mosquitto_pub -i me -t a -s", "all of it\nin one message\n"),
    ("mosquitto_pub -i me -t a --stdin-file -q 1 -r", "no line end"),
    ("mosquitto_pub -i me -t a --stdin-line", "one\ntwo\n"),
    ("mosquitto_pub -i me -t a -m x --repeat 3 --repeat-delay 0.1", ""),
    ("mosquitto_pub -i me -t a -m x --nodelay --quiet", ""),
    ("mosquitto_pub -i me -t a -m x --will-topic w --will-payload gone --will-qos 2 --will-retain", ""),
    ("mosquitto_pub -i me -t a -m x --will-topic w", ""),
    // Properties of every packet.
    ("mosquitto_pub -i me -t a -m x -D connect session-expiry-interval 9", ""),
    ("mosquitto_pub -i me -t a -m x -D connect receive-maximum 5 -D connect maximum-packet-size 1000 -D connect topic-alias-maximum 3", ""),
    ("mosquitto_pub -i me -t a -m x -D connect request-problem-information 0 -D connect request-response-information 1", ""),
    ("mosquitto_pub -i me -t a -m x -D connect authentication-method plain -D connect authentication-data secret", ""),
    ("mosquitto_pub -i me -t a -m x -D connect user-property k v -D connect user-property k w", ""),
    ("mosquitto_pub -i me -t a -m x -D publish message-expiry-interval 60 -D publish content-type text/plain", ""),
    (
        "mosquitto_pub -i me -t a -m x -q 1 -D publish payload-format-indicator 1 -D publish response-topic b -D publish correlation-data 77",
        "",
    ),
    ("mosquitto_pub -i me -t a -m x -q 2 -D publish user-property k v --property publish topic-alias 4 --repeat 2", ""),
    ("mosquitto_pub -i me -t a -m x -D disconnect user-property k v -D disconnect reason-string bye", ""),
    ("mosquitto_pub -i me -t a -m x -x 5 -D disconnect session-expiry-interval 7", ""),
    ("mosquitto_pub -i me -t a -m x --will-topic w -D will will-delay-interval 4 -D will user-property k v", ""),
    ("mosquitto_pub -i me -t a -m x --will-topic w --will-payload p -D will message-expiry-interval 4 -D will content-type c", ""),
    (
        "mosquitto_pub -i me -t a -m x --will-topic w -D will response-topic r -D will correlation-data d -D will payload-format-indicator 1",
        "",
    ),
    ("mosquitto_sub -i me -t a -E -D subscribe user-property k v -D subscribe subscription-identifier 9", ""),
    ("mosquitto_sub -i me -t a -W 1 -U b -D unsubscribe user-property k v", ""),
    ("mosquitto_sub -i me -t a -E -D disconnect user-property k v", ""),
    ("mosquitto_sub -i me -t a -E -D connect maximum-packet-size 100 -D connect session-expiry-interval 4294967295", ""),
    ("mosquitto_sub -i me -t a -E -x ∞", ""),
    ("mosquitto_sub -i me -t a -E -V 5 -c", ""),
    // Subscriptions.
    ("mosquitto_sub -i me -t a -t b/+ -t c/# -q 2 -E", ""),
    ("mosquitto_sub -i me -t a -E -V 5 -R", ""),
    ("mosquitto_sub -i me -t a -E -V 5 --retain-as-published -q 1", ""),
    ("mosquitto_sub -i me -t a -E -R --remove-retained -c", ""),
    ("mosquitto_sub -i me -t a -W 1 --unsubscribe b -U c", ""),
    ("mosquitto_sub -i me -U a -W 1", ""),
    ("mosquitto_sub -i me -t a -E --will-topic w --will-payload gone -V 5", ""),
    ("mosquitto_sub -i me -t a -W 1 --will-topic w --will-payload gone -V 5", ""),
    ("mosquitto_sub -t a -C 3 -V 5 -W 1", ""),
    ("mosquitto_sub -t a -C 300 -V 5 -W 1", ""),
    // Refused before anything is said.
    ("mosquitto_pub -i me -t a -m x -D auth user-property k v", ""),
    ("mosquitto_pub -i me -t a -m x -D auth authentication-method k", ""),
    ("mosquitto_pub -i me -t a -m x -D puback user-property k v", ""),
    ("mosquitto_sub -i me -t a -D pubrec reason-string v", ""),
    ("mosquitto_sub -i me -t a -D pubrel user-property k v", ""),
    ("mosquitto_sub -i me -t a -D pubcomp user-property k v", ""),
    ("mosquitto_sub -i me -t a -D connect maximum-packet-size 0 -E", ""),
    ("mosquitto_pub -i me -t a -m x -D will user-property k v", ""),
];

#[test]
fn the_packets_are_those_of_debians_tools_byte_by_byte() {
    let cases: Vec<_> = SAID.iter().map(|(line, stdin)| (*line, *stdin, KIND, None)).collect();
    compare(&cases);
}

/// Of 2.1; Debian's 2.0.11 does not know it.
#[test]
fn retain_handling_is_asked_for_as_named() {
    for (option, bits) in [("always", 0x00), ("new", 0x10), ("never", 0x20)] {
        let line = format!("mosquitto_sub -i me -t a -V 5 -q 1 -E --retain-handling {option}");
        let (code, _, stderr, said) = play(&[darner().as_os_str(), OsStr::new("mosquitto_sub")], &line, "", KIND);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(said[0][1], format!("82 07 00 01 00 00 01 61 {:02x}", bits | 1));
    }
    let (code, _, stderr) = run(Command::new(darner()).args(["mosquitto_sub", "-t", "a", "--retain-handling", "often"]));
    assert_eq!(code, 1);
    assert!(stderr.starts_with("Error: Unknown value 'often' for --retain-handling."), "{stderr}");
}

#[test]
fn every_refusal_in_connack_is_the_exit_code() {
    let lines = ["mosquitto_pub -i me -t a -m x", "mosquitto_sub -i me -t a -W 5"];
    let mut cases = Vec::new();
    for (version, codes) in [
        ("-V 31", &[1, 2, 3, 4, 5, 6][..]),
        ("-V 311", &[1, 2, 3, 4, 5, 6, 200]),
        (
            "-V 5",
            &[0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8c, 0x90, 0x95, 0x97, 0x99, 0x9a, 0x9b, 0x9c, 0x9d, 0x9f],
        ),
    ] {
        for line in lines {
            for code in codes {
                cases.push((format!("{line} {version}"), *code));
            }
        }
    }
    let cases: Vec<_> =
        cases.iter().map(|(line, code)| (line.as_str(), "", Manner { connack: Some(*code), ..KIND }, Some(i32::from(*code)))).collect();
    compare(&cases);
}

#[test]
fn a_broker_that_goes_silent_or_says_no_ends_the_tools_with_debians_codes() {
    let silent = Manner { connack: None, ..KIND };
    let deaf = Manner { answer: None, pings: false, ..KIND };
    let refusing = Manner { answer: Some(ReasonCode::NotAuthorized), ..KIND };
    // DISCONNECT of the server, and bytes that are none.
    let leaving = Manner { instead: &[0xe0, 1, 0x8b], answer: None, ..KIND };
    let taken_over = Manner { instead: &[0xe0, 1, 0x8e], answer: None, ..KIND };
    let confused = Manner { instead: &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff], answer: None, ..KIND };
    compare(&[
        // Before CONNACK, as mosquitto_sub has it: -1.
        ("mosquitto_sub -i me -t a -W 1", "", silent, Some(255)),
        ("mosquitto_sub -i me -t a -W 1 -V 5", "", silent, Some(255)),
        ("mosquitto_sub -i me -t a -W 1", "", KIND, Some(27)),
        ("mosquitto_sub -i me -t a -W 1", "", deaf, Some(27)),
        // No PINGRESP within the keep alive.
        ("mosquitto_pub -i me -t a -m x -q 1 -k 5", "", deaf, Some(19)),
        ("mosquitto_pub -i me -t a -m x -q 2 -k 5 -V 5", "", deaf, Some(19)),
        ("mosquitto_pub -i me -t a -m x -q 1 -V 5", "", refusing, Some(0)),
        ("mosquitto_pub -i me -t a -m x -q 2 -V 5", "", refusing, Some(0)),
        ("mosquitto_sub -i me -t a -V 5 -W 3", "", refusing, None),
        ("mosquitto_sub -i me -t a -t b -V 5 -W 3 -d", "", refusing, None),
        ("mosquitto_pub -i me -t a -m x -q 1 -V 5", "", leaving, Some(4)),
        ("mosquitto_sub -i me -t a -V 5 -W 9", "", taken_over, Some(0)),
        ("mosquitto_pub -i me -t a -m x -q 1", "", confused, None),
        ("mosquitto_sub -i me -t a -W 3", "", confused, None),
    ]);
    // Nor does mosquitto_pub -l come back to a session that another client took over.
    let ours = play(
        &[darner().as_os_str(), OsStr::new("mosquitto_pub")],
        "mosquitto_pub -i me -t a -l -q 1 -V 5",
        "line\n",
        Manner { instead: &[0xe0, 1, 0x8e], ..leaving },
    );
    assert_eq!((ours.0, ours.2.as_str(), ours.3.len()), (4, "Error: The broker ended the connection: Session taken over.\n", 1));
    // Debian's mosquitto_sub ends with 0 whatever the broker says; ours comes back, as both do in version 3.
    let [ours, debians] = ours_and_debians("mosquitto_sub -i me -t a -V 5 -W 3", "", leaving);
    assert_eq!((debians.0, debians.3.len()), (0, 1));
    assert_eq!((ours.0, ours.2.as_str()), (27, "Timed out\n"));
    assert!(ours.3.len() > 1, "{ours:?}");
}
