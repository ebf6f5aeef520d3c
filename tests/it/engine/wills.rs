//! What the broker itself publishes goes through the router, too, and nobody can be held up for it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use darner::mqtt::{Packet, PacketId, Property, Publish, Qos, Will};

use super::{PLAIN, broker};
use crate::broker::client::Client;
use crate::support::process::{Engine, Folder};

/// One byte that tells who, and many more.
fn will(who: u8, bytes: usize, properties: Vec<Property>) -> Will {
    let mut payload = vec![b'x'; bytes];
    payload[0] = who;
    Will { topic: format!("wills/{who}"), payload, qos: Qos::AtLeastOnce, retain: false, properties }
}

fn publish_at_qos_1(client: &mut Client, topic: &str, payload: &[u8]) {
    client.send(&Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic,
        packet_id: Some(PacketId::MIN),
        properties: Vec::new(),
        payload,
    }));
    assert_eq!(client.receive_bytes().map(|bytes| bytes[0]), Ok(0x40), "PUBACK");
}

#[test]
fn wills_of_many_at_once_all_come_and_publishers_go_on() {
    const COUNT: usize = 20;
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}max_queued_messages 0\nmax_inflight_messages 0\n"));
    let mut subscriber = Client::connect(broker.port, "subscriber");
    subscriber.subscribe_at("#", Qos::AtMostOnce);
    for round in 0..3 {
        let clients: Vec<_> = (0..COUNT as u8)
            .map(|who| {
                let mut client = Client::connect_as(broker.port, &format!("c{who}"), true, 0, Some(will(who, 60_000, Vec::new())));
                // What it said last comes before its will.
                client.publish(&format!("wills/{who}"), &[who]);
                client
            })
            .collect();
        drop(clients);
        let (mut came, mut last_words) = (BTreeSet::new(), BTreeSet::new());
        while came.len() < COUNT {
            let payload = subscriber.receive_payload();
            if payload.len() == 1 {
                assert!(last_words.insert(payload[0]) && !came.contains(&payload[0]), "round {round}: the will of {} first", payload[0]);
            } else {
                assert!(came.insert(payload[0]), "round {round}: the will of {} again", payload[0]);
            }
        }
        let mut publisher = Client::connect(broker.port, "publisher");
        publish_at_qos_1(&mut publisher, "a", b"still here");
        assert_eq!(subscriber.receive_payload(), b"still here");
    }
    assert_eq!(broker.stop(), 0);
}

#[test]
fn wills_that_are_due_together_and_retained_ones_come_too() {
    const COUNT: usize = 30;
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}max_queued_messages 0\nmax_inflight_messages 0\n"));
    let mut subscriber = Client::connect(broker.port, "subscriber");
    subscriber.subscribe_at("wills/#", Qos::AtMostOnce);
    for who in 0..COUNT as u8 {
        let will = Will { retain: true, ..will(who, 60_000, vec![Property::WillDelayInterval(1)]) };
        drop(Client::connect_as(broker.port, &format!("c{who}"), true, 100, Some(will)));
    }
    let came: BTreeSet<u8> = (0..COUNT).map(|_| subscriber.receive_payload()[0]).collect();
    assert_eq!(came.len(), COUNT);
    let mut later = Client::connect(broker.port, "later");
    later.subscribe_at("wills/#", Qos::AtMostOnce);
    let came: BTreeSet<u8> = (0..COUNT).map(|_| later.receive_payload()[0]).collect();
    assert_eq!(came.len(), COUNT, "each is retained");
}

/// Sessions that come back from the disk have their subscriptions before the router has heard of them.
#[test]
fn wills_that_are_due_at_the_start_come_to_sessions_that_were_kept() {
    let place = Folder::new("engine-wills");
    // The broker's own user may write to it.
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    let conf = format!("{PLAIN}persistence true\npersistence_location {}/\n", place.path().display());
    let first = broker(Engine::Rumqttd, &conf);
    for reader in 0..20 {
        let mut reader = Client::connect_as(first.port, &format!("r{reader}"), false, 1000, None);
        reader.subscribe_at("wills/#", Qos::AtLeastOnce);
    }
    drop(Client::connect_as(first.port, "left", true, 1000, Some(will(7, 100, vec![Property::WillDelayInterval(1)]))));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(first.stop(), 0);
    std::thread::sleep(Duration::from_secs(1));
    let second = broker(Engine::Rumqttd, &conf);
    // It may come as soon as the port is open, and so does this.
    publish_at_qos_1(&mut Client::connect(second.port, "early"), "wills/8", &[8]);
    for reader in 0..20 {
        let mut client = Client::connect_as(second.port, &format!("r{reader}"), false, 1000, None);
        let came = BTreeSet::from([client.receive_payload()[0], client.receive_payload()[0]]);
        assert_eq!(came, BTreeSet::from([7, 8]), "reader {reader}");
    }
}
