//! One ordered table of everything that is due at a time.

use std::collections::BTreeSet;

use super::interface::{ConnectionId, Time};

/// What is due. A kind that carries an identifier is checked against it when due: the connection or session may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// A connection that has sent no CONNECT.
    ConnectTimeout(ConnectionId),
    KeepAlive(ConnectionId),
    SessionExpiry(u32),
    WillDelay(u32),
    SysTopics,
    /// Retained messages that new subscriptions wait for.
    Replay,
    Housekeeping,
    /// Only with a `memory_limit`.
    MemoryCheck,
}

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    due: BTreeSet<(Time, Timer)>,
}

impl Deadlines {
    pub(super) fn set(&mut self, at: Time, timer: Timer) {
        self.due.insert((at, timer));
    }

    pub(super) fn clear(&mut self, at: Time, timer: Timer) {
        self.due.remove(&(at, timer));
    }

    pub(super) fn next(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The next timer due at `now`, taken out.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<Timer> {
        let (at, timer) = *self.due.first()?;
        (at <= now).then(|| {
            self.due.pop_first();
            timer
        })
    }
}
