//! `cargo run --release -- ENGINE FOLDER`: what an engine costs for the broker's mix of records at the level `process` (every batch with
//! the operating system, nothing flushed to the disk): bytes written, memory, seconds, and seconds to read all again.
//!
//! The mix: batches of 20 records; half are retained values of 100 bytes over 10,000 topics, half are messages queued and, some batches
//! later, done with.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

const BATCHES: u64 = 10_000;
const BATCH: u64 = 20;
const TOPICS: u64 = 10_000;

enum Op {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

fn batch(n: u64) -> Vec<Op> {
    let value = |n: u64| format!("{n:0100}").into_bytes();
    let queued = |n: u64| format!("q/client{}/{:012}", n % 50, n).into_bytes();
    let mut ops = Vec::new();
    for i in 0..BATCH {
        let at = n * BATCH + i;
        match i % 4 {
            0 | 1 => ops.push(Op::Put(format!("r/house/room/{:06}/state", at.wrapping_mul(7919) % TOPICS).into_bytes(), value(at))),
            2 => ops.push(Op::Put(queued(at), value(at))),
            _ if at > 5 * BATCH => ops.push(Op::Delete(queued(at - 1 - 5 * BATCH))),
            _ => {}
        }
    }
    ops
}

trait Engine {
    fn write(&mut self, ops: &[Op]);
    /// Entries.
    fn read(&mut self) -> usize;
}

struct Journal(File);

impl Engine for Journal {
    fn write(&mut self, ops: &[Op]) {
        let mut frame = vec![0; 12];
        for op in ops {
            let (kind, key, value) = match op {
                Op::Put(key, value) => (1, key.as_slice(), value.as_slice()),
                Op::Delete(key) => (0, key.as_slice(), &[][..]),
            };
            frame.extend_from_slice(&[kind, key.len() as u8, value.len() as u8]);
            frame.extend_from_slice(key);
            frame.extend_from_slice(value);
        }
        let len = (frame.len() - 12) as u32;
        let sum = crc32fast::hash(&frame[12..]);
        frame[4..8].copy_from_slice(&len.to_le_bytes());
        frame[8..12].copy_from_slice(&sum.to_le_bytes());
        self.0.write_all(&frame).expect("written");
    }

    fn read(&mut self) -> usize {
        self.0.seek(SeekFrom::Start(0)).expect("a file");
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("a file");
        let mut state = std::collections::BTreeMap::new();
        let mut rest = bytes.as_slice();
        while rest.len() > 12 {
            let len = u32::from_le_bytes(rest[4..8].try_into().expect("four")) as usize;
            let mut frame = &rest[12..12 + len];
            assert_eq!(crc32fast::hash(frame), u32::from_le_bytes(rest[8..12].try_into().expect("four")));
            while let [kind, key, value, after @ ..] = frame {
                let (key, after) = after.split_at(*key as usize);
                let (value, after) = after.split_at(*value as usize);
                if *kind == 1 { drop(state.insert(key.to_vec(), value.to_vec())) } else { drop(state.remove(key)) }
                frame = after;
            }
            rest = &rest[12 + len..];
        }
        state.len()
    }
}

/// A file that is never flushed to the disk, as the level `process` allows.
#[derive(Debug)]
struct Unflushed(Mutex<File>);

impl redb::StorageBackend for Unflushed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().expect("one thread").metadata()?.len())
    }

    fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0; len];
        self.0.lock().expect("one thread").read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().expect("one thread").set_len(len)
    }

    fn sync_data(&self, _eventual: bool) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        self.0.lock().expect("one thread").write_all_at(data, offset)
    }
}

const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("records");

struct Redb(redb::Database);

impl Engine for Redb {
    fn write(&mut self, ops: &[Op]) {
        let transaction = self.0.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(TABLE).expect("a table");
            for op in ops {
                match op {
                    Op::Put(key, value) => drop(table.insert(key.as_slice(), value.as_slice()).expect("written")),
                    Op::Delete(key) => drop(table.remove(key.as_slice()).expect("written")),
                }
            }
        }
        transaction.commit().expect("committed");
    }

    fn read(&mut self) -> usize {
        use redb::ReadableTable as _;
        let transaction = self.0.begin_read().expect("a transaction");
        transaction.open_table(TABLE).expect("a table").iter().expect("rows").count()
    }
}

struct Fjall(fjall::Keyspace, fjall::PartitionHandle);

impl Engine for Fjall {
    fn write(&mut self, ops: &[Op]) {
        let mut batch = self.0.batch().durability(Some(fjall::PersistMode::Buffer));
        for op in ops {
            match op {
                Op::Put(key, value) => batch.insert(&self.1, key.as_slice(), value.as_slice()),
                Op::Delete(key) => batch.remove(&self.1, key.as_slice()),
            }
        }
        batch.commit().expect("committed");
    }

    fn read(&mut self) -> usize {
        self.1.iter().count()
    }
}

struct Sqlite(rusqlite::Connection);

impl Engine for Sqlite {
    fn write(&mut self, ops: &[Op]) {
        let transaction = self.0.transaction().expect("a transaction");
        for op in ops {
            match op {
                Op::Put(key, value) => transaction
                    .prepare_cached("INSERT OR REPLACE INTO records VALUES (?, ?)")
                    .and_then(|mut statement| statement.execute((key, value))),
                Op::Delete(key) => {
                    transaction.prepare_cached("DELETE FROM records WHERE k = ?").and_then(|mut statement| statement.execute((key,)))
                }
            }
            .expect("written");
        }
        transaction.commit().expect("committed");
    }

    fn read(&mut self) -> usize {
        let mut statement = self.0.prepare("SELECT k, v FROM records").expect("a table");
        let rows = statement.query_map((), |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Vec<u8>>(1)?))).expect("rows");
        rows.count()
    }
}

fn open(engine: &str, folder: &Path) -> Box<dyn Engine> {
    let file = |name: &str| {
        File::options().read(true).write(true).create(true).truncate(false).open(folder.join(name)).expect("a file")
    };
    match engine {
        "journal" => {
            let mut file = file("journal");
            file.seek(SeekFrom::End(0)).expect("a file");
            Box::new(Journal(file))
        }
        "redb" => {
            let backend = Unflushed(Mutex::new(file("redb")));
            let database = redb::Builder::new().set_cache_size(8 << 20).create_with_backend(backend).expect("a database");
            Box::new(Redb(database))
        }
        "fjall" => {
            let keyspace = fjall::Config::new(folder.join("fjall")).cache_size(8 << 20).open().expect("a keyspace");
            let partition = keyspace.open_partition("records", fjall::PartitionCreateOptions::default()).expect("a partition");
            Box::new(Fjall(keyspace, partition))
        }
        "sqlite" => {
            let connection = rusqlite::Connection::open(folder.join("sqlite")).expect("a database");
            let pragmas = "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;";
            let table = "CREATE TABLE IF NOT EXISTS records (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID;";
            connection.execute_batch(&format!("{pragmas}{table}")).expect("a table");
            Box::new(Sqlite(connection))
        }
        other => panic!("journal, redb, fjall or sqlite, not {other}"),
    }
}

/// A number of a file in /proc/self.
fn proc(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).expect("proc");
    let line = text.lines().find(|line| line.starts_with(name)).expect("a line");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (engine, folder) = (arguments[1].as_str(), Path::new(&arguments[2]));
    if arguments.len() > 3 {
        let began = Instant::now();
        let count = open(engine, folder).read();
        println!("{engine}: {count} entries read again in {:.3} s", began.elapsed().as_secs_f64());
        return;
    }
    let mut store = open(engine, folder);
    let (mut given, before, began) = (0, proc("io", "wchar"), Instant::now());
    for n in 0..BATCHES {
        let ops = batch(n);
        given += ops.iter().map(|op| match op { Op::Put(key, value) => key.len() + value.len(), Op::Delete(key) => key.len() }).sum::<usize>();
        store.write(&ops);
    }
    let (seconds, written) = (began.elapsed().as_secs_f64(), proc("io", "wchar") - before);
    println!(
        "{engine}: {:.2} bytes written for each byte given, {} MiB resident, {:.0} records/s",
        written as f64 / given as f64,
        proc("status", "VmRSS") / 1024,
        (BATCHES * BATCH) as f64 / seconds
    );
    // As kill -9 leaves it.
    std::process::abort();
}
