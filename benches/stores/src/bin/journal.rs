//! darner's own store, as the broker runs it: its thread, its squeezing, its writing anew.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use darner::broker::record::Record;
use darner::store::{Journal, Level, Options, State, Store as _};
use stores::Engine;

struct Ours {
    journal: Journal,
    state: State,
    count: u64,
    bell: Arc<(Mutex<()>, Condvar)>,
}

impl Engine for Ours {
    fn open(folder: &Path) -> Result<Self, String> {
        let options = Options {
            path: folder.join("journal"),
            level: Level::Process,
            autosave_interval_secs: 1800,
            autosave_on_changes: false,
            zero: 0,
            import: None,
        };
        let bell: Arc<(Mutex<()>, Condvar)> = Arc::default();
        let theirs = Arc::clone(&bell);
        let wake = move || {
            drop(theirs.0.lock());
            theirs.1.notify_one();
        };
        let (journal, state) = Journal::open(options, Box::new(|notice| eprintln!("{notice}")), Box::new(wake));
        Ok(Self { journal, state, count: 0, bell })
    }

    fn write(&mut self, records: Vec<Record>) {
        self.count += records.len() as u64;
        for record in records {
            self.journal.append(record);
        }
        self.journal.commit(true);
        let (mutex, bell) = &*self.bell;
        let waits = |(): &mut ()| self.journal.progress().stored < self.count;
        drop(bell.wait_while(mutex.lock().expect("unpoisoned"), waits).expect("unpoisoned"));
    }

    fn read(&mut self) -> Result<Vec<Record>, String> {
        let mut records = Vec::new();
        self.state.each_record(|record| records.push(record));
        Ok(records)
    }
}

fn main() {
    stores::run::<Ours>();
}
