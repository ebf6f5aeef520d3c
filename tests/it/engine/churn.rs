//! Many clients that come and go with everything that MQTT has, while a few must get everything.
//!
//! `CHURN_SECS=20 cargo test --test it engine::churn` makes it longer, and has five times as many of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use darner::mqtt::codec::{Decoded, decode};
use darner::mqtt::{
    Ack, Disconnect, Packet, PacketId, Property, Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, SubscriptionRequest,
    Unsubscribe, Will,
};

use super::{PLAIN, broker};
use crate::broker::client::Client;
use crate::support::process::Engine;
use crate::support::random::Random;

const PUBLISHERS: usize = 3;
/// Messages of a publisher that are unacknowledged at most.
const WINDOW: u64 = 20;
/// What the broker may hold at the end, the router's logs included.
const RESIDENT_KB_MAX: u64 = 150_000;

/// What a packet asks for.
enum Came {
    Message { dup: bool, payload: Vec<u8> },
    Pong,
    Other,
}

/// The next packet, answered as its flow wants it.
fn receive(client: &mut Client) -> Came {
    let bytes = client.receive_bytes().expect("the broker is there");
    let Ok(Decoded::Packet { packet, .. }) = decode(&bytes, client.version, u32::MAX) else { panic!("no packet: {bytes:02x?}") };
    let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success, properties: Vec::new() };
    match packet {
        Packet::Publish(publish) => {
            match (publish.qos, publish.packet_id) {
                (Qos::AtLeastOnce, Some(id)) => client.send(&Packet::Puback(ack(id))),
                (Qos::ExactlyOnce, Some(id)) => client.send(&Packet::Pubrec(ack(id))),
                _ => {}
            }
            return Came::Message { dup: publish.dup, payload: publish.payload.to_vec() };
        }
        Packet::Pubrec(ack_of) => client.send(&Packet::Pubrel(ack(ack_of.packet_id))),
        Packet::Pubrel(ack_of) => client.send(&Packet::Pubcomp(ack(ack_of.packet_id))),
        Packet::Pingresp => return Came::Pong,
        _ => {}
    }
    Came::Other
}

/// Everything that was sent has been handled, and every flow is done.
fn settle(client: &mut Client) {
    for _ in 0..2 {
        client.send(&Packet::Pingreq);
        while !matches!(receive(client), Came::Pong) {}
    }
}

fn publish(client: &mut Client, topic: &str, qos: Qos, retain: bool, id: u16, payload: &[u8]) {
    let packet_id = if qos == Qos::AtMostOnce { None } else { PacketId::new(id) };
    client.send(&Packet::Publish(Publish { dup: false, qos, retain, topic, packet_id, properties: Vec::new(), payload }));
}

fn qos(random: &mut Random) -> Qos {
    *random.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

/// One life of one client of the crowd.
fn live(port: u16, name: &str, random: &mut Random) {
    let will = random.one_in(2).then(|| Will {
        topic: format!("crowd/will/{}", random.below(20)),
        payload: vec![b'w'; random.below(20_000)],
        qos: qos(random),
        retain: random.one_in(4),
        properties: if random.one_in(3) { vec![Property::WillDelayInterval(1)] } else { Vec::new() },
    });
    let mut client = Client::connect_as(port, name, random.one_in(2), *random.pick(&[0, 2, 1000]), will);
    for id in 1..=random.below(8) as u16 {
        // More of them than the router is told of.
        let one_of_many = format!("crowd/+/{}", random.below(800));
        let filter = *random.pick(&["crowd/#", "crowd/+/1", "crowd/a/2", "$share/g/crowd/#", "$share/h/crowd/a/+", &one_of_many]);
        match random.below(6) {
            0 | 1 => {
                let options = SubscriptionOptions { qos: qos(random), ..SubscriptionOptions::default() };
                let subscriptions = vec![SubscriptionRequest { filter: filter.to_owned(), options }];
                client.send(&Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties: Vec::new(), subscriptions }));
            }
            2 => client.send(&Packet::Unsubscribe(Unsubscribe {
                packet_id: PacketId::MIN,
                properties: Vec::new(),
                filters: vec![filter.to_owned()],
            })),
            _ => {
                let topic = format!("crowd/{}/{}", random.pick(&["a", "b"]), random.below(4));
                let bytes = if random.one_in(50) { random.below(100_000) } else { random.below(2000) };
                publish(&mut client, &topic, qos(random), random.one_in(5), id, &vec![b'x'; bytes]);
            }
        }
    }
    if random.one_in(2) {
        settle(&mut client);
    }
    if random.one_in(2) {
        client.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Vec::new() }));
    }
}

/// Publishes numbers until it is time, and then the last one, which `total` tells before.
fn count_up(port: u16, publisher: usize, until: Instant, total: &AtomicU64) {
    let mut client = Client::connect_as(port, &format!("publisher-{publisher}"), true, 0, None);
    let mut number = 0;
    while Instant::now() < until {
        for _ in 0..WINDOW {
            number += 1;
            let qos = if number % 2 == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
            publish(&mut client, "keep/numbers", qos, false, 1 + (number % WINDOW) as u16, format!("{publisher} {number}").as_bytes());
        }
        settle(&mut client);
    }
    total.store(number + 1, Ordering::SeqCst);
    publish(&mut client, "keep/numbers", Qos::AtLeastOnce, false, 1, format!("{publisher} {}", number + 1).as_bytes());
    settle(&mut client);
}

/// Gets every number of every publisher, in order. `leaves`: it loses its connection now and then.
fn keep(port: u16, name: &str, leaves: bool, totals: &[AtomicU64; PUBLISHERS]) {
    let mut client = Client::connect_as(port, name, false, 1000, None);
    let mut last = [0; PUBLISHERS];
    let mut count = 0;
    while !totals.iter().zip(last).all(|(total, last)| total.load(Ordering::SeqCst) == last) {
        let Came::Message { dup, payload } = receive(&mut client) else { continue };
        let text = String::from_utf8(payload).expect("text");
        let (publisher, number) = text.split_once(' ').expect("two numbers");
        let (publisher, number): (usize, u64) = (publisher.parse().expect("one"), number.parse().expect("another"));
        assert!(number == last[publisher] + 1 || dup && number <= last[publisher], "{name}: {text} after {}", last[publisher]);
        last[publisher] = last[publisher].max(number);
        count += 1;
        if leaves && count % 300 == 0 {
            drop(client);
            std::thread::sleep(Duration::from_millis(20));
            client = Client::connect_as(port, name, false, 1000, None);
        }
    }
}

fn resident_kb(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_crowd_comes_and_goes_and_those_who_stay_get_everything() {
    let asked: Option<u64> = std::env::var("CHURN_SECS").ok().and_then(|secs| secs.parse().ok());
    let (secs, crowd) = asked.map_or((3, 40), |secs| (secs, 200));
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}max_queued_messages 0\nmax_inflight_messages 0\n"));
    let port = broker.port;
    let until = Instant::now() + Duration::from_secs(secs);
    let totals: Arc<[AtomicU64; PUBLISHERS]> = Arc::default();
    let keepers: Vec<_> = [(Qos::AtLeastOnce, false), (Qos::ExactlyOnce, false), (Qos::AtLeastOnce, true), (Qos::ExactlyOnce, true)]
        .into_iter()
        .enumerate()
        .map(|(number, (qos, leaves))| {
            let totals = Arc::clone(&totals);
            let name = format!("keeper-{number}");
            // All subscribe before the first number comes.
            Client::connect_as(port, &name, false, 1000, None).subscribe_at("keep/#", qos);
            std::thread::spawn(move || keep(port, &name, leaves, &totals))
        })
        .collect();
    let publishers = (0..PUBLISHERS).map(|publisher| {
        let totals = Arc::clone(&totals);
        std::thread::spawn(move || count_up(port, publisher, until, &totals[publisher]))
    });
    let mut threads: Vec<_> = publishers.collect();
    threads.extend((0..crowd).map(|number| {
        std::thread::spawn(move || {
            let mut random = Random::new(number);
            while Instant::now() < until {
                live(port, &format!("crowd-{number}"), &mut random);
            }
        })
    }));
    for thread in threads {
        thread.join().expect("it was served to the end");
    }
    for keeper in keepers {
        keeper.join().expect("it got everything");
    }
    let numbers: u64 = totals.iter().map(|total| total.load(Ordering::SeqCst)).sum();
    let resident = resident_kb(broker.pid());
    println!("{numbers} numbers, {resident} kB");
    assert!(numbers > 100 && resident < RESIDENT_KB_MAX, "{numbers} numbers, {resident} kB");
    assert_eq!(broker.stop(), 0);
}
