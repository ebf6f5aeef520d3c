//! The Router of rumqttd 0.20, spawned once, and a link to it for each session.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::protocol::{Packet, Publish, PublishProperties};
use rumqttd::{Notification, RouterConfig};

use super::link::{Link, LinkEnd, LinkId, Order};
use super::translate;
use crate::broker::message::Message;
use crate::broker::outside::{LINKS_MAX, OUTSTANDING_BYTES_MAX};
use crate::broker::{RouterAnswer, RouterOrder};

/// Bytes of a segment of a filter's log, and how many segments there are, the one included that is written: the log keeps the others whole.
const SEGMENT_BYTES: usize = 16 << 10;
const SEGMENTS: usize = 4;
const _: () = assert!(2 * SEGMENT_BYTES * (SEGMENTS - 1) >= 3 * OUTSTANDING_BYTES_MAX as usize, "a log keeps what is outstanding");
/// Links that the router has room for: the sessions', the broker's own, and those that are leaving.
const ROUTER_LINKS_MAX: usize = LINKS_MAX + 256;
/// Messages that one link is sent at a time.
const SERVED_AT_ONCE: u64 = 200;
/// Messages that are kept for the next subscriber of the same one, and the largest of them.
const RECENT: usize = 64;
const RECENT_BYTES_MAX: usize = 4 << 10;

/// The broker's own link, which is there from the beginning.
const OWN: LinkId = LinkId(0);

/// A link that was made. It takes the router's answer, so that it is made on a thread of its own.
pub struct Joined {
    id: LinkId,
    ends: Option<(LinkTx, LinkRx)>,
}

/// The shard's side of the router.
pub struct Router {
    links: BTreeMap<LinkId, Link>,
    /// With the client that has it.
    by_session: BTreeMap<u32, (LinkId, u64)>,
    /// Of each client the last link that began to leave.
    leaving: BTreeMap<u64, LinkId>,
    next_link: u64,
    /// Names of links that have left; the router remembers each name for ever.
    names: Vec<u32>,
    next_name: u32,
    /// Links that wait for room.
    waiting: VecDeque<LinkId>,
    makes: Sender<(LinkId, String)>,
    recent: Vec<Option<(u64, Arc<Message>)>>,
    progress: Progress,
}

/// Counts what the router does of what it is there for, so that standing still is seen: it answers nudges, too, where messages are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Messages that came back.
    pub messages: u64,
    /// Links that were made or have left, and batches that were done.
    pub others: u64,
}

impl Router {
    /// Spawns the router, and a thread that makes links and hands each to `joined`.
    pub fn spawn(joined: impl Fn(Joined) + Send + 'static) -> std::io::Result<Self> {
        let conf = RouterConfig {
            max_connections: ROUTER_LINKS_MAX,
            max_outgoing_packet_count: SERVED_AT_ONCE,
            max_segment_size: SEGMENT_BYTES,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let to_router = rumqttd::Router::new(0, conf).spawn();
        let (makes, wanted) = channel::<(LinkId, String)>();
        std::thread::Builder::new().name("router-links".into()).spawn(move || {
            for (id, name) in wanted {
                let ends = LinkBuilder::new(&name, to_router.clone()).build().ok().map(|(tx, rx, _)| (tx, rx));
                joined(Joined { id, ends });
            }
        })?;
        let mut router = Self {
            links: BTreeMap::new(),
            by_session: BTreeMap::new(),
            leaving: BTreeMap::new(),
            next_link: 0,
            names: Vec::new(),
            next_name: 0,
            waiting: VecDeque::new(),
            makes,
            recent: vec![None; RECENT],
            progress: Progress::default(),
        };
        router.make_link();
        Ok(router)
    }

    fn make_link(&mut self) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.waiting.push_back(id);
        self.links.insert(id, Link::new(u32::MAX));
        self.make_waiting();
        id
    }

    fn make_waiting(&mut self) {
        while self.links.len() - self.waiting.len() < ROUTER_LINKS_MAX
            && let Some(id) = self.waiting.pop_front()
        {
            let Some(link) = self.links.get_mut(&id) else { continue };
            link.name = self.names.pop().unwrap_or_else(|| {
                self.next_name += 1;
                self.next_name
            });
            // The thread is there as long as this sender.
            let _ = self.makes.send((id, format!("link-{}", link.name)));
        }
    }

    /// A link was made: its receiving end, to be heard in a task of its own. `None` where the router is gone.
    pub fn joined(&mut self, joined: Joined) -> Option<LinkEnd> {
        let (tx, rx) = joined.ends?;
        self.progress.others += 1;
        self.links.get_mut(&joined.id)?.joined(tx);
        Some(LinkEnd { id: joined.id, rx })
    }

    pub fn order(&mut self, order: RouterOrder) {
        match order {
            RouterOrder::Join { session, client } => {
                let id = self.make_link();
                self.by_session.insert(session, (id, client));
                if let Some(link) = self.links.get_mut(&id) {
                    link.after = self.leaving.get(&client).copied();
                }
            }
            RouterOrder::Leave { session } => {
                let Some((id, client)) = self.by_session.remove(&session) else { return };
                if let Some(link) = self.links.get_mut(&id) {
                    link.leave();
                    self.leaving.insert(client, id);
                }
            }
            RouterOrder::Subscribe { session, number, filter } => {
                self.give(Some(session), Order::Subscribe(translate::subscribe(&filter, number), number));
            }
            RouterOrder::Unsubscribe { session, filter, .. } => self.give(Some(session), Order::Packet(translate::unsubscribe(&filter))),
            RouterOrder::Publish { from, client, serial, message } => {
                self.give(from, Order::Packet(translate::publish(&message, serial, client)));
            }
        }
    }

    fn give(&mut self, session: Option<u32>, order: Order) {
        let id = session.and_then(|session| self.by_session.get(&session)).map_or(OWN, |(id, _)| *id);
        if let Some(link) = self.links.get_mut(&id) {
            link.pending.push_back(order);
            link.pump();
        }
    }

    /// What a link's receiving end heard. True when the router is to be told that the link is ready for more; say `readied` after that.
    pub fn hear(&mut self, id: LinkId, heard: &mut Vec<Notification>, answers: &mut Vec<RouterAnswer>) -> bool {
        let mut stopped = false;
        for notification in heard.drain(..) {
            if matches!(notification, Notification::Unschedule) {
                stopped = true;
                continue;
            }
            match Option::<Packet>::from(notification) {
                Some(Packet::Publish(publish, properties)) => {
                    self.progress.messages += 1;
                    answers.extend(self.came_back(&publish, properties));
                }
                Some(Packet::PingResp(_)) => {
                    if let Some(link) = self.links.get_mut(&id) {
                        let (subscribed, was_work) = link.done();
                        self.progress.others += u64::from(was_work);
                        answers.extend(subscribed.into_iter().map(|number| RouterAnswer::Subscribed { number }));
                    }
                }
                // Everything else that the router may say is darner's own to say.
                _ => {}
            }
        }
        let Some(link) = self.links.get_mut(&id) else { return false };
        link.pump();
        stopped && link.begin_readying()
    }

    pub fn readied(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.readied();
        }
    }

    fn came_back(&mut self, publish: &Publish, properties: Option<PublishProperties>) -> Option<RouterAnswer> {
        let (number, serial, client) = translate::came_back(publish, properties.as_ref())?;
        let slot = self.recent.get_mut(serial as usize % RECENT)?;
        if let Some((known, message)) = slot
            && *known == serial
        {
            return Some(RouterAnswer::Message { number, serial, client, message: Arc::clone(message) });
        }
        let message = Arc::new(translate::message(publish, properties)?);
        *slot = (message.payload.len() <= RECENT_BYTES_MAX).then(|| (serial, Arc::clone(&message)));
        Some(RouterAnswer::Message { number, serial, client, message })
    }

    /// The router closed a link. False when it should not have: it is gone, then.
    pub fn closed(&mut self, id: LinkId) -> bool {
        let Some(link) = self.links.remove(&id) else { return false };
        if !link.has_left() {
            return false;
        }
        self.progress.others += 1;
        self.names.push(link.name);
        self.leaving.retain(|_, leaving| *leaving != id);
        for next in self.links.values_mut().filter(|next| next.after == Some(id)) {
            next.after = None;
            next.pump();
        }
        self.make_waiting();
        true
    }

    /// To be called now and then while anything is outstanding: tells the router what could not be told, and makes it go on where it
    /// waits without need. False when nothing is under way.
    pub fn nudge(&mut self) -> bool {
        let mut is_busy = false;
        for link in self.links.values_mut() {
            link.tell_again();
            link.pump();
            is_busy |= link.is_busy();
        }
        if let Some(own) = self.links.get_mut(&OWN) {
            own.nudge();
        }
        is_busy
    }

    pub fn progress(&self) -> Progress {
        self.progress
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;
    use std::task::{Poll, Waker};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::broker::outside::MESSAGE_BYTES;
    use crate::mqtt::Qos;

    struct Rig {
        router: Router,
        joined: Receiver<Joined>,
        ends: Vec<LinkEnd>,
        answers: Vec<RouterAnswer>,
    }

    impl Rig {
        fn new() -> Self {
            let (sender, joined) = channel();
            let router = Router::spawn(move |joined| drop(sender.send(joined))).expect("a router");
            let mut rig = Self { router, joined, ends: Vec::new(), answers: Vec::new() };
            rig.join();
            rig
        }

        fn join(&mut self) {
            let joined = self.joined.recv_timeout(Duration::from_secs(10)).expect("a link");
            self.ends.push(self.router.joined(joined).expect("the router is there"));
        }

        /// Hears every link until `done`, or one that should not have was closed: false then.
        fn hear_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> bool {
            let end = Instant::now() + Duration::from_secs(10);
            while !done(self) {
                assert!(Instant::now() < end, "waited in vain");
                let mut ends = std::mem::take(&mut self.ends);
                let mut all_well = true;
                ends.retain_mut(|end| self.hear(end, &mut all_well));
                self.ends = ends;
                if !all_well {
                    return false;
                }
                self.router.nudge();
                std::thread::sleep(Duration::from_millis(1));
            }
            true
        }

        fn hear(&mut self, end: &mut LinkEnd, all_well: &mut bool) -> bool {
            let mut heard = Vec::new();
            let came = {
                let mut waiting = std::pin::pin!(end.hear(&mut heard));
                waiting.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()))
            };
            match came {
                Poll::Pending => true,
                Poll::Ready(true) => {
                    if self.router.hear(end.id(), &mut heard, &mut self.answers) {
                        end.rx.ready().expect("the router is there");
                        self.router.readied(end.id());
                    }
                    true
                }
                Poll::Ready(false) => {
                    *all_well &= self.router.closed(end.id());
                    false
                }
            }
        }
    }

    fn message(payload: &str) -> Arc<Message> {
        Arc::new(Message::new("a", payload.as_bytes(), Qos::AtLeastOnce))
    }

    #[test]
    fn a_message_comes_back_for_each_subscription_in_order() {
        let mut rig = Rig::new();
        for session in 0..2 {
            rig.router.order(RouterOrder::Join { session, client: u64::from(session) });
            rig.join();
            rig.router.order(RouterOrder::Subscribe { session, number: session + 1, filter: "#".into() });
        }
        assert!(rig.hear_until(|rig| rig.answers.len() == 2), "both are subscribed");
        rig.answers.clear();
        for serial in 0..1000 {
            rig.router.order(RouterOrder::Publish { from: Some(0), client: 1, serial, message: message(&serial.to_string()) });
        }
        assert!(rig.hear_until(|rig| rig.answers.len() == 2000));
        for wanted in 1..=2 {
            let came = rig.answers.iter().filter_map(|answer| match answer {
                RouterAnswer::Message { number, serial, message, .. } if *number == wanted => Some((*serial, message.payload.clone())),
                _ => None,
            });
            let expected = (0..1000_u64).map(|serial| (serial, Box::from(serial.to_string().as_bytes())));
            assert!(came.eq(expected), "subscription {wanted}");
        }
    }

    #[test]
    fn what_a_client_says_in_its_next_session_comes_after_what_it_said_in_its_last() {
        let mut rig = Rig::new();
        rig.router.order(RouterOrder::Join { session: 0, client: 1 });
        rig.join();
        rig.router.order(RouterOrder::Subscribe { session: 0, number: 1, filter: "#".into() });
        assert!(rig.hear_until(|rig| rig.answers.len() == 1), "it is subscribed");
        rig.router.order(RouterOrder::Join { session: 1, client: 2 });
        rig.join();
        // More than one batch.
        let say = |rig: &mut Rig, session, serial| {
            let message = message("x");
            rig.router.order(RouterOrder::Publish { from: Some(session), client: 2, serial, message });
        };
        (0..600).for_each(|serial| say(&mut rig, 1, serial));
        rig.router.order(RouterOrder::Leave { session: 1 });
        // The number of its session goes to another, and it comes back with a new one.
        for (session, client) in [(1, 3), (2, 2)] {
            rig.router.order(RouterOrder::Join { session, client });
            rig.join();
        }
        say(&mut rig, 2, 600);
        assert!(rig.hear_until(|rig| rig.answers.len() == 602));
        let serials = rig.answers.iter().filter_map(|answer| match answer {
            RouterAnswer::Message { serial, .. } => Some(*serial),
            RouterAnswer::Subscribed { .. } => None,
        });
        assert!(serials.eq(0..=600));
    }

    #[test]
    fn a_router_that_answers_nudges_only_makes_no_progress() {
        let mut rig = Rig::new();
        rig.router.order(RouterOrder::Join { session: 0, client: 1 });
        rig.join();
        rig.router.order(RouterOrder::Subscribe { session: 0, number: 1, filter: "a".into() });
        assert!(rig.hear_until(|rig| rig.answers.len() == 1), "it is subscribed");
        // More than its log keeps, which the ledger would not have let through.
        let large = "x".repeat(4 * SEGMENT_BYTES);
        for serial in 0..20 {
            rig.router.order(RouterOrder::Publish { from: None, client: 1, serial, message: message(&large) });
        }
        let mut last = (rig.router.progress(), Instant::now());
        assert!(rig.hear_until(|rig| rig.answers.len() > 1), "some are kept");
        assert!(rig.hear_until(|rig| {
            if rig.router.progress() != last.0 {
                last = (rig.router.progress(), Instant::now());
            }
            last.1.elapsed() > Duration::from_millis(300)
        }));
        assert!(rig.answers.len() < 21, "rumqttd has mended what this test relies on");
    }

    /// What darner counts on to come back and does not would be taken for lost.
    #[test]
    fn the_router_matches_as_darner_does() {
        const LEVELS: [&str; 4] = ["a", "b", "", "\u{fc}"];
        let under = |first: &str| LEVELS.map(|second| format!("{first}/{second}"));
        let topics: Vec<String> = LEVELS
            .iter()
            .flat_map(|first| under(first))
            .chain(["a", "b", "\u{fc}", "a/b/c", "a/b/", "/a/", "//"].map(Into::into))
            .collect();
        let filters = [
            "#", "+", "+/+", "+/#", "a", "a/#", "a/+", "a/+/#", "a/b", "a/b/#", "+/b", "/", "/#", "/+", "+/", "//", "//#", "a/", "a//",
            "\u{fc}/#", "+/+/+",
        ];
        let mut rig = Rig::new();
        rig.router.order(RouterOrder::Join { session: 0, client: 1 });
        rig.join();
        for (number, filter) in (1..).zip(filters) {
            rig.router.order(RouterOrder::Subscribe { session: 0, number, filter: filter.into() });
        }
        assert!(rig.hear_until(|rig| rig.answers.len() == filters.len()), "they are subscribed");
        rig.answers.clear();
        let mut expected = Vec::new();
        for (serial, topic) in (0..).zip(&topics) {
            let message = Arc::new(Message { topic: topic.as_str().into(), ..(*message("1")).clone() });
            rig.router.order(RouterOrder::Publish { from: None, client: 1, serial, message });
            let matching = filters.iter().filter(|filter| crate::mqtt::topic_filter::matches(filter, topic));
            expected.extend(matching.map(|filter| (topic.clone(), (*filter).to_owned())));
        }
        let mut last = (0, Instant::now());
        assert!(rig.hear_until(|rig| {
            if rig.answers.len() != last.0 {
                last = (rig.answers.len(), Instant::now());
            }
            last.0 > 0 && last.1.elapsed() > Duration::from_millis(500)
        }));
        let mut came: Vec<_> = rig
            .answers
            .iter()
            .filter_map(|answer| match answer {
                RouterAnswer::Message { number, message, .. } => {
                    Some((message.topic.to_string(), filters[*number as usize - 1].to_owned()))
                }
                RouterAnswer::Subscribed { .. } => None,
            })
            .collect();
        came.sort();
        expected.sort();
        assert_eq!(came, expected);
    }

    #[test]
    fn a_name_is_used_again() {
        let mut rig = Rig::new();
        for round in 0..20 {
            rig.router.order(RouterOrder::Join { session: 7, client: 1 });
            rig.join();
            rig.router.order(RouterOrder::Publish { from: Some(7), client: 1, serial: round, message: message("a goodbye") });
            rig.router.order(RouterOrder::Leave { session: 7 });
            assert!(rig.hear_until(|rig| rig.router.links.len() == 1), "it left");
        }
        assert_eq!(rig.router.next_name, 2, "the broker's own, and one");
    }

    #[test]
    fn a_router_that_is_dead_is_found_out() {
        let mut rig = Rig::new();
        rig.router.order(RouterOrder::Join { session: 1, client: 1 });
        rig.join();
        rig.router.order(RouterOrder::Leave { session: 1 });
        // The very thing that links take care not to do: what they say last is that they are ready.
        let end = rig.ends.pop().expect("an end");
        let dead = Instant::now() + Duration::from_secs(10);
        while end.rx.ready().is_ok() {
            assert!(Instant::now() < dead, "rumqttd has mended what this test relies on");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!rig.hear_until(|_| false), "the broker's own link is closed");
        rig.router.order(RouterOrder::Join { session: 2, client: 2 });
        let joined = rig.joined.recv_timeout(Duration::from_secs(10)).expect("an answer");
        assert!(rig.router.joined(joined).is_none());
    }

    #[test]
    fn what_a_message_counts_for_is_no_less_than_the_router_thinks() {
        let message = message("21.5");
        let Packet::Publish(publish, _) = translate::publish(&message, 1, 0) else { panic!("a PUBLISH") };
        let thinks = 4 + publish.topic.len() + publish.payload.len();
        assert!(thinks as u64 <= message.topic.len() as u64 + message.payload.len() as u64 + MESSAGE_BYTES);
    }
}
