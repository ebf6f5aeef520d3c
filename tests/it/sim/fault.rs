//! Broken variants: the world around the machine lies in one way, as if the machine or the driver had that fault. The simulation must
//! notice each.

use std::sync::Arc;

use darner::broker::Record;
use darner::broker::message::Message;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    AcknowledgedBeforeCommit,
    AcknowledgedWhileFailing,
    CommitTornAmidAnInput,
    ReceivedForgotten,
    ReleasedForgotten,
    DoneForgotten,
    QueuedForgotten,
    SubscriptionForgotten,
    RetainedForgotten,
    ExpiryForgotten,
    SessionForgotten,
    SessionNeverEnds,
    LetterForgotten,
    LetterReadTwice,
    MailboxReordered,
    MailboxLossy,
    NoDup,
    NotSentAgain,
    ReceiveMaximumIgnored,
}

pub const ALL: [Fault; 19] = [
    Fault::AcknowledgedBeforeCommit,
    Fault::AcknowledgedWhileFailing,
    Fault::CommitTornAmidAnInput,
    Fault::ReceivedForgotten,
    Fault::ReleasedForgotten,
    Fault::DoneForgotten,
    Fault::QueuedForgotten,
    Fault::SubscriptionForgotten,
    Fault::RetainedForgotten,
    Fault::ExpiryForgotten,
    Fault::SessionForgotten,
    Fault::SessionNeverEnds,
    Fault::LetterForgotten,
    Fault::LetterReadTwice,
    Fault::MailboxReordered,
    Fault::MailboxLossy,
    Fault::NoDup,
    Fault::NotSentAgain,
    Fault::ReceiveMaximumIgnored,
];

impl Fault {
    /// What is written in place of `record`.
    pub fn record(self, record: Record) -> Option<Record> {
        let forgotten = match self {
            Self::ReceivedForgotten => matches!(record, Record::Received { .. }),
            Self::ReleasedForgotten => matches!(record, Record::Released { .. }),
            Self::DoneForgotten => matches!(record, Record::Done { .. }),
            Self::QueuedForgotten => matches!(record, Record::Queued { .. }),
            Self::SubscriptionForgotten => matches!(record, Record::Subscribed { .. }),
            Self::RetainedForgotten => matches!(record, Record::Retained { .. }),
            Self::LetterForgotten => matches!(record, Record::Posted { .. }),
            Self::LetterReadTwice => matches!(record, Record::PostRead { .. }),
            Self::SessionForgotten => matches!(record, Record::Session(_)),
            _ => false,
        };
        if forgotten {
            return None;
        }
        Some(match (self, record) {
            (Self::ExpiryForgotten, Record::Queued { client, mut delivery, packet_id }) => {
                delivery.message = Arc::new(Message { expires_at: None, ..(*delivery.message).clone() });
                Record::Queued { client, delivery, packet_id }
            }
            (Self::SessionNeverEnds, Record::Left { client, will_at, .. }) => Record::Left { client, expires_at: None, will_at },
            (_, record) => record,
        })
    }

    /// What is sent in place of `bytes`.
    pub fn bytes(self, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let is_repeated = bytes[0] >> 4 == 3 && bytes[0] & 0x08 != 0;
        match self {
            Self::NoDup if is_repeated => bytes[0] &= !0x08,
            Self::NotSentAgain if is_repeated => return None,
            _ => {}
        }
        Some(bytes)
    }
}
