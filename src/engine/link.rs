//! One link to the router, in the one way of using it that kills neither side:
//!
//! * At most one batch of packets is under way. It ends with a PINGREQ, and the next one waits for the PINGRESP: then the router has
//!   done all of it, and no event about this link is left in its queue.
//! * A link leaves with a DISCONNECT of its own batch, when nothing is under way and nobody is about to say that it is ready: an event
//!   that comes after it would panic the router, or meet the next link that got the same place.
//! * An UNSUBSCRIBE does not follow a PUBLISH in one batch: the router would serve the ended subscription on.
//! * Nothing here waits for the router. Where its queue is full, the event is said again later.

use std::collections::VecDeque;
use std::time::Instant;

use rumqttd::Notification;
use rumqttd::local::{LinkRx, LinkTx};
use rumqttd::protocol::{Disconnect, DisconnectReasonCode, Packet, PingReq};

use super::translate;

/// Never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub(super) u64);

/// Packets of one batch.
const BATCH_MAX: usize = 256;
/// Notifications that are taken at once.
const HEARD_MAX: usize = 1024;
/// A filter that nobody has: an UNSUBSCRIBE of it does nothing but say that there is something in the buffer.
const NOBODY: &str = "n";

pub(super) enum Order {
    Packet(Packet),
    Subscribe(Packet, u32),
    /// Does nothing.
    Nudge,
}

/// Where a link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Serving,
    /// It leaves once everything is done.
    Leaving,
    /// DISCONNECT was sent.
    Left,
}

/// Our end for sending.
pub(super) struct Link {
    /// Number in its name, which is used again.
    pub(super) name: u32,
    tx: Option<LinkTx>,
    phase: Phase,
    /// The link of the client's session before, which may have something to say first `[MQTT-4.6.0-5]`.
    pub(super) after: Option<LinkId>,
    pub(super) pending: VecDeque<Order>,
    /// Subscriptions of the batch under way.
    subscribing: Vec<u32>,
    is_under_way: bool,
    /// There is more to it than a nudge.
    is_work: bool,
    /// The buffer has something of which the router was not told.
    is_untold: bool,
    /// The receiving end is about to say that it is ready for more.
    is_readying: bool,
}

impl Link {
    pub(super) fn new(name: u32) -> Self {
        Self {
            name,
            tx: None,
            phase: Phase::Serving,
            after: None,
            pending: VecDeque::new(),
            subscribing: Vec::new(),
            is_under_way: false,
            is_work: false,
            is_untold: false,
            is_readying: false,
        }
    }

    pub(super) fn joined(&mut self, tx: LinkTx) {
        self.tx = Some(tx);
        self.pump();
    }

    pub(super) fn leave(&mut self) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Leaving;
        }
        self.pump();
    }

    /// It left, and the router closes it.
    pub(super) fn has_left(&self) -> bool {
        self.phase == Phase::Left
    }

    /// Something is to be done, or under way.
    pub(super) fn is_busy(&self) -> bool {
        self.is_under_way || self.is_untold || self.phase != Phase::Serving || !self.pending.is_empty()
    }

    /// Hands over the next batch, if there is one and its time has come.
    pub(super) fn pump(&mut self) {
        if self.tx.is_none() || self.after.is_some() || self.is_under_way || self.is_untold || self.phase == Phase::Left {
            return;
        }
        if self.pending.is_empty() {
            if self.phase == Phase::Leaving && !self.is_readying {
                self.phase = Phase::Left;
                let reason_code = DisconnectReasonCode::NormalDisconnection;
                self.send(vec![Packet::Disconnect(Disconnect { reason_code }, None)]);
            }
            return;
        }
        let mut batch = self.next_batch();
        batch.push(Packet::PingReq(PingReq));
        self.is_under_way = true;
        self.send(batch);
    }

    fn next_batch(&mut self) -> Vec<Packet> {
        let mut batch = Vec::with_capacity(self.pending.len().min(BATCH_MAX) + 1);
        let mut has_publish = false;
        self.is_work = false;
        while batch.len() < BATCH_MAX {
            match self.pending.front() {
                Some(Order::Packet(Packet::Unsubscribe(..)) | Order::Nudge) if has_publish => break,
                Some(Order::Packet(Packet::Publish(..))) => has_publish = true,
                Some(_) => {}
                None => break,
            }
            match self.pending.pop_front() {
                Some(Order::Packet(packet)) => {
                    self.is_work = true;
                    batch.push(packet);
                }
                Some(Order::Subscribe(packet, number)) => {
                    self.is_work = true;
                    self.subscribing.push(number);
                    batch.push(packet);
                }
                Some(Order::Nudge) => batch.push(translate::unsubscribe(NOBODY)),
                None => break,
            }
        }
        batch
    }

    fn send(&mut self, batch: Vec<Packet>) {
        if let Some(tx) = &self.tx {
            tx.buffer().extend(batch);
        }
        self.tell();
    }

    /// Tells the router that there is something in the buffer; also what was to be told before.
    pub(super) fn tell(&mut self) {
        let Some(tx) = &mut self.tx else { return };
        // What keeps this from working is a full queue, or a dead router, of which others hear.
        self.is_untold = tx.try_unsubscribe(NOBODY).is_err();
    }

    pub(super) fn tell_again(&mut self) {
        if self.is_untold {
            self.tell();
        }
    }

    /// An event that does nothing: the router goes on where it waits for one without need.
    pub(super) fn nudge(&mut self) {
        if !self.is_under_way && self.phase == Phase::Serving && self.tx.is_some() {
            self.pending.push_back(Order::Nudge);
        }
        self.pump();
    }

    /// The batch under way is done; gives the subscriptions that stand now, and whether there was more in it than a nudge.
    pub(super) fn done(&mut self) -> (Vec<u32>, bool) {
        self.is_under_way = false;
        (std::mem::take(&mut self.subscribing), self.is_work)
    }

    /// The router has stopped serving this link until it is told to go on. False where it is not to be told any more.
    pub(super) fn begin_readying(&mut self) -> bool {
        self.is_readying = self.phase != Phase::Left;
        self.is_readying
    }

    pub(super) fn readied(&mut self) {
        self.is_readying = false;
        self.pump();
    }
}

/// Our end for receiving.
pub struct LinkEnd {
    pub(super) id: LinkId,
    pub(super) rx: LinkRx,
}

impl LinkEnd {
    pub fn id(&self) -> LinkId {
        self.id
    }

    /// Waits for notifications and appends them; false when the router has closed this link, or is gone.
    pub async fn hear(&mut self, heard: &mut Vec<Notification>) -> bool {
        match self.rx.next().await {
            Ok(first) => heard.extend(first),
            Err(_) => return false,
        }
        let now = Instant::now();
        while heard.len() < HEARD_MAX
            && let Ok(more) = self.rx.recv_deadline(now)
        {
            heard.extend(more);
        }
        true
    }

    /// Tells the router to go on serving this link.
    pub async fn ready(&self) {
        let _ = self.rx.wake().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unsubscribe_waits_for_the_publish_before_it() {
        let publish = || Order::Packet(Packet::Publish(rumqttd::protocol::Publish::new("t/a", "1", false), None));
        let mut link = Link::new(0);
        link.pending.extend([Order::Packet(translate::unsubscribe("a")), publish(), publish(), Order::Packet(translate::unsubscribe("a"))]);
        let kinds = |batch: &[Packet]| {
            let letter = |packet: &Packet| match packet {
                Packet::Publish(..) => 'p',
                Packet::Unsubscribe(..) => 'u',
                _ => '?',
            };
            batch.iter().map(letter).collect::<String>()
        };
        assert_eq!(kinds(&link.next_batch()), "upp");
        assert_eq!(kinds(&link.next_batch()), "u");
        assert_eq!(kinds(&link.next_batch()), "");
    }
}
