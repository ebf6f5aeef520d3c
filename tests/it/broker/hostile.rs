//! Peers that send nonsense, read nothing, or come in crowds.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::Started;
use super::client::{Client, Ended};
use crate::support::process::{Broker, Folder, darner, free_port, wait_until};

const OPEN: &str = "listener {port} 127.0.0.1\nallow_anonymous true\n";

fn rss_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the broker runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn nonsense_ends_its_own_connection_and_no_other() {
    let broker = Broker::start(OPEN);
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe("t");
    let mut writer = Client::connect(broker.port, "writer");
    let before_connect: &[&[u8]] =
        &[b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &[0x10, 0x80, 0x80, 0x80, 0x80, 0x01], &[0x30, 0x02, 0, 0], &[0; 9]];
    for bytes in before_connect {
        let mut hostile = Client::silent(broker.port);
        hostile.socket.write_all(bytes).unwrap();
        assert_eq!(hostile.receive_bytes(), Err(Ended), "{bytes:?}");
    }
    let after_connect: &[&[u8]] =
        &[&[0x36, 3, 0, 1, b't'], &[0x82, 2, 0, 0], &[0x30, 3, 0, 1, 0xff], &[0xf0, 0], &[0x30, 5, 0, 3, b'a', b'/', b'#']];
    for bytes in after_connect {
        let mut hostile = Client::connect(broker.port, "hostile");
        hostile.socket.write_all(bytes).unwrap();
        hostile.wait_for_end();
    }
    writer.publish("t", b"still here");
    assert_eq!(reader.receive_payload(), b"still here");
}

#[test]
fn a_packet_in_single_bytes_is_a_packet() {
    let broker = Broker::start(OPEN);
    let mut client = Client::connect(broker.port, "slow");
    client.subscribe("t");
    for byte in [0x30, 7, 0, 1, b't', b'd', b'r', b'i', b'p'] {
        client.socket.write_all(&[byte]).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(client.receive_payload(), b"drip");
}

#[test]
fn a_large_packet_arrives_whole() {
    let broker = Broker::start(OPEN);
    let mut client = Client::connect(broker.port, "large");
    client.subscribe("t");
    let payload: Vec<u8> = (0..1_500_000_u32).map(|number| (number % 251) as u8).collect();
    let mut writer = Client::connect(broker.port, "writer");
    for _ in 0..3 {
        writer.publish("t", &payload);
        assert!(client.receive_payload() == payload, "the payload is unchanged");
    }
}

#[test]
fn nobody_is_given_memory_for_a_length_he_only_announces() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nmax_packet_size 100000000\n");
    let mut clients: Vec<_> = (0..50).map(|number| Client::connect(broker.port, &format!("c{number}"))).collect();
    let before = rss_kib(broker.pid());
    for client in &mut clients {
        // A PUBLISH of 96 MB, of which nothing follows.
        client.socket.write_all(&[0x30, 0x80, 0x80, 0x80, 0x2e, 0, 1, b't']).unwrap();
    }
    Client::connect(broker.port, "last").ping();
    assert!(rss_kib(broker.pid()) < before + 4096);
    let mut stranger = Client::silent(broker.port);
    stranger.socket.write_all(&[0x10, 0x80, 0x80, 0x80, 0x2e, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60]).unwrap();
    assert_eq!(stranger.receive_bytes(), Err(Ended), "a CONNECT of 96 MB");
}

#[test]
fn a_subscriber_who_does_not_read_costs_a_bounded_amount() {
    let broker = Broker::start(OPEN);
    let mut reader = Client::connect(broker.port, "asleep");
    reader.subscribe("t");
    let mut writer = Client::connect(broker.port, "writer");
    let payload = vec![7; 10_000];
    for _ in 0..100 {
        for _ in 0..100 {
            writer.publish("t", &payload);
        }
        writer.ping();
    }
    let rss = rss_kib(broker.pid());
    assert!(rss < 40_000, "{rss} KiB after 100 MB to a client that does not read");
    // And when he wakes up, he is served again.
    while reader.receive_payload().len() != 4 {
        writer.publish("t", b"wake");
    }
}

#[test]
fn a_broker_out_of_descriptors_serves_on_when_some_are_free_again() {
    let folder = Folder::new("emfile");
    let port = free_port();
    let conf = folder.write("c.conf", format!("listener {port} 127.0.0.1\nallow_anonymous true\n"));
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let script = format!("ulimit -n 40; exec {} broker -c {}", darner().display(), conf.display());
    let child = Started(Command::new("sh").args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
    wait_until("the broker to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut first = Client::connect(port, "first");
    let crowd: Vec<_> = (0..60).map(|_| Client::silent(port)).collect();
    let said = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    wait_until("the broker to complain", || said().contains("Unable to accept new connections"));
    first.ping();
    drop(crowd);
    Client::connect(port, "later").ping();
    assert_eq!(said().matches("Unable to accept").count(), 1, "once, not in a loop");
    child.stop();
}

#[test]
fn global_max_connections_counts_over_all_listeners() {
    let second = free_port();
    let conf = "listener {port} 127.0.0.1\nlistener SECOND 127.0.0.1\nallow_anonymous true\nglobal_max_connections 2\n";
    let broker = Broker::start(&conf.replace("SECOND", &second.to_string()));
    let log_in = |port, id| Client::log_in(port, id, None, darner::mqtt::ProtocolVersion::V311);
    // The test's own probe of the port has to be gone first.
    wait_until("one to be let in at each", || {
        let (mut one, first) = log_in(broker.port, "one");
        let (two, other) = log_in(second, "two");
        if (first, other) != (Some(0), Some(0)) {
            return false;
        }
        for port in [broker.port, second] {
            assert_eq!(log_in(port, "three").1, None, "closed without an answer");
        }
        one.ping();
        drop(two);
        wait_until("room at the first for who left the second", || log_in(broker.port, "three").1 == Some(0));
        one.ping();
        true
    });
    broker.wait_for_log("Client connection from 127.0.0.1 denied: max_connections exceeded.");
}

#[test]
fn max_connections_turns_away_who_comes_too_late() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nmax_connections 2\n");
    // The test's own probe of the port has to be gone first.
    wait_until("two to be let in", || {
        let (one, first) = Client::log_in(broker.port, "one", None, darner::mqtt::ProtocolVersion::V311);
        let (two, second) = Client::log_in(broker.port, "two", None, darner::mqtt::ProtocolVersion::V311);
        if (first, second) != (Some(0), Some(0)) {
            return false;
        }
        let (_, third) = Client::log_in(broker.port, "three", None, darner::mqtt::ProtocolVersion::V311);
        assert_eq!(third, None, "closed without an answer");
        drop((one, two));
        true
    });
    broker.wait_for_log("Client connection from 127.0.0.1 denied: max_connections exceeded.");
    wait_until("room for another", || Client::log_in(broker.port, "four", None, darner::mqtt::ProtocolVersion::V311).1 == Some(0));
}
