//! An import where something is wrong: the place, the file, or the power.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::format::{Database, MACHINES, Message};
use crate::broker::client::Client;
use crate::support::process::{Broker, Folder, darner, free_port};
use crate::support::volume::Volume;

const COUNT: u64 = 500;

/// So many retained messages.
fn database() -> Database {
    let mut db = Database::new(6, MACHINES[0]);
    for id in 1..=COUNT {
        db.message(&Message { id, topic: &format!("n/{id}"), payload: b"kept", retain: true, ..Message::default() });
    }
    (1..=COUNT).for_each(|id| db.retained(id));
    db
}

fn conf(location: &Path) -> String {
    let location = location.display();
    format!("listener {{port}} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {location}\n")
}

fn start(place: &Folder) -> Broker {
    let broker = Broker::start(&conf(place.path()));
    broker.wait_for_log(" running");
    broker
}

fn count(broker: &Broker) -> usize {
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe("n/#");
    reader.send(&darner::mqtt::Packet::Pingreq);
    let mut count = 0;
    while matches!(reader.receive(), darner::mqtt::Packet::Publish(_)) {
        count += 1;
    }
    count
}

#[test]
fn a_folder_in_the_place_of_the_store_beside_keeps_nothing_from_being_imported() {
    let place = Folder::new("import");
    place.write("mosquitto.db", database().bytes);
    std::fs::create_dir(place.path().join("mosquitto.db.darner")).expect("a folder");
    let broker = start(&place);
    broker.wait_for_log("mosquitto.db.darner cannot be opened (it is not a file)");
    broker.wait_for_log("Imported from mosquitto's database");
    assert_eq!(count(&broker), COUNT as usize);
}

#[test]
fn a_folder_that_is_read_only_is_served_from_memory_and_kept_as_soon_as_it_can_be() {
    let volume = Volume::new("4m");
    std::fs::write(volume.file("mosquitto.db"), database().bytes).expect("the volume takes it");
    volume.remount("ro");
    let start = || Broker::start_within(&volume.within(), Folder::new("import"), &conf(volume.path()));
    let mut broker = start();
    broker.wait_for_log("Imported from mosquitto's database");
    broker.wait_for_log("Error: Nothing can be kept in ");
    assert!(broker.log().contains("Read-only file system"), "{}", broker.log());
    assert_eq!(count(&broker), COUNT as usize);
    volume.remount("rw");
    broker.wait_for_log("can be written to again");
    broker.signal(Signal::SIGKILL);
    broker.exit_code();
    let broker = start();
    assert!(!broker.log().contains("Imported"), "{}", broker.log());
    assert_eq!(count(&broker), COUNT as usize);
}

/// Starts a broker that a signal kills at the so-manieth of these calls.
fn killed_at(within: &[String], conf: &str, call: &str, when: u32) {
    let folder = Folder::new("import");
    let conf = folder.write("mosquitto.conf", conf.replace("{port}", &free_port().to_string()));
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:signal=SIGKILL:when={when}"));
    let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned);
    let words: Vec<String> = within.iter().cloned().chain(strace).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(darner()).args(["broker", "-c"]).arg(conf);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("strace runs");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while child.try_wait().expect("our child").is_none() {
        if std::time::Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{call} {when}: the broker was not killed");
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_crash_amid_an_import_leads_to_a_whole_one_at_the_next_start() {
    for call in ["fsync", "/^rename"] {
        let place = Folder::new("import");
        place.write("mosquitto.db", database().bytes);
        killed_at(&[], &conf(place.path()), call, 1);
        assert!(place.path().join("mosquitto.db.darner.new").exists(), "{call}: it had begun");
        assert!(!place.path().join("mosquitto.db.darner").exists(), "{call}");
        let broker = start(&place);
        assert!(broker.log().contains("Imported"), "{call}: {}", broker.log());
        assert_eq!(count(&broker), COUNT as usize, "{call}");
        assert!(!place.path().join("mosquitto.db.darner.new").exists(), "what the crash left is gone");
    }
}

/// A store that is a mount by itself, with nothing in it yet: it is written to where it is.
#[test]
fn a_crash_amid_an_import_into_a_file_that_cannot_be_replaced_leads_to_a_whole_one() {
    // Before anything is in the file, before it is on the disk, and before it counts.
    for (call, when) in [("pwrite64", 1), ("fsync", 1), ("pwrite64", 2)] {
        let volume = Volume::new("4m");
        std::fs::write(volume.file("mosquitto.db"), database().bytes).expect("the volume takes it");
        let path = volume.path().join("mosquitto.db.darner").display().to_string();
        let other = volume.path().join("bound").display().to_string();
        volume.run(&["sh", "-c", "touch $1 $2 && mount --bind $2 $1", "sh", &path, &other]);
        killed_at(&volume.within(), &conf(volume.path()), call, when);
        let broker = Broker::start_within(&volume.within(), Folder::new("import"), &conf(volume.path()));
        broker.wait_for_log(" running");
        assert!(broker.log().contains("Imported"), "{call} {when}: {}", broker.log());
        assert!(!broker.log().contains("damaged"), "{call} {when}: {}", broker.log());
        assert_eq!(count(&broker), COUNT as usize, "{call} {when}");
    }
}

/// Where the folder is no volume, as in a container's image: here, one on the file system of `/`.
#[test]
fn a_single_file_that_is_mounted_is_left_as_it_is_and_what_that_means_is_said() {
    use std::os::unix::fs::MetadataExt as _;
    let (volume, place) = (Volume::new("4m"), Folder::new("import"));
    let device = |path: &Path| std::fs::metadata(path).expect("a folder").dev();
    if device(place.path()) != device(Path::new("/")) {
        println!("skipped: the folder for temporary files is a file system of its own");
        return;
    }
    std::fs::write(volume.file("data.db"), database().bytes).expect("the volume takes it");
    let (ours, theirs) = (place.write("mosquitto.db", "").display().to_string(), volume.path().join("data.db").display().to_string());
    volume.run(&["mount", "--bind", &theirs, &ours]);
    let broker = Broker::start_within(&volume.within(), Folder::new("import"), &conf(place.path()));
    broker.wait_for_log("is a mount by itself, and mosquitto's");
    assert_eq!(count(&broker), COUNT as usize);
    assert_eq!(broker.stop(), 0);
    assert_eq!(std::fs::read(volume.file("data.db")).expect("the database"), database().bytes);
    assert!(place.path().join("mosquitto.db.darner").exists());
}

#[test]
fn what_cannot_be_read_of_a_database_is_said_loudly_and_the_rest_is_served() {
    let place = Folder::new("import");
    let mut db = database();
    let at = db.starts[10];
    db.bytes[at + 30] ^= 0xff;
    db.bytes.truncate(db.bytes.len() - 3);
    let path = place.write("mosquitto.db", &db.bytes);
    let broker = start(&place);
    let log = broker.log();
    assert!(log.contains("Error: Not all of ") && log.contains(&format!("(byte {at})")), "{log}");
    // The damaged message, and the last one, whose entry is cut off.
    assert_eq!(count(&broker), COUNT as usize - 2);
    assert_eq!(std::fs::read(path).expect("the database"), db.bytes);
}

#[test]
fn a_database_that_cannot_be_read_at_all_is_said_and_the_state_begins_empty() {
    let place = Folder::new("import");
    place.write("mosquitto.db", b"\x00\xb5\x00mosquitto db\0\0\0\0\0\0\0\x63 of the year 2090");
    let broker = start(&place);
    let log = broker.log();
    assert!(log.contains("Error: Nothing was imported from") && log.contains("version 99 of the format is not known"), "{log}");
    assert_eq!(count(&broker), 0);
}

#[test]
fn what_mosquitto_wrote_after_the_import_is_not_taken_silently() {
    let place = Folder::new("import");
    let path = place.write("mosquitto.db", database().bytes);
    assert_eq!(start(&place).stop(), 0);
    std::thread::sleep(std::time::Duration::from_millis(50));
    let broker = start(&place);
    assert!(!broker.log().contains("Warning: mosquitto has written"), "{}", broker.log());
    assert_eq!(broker.stop(), 0);
    std::fs::write(path, database().bytes).expect("as mosquitto does");
    let broker = start(&place);
    broker.wait_for_log("Warning: mosquitto has written");
}

#[test]
fn a_database_that_may_not_be_opened_is_not_lost() {
    let place = Folder::new("import");
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    let path = place.write("mosquitto.db", database().bytes);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    // The broker is nobody here.
    let broker = Broker::start(&conf(place.path()).replace("user root\n", ""));
    broker.wait_for_log("cannot be opened (Permission denied");
    assert!(broker.log().contains("darner db import"), "{}", broker.log());
    let kept = std::fs::read_dir(place.path())
        .expect("a folder")
        .flatten()
        .find(|entry| std::fs::read(entry.path()).is_ok_and(|bytes| bytes == database().bytes));
    assert!(kept.is_some(), "it is there under another name");
}
