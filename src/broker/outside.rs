//! Messages that take their way through a router outside of this machine (`engine = "rumqttd"`).
//!
//! Sessions, permissions, flows, retained messages and shares stay here; what leaves is a message on its way from a publisher to the
//! plain subscriptions that match it, and it comes back once for each of them. The ledger in here knows what must come back, so that
//! no more is out there at a time than the router is sure to keep, and sees to the limits of what a router never forgets: beyond them
//! this machine routes by itself. So it does for a subscription that the router has not confirmed yet.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::Broker;
use super::interface::{Effect, Outbox, Time};
use super::message::{Message, Publication};
use super::subscriptions::Subscriber;
use crate::mqtt::{ProtocolVersion, Qos};

/// Bytes that may be out there at a time, as [`cost`] counts. Publishers wait beyond; the router keeps half as many more for each filter.
pub const OUTSTANDING_BYTES_MAX: u64 = 32 << 10;
/// Bytes that the router's own books take for a message beside its topic and payload.
pub const MESSAGE_BYTES: u64 = 32;
/// Sessions with a link of their own.
pub const LINKS_MAX: usize = 4096;
/// Topic Filters and Topic Names that the router ever hears of: it forgets none.
pub const FILTERS_MAX: usize = 512;
pub const TOPICS_MAX: usize = 20_000;
/// Bytes of all those names.
const NAMES_BYTES_MAX: usize = 4 << 20;

/// What the router is told. Sessions are numbers that are used again after `Leave`; subscriptions and messages have numbers of their
/// own.
#[derive(Debug, Clone)]
pub enum RouterOrder {
    /// A session wants a link. What its client says comes after what it said in its last session, which may have had another number.
    Join {
        session: u32,
        client: u64,
    },
    Leave {
        session: u32,
    },
    /// Answer with [`RouterAnswer::Subscribed`]. What comes back for it before that answer is not wanted.
    Subscribe {
        session: u32,
        number: u32,
        filter: Box<str>,
    },
    Unsubscribe {
        session: u32,
        number: u32,
        filter: Box<str>,
    },
    /// Through the link of a session, or the broker's own.
    Publish {
        from: Option<u32>,
        /// Says who it was, for No Local: sessions come and go while a message is outside.
        client: u64,
        serial: u64,
        message: Arc<Message>,
    },
}

#[derive(Debug, Clone)]
pub enum RouterAnswer {
    /// Every message that is handed over from now on comes back for this subscription.
    Subscribed { number: u32 },
    Message {
        number: u32,
        serial: u64,
        /// As it was handed over.
        client: u64,
        message: Arc<Message>,
    },
}

/// What a message counts for while it is out there.
pub fn cost(message: &Message) -> u64 {
    message.topic.len() as u64 + message.payload.len() as u64 + MESSAGE_BYTES
}

/// Names that were let in, until there are too many.
#[derive(Debug, Default)]
struct Names {
    known: HashSet<Box<str>>,
    bytes: usize,
}

impl Names {
    fn admit(&mut self, name: &str, most: usize) -> bool {
        if self.known.contains(name) {
            return true;
        }
        if self.known.len() >= most || self.bytes + name.len() > NAMES_BYTES_MAX {
            return false;
        }
        self.bytes += name.len();
        self.known.insert(name.into())
    }
}

/// A subscription that the router serves.
#[derive(Debug)]
struct Routed {
    session: u32,
    filter: Box<str>,
    /// Messages from this serial on come, and those before it are none of its own. `None` until the router has said so: this machine
    /// delivers until then.
    since: Option<u64>,
    outstanding: u64,
    /// Messages that this machine has delivered through another subscription of the same client.
    skips: HashSet<u64>,
    /// Messages that several of its subscriptions bring, and the first one passes on.
    copies: HashSet<u64>,
}

/// One message for one client through several subscriptions.
#[derive(Debug)]
struct Copies {
    left: usize,
    is_delivered: bool,
    qos: Qos,
}

/// What is out there, and what may come back.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    last_number: u32,
    next_serial: u64,
    outstanding: u64,
    linked: HashSet<u32>,
    numbers: HashMap<(u32, Box<str>), u32>,
    routed: HashMap<u32, Routed>,
    /// By session and serial.
    copies: HashMap<(u32, u64), Copies>,
    /// What the broker itself has to publish, and nobody's reading can be stopped for, until all that is out there has come back.
    deferred: VecDeque<Arc<Message>>,
    filters: Names,
    topics: Names,
}

impl Ledger {
    /// A number for a new subscription; `None` where the router does not get it.
    fn enter(&mut self, session: u32, filter: &str) -> Option<u32> {
        if !self.linked.contains(&session) || filter.starts_with('$') || !self.filters.admit(filter, FILTERS_MAX) {
            return None;
        }
        self.last_number = self.last_number.checked_add(1)?;
        self.numbers.insert((session, filter.into()), self.last_number);
        let routed = Routed { session, filter: filter.into(), since: None, outstanding: 0, skips: HashSet::new(), copies: HashSet::new() };
        self.routed.insert(self.last_number, routed);
        Some(self.last_number)
    }

    fn remove(&mut self, session: u32, filter: &str) -> Option<u32> {
        let number = self.numbers.remove(&(session, Box::from(filter)))?;
        if let Some(routed) = self.routed.remove(&number) {
            self.outstanding = self.outstanding.saturating_sub(routed.outstanding);
            for serial in routed.copies {
                self.copy_came(session, serial);
            }
        }
        Some(number)
    }

    /// The router has confirmed this subscription.
    fn is_sure(&self, number: u32) -> bool {
        self.routed.get(&number).is_some_and(|routed| routed.since.is_some())
    }

    fn is_behind(&self) -> bool {
        self.outstanding > OUTSTANDING_BYTES_MAX || !self.deferred.is_empty()
    }

    /// What is to be published next of what was deferred: none of it overtakes what was out there before.
    fn next_deferred(&mut self, is_first: bool) -> Option<Arc<Message>> {
        let most = if is_first { 0 } else { OUTSTANDING_BYTES_MAX };
        if self.outstanding > most { None } else { self.deferred.pop_front() }
    }

    /// A message for this subscription is handed over.
    fn goes_out(&mut self, number: u32, bytes: u64) {
        if let Some(routed) = self.routed.get_mut(&number) {
            routed.outstanding += bytes;
            self.outstanding += bytes;
        }
    }

    /// One message for several subscriptions of one client that is to get it once.
    fn go_out_once(&mut self, session: u32, numbers: &[u32], serial: u64, qos: Qos) {
        self.copies.insert((session, serial), Copies { left: numbers.len(), is_delivered: false, qos });
        for number in numbers {
            if let Some(routed) = self.routed.get_mut(number) {
                routed.copies.insert(serial);
            }
        }
    }

    fn skip(&mut self, numbers: &[u32], serial: u64) {
        for number in numbers {
            if let Some(routed) = self.routed.get_mut(number) {
                routed.skips.insert(serial);
            }
        }
    }

    /// True for the first one.
    fn copy_came(&mut self, session: u32, serial: u64) -> Option<Qos> {
        let copies = self.copies.get_mut(&(session, serial))?;
        copies.left = copies.left.saturating_sub(1);
        let (is_last, qos) = (copies.left == 0, copies.qos);
        let was_delivered = copies.is_delivered;
        if is_last {
            self.copies.remove(&(session, serial));
        }
        (!was_delivered).then_some(qos)
    }

    /// It came back: whose it is, and the QoS where it is another than the subscription's. `None` where nobody waits for it (any more).
    fn comes_back(&mut self, number: u32, serial: u64, bytes: u64) -> Option<(u32, Box<str>, Option<Qos>)> {
        let routed = self.routed.get_mut(&number)?;
        if routed.since.is_none_or(|since| serial < since) {
            return None;
        }
        routed.outstanding = routed.outstanding.saturating_sub(bytes);
        self.outstanding = self.outstanding.saturating_sub(bytes);
        let is_skipped = routed.skips.remove(&serial);
        let is_copy = routed.copies.remove(&serial);
        let (session, filter) = (routed.session, routed.filter.clone());
        if is_skipped {
            return None;
        }
        let qos = if is_copy { Some(self.copy_came(session, serial)?) } else { None };
        if let Some(copies) = self.copies.get_mut(&(session, serial)) {
            copies.is_delivered = true;
        }
        Some((session, filter, qos))
    }
}

impl Broker {
    /// More is out there than the router is sure to keep: nothing new may be read from publishers until some has come back.
    pub fn router_is_behind(&self) -> bool {
        self.outside.as_ref().is_some_and(Ledger::is_behind)
    }

    /// Nothing is out there, and the router serves every subscription that it was told of.
    #[cfg(debug_assertions)]
    pub fn router_is_idle(&self) -> bool {
        let is_idle = |ledger: &Ledger| ledger.outstanding == 0 && ledger.routed.values().all(|routed| routed.since.is_some());
        self.outside.as_ref().is_none_or(is_idle)
    }

    /// Bytes that were handed to the router and must still come back.
    pub fn router_outstanding(&self) -> u64 {
        self.outside.as_ref().map_or(0, |ledger| ledger.outstanding)
    }

    pub(super) fn join_router(&mut self, session: u32, out: &mut Outbox) {
        let client = self.client_hash(session);
        let Some(ledger) = &mut self.outside else { return };
        if ledger.linked.len() < LINKS_MAX && ledger.linked.insert(session) {
            out.effects.push(Effect::Route(RouterOrder::Join { session, client }));
        }
    }

    /// Its subscriptions were removed before.
    pub(super) fn leave_router(&mut self, session: u32, out: &mut Outbox) {
        let Some(ledger) = &mut self.outside else { return };
        if ledger.linked.remove(&session) {
            out.effects.push(Effect::Route(RouterOrder::Leave { session }));
        }
    }

    /// The number under which the router serves a subscription; 0 where this machine does.
    pub(super) fn subscribe_outside(&mut self, session: u32, filter: &str, out: &mut Outbox) -> u32 {
        let Some(ledger) = &mut self.outside else { return 0 };
        if let Some(number) = ledger.numbers.get(&(session, Box::from(filter))) {
            return *number;
        }
        let Some(number) = ledger.enter(session, filter) else { return 0 };
        out.effects.push(Effect::Route(RouterOrder::Subscribe { session, number, filter: filter.into() }));
        number
    }

    pub(super) fn unsubscribe_outside(&mut self, session: u32, filter: &str, out: &mut Outbox) {
        let Some(ledger) = &mut self.outside else { return };
        if let Some(number) = ledger.remove(session, filter) {
            out.effects.push(Effect::Route(RouterOrder::Unsubscribe { session, number, filter: filter.into() }));
        }
    }

    /// True where the broker's own publication has to wait; it is published later, then.
    pub(super) fn defers(&mut self, publication: &mut Publication<'_>) -> bool {
        // No subscription that the router serves matches a topic with `$`.
        let Some(ledger) = self.outside.as_mut().filter(|ledger| ledger.is_behind() && !publication.topic.starts_with('$')) else {
            return false;
        };
        ledger.deferred.push_back(publication.keep());
        true
    }

    /// Publishes what was deferred as far as the router has room.
    pub(super) fn publish_deferred(&mut self, now: Time, out: &mut Outbox) {
        let mut is_first = true;
        while let Some(message) = self.outside.as_mut().and_then(|ledger| ledger.next_deferred(is_first)) {
            is_first = false;
            if !message.is_expired(now) {
                self.carry(&mut Publication::of(&message), None, now, out);
            }
        }
    }

    /// Takes those subscribers out of `matched` that the router serves, and hands the message over for them.
    pub(super) fn hand_over(
        &mut self,
        publication: &mut Publication<'_>,
        matched: &mut Vec<Subscriber>,
        from: Option<u32>,
        out: &mut Outbox,
    ) {
        // A will goes the way of what its client published before.
        let link = from.or_else(|| self.by_client_id.get(&publication.publisher?.client_id).copied());
        let client = from.map_or(0, |session| self.client_hash(session));
        let Some(ledger) = &mut self.outside else { return };
        for to in matched.iter_mut().filter(|to| !ledger.is_sure(to.routed)) {
            to.routed = 0;
        }
        if matched.iter().all(|to| to.routed == 0) || !ledger.topics.admit(publication.topic, TOPICS_MAX) {
            return;
        }
        matched.sort_by_key(|to| to.session);
        let serial = ledger.next_serial;
        ledger.next_serial += 1;
        let message = publication.keep();
        let bytes = cost(&message);
        let merges = !self.settings.conf.allow_duplicate_messages;
        let is_v3 = |session| self.sessions.get(session).is_some_and(|session| session.version != ProtocolVersion::V5);
        for same in matched.chunk_by_mut(|a, b| a.session == b.session) {
            let numbers: Vec<u32> = same.iter().map(|to| to.routed).filter(|number| *number != 0).collect();
            for number in &numbers {
                ledger.goes_out(*number, bytes);
            }
            if let [first, _, ..] = same
                && let session = first.session
                && merges
                && is_v3(session)
            {
                let qos = same.iter().map(|to| to.options.qos).max().unwrap_or_default();
                if let Some(here) = same.iter_mut().find(|to| to.routed == 0) {
                    here.options.qos = qos;
                    ledger.skip(&numbers, serial);
                } else {
                    ledger.go_out_once(session, &numbers, serial, qos);
                }
            }
        }
        matched.retain(|to| to.routed == 0);
        let from = link.filter(|session| ledger.linked.contains(session));
        out.effects.push(Effect::Route(RouterOrder::Publish { from, client, serial, message }));
    }

    /// FNV-1a of a session's Client Identifier; 0 is nobody.
    fn client_hash(&self, session: u32) -> u64 {
        let Some(session) = self.sessions.get(session) else { return 0 };
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        session.identity.client_id.bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1)
    }

    pub(super) fn hear_router(&mut self, answer: RouterAnswer, now: Time, out: &mut Outbox) {
        match answer {
            RouterAnswer::Subscribed { number } => {
                let Some(ledger) = &mut self.outside else { return };
                let next = ledger.next_serial;
                if let Some(routed) = ledger.routed.get_mut(&number) {
                    routed.since.get_or_insert(next);
                }
            }
            RouterAnswer::Message { number, serial, client, message } => {
                let Some(ledger) = &mut self.outside else { return };
                let Some((session, filter, qos)) = ledger.comes_back(number, serial, cost(&message)) else { return };
                if message.is_expired(now) {
                    return;
                }
                let Some(held) = self.sessions.get(session).and_then(|session| session.subscriptions.get(&filter)).copied() else { return };
                if held.options.no_local && client != 0 && client == self.client_hash(session) {
                    return; // [MQTT-3.8.3-3]
                }
                let mut options = held.options;
                options.qos = qos.unwrap_or(options.qos);
                let to = Subscriber { session, options, identifier: held.identifier, routed: number };
                self.deliver(&mut Publication::of(&message), to, None, now, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sessions: u32) -> Ledger {
        Ledger { linked: (0..sessions).collect(), ..Ledger::default() }
    }

    #[test]
    fn beyond_its_limits_the_router_is_not_told() {
        let mut ledger = ledger(2);
        assert_eq!(ledger.enter(2, "a"), None, "a session without a link");
        assert_eq!(ledger.enter(0, "$SYS/#"), None, "the broker's own topics");
        for number in 0..FILTERS_MAX {
            assert!(ledger.enter(0, &format!("f/{number}")).is_some());
        }
        assert_eq!(ledger.enter(1, "one/more"), None);
        assert!(ledger.enter(1, "f/0").is_some(), "a filter that the router knows");
        for number in 0..TOPICS_MAX {
            assert!(ledger.topics.admit(&number.to_string(), TOPICS_MAX));
        }
        assert!(!ledger.topics.admit("one more", TOPICS_MAX));
        assert!(ledger.topics.admit("0", TOPICS_MAX));
        let mut names = Names::default();
        let long = |number: usize| format!("{number:060000}");
        let admitted = (0..1000).filter(|number| names.admit(&long(*number), usize::MAX)).count();
        assert!(admitted * 60_000 <= NAMES_BYTES_MAX && admitted > 60, "{admitted}");
    }

    impl Ledger {
        /// A subscription that the router has confirmed.
        fn confirmed(&mut self, filter: &str, since: u64) -> u32 {
            let number = self.enter(0, filter).expect("a number");
            self.routed.get_mut(&number).expect("it is there").since = Some(since);
            number
        }
    }

    #[test]
    fn what_comes_back_is_no_longer_outstanding_and_what_nobody_waits_for_neither() {
        let mut ledger = ledger(1);
        let unsure = ledger.enter(0, "b").expect("a number");
        assert!(ledger.comes_back(unsure, 7, 10).is_none(), "this machine has delivered it");
        let number = ledger.confirmed("a", 1);
        for bytes in [10, 20, 30] {
            ledger.goes_out(number, bytes);
        }
        ledger.skip(&[number], 2);
        assert_eq!(ledger.outstanding, 60);
        assert!(ledger.comes_back(number, 0, 10).is_none(), "this machine has delivered it");
        assert_eq!(ledger.outstanding, 60, "one that was not counted");
        assert!(ledger.comes_back(number, 1, 10).is_some());
        assert!(ledger.comes_back(number, 2, 20).is_none(), "skipped");
        assert_eq!(ledger.outstanding, 30);
        assert_eq!(ledger.remove(0, "a"), Some(number));
        assert_eq!(ledger.outstanding, 0);
        assert!(ledger.comes_back(number, 3, 30).is_none());
    }

    #[test]
    fn of_several_copies_the_first_is_passed_on_even_if_its_subscription_was_not_the_first() {
        let mut ledger = ledger(1);
        let numbers = ["a", "+"].map(|filter| ledger.confirmed(filter, 0));
        ledger.go_out_once(0, &numbers, 7, Qos::AtLeastOnce);
        ledger.go_out_once(0, &numbers, 8, Qos::ExactlyOnce);
        assert_eq!(ledger.remove(0, "a"), Some(numbers[0]));
        assert_eq!(ledger.comes_back(numbers[1], 7, 1), Some((0, "+".into(), Some(Qos::AtLeastOnce))));
        assert_eq!(ledger.comes_back(numbers[1], 8, 1), Some((0, "+".into(), Some(Qos::ExactlyOnce))));
        assert!(ledger.copies.is_empty() && ledger.routed.values().all(|routed| routed.copies.is_empty()));
    }

    #[test]
    fn what_was_deferred_waits_until_nothing_is_out_there_and_then_goes_as_far_as_there_is_room() {
        let mut ledger = ledger(1);
        let number = ledger.confirmed("a", 0);
        let message = Message::new("a", [], Qos::AtMostOnce);
        ledger.goes_out(number, OUTSTANDING_BYTES_MAX);
        assert!(!ledger.is_behind());
        ledger.goes_out(number, 1);
        assert!(ledger.is_behind());
        ledger.deferred.extend([1, 2, 3].map(|_| Arc::new(message.clone())));
        assert!(ledger.comes_back(number, 0, OUTSTANDING_BYTES_MAX).is_some());
        assert!(ledger.is_behind() && ledger.next_deferred(true).is_none(), "it would overtake");
        assert!(ledger.comes_back(number, 1, 1).is_some());
        assert!(ledger.next_deferred(true).is_some() && ledger.next_deferred(false).is_some());
        ledger.goes_out(number, OUTSTANDING_BYTES_MAX + 1);
        assert!(ledger.next_deferred(false).is_none() && ledger.is_behind());
    }
}
