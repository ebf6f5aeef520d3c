//! The naive model of sessions and wills: who has one, until when.

use std::collections::BTreeMap;

use super::ledger::{Fate, Ledger, Number};

pub const NEVER: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    Yes,
    No,
    /// The broker crashed before it could have promised the session to anybody.
    Either,
}

#[derive(Debug)]
struct Session {
    link: Option<u32>,
    expiry_secs: u32,
    ends_at: Option<u64>,
    /// A crash may have lost that the client had left: the end may be as early as this.
    ends_from: Option<u64>,
    /// A crash may have lost its newest change.
    unsure: bool,
    /// By its DISCONNECT.
    changed: bool,
    /// Its CONNACK has left the broker.
    is_promised: bool,
    will: Option<(Number, u32)>,
    will_at: Option<u64>,
}

impl Session {
    fn outlives(&self, now: u64) -> bool {
        self.expiry_secs > 0 && self.ends_at.is_none_or(|at| at > now)
    }
}

/// Sessions by client.
#[derive(Debug, Default)]
pub struct Sessions {
    sessions: BTreeMap<usize, Session>,
    /// Ended since the last commit: a crash may bring them back.
    ghosts: BTreeMap<usize, Session>,
}

/// What a CONNECT says about its session.
pub struct Asked {
    pub clean: bool,
    pub expiry_secs: u32,
    pub will: Option<(Number, u32)>,
}

impl Sessions {
    /// The broker has read a CONNECT that it will accept.
    pub fn connect(&mut self, client: usize, link: u32, asked: &Asked, now: u64, ledger: &mut Ledger) -> Present {
        let Asked { clean, expiry_secs, will } = *asked;
        let old = self.sessions.remove(&client);
        let mut present = Present::No;
        if let Some(old) = old {
            if clean || !old.outlives(now) {
                publish(&old, now, ledger);
            } else {
                cancel(&old, ledger);
                present = Present::Yes;
            }
            if (old.unsure || old.ends_from.is_some_and(|from| from <= now)) && !clean {
                present = Present::Either;
            }
        }
        self.sessions.insert(
            client,
            Session {
                link: Some(link),
                expiry_secs,
                ends_at: None,
                ends_from: None,
                changed: false,
                unsure: false,
                is_promised: false,
                will,
                will_at: None,
            },
        );
        present
    }

    /// The CONNECT was refused after all: nothing could be kept.
    pub fn refused(&mut self, client: usize, link: u32, ledger: &mut Ledger) {
        if let Some(session) = self.sessions.get(&client).filter(|session| session.link == Some(link)) {
            cancel(session, ledger);
            // The one before it has ended, and the record of that may not be stored.
            self.ghosts.extend(self.sessions.remove(&client).map(|session| (client, session)));
        }
    }

    /// DISCONNECT was read.
    pub fn disconnect(&mut self, client: usize, link: u32, expiry_secs: Option<u32>, ledger: &mut Ledger) {
        let Some(session) = self.sessions.get_mut(&client).filter(|session| session.link == Some(link)) else { return };
        cancel(session, ledger);
        session.will = None;
        if let Some(secs) = expiry_secs {
            session.expiry_secs = secs;
            session.changed = true;
        }
    }

    /// The broker knows that the connection is gone.
    pub fn lost(&mut self, client: usize, link: u32, now: u64, ledger: &mut Ledger) {
        let Some(session) = self.sessions.get_mut(&client).filter(|session| session.link == Some(link)) else { return };
        session.link = None;
        if session.expiry_secs == 0 {
            publish(session, now, ledger);
            let ended = self.sessions.remove(&client);
            self.ghosts.extend(ended.map(|session| (client, session)));
            return;
        }
        session.ends_at = (session.expiry_secs != NEVER).then(|| now + u64::from(session.expiry_secs) * 1000);
        if let Some((_, delay)) = session.will {
            let due = now + u64::from(delay) * 1000;
            session.will_at = Some(session.ends_at.map_or(due, |ends| ends.min(due)));
        }
        self.pass_to(now, ledger);
    }

    /// Time has come to `now`.
    pub fn pass_to(&mut self, now: u64, ledger: &mut Ledger) {
        for session in self.sessions.values_mut() {
            if session.will_at.is_some_and(|at| at <= now) {
                publish(session, now, ledger);
                session.will = None;
                session.will_at = None;
            }
        }
        let ended: Vec<usize> =
            self.sessions.iter().filter(|(_, s)| s.ends_at.is_some_and(|at| at <= now) && !s.unsure).map(|(client, _)| *client).collect();
        for client in ended {
            let ended = self.sessions.remove(&client);
            self.ghosts.extend(ended.map(|session| (client, session)));
        }
    }

    /// CONNACK left the broker: the session, if it is one that lasts, is a promise.
    pub fn promised(&mut self, client: usize, link: u32) {
        if let Some(session) = self.sessions.get_mut(&client).filter(|session| session.link == Some(link)) {
            session.is_promised = true;
        }
    }

    /// Everything until now is safe.
    pub fn committed(&mut self, ledger: &mut Ledger) {
        self.ghosts.clear();
        ledger.cancelled.clear();
    }

    /// The broker died at `now`: sessions whose client was connected begin to expire. What became of their ends and wills is unsure.
    pub fn crash(&mut self, now: u64, ledger: &mut Ledger) {
        // A DISCONNECT is not answered: a crash may undo it.
        for number in std::mem::take(&mut ledger.cancelled) {
            ledger.messages[number].fate = Fate::Unknown;
            ledger.messages[number].read.push((ledger.step, now));
        }
        for (client, mut ghost) in std::mem::take(&mut self.ghosts) {
            ghost.unsure = true;
            ghost.will = None;
            self.sessions.entry(client).or_insert(ghost);
        }
        for session in self.sessions.values_mut() {
            if let Some((number, _)) = session.will.take()
                && ledger.messages[number].fate == Fate::Armed
            {
                ledger.messages[number].fate = Fate::Unknown;
                ledger.messages[number].read.push((ledger.step, now));
            }
            session.will_at = None;
            session.unsure |= session.changed || !session.is_promised || session.expiry_secs == 0;
            session.link = None;
            if session.expiry_secs != NEVER {
                let restarted = now + u64::from(session.expiry_secs) * 1000;
                session.ends_from = session.ends_from.or(session.ends_at);
                session.ends_at = session.ends_at.max(Some(restarted));
            }
        }
    }
}

fn publish(session: &Session, now: u64, ledger: &mut Ledger) {
    if let Some((number, _)) = session.will {
        let due = Fate::Due { crashes: ledger.crashes };
        let step = ledger.step;
        let message = &mut ledger.messages[number];
        if message.fate == Fate::Armed {
            message.fate = due;
            message.read.push((step, now));
        }
    }
}

fn cancel(session: &Session, ledger: &mut Ledger) {
    if let Some((number, _)) = session.will {
        let message = &mut ledger.messages[number];
        if message.fate == Fate::Armed {
            message.fate = Fate::Cancelled;
            ledger.cancelled.push(number);
        }
    }
}
