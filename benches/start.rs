//! How long a broker takes to be there again: 1,000,000 retained messages of 100 bytes are kept, the broker ends in order and starts, and a
//! client has its first CONNACK. `make bench-start`. Each broker has the machine to itself, three times; the middle one counts.

#![allow(unreachable_pub, dead_code)]

#[path = "load/broker.rs"]
mod broker;
#[path = "load/client.rs"]
mod client;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use broker::Broker;
use client::{Client, Event};
use darner::mqtt::Qos;

const MESSAGES: usize = 1_000_000;
const PAYLOAD: [u8; 100] = [b'x'; 100];
/// Not acknowledged at a time.
const WINDOW: usize = 1_000;
const ROUNDS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

struct Outcome {
    seconds: f64,
    resident_mib: f64,
    file_mib: f64,
}

fn fill(port: u16) {
    let mut client = Client::connect(port, "filler");
    let (mut acknowledged, mut scratch) = (0, vec![0; 64 << 10]);
    for sent in 0..MESSAGES {
        client.publish_retained(&format!("house/{:03}/sensor/{sent}", sent % 1000), Qos::AtLeastOnce, &PAYLOAD);
        client.write();
        while sent + 1 - acknowledged >= WINDOW || (sent + 1 == MESSAGES && acknowledged < MESSAGES) {
            client.read(&mut scratch, |event| acknowledged += usize::from(matches!(event, Event::Acknowledged)));
        }
    }
}

/// From the start of the process to the first CONNACK.
fn start(broker: &mut Broker, program: &[String]) -> f64 {
    let began = Instant::now();
    broker.begin_again(program);
    while TcpStream::connect(("127.0.0.1", broker.port)).is_err() {
        assert!(began.elapsed() < PATIENCE, "it listens");
        std::thread::sleep(Duration::from_millis(2));
    }
    let client = Client::connect(broker.port, "first");
    let seconds = began.elapsed().as_secs_f64();
    drop(client);
    seconds
}

fn measure(program: &[String]) -> Outcome {
    let mut broker = Broker::start_with(program, true);
    fill(broker.port);
    let mut outcomes: Vec<Outcome> = (0..ROUNDS)
        .map(|_| {
            broker.end();
            let seconds = start(&mut broker, program);
            std::thread::sleep(Duration::from_secs(1));
            Outcome { seconds, resident_mib: broker.rss_kib() / 1024.0, file_mib: broker.kept_bytes() as f64 / f64::from(1 << 20) }
        })
        .collect();
    outcomes.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    outcomes.swap_remove(ROUNDS / 2)
}

fn main() {
    broker::pin(0, broker::LOAD_CORE);
    let outcomes: Vec<(&str, Outcome)> = Broker::installed().iter().map(|(name, program)| (*name, measure(program))).collect();
    println!("{MESSAGES} retained messages of {} bytes\n", PAYLOAD.len());
    println!("| | from start to the first CONNACK | resident after that | file |\n|---|---|---|---|");
    for (name, outcome) in &outcomes {
        println!("| {name} | {:.1} s | {:.0} MiB | {:.0} MiB |", outcome.seconds, outcome.resident_mib, outcome.file_mib);
    }
    if let [(_, ours), (_, theirs)] = outcomes.as_slice() {
        let ratio = |ours: f64, theirs: f64| ours / theirs;
        let (seconds, resident) = (ratio(ours.seconds, theirs.seconds), ratio(ours.resident_mib, theirs.resident_mib));
        println!("| ratio | {seconds:.2} | {resident:.2} | {:.2} |", ratio(ours.file_mib, theirs.file_mib));
    }
}
