//! The seam between the machine's records and a disk.

use crate::broker::Record;

/// Takes the records of one shard, in order.
pub trait Store {
    /// Remembers one record; it is safe only after the next [`Store::commit`].
    fn append(&mut self, record: Record);
    /// Makes everything appended safe, and returns how many records that is since the beginning.
    fn commit(&mut self) -> u64;
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

    fn commit(&mut self) -> u64 {
        self.count
    }
}
