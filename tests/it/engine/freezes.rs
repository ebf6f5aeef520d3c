//! What stops or slows down brokers made of rumqttd alone.

use std::time::Duration;

use darner::mqtt::codec::{Decoded, decode};
use darner::mqtt::{Ack, Packet, PacketId, ProtocolVersion, Publish, Qos, ReasonCode};

use super::{PLAIN, broker};
use crate::broker::client::Client;
use crate::support::process::Engine;

/// Nothing waits in a queue that has an end.
const ENDLESS: &str = "max_queued_messages 0\nmax_inflight_messages 0\n";

fn publish_at_qos_1(client: &mut Client, topic: &str, id: u16, payload: &[u8]) {
    client.send(&Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic,
        packet_id: PacketId::new(id),
        properties: Vec::new(),
        payload,
    }));
}

/// The identifier and payload of a PUBLISH at QoS 1.
fn published(bytes: &[u8]) -> Option<(PacketId, Vec<u8>)> {
    match decode(bytes, ProtocolVersion::V311, u32::MAX) {
        Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) => Some((publish.packet_id?, publish.payload.to_vec())),
        _ => None,
    }
}

fn puback(client: &mut Client, packet_id: PacketId) {
    client.send(&Packet::Puback(Ack { packet_id, reason: ReasonCode::Success, properties: Vec::new() }));
}

/// `COUNT` messages at QoS 1 to `in`, at most 100 unacknowledged.
fn produce(mut producer: Client, count: u16) {
    for number in 1..=count {
        publish_at_qos_1(&mut producer, "in", number, &number.to_be_bytes());
        if number % 100 == 0 {
            for _ in 0..100 {
                assert_eq!(producer.receive_bytes().map(|bytes| bytes[0]), Ok(0x40), "PUBACK");
            }
        }
    }
}

/// One client takes what another one sends, more slowly than it comes, and sends it on.
#[test]
fn a_slow_client_that_publishes_what_it_gets_neither_stops_nor_misses_any() {
    const COUNT: u16 = 3000;
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}{ENDLESS}"));
    let port = broker.port;
    let mut reader = Client::connect(port, "reader");
    reader.subscribe("out");
    let mut relay = Client::connect(port, "relay");
    relay.subscribe_at("in", Qos::AtLeastOnce);
    let relay = std::thread::spawn(move || {
        let (mut came, mut acknowledged) = (0, 0);
        while came < COUNT || acknowledged < COUNT {
            let bytes = relay.receive_bytes().expect("the relay is served");
            if let Some((id, payload)) = published(&bytes) {
                came += 1;
                std::thread::sleep(Duration::from_micros(300));
                publish_at_qos_1(&mut relay, "out", came, &payload);
                puback(&mut relay, id);
            } else {
                assert_eq!(bytes[0], 0x40, "PUBACK");
                acknowledged += 1;
            }
        }
    });
    let producer = Client::connect(port, "producer");
    let producer = std::thread::spawn(move || produce(producer, COUNT));
    for number in 1..=COUNT {
        assert_eq!(reader.receive_payload(), number.to_be_bytes());
    }
    relay.join().expect("the relay got everything");
    producer.join().expect("the producer was served");
}

#[test]
fn more_than_100_messages_are_in_flight_to_a_client() {
    const COUNT: u16 = 500;
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}{ENDLESS}"));
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe_at("in", Qos::AtLeastOnce);
    produce(Client::connect(broker.port, "producer"), COUNT);
    let ids: Vec<_> = (0..COUNT).map(|_| published(&reader.receive_bytes().expect("a packet")).expect("a PUBLISH").0).collect();
    for id in ids.into_iter().rev() {
        puback(&mut reader, id);
    }
    reader.ping();
}
