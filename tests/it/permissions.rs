//! Who may do what, on the real binary with its own tools: wills, retained and queued messages, and what a reload changes.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;

use crate::support::process::{Broker, Folder, darner, run, wait_until};

const CONF: &str = "user root\nlistener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/pwfile\nacl_file {folder}/acl\n";

/// A broker with users `alice`, `bob` and `admin` (password `secret`) and these ACL rules.
fn broker(name: &str, acl: &str) -> Broker {
    let folder = Folder::new(name);
    let file = folder.write("pwfile", "");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    folder.write("acl", acl);
    for user in ["alice", "bob", "admin"] {
        set_password(&folder, user, "secret");
    }
    Broker::start_in(folder, CONF)
}

fn set_password(folder: &Folder, user: &str, password: &str) {
    let file = folder.path().join("pwfile");
    let (code, _, stderr) = run(Command::new(darner()).args(["mosquitto_passwd", "-b"]).arg(file).args([user, password]));
    assert_eq!((code, stderr.as_str()), (0, ""));
}

fn client(broker: &Broker, tool: &str, user: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(darner());
    command.args([tool, "-h", "127.0.0.1", "-p", &broker.port.to_string(), "-u", user, "-P", "secret"]).args(arguments);
    command
}

fn publish(broker: &Broker, user: &str, arguments: &[&str]) {
    assert_eq!(run(&mut client(broker, "mosquitto_pub", user, arguments)).0, 0);
}

/// What a subscriber gets within two seconds, or until it has `count` messages.
fn received(broker: &Broker, user: &str, count: &str, arguments: &[&str]) -> String {
    run(client(broker, "mosquitto_sub", user, &["-v", "-W", "2", "-C", count]).args(arguments)).1
}

/// A subscriber that stays, once the broker has logged its subscription.
fn subscriber(broker: &Broker, user: &str, filter: &str, arguments: &[&str]) -> Child {
    let before = broker.log().matches(" as watch-").count();
    let id = format!("watch-{user}-{before}");
    let child = client(broker, "mosquitto_sub", user, &["-v", "-i", &id, "-t", filter])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a subscriber");
    broker.wait_for_log(&format!("as {id} "));
    child
}

fn output(mut child: Child) -> String {
    let mut text = String::new();
    child.stdout.take().expect("its output").read_to_string(&mut text).expect("text");
    let _ = child.wait();
    text
}

fn reload(broker: &Broker) {
    let before = broker.log().matches("Reloading config.").count();
    broker.signal(Signal::SIGHUP);
    wait_until("the reload", || broker.log().matches("Reloading config.").count() > before);
}

#[test]
fn a_will_is_published_only_where_its_client_may_publish() {
    let broker = broker("will", "user alice\ntopic write open/#\nuser admin\ntopic readwrite #\n");
    let watcher = subscriber(&broker, "admin", "#", &["-C", "2", "-W", "10"]);
    for topic in ["closed/will", "open/will"] {
        let mut dying = subscriber(&broker, "alice", "nothing", &["--will-topic", topic, "--will-payload", "gone"]);
        dying.kill().expect("it dies");
        let _ = dying.wait();
    }
    publish(&broker, "admin", &["-t", "end", "-m", "end"]);
    // The last breath of a killed client and the publication race: only the set of topics is told.
    let text = output(watcher);
    assert!(text.contains("open/will gone"), "{text}");
    assert!(!text.contains("closed/will"), "{text}");
}

#[test]
fn a_retained_message_goes_when_its_publisher_loses_the_right() {
    let broker = broker("retain", "user alice\ntopic write news/#\nuser admin\ntopic readwrite #\n");
    publish(&broker, "alice", &["-t", "news/a", "-m", "hello", "-r", "-q", "1"]);
    assert_eq!(received(&broker, "admin", "1", &["-t", "news/#"]), "news/a hello\n");
    broker.folder.write("acl", "user admin\ntopic readwrite #\n");
    reload(&broker);
    wait_until("the new rules", || received(&broker, "admin", "1", &["-t", "news/#"]).is_empty());
}

#[test]
fn without_check_retain_source_a_retained_message_stays_when_its_publisher_loses_the_right() {
    let folder = Folder::new("retain");
    folder.write("acl", "topic write news/#\n");
    let broker =
        Broker::start_in(folder, "listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {folder}/acl\ncheck_retain_source false\n");
    let tool = |tool: &str, arguments: &[&str]| {
        run(Command::new(darner()).args([tool, "-h", "127.0.0.1", "-p", &broker.port.to_string(), "-t", "news/a"]).args(arguments))
    };
    assert_eq!(tool("mosquitto_pub", &["-m", "hello", "-r", "-q", "1"]).0, 0);
    broker.folder.write("acl", "topic read #\n");
    reload(&broker);
    // What is published now is refused, so that the new rules are known to be in force, and what was retained is delivered.
    assert_eq!(tool("mosquitto_pub", &["-m", "later", "-r", "-q", "1"]).0, 0);
    assert_eq!(tool("mosquitto_sub", &["-v", "-C", "1", "-W", "5"]).1, "news/a hello\n");
}

#[test]
fn what_waits_for_a_client_is_judged_by_the_rules_of_today() {
    let broker = broker("queue", "user bob\ntopic read #\nuser admin\ntopic readwrite #\n");
    let session = ["-c", "-i", "bobs-session", "-q", "1", "-t", "one", "-t", "two"];
    assert_eq!(run(client(&broker, "mosquitto_sub", "bob", &["-E"]).args(session)).0, 0);
    publish(&broker, "admin", &["-t", "one", "-m", "1", "-q", "1"]);
    publish(&broker, "admin", &["-t", "two", "-m", "2", "-q", "1"]);
    broker.folder.write("acl", "user bob\ntopic read one\nuser admin\ntopic readwrite #\n");
    reload(&broker);
    assert_eq!(received(&broker, "bob", "2", &session), "one 1\n");
}

#[test]
fn a_reload_sends_away_whom_it_no_longer_knows() {
    let broker = broker("users", "user alice\ntopic readwrite #\nuser bob\ntopic readwrite #\nuser admin\ntopic readwrite #\n");
    let (alice, bob) = (subscriber(&broker, "alice", "t", &["-C", "1", "-W", "20"]), subscriber(&broker, "bob", "t", &[]));
    let mut admin = subscriber(&broker, "admin", "t", &[]);
    let file = broker.folder.path().join("pwfile");
    assert_eq!(run(Command::new(darner()).args(["mosquitto_passwd", "-D"]).arg(&file).arg("bob")).0, 0);
    set_password(&broker.folder, "admin", "another");
    reload(&broker);
    for user in ["bob", "admin"] {
        wait_until("the farewell", || {
            broker.log().lines().any(|line| line.contains(&format!("Client watch-{user}")) && line.contains("disconnected, not authorised"))
        });
    }
    publish(&broker, "alice", &["-t", "t", "-m", "still here"]);
    assert_eq!(output(alice), "t still here\n");
    admin.kill().expect("it ends");
    let _ = admin.wait();
    let mut bob = bob;
    bob.kill().expect("it ends");
    let _ = bob.wait();
}

#[test]
fn a_reload_that_forbids_anonymous_clients_sends_them_away() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let mut child = Command::new(darner())
        .args(["mosquitto_sub", "-h", "127.0.0.1", "-p", &broker.port.to_string(), "-i", "nobody", "-t", "t"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a subscriber");
    broker.wait_for_log("as nobody ");
    broker.folder.write("mosquitto.conf", format!("listener {} 127.0.0.1\nallow_anonymous false\n", broker.port));
    broker.signal(Signal::SIGHUP);
    broker.wait_for_log("Client nobody disconnected, not authorised.");
    child.kill().expect("it ends");
    let _ = child.wait();
}

#[test]
fn nobody_but_the_broker_writes_to_sys() {
    let broker = broker("sys", "user admin\ntopic readwrite #\ntopic readwrite $SYS/#\n");
    publish(&broker, "admin", &["-t", "$SYS/broker/version", "-m", "mine", "-r", "-q", "1"]);
    assert_eq!(received(&broker, "admin", "1", &["-t", "$SYS/broker/version"]), "$SYS/broker/version mosquitto version 2.1.2\n");
}

#[test]
fn memory_limit_turns_new_clients_away_once_it_is_reached() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nmemory_limit 100000\nmax_queued_messages 0\n");
    let tool = |tool: &str, arguments: &[&str]| {
        let mut command = Command::new(darner());
        command.args([tool, "-h", "127.0.0.1", "-p", &broker.port.to_string(), "-V", "5"]).args(arguments);
        run(&mut command)
    };
    let payload = "x".repeat(150_000);
    let file = broker.folder.write("payload", payload);
    let file = file.display().to_string();
    assert_eq!(tool("mosquitto_pub", &["-t", "big", "-r", "-q", "1", "-f", &file]).0, 0, "the limit was not reached before it");
    broker.wait_for_log("The memory_limit of 100000 bytes is reached");
    let (code, _, stderr) = tool("mosquitto_pub", &["-t", "more", "-r", "-q", "1", "-m", "x"]);
    assert!(code != 0, "a new client is turned away: {stderr}");
}
