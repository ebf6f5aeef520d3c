//! What reaches the store's file, and when: seen from the kernel.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use darner::broker::Record;
use darner::broker::message::Message;
use darner::mqtt::{Ack, Packet, PacketId, Properties, ProtocolVersion, Publish, Qos, ReasonCode};
use darner::store::{Journal, Level, Options, Store as _};
use nix::sys::signal::Signal;

use crate::broker::client::{Client, Ended};
use crate::support::process::{Broker, Folder, wait_until};
use crate::support::strace::Strace;

/// At this level of durability.
fn start(level: &str) -> Broker {
    let folder = Folder::new("sparing");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    folder.write("darner.toml", format!("durability = \"{level}\"\n"));
    let conf = "listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {folder}\nsys_interval 0\n";
    Broker::start_in(folder, conf)
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).expect("not zero")
}

fn publish(topic: &str, payload: &[u8], (qos, retain): (Qos, bool), number: u16) -> Vec<u8> {
    let packet_id = (qos != Qos::AtMostOnce).then(|| id(number));
    let packet = Packet::Publish(Publish { dup: false, qos, retain, topic, packet_id, properties: Vec::new(), payload });
    let mut bytes = Vec::new();
    darner::mqtt::codec::encode(&packet, ProtocolVersion::V311, &mut bytes);
    bytes
}

fn send(client: &mut Client, bytes: &[u8]) {
    std::io::Write::write_all(&mut client.socket, bytes).expect("the broker reads");
}

/// First byte of the answer.
fn answer(client: &mut Client) -> Result<u8, Ended> {
    client.receive_bytes().map(|bytes| bytes[0])
}

/// Acknowledgements that left while something was written and not flushed, and those that left when all was.
fn acknowledgements(level: &str) -> (usize, usize) {
    let broker = start(level);
    let trace = broker.folder.path().join("trace");
    let mut client = Client::connect(broker.port, "publisher");
    let calls = "trace=write,writev,sendto,sendmsg,fdatasync,fsync";
    let strace = Strace::attach(&broker, &[], &["-y", "-x", "-o", &trace.display().to_string(), "-e", calls]);
    for number in 1..=5 {
        send(&mut client, &publish(&format!("state/{number}"), b"x", (Qos::AtLeastOnce, true), number));
        assert_eq!(answer(&mut client), Ok(0x40), "PUBACK");
    }
    drop(strace);
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let (mut is_flushed, mut early, mut late) = (true, 0, 0);
    for line in text.lines() {
        let on_store = line.contains("mosquitto.db>");
        if on_store && line.contains("write(") {
            is_flushed = false;
        } else if line.contains("fdatasync") && line.ends_with("= 0") {
            is_flushed = true;
        } else if !on_store && line.contains(r#""\x40\x02"#) {
            *(if is_flushed { &mut late } else { &mut early }) += 1;
        }
    }
    assert_eq!(early + late, 5, "{text}");
    (early, late)
}

#[test]
fn an_acknowledgement_leaves_after_the_flush_at_the_level_power_and_before_any_at_process() {
    assert_eq!(acknowledgements("power"), (0, 5));
    assert_eq!(acknowledgements("process"), (5, 0));
}

#[test]
fn at_the_level_power_nothing_is_acknowledged_that_could_not_be_flushed() {
    let broker = start("power");
    let mut client = Client::connect(broker.port, "publisher");
    let strace = Strace::attach(&broker, &[], &["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"]);
    send(&mut client, &publish("state", b"x", (Qos::AtLeastOnce, true), 1));
    assert_eq!(answer(&mut client), Err(Ended));
    drop(strace);
    broker.wait_for_log("can be written to again");
    let mut client = Client::connect(broker.port, "publisher");
    send(&mut client, &publish("state", b"x", (Qos::AtLeastOnce, true), 1));
    assert_eq!(answer(&mut client), Ok(0x40));
}

fn store(broker: &Broker) -> PathBuf {
    broker.folder.path().join("mosquitto.db")
}

/// How often `text` stands in the store's file.
fn count(broker: &Broker, text: &str) -> usize {
    crate::support::store::count(&std::fs::read(store(broker)).expect("a store"), text)
}

/// How often `text` stands in each frame that holds it.
fn frames_with(store: &Path, text: &str) -> Vec<usize> {
    let file = std::fs::read(store).expect("a store");
    let holds = |payload: &[u8]| payload.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    crate::support::store::frames(&file).iter().map(|(_, payload)| holds(payload)).filter(|count| *count > 0).collect()
}

/// All until now is in the file: the broker has answered something that waited for it.
fn settle(broker: &Broker) {
    let mut client = Client::connect(broker.port, "settles");
    send(&mut client, &publish("settled", b"x", (Qos::AtLeastOnce, true), 1));
    assert_eq!(answer(&mut client), Ok(0x40));
}

#[test]
fn of_the_values_of_a_retained_topic_that_come_together_the_last_is_written() {
    let broker = start("process");
    let mut client = Client::connect(broker.port, "publisher");
    // One segment of TCP, so one turn of the broker's loop and one commit, or a few where a turn takes longer than others may wait.
    let many: Vec<u8> =
        (0..50).flat_map(|n: u16| publish("meter", format!("reading {n:02}").as_bytes(), (Qos::AtLeastOnce, true), n + 1)).collect();
    send(&mut client, &many);
    for _ in 0..50 {
        assert_eq!(answer(&mut client), Ok(0x40));
    }
    assert_eq!(count(&broker, "reading 49"), 1);
    let values = frames_with(&store(&broker), "reading ");
    assert!(values.iter().all(|values| *values == 1), "of a commit the last value: {values:?}");
    assert!(values.len() < 25, "50 values came at once, and not one by one: {values:?}");
}

#[test]
fn of_the_values_of_a_retained_topic_in_one_commit_the_last_is_written() {
    let folder = Folder::new("sparing");
    let path = folder.path().join("store");
    let (stored, heard) = std::sync::mpsc::channel();
    let options =
        Options { path: path.clone(), level: Level::Process, autosave_interval_secs: 0, autosave_on_changes: false, zero: 0, import: None };
    let (mut journal, _) = Journal::open(options, Box::new(|_| {}), Box::new(move || stored.send(()).unwrap_or_default()));
    let value = |n: u64| Message {
        topic: "meter".into(),
        payload: format!("reading {n:02}").into_bytes().into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: Properties::new(),
        expires_at: None,
        publisher: None,
    };
    for count in [50, 60, 61] {
        let until = journal.progress().stored;
        (until..count).for_each(|n| journal.append(Record::Retained { message: Arc::new(value(n)) }));
        journal.commit(true);
        while journal.progress().stored < count {
            heard.recv_timeout(std::time::Duration::from_secs(10)).expect("it wakes who waits");
        }
    }
    journal.close();
    assert_eq!(frames_with(&path, "reading "), [1, 1, 1], "a value for each commit");
    assert_eq!(["reading 49", "reading 59", "reading 60"].map(|last| frames_with(&path, last)), [[1], [1], [1]]);
}

#[test]
fn retained_values_that_nobody_waits_for_are_gathered_before_they_are_written() {
    let broker = start("process");
    let mut client = Client::connect(broker.port, "publisher");
    for n in 0..20 {
        send(&mut client, &publish("meter", format!("reading {n:02}").as_bytes(), (Qos::AtMostOnce, true), 0));
        client.ping();
    }
    wait_until("the last value", || count(&broker, "reading 19") == 1);
    assert!(count(&broker, "reading ") < 10, "they came in far less than a second each");
}

#[test]
fn a_message_that_was_delivered_and_acknowledged_before_its_commit_is_never_written() {
    let broker = start("process");
    let mut reader = Client::connect_with(broker.port, "reader", false);
    reader.subscribe_at("work", Qos::AtLeastOnce);
    let mut client = Client::connect(broker.port, "publisher");
    // The writer is held up, as a slow disk does, while the message passes by.
    let hold = Strace::attach(
        &broker,
        &[],
        &["-e", "trace=write", "-P", &store(&broker).display().to_string(), "-e", "inject=write:delay_enter=60000000:when=1"],
    );
    send(&mut client, &publish("first", b"holds the writer", (Qos::AtLeastOnce, true), 1));
    send(&mut client, &publish("work", b"passes by", (Qos::AtLeastOnce, false), 2));
    assert_eq!(reader.receive_payload(), b"passes by");
    let ack = Ack { packet_id: id(1), reason: ReasonCode::Success, properties: Properties::new() };
    reader.send(&Packet::Puback(ack));
    reader.ping();
    drop(hold);
    for _ in 0..2 {
        assert_eq!(answer(&mut client), Ok(0x40));
    }
    settle(&broker);
    assert_eq!(count(&broker, "holds the writer"), 1);
    assert_eq!(count(&broker, "passes by"), 0);
}

#[test]
fn a_changed_level_of_durability_waits_for_a_restart_and_a_reload_says_so() {
    let broker = start("process");
    broker.folder.write("darner.toml", "durability = \"power\"\n");
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("durability: process → power (takes effect at the next restart)");
}

#[test]
fn acknowledgements_do_not_wait_for_the_disk_while_all_is_written_anew() {
    let broker = start("process");
    let mut client = Client::connect(broker.port, "publisher");
    let copy = broker.folder.path().join("mosquitto.db.new");
    let hold = Strace::attach(&broker, &[], &["-e", "trace=fsync", "-e", "inject=fsync:delay_enter=60000000:when=1"]);
    let mut number = outgrow(&broker, &mut client);
    for _ in 0..20 {
        number += 1;
        send(&mut client, &publish("state", value(number).as_bytes(), (Qos::AtLeastOnce, true), number));
        assert_eq!(answer(&mut client), Ok(0x40), "while the copy is being flushed");
    }
    assert!(copy.exists());
    drop(hold);
    wait_until("the file's replacement", || !copy.exists());
    let broker = again(broker);
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe("state");
    assert_eq!(String::from_utf8(reader.receive_payload()).expect("text"), value(number));
}

/// The same configuration in the same folder, once more.
fn again(mut broker: Broker) -> Broker {
    broker.signal(Signal::SIGKILL);
    broker.exit_code();
    let conf = std::fs::read_to_string(broker.folder.path().join("mosquitto.conf")).expect("a configuration");
    let folder = std::mem::replace(&mut broker.folder, Folder::new("sparing"));
    let port = broker.port.to_string();
    Broker::start_in(folder, &conf.replace(&port, "{port}"))
}

/// Publishes values that grow the file until it is being written anew; the number of the last.
fn outgrow(broker: &Broker, client: &mut Client) -> u16 {
    let copy = broker.folder.path().join("mosquitto.db.new");
    let mut number = 0;
    while !copy.exists() {
        number += 1;
        assert!(number < 100, "the file outgrows what it holds");
        send(client, &publish("state", value(number).as_bytes(), (Qos::AtLeastOnce, true), number));
        assert_eq!(answer(client), Ok(0x40));
    }
    number
}

fn value(number: u16) -> String {
    format!("{number} {}", "x".repeat(50_000))
}

/// Flushes that fail when the file is replaced: the last before it or the first after it, the next one, and that of the folder.
#[test]
fn at_the_level_power_a_flush_that_fails_when_the_file_is_replaced_loses_nothing_that_is_acknowledged() {
    // Each of these values flushes once, and at the last the file begins to be written anew.
    const UNTIL: u16 = 21;
    for failing in [Some(UNTIL + 1), Some(UNTIL + 2), None] {
        let broker = start("power");
        let mut client = Client::connect(broker.port, "publisher");
        let folder = broker.folder.path().display().to_string();
        // Writing anew takes its time, so that it does not mend at once what went wrong before.
        let of_file = |when: u16| format!("inject=fdatasync:error=EIO:when={when}");
        let fault = match failing {
            Some(when) => Strace::attach(
                &broker,
                &[],
                &["-e", "trace=fdatasync,fsync", "-e", &of_file(when), "-e", "inject=fsync:delay_enter=2000000"],
            ),
            None => Strace::attach(&broker, &[], &["-e", "trace=fsync", "-P", &folder, "-e", "inject=fsync:error=EIO:when=1"]),
        };
        let mut number = outgrow(&broker, &mut client);
        assert_eq!(number, UNTIL);
        wait_until("the file's replacement", || !broker.folder.path().join("mosquitto.db.new").exists());
        let (mut acknowledged, mut count) = (number, 0);
        while count < 3 {
            number += 1;
            assert!(number < 200, "the broker recovers");
            send(&mut client, &publish("state", value(number).as_bytes(), (Qos::AtLeastOnce, true), number));
            if answer(&mut client) == Ok(0x40) {
                acknowledged = number;
                count += 1;
            } else {
                std::thread::sleep(std::time::Duration::from_millis(100));
                client = Client::connect(broker.port, "publisher");
            }
        }
        let broker = again(broker);
        drop(fault);
        let mut reader = Client::connect(broker.port, "reader");
        reader.subscribe("state");
        let found = String::from_utf8(reader.receive_payload()).expect("text");
        let found: u16 = found.split(' ').next().and_then(|number| number.parse().ok()).expect("a number");
        assert!(found >= acknowledged, "{failing:?}: {found} after {acknowledged}");
    }
}

#[test]
fn at_the_level_power_the_file_takes_its_place_when_all_of_it_is_on_the_disk() {
    let broker = start("power");
    let (copy, trace) = (broker.folder.path().join("mosquitto.db.new"), broker.folder.path().join("trace"));
    let mut client = Client::connect(broker.port, "publisher");
    let calls = "trace=write,fsync,fdatasync,rename,renameat,renameat2";
    let trace_to = trace.display().to_string();
    let hold = ["-y", "-o", &trace_to, "-e", calls, "-e", "inject=fsync:delay_enter=2000000:when=1"];
    let strace = Strace::attach(&broker, &[], &hold);
    let mut number = outgrow(&broker, &mut client);
    for _ in 0..3 {
        number += 1;
        send(&mut client, &publish("state", value(number).as_bytes(), (Qos::AtLeastOnce, true), number));
        assert_eq!(answer(&mut client), Ok(0x40), "while the copy is being flushed");
    }
    assert!(copy.exists());
    wait_until("the file's replacement", || !copy.exists());
    settle(&broker);
    drop(strace);
    let text = std::fs::read_to_string(&trace).expect("a trace");
    let (folder, copy) = (format!("{}>", broker.folder.path().display()), format!("{}>", copy.display()));
    let lines: Vec<&str> = text.lines().collect();
    let last = |found: &dyn Fn(&str) -> bool| lines.iter().rposition(|line| found(line)).unwrap_or_else(|| panic!("{text}"));
    let renamed = last(&|line| line.contains("rename"));
    let before = |found: &dyn Fn(&str) -> bool| lines[..renamed].iter().rposition(|line| found(line)).unwrap_or_else(|| panic!("{text}"));
    let added = before(&|line| line.contains("write(") && line.contains(&copy));
    let flushed = before(&|line| line.contains("fdatasync(") && line.contains(&copy));
    let kept = last(&|line| line.contains("fsync(") && line.contains(&folder));
    assert!(added < flushed && flushed < renamed && renamed < kept, "{added} {flushed} {renamed} {kept}\n{text}");
}

#[test]
fn the_signal_to_save_makes_all_last_through_a_power_cut_at_the_level_process_too() {
    let broker = start("process");
    settle(&broker);
    let trace = broker.folder.path().join("trace");
    let strace = Strace::attach(&broker, &[], &["-y", "-o", &trace.display().to_string(), "-e", "trace=fdatasync"]);
    broker.signal(Signal::SIGUSR1);
    broker.wait_for_log("Saving in-memory database to ");
    let flushed = || std::fs::read_to_string(&trace).is_ok_and(|text| text.contains("mosquitto.db>) ") && text.contains("= 0"));
    wait_until("the flush", flushed);
    drop(strace);
}
