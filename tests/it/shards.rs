//! Several machines as shards of one broker, their mailboxes delivered in a seeded random order (each mailbox in its own).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use darner::broker::{Broker, ConnectionId, Effect, Input, Origin, Outbox, SecurityTables, Settings, ShardId, ShardMessage, Time};
use darner::conf::Conf;
use darner::mqtt::codec::{self, Decoded};
use darner::mqtt::{
    Connect, Packet, PacketId, Properties, ProtocolVersion, Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, SubscriptionRequest,
};

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

/// A broker of several shards, and what each client has been sent.
struct Cluster {
    shards: Vec<Broker>,
    /// (from, to) → messages on their way.
    mailboxes: BTreeMap<(u16, u16), VecDeque<ShardMessage>>,
    /// Client number → its packets as (topic, payload, retain) or a mark for SUBACK.
    received: Vec<Vec<Seen>>,
    now: Time,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Suback,
    Publish { topic: String, payload: Vec<u8>, retain: bool },
}

impl Cluster {
    fn new(shards: u16) -> Self {
        let settings = Settings { conf: Arc::new(Conf::default()), security: Arc::new([SecurityTables::default()]) };
        let shards = (0..shards).map(|n| Broker::new(ShardId(n), shards, settings.clone(), u64::from(n))).collect();
        Self { shards, mailboxes: BTreeMap::new(), received: Vec::new(), now: Time(1) }
    }

    fn shard_of(&self, client: usize) -> usize {
        client % self.shards.len()
    }

    fn input(&mut self, shard: usize, input: Input<'_>) {
        let mut out = Outbox::default();
        self.shards[shard].handle(self.now, input, &mut out);
        for effect in &out.effects {
            match effect {
                Effect::Send { connection, start, end, .. } => {
                    let client = connection.slot();
                    let seen = match codec::decode(out.bytes(*start, *end), ProtocolVersion::V5, u32::MAX) {
                        Ok(Decoded::Packet { packet: Packet::Publish(p), .. }) => {
                            Seen::Publish { topic: p.topic.to_owned(), payload: p.payload.to_vec(), retain: p.retain }
                        }
                        Ok(Decoded::Packet { packet: Packet::Suback(suback), .. }) => {
                            assert!(suback.reasons.iter().all(|reason| !reason.is_error()));
                            Seen::Suback
                        }
                        Ok(Decoded::Packet { packet: Packet::Connack(connack), .. }) => {
                            assert_eq!(connack.reason, ReasonCode::Success);
                            continue;
                        }
                        other => panic!("an unexpected packet: {other:?}"),
                    };
                    self.received[client].push(seen);
                }
                Effect::ToShard { to, message } => {
                    self.mailboxes.entry((shard as u16, to.0)).or_default().push_back(message.clone());
                }
                Effect::Note(_) | Effect::Close { .. } => {}
                other => panic!("an unexpected effect: {other:?}"),
            }
        }
    }

    fn packet(&mut self, client: usize, packet: Packet<'_>) {
        let shard = self.shard_of(client);
        self.input(shard, Input::Packet { connection: ConnectionId::new(client as u32, 1), packet, len: 0 });
    }

    fn connect(&mut self) -> usize {
        let client = self.received.len();
        self.received.push(Vec::new());
        let shard = self.shard_of(client);
        let connection = ConnectionId::new(client as u32, 1);
        self.input(shard, Input::Opened { connection, origin: Origin::Listener(0), peer: String::new(), certificate_user: None });
        let connect = Connect {
            version: ProtocolVersion::V5,
            bridge: false,
            clean_start: true,
            keep_alive: 0,
            properties: Properties::new(),
            client_id: format!("client{client}"),
            will: None,
            username: None,
            password: None,
        };
        self.packet(client, Packet::Connect(Box::new(connect)));
        client
    }

    fn subscribe(&mut self, client: usize, filter: &str) {
        let request = SubscriptionRequest { filter: filter.to_owned(), options: SubscriptionOptions::default() };
        let packet_id = PacketId::new(1).expect("not zero");
        self.packet(client, Packet::Subscribe(Subscribe { packet_id, properties: Properties::new(), subscriptions: vec![request] }));
    }

    fn publish(&mut self, client: usize, topic: &str, payload: &str, retain: bool) {
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain,
            topic,
            packet_id: None,
            properties: Properties::new(),
            payload: payload.as_bytes(),
        };
        self.packet(client, Packet::Publish(publish));
    }

    /// Delivers one message of one mailbox; false when all are empty.
    fn step(&mut self, random: &mut Random) -> bool {
        let waiting: Vec<(u16, u16)> = self.mailboxes.iter().filter(|(_, mailbox)| !mailbox.is_empty()).map(|(pair, _)| *pair).collect();
        if waiting.is_empty() {
            return false;
        }
        let (from, to) = waiting[random.below(waiting.len())];
        let message = self.mailboxes.get_mut(&(from, to)).and_then(VecDeque::pop_front).expect("it waits");
        self.input(usize::from(to), Input::FromShard { from: ShardId(from), message });
        true
    }

    fn settle(&mut self, random: &mut Random) {
        while self.step(random) {}
    }

    fn payloads(&self, client: usize) -> Vec<String> {
        let text = |seen: &Seen| match seen {
            Seen::Publish { payload, .. } => Some(String::from_utf8_lossy(payload).into_owned()),
            Seen::Suback => None,
        };
        self.received[client].iter().filter_map(text).collect()
    }
}

#[test]
fn a_message_published_after_suback_reaches_every_shard_once() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let mut cluster = Cluster::new(3);
        let clients: Vec<usize> = (0..6).map(|_| cluster.connect()).collect();
        let filters = ["a/+", "a/#", "a/b", "#", "+/b", "c"];
        for client in &clients {
            cluster.subscribe(*client, filters[*client]);
            for _ in 0..random.below(3) {
                cluster.step(&mut random);
            }
        }
        cluster.settle(&mut random);
        assert!(cluster.received.iter().all(|seen| seen.contains(&Seen::Suback)), "seed {seed}: every SUBSCRIBE is answered");
        for n in 0..20 {
            let from = random.below(6);
            cluster.publish(from, "a/b", &format!("{n}"), false);
            for _ in 0..random.below(4) {
                cluster.step(&mut random);
            }
        }
        cluster.settle(&mut random);
        for client in 0..5 {
            let mut numbers: Vec<u32> = cluster.payloads(client).iter().map(|text| text.parse().expect("a number")).collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..20).collect::<Vec<u32>>(), "seed {seed}, client {client}");
        }
        assert!(cluster.payloads(5).is_empty(), "seed {seed}: nobody published to c");
    }
}

#[test]
fn messages_of_one_publisher_keep_their_order() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut cluster = Cluster::new(4);
        let subscriber = cluster.connect();
        let publisher = cluster.connect();
        cluster.subscribe(subscriber, "t");
        cluster.settle(&mut random);
        for n in 0..30 {
            cluster.publish(publisher, "t", &n.to_string(), false);
            for _ in 0..random.below(3) {
                cluster.step(&mut random);
            }
        }
        cluster.settle(&mut random);
        assert_eq!(cluster.payloads(subscriber), (0..30).map(|n| n.to_string()).collect::<Vec<_>>(), "seed {seed}");
    }
}

#[test]
fn a_new_subscriber_never_ends_on_a_stale_retained_value() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut cluster = Cluster::new(3);
        let publisher = cluster.connect();
        let subscribers = [cluster.connect(), cluster.connect()];
        cluster.publish(publisher, "state", "old", true);
        for _ in 0..random.below(4) {
            cluster.step(&mut random);
        }
        for subscriber in subscribers {
            cluster.subscribe(subscriber, "state");
        }
        for _ in 0..random.below(6) {
            cluster.step(&mut random);
        }
        cluster.publish(publisher, "state", "new", true);
        cluster.settle(&mut random);
        for subscriber in subscribers {
            assert_eq!(cluster.payloads(subscriber).last().map(String::as_str), Some("new"), "seed {seed}");
        }
    }
}

#[test]
fn of_a_share_across_shards_one_member_gets_each_message() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut cluster = Cluster::new(3);
        let members: Vec<usize> = (0..5).map(|_| cluster.connect()).collect();
        let plain = cluster.connect();
        let publisher = cluster.connect();
        for member in &members {
            cluster.subscribe(*member, "$share/group/t/#");
        }
        cluster.subscribe(plain, "t/x");
        cluster.settle(&mut random);
        for n in 0..60 {
            cluster.publish(publisher, "t/x", &n.to_string(), false);
        }
        cluster.settle(&mut random);
        let shares: Vec<usize> = members.iter().map(|member| cluster.payloads(*member).len()).collect();
        assert_eq!(shares.iter().sum::<usize>(), 60, "seed {seed}: {shares:?}");
        assert!(shares.iter().all(|count| *count > 0), "seed {seed}: everybody works: {shares:?}");
        assert_eq!(cluster.payloads(plain).len(), 60, "seed {seed}: the plain subscriber gets all");
    }
}

#[test]
fn a_shard_without_subscribers_is_left_alone() {
    let mut random = Random(7);
    let mut cluster = Cluster::new(2);
    let (a, b) = (cluster.connect(), cluster.connect());
    cluster.subscribe(a, "t");
    cluster.settle(&mut random);
    cluster.publish(b, "t", "1", false);
    cluster.settle(&mut random);
    assert_eq!(cluster.payloads(a), ["1"]);
    cluster.packet(a, Packet::Disconnect(darner::mqtt::Disconnect { reason: ReasonCode::Success, properties: Properties::new() }));
    cluster.settle(&mut random);
    cluster.publish(b, "t", "2", false);
    assert!(cluster.mailboxes.values().all(VecDeque::is_empty), "the other shard has lost its interest");
}

#[test]
fn a_second_subscriber_is_not_answered_before_the_other_shards_know_of_the_first() {
    for seed in 0..100 {
        let mut random = Random(seed);
        let mut cluster = Cluster::new(2);
        let (first, publisher, second) = (cluster.connect(), cluster.connect(), cluster.connect());
        cluster.subscribe(first, "t");
        cluster.subscribe(second, "t");
        while !cluster.received[second].contains(&Seen::Suback) {
            assert!(cluster.step(&mut random), "seed {seed}: it is answered some time");
        }
        cluster.publish(publisher, "t", "1", false);
        cluster.settle(&mut random);
        assert_eq!(cluster.payloads(second), ["1"], "seed {seed}");
    }
}
