//! The broker's records, and what each engine is asked to do with them: `PROGRAM write FOLDER` until it is killed, then `PROGRAM read FOLDER`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use darner::broker::message::{Delivery, Identity, Message};
use darner::broker::record::{Record, SessionRecord};
use darner::mqtt::{PacketId, ProtocolVersion, Qos};

pub const BATCHES: u64 = 10_000;
const BATCH: u64 = 20;
const TOPICS: u64 = 10_000;
const CLIENTS: u64 = 50;
/// A queued message is done with so many batches later.
const QUEUED_FOR: u64 = 5;

pub trait Engine: Sized {
    /// At the level `process`: what is committed is with the operating system, and nothing is flushed to the disk.
    fn open(folder: &Path) -> Result<Self, String>;
    /// Returns when the batch is committed.
    fn write(&mut self, records: Vec<Record>);
    /// Records of all that is there.
    fn read(&mut self) -> Result<Vec<Record>, String>;
}

fn message(topic: String, n: u64) -> Arc<Message> {
    Arc::new(Message {
        topic: topic.into(),
        payload: format!("{n:0100}").into_bytes().into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: Vec::new(),
        expires_at: None,
        publisher: None,
    })
}

fn identity(n: u64) -> Arc<Identity> {
    Arc::new(Identity { client_id: format!("client{}", n % CLIENTS).into(), username: None, security: 0, trusted: false })
}

fn sessions() -> Vec<Record> {
    let session = |n| {
        let (version, max_qos) = (ProtocolVersion::V311, Qos::ExactlyOnce);
        SessionRecord { client: identity(n), version, expiry_secs: u32::MAX, mount_point: None, max_qos, will: None, last_packet_id: None }
    };
    (0..CLIENTS).map(|n| Record::Session(Box::new(session(n)))).collect()
}

/// Half of them are retained values of 100 bytes over 10,000 topics, half are messages queued and, some batches later, done with.
fn batch(n: u64) -> Vec<Record> {
    let record = |at: u64| match at % 4 {
        0 | 1 => Some(Record::Retained { message: message(format!("house/room/{:06}/state", at.wrapping_mul(7919) % TOPICS), at) }),
        2 => {
            let (message, qos) = (message(format!("work/{}", at % CLIENTS), at), Qos::AtLeastOnce);
            let delivery = Delivery { message, qos, retain: false, subscription_identifier: 0, packet_id: None, number: at };
            Some(Record::Queued { client: identity(at), delivery, packet_id: Some(PacketId::MIN) })
        }
        _ => {
            let number = at.checked_sub(1 + QUEUED_FOR * BATCH)?;
            Some(Record::Done { client: identity(number), number })
        }
    };
    (n * BATCH..(n + 1) * BATCH).filter_map(record).collect()
}

/// What a store of keys and values does for a record.
pub enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

pub fn change(record: &Record) -> Change {
    let bytes = || postcard::to_stdvec(record).expect("a record");
    let queued = |client: &Identity, number: u64| format!("q/{}/{number:012}", client.client_id).into_bytes();
    match record {
        Record::Session(session) => Change::Put(format!("s/{}", session.client.client_id).into_bytes(), bytes()),
        Record::Retained { message } => Change::Put(format!("r/{}", message.topic).into_bytes(), bytes()),
        Record::Queued { client, delivery, .. } => Change::Put(queued(client, delivery.number), bytes()),
        Record::Done { client, number } => Change::Delete(queued(client, *number)),
        other => panic!("not in the mix: {other:?}"),
    }
}

fn hash(change: &Change) -> String {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    match change {
        Change::Put(key, value) => (key, value).hash(&mut hasher),
        Change::Delete(key) => key.hash(&mut hasher),
    }
    format!("{:016x}", hasher.finish())
}

/// A number of a file in /proc/self.
fn proc(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).expect("proc");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// What the `main` of an engine does. Prints numbers.
pub fn run<E: Engine>() {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(&arguments[2]);
    if arguments[1] == "read" {
        let began = Instant::now();
        match E::open(folder).and_then(|mut engine| engine.read()) {
            Ok(records) => {
                let seconds = began.elapsed().as_secs_f64();
                // A word for each entry, of its key and its value.
                let words: BTreeSet<String> = records.iter().map(|record| hash(&change(record))).collect();
                println!("{seconds:.3} {}", words.into_iter().collect::<Vec<_>>().join(" "));
            }
            Err(error) => {
                eprintln!("{error}");
                std::process::exit(1);
            }
        }
        return;
    }
    let mut engine = E::open(folder).expect("a new store");
    let (resident, written) = (proc("status", "VmRSS"), proc("io", "wchar"));
    let (mut given, mut records, mut took) = (0, 0, Duration::ZERO);
    for batch in std::iter::once(sessions()).chain((0..BATCHES).map(batch)) {
        given += batch.iter().map(|record| postcard::to_stdvec(record).expect("a record").len()).sum::<usize>();
        records += batch.len();
        let began = Instant::now();
        engine.write(batch);
        took += began.elapsed();
    }
    let amplification = (proc("io", "wchar") - written) as f64 / given as f64;
    let megabytes = proc("status", "VmRSS").saturating_sub(resident) as f64 / 1024.0;
    println!("{amplification:.2} {megabytes:.1} {:.0}", records as f64 / took.as_secs_f64());
    // As kill -9 leaves it.
    std::process::abort();
}
