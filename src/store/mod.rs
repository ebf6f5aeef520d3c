//! The seam between the machine's records and a disk.
//!
//! # The contract
//!
//! 1. The machine numbers its `Effect::Persist` from 1. The driver hands them over in order with [`Store::append`], and ends a batch
//!    with [`Store::commit`], once for each turn of its loop.
//! 2. The store makes batches safe in their order: [`Progress::stored`] is the number of the last record that is safe, and all before
//!    it are. What "safe" means is the durability level: with the operating system (`process`), or on the disk (`power`).
//! 3. A crash leaves what some prefix of whole batches adds up to, which has at least `stored` records. So records that one input made
//!    are kept together or not at all.
//! 4. `Effect::Hold { connection, until }` stands before what the machine sends in reliance on a record: the driver lets nothing behind
//!    it leave before `stored` has reached `until`. The driver tells the machine `Input::Stored` as it gets on.
//! 5. While the store fails ([`Progress::failing`]), the driver says `Input::StoreFailing`, and for each connection that is held
//!    `Input::NotStored`: the machine closes it without the acknowledgement, and refuses what it would have to keep. Records go on
//!    being made; what they add up to is stored when the store recovers by itself, and then `failing` ends.
//! 6. After a restart, [`Broker::restore`](crate::broker::Broker::restore) makes the machine anew from the [`State`] that records add up
//!    to. Replaying them with [`State::apply`] gives the same as the machine's own `durable_state`.
//!
//! A store may write less than it was given, as long as the outcome is the same: of several values of a retained topic in a batch the
//! last, and nothing of a message that was delivered before its batch was written.

mod frames;
mod journal;
pub mod mosquitto;
pub mod offline;
mod place;
mod rewrite;
mod squeeze;
mod takeover;
mod writer;

use std::path::{Path, PathBuf};

use crate::broker::Record;
pub use crate::broker::State;
pub use crate::conf::Durability as Level;
use crate::conf::Persistence;
pub use journal::Journal;
pub use place::Place;
pub use takeover::{Source, read_database};

/// Where and how a store keeps things.
#[derive(Debug, Clone)]
pub struct Options {
    pub path: PathBuf,
    pub level: Level,
    pub autosave_interval_secs: u32,
    pub autosave_on_changes: bool,
    /// The time of day at the machine's `Time(0)`, in milliseconds since 1970.
    pub zero: i64,
    /// What a store begins with that is not there yet.
    pub import: Option<Source>,
}

/// `persistence_file`, whosever it is.
pub fn configured(conf: &Persistence) -> PathBuf {
    conf.location.as_deref().unwrap_or(Path::new(".")).join(&conf.file)
}

/// The store's file: `persistence_file`, unless that is mosquitto's own database, which is left as it is; the store then stands beside
/// it.
pub fn path(conf: &Persistence) -> PathBuf {
    let file = configured(conf);
    let mut name = file.clone().into_os_string();
    name.push(".darner");
    let beside = PathBuf::from(name);
    if beside.exists() || frames::is_mosquittos(&file) { beside } else { file }
}

/// How far a store has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Records that are safe, since the beginning of the process.
    pub stored: u64,
    /// Nothing can be made safe for now.
    pub failing: bool,
    /// What was to be saved by now could not be, where nobody was promised it: the level `snapshot`.
    pub is_unsaved: bool,
    /// Nothing ever will be safe: the process had better end.
    pub has_ended: bool,
    /// More waits to be written than the store wants to hold: bring no more for now.
    pub is_behind: bool,
}

/// Takes the records of one shard, in order.
pub trait Store {
    /// Takes over one record; it is safe only when [`Store::progress`] says so after the next [`Store::commit`].
    fn append(&mut self, record: Record);
    /// Makes everything appended safe, now or soon.
    /// `awaited`: something is held back for it; what is not may be made safe together with what comes later.
    fn commit(&mut self, awaited: bool);
    /// SIGUSR1: as safe as it gets, now.
    fn save(&mut self) {}
    /// Makes everything appended safe and returns when that is done, or has failed.
    fn close(&mut self) {}
    fn progress(&self) -> Progress;
}

/// Keeps nothing: the state of the broker ends with its process.
#[derive(Debug, Default)]
pub struct Forgetful {
    count: u64,
}

impl Store for Forgetful {
    fn append(&mut self, _record: Record) {
        self.count += 1;
    }

    fn commit(&mut self, _awaited: bool) {}

    fn progress(&self) -> Progress {
        Progress { stored: self.count, ..Progress::default() }
    }
}
