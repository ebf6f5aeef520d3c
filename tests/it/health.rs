//! `darner healthcheck`: one line and an exit code, within its own deadline, whatever the broker does.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::peer::{Peer, debian};
use crate::support::process::{Broker, Folder, darner, free_port, run, wait_until};

/// The check's own deadline, and what a loaded machine may add.
const DEADLINE: Duration = Duration::from_secs(5 + 4);

struct Checked {
    code: i32,
    line: String,
    took: Duration,
}

fn check(port: Option<u16>, variables: &[(&str, &str)]) -> Checked {
    let mut command = Command::new(darner());
    command.arg("healthcheck").env("DARNER_RUN_DIR", "/nonexistent");
    for name in ["PORT", "USER", "PASSWORD", "TOPIC"] {
        command.env_remove(format!("HEALTHCHECK_{name}"));
    }
    command.envs(variables.iter().copied()).envs(port.map(|port| ("HEALTHCHECK_PORT", port.to_string())));
    let start = Instant::now();
    let (code, line, stderr) = run(&mut command);
    assert_eq!(stderr, "");
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.len() <= 4096);
    Checked { code, line, took: start.elapsed() }
}

const ANONYMOUS: &str = "listener {port} 127.0.0.1\nallow_anonymous true\n";

/// A password file with the user `hello`, whose password is `wor ld`, and an ACL that keeps the topic from him.
fn folder_with_password() -> Folder {
    let folder = Folder::new("health");
    let file = folder.path().join("passwords");
    assert_eq!(run(debian("mosquitto_passwd").args(["-c", "-b"]).arg(&file).args(["hello", "wor ld"])).0, 0);
    folder.write("acl", "user hello\ntopic readwrite other/#\n");
    folder
}

const PASSWORD: &str = "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\n";

fn retained(port: u16, user: &[&str]) -> String {
    let mut command = debian("mosquitto_sub");
    run(command.args(["-p", &port.to_string(), "-t", "#", "-C", "1", "-W", "5", "-F", "%r %q %t=%p"]).args(user)).1
}

#[test]
fn an_open_broker_is_healthy_and_keeps_the_date() {
    let broker = Broker::start(ANONYMOUS);
    let checked = check(Some(broker.port), &[("TZ", "UTC")]);
    assert_eq!((checked.code, checked.line), (0, format!("healthy: round trip through port {}\n", broker.port)));
    let retained = retained(broker.port, &[]);
    assert!(retained.starts_with("1 0 iotstack/mosquitto/healthcheck=") && retained.contains(" UTC 2"), "{retained}");
}

#[test]
fn debians_broker_is_healthy_too_and_the_topic_can_be_chosen() {
    let peer = Peer::start(ANONYMOUS);
    assert_eq!(check(Some(peer.port), &[("HEALTHCHECK_TOPIC", "'my topic'")]).code, 0);
    assert!(retained(peer.port, &[]).starts_with("1 0 my topic="));
}

#[test]
fn credentials_in_quotes_are_understood_and_wrong_ones_are_not_healthy() {
    let broker = Broker::start_in(folder_with_password(), PASSWORD);
    let user = ("HEALTHCHECK_USER", "\"hello\"");
    assert_eq!(check(Some(broker.port), &[user, ("HEALTHCHECK_PASSWORD", "'wor ld'")]).code, 0);
    let checked = check(Some(broker.port), &[user, ("HEALTHCHECK_PASSWORD", "wrong")]);
    assert_eq!(checked.code, 1);
    assert_eq!(checked.line, format!("unhealthy: port {}: Connection Refused: not authorised.\n", broker.port));
}

#[test]
fn a_topic_kept_from_the_given_user_is_not_healthy() {
    let conf = format!("{PASSWORD}acl_file {{folder}}/acl\n");
    let broker = Broker::start_in(folder_with_password(), &conf);
    let checked = check(Some(broker.port), &[("HEALTHCHECK_USER", "hello"), ("HEALTHCHECK_PASSWORD", "wor ld")]);
    assert_eq!(checked.code, 1);
    assert!(checked.line.contains("topic iotstack/mosquitto/healthcheck"), "{}", checked.line);
    assert!(checked.took < DEADLINE, "{:?}", checked.took);
}

#[test]
fn a_frozen_broker_is_not_healthy_within_the_deadline() {
    let broker = Broker::start(ANONYMOUS);
    broker.signal(Signal::SIGSTOP);
    let checked = check(Some(broker.port), &[]);
    broker.signal(Signal::SIGCONT);
    assert_eq!(checked.code, 1);
    assert!(checked.line.contains("no CONNACK"), "{}", checked.line);
    assert!(checked.took < DEADLINE, "{:?}", checked.took);
    assert_eq!(check(Some(broker.port), &[]).code, 0);
}

#[test]
fn a_port_without_a_listener_is_named() {
    let port = free_port();
    let checked = check(Some(port), &[]);
    assert_eq!((checked.code, checked.line), (1, format!("unhealthy: port {port}: Connection refused\n")));
}

#[test]
fn somebody_elses_protocol_is_not_healthy() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        use std::io::Write as _;
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let checked = check(Some(port), &[]);
    assert_eq!(checked.code, 1);
    assert!(checked.line.contains("does not speak MQTT"), "{}", checked.line);
}

#[test]
fn variables_that_are_off_are_named() {
    for (name, value) in [("HEALTHCHECK_PORT", "mqtt"), ("HEALTHCHECK_TOPIC", "a/#")] {
        let checked = check(None, &[(name, value)]);
        assert_eq!(checked.code, 1);
        assert!(checked.line.starts_with(&format!("unhealthy: {name}={value} ")), "{}", checked.line);
    }
}

#[test]
fn a_supervised_broker_that_wants_a_password_is_healthy_without_one() {
    let folder = folder_with_password();
    let port = free_port().to_string();
    let place = folder.path().display().to_string();
    let conf = format!("{PASSWORD}acl_file {{folder}}/acl\n").replace("{port}", &port).replace("{folder}", &place);
    let conf = folder.write("mosquitto.conf", conf);
    let run_folder = folder.path().join("run");
    let mut supervisor = Command::new(darner())
        .args(["supervise", "-c"])
        .arg(conf)
        .env("DARNER_RUN_DIR", &run_folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the supervisor starts");
    wait_until("the supervised broker", || TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    let run_folder = run_folder.display().to_string();
    let run_folder = ("DARNER_RUN_DIR", run_folder.as_str());
    let healthy = check(None, &[run_folder]);
    let refused = check(port.parse().ok(), &[run_folder]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor.id() as i32), Signal::SIGTERM).expect("it is there");
    assert!(supervisor.wait().expect("it ends").success());
    assert_eq!(healthy.code, 0, "{}", healthy.line);
    assert_eq!(refused.line, format!("unhealthy: port {port}: Connection Refused: not authorised.\n"));
}

#[test]
fn without_credentials_the_private_socket_proves_the_round_trip() {
    let folder = folder_with_password();
    let run_folder = folder.path().display().to_string();
    // Debian's broker stands in for ours: a listener for strangers, and one on the socket's path that trusts.
    let conf = format!("per_listener_settings true\n{PASSWORD}listener 0 {{folder}}/health.sock\nallow_anonymous true\n");
    let peer = Peer::start_in(folder, &conf);
    if TcpListener::bind("127.0.0.1:1883").is_err() {
        // The check asks port 1883 first when nothing is set; on a machine with a broker there, it is that one's health.
        return;
    }
    let run_folder = ("DARNER_RUN_DIR", run_folder.as_str());
    let checked = check(None, &[run_folder]);
    assert_eq!((checked.code, checked.line.as_str()), (0, "healthy: round trip through the private socket\n"));
    // Whoever says how to reach the broker wants to know whether that works.
    assert_eq!(check(Some(peer.port), &[run_folder]).code, 1);
    assert_eq!(check(None, &[run_folder, ("HEALTHCHECK_USER", "hello")]).code, 1);
}
