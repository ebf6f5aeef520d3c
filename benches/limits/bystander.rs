//! A client that has nothing to do with the attack: it sends a message to itself every millisecond, and notes how long each takes.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use darner::mqtt::Qos;

use crate::client::{Client, Event};

const PACE: Duration = Duration::from_millis(1);
pub const CALM: u8 = 0;
pub const ATTACKED: u8 = 1;
pub const STOP: u8 = 2;

/// Microseconds.
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

pub struct Bystander {
    phase: Arc<AtomicU8>,
    thread: JoinHandle<[Vec<Duration>; 2]>,
}

impl Bystander {
    pub fn start(port: u16) -> Self {
        let phase = Arc::new(AtomicU8::new(CALM));
        let shared = Arc::clone(&phase);
        Self { phase, thread: std::thread::spawn(move || send(port, &shared)) }
    }

    pub fn attack_begins(&self) {
        self.phase.store(ATTACKED, Ordering::Relaxed);
    }

    /// How long messages took before the attack, and during it.
    pub fn stop(self) -> (Latency, Latency) {
        self.phase.store(STOP, Ordering::Relaxed);
        let [calm, attacked] = self.thread.join().expect("it ran");
        (Latency::of(calm), Latency::of(attacked))
    }
}

fn send(port: u16, phase: &AtomicU8) -> [Vec<Duration>; 2] {
    go_before_the_attacker();
    let mut client = Client::connect(port, "bystander");
    client.subscribe("bystander/mine", Qos::AtMostOnce);
    let mut samples = [Vec::new(), Vec::new()];
    let mut scratch = vec![0; 4096];
    loop {
        let now = phase.load(Ordering::Relaxed);
        if now == STOP {
            return samples;
        }
        let began = Instant::now();
        client.publish("bystander/mine", Qos::AtMostOnce, b"1");
        client.write();
        let mut arrived = false;
        while !arrived {
            client.read(&mut scratch, |event| arrived |= matches!(event, Event::Message(_)));
        }
        samples[usize::from(now)].push(began.elapsed());
        std::thread::sleep(PACE);
    }
}

/// The attacker shares this client's core and would be measured with the broker, if it could keep this thread waiting.
pub fn go_before_the_attacker() {
    let thread = nix::unistd::gettid().to_string();
    let chrt = Command::new("chrt").args(["-f", "-p", "1", &thread]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !chrt.is_ok_and(|status| status.success()) {
        eprintln!("  (without the right to real time, latencies hold the attacker's share of the core, too)");
    }
}
