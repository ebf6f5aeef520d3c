//! The driver's side of the store: batches go to it at the end of a turn, and what waits for it leaves when it says so.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::driver::{Answer, Driver, Shard};
use crate::broker::{ConnectionId, Input, Record};
use crate::notice::Notice;
use crate::store::{Forgetful, Progress, Store};

/// The store, and who waits for it.
pub(super) struct Keeping {
    store: Box<dyn Store>,
    /// Records were appended since the last commit.
    pub(super) uncommitted: bool,
    /// Something is held back for what was not committed in a hurry.
    pub(super) awaited: bool,
    seen: Progress,
    /// Connections with bytes that wait, by the count they wait for.
    held: BTreeSet<(u64, ConnectionId)>,
    /// Told whenever the store got on: tasks that stopped reading wait for it.
    pub(super) went_on: Rc<Notify>,
}

impl Keeping {
    pub(super) fn new(store: Option<Box<dyn Store>>) -> Self {
        Self {
            store: store.unwrap_or_else(|| Box::new(Forgetful::default())),
            uncommitted: false,
            awaited: false,
            seen: Progress::default(),
            held: BTreeSet::new(),
            went_on: Rc::default(),
        }
    }

    pub(super) fn append(&mut self, record: Record) {
        self.store.append(record);
        self.uncommitted = true;
    }

    pub(super) fn is_behind(&self) -> bool {
        self.seen.is_behind
    }
}

impl Shard {
    /// Hears of the store's progress.
    pub(super) async fn heed_store(self, progress: Arc<Notify>) {
        loop {
            progress.notified().await;
            let has_ended = self.turn(|driver| {
                driver.heed_store();
                driver.keeping.seen.has_ended
            });
            if has_ended == Some(true) {
                self.notice(&Notice::StoreThreadGone {});
                self.fail();
            }
        }
    }
}

impl Driver {
    /// `Effect::Hold`
    pub(super) fn hold(&mut self, id: ConnectionId, until: u64) {
        if until <= self.keeping.seen.stored {
            return;
        }
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.closing) else { return };
        connection.outgoing.hold(until);
        self.keeping.held.insert((until, id));
        self.keeping.awaited = true;
        if self.keeping.seen.failing {
            self.answers.push(Answer::NotStored(id));
        }
    }

    /// The turn's records go to the store, in one batch.
    pub(super) fn commit(&mut self) {
        let awaited = std::mem::take(&mut self.keeping.awaited);
        if std::mem::take(&mut self.keeping.uncommitted) || awaited {
            self.keeping.store.commit(awaited);
        }
        self.heed_store();
    }

    /// Takes note of how far the store is, and lets go what waited for that.
    pub(super) fn heed_store(&mut self) {
        let progress = self.keeping.store.progress();
        let before = std::mem::replace(&mut self.keeping.seen, progress);
        if progress == before {
            return;
        }
        let is_ill = |progress: Progress| progress.failing || progress.is_unsaved;
        if is_ill(progress) != is_ill(before) {
            self.input(Input::StoreFailing { failing: is_ill(progress) });
        }
        if progress.stored > before.stored {
            self.input(Input::Stored { count: progress.stored });
            let waiting = self.keeping.held.split_off(&(progress.stored + 1, ConnectionId(0)));
            for (_, id) in std::mem::replace(&mut self.keeping.held, waiting) {
                self.release(id, progress.stored);
            }
        }
        if progress.failing {
            let unheard: BTreeSet<ConnectionId> = std::mem::take(&mut self.keeping.held).into_iter().map(|(_, id)| id).collect();
            self.answers.extend(unheard.into_iter().map(Answer::NotStored));
        }
        self.keeping.went_on.notify_waiters();
    }

    /// SIGUSR1
    pub(super) fn save(&mut self) {
        self.keeping.store.save();
    }

    /// Nothing is kept after this.
    pub(super) fn close_store(&mut self) {
        self.commit();
        self.keeping.store.close();
        self.heed_store();
    }

    fn release(&mut self, id: ConnectionId, stored: u64) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if connection.outgoing.release(stored) && !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// What waits for the store will not be true: it is taken back before the machine closes the connection.
    pub(super) fn take_back(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.outgoing.take_back();
        }
    }
}
