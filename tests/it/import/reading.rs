//! The reader by itself: every version and machine, damage of every kind, and the way back.

use darner::broker::in_flight::Awaiting;
use darner::broker::state::{Presence, StoredDelivery};
use darner::broker::{State, Time};
use darner::mqtt::{PacketId, Property, ProtocolVersion, Qos, RetainHandling, SubscriptionOptions};
use darner::store::mosquitto::{Listener, Report, Terms, Unreadable, export, import};

use super::format::{Client, Database, Held, MACHINES, Machine, Message};
use crate::support::random::Random;

/// Seconds since 1970.
const NOW: i64 = 1_760_000_000;

fn terms() -> Terms {
    Terms { zero: NOW * 1000, ..Terms::default() }
}

fn database(version: u32, machine: Machine) -> Database {
    database_at(version, machine, NOW)
}

/// All that a database can hold, as far as its version can. `now`: in seconds since 1970.
pub fn database_at(version: u32, machine: Machine, now: i64) -> Database {
    let mut db = Database::new(version, machine);
    db.counts_twice = version == 4;
    let content_type: &[u8] = b"\x10\x03\x00\x04text\x26\x00\x01k\x00\x03\xc3\xa4!";
    db.message(&Message { id: 1, topic: "state/a", payload: b"on", qos: 1, retain: true, publisher: "switch", ..Message::default() });
    db.message(&Message {
        id: 2,
        topic: "q/b",
        payload: b"two",
        qos: 2,
        publisher: "p",
        username: "alice",
        port: 1883,
        ..Message::default()
    });
    db.message(&Message {
        id: 3,
        topic: "q/c",
        payload: b"\xff\x00",
        qos: 1,
        properties: content_type,
        expires: now + 60,
        ..Message::default()
    });
    db.message(&Message { id: 4, topic: "$SYS/broker/uptime", payload: b"5", retain: true, ..Message::default() });
    let days = |days: i64| now - days * 86_400;
    let (expires, left) = (now + 500, days(3));
    db.client(&Client { id: "away", username: "bob", port: 1883, last_packet_id: 12, expiry_secs: 1000, expires, left });
    let held = |message, packet_id, qos, waits| Held {
        client: "away",
        message,
        packet_id,
        qos,
        retain: message == 1,
        is_outgoing: true,
        waits,
        properties: if message == 3 { b"\x02\x0b\x07" } else { &[] },
    };
    db.held(&Held { is_outgoing: false, ..held(2, 40, 2, 7) });
    db.held(&held(1, 9, 1, 3));
    db.held(&held(2, 10, 2, 5));
    db.held(&held(2, 11, 2, 9));
    db.held(&held(3, 12, 1, 11));
    db.held(&held(4, 0, 0, 11));
    db.client(&Client { id: "stays", username: "", port: 0, last_packet_id: 0, expiry_secs: u32::MAX, expires: 0, left: days(1) });
    db.subscription("away", "q/#", 2, 0x0c | 0x10, 7);
    db.subscription("stays", "$share/g/q/+", 1, 0, 0);
    db.retained(1);
    db.retained(4);
    db
}

/// A session with a message in flight under each identifier there is, the last of them at QoS 2.
pub fn all_in_flight() -> Database {
    let mut db = Database::new(6, MACHINES[0]);
    db.message(&Message { topic: "q/full", payload: b"old", qos: 2, ..Message::default() });
    for packet_id in 1..=u16::MAX {
        let (qos, waits) = if packet_id == u16::MAX { (2, 9) } else { (1, 3) };
        db.held(&Held { client: "full", message: 1, packet_id, qos, retain: false, is_outgoing: true, waits, properties: &[] });
    }
    db.client(&Client { id: "full", username: "", port: 0, last_packet_id: u16::MAX, expiry_secs: u32::MAX, expires: 0, left: 0 });
    db.subscription("full", "q/#", 1, 0, 0);
    db
}

fn read(bytes: &[u8]) -> (State, Report) {
    import(bytes, &terms()).expect("a database")
}

fn check(version: u32, state: &State, report: &Report) {
    let name = report;
    assert!(report.is_whole(), "{name:?}: {}", report.missing());
    let counts = (report.retained, report.sessions, report.subscriptions, report.queued, report.own, report.expired);
    assert_eq!(counts, (1, 2, 2, 6, 1, 0), "{name:?}");
    let is_struct = version >= 5;
    let retained: Vec<_> = state.retained.iter().collect();
    assert_eq!((&*retained[0].topic, &*retained[0].payload, retained[0].qos), ("state/a", b"on".as_slice(), Qos::AtLeastOnce));
    assert_eq!(retained[0].publisher.as_ref().map(|publisher| &*publisher.client_id), Some("switch"));
    let away = &state.sessions["away"];
    assert_eq!(away.client.username.as_deref(), (version == 6).then_some("bob"));
    assert_eq!(away.last_packet_id.map(PacketId::get), Some(12));
    let expires_at = is_struct.then_some(Time(500_000));
    assert_eq!((away.presence, away.will.is_none()), (Presence::Left { expires_at }, true));
    assert_eq!(away.version, if is_struct { ProtocolVersion::V5 } else { ProtocolVersion::V311 });
    let all = SubscriptionOptions {
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::SendIfNew,
    };
    let of_v3 = SubscriptionOptions { qos: Qos::ExactlyOnce, ..SubscriptionOptions::default() };
    assert_eq!(away.subscriptions["q/#"], if is_struct { (all, 7) } else { (of_v3, 0) });
    let received: Vec<_> = away.received.iter().map(|(id, message)| (id.get(), &*message.payload)).collect();
    assert_eq!(received, [(40, b"two".as_slice())]);
    let deliveries: Vec<_> = away.deliveries.values().collect();
    let flights: Vec<_> = deliveries.iter().map(|stored| stored.flight.map(|(id, awaiting)| (id.get(), awaiting))).collect();
    let flying = [Some((9, Awaiting::Puback)), Some((10, Awaiting::Pubrec)), Some((11, Awaiting::Pubcomp)), None, None];
    assert_eq!(flights, flying, "{name:?}");
    let queued = &deliveries[3].delivery;
    assert_eq!((queued.packet_id.map(PacketId::get), queued.subscription_identifier), (Some(12), if is_struct { 7 } else { 0 }));
    assert_eq!(queued.message.expires_at, is_struct.then_some(Time(60_000)));
    let properties = vec![Property::ContentType("text".into()), Property::UserProperty("k".into(), "ä!".into())];
    assert_eq!(queued.message.properties, if is_struct { properties } else { Vec::new() });
    assert!(deliveries[0].delivery.retain && !queued.retain);
    let two = &deliveries[1].delivery.message;
    let username = two.publisher.as_ref().and_then(|publisher| publisher.username.as_deref());
    assert_eq!(username, (version >= 4).then_some("alice"));
    let stays = &state.sessions["stays"];
    assert_eq!((stays.expiry_secs, stays.presence), (u32::MAX, Presence::Left { expires_at: None }));
    assert_eq!(stays.subscriptions.keys().map(|filter| &**filter).collect::<Vec<_>>(), ["$share/g/q/+"]);
}

#[test]
fn every_version_of_every_machine_says_the_same() {
    for version in 2..=6 {
        for machine in MACHINES {
            let (state, report) = read(&database(version, machine).bytes);
            println!("version {version}, {}", machine.name);
            check(version, &state, &report);
            assert_eq!(report.version, version);
        }
    }
}

/// Written by mosquitto itself: these versions were built from its sources on x86_64, for both machines, and ended with two sessions away.
#[test]
fn what_older_mosquittos_really_wrote_is_read() {
    macro_rules! written {
        ($($name:literal)*) => { [$(($name, include_bytes!(concat!("written/", $name, ".db")).as_slice())),*] };
    }
    let all = written!("1.4.15-x86_64" "1.4.15-i386" "1.5.7-x86_64" "1.5.7-i386" "1.6.9-x86_64" "1.6.9-i386" "2.0.20-x86_64" "2.0.20-i386" "2.1.2-x86_64");
    // Half a day after.
    let terms = Terms { zero: (1_795_765_200 + 43_200) * 1000, client_expiration_secs: Some(86_400), ..Terms::default() };
    for (name, bytes) in all {
        let (state, report) = import(bytes, &terms).expect("a database");
        assert!(report.is_whole(), "{name}: {}", report.missing());
        let retained: Vec<_> = state.retained.iter().map(|message| (&*message.topic, &*message.payload, message.qos as u8)).collect();
        assert_eq!(retained, [("state/plain", b"on".as_slice(), 0), ("state/q2", b"21".as_slice(), 2)], "{name}");
        assert_eq!(state.sessions.keys().map(|id| &**id).collect::<Vec<_>>(), ["three", "watch"], "{name}");
        let three = &state.sessions["three"];
        let seen = |stored: &StoredDelivery| {
            let flight = stored.flight.map(|(id, awaiting)| (id.get(), awaiting));
            (String::from_utf8_lossy(&stored.delivery.message.payload).into_owned(), stored.delivery.qos as u8, flight)
        };
        let expected = [
            ("one".into(), 1, Some((1, Awaiting::Puback))),
            ("two".into(), 2, Some((2, Awaiting::Pubrec))),
            ("three".into(), 2, Some((3, Awaiting::Pubcomp))),
            ("four".into(), 1, None),
            ("five".into(), 2, None),
        ];
        assert_eq!(three.deliveries.values().map(seen).collect::<Vec<_>>(), expected, "{name}");
        assert_eq!(three.received.iter().map(|(id, message)| (id.get(), &*message.topic)).collect::<Vec<_>>(), [(77, "in/x")], "{name}");
        assert_eq!(three.subscriptions["q/#"].0.qos, Qos::ExactlyOnce, "{name}");
        // Up to version 4 it counts from when the client left, and later versions do not say.
        let half_a_day = |at: Time| (40_000_000..47_000_000).contains(&at.0);
        let Presence::Left { expires_at: Some(at) } = three.presence else { panic!("{name}: {:?}", three.presence) };
        assert!(if report.version < 5 { half_a_day(at) } else { at == Time(86_400_000) }, "{name}: {at:?}");
    }
}

#[test]
fn version_3_says_when_a_client_left_and_that_counts() {
    let two_days = Some(2 * 86_400);
    for version in [3, 4] {
        for machine in MACHINES {
            let terms = Terms { client_expiration_secs: two_days, ..terms() };
            let (state, report) = import(&database(version, machine).bytes, &terms).expect("a database");
            assert!(!state.sessions.contains_key("away"), "it left three days ago: {}", machine.name);
            let day = Time(86_400_000);
            assert_eq!(state.sessions["stays"].presence, Presence::Left { expires_at: Some(day) }, "{}", machine.name);
            assert_eq!((report.sessions, report.expired), (1, 1));
        }
    }
}

#[test]
fn what_expired_meanwhile_is_left_out() {
    let mut db = Database::new(6, MACHINES[0]);
    db.message(&Message { id: 1, topic: "state", expires: NOW - 1, retain: true, ..Message::default() });
    let client = |id, expiry_secs, expires| Client { id, username: "", port: 0, last_packet_id: 1, expiry_secs, expires, left: 0 };
    db.client(&client("gone", 60, NOW - 5));
    db.client(&client("of its connection", 0, 0));
    db.client(&client("was connected", 60, 0));
    db.held(&Held {
        client: "was connected",
        message: 1,
        packet_id: 1,
        qos: 1,
        retain: false,
        is_outgoing: true,
        waits: 11,
        properties: &[],
    });
    db.subscription("gone", "q", 1, 0, 0);
    db.retained(1);
    let (state, report) = read(&db.bytes);
    assert!(report.is_whole());
    assert_eq!((state.retained.len(), report.sessions, report.subscriptions, report.queued, report.expired), (0, 1, 0, 0, 4));
    assert_eq!(state.sessions["was connected"].presence, Presence::Left { expires_at: Some(Time(60_000)) });
    assert!(state.sessions["was connected"].deliveries.is_empty());
}

/// mosquitto 2.0 gives a client the user name of the one before it, with the bytes of its length swapped.
#[test]
fn a_user_name_that_is_whatever_stood_in_memory_is_none() {
    let mut db = Database::new(6, MACHINES[0]);
    let garbage = [b"bob\0\x05".as_slice(), &[0xee; 763]].concat();
    let fixed = [&[0; 8][..], &u32::MAX.to_be_bytes(), &[0, 4, 0, 3, 0, 0], &768_u16.to_be_bytes(), &[0; 4]].concat();
    db.chunk(6, &[&fixed[..], b"two", &garbage].concat(), 0);
    db.subscription("two", "q", 1, 0, 0);
    let (state, report) = read(&db.bytes);
    assert!(report.is_whole(), "{}", report.missing());
    assert_eq!(state.sessions["two"].client.username, None);
    assert_eq!(state.sessions["two"].subscriptions.len(), 1);
}

#[test]
fn what_is_exported_is_imported_as_it_was() {
    for version in 2..=6 {
        let (state, _) = read(&database(version, MACHINES[0]).bytes);
        let mut bytes = Vec::new();
        let exported = export(&state, &terms(), &mut bytes).expect("memory takes it");
        let (again, report) = read(&bytes);
        assert!(report.is_whole());
        assert_eq!((exported.retained, exported.sessions, exported.subscriptions, exported.queued), (1, 2, 2, 6));
        assert!(again == state, "{again:#?}\nis not {state:#?}");
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_gives_what_is_whole_and_says_so() {
    for version in [3, 4, 5, 6] {
        let db = database(version, MACHINES[0]);
        for len in 0..db.bytes.len() {
            let read = import(&db.bytes[..len], &terms());
            if len < 15 {
                assert_eq!(read, Err(Unreadable::Foreign));
            } else if let Ok((state, report)) = read {
                let is_boundary = db.starts.contains(&len) || len == db.bytes.len();
                let whole = db.starts.iter().filter(|start| **start < len).count();
                assert!(is_boundary || report.damage.places > 0, "version {version}, {len} bytes of {whole} chunks: {report:?}");
                assert!(state.retained.len() <= 1 && state.sessions.len() <= 2);
            }
        }
        // The last two chunks are the retained messages, of which the second is the broker's own.
        let (state, report) = read(&db.bytes[..db.bytes.len() - 1]);
        assert_eq!((state.retained.len(), state.sessions.len(), report.damage.places), (1, 2, 1));
    }
}

#[test]
fn damage_costs_what_is_damaged_and_is_told() {
    for version in [3, 4, 5, 6] {
        let db = database(version, MACHINES[0]);
        let whole = read(&db.bytes).0;
        let mut random = Random::new(version.into());
        for round in 0..3000 {
            let mut bytes = db.bytes.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            let Ok((state, _)) = import(&bytes, &terms()) else { continue };
            assert!(state.retained.len() + state.sessions.len() <= 8, "version {version}, round {round}");
        }
        // A wrong length in each chunk in turn: the rest is found again.
        for start in &db.starts[1..] {
            let mut bytes = db.bytes.clone();
            let at = start + if version < 5 { 2 } else { 4 };
            bytes[at + 1] ^= 0x55;
            let (state, report) = read(&bytes);
            assert!(!report.is_whole(), "version {version}, chunk at {start}");
            let kept = state.sessions.len() + state.retained.len();
            assert!(kept + 1 >= whole.sessions.len() + whole.retained.len(), "version {version}, chunk at {start}: {kept} of {report:?}");
        }
    }
}

#[test]
fn lengths_that_lie_take_no_memory() {
    let mut db = Database::new(6, MACHINES[0]);
    let mut body = [0xff; 32].to_vec();
    body[8..16].fill(0);
    (body[30], body[31]) = (1, 0);
    db.chunk(2, &body, 0);
    db.chunk(2, &body, usize::try_from(u32::MAX).expect("64 bits") - body.len());
    db.retained(5);
    let (state, report) = read(&db.bytes);
    assert_eq!((state.retained.len(), report.senseless), (0, 1));
    assert_eq!(report.damage.places, 1, "all up to what can be read again");
}

#[test]
fn who_came_through_which_listener_is_known_by_its_port() {
    let listener =
        |port, security, mount_point: Option<&str>, max_qos| Listener { port, security, mount_point: mount_point.map(Into::into), max_qos };
    let listeners = vec![listener(1884, 1, Some("m/"), Qos::AtLeastOnce), listener(1883, 2, None, Qos::ExactlyOnce)];
    let terms = Terms { listeners, ..terms() };
    let mut db = Database::new(6, MACHINES[0]);
    let client = |id, port| Client { id, username: "u", port, last_packet_id: 0, expiry_secs: u32::MAX, expires: 0, left: 0 };
    db.message(&Message { publisher: "p", username: "u", port: 1883, retain: true, ..Message::default() });
    db.client(&client("by 1884", 1884));
    db.client(&client("by another", 9));
    db.retained(1);
    let (state, _) = import(&db.bytes, &terms).expect("a database");
    let of = |id: &str| {
        let session = &state.sessions[id];
        (session.client.security, session.mount_point.as_deref(), session.max_qos)
    };
    assert_eq!(of("by 1884"), (1, Some("m/"), Qos::AtLeastOnce));
    assert_eq!(of("by another"), (0, None, Qos::ExactlyOnce));
    let publisher = state.retained.iter().next().and_then(|message| message.publisher.clone()).expect("a publisher");
    assert_eq!((publisher.security, publisher.username.as_deref()), (2, Some("u")));
    let mut bytes = Vec::new();
    export(&state, &terms, &mut bytes).expect("memory takes it");
    let (again, _) = import(&bytes, &terms).expect("a database");
    assert_eq!(again.sessions["by 1884"], state.sessions["by 1884"], "the port is exported");
}

#[test]
fn a_later_version_is_read_as_far_as_it_looks_like_one_that_is_known() {
    let mut db = database(6, MACHINES[0]);
    db.bytes[22] = 7;
    db.chunk(9, b"something new", 0);
    db.retained(1);
    let (state, report) = read(&db.bytes);
    assert!(report.is_doubtful && report.damage.places == 1);
    assert_eq!((state.retained.len(), state.sessions.len()), (1, 2));
    assert!(report.missing().contains("version 7"), "{}", report.missing());
    let mut other = b"\x00\xb5\x00mosquitto db".to_vec();
    other.extend_from_slice(b"\0\0\0\0\0\0\0\x2aand something else");
    assert_eq!(import(&other, &terms()), Err(Unreadable::Version(42)));
}

#[test]
fn every_packet_identifier_may_be_in_flight_and_each_flight_goes_on_where_it_stood() {
    let (state, report) = read(&all_in_flight().bytes);
    assert!(report.is_whole() && report.queued == usize::from(u16::MAX), "{report:?}");
    let flights = state.sessions["full"].deliveries.values().map(|stored| stored.flight.map(|(id, awaiting)| (id.get(), awaiting)));
    // Sent once more as if it were new, a message whose PUBREC has come would come twice.
    let expected = (1..=u16::MAX).map(|id| Some((id, if id == u16::MAX { Awaiting::Pubcomp } else { Awaiting::Puback })));
    assert!(flights.eq(expected));
}
