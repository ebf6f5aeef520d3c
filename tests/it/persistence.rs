//! What the real binary keeps: through kill -9, a good end, damage, and a place that cannot be written to.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, run, wait_until};

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

#[test]
fn at_the_snapshot_level_a_signal_saves_and_a_crash_loses_what_came_after() {
    let place = place();
    let start = || {
        let broker = Folder::new("snapshot");
        broker.write("darner.toml", "durability = \"snapshot\"\n");
        let location = place.path().display();
        let conf = format!("listener {{port}} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {location}\n");
        Broker::start_in(broker, &conf)
    };
    let broker = start();
    assert_eq!(publish(&broker, "state", "saved", &["-r"]), 0);
    broker.signal(Signal::SIGUSR1);
    broker.wait_for_log("Saving in-memory database to ");
    wait_until("the file", || store(&place).exists());
    assert_eq!(publish(&broker, "state", "not saved", &["-r"]), 0);
    kill(broker);
    assert_eq!(retained(&start(), "state"), "saved\n");
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
    let at = |text: &[u8]| whole.windows(text.len()).position(|window| window == text).expect("it is there");
    let mut flipped = whole.clone();
    flipped[at(b"value 1")] ^= 1;
    let mut newer = whole.clone();
    newer[8] = 99;
    let cases: [(&str, Vec<u8>, &[&str]); 4] = [
        ("a flipped bit", flipped, &["t/0 value 0", "t/2 value 2"]),
        ("cut off", whole[..at(b"value 2")].to_vec(), &["t/0 value 0", "t/1 value 1"]),
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
