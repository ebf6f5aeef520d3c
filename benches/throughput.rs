//! darner with either engine and Debian's mosquitto side by side, in one run: deliveries per second of the broker's CPU, and memory of idle connections.
//! Scenarios that say `kept` have durable subscribers at brokers with `persistence true`, ours at the level `process`.
//! The broker runs on one core, the load on another. CPU seconds come from schedstat and are exact; wall clock times would tell more
//! about the machine's other work. `make bench`, or `cargo bench --bench throughput -- [SCENARIO] [SECONDS]`.

#![allow(unreachable_pub, dead_code)]

#[path = "load/broker.rs"]
mod broker;
#[path = "load/client.rs"]
mod client;
#[path = "load/scenario.rs"]
mod scenario;

use std::path::Path;

use broker::Broker;
use scenario::{Figures, KEPT_SCENARIOS, SCENARIOS, Scenario};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let seconds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(3.0);
    let only = words.iter().find(|word| word.parse::<f64>().is_err());
    let mut brokers = Broker::installed();
    let toml = std::env::temp_dir().join(format!("darner-bench-{}.toml", std::process::id()));
    std::fs::write(&toml, "engine = \"rumqttd\"\n[rumqttd]\naccept_limits = true\n").expect("darner.toml");
    brokers.insert(1, with_rumqttd(&toml));
    broker::pin(0, broker::LOAD_CORE);
    print!("| scenario |");
    for (name, _) in &brokers {
        print!(" {name} |");
    }
    println!(" darner ÷ mosquitto |\n|---|{}---|", "---|".repeat(brokers.len()));
    for scenario in SCENARIOS.iter().filter(|scenario| only.is_none_or(|only| scenario.name.contains(only.as_str()))) {
        row(scenario.name, &brokers, |program| run(program, scenario, seconds).per_cpu_second);
    }
    for scenario in KEPT_SCENARIOS.iter().filter(|scenario| only.is_none_or(|only| scenario.name.contains(only.as_str()))) {
        let figures: Vec<Figures> = brokers.iter().map(|(_, program)| run(program, scenario, seconds)).collect();
        let cells = |value: fn(&Figures) -> f64| figures.iter().map(value).collect::<Vec<_>>();
        show(scenario.name, &cells(|figures| figures.per_cpu_second));
        show(&format!("{}: by the clock", scenario.name), &cells(|figures| figures.per_second));
    }
    if only.is_none_or(|only| only == "idle") {
        row("idle: bytes per connection", &brokers, |program| -idle(program));
        row("idle: RSS kB with 1000", &brokers, |program| -idle_rss(program));
    }
    let _ = std::fs::remove_file(toml);
}

/// Ours with the second engine.
fn with_rumqttd(toml: &Path) -> (&'static str, Vec<String>) {
    let choice = format!("DARNER_CONFIG={}", toml.display());
    ("darner with rumqttd", ["/usr/bin/env", &choice, env!("CARGO_BIN_EXE_darner"), "broker"].map(str::to_owned).to_vec())
}

/// Negative numbers are those where less is better.
fn row(name: &str, brokers: &[(&str, Vec<String>)], measure: impl Fn(&[String]) -> f64) {
    show(name, &brokers.iter().map(|(_, program)| measure(program)).collect::<Vec<_>>());
}

fn show(name: &str, figures: &[f64]) {
    print!("| {name} |");
    for figure in figures {
        print!(" {:.0} |", figure.abs());
    }
    match *figures {
        [ours, _, theirs] if ours < 0.0 => println!(" {:.1}× |", theirs / ours),
        [ours, _, theirs] => println!(" {:.1}× |", ours / theirs),
        _ => println!(" |"),
    }
}

fn run(program: &[String], scenario: &Scenario, seconds: f64) -> Figures {
    let broker = Broker::start_with(program, scenario.is_kept());
    scenario::run(&broker, scenario, seconds)
}

const IDLE: usize = 1000;

fn idle(program: &[String]) -> f64 {
    let broker = Broker::start(program);
    let before = broker.rss_kib();
    let clients: Vec<_> = (0..IDLE).map(|number| client::Client::connect(broker.port, &format!("idle-{number}"))).collect();
    let after = broker.rss_kib();
    drop(clients);
    (after - before) * 1024.0 / IDLE as f64
}

fn idle_rss(program: &[String]) -> f64 {
    let broker = Broker::start(program);
    let clients: Vec<_> = (0..IDLE).map(|number| client::Client::connect(broker.port, &format!("idle-{number}"))).collect();
    let rss = broker.rss_kib();
    drop(clients);
    rss
}
