//! A disk that takes nothing more: full, read-only, over a quota, broken. The real broker, which serves on, refuses what it could not
//! keep, says so, and is well again by itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use darner::mqtt::{Packet, PacketId, ProtocolVersion, Publish, Qos};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::broker::client::{Client, Ended};
use crate::support::process::{Broker, Folder, darner, free_port, run, wait_until};
use crate::support::store;
use crate::support::strace::Strace;
use crate::support::volume::Volume;

const QUOTA_EXCEEDED: u8 = 0x97;
const NO_SUBSCRIBERS: u8 = 0x10;
const DISCONNECT: u8 = 14;

fn start(volume: &Volume) -> Broker {
    let location = volume.path().display();
    let conf = format!(
        "listener {{port}} 127.0.0.1\nallow_anonymous true\nuser root\nsys_interval 1\npersistence true\npersistence_location {location}\n"
    );
    Broker::start_within(&volume.within(), Folder::new("shortage"), &conf)
}

fn client(broker: &Broker, name: &str, version: ProtocolVersion) -> Client {
    let (client, code) = Client::log_in(broker.port, name, None, version);
    assert_eq!(code, Some(0), "{name} is let in");
    client
}

/// Publishes a retained message; the answer's packet type and reason code (0 where it has none), or that the broker closed.
fn publish(client: &mut Client, topic: &str, payload: &[u8], qos: Qos) -> Result<(u8, u8), Ended> {
    let packet_id = (qos != Qos::AtMostOnce).then_some(PacketId::MIN);
    client.send(&Packet::Publish(Publish { dup: false, qos, retain: true, topic, packet_id, properties: Vec::new(), payload }));
    let answer = client.receive_bytes()?;
    Ok((answer[0] >> 4, answer.get(4).copied().unwrap_or_default()))
}

/// A retained message is taken by the broker, sooner or later.
fn until_taken(broker: &Broker, topic: &str, payload: &[u8]) {
    wait_until("a message that is taken", || {
        let mut publisher = client(broker, "again", ProtocolVersion::V5);
        publish(&mut publisher, topic, payload, Qos::AtLeastOnce).is_ok_and(|(_, reason)| reason < 0x80)
    });
}

fn retained(broker: &Broker, topic: &str) -> String {
    let mut reader = Client::connect(broker.port, "reader");
    reader.subscribe(topic);
    String::from_utf8(reader.receive_payload()).expect("text")
}

fn crash(mut broker: Broker) {
    broker.signal(Signal::SIGKILL);
    broker.exit_code();
}

/// Failing, as everybody who looks finds it.
fn refuses(broker: &Broker, reason: &str) {
    broker.wait_for_log("Error: Nothing can be kept in ");
    assert!(broker.log().contains(reason), "{}", broker.log());
    wait_until("the state in $SYS", || retained(broker, "$SYS/broker/persistence/failing") == "1");
    let (code, line, _) = run(Command::new(darner()).arg("healthcheck").env("HEALTHCHECK_PORT", broker.port.to_string()));
    assert!(code == 1 && line.contains("nothing can be kept"), "{line}");
    let mut five = client(broker, "five", ProtocolVersion::V5);
    assert_eq!(publish(&mut five, "refused", b"x", Qos::AtLeastOnce), Ok((4, QUOTA_EXCEEDED)));
    assert_eq!(publish(&mut five, "refused", b"x", Qos::ExactlyOnce), Ok((5, QUOTA_EXCEEDED)));
    for qos in [Qos::AtLeastOnce, Qos::ExactlyOnce] {
        let mut three = client(broker, "three", ProtocolVersion::V311);
        assert_eq!(publish(&mut three, "refused", b"x", qos), Err(Ended), "closed without an acknowledgement");
    }
    let mut reader = Client::connect(broker.port, "listens");
    reader.subscribe("served");
    five.publish("served", b"still");
    assert_eq!(reader.receive_payload(), b"still");
}

/// All is kept again; a crash loses none of what was acknowledged.
fn recovers(broker: Broker, volume: &Volume, kept: &[(&str, &str)]) {
    broker.wait_for_log("can be written to again");
    wait_until("the state in $SYS", || retained(&broker, "$SYS/broker/persistence/failing") == "0");
    until_taken(&broker, "after", b"all is well");
    let (code, line, _) = run(Command::new(darner()).arg("healthcheck").env("HEALTHCHECK_PORT", broker.port.to_string()));
    assert_eq!(code, 0, "{line}");
    let log = broker.log();
    assert_eq!(log.matches("Nothing can be kept in ").count(), 1, "once, and not for each message:\n{log}");
    assert_eq!(log.matches("can be written to again").count(), 1, "{log}");
    crash(broker);
    let broker = start(volume);
    for (topic, value) in kept.iter().chain(&[("after", "all is well")]) {
        assert_eq!(retained(&broker, topic), *value, "{topic}");
    }
    assert!(!broker.log().contains("damaged"), "the file was left whole:\n{}", broker.log());
}

#[test]
fn a_full_disk_refuses_what_cannot_be_kept_until_there_is_room() {
    let volume = Volume::new("1m");
    let broker = start(&volume);
    let mut publisher = client(&broker, "publisher", ProtocolVersion::V5);
    assert_eq!(publish(&mut publisher, "before", b"kept", Qos::AtLeastOnce), Ok((4, NO_SUBSCRIBERS)));
    volume.fill();
    // What is written last before the end may be taken in part.
    let mut taken = 0;
    while publish(&mut publisher, &format!("n/{taken}"), &[b'x'; 3000], Qos::AtLeastOnce).is_ok_and(|(_, reason)| reason < 0x80) {
        taken += 1;
        assert!(taken < 1000, "the disk is full");
    }
    refuses(&broker, "No space left on device");
    volume.free();
    let last = format!("n/{}", taken.max(1) - 1);
    let value = "x".repeat(3000);
    let mut kept = vec![("before", "kept")];
    kept.extend((taken > 0).then_some((last.as_str(), value.as_str())));
    recovers(broker, &volume, &kept);
}

#[test]
fn a_volume_that_is_read_only_at_the_start_is_used_as_soon_as_it_can_be() {
    let volume = Volume::new("1m");
    volume.remount("ro");
    let broker = start(&volume);
    refuses(&broker, "Read-only file system");
    volume.remount("rw");
    recovers(broker, &volume, &[]);
}

/// Makes every such call on the store's files fail.
fn fault(broker: &Broker, volume: &Volume, calls: &str, error: &str) -> Strace {
    let file = |name: &str| volume.path().join(name).display().to_string();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}"));
    let arguments = ["-e", &trace, "-e", &inject, "-P", &file("mosquitto.db"), "-P", &file("mosquitto.db.new")];
    Strace::attach(broker, &volume.within(), &arguments)
}

fn a_failing_call_is_survived(calls: &str, error: &str, reason: &str) {
    let volume = Volume::new("1m");
    let broker = start(&volume);
    until_taken(&broker, "before", b"kept");
    let fault = fault(&broker, &volume, calls, error);
    let mut publisher = client(&broker, "publisher", ProtocolVersion::V5);
    // It was taken in before the failure was known, so that there is no telling but by closing.
    assert_eq!(publish(&mut publisher, "unsure", b"x", Qos::AtLeastOnce).map(|(kind, _)| kind), Ok(DISCONNECT));
    refuses(&broker, reason);
    drop(fault);
    recovers(broker, &volume, &[("before", "kept")]);
}

#[test]
fn an_error_of_the_disk_refuses_what_cannot_be_kept_until_it_is_over() {
    a_failing_call_is_survived("write,openat,ftruncate", "EIO", "Input/output error");
}

#[test]
fn a_quota_that_is_used_up_refuses_what_cannot_be_kept_until_it_is_raised() {
    a_failing_call_is_survived("write", "EDQUOT", "Disk quota exceeded");
}

#[test]
fn a_volume_that_becomes_read_only_refuses_what_cannot_be_kept_until_it_is_writable() {
    a_failing_call_is_survived("write,openat,ftruncate", "EROFS", "Read-only file system");
}

struct Supervisor(Child);

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn check(run_folder: &Path) -> (i32, String) {
    let (code, line, _) = run(Command::new(darner()).arg("healthcheck").env("DARNER_RUN_DIR", run_folder));
    (code, line)
}

#[test]
fn the_health_check_and_the_status_tell_of_a_full_disk_and_of_its_end() {
    let volume = Volume::new("1m");
    let (folder, port) = (Folder::new("shortage"), free_port());
    let location = volume.path().display();
    let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\npersistence_location {location}\n");
    let conf = folder.write("mosquitto.conf", conf);
    let run_folder = folder.path().join("run");
    let within = volume.within();
    let supervisor = Command::new(&within[0])
        .args(&within[1..])
        .arg(darner())
        .args(["supervise", "-c"])
        .arg(conf)
        .env("DARNER_RUN_DIR", &run_folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the supervisor starts");
    let supervisor = Supervisor(supervisor);
    wait_until("the supervised broker", || check(&run_folder).0 == 0);
    volume.fill();
    let mut publisher = Client::connect(port, "publisher");
    while publish(&mut publisher, "state", &[b'x'; 3000], Qos::AtLeastOnce).is_ok() {}
    let mut line = String::new();
    wait_until("an ill broker", || {
        let (code, said) = check(&run_folder);
        line = said;
        code == 1
    });
    assert!(line.starts_with("unhealthy: Nothing can be kept in ") && line.contains("No space left on device"), "{line}");
    let status = || run(Command::new(darner()).arg("status").env("DARNER_RUN_DIR", &run_folder)).1;
    assert!(status().contains("Nothing can be kept in "), "{}", status());
    volume.free();
    wait_until("a healthy broker", || check(&run_folder).0 == 0);
    assert!(!status().contains("Nothing can be kept"), "{}", status());
    drop(supervisor);
}

/// Kills the broker at each of these calls, the so-manieth of its kind, while a retained value outgrows its file; what was acknowledged is
/// there afterwards, and in the end `file` is small.
fn killed_at(volume: &Volume, calls: &[(&str, u32)], file: &str) {
    let mut last = (0, 0);
    for (round, (call, when)) in (1..).zip(calls) {
        let mut broker = start(volume);
        let mut publisher = client(&broker, "publisher", ProtocolVersion::V5);
        let inject = format!("inject={call}:signal=SIGKILL:when={when}");
        let strace = Strace::attach(&broker, &volume.within(), &["-e", &format!("trace={call}"), "-e", &inject]);
        let dies = (0..100).find(|number| {
            let payload = format!("{round} {number} {}", "x".repeat(100_000));
            let is_taken = publish(&mut publisher, "state", payload.as_bytes(), Qos::AtLeastOnce).is_ok();
            last = if is_taken { (round, *number) } else { last };
            !is_taken
        });
        assert!(dies.is_some(), "{call} {when}: the broker was killed");
        broker.exit_code();
        drop(strace);
        let broker = start(volume);
        let value = retained(&broker, "state");
        let mut numbers = value.split(' ').map_while(|number| number.parse::<i32>().ok());
        let found = (numbers.next().expect("a round"), numbers.next().expect("a number"));
        assert!(found >= last, "{call} {when}: {found:?} after {last:?}");
        crash(broker);
    }
    let size = std::fs::metadata(volume.file(file)).expect("the file").len();
    assert!(size < 6_000_000, "{size} bytes for one value of 100 kB");
}

/// A file mounted by itself, as `-v ./data.db:…` does: nothing can take its place.
#[test]
fn a_single_file_is_written_anew_where_it_is_and_a_crash_meanwhile_loses_nothing() {
    let volume = Volume::new("64m");
    let path = volume.path().join("mosquitto.db").display().to_string();
    let other = volume.path().join("bound").display().to_string();
    volume.run(&["sh", "-c", "touch $1 $2 && mount --bind $2 $1", "sh", &path, &other]);
    // At the first calls of writing anew behind the end, of overwriting the beginning, and of cutting off the end.
    killed_at(&volume, &[("fsync", 1), ("pwrite64", 1), ("pwrite64", 2), ("fsync", 2), ("ftruncate", 1)], "bound");
}

#[test]
fn a_crash_while_the_file_is_being_replaced_loses_nothing() {
    let volume = Volume::new("64m");
    killed_at(&volume, &[("/^rename", 1), ("fsync", 1), ("/^unlink", 1), ("/^rename", 2)], "mosquitto.db");
    let broker = start(&volume);
    assert!(!volume.file("mosquitto.db.new").exists(), "what a crash left is gone");
    assert!(!broker.log().contains("damaged"), "{}", broker.log());
}

#[test]
fn a_file_in_a_folder_that_takes_no_other_is_written_anew_where_it_is() {
    let volume = Volume::new("64m");
    let (root, file) = (volume.path().display().to_string(), volume.path().join("mosquitto.db").display().to_string());
    // The broker is nobody here, who may write to the file alone.
    volume.run(&["sh", "-c", "chmod 755 $1 && touch $2 && chmod 666 $2", "sh", &root, &file]);
    let conf = format!("listener {{port}} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {root}\n");
    let start = || Broker::start_within(&volume.within(), Folder::new("shortage"), &conf);
    let broker = start();
    let mut publisher = client(&broker, "publisher", ProtocolVersion::V311);
    for number in 0..60 {
        let payload = format!("{number} {}", "x".repeat(100_000));
        assert!(publish(&mut publisher, "state", payload.as_bytes(), Qos::AtLeastOnce).is_ok(), "{}", broker.log());
    }
    let size = || std::fs::metadata(volume.file("mosquitto.db")).expect("the file").len();
    assert!(size() < 4_000_000, "{}", size());
    crash(broker);
    assert!(retained(&start(), "state").starts_with("59 "));
}

/// As a single file that is mounted into a read-only root: there is no room beside it.
#[test]
fn what_cannot_be_read_and_cannot_be_set_aside_is_not_overwritten() {
    let volume = Volume::new("1m");
    let broker = start(&volume);
    until_taken(&broker, "state", b"a later version's");
    crash(broker);
    let kept = store::of_a_later_version(&std::fs::read(volume.file("mosquitto.db")).expect("a store"));
    std::fs::write(volume.file("mosquitto.db"), &kept).expect("ours");
    let (root, file) = (volume.path().display().to_string(), volume.path().join("mosquitto.db").display().to_string());
    volume.run(&["sh", "-c", "chmod 755 $1 && chmod 666 $2", "sh", &root, &file]);
    let conf = format!("listener {{port}} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {root}\n");
    let broker = Broker::start_within(&volume.within(), Folder::new("shortage"), &conf);
    broker.wait_for_log("was written by a later version of darner");
    broker.wait_for_log("Error: Nothing can be kept in ");
    assert!(broker.log().contains("could not be set aside"), "{}", broker.log());
    let mut five = client(&broker, "five", ProtocolVersion::V5);
    assert_eq!(publish(&mut five, "state", b"refused", Qos::AtLeastOnce), Ok((4, QUOTA_EXCEEDED)));
    std::thread::sleep(std::time::Duration::from_millis(2500));
    assert_eq!(std::fs::read(volume.file("mosquitto.db")).expect("it is there"), kept);
    // Room is made for it.
    volume.run(&["chmod", "777", &root]);
    broker.wait_for_log("can be written to again");
    until_taken(&broker, "state", b"taken");
    let entries = std::fs::read_dir(volume.file("")).expect("a folder").flatten().map(|entry| entry.path());
    let aside = entries.into_iter().find(|path| path.to_string_lossy().contains(".damaged-")).expect("it was set aside");
    assert_eq!(std::fs::read(&aside).expect("it is there"), kept);
    assert!(broker.log().contains(&aside.file_name().expect("a name").display().to_string()), "{}", broker.log());
}

#[test]
fn a_single_file_in_a_read_only_root_is_opened_again_without_a_complaint() {
    let volume = Volume::new("1m");
    let (root, path) = (volume.path().display().to_string(), volume.path().join("mosquitto.db").display().to_string());
    let other = volume.path().join("bound").display().to_string();
    let script = "touch $1 $2 && mount --bind $2 $1 && mount -o remount,bind,ro $3";
    volume.run(&["sh", "-c", script, "sh", &path, &other, &root]);
    for number in 0..2 {
        let broker = start(&volume);
        until_taken(&broker, &format!("state/{number}"), b"kept");
        assert!(!broker.log().contains("Nothing can be kept"), "{}", broker.log());
        crash(broker);
    }
    assert_eq!(retained(&start(&volume), "state/0"), "kept");
}

#[test]
fn a_snapshot_that_cannot_be_saved_is_said_until_it_can_be() {
    let volume = Volume::new("1m");
    let start = || {
        let folder = Folder::new("shortage");
        folder.write("darner.toml", "durability = \"snapshot\"\n");
        let location = volume.path().display();
        let conf = format!(
            "listener {{port}} 127.0.0.1\nallow_anonymous true\nuser root\nsys_interval 1\npersistence true\npersistence_location {location}\n"
        );
        Broker::start_within(&volume.within(), folder, &conf)
    };
    let broker = start();
    volume.fill();
    let mut publisher = client(&broker, "publisher", ProtocolVersion::V5);
    let taken = |publisher: &mut Client, topic: &str| publish(publisher, topic, &[b'x'; 5000], Qos::AtLeastOnce);
    assert_eq!(taken(&mut publisher, "state"), Ok((4, NO_SUBSCRIBERS)));
    broker.signal(Signal::SIGUSR1);
    broker.wait_for_log("cannot be saved");
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert!(!broker.log().contains("can be written to again"), "{}", broker.log());
    assert_eq!(retained(&broker, "$SYS/broker/persistence/failing"), "1");
    let check = || run(Command::new(darner()).arg("healthcheck").env("HEALTHCHECK_PORT", broker.port.to_string()));
    assert_eq!(check().0, 1);
    assert_eq!(taken(&mut publisher, "more"), Ok((4, NO_SUBSCRIBERS)), "nothing is refused: this level promises none of it");
    volume.free();
    broker.wait_for_log("can be written to again");
    wait_until("the state in $SYS", || retained(&broker, "$SYS/broker/persistence/failing") == "0");
    assert_eq!(check().0, 0);
    crash(broker);
    assert_eq!(retained(&start(), "state"), "x".repeat(5000));
}

/// Sessions while nothing can be kept: those that are kept go on, no new one is promised, and no subscription of one that lasts.
#[test]
fn while_nothing_can_be_kept_no_session_and_no_subscription_is_promised() {
    const SERVER_UNAVAILABLE: u8 = 3;
    const FAILURE: u8 = 0x80;
    let volume = Volume::new("1m");
    let broker = start(&volume);
    let versions =
        [(ProtocolVersion::V5, "five", QUOTA_EXCEEDED, QUOTA_EXCEEDED), (ProtocolVersion::V311, "three", SERVER_UNAVAILABLE, FAILURE)];
    let mut known = Vec::new();
    for (version, name, ..) in versions {
        let (mut client, code) = Client::lasting(broker.port, name, version);
        assert_eq!(code, Some(0));
        assert_eq!(client.ask("kept", Qos::AtLeastOnce), Ok(1));
        assert_eq!(client.ask("given/up", Qos::AtLeastOnce), Ok(1));
        known.push(client);
    }
    let fault = fault(&broker, &volume, "write,openat,ftruncate", "ENOSPC");
    let mut publisher = client(&broker, "publisher", ProtocolVersion::V5);
    let _ = publish(&mut publisher, "unsure", b"x", Qos::AtLeastOnce);
    broker.wait_for_log("Error: Nothing can be kept in ");
    for ((version, name, refused, failure), known) in versions.into_iter().zip(&mut known) {
        let (_, code) = Client::lasting(broker.port, &format!("new {name}"), version);
        assert_eq!(code, Some(refused), "{name}: CONNECT");
        assert_eq!(known.ask("more", Qos::AtLeastOnce), Ok(failure), "{name}: SUBSCRIBE");
        assert_eq!(known.unsubscribe("given/up"), Ok(()), "{name}: UNSUBSCRIBE");
        assert_eq!(
            client(&broker, &format!("passing {name}"), version).ask("more", Qos::AtLeastOnce),
            Ok(1),
            "{name}: nothing of it is kept"
        );
        let (mut again, code) = Client::lasting(broker.port, name, version);
        assert_eq!(code, Some(0), "{name} comes back to its session");
        again.ping();
    }
    drop(fault);
    broker.wait_for_log("can be written to again");
    for (version, name, ..) in versions {
        let (mut client, code) = Client::lasting(broker.port, &format!("new {name}"), version);
        assert_eq!(code, Some(0), "{name}: CONNECT");
        assert_eq!(client.ask("more", Qos::AtLeastOnce), Ok(1), "{name}: SUBSCRIBE");
    }
    crash(broker);
    let broker = start(&volume);
    for (version, name, ..) in versions {
        let (mut back, _) = Client::lasting(broker.port, name, version);
        let mut publisher = client(&broker, "publisher", ProtocolVersion::V311);
        for topic in ["given/up", "more", "kept"] {
            publisher.publish(topic, topic.as_bytes());
        }
        assert_eq!(back.receive_payload(), b"kept", "{name}: what it gave up is gone, what was refused is not there");
    }
}
