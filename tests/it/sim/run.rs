//! One run: random steps, then calm, then the accounts are settled.

use std::collections::BTreeMap;

use darner::mqtt::{Property, ProtocolVersion, Qos, ReasonCode, Will};

use super::client::{Client, Wish, number_of, payload};
use super::fault::Fault;
use super::ledger::{Fate, Ledger, Number, Published, matches};
use super::profile::Profile;
use super::sessions::{NEVER, Present, Sessions};
use super::world::World;
use crate::support::process::Engine;
use crate::support::random::Random;

pub struct Run {
    pub random: Random,
    pub profile: Profile,
    pub world: World,
    pub clients: Vec<Client>,
    pub sessions: Sessions,
    pub ledger: Ledger,
    /// Of CONNECTs that were read.
    pub expected_present: BTreeMap<u32, Present>,
    /// Client → step at which the broker told it of a new session, whether it heard that or not.
    pub session_began: BTreeMap<usize, u64>,
    pub trace: Option<Vec<String>>,
    is_calm: bool,
}

/// Filters that clients subscribe to, besides the retained topics.
const FILTERS: [&str; 6] = ["t/#", "t/+", "t/0", "t/1", "r/#", "w/#"];
/// Those that do not overlap: messages of one topic keep their order within a subscription only, where a router carries them.
const APART: [&str; 5] = ["t/0", "t/1", "t/2", "r/#", "w/#"];
const SHARES: [&str; 2] = ["$share/g/t/#", "$share/h/t/1"];
const TOPICS: [&str; 3] = ["t/0", "t/1", "t/2"];
/// A client has at most so many messages under way, which is less than the broker's Receive Maximum where it has one.
const FLIGHTS_MAX: usize = 8;
/// Time that passes while everything calms down: more than the longest Will Delay Interval.
const CALM_MS: u64 = 30_000;

impl Run {
    pub fn new(seed: u64, engine: Engine, fault: Option<Fault>, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let profile = Profile::draw(&mut random).with(engine);
        let mut world = World::new(profile.settings(), profile.shards, profile.congests);
        world.fault = fault;
        world.notes = traced.then(Vec::new);
        let mut run = Self {
            world,
            clients: Vec::new(),
            sessions: Sessions::default(),
            ledger: Ledger::default(),
            expected_present: BTreeMap::new(),
            session_began: BTreeMap::new(),
            trace: traced.then(Vec::new),
            is_calm: false,
            random,
            profile,
        };
        let said = format!("{:?}", run.profile);
        run.say(|| said);
        for _ in 0..run.profile.clients {
            let version = *run.random.pick(&[ProtocolVersion::V311, ProtocolVersion::V5, ProtocolVersion::V5]);
            run.add_client(version);
        }
        run
    }

    fn add_client(&mut self, version: ProtocolVersion) -> usize {
        let index = self.clients.len();
        let mut client = Client::new(index, index % usize::from(self.profile.shards), version);
        client.no_local = self.random.one_in(4);
        self.clients.push(client);
        index
    }

    pub fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:6} {:8} ms  {}", self.ledger.step, self.world.now, line()));
        }
    }

    /// Plays the seed to its end: the first violation, if any.
    pub fn play(&mut self) -> Option<String> {
        for _ in 0..self.profile.steps {
            self.step();
            if self.ledger.violation().is_some() {
                break;
            }
        }
        if self.ledger.violation().is_none() {
            self.calm_down();
        }
        if self.ledger.violation().is_none() {
            self.settle_accounts();
        }
        self.ledger.violation().map(ToOwned::to_owned)
    }

    fn step(&mut self) {
        self.ledger.step += 1;
        if self.profile.crash_every.is_some_and(|every| self.random.one_in(every)) {
            // At once, or amid the effects to come.
            self.world.dies_in = Some(self.random.below(6));
        }
        if self.profile.fail_every.is_some_and(|every| self.random.one_in(every)) {
            self.turn_store();
        }
        let client = self.random.below(self.clients.len());
        match self.random.below(100) {
            0..20 => self.carry_up(client),
            20..45 => self.carry_down(client),
            45..55 => self.clients[client].acknowledge(),
            55..75 => self.act(client),
            75..90 if self.random.one_in(self.profile.mail_one_in) => {
                self.world.mail(&mut self.random);
            }
            90..95 => self.pass_time(),
            _ => {
                if !self.world.is_failing && self.random.one_in(self.profile.commit_every) {
                    let shard = self.random.below(self.world.shards.len());
                    self.world.commit(shard);
                    self.note_committed();
                }
            }
        }
        if self.random.one_in(self.profile.cut_every) {
            self.cut(client);
        }
        self.after_step(client);
    }

    fn after_step(&mut self, client: usize) {
        self.hand_over(client);
        self.judge();
        if self.world.is_dead {
            self.crash();
        }
        self.world.sweep();
    }

    /// Each shard has a store of its own: what the model knows of all is safe when each has all.
    fn note_committed(&mut self) {
        if self.world.shards.iter().all(|shard| shard.disk.is_committed()) {
            self.sessions.committed(&mut self.ledger);
        }
    }

    /// The store begins to fail, or recovers.
    fn turn_store(&mut self) {
        let begins = !self.world.is_failing;
        self.say(|| format!("the store {}", if begins { "fails" } else { "recovers" }));
        if begins {
            self.ledger.has_failed = true;
            self.world.fail();
        } else {
            self.world.recover();
        }
        self.judge();
        if !begins && !self.world.is_dead {
            self.note_committed();
            self.clients.iter_mut().for_each(|client| client.ended_unkept = false);
        }
    }

    fn crash(&mut self) {
        self.say(|| "the broker crashes".to_owned());
        self.ledger.crashes += 1;
        self.ledger.crashed = self.ledger.step;
        self.ledger.crashes_failing += usize::from(self.world.is_failing);
        for client in &mut self.clients {
            client.is_undone |= std::mem::take(&mut client.ended_unkept);
        }
        let now = self.world.now;
        // The limit of that engine: what has not come back is lost.
        for number in self.world.router.die().iter().filter_map(|payload| number_of(payload)) {
            let message = &mut self.ledger.messages[number];
            (message.is_void, message.acknowledged) = (true, None);
        }
        self.sessions.crash(now, &mut self.ledger);
        self.world.crash(&mut self.random);
        self.judge();
    }

    /// What the client wants to send goes on its way.
    fn hand_over(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if let Some(link) = client.link.and_then(|link| self.world.links.get_mut(&link)) {
            link.up.extend(client.outgoing.drain(..));
        }
    }

    fn count(&mut self) -> usize {
        if self.is_calm {
            usize::MAX
        } else if self.profile.bytewise {
            1 + self.random.below(3)
        } else if self.random.one_in(3) {
            1 + self.random.below(40)
        } else {
            usize::MAX
        }
    }

    /// Bytes of this client's connections, those included that it has given up.
    fn carry_up(&mut self, client: usize) {
        let links: Vec<u32> = self.world.links.iter().filter(|(_, link)| link.client == client).map(|(link, _)| *link).collect();
        if !links.is_empty() {
            let link = *self.random.pick(&links);
            let count = self.count();
            self.world.carry_up(link, count);
        }
    }

    fn carry_down(&mut self, client: usize) {
        let Some(link) = self.clients[client].link else { return };
        let count = self.count();
        let bytes = self.world.carry_down(link, count);
        if !bytes.is_empty() {
            self.say_received(client, &bytes);
            self.clients[client].receive(&bytes, &mut self.ledger);
            return;
        }
        if self.world.links.get(&link).is_none_or(|link| !link.broker_is_there) {
            self.lose(client);
        }
    }

    fn say_received(&mut self, client: usize, bytes: &[u8]) {
        let text = format!("{:02x?}", &bytes[..bytes.len().min(24)]);
        self.say(|| format!("c{client} gets {} bytes {text}", bytes.len()));
    }

    fn lose(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link
            && let Some(link) = self.world.links.get_mut(&link)
        {
            link.client_is_there = false;
            link.down.clear();
        }
        self.clients[client].lose();
        self.say(|| format!("c{client} has lost its connection"));
    }

    /// The connection breaks: of what the client sent, any first part arrives.
    fn cut(&mut self, client: usize) {
        let Some(link) = self.clients[client].link else { return };
        self.hand_over(client);
        if let Some(link) = self.world.links.get_mut(&link) {
            let kept = self.random.below(link.up.len() + 1);
            link.up.truncate(kept);
        }
        self.lose(client);
    }

    fn act(&mut self, client: usize) {
        if self.clients[client].link.is_none() {
            return self.connect(client);
        }
        if !self.clients[client].is_online {
            return;
        }
        match self.random.below(20) {
            0..11 => self.publish(client),
            11..16 => self.subscribe(client),
            16 => self.unsubscribe(client),
            17 => self.disconnect(client),
            _ => self.clients[client].ping(),
        }
    }

    fn connect(&mut self, client: usize) {
        let clean = !self.is_calm && self.random.one_in(self.profile.clean_one_in);
        let expiry_secs = if self.profile.expiries && !self.is_calm { *self.random.pick(&[0, 1, 10, 60, NEVER]) } else { NEVER };
        let receive_maximum = self.profile.receive_maximum.then(|| 1 + self.random.below(6) as u16);
        let keep_alive = if self.profile.keep_alive && !self.is_calm { *self.random.pick(&[0, 5, 30]) } else { 0 };
        let will = (self.profile.wills && !self.is_calm && self.random.one_in(2)).then(|| self.will(client));
        let link = self.world.open(client, self.clients[client].shard);
        let wish = Wish { clean, expiry_secs, receive_maximum, keep_alive, will };
        self.clients[client].connect(link, wish);
        if self.world.fault == Some(Fault::ReceiveMaximumIgnored) {
            self.clients[client].expect_fewer();
        }
        self.say(|| format!("c{client} connects (link {link}, clean {clean}, expiry {expiry_secs} s)"));
    }

    fn will(&mut self, client: usize) -> (Will, Number, u32) {
        let qos = self.random.below(3) as u8;
        let topic = format!("w/{client}");
        let number = self.publication(client, topic.clone(), qos, Fate::Armed);
        let delay = if self.clients[client].is_v5() { *self.random.pick(&[0, 0, 3, 20]) } else { 0 };
        let properties = if delay > 0 { vec![Property::WillDelayInterval(delay)] } else { Vec::new() };
        let qos = Qos::from_u8(qos).expect("0 to 2");
        (Will { topic, payload: payload(number).into_bytes(), qos, retain: false, properties }, number, delay)
    }

    fn publication(&mut self, by: usize, topic: String, qos: u8, fate: Fate) -> Number {
        let retain = topic.starts_with("r/");
        let is_will = fate == Fate::Armed;
        let expiry_secs = (self.clients[by].is_v5() && !is_will && self.random.one_in(5)).then(|| 1 + self.random.below(20) as u32);
        let empty = retain && qos > 0 && self.random.one_in(8);
        let made = self.ledger.step;
        self.ledger.publish(Published {
            by,
            topic,
            qos,
            retain,
            expiry_secs,
            empty,
            made,
            read: Vec::new(),
            is_unsure: false,
            acknowledged: None,
            is_void: false,
            fate,
        })
    }

    fn publish(&mut self, client: usize) {
        if self.clients[client].flights.len() >= FLIGHTS_MAX.min(self.profile.inflight_messages) {
            return;
        }
        let qos = self.random.below(3) as u8;
        let topic = if self.random.one_in(3) {
            format!("r/{client}/{qos}{}", self.random.below(2))
        } else {
            (*self.random.pick(&TOPICS)).to_owned()
        };
        let number = self.publication(client, topic, qos, Fate::Published);
        self.clients[client].publish(number, &self.ledger, false);
        self.say(|| format!("c{client} publishes {number} QoS {qos}"));
    }

    fn filter(&mut self, client: usize) -> (String, u8) {
        let shared = self.profile.shares
            && match self.profile.engine {
                Engine::Core => self.random.one_in(3),
                // What goes through a share overtakes what goes through the router: nobody has both.
                Engine::Rumqttd => client % 2 == 1,
            };
        let list: &[&str] = match (shared, self.profile.engine) {
            (true, _) => &SHARES,
            (false, Engine::Core) => &FILTERS,
            (false, Engine::Rumqttd) => &APART,
        };
        let at = self.random.below(list.len());
        (list[at].to_owned(), at as u8)
    }

    fn subscribe(&mut self, client: usize) {
        let (filter, at) = self.filter(client);
        // Always the same QoS for the same client and filter.
        let qos = (client as u8 + at) % 3;
        self.clients[client].subscribe(&filter, qos);
        self.say(|| format!("c{client} subscribes to {filter} QoS {qos}"));
    }

    fn unsubscribe(&mut self, client: usize) {
        let (filter, _) = self.filter(client);
        if self.clients[client].subscriptions.contains_key(&filter) {
            self.clients[client].unsubscribe(&filter);
            self.say(|| format!("c{client} unsubscribes from {filter}"));
        }
    }

    fn disconnect(&mut self, client: usize) {
        let lasts = !self.clients[client].ends_with_connection;
        let changes = self.clients[client].is_v5() && self.profile.expiries && lasts && self.random.one_in(3);
        let properties = if changes { vec![Property::SessionExpiryInterval(*self.random.pick(&[0, 5, NEVER]))] } else { Vec::new() };
        self.say(|| format!("c{client} disconnects {properties:?}"));
        self.clients[client].disconnect(ReasonCode::Success, properties);
        self.hand_over(client);
        self.lose(client);
    }

    fn pass_time(&mut self) {
        let next = self.world.next_deadline().unwrap_or(self.world.now);
        let end = match self.random.below(6) {
            0 if self.random.one_in(8) => next.saturating_sub(1),
            0 if self.random.one_in(4) => next,
            1 if self.random.one_in(8) => next.min(self.world.now + 60_000) + 1,
            2 => self.world.now + self.random.below(5_000) as u64,
            _ => self.world.now + self.random.below(500) as u64,
        };
        self.world.pass_to(end.min(self.world.now + 100_000));
    }

    /// Everybody comes back, everything arrives.
    fn calm_down(&mut self) {
        self.is_calm = true;
        self.world.dies_in = None;
        if self.world.is_failing {
            self.turn_store();
        }
        let end = self.world.now + CALM_MS;
        for _ in 0..10_000 {
            self.ledger.step += 1;
            if !self.calm_round() {
                if self.world.now >= end {
                    return;
                }
                let due = self.world.next_deadline().unwrap_or(end).clamp(self.world.now + 1, end);
                self.world.pass_to(due);
                self.judge();
            }
            if self.ledger.violation().is_some() {
                return;
            }
        }
        self.ledger.blame("the broker does not come to rest");
    }

    /// True while anything moves.
    fn calm_round(&mut self) -> bool {
        let mut moved = false;
        for client in 0..self.clients.len() {
            if self.clients[client].link.is_none() {
                self.connect(client);
                moved = true;
            }
            while !self.clients[client].owed.is_empty() {
                self.clients[client].acknowledge();
            }
            self.hand_over(client);
            self.judge();
        }
        let links: Vec<u32> = self.world.links.keys().copied().collect();
        for link in links {
            let Some(of) = self.world.links.get(&link) else { continue };
            let (client, is_gone) = (of.client, !of.client_is_there || !of.broker_is_there);
            moved |= is_gone || !of.up.is_empty() || !of.down.is_empty();
            self.world.carry_up(link, usize::MAX);
            self.judge();
            if self.clients[client].link == Some(link) {
                self.carry_down(client);
                self.after_step(client);
            }
        }
        for shard in 0..self.world.shards.len() {
            self.world.commit(shard);
        }
        self.note_committed();
        while self.world.mail(&mut self.random) {
            moved = true;
        }
        self.judge();
        self.world.sweep();
        moved
    }

    /// Nothing moves any more: who has what he was promised?
    fn settle_accounts(&mut self) {
        let outstanding: u64 = self.world.shards.iter().map(|shard| shard.broker.router_outstanding()).sum();
        if outstanding > 0 {
            self.ledger.blame(format!("{outstanding} bytes never came back, and publishers would wait for them"));
        }
        for client in 0..self.clients.len() {
            for number in 0..self.ledger.messages.len() {
                if let Some(filter) = self.is_owed(client, number) {
                    let message = &self.ledger.messages[number];
                    let said = format!("lost: c{client} ({filter}) never got message {number} of {}, QoS {}", message.topic, message.qos);
                    self.ledger.blame(said);
                }
            }
        }
        for group in SHARES {
            self.settle_share(group);
        }
        self.settle_retained();
        self.settle_state();
    }

    /// The records add up to what the machine has, and nothing waits any more.
    fn settle_state(&mut self) {
        for shard in &self.world.shards {
            let (state, kept) = (shard.broker.durable_state(), shard.disk.state());
            for (client_id, session) in &state.sessions {
                if !session.deliveries.is_empty() {
                    self.ledger.blame(format!("memory: {} messages wait for {client_id} for ever", session.deliveries.len()));
                }
                if kept.sessions.get(client_id) != Some(session) {
                    let kept = kept.sessions.get(client_id);
                    self.ledger.blame(format!("records: the session of {client_id} is {session:?}, and its records say {kept:?}"));
                }
            }
            if !state.post.posted.is_empty() {
                self.ledger.blame(format!("memory: {} letters wait for ever", state.post.posted.len()));
            }
            if kept.post != state.post {
                self.ledger.blame(format!("records: letters are {:?}, and their records say {:?}", state.post, kept.post));
            }
            if kept.sessions.len() != state.sessions.len() {
                self.ledger.blame("records: sessions are kept that have ended");
            }
        }
    }

    /// The subscription for which `client` should have got this message, if it has not.
    fn is_owed(&self, client: usize, number: Number) -> Option<String> {
        let message = &self.ledger.messages[number];
        let client = &self.clients[client];
        if !self.is_promised(number) || (client.no_local && message.by == client.index) {
            return None;
        }
        let made = self.asked_from(number);
        let mut subscriptions = client.subscriptions.iter().filter(|(filter, subscription)| {
            let since = subscription.since.is_some_and(|since| since < made);
            !filter.starts_with("$share/") && since && subscription.qos > 0 && matches(filter, &message.topic)
        });
        let (filter, _) = subscriptions.next()?;
        let got = (1..=2).any(|qos| client.received.times.contains_key(&(number, qos)));
        (!got).then(|| filter.clone())
    }

    /// The broker has said that it will deliver.
    fn is_promised(&self, number: Number) -> bool {
        let message = &self.ledger.messages[number];
        if message.qos == 0 || message.expiry_secs.is_some() || message.empty {
            return false;
        }
        match message.fate {
            Fate::Published => message.acknowledged.is_some(),
            Fate::Due { crashes } => crashes == self.ledger.crashes,
            Fate::Armed | Fate::Cancelled | Fate::Unknown => false,
        }
    }

    /// Subscriptions that stood at this step count.
    fn asked_from(&self, number: Number) -> u64 {
        let message = &self.ledger.messages[number];
        match message.fate {
            Fate::Due { .. } => message.read.first().map_or(u64::MAX, |(step, _)| *step),
            _ => message.made,
        }
    }

    /// A member of a share gets each message, where all who were ever in it have stayed.
    fn settle_share(&mut self, group: &str) {
        for number in 0..self.ledger.messages.len() {
            let message = &self.ledger.messages[number];
            if !self.is_promised(number) || !matches(group, &message.topic) {
                continue;
            }
            let made = self.asked_from(number);
            let mut members = self.clients.iter().filter(|client| client.shares_ever.contains(group)).peekable();
            let has_members = members.peek().is_some();
            let (mut have_stayed, mut got) = (true, false);
            for member in members {
                let subscription = member.subscriptions.get(group);
                have_stayed &= subscription.is_some_and(|s| s.qos > 0 && s.since.is_some_and(|since| since < made));
                got |= (1..=2).any(|qos| member.received.times.contains_key(&(number, qos)));
            }
            if has_members && have_stayed && !got {
                self.ledger.blame(format!("lost: nobody of {group} got message {number}"));
            }
        }
    }

    fn settle_retained(&mut self) {
        for shard in 0..usize::from(self.profile.shards) {
            let probe = self.add_client(ProtocolVersion::V5);
            self.clients[probe].shard = shard;
            self.clients[probe].no_local = false;
            self.connect(probe);
            while self.calm_round() {}
            self.ledger.step += 1;
            self.clients[probe].subscribe("r/#", 0);
            while self.calm_round() {}
            let topics: Vec<String> = self.ledger.retained.keys().cloned().collect();
            for topic in topics {
                let value = self.clients[probe].retained.get(&topic).copied();
                let floor = self.ledger.retained_floor(&topic);
                let now = self.world.now;
                self.ledger.check_retained(&topic, value, floor, now);
            }
        }
    }
}
