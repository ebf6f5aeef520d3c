//! What a card suffers: bytes that reach the device, file system and all, at 10 retained updates a second over 100 topics. Each broker
//! keeps its state on an ext4 of its own, on a loop device whose sectors are counted. `make bench-wear`, or
//! `cargo bench --bench wear -- [SECONDS]` as root. All run at the same time.

#![allow(unreachable_pub, dead_code)]

#[path = "load/broker.rs"]
mod broker;
#[path = "load/client.rs"]
mod client;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use broker::Broker;
use client::Client;
use darner::mqtt::Qos;

const TOPICS: u64 = 100;
const BETWEEN: Duration = Duration::from_millis(100);
/// Every topic has a value, the file system has come to rest, and darner takes it for a steady stream.
const WARM_UP: Duration = Duration::from_secs(45);
const SECTOR_BYTES: u64 = 512;
const DAY_SECS: f64 = 86_400.0;
/// mosquitto's `autosave_interval`, when nothing else is said.
const AUTOSAVE_SECS: f64 = 1_800.0;

struct Case {
    name: &'static str,
    ours: bool,
    durability: Option<&'static str>,
    qos: Qos,
    /// It saves at intervals: one is made here, and counted as often as they come.
    saves: bool,
}

const CASES: &[Case] = &[
    Case { name: "darner, `process`, QoS 1", ours: true, durability: Some("process"), qos: Qos::AtLeastOnce, saves: false },
    Case { name: "darner, `process`, QoS 0", ours: true, durability: Some("process"), qos: Qos::AtMostOnce, saves: false },
    Case { name: "darner, `power`, QoS 1", ours: true, durability: Some("power"), qos: Qos::AtLeastOnce, saves: false },
    Case { name: "darner, `snapshot`", ours: true, durability: Some("snapshot"), qos: Qos::AtLeastOnce, saves: true },
    Case { name: "mosquitto", ours: false, durability: None, qos: Qos::AtLeastOnce, saves: true },
];

/// An ext4 on a file, mounted.
struct Card {
    image: PathBuf,
    mounted: PathBuf,
    device: String,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Card {
    fn new(number: usize) -> Self {
        let path = |what: &str| std::env::temp_dir().join(format!("darner-wear-{}-{number}{what}", std::process::id()));
        let (image, mounted) = (path(".img"), path(""));
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        std::fs::create_dir_all(&mounted).expect("a folder");
        let (image_text, mounted_text) = (image.display().to_string(), mounted.display().to_string());
        run("mkfs.ext4", &["-q", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", &image_text]);
        run("mount", &["-o", "loop", &image_text, &mounted_text]);
        let table = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
        let device = table.lines().find(|line| line.split(' ').nth(1) == Some(&mounted_text)).expect("it is mounted");
        let device = device.split(' ').next().unwrap_or_default().trim_start_matches("/dev/").to_owned();
        Self { image, mounted, device }
    }

    fn bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/sys/block/{}/stat", self.device)).expect("a block device");
        text.split_ascii_whitespace().nth(6).and_then(|sectors| sectors.parse::<u64>().ok()).expect("sectors") * SECTOR_BYTES
    }

    /// Waits for what is on its way to the device.
    fn sync(&self) {
        run("sync", &["-f", &self.mounted.display().to_string()]);
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mounted).output();
        let _ = std::fs::remove_dir(&self.mounted);
        let _ = std::fs::remove_file(&self.image);
    }
}

struct Run {
    case: &'static Case,
    client: Client,
    broker: Broker,
    card: Card,
    device: u64,
    written: u64,
}

fn begin(case: &'static Case, card: Card, program: &[String]) -> Run {
    let location: &Path = &card.mounted;
    let broker = Broker::start_at(program, Some(location.join("data")), case.durability);
    let client = Client::connect(broker.port, "meter");
    client.socket.set_nonblocking(true).expect("a socket");
    Run { case, client, broker, card, device: 0, written: 0 }
}

fn updates(runs: &mut [Run], number: &mut u64, during: Duration) {
    let (end, mut scratch) = (Instant::now() + during, vec![0; 4096]);
    while Instant::now() < end {
        let topic = format!("house/sensor/{:03}/state", *number % TOPICS);
        let payload = format!("{:020}", *number);
        for run in runs.iter_mut() {
            run.client.publish_retained(&topic, run.case.qos, payload.as_bytes());
            run.client.write();
            run.client.read(&mut scratch, |_| ());
        }
        *number += 1;
        std::thread::sleep(BETWEEN);
    }
}

fn main() {
    let seconds: f64 = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(600.0);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("Only root can mount: run this as root.");
        std::process::exit(1);
    }
    // Whatever happens, the mounts go with this process.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    run("mount", &["--make-rprivate", "/"]);
    let brokers = Broker::installed();
    let program = |ours: bool| brokers.iter().find(|(name, _)| (*name == "darner") == ours).map(|(_, program)| program);
    let cases = CASES.iter().enumerate().filter_map(|(number, case)| Some((number, case, program(case.ours)?)));
    let mut runs: Vec<Run> = cases.map(|(number, case, program)| begin(case, Card::new(number), program)).collect();
    let mut number = 0;
    updates(&mut runs, &mut number, WARM_UP);
    for run in &mut runs {
        run.card.sync();
        (run.device, run.written) = (run.card.bytes(), run.broker.written());
    }
    updates(&mut runs, &mut number, Duration::from_secs_f64(seconds));
    println!("| | handed to `write`, MB a day | reaches the device, MB a day |\n|---|---|---|");
    for run in &runs {
        if run.case.saves {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(run.broker.pid()), nix::sys::signal::Signal::SIGUSR1).expect("it runs");
            std::thread::sleep(Duration::from_secs(1));
        }
        run.card.sync();
        let times = DAY_SECS / if run.case.saves { AUTOSAVE_SECS } else { seconds };
        // Acknowledgements and what else went to the socket are none of the card's.
        let answers = if run.case.qos == Qos::AtLeastOnce { (seconds / BETWEEN.as_secs_f64()) as u64 * 4 } else { 0 };
        let (written, device) = (run.broker.written() - run.written, run.card.bytes() - run.device);
        let megabytes = |bytes: u64| bytes as f64 * times / 1e6;
        println!("| {} | {:.1} | {:.1} |", run.case.name, megabytes(written.saturating_sub(answers)), megabytes(device));
    }
    // The brokers end before their file systems are unmounted.
    for Run { broker, card, .. } in runs {
        drop(broker);
        drop(card);
    }
}
