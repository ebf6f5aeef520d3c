//! `darner db` for people.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::format::{MACHINES, Message};
use super::reading::database_at;
use crate::support::process::{Broker, Folder, darner, run};

fn db(arguments: &[&str], paths: &[&Path]) -> (i32, String, String) {
    run(Command::new(darner()).arg("db").args(arguments).args(paths))
}

/// A folder with a database of mosquitto's.
fn place() -> Folder {
    let place = Folder::new("db");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let mut db = database_at(6, MACHINES[0], now as i64);
    db.message(&Message { id: 50, topic: "state/ugly", payload: b"\x1b[31mred\n", retain: true, ..Message::default() });
    db.retained(50);
    place.write("mosquitto.db", &db.bytes);
    place
}

fn conf(place: &Folder) -> String {
    let location = place.path().display();
    format!("listener {{port}} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {location}\n")
}

#[test]
fn a_list_says_the_same_of_a_database_and_of_the_store_made_of_it() {
    let place = place();
    let (database, store) = (place.path().join("mosquitto.db"), place.path().join("store"));
    let (code, list, _) = db(&["dump"], &[&database]);
    assert_eq!(code, 0);
    assert!(list.contains("mosquitto's database, format version 6\n2 retained messages\n"), "{list}");
    assert!(list.contains("  state/a: 2 bytes \"on\", QoS 1, from switch\n"), "{list}");
    assert!(list.contains("    subscribes q/#: QoS 2, no local, retain as published, retained if new, identifier 7\n"), "{list}");
    assert!(list.contains("    from it, waits for PUBREL (packet 40) q/b: 3 bytes \"two\", QoS 2, from p (user alice)\n"), "{list}");
    assert!(list.contains(r#""\u{1b}[31mred\n""#) && !list.contains('\u{1b}'), "{list}");
    let (code, said, _) = db(&["import"], &[&database, &store]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("2 retained messages, 2 sessions, 2 subscriptions, 6 queued messages"), "{said}");
    let (code, of_store, _) = db(&["dump"], &[&store]);
    let rest = |list: &str| list.split_once('\n').map(|(_, rest)| rest.to_owned());
    assert_eq!((code, rest(&of_store)), (0, rest(&list)));
    let (code, lines, _) = db(&["dump", "--json"], &[&store]);
    let objects: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let count = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).count();
    assert_eq!((code, count("retained"), count("session"), count("subscription")), (0, 2, 2, 2));
    assert_eq!((count("queued"), count("received")), (5, 1));
}

#[test]
fn nothing_is_overwritten_that_nobody_said_to() {
    let place = place();
    let (database, store) = (place.path().join("mosquitto.db"), place.path().join("store"));
    let before = std::fs::read(&database).expect("the database");
    assert_eq!(db(&["import"], &[&database, &store]).0, 0);
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&store), 0o600);
    let (code, _, complaint) = db(&["import"], &[&database, &store]);
    assert!(code == 1 && complaint.contains("is there already"), "{complaint}");
    assert_eq!(db(&["import", "--force"], &[&database, &store]).0, 0);
    let (code, _, complaint) = db(&["import", "--force"], &[&database, &database]);
    assert!(code == 1 && complaint.contains("which is left as it is"), "{complaint}");

    let out = place.path().join("out.db");
    assert_eq!(db(&["export"], &[&store, &out]).0, 0);
    assert_eq!(mode(&out), 0o600);
    let (code, _, complaint) = db(&["export"], &[&store, &out]);
    assert!(code == 1 && complaint.contains("is there already"), "{complaint}");
    assert_eq!(db(&["export", "--force"], &[&store, &out]).0, 0);
    let (code, _, complaint) = db(&["export", "--force"], &[&store, &store]);
    assert!(code == 1 && complaint.contains("the store itself"), "{complaint}");
    let (code, _, complaint) = db(&["import"], &[&store, &place.path().join("other")]);
    assert!(code == 1 && complaint.contains("not a database of mosquitto's"), "{complaint}");
    // What somebody else keeps where all is written first.
    for (word, from, to, beside) in [("import", &database, "third", "third.new/mine"), ("export", &store, "fourth", "fourth.export/mine")] {
        let mine = place.write(beside, "");
        let (code, _, complaint) = db(&[word], &[from, &place.path().join(to)]);
        assert!(code == 1 && complaint.contains("is in the way") && mine.exists(), "{complaint}");
        std::fs::remove_dir_all(mine.parent().expect("a folder")).expect("ours");
    }
    let (code, _, complaint) = db(&["dump"], &[&place.path().join("missing")]);
    assert!(code == 1 && complaint.contains("No such file"), "{complaint}");
    assert_eq!(db(&["dump"], &[&place.write("text", "what is this")]).0, 1);
    assert_eq!(db(&["import"], &[]).0, 64);
    assert_eq!(std::fs::read(&database).expect("the database"), before);
    let names: Vec<_> = std::fs::read_dir(place.path()).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 4, "nothing is left lying about: {names:?}");
}

#[test]
fn the_store_of_a_running_broker_is_shown_and_left_alone() {
    let place = place();
    let mut broker = Broker::start(&conf(&place));
    broker.wait_for_log(" running");
    let conf = broker.folder.path().join("mosquitto.conf");
    let (code, list, complaint) = db(&["dump", "-c"], &[&conf]);
    assert_eq!((code, complaint.as_str()), (0, ""));
    assert!(list.contains("mosquitto.db.darner: a store of darner's\n2 retained messages\n"), "{list}");
    let database = place.path().join("mosquitto.db");
    let (code, _, complaint) = db(&["import", "--force", "-c"], &[&conf, &database]);
    assert!(code == 1 && complaint.contains("a broker is running on"), "{complaint}");
    let (code, said, _) = db(&["export", "-c"], &[&conf, &place.path().join("out.db")]);
    assert!(code == 0 && said.contains("what it takes in from now on is not in the export"), "{said}");
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(broker.exit_code(), 0);
    let (code, said, _) = db(&["import", "--force", "-c"], &[&conf, &database]);
    assert!(code == 0 && said.contains("/mosquitto.db.darner: 2 retained messages"), "{said}");
    let (code, _, complaint) = db(&["dump", "-c"], &[&place.path().join("missing.conf")]);
    assert!(code == 1 && complaint.contains("missing.conf cannot be read"), "{complaint}");
}

#[test]
fn what_cannot_be_read_is_said_and_fails() {
    let place = place();
    let database = place.path().join("mosquitto.db");
    let bytes = std::fs::read(&database).expect("the database");
    std::fs::write(&database, &bytes[..bytes.len() - 20]).expect("ours");
    let (code, list, complaint) = db(&["dump"], &[&database]);
    assert!(code == 1 && list.contains("state/a"), "{list}");
    assert!(complaint.contains("not all of") && complaint.contains("cut off"), "{complaint}");
    let (code, said, complaint) = db(&["import"], &[&database, &place.path().join("store")]);
    assert!(code == 1 && said.contains("Imported") && complaint.contains("cut off"), "{said}{complaint}");
}

#[test]
fn a_broker_at_the_level_snapshot_that_has_saved_nothing_yet_is_noticed() {
    let (place, folder) = (place(), Folder::new("snapshot"));
    folder.write("darner.toml", "durability = \"snapshot\"\n");
    let store = "persistence_file store\n";
    let mut broker = Broker::start_in(folder, &format!("{}{store}", conf(&place)));
    broker.wait_for_log(" running");
    let (database, store) = (place.path().join("mosquitto.db"), place.path().join("store"));
    for force in [&["import"][..], &["import", "--force"]] {
        let (code, _, complaint) = db(force, &[&database, &store]);
        assert!(code == 1 && complaint.contains("a broker is running on") && complaint.contains("Stop it first"), "{complaint}");
    }
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(broker.exit_code(), 0);
    assert_eq!(db(&["import", "--force"], &[&database, &store]).0, 0);
    assert!(db(&["dump"], &[&store]).1.contains("2 retained messages"));
}

/// As [`place`], of the broker's user, who may have been broken into.
fn place_of_another() -> Option<Folder> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can be led astray");
        return None;
    }
    let place = place();
    nix::unistd::chown(place.path(), Some(1883.into()), Some(1883.into())).expect("ours");
    Some(place)
}

#[test]
fn root_writes_nowhere_else_for_whoever_owns_the_folder() {
    let Some(place) = place_of_another() else { return };
    let outside = Folder::new("outside");
    let (database, store) = (place.path().join("mosquitto.db"), place.path().join("store"));
    let precious = outside.write("precious", "");
    // Nothing can be made beside the store, which is therefore written where it is.
    std::fs::create_dir(place.path().join("store.new")).expect("a folder");
    std::os::unix::fs::symlink(&precious, &store).expect("a link");
    let (code, _, complaint) = db(&["import", "--force"], &[&database, &store]);
    assert!(code == 1 && complaint.contains("there is a link"), "{complaint}");
    std::fs::remove_file(&store).expect("the link");
    std::fs::hard_link(&precious, &store).expect("another name");
    let (code, _, complaint) = db(&["import", "--force"], &[&database, &store]);
    assert!(code == 1 && complaint.contains("it has more than one name"), "{complaint}");
    assert_eq!(std::fs::read(&precious).expect("a file"), b"");
    std::fs::remove_file(&store).expect("the other name");
    place.write("store", "");
    assert_eq!(db(&["import"], &[&database, &store]).0, 0, "a file that takes no other in its place, as a mount");
}

#[test]
fn root_reads_nothing_for_whoever_owns_the_folder_that_he_may_not_read() {
    let Some(place) = place_of_another() else { return };
    let outside = Folder::new("outside");
    let [secret, store, out] = ["secret.db", "store", "out"].map(|name| place.path().join(name));
    let theirs = outside.write("theirs.db", std::fs::read(place.path().join("mosquitto.db")).expect("the database"));
    std::os::unix::fs::symlink(&theirs, &secret).expect("a link");
    for (words, paths) in [(&["dump"][..], &[&secret][..]), (&["import"], &[&secret, &store]), (&["export"], &[&secret, &out])] {
        let paths: Vec<&Path> = paths.iter().map(|path| path.as_path()).collect();
        let (code, said, complaint) = db(words, &paths);
        assert!(
            code == 1 && said.is_empty() && complaint.contains("there is a link in a folder of another user"),
            "{words:?}: {complaint}"
        );
    }
    std::fs::remove_file(&secret).expect("the link");
    std::os::unix::fs::symlink(outside.path(), place.path().join("folder")).expect("a link");
    let (code, _, complaint) = db(&["import"], &[&place.path().join("folder/theirs.db"), &store]);
    assert!(code == 1 && complaint.contains("there is a link in a folder of another user"), "{complaint}");
    std::fs::hard_link(&theirs, &secret).expect("another name");
    assert_eq!(db(&["import"], &[&secret, &store]).0, 1);
    std::fs::remove_file(&secret).expect("the other name");
    nix::unistd::mkfifo(&secret, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let (code, _, complaint) = db(&["dump"], &[&secret]);
    assert!(code == 1 && complaint.contains("is not a file"), "{complaint}");
    assert!(!store.exists() && !out.exists());
    // Links that root laid.
    std::os::unix::fs::symlink("theirs.db", outside.path().join("link")).expect("a link");
    std::os::unix::fs::symlink(place.path(), outside.path().join("way")).expect("a link");
    for path in ["link", "way/mosquitto.db"] {
        assert_eq!(db(&["dump"], &[&outside.path().join(path)]).0, 0, "{path}");
    }
}

#[test]
fn what_root_makes_has_its_owner_before_it_has_its_name() {
    let Some(place) = place_of_another() else { return };
    let [database, store, out] = ["mosquitto.db", "store", "out"].map(|name| place.path().join(name));
    for (word, from, to) in [("import", &database, &store), ("export", &store, &out)] {
        let trace = place.path().join("trace");
        let calls = ["-f", "-y", "-e", "trace=openat,openat2,fchown,fchownat,chown,rename,renameat,renameat2", "-o"];
        let mut strace = Command::new("strace");
        let (code, _, complaint) = run(strace.args(calls).arg(&trace).arg(darner()).args(["db", word]).args([from, to]));
        assert_eq!(code, 0, "{complaint}");
        let text = std::fs::read_to_string(&trace).expect("a trace");
        let named = text.split_once("rename").expect("it takes its place");
        assert!(named.0.contains("chown(") && !named.1.contains("chown"), "whose name that is meanwhile nobody knows: {text}");
        let owner = std::fs::metadata(to).map(|facts| (std::os::unix::fs::MetadataExt::uid(&facts), facts.permissions().mode() & 0o777));
        assert_eq!(owner.expect("a file"), (1883, 0o600));
    }
}
