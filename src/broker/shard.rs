//! What shards say to each other. Mailboxes keep their order, which is what makes these rules enough:
//!
//! * A shard tells all others before it answers the SUBSCRIBE that made it interested in a filter, and answers when all have said
//!   [`ShardMessage::InterestKnown`]: a message published after SUBACK is never missed.
//! * Each shard has all retained messages; one that is replaced travels before the message itself. So when the interest is known
//!   everywhere, the retained messages read for the new subscriber are no older than what it will be sent from then on.
//! * What must not be lost is a letter, see [`super::post`].

use super::post::Letter;
use super::subscriptions::Stand;

/// A shard's number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ShardId(pub u16);

/// A Topic Filter with the share name it was subscribed under, if any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Interest {
    pub share_name: Option<Box<str>>,
    pub filter: Box<str>,
}

/// One message from shard to shard.
#[derive(Debug, Clone)]
pub enum ShardMessage {
    /// The sender has its first subscriber of this kind; answer with `InterestKnown`.
    Interested {
        interest: Interest,
        token: u64,
    },
    InterestKnown {
        token: u64,
    },
    /// The sender has lost its last subscriber of this kind.
    NotInterested {
        interest: Interest,
    },
    /// `number` is 0 where it may be lost.
    Letter {
        number: u64,
        letter: Letter,
    },
    /// Letters up to this one were read, and what came of them is stored.
    LettersRead {
        number: u64,
    },
}

/// Which other shards are interested in one filter.
#[derive(Debug, Default)]
pub(super) struct RemoteStand {
    pub(super) shards: Vec<ShardId>,
    pub(super) shares: Vec<(Interest, Vec<ShardId>)>,
}

impl Stand for RemoteStand {
    fn is_empty(&self) -> bool {
        self.shards.is_empty() && self.shares.is_empty()
    }
}

impl RemoteStand {
    pub(super) fn add(&mut self, interest: Interest, shard: ShardId) {
        let list = if interest.share_name.is_none() {
            &mut self.shards
        } else {
            let at = self.shares.iter().position(|(known, _)| *known == interest).unwrap_or_else(|| {
                self.shares.push((interest, Vec::new()));
                self.shares.len() - 1
            });
            &mut self.shares[at].1
        };
        if !list.contains(&shard) {
            list.push(shard);
        }
    }

    pub(super) fn remove(&mut self, interest: &Interest, shard: ShardId) {
        if interest.share_name.is_none() {
            self.shards.retain(|known| *known != shard);
        } else {
            for (known, shards) in &mut self.shares {
                if known == interest {
                    shards.retain(|known| *known != shard);
                }
            }
            self.shares.retain(|(_, shards)| !shards.is_empty());
        }
    }
}
