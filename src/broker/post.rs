//! What one shard sends another and must not be lost or come twice, whatever crashes: letters.
//!
//! * A letter leaves when the record that it was posted is stored, and whatever its sender says to the same shard later stays behind it.
//! * Its reader records that it was read together with what came of it, and says so when that is stored.
//! * After a restart letters that were not said to be read leave again. One that was read is known by its number.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Broker;
use super::interface::{Effect, Outbox, Time};
use super::message::Message;
use super::record::Record;
use super::shard::{Interest, ShardId, ShardMessage};

/// The content of an inter-shard message that may have to last.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Letter {
    /// A message for the receiver's plain subscribers, if `plain`, and for one member of each share in `shares`.
    Publish { message: Arc<Message>, plain: bool, shares: Vec<Interest> },
    /// A retained message was stored, or removed if its payload is empty.
    Retained { message: Arc<Message> },
}

impl Letter {
    pub(super) fn message_mut(&mut self) -> &mut Arc<Message> {
        match self {
            Self::Publish { message, .. } | Self::Retained { message } => message,
        }
    }
}

/// What of it outlives the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Post {
    /// By reader and number: those that may not have been read.
    pub posted: BTreeMap<(ShardId, u64), Letter>,
    /// By reader: the number given last.
    pub last: BTreeMap<ShardId, u64>,
    /// By sender: the last one read here.
    pub read: BTreeMap<ShardId, u64>,
}

impl Post {
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Posted { to, number, letter } => {
                self.last.insert(to, number);
                self.posted.insert((to, number), letter);
            }
            Record::PostTaken { to, number } => {
                let last = self.last.entry(to).or_default();
                *last = (*last).max(number);
                self.posted.retain(|(of, posted), _| *of != to || *posted > number);
            }
            Record::PostRead { from, number } => drop(self.read.insert(from, number)),
            _ => {}
        }
    }

    pub(super) fn each_record(&self, mut give: impl FnMut(Record)) {
        self.last.iter().for_each(|(to, number)| give(Record::PostTaken { to: *to, number: *number }));
        self.posted.iter().for_each(|((to, number), letter)| give(Record::Posted { to: *to, number: *number, letter: letter.clone() }));
        self.read.iter().for_each(|(from, number)| give(Record::PostRead { from: *from, number: *number }));
    }
}

/// A record that is not stored, and the letter it is about.
type Unstored = VecDeque<(u64, ShardId, u64)>;

/// What of it waits for the store.
#[derive(Debug, Default)]
pub(super) struct Pouch {
    /// By reader, in their order: letters by their number, and other messages (0) behind them.
    waiting: BTreeMap<ShardId, VecDeque<(u64, ShardMessage)>>,
    posting: Unstored,
    reading: Unstored,
}

impl Pouch {
    /// The record has this number.
    pub(super) fn note(&mut self, record: &Record, count: u64) {
        match record {
            Record::Posted { to, number, .. } => self.posting.push_back((count, *to, *number)),
            Record::PostRead { from, number } => self.reading.push_back((count, *from, *number)),
            _ => {}
        }
    }
}

/// The last of each shard's that is stored.
fn stored(unstored: &mut Unstored, count: u64) -> BTreeMap<ShardId, u64> {
    let mut last = BTreeMap::new();
    while let Some((_, shard, number)) = unstored.pop_front_if(|(record, ..)| *record <= count) {
        last.insert(shard, number);
    }
    last
}

impl Broker {
    /// Says something to another shard, behind what was said to it before.
    pub(super) fn tell(&mut self, to: ShardId, message: ShardMessage, out: &mut Outbox) {
        match self.pouch.waiting.get_mut(&to).filter(|waiting| !waiting.is_empty()) {
            Some(waiting) => waiting.push_back((0, message)),
            None => out.effects.push(Effect::ToShard { to, message }),
        }
    }

    /// `lasts`: it must reach the other shard in spite of a crash.
    pub(super) fn send_letter(&mut self, to: ShardId, letter: Letter, lasts: bool, out: &mut Outbox) {
        if !lasts || !self.persists {
            return self.tell(to, ShardMessage::Letter { number: 0, letter }, out);
        }
        let number = self.post.last.get(&to).copied().unwrap_or_default() + 1;
        self.keep_post(Record::Posted { to, number, letter: letter.clone() }, out);
        self.pouch.waiting.entry(to).or_default().push_back((number, ShardMessage::Letter { number, letter }));
    }

    fn keep_post(&mut self, record: Record, out: &mut Outbox) {
        self.post.apply(record.clone());
        out.effects.push(Effect::Persist(record));
    }

    pub(super) fn read_letter(&mut self, from: ShardId, number: u64, letter: Letter, now: Time, out: &mut Outbox) {
        if number > 0 {
            let read = self.post.read.get(&from).copied().unwrap_or_default();
            if number <= read {
                // It came again after a restart: all that was read before that is stored.
                if !self.pouch.reading.iter().any(|(_, shard, _)| *shard == from) {
                    out.effects.push(Effect::ToShard { to: from, message: ShardMessage::LettersRead { number: read } });
                }
                return;
            }
            self.keep_post(Record::PostRead { from, number }, out);
        }
        match letter {
            Letter::Publish { message, plain, shares } => self.route_from_shard(&message, plain, &shares, now, out),
            Letter::Retained { message } => self.keep_retained(message, out),
        }
    }

    /// They need not be kept any more.
    pub(super) fn letters_read(&mut self, by: ShardId, number: u64, out: &mut Outbox) {
        self.keep_post(Record::PostTaken { to: by, number }, out);
    }

    /// The store got on: letters leave, and those that were read are said to be.
    pub(super) fn post_stored(&mut self, out: &mut Outbox) {
        for (to, number) in stored(&mut self.pouch.posting, self.stored) {
            let Some(waiting) = self.pouch.waiting.get_mut(&to) else { continue };
            while let Some((_, message)) = waiting.pop_front_if(|(of, _)| *of <= number) {
                out.effects.push(Effect::ToShard { to, message });
            }
        }
        for (to, number) in stored(&mut self.pouch.reading, self.stored) {
            out.effects.push(Effect::ToShard { to, message: ShardMessage::LettersRead { number } });
        }
    }

    /// After a restart: what may not have been read leaves again.
    pub(super) fn restore_post(&mut self, post: Post, out: &mut Outbox) {
        let again = post.posted.iter().map(|((to, number), letter)| {
            let message = ShardMessage::Letter { number: *number, letter: letter.clone() };
            Effect::ToShard { to: *to, message }
        });
        out.effects.extend(again);
        self.post = post;
    }
}
