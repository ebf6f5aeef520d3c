//! The hostile network of `make limits`, small: what it costs in memory is asserted, what it costs in time is not.

#[allow(dead_code)]
#[path = "../../benches/limits/hostile.rs"]
mod hostile;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::process::{Broker, Folder, free_port};
use hostile::{CASES, Case};

const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\0\0\x01b";

/// MiB.
fn memory(broker: &Broker, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

fn ping(bystander: &mut TcpStream) {
    bystander.write_all(&[0xc0, 0]).expect("the broker reads");
    let mut answer = [0; 2];
    bystander.read_exact(&mut answer).expect("an answer");
    assert_eq!(answer, [0xd0, 0]);
}

#[track_caller]
fn stays_within_its_bound(name: &str) {
    let case: &Case = CASES.iter().find(|case| case.name == name).expect("a case");
    let (folder, attacked) = (Folder::new("limits"), free_port());
    // The port is the broker's to choose.
    let conf = hostile::configuration(case, folder.path(), 1, attacked).replace("listener 1 ", "listener {port} ");
    let broker = Broker::start_in(folder, &conf);
    let mut bystander = TcpStream::connect(("127.0.0.1", broker.port)).expect("the broker listens");
    bystander.write_all(CONNECT).expect("the broker reads");
    bystander.read_exact(&mut [0; 4]).expect("CONNACK");
    let before = memory(&broker, "VmRSS:");
    let held = (case.attack)(attacked, case.small);
    ping(&mut bystander);
    drop(held);
    ping(&mut bystander);
    let grown = memory(&broker, "VmHWM:") - before;
    assert!(grown <= case.small_bound_mib as f64, "{name}: {grown:.1} MiB of {}", case.small_bound_mib);
}

#[test]
fn half_open_connections_stay_within_their_bound() {
    stays_within_its_bound("half-open connections");
}

#[test]
fn tls_handshakes_that_stop_stay_within_their_bound() {
    stays_within_its_bound("TLS handshakes that stop");
}

#[test]
fn a_slow_connect_stays_within_its_bound() {
    stays_within_its_bound("slow CONNECT");
}

#[test]
fn endless_headers_stay_within_their_bound() {
    stays_within_its_bound("endless headers");
}

#[test]
fn topics_of_200_levels_stay_within_their_bound() {
    stays_within_its_bound("200-level topics");
}

#[test]
fn subscriptions_of_one_client_stay_within_their_bound() {
    stays_within_its_bound("subscriptions");
}

#[test]
fn topic_names_stay_within_their_bound() {
    stays_within_its_bound("topic names");
}

#[test]
fn a_subscriber_that_never_reads_stays_within_its_bound() {
    stays_within_its_bound("subscriber that never reads");
}

#[test]
fn every_case_is_described_in_docs_limits() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/limits.md")).expect("the page");
    for case in CASES {
        assert!(
            page.contains(&format!("| {} | {} |\n", case.name, case.does)),
            "docs/limits.md describes {:?} as the table does",
            case.name
        );
        let bound = format!("| {} | {} | ", case.name, case.bound_mib);
        assert!(page.contains(&bound), "docs/limits.md has figures for the bound of {:?}: make limits", case.name);
    }
    assert_eq!(page.matches("\n| ").count(), 2 + 1 + 1 + 4 * CASES.len(), "docs/limits.md has no other case");
}
