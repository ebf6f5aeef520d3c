//! Messages that take their way through a router outside of this machine (`engine = "rumqttd"`).
//!
//! Sessions, permissions, flows, retained messages and shares stay here; what leaves is a message on its way from a publisher to the
//! plain subscriptions that match it, and it comes back once for each of them. The ledger in here knows what must come back, so that
//! no more is out there at a time than the router is sure to keep, and sees to the limits of what a router never forgets: beyond them
//! this machine routes by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::Broker;
use super::interface::{Effect, Outbox, Time};
use super::message::{Message, Publication};
use super::subscriptions::Subscriber;
use crate::mqtt::Qos;

/// Bytes that may be out there at a time, as [`cost`] counts. Publishers wait beyond; the router keeps more than twice as many for
/// each filter.
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
    /// A session wants a link.
    Join {
        session: u32,
    },
    Leave {
        session: u32,
    },
    /// Answer with [`RouterAnswer::Subscribed`].
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
    /// By a session that has a link, or by the broker itself.
    Publish {
        from: Option<u32>,
        serial: u64,
        message: Arc<Message>,
    },
}

#[derive(Debug, Clone)]
pub enum RouterAnswer {
    /// Every message that is handed over from now on comes back for this subscription.
    Subscribed {
        number: u32,
    },
    Message {
        number: u32,
        serial: u64,
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
    /// Messages from this serial on are sure to come; `None` until the router has said so.
    since: Option<u64>,
    outstanding: u64,
    /// Overlapping subscriptions and No Local: messages that this one does not pass on (`None`), or at another QoS, in their order.
    changes: VecDeque<(u64, Option<Qos>)>,
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
    /// SUBACKs (by token) that wait for a subscription.
    waiting: HashMap<u32, Vec<u64>>,
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
        let routed = Routed { session, filter: filter.into(), since: None, outstanding: 0, changes: VecDeque::new() };
        self.routed.insert(self.last_number, routed);
        Some(self.last_number)
    }

    fn remove(&mut self, session: u32, filter: &str) -> Option<u32> {
        let number = self.numbers.remove(&(session, Box::from(filter)))?;
        if let Some(routed) = self.routed.remove(&number) {
            self.outstanding = self.outstanding.saturating_sub(routed.outstanding);
        }
        Some(number)
    }

    /// A message for this subscription is handed over.
    fn goes_out(&mut self, number: u32, serial: u64, bytes: u64, change: Option<Option<Qos>>) {
        let Some(routed) = self.routed.get_mut(&number).filter(|routed| routed.since.is_some()) else { return };
        routed.outstanding += bytes;
        self.outstanding += bytes;
        if let Some(change) = change {
            routed.changes.push_back((serial, change));
        }
    }

    /// It came back: whose it is, and how it was changed. `None` where nobody waits for it any more.
    fn comes_back(&mut self, number: u32, serial: u64, bytes: u64) -> Option<(u32, Box<str>, Option<Option<Qos>>)> {
        let routed = self.routed.get_mut(&number)?;
        if routed.since.is_some_and(|since| serial >= since) {
            routed.outstanding = routed.outstanding.saturating_sub(bytes);
            self.outstanding = self.outstanding.saturating_sub(bytes);
        }
        while routed.changes.front().is_some_and(|(earlier, _)| *earlier < serial) {
            routed.changes.pop_front();
        }
        let is_changed = routed.changes.front().is_some_and(|(changed, _)| *changed == serial);
        let change = if is_changed { routed.changes.pop_front().map(|(_, change)| change) } else { None };
        Some((routed.session, routed.filter.clone(), change))
    }
}

impl Broker {
    /// More is out there than the router is sure to keep: nothing new may be read from publishers until some has come back.
    pub fn router_is_behind(&self) -> bool {
        self.router_outstanding() > OUTSTANDING_BYTES_MAX
    }

    /// Bytes that were handed to the router and must still come back.
    pub fn router_outstanding(&self) -> u64 {
        self.outside.as_ref().map_or(0, |ledger| ledger.outstanding)
    }

    pub(super) fn join_router(&mut self, session: u32, out: &mut Outbox) {
        let Some(ledger) = &mut self.outside else { return };
        if ledger.linked.len() < LINKS_MAX && ledger.linked.insert(session) {
            out.effects.push(Effect::Route(RouterOrder::Join { session }));
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

    /// The number of a subscription that the router has not confirmed.
    pub(super) fn unconfirmed(&self, session: u32, filter: &str) -> Option<u32> {
        let ledger = self.outside.as_ref()?;
        let number = ledger.numbers.get(&(session, Box::from(filter)))?;
        ledger.routed.get(number).is_some_and(|routed| routed.since.is_none()).then_some(*number)
    }

    /// A SUBACK waits for these subscriptions.
    pub(super) fn await_router(&mut self, numbers: &[u32], token: u64) {
        let Some(ledger) = &mut self.outside else { return };
        for number in numbers {
            ledger.waiting.entry(*number).or_default().push(token);
        }
    }

    /// Nobody waits for the SUBACKs of a session that has ended.
    pub(super) fn forget_subacks(&mut self, session: u32, filter: &str) {
        let Some(ledger) = &mut self.outside else { return };
        let Some(number) = ledger.numbers.get(&(session, Box::from(filter))) else { return };
        for token in ledger.waiting.remove(number).unwrap_or_default() {
            self.awaited_subacks.remove(&token);
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
        let routed: Vec<(u32, Qos)> = matched.iter().filter(|to| to.routed != 0).map(|to| (to.routed, to.options.qos)).collect();
        let admitted = |ledger: &mut Ledger| ledger.topics.admit(publication.topic, TOPICS_MAX);
        if routed.is_empty() || !self.outside.as_mut().is_some_and(admitted) {
            return;
        }
        self.merge_for_v3(matched);
        let Some(ledger) = &mut self.outside else { return };
        let serial = ledger.next_serial;
        ledger.next_serial += 1;
        let message = publication.keep();
        let bytes = cost(&message);
        for (number, qos) in routed {
            let change = match matched.iter().find(|to| to.routed == number) {
                None => Some(None),
                Some(to) if to.options.no_local && from == Some(to.session) => Some(None), // [MQTT-3.8.3-3]
                Some(to) => (to.options.qos != qos).then_some(Some(to.options.qos)),
            };
            ledger.goes_out(number, serial, bytes, change);
        }
        matched.retain(|to| to.routed == 0);
        let from = from.filter(|session| ledger.linked.contains(session));
        out.effects.push(Effect::Route(RouterOrder::Publish { from, serial, message }));
    }

    pub(super) fn hear_router(&mut self, answer: RouterAnswer, now: Time, out: &mut Outbox) {
        match answer {
            RouterAnswer::Subscribed { number } => {
                let Some(ledger) = &mut self.outside else { return };
                let next = ledger.next_serial;
                if let Some(routed) = ledger.routed.get_mut(&number) {
                    routed.since.get_or_insert(next);
                }
                for token in ledger.waiting.remove(&number).unwrap_or_default() {
                    self.interest_known(token, now, out);
                }
            }
            RouterAnswer::Message { number, serial, message } => {
                let Some(ledger) = &mut self.outside else { return };
                let Some((session, filter, change)) = ledger.comes_back(number, serial, cost(&message)) else { return };
                if change == Some(None) || message.is_expired(now) {
                    return;
                }
                let Some(held) = self.sessions.get(session).and_then(|session| session.subscriptions.get(&filter)).copied() else { return };
                let mut options = held.options;
                options.qos = change.flatten().unwrap_or(options.qos);
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

    #[test]
    fn what_comes_back_is_no_longer_outstanding_and_what_nobody_waits_for_neither() {
        let mut ledger = ledger(1);
        let number = ledger.enter(0, "a").expect("a number");
        ledger.goes_out(number, 0, 10, None);
        assert_eq!(ledger.outstanding, 0, "the router may not know the subscription yet");
        ledger.routed.get_mut(&number).expect("it is there").since = Some(1);
        ledger.goes_out(number, 1, 10, None);
        ledger.goes_out(number, 2, 20, Some(None));
        ledger.goes_out(number, 3, 30, Some(Some(Qos::AtMostOnce)));
        assert_eq!(ledger.outstanding, 60);
        let change = |came: Option<(u32, Box<str>, Option<Option<Qos>>)>| came.expect("somebody waits").2;
        assert_eq!(change(ledger.comes_back(number, 0, 10)), None, "one that was not counted");
        assert_eq!(ledger.outstanding, 60);
        assert_eq!(change(ledger.comes_back(number, 1, 10)), None);
        assert_eq!(change(ledger.comes_back(number, 2, 20)), Some(None));
        assert_eq!(ledger.outstanding, 30);
        assert_eq!(ledger.remove(0, "a"), Some(number));
        assert_eq!(ledger.outstanding, 0);
        assert!(ledger.comes_back(number, 3, 30).is_none());
    }
}
