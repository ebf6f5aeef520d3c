//! What a stranger may try: work without end, memory without end, and somebody else's messages. Bytes are written by hand here, since
//! no honest client sends them.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::process::{Broker, Folder, darner, run};

const OPEN: &str = "user root\nlistener {port} 127.0.0.1\nallow_anonymous true\nmax_packet_size 4000000\nlog_type error\n";

/// A connection on which whole packets are written and read.
struct Raw(TcpStream);

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u16).to_be_bytes()[..], value.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut rest = body.len();
    loop {
        bytes.push((rest % 128) as u8 | if rest >= 128 { 128 } else { 0 });
        rest /= 128;
        if rest == 0 {
            break;
        }
    }
    [&bytes, body].concat()
}

fn connect(version: u8, clean: bool, id: &str, login: Option<(&str, &str)>) -> Vec<u8> {
    let flags = u8::from(clean) << 1 | if login.is_some() { 0xc0 } else { 0 };
    let mut body = [&text("MQTT")[..], &[version, flags, 0, 0]].concat();
    if version == 5 {
        body.push(0);
    }
    body.extend(text(id));
    if let Some((user, password)) = login {
        body.extend([text(user), text(password)].concat());
    }
    packet(0x10, &body)
}

/// Version 5.
fn subscribe(filters: impl Iterator<Item = String>) -> Vec<u8> {
    let requests = filters.flat_map(|filter| [&text(&filter)[..], &[0]].concat());
    packet(0x82, &[0, 1, 0].into_iter().chain(requests).collect::<Vec<_>>())
}

fn publish(version: u8, topic: &str, payload: &[u8], retain: bool) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    packet(0x30 | u8::from(retain), &[&text(topic)[..], properties, payload].concat())
}

impl Raw {
    fn open(broker: &Broker, first: &[u8]) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", broker.port)).expect("the broker listens");
        stream.set_read_timeout(Some(Duration::from_mins(1))).expect("a limit");
        let mut raw = Self(stream);
        raw.write(first);
        raw
    }

    fn anonymous(broker: &Broker, version: u8, id: &str) -> Self {
        let mut raw = Self::open(broker, &connect(version, true, id, None));
        assert_eq!(raw.next().0, 0x20, "CONNACK");
        raw
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the broker reads");
    }

    /// The next packet: its first byte and its body.
    fn next(&mut self) -> (u8, Vec<u8>) {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("a packet");
        let first = byte[0];
        let (mut len, mut shift) = (0, 0);
        loop {
            self.0.read_exact(&mut byte).expect("a length");
            len |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.0.read_exact(&mut body).expect("a body");
        (first, body)
    }

    fn ping(&mut self) {
        self.write(&[0xc0, 0]);
        assert_eq!(self.next().0, 0xd0, "PINGRESP");
    }

    fn has_nothing_to_read(&self) -> bool {
        self.0.set_nonblocking(true).expect("asks");
        let answer = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).expect("asks");
        matches!(answer, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

/// The most memory that the broker ever used, in MiB.
fn peak_mib(broker: &Broker) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[test]
fn thousands_of_filters_against_thousands_of_retained_messages_keep_nobody_waiting() {
    let broker = Broker::start(OPEN);
    let mut attacker = Raw::anonymous(&broker, 5, "attacker");
    for number in 0..5_000 {
        attacker.write(&publish(5, &format!("filler/{number}/x"), b"1", true));
    }
    attacker.write(&publish(5, "last", b"1", true));
    attacker.ping();
    let mut bystander = Raw::anonymous(&broker, 5, "bystander");
    attacker.write(&subscribe((0..20_000).map(|number| format!("+/+/{number}")).chain(["last".to_owned()])));
    assert_eq!(attacker.next().0, 0x90, "SUBACK");
    bystander.ping();
    assert!(attacker.has_nothing_to_read(), "the work is not done yet, or the test proves nothing");
    bystander.write(&subscribe(["last".to_owned()].into_iter()));
    assert_eq!(bystander.next().0, 0x90, "SUBACK");
    assert_eq!(bystander.next().0, 0x31, "a retained message has its turn, too");
    assert!(attacker.has_nothing_to_read(), "the work is not done yet, or the test proves nothing");
}

#[test]
fn every_retained_message_comes_when_the_work_is_done_in_parts() {
    let broker = Broker::start(OPEN);
    let mut client = Raw::anonymous(&broker, 5, "client");
    for number in 0..2_000 {
        client.write(&publish(5, &format!("r/{number}"), b"1", true));
    }
    client.write(&subscribe((0..100).map(|number| format!("none/{number}/#")).chain(["r/+".to_owned(), "+/7".to_owned()])));
    assert_eq!(client.next().0, 0x90, "SUBACK");
    for _ in 0..2_001 {
        assert_eq!(client.next().0, 0x31);
    }
    client.ping();
}

#[test]
fn one_message_for_thousands_of_overlapping_subscriptions_costs_no_thousandfold_memory() {
    let broker = Broker::start(OPEN);
    let mut reader = Raw::anonymous(&broker, 5, "reader");
    reader.write(&subscribe((0..3_000).map(|number| format!("$share/{number}/t"))));
    assert_eq!(reader.next().0, 0x90, "SUBACK");
    let mut publisher = Raw::anonymous(&broker, 5, "publisher");
    publisher.write(&publish(5, "t", &vec![b'x'; 200_000], false));
    publisher.ping();
    assert!(peak_mib(&broker) < 100, "{} MiB", peak_mib(&broker));
    assert_eq!(reader.next().0, 0x30, "what fits comes");
}

#[test]
fn large_retained_messages_for_many_filters_wait_their_turn() {
    let broker = Broker::start(OPEN);
    let mut client = Raw::anonymous(&broker, 5, "client");
    for number in 0..20 {
        client.write(&publish(5, &format!("a/b/c/d/{number}"), &vec![b'x'; 500_000], true));
    }
    client.ping();
    // Every way to write + for a level matches all 20.
    let filters = (0..16).map(|bits| {
        let levels = ["a", "b", "c", "d"].iter().enumerate().map(|(at, level)| if bits >> at & 1 == 1 { "+" } else { level });
        format!("{}/+", levels.collect::<Vec<_>>().join("/"))
    });
    client.write(&subscribe(filters));
    assert_eq!(client.next().0, 0x90, "SUBACK");
    for _ in 0..20 * 16 {
        assert_eq!(client.next().0, 0x31);
    }
    assert!(peak_mib(&broker) < 80, "{} MiB", peak_mib(&broker));
}

const LOGIN: &str = "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\n";

fn with_password(name: &str, users: &[&str], iterations: &str) -> Folder {
    let folder = Folder::new(name);
    let file = folder.write("pwfile", "");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    for user in users {
        let arguments = ["mosquitto_passwd", "-H", "sha512-pbkdf2", "-I", iterations, "-b"];
        let (code, _, stderr) = run(Command::new(darner()).args(arguments).arg(&file).args([user, "secret"]));
        assert_eq!((code, stderr.as_str()), (0, ""));
    }
    folder
}

#[test]
fn a_password_file_that_goes_while_a_login_is_checked_lets_nobody_in() {
    let folder = with_password("midway", &["alice"], "400000");
    let broker = Broker::start_in(folder, &format!("{LOGIN}password_file {{folder}}/pwfile\n"));
    let mut stranger = Raw::open(&broker, &connect(4, true, "stranger", Some(("alice", "wrong"))));
    broker.wait_for_log("New connection from 127.0.0.1");
    broker.folder.write("mosquitto.conf", LOGIN.replace("{port}", &broker.port.to_string()));
    broker.signal(Signal::SIGHUP);
    let (first, body) = stranger.next();
    assert_eq!((first, body.as_slice()), (0x20, &[0, 5][..]), "not authorised");
    assert!(broker.log().contains("Reloading config."), "the reload came before the verdict");
}

#[test]
fn a_session_taken_over_by_another_user_does_not_hand_over_what_was_in_flight() {
    let folder = with_password("inherit", &["alice", "bob"], "100");
    folder.write("acl", "user alice\ntopic readwrite #\nuser bob\ntopic readwrite bob/#\n");
    let broker = Broker::start_in(folder, &format!("{LOGIN}password_file {{folder}}/pwfile\nacl_file {{folder}}/acl\n"));
    let mut alice = Raw::open(&broker, &connect(4, false, "device", Some(("alice", "secret"))));
    assert_eq!(alice.next().1, [0, 0]);
    alice.write(&packet(0x82, &[&[0, 1][..], &text("secret/#"), &[1]].concat()));
    assert_eq!(alice.next().0, 0x90);
    alice.write(&packet(0x32, &[&text("secret/1")[..], &[0, 9], b"for alice"].concat()));
    assert!([alice.next().0, alice.next().0].contains(&0x32), "it is in flight");
    drop(alice);
    let mut bob = Raw::open(&broker, &connect(4, false, "device", Some(("bob", "secret"))));
    assert_eq!(bob.next().1, [1, 0]);
    bob.ping();
}
