//! A store as bad as its contract permits: commits come late, and a crash leaves any prefix of whole inputs that holds what was said to
//! be safe.

use darner::broker::Record;
use darner::store::State;

use crate::support::random::Random;

#[derive(Default)]
pub struct Disk {
    /// `None` was forgotten by a fault.
    records: Vec<Option<Record>>,
    /// Ends of inputs.
    ends: Vec<usize>,
    committed: usize,
    /// Records of the process before, which numbered its own from 1.
    base: usize,
}

impl Disk {
    pub fn append(&mut self, record: Option<Record>) {
        self.records.push(record);
    }

    /// All records of one input are here.
    pub fn end_input(&mut self) {
        if self.ends.last().copied().unwrap_or(0) < self.records.len() {
            self.ends.push(self.records.len());
        }
    }

    /// A crash takes nothing of it.
    pub fn is_committed(&self) -> bool {
        self.ends.last().is_none_or(|end| *end <= self.committed)
    }

    pub fn committed(&self) -> u64 {
        (self.committed - self.base) as u64
    }

    /// Gives the number of safe records, if it has changed.
    pub fn commit(&mut self) -> Option<u64> {
        let end = self.ends.last().copied().unwrap_or(0);
        (end > self.committed).then(|| {
            self.committed = end;
            self.committed()
        })
    }

    /// The process dies: what is there when the next one looks.
    pub fn crash(&mut self, random: &mut Random) -> State {
        let possible: Vec<usize> = self.ends.iter().copied().filter(|end| *end > self.committed).collect();
        let kept = if possible.is_empty() || random.one_in(2) { self.committed } else { *random.pick(&possible) };
        self.records.truncate(kept);
        self.ends.retain(|end| *end <= kept);
        self.committed = kept;
        self.base = kept;
        self.state()
    }

    /// What the records add up to.
    pub fn state(&self) -> State {
        let mut state = State::default();
        for record in self.records.iter().flatten() {
            state.apply(record.clone());
        }
        state
    }
}
