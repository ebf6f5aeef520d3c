//! What the real binary keeps: through kill -9, a good end, damage, and a place that cannot be written to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use darner::mqtt::{Packet, PacketId, Publish, Qos};
use nix::sys::signal::Signal;

use crate::broker::client::Client;
use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, run, wait_until};
use crate::support::store::{frame_with, of_a_later_version};

/// A folder for the store, which the broker's own user may write to.
fn place() -> Folder {
    let folder = Folder::new("store");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    folder
}

fn start(place: &Folder, more: &str) -> Broker {
    let location = place.path().display();
    Broker::start(&format!("listener {{port}} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {location}\n{more}"))
}

fn store(place: &Folder) -> PathBuf {
    place.path().join("mosquitto.db")
}

fn client(broker: &Broker, tool: &str, arguments: &[&str]) -> (i32, String) {
    let mut command: Command = debian(tool);
    let (code, out, _) = run(command.args(["-p", &broker.port.to_string()]).args(arguments));
    (code, out)
}

fn publish(broker: &Broker, topic: &str, payload: &str, more: &[&str]) -> i32 {
    client(broker, "mosquitto_pub", &[&["-q", "1", "-t", topic, "-m", payload], more].concat()).0
}

/// Makes the session of `reader` with a subscription, and leaves it.
fn subscribe(broker: &Broker) {
    assert_eq!(client(broker, "mosquitto_sub", &["-i", "reader", "-c", "-q", "1", "-t", "q/#", "-E"]).0, 0);
}

/// What waits for `reader`.
fn waiting(broker: &Broker, count: &str) -> Vec<String> {
    let arguments = ["-i", "reader", "-c", "-q", "1", "-t", "q/#", "-v", "-C", count, "-W", "10"];
    client(broker, "mosquitto_sub", &arguments).1.lines().map(str::to_owned).collect()
}

fn retained(broker: &Broker, topic: &str) -> String {
    client(broker, "mosquitto_sub", &["-t", topic, "-C", "1", "-W", "10"]).1
}

fn kill(mut broker: Broker) {
    broker.signal(Signal::SIGKILL);
    broker.exit_code();
}

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let place = place();
    let broker = start(&place, "");
    subscribe(&broker);
    for n in 0..5 {
        assert_eq!(publish(&broker, "q/t", &n.to_string(), &[]), 0);
        assert_eq!(publish(&broker, "state", &format!("value {n}"), &["-r"]), 0);
    }
    kill(broker);
    let broker = start(&place, "");
    assert_eq!(retained(&broker, "state"), "value 4\n");
    assert_eq!(waiting(&broker, "5"), ["q/t 0", "q/t 1", "q/t 2", "q/t 3", "q/t 4"]);
    assert_eq!(std::fs::metadata(store(&place)).expect("a file").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_good_end_keeps_all_even_what_nobody_waited_for() {
    let place = place();
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "state", "last", &["-r", "-q", "0"]), 0);
    assert_eq!(retained(&broker, "state"), "last\n");
    assert_eq!(broker.stop(), 0);
    assert_eq!(retained(&start(&place, ""), "state"), "last\n");
}

/// At the level `snapshot`.
fn start_snapshot(place: &Folder, more: &str) -> Broker {
    let folder = Folder::new("snapshot");
    folder.write("darner.toml", "durability = \"snapshot\"\n");
    let location = place.path().display();
    let conf = format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {location}\nsys_interval 0\n{more}"
    );
    Broker::start_in(folder, &conf)
}

fn is_stored(place: &Folder, text: &str) -> bool {
    crate::support::store::count(&std::fs::read(store(place)).expect("a store"), text) == 1
}

#[test]
fn at_the_snapshot_level_a_signal_saves_and_a_crash_loses_what_came_after() {
    let place = place();
    let broker = start_snapshot(&place, "");
    assert_eq!(publish(&broker, "state", "saved", &["-r"]), 0);
    broker.signal(Signal::SIGUSR1);
    broker.wait_for_log("Saving in-memory database to ");
    wait_until("the value", || is_stored(&place, "saved"));
    assert_eq!(publish(&broker, "state", "not saved", &["-r"]), 0);
    kill(broker);
    assert_eq!(retained(&start_snapshot(&place, ""), "state"), "saved\n");
}

#[test]
fn at_the_snapshot_level_autosave_interval_is_seconds() {
    let place = place();
    let broker = start_snapshot(&place, "autosave_interval 1\n");
    assert_eq!(publish(&broker, "state", "saved by itself", &["-r"]), 0);
    wait_until("the value", || is_stored(&place, "saved by itself"));
    assert_eq!(publish(&broker, "state", "saved once more", &["-r"]), 0);
    wait_until("the next save", || broker.log().matches("Saving in-memory database to ").count() > 1);
    wait_until("the value", || is_stored(&place, "saved once more"));
    kill(broker);
    assert_eq!(retained(&start_snapshot(&place, ""), "state"), "saved once more\n");
}

#[test]
fn at_the_snapshot_level_autosave_on_changes_counts_changes() {
    let place = place();
    let more = "autosave_interval 3\nautosave_on_changes true\n";
    let broker = start_snapshot(&place, more);
    for n in 1..=2 {
        assert_eq!(publish(&broker, "state", &format!("value {n}"), &["-r"]), 0);
    }
    // Longer than it would take with seconds.
    std::thread::sleep(Duration::from_secs(4));
    kill(broker);
    assert!(!is_stored(&place, "value"), "two changes are not three");
    let broker = start_snapshot(&place, more);
    for n in 1..=4 {
        assert_eq!(publish(&broker, "state", &format!("value {n}"), &["-r"]), 0);
    }
    wait_until("a value", || is_stored(&place, "value"));
    kill(broker);
    let found = retained(&start_snapshot(&place, more), "state");
    assert!(found == "value 3\n" || found == "value 4\n", "{found:?}");
}

#[test]
fn what_expires_while_nothing_runs_is_gone_after_the_restart() {
    let place = place();
    let more = "persistent_client_expiration 2s\n";
    let broker = start(&place, more);
    subscribe(&broker);
    assert_eq!(publish(&broker, "q/t", "waits", &[]), 0);
    let expiry = |secs: &'static str| ["-r", "-V", "mqttv5", "-D", "publish", "message-expiry-interval", secs];
    assert_eq!(publish(&broker, "state/short", "short", &expiry("2")), 0);
    assert_eq!(publish(&broker, "state/long", "long", &expiry("600")), 0);
    let written = Instant::now();
    kill(broker);
    std::thread::sleep(Duration::from_millis(2_500));
    let broker = start(&place, more);
    let arguments = ["-V", "mqttv5", "-t", "state/#", "-F", "%t %E", "-W", "2"];
    let (_, left) = client(&broker, "mosquitto_sub", &arguments);
    let (topic, secs) = left.trim().split_once(' ').unwrap_or_else(|| panic!("one message: {left:?}"));
    assert_eq!(topic, "state/long");
    let secs: u64 = secs.parse().expect("seconds");
    assert!(secs <= 598 && secs + written.elapsed().as_secs() >= 597, "{secs} of 600 are left");
    let mut reader = Client::silent(broker.port);
    assert_eq!(reader.come_back("reader"), Some(false), "the session has ended");
    reader.ping();
}

/// A payload that is a store's own frames is a payload, whatever happens to the frame it stands in.
#[test]
fn a_payload_of_frames_forges_nothing_when_its_own_frame_is_damaged() {
    let elsewhere = place();
    let broker = start(&elsewhere, "");
    assert_eq!(publish(&broker, "forged", "nobody published this", &["-r"]), 0);
    kill(broker);
    let frames = std::fs::read(store(&elsewhere)).expect("a store");
    let place = place();
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "t/0", "value 0", &["-r"]), 0);
    let mut attacker = Client::connect(broker.port, "attacker");
    attacker.send(&Packet::Publish(Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: true,
        topic: "attack",
        packet_id: Some(PacketId::MIN),
        properties: Vec::new(),
        payload: &frames,
    }));
    assert_eq!(attacker.receive_bytes().map(|bytes| bytes[0]), Ok(0x40), "PUBACK");
    assert_eq!(publish(&broker, "t/1", "value 1", &["-r"]), 0);
    kill(broker);
    let mut bytes = std::fs::read(store(&place)).expect("a store");
    let outer = frame_with(&bytes, "attack");
    bytes[outer.end - 1] ^= 1;
    std::fs::write(store(&place), bytes).expect("ours");
    let broker = start(&place, "");
    broker.wait_for_log("0 sessions and 2 retained messages were recovered");
    let (_, seen) = client(&broker, "mosquitto_sub", &["-t", "#", "-v", "-W", "1"]);
    assert_eq!(seen.lines().collect::<Vec<_>>(), ["t/0 value 0", "t/1 value 1"]);
}

#[test]
fn a_damaged_store_is_set_aside_and_what_can_be_read_is_recovered() {
    let place = place();
    let broker = start(&place, "");
    for n in 0..3 {
        assert_eq!(publish(&broker, &format!("t/{n}"), &format!("value {n}"), &["-r"]), 0);
    }
    kill(broker);
    let whole = std::fs::read(store(&place)).expect("the store");
    let at = |text: &str| frame_with(&whole, text).end - 3;
    let mut flipped = whole.clone();
    flipped[at("value 1")] ^= 1;
    let newer = of_a_later_version(&whole);
    let cases: [(&str, Vec<u8>, &[&str]); 4] = [
        ("a flipped bit", flipped, &["t/0 value 0", "t/2 value 2"]),
        ("cut off", whole[..at("value 2")].to_vec(), &["t/0 value 0", "t/1 value 1"]),
        ("without a beginning", whole[10..].to_vec(), &["t/0 value 0", "t/1 value 1", "t/2 value 2"]),
        ("newer", newer, &[]),
    ];
    for (what, bytes, left) in cases {
        std::fs::write(store(&place), bytes).expect("ours");
        let broker = start(&place, "");
        broker.wait_for_log("retained messages were recovered");
        let count = (left.len() + 1).to_string();
        assert_eq!(publish(&broker, "t/end", "end", &["-r"]), 0);
        let (_, seen) = client(&broker, "mosquitto_sub", &["-t", "t/#", "-v", "-C", &count, "-W", "10"]);
        assert_eq!(seen.lines().filter(|line| *line != "t/end end").collect::<Vec<_>>(), left, "{what}:\n{}", broker.log());
        kill(broker);
        let aside = std::fs::read_dir(place.path()).expect("a folder").filter_map(Result::ok);
        let aside: Vec<_> = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".damaged-")).collect();
        assert_eq!(aside.len(), 1, "{what}: it is set aside once");
        std::fs::remove_file(aside[0].path()).expect("ours");
    }
}

#[test]
fn a_store_that_cannot_be_opened_is_set_aside_and_not_overwritten() {
    let place = place();
    place.write("mosquitto.db", "what somebody else may still read");
    std::fs::set_permissions(store(&place), std::fs::Permissions::from_mode(0o000)).expect("ours");
    let broker = start(&place, "");
    broker.wait_for_log("cannot be opened (Permission denied");
    assert_eq!(publish(&broker, "state", "kept", &["-r"]), 0);
    let entries = std::fs::read_dir(place.path()).expect("a folder").flatten().map(|entry| entry.path());
    let aside = entries.into_iter().find(|path| path.to_string_lossy().contains(".damaged-")).expect("it is set aside");
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600)).expect("ours");
    assert_eq!(std::fs::read_to_string(aside).expect("text"), "what somebody else may still read");
}

/// In the place of the store, for everybody.
fn put_pipe(place: &Folder) {
    nix::unistd::mkfifo(&store(place), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    std::fs::set_permissions(store(place), std::fs::Permissions::from_mode(0o666)).expect("ours");
}

#[test]
fn a_pipe_in_the_place_of_the_store_is_set_aside_too() {
    let place = place();
    put_pipe(&place);
    let broker = start(&place, "");
    broker.wait_for_log("cannot be opened (it is not a file)");
    assert_eq!(publish(&broker, "a", "1", &["-r"]), 0);
    kill(broker);
    assert_eq!(retained(&start(&place, ""), "a"), "1\n");
}

#[test]
fn a_pipe_that_cannot_be_set_aside_holds_nobody() {
    let place = place();
    put_pipe(&place);
    // Where the tests are root, the broker is somebody else.
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let mut broker = start(&place, "");
    broker.wait_for_log("cannot be opened (it is not a file)");
    Client::connect(broker.port, "c").ping();
    broker.signal(Signal::SIGTERM);
    assert_eq!(broker.exit_code(), 0);
}

#[test]
fn a_folder_where_all_is_written_anew_keeps_nothing_from_being_added() {
    let place = place();
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "a", "1", &["-r"]), 0);
    kill(broker);
    std::fs::create_dir(place.path().join("mosquitto.db.new")).expect("a folder");
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "b", "2", &["-r"]), 0);
    kill(broker);
    assert_eq!(["a", "b"].map(|topic| retained(&start(&place, ""), topic)), ["1\n", "2\n"]);
}

#[test]
fn of_the_files_that_were_set_aside_the_newest_five_stay() {
    let place = place();
    let old: Vec<String> = (1..=7).map(|day| format!("mosquitto.db.damaged-2025010{day}T000000Z")).collect();
    for name in &old {
        place.write(name, "old");
    }
    place.write("mosquitto.db.damaged-by-me", "not ours");
    place.write("mosquitto.db", "nothing that can be read");
    std::fs::set_permissions(store(&place), std::fs::Permissions::from_mode(0o666)).expect("ours");
    let broker = start(&place, "");
    broker.wait_for_log("is damaged from byte 0 on");
    let left = std::fs::read_dir(place.path()).expect("a folder").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut left: Vec<String> = left.filter(|name| name.contains(".damaged-")).collect();
    left.sort();
    assert_eq!(left.len(), 6, "{left:?}");
    assert_eq!(left[..4], old[3..]);
    assert_eq!(left[5], "mosquitto.db.damaged-by-me");
}

#[test]
fn a_copy_that_a_crash_left_never_takes_the_place_of_what_came_after_it() {
    let place = place();
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "state", "old", &["-r"]), 0);
    kill(broker);
    let copy = place.path().join("mosquitto.db.new");
    std::fs::copy(store(&place), &copy).expect("as a crash before the renaming leaves it");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o666)).expect("ours");
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "state", "young", &["-r"]), 0);
    kill(broker);
    let mut torn = std::fs::read(store(&place)).expect("the store");
    torn.extend_from_slice(b"a frame that was not written to its end");
    std::fs::write(store(&place), torn).expect("ours");
    assert_eq!(retained(&start(&place, ""), "state"), "young\n");
}

#[test]
fn a_store_without_a_byte_is_a_new_one() {
    let place = place();
    std::fs::write(store(&place), "").expect("ours");
    std::fs::set_permissions(store(&place), std::fs::Permissions::from_mode(0o666)).expect("ours");
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "state", "kept", &["-r"]), 0);
    kill(broker);
    assert_eq!(retained(&start(&place, ""), "state"), "kept\n");
}

#[test]
fn where_nothing_can_be_kept_the_rest_is_served_until_it_can() {
    let place = place();
    let location = place.path().join("missing");
    let more = format!("connection_messages true\npersistence_file {}\n", "missing/mosquitto.db");
    let broker = start(&place, &more);
    broker.wait_for_log("Error: Nothing can be kept in ");
    assert_ne!(publish(&broker, "state", "refused", &["-r"]), 0, "it is not acknowledged");
    assert_eq!(publish(&broker, "nobody", "passes", &[]), 0, "what nobody keeps is served");
    std::fs::create_dir(&location).expect("ours");
    std::fs::set_permissions(&location, std::fs::Permissions::from_mode(0o777)).expect("ours");
    broker.wait_for_log("can be written to again");
    assert_eq!(publish(&broker, "state", "taken", &["-r"]), 0);
    kill(broker);
    assert_eq!(retained(&start(&place, &more), "state"), "taken\n");
}

#[test]
fn a_database_of_mosquittos_is_left_as_it_is() {
    let place = place();
    let theirs = b"\x00\xb5\x00mosquitto db and what follows".to_vec();
    std::fs::write(store(&place), &theirs).expect("ours");
    std::fs::set_permissions(store(&place), std::fs::Permissions::from_mode(0o666)).expect("ours");
    let broker = start(&place, "");
    assert_eq!(publish(&broker, "state", "kept", &["-r"]), 0);
    kill(broker);
    assert_eq!(retained(&start(&place, ""), "state"), "kept\n");
    assert_eq!(std::fs::read(store(&place)).expect("it is there"), theirs);
}
