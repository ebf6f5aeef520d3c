//! Real brokers in turn on the same state: Debian's mosquitto before darner, and after it.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use darner::mqtt::{
    Ack, Packet, PacketId, Properties, Property, ProtocolVersion, Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions,
    SubscriptionRequest,
};

use crate::broker::client::Client;
use crate::support::peer::Peer;
use crate::support::process::{Broker, Folder, darner, run};

use ProtocolVersion::{V5, V311};

/// For mosquitto; its peer runs as root.
fn conf(place: &Folder) -> String {
    let location = place.path().display();
    format!("listener {{port}} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {location}/\n")
}

fn start(place: &Folder) -> Broker {
    let broker = Broker::start(&format!("user root\n{}", conf(place)));
    broker.wait_for_log(" running");
    broker
}

fn ack(id: u16) -> Ack {
    Ack { packet_id: PacketId::new(id).expect("not 0"), reason: ReasonCode::Success, properties: Vec::new() }
}

/// Publishes, as far as `until`: what the broker answers last.
fn send(client: &mut Client, (topic, payload): (&str, &str), qos: Qos, retain: bool, properties: Properties) {
    let packet_id = (qos != Qos::AtMostOnce).then_some(ack(77).packet_id);
    client.send(&Packet::Publish(Publish { dup: false, qos, retain, topic, packet_id, properties, payload: payload.as_bytes() }));
}

fn publish(client: &mut Client, what: (&str, &str), qos: Qos, retain: bool, properties: Properties) {
    send(client, what, qos, retain, properties);
    if qos == Qos::AtLeastOnce {
        assert!(matches!(client.receive(), Packet::Puback(_)));
    } else if qos == Qos::ExactlyOnce {
        assert!(matches!(client.receive(), Packet::Pubrec(_)));
        client.send(&Packet::Pubrel(ack(77)));
        assert!(matches!(client.receive(), Packet::Pubcomp(_)));
    }
}

fn subscribe(client: &mut Client, filter: &str, options: SubscriptionOptions, properties: Properties) {
    let subscriptions = vec![SubscriptionRequest { filter: filter.into(), options }];
    client.send(&Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties, subscriptions }));
    assert!(matches!(client.receive(), Packet::Suback(_)));
}

/// A message or a PUBREL: packet identifier, payload, QoS and DUP.
fn next(client: &mut Client) -> (u16, String, u8, bool) {
    match client.receive() {
        Packet::Publish(publish) => {
            let id = publish.packet_id.map_or(0, PacketId::get);
            (id, String::from_utf8_lossy(publish.payload).into_owned(), publish.qos as u8, publish.dup)
        }
        Packet::Pubrel(ack) => (ack.packet_id.get(), "PUBREL".into(), 2, false),
        other => panic!("neither PUBLISH nor PUBREL: {other:?}"),
    }
}

fn rich() -> Properties {
    vec![
        Property::ContentType("text/plain".into()),
        Property::CorrelationData([0, 1, 0xff].into()),
        Property::ResponseTopic("answers/here".into()),
        Property::UserProperty("unit".into(), "°C".into()),
        Property::UserProperty("unit".into(), "again".into()),
    ]
}

/// Everything that a broker keeps, in one go: sessions away, in flight, queued, half published, and retained messages.
fn fill(port: u16) {
    let options = |qos| SubscriptionOptions { qos, ..SubscriptionOptions::default() };
    let (mut publisher, _) = Client::log_in(port, "publisher", None, V5);
    let (mut three, _) = Client::resume(port, "three", V311, 0);
    subscribe(&mut three, "q/#", options(Qos::ExactlyOnce), Vec::new());
    let (mut watch, _) = Client::resume(port, "watch", V311, 0);
    subscribe(&mut watch, "in/#", options(Qos::AtLeastOnce), Vec::new());
    let (mut five, _) = Client::resume(port, "five", V5, 3600);
    let of_five = SubscriptionOptions { retain_as_published: true, ..options(Qos::AtLeastOnce) };
    subscribe(&mut five, "v/#", of_five, vec![Property::SubscriptionIdentifier(7)]);
    let (mut short, _) = Client::resume(port, "short", V5, 1);
    subscribe(&mut short, "q/#", options(Qos::AtLeastOnce), Vec::new());
    let (mut worker, _) = Client::resume(port, "worker", V5, 3600);
    subscribe(&mut worker, "$share/g/jobs/+", options(Qos::AtLeastOnce), Vec::new());
    drop((watch, five, short, worker));

    // In flight: nothing answered, nothing answered, and PUBREC without PUBCOMP.
    publish(&mut publisher, ("q/1", "one"), Qos::AtLeastOnce, false, Vec::new());
    publish(&mut publisher, ("q/2", "two"), Qos::ExactlyOnce, false, Vec::new());
    publish(&mut publisher, ("q/3", "three"), Qos::ExactlyOnce, false, Vec::new());
    let flying: Vec<_> = (0..3).map(|_| next(&mut three)).collect();
    assert_eq!(flying[2].1, "three");
    three.send(&Packet::Pubrec(ack(flying[2].0)));
    assert_eq!(next(&mut three), (flying[2].0, "PUBREL".into(), 2, false));
    // Its own, without PUBREL.
    send(&mut three, ("in/x", "late"), Qos::ExactlyOnce, false, Vec::new());
    assert!(matches!(three.receive(), Packet::Pubrec(_)));
    drop(three);
    std::thread::sleep(Duration::from_millis(300));

    publish(&mut publisher, ("q/4", "four"), Qos::AtLeastOnce, false, Vec::new());
    publish(&mut publisher, ("q/5", "five"), Qos::ExactlyOnce, false, Vec::new());
    let lasting = [rich(), vec![Property::MessageExpiryInterval(600)]].concat();
    publish(&mut publisher, ("v/1", "props"), Qos::AtLeastOnce, true, lasting);
    publish(&mut publisher, ("state/plain", "on"), Qos::AtMostOnce, true, Vec::new());
    publish(&mut publisher, ("state/rich", "21"), Qos::AtLeastOnce, true, rich());
    publish(&mut publisher, ("state/brief", "gone"), Qos::AtLeastOnce, true, vec![Property::MessageExpiryInterval(1)]);
    std::thread::sleep(Duration::from_millis(2100));
}

/// All of that is there, once and in order. `shared`: the subscription of the group was kept, too.
fn check(port: u16, shared: bool) {
    let (mut three, was_there) = Client::resume(port, "three", V311, 0);
    assert!(was_there);
    let came: Vec<_> = (0..5).map(|_| next(&mut three)).collect();
    let ids: Vec<u16> = came.iter().map(|(id, ..)| *id).collect();
    let expected = [("one", 1, true), ("two", 2, true), ("PUBREL", 2, false), ("four", 1, false), ("five", 2, false)];
    let seen: Vec<_> = came.iter().map(|(_, payload, qos, dup)| (payload.as_str(), *qos, *dup)).collect();
    assert_eq!(seen, expected);
    for id in [ids[0], ids[3]] {
        three.send(&Packet::Puback(ack(id)));
    }
    three.send(&Packet::Pubcomp(ack(ids[2])));
    for id in [ids[1], ids[4]] {
        three.send(&Packet::Pubrec(ack(id)));
        assert_eq!(next(&mut three), (id, "PUBREL".into(), 2, false));
        three.send(&Packet::Pubcomp(ack(id)));
    }
    three.send(&Packet::Pubrel(ack(77)));
    assert!(matches!(three.receive(), Packet::Pubcomp(released) if released.packet_id.get() == 77));
    three.ping();

    let (mut watch, was_there) = Client::resume(port, "watch", V311, 0);
    assert!(was_there);
    let (id, payload, ..) = next(&mut watch);
    assert_eq!(payload, "late");
    watch.send(&Packet::Puback(ack(id)));
    watch.ping();

    let (mut five, was_there) = Client::resume(port, "five", V5, 3600);
    assert!(was_there);
    let Packet::Publish(props) = five.receive() else { panic!("a message for five") };
    assert_eq!((props.topic, props.payload, props.retain), ("v/1", b"props".as_slice(), true));
    let left = |property: &Property| matches!(property, Property::MessageExpiryInterval(secs) if (500..=600).contains(secs));
    assert!(props.properties.iter().any(left), "{:?}", props.properties);
    for property in rich().iter().chain(&[Property::SubscriptionIdentifier(7)]) {
        assert!(props.properties.contains(property), "{property:?} of {:?}", props.properties);
    }
    five.send(&Packet::Puback(Ack { packet_id: props.packet_id.expect("QoS 1"), ..ack(1) }));
    five.ping();

    assert!(!Client::resume(port, "short", V5, 0).1, "it has expired");
    let (mut publisher, _) = Client::log_in(port, "another", None, V5);
    publish(&mut publisher, ("jobs/1", "to do by one"), Qos::AtLeastOnce, false, Vec::new());
    let (mut worker, was_there) = Client::resume(port, "worker", V5, 3600);
    assert!(was_there);
    if shared {
        assert_eq!(next(&mut worker).1, "to do by one");
    }
    check_retained(port);
}

fn check_retained(port: u16) {
    let (mut reader, _) = Client::log_in(port, "reader", None, V5);
    subscribe(&mut reader, "state/#", SubscriptionOptions::default(), Vec::new());
    let mut came = Vec::new();
    reader.send(&Packet::Pingreq);
    while let Packet::Publish(publish) = reader.receive() {
        assert!(publish.retain);
        came.push((publish.topic.to_owned(), String::from_utf8_lossy(publish.payload).into_owned(), publish.properties));
    }
    came.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [("state/plain".into(), "on".into(), Vec::new()), ("state/rich".into(), "21".into(), rich())];
    let sorted = |mut entry: (String, String, Properties)| {
        entry.2.sort_by_key(Property::identifier);
        entry
    };
    assert_eq!(came.into_iter().map(sorted).collect::<Vec<_>>(), expected.map(sorted));
}

/// Bytes, time and mode.
fn facts(path: &Path) -> (Vec<u8>, i64, i64, u32) {
    let metadata = std::fs::metadata(path).expect("the database");
    (std::fs::read(path).expect("the database"), metadata.mtime(), metadata.mtime_nsec(), metadata.mode())
}

#[test]
fn what_mosquitto_kept_is_there_after_the_swap_and_its_file_as_it_was() {
    let place = Folder::new("import");
    let mut mosquitto = Peer::start(&conf(&place));
    fill(mosquitto.port);
    mosquitto.stop();
    let database = place.path().join("mosquitto.db");
    let before = facts(&database);

    let broker = start(&place);
    let said = broker.log();
    let line = said.lines().find(|line| line.contains("Imported from mosquitto's database")).expect("it is said").to_owned();
    // mosquitto 2.0 keeps no subscriptions of groups: it forgets them at every restart.
    assert!(line.contains("3 retained messages, 4 sessions, 3 subscriptions, 7 queued messages"), "{line}");
    assert!(!said.contains("Error"), "{said}");
    check(broker.port, false);
    assert_eq!(facts(&database), before, "the file is left as it was");
    publish(&mut Client::log_in(broker.port, "publisher", None, V5).0, ("state/plain", "off"), Qos::AtLeastOnce, true, Vec::new());
    assert_eq!(broker.stop(), 0);

    // The second start goes on from darner's own store.
    let broker = start(&place);
    assert!(!broker.log().contains("Imported"), "{}", broker.log());
    let (mut three, was_there) = Client::resume(broker.port, "three", V311, 0);
    assert!(was_there);
    three.ping();
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe("state/plain");
    assert_eq!(reader.receive_payload(), b"off");
    assert_eq!(facts(&database), before, "the file is left as it was");
}

#[test]
fn what_darner_kept_is_there_when_mosquitto_comes_back() {
    let (place, theirs) = (Folder::new("export"), Folder::new("export"));
    let broker = start(&place);
    fill(broker.port);
    assert_eq!(broker.stop(), 0);
    let database = theirs.path().join("mosquitto.db");
    let store = place.path().join("mosquitto.db");
    let (code, said, complaint) = run(Command::new(darner()).args(["db", "export"]).arg(store).arg(&database));
    assert_eq!((code, complaint.as_str()), (0, ""), "{said}");
    assert!(said.contains("3 retained messages, 4 sessions, 4 subscriptions, 7 queued messages"), "{said}");
    let mosquitto = Peer::start(&conf(&theirs));
    check(mosquitto.port, true);
}

#[test]
fn where_every_packet_identifier_is_in_flight_what_is_new_waits_for_one() {
    let place = Folder::new("import");
    place.write("mosquitto.db", super::reading::all_in_flight().bytes);
    let broker = Broker::start(&format!("user root\nmax_inflight_messages 0\n{}", conf(&place)));
    let mut publisher = Client::connect(broker.port, "publisher");
    publish(&mut publisher, ("q/full", "new"), Qos::AtLeastOnce, false, Vec::new());
    let mut full = Client::connect_with(broker.port, "full", false);
    for id in 1..u16::MAX {
        assert_eq!(next(&mut full), (id, "old".into(), 1, true));
    }
    assert!(matches!(full.receive(), Packet::Pubrel(ack) if ack.packet_id.get() == u16::MAX));
    full.send(&Packet::Puback(ack(700)));
    full.send(&Packet::Puback(ack(30_000)));
    assert_eq!(next(&mut full), (700, "new".into(), 1, false));
}
