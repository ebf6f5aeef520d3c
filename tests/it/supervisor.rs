//! The supervisor over the real broker.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::broker::client::Client;
use crate::engine::stop_router;
use crate::support::process::{Folder, darner, free_port, run, wait_until};

/// `darner supervise -c CONF`. `{port}` and `{folder}` in the configuration are replaced.
struct Supervised {
    port: u16,
    folder: Folder,
    child: Child,
}

impl Supervised {
    fn start(conf: &str) -> Self {
        Self::start_with(conf, |_| {})
    }

    fn start_with(conf: &str, change: impl FnOnce(&mut Command)) -> Self {
        let supervised = Self::begin(conf, change);
        wait_until("an answer of the broker", || answers(supervised.port));
        supervised
    }

    /// Does not wait.
    fn begin(conf: &str, change: impl FnOnce(&mut Command)) -> Self {
        let folder = Folder::new("supervised");
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).expect("permissions");
        let port = free_port();
        let conf = folder.write("mosquitto.conf", replace(conf, port, folder.path()));
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(darner());
        command.arg("supervise").arg("-c").arg(conf).env("DARNER_RUN_DIR", folder.path().join("run"));
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        change(&mut command);
        let child = command.spawn().expect("it starts");
        Self { port, folder, child }
    }

    fn write_conf(&self, conf: &str) {
        self.folder.write("mosquitto.conf", replace(conf, self.port, self.folder.path()));
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The running broker's pid, if there is one.
    fn broker(&self) -> Option<Pid> {
        let pid = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok().map(Pid::from_raw)
    }

    /// Kills the broker as the kernel would, and waits for the next one.
    fn crash(&self) {
        let old = self.broker().expect("a broker");
        kill(old, Signal::SIGKILL).expect("it is there");
        wait_until("another broker", || self.broker().is_some_and(|new| new != old));
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// `darner WORD`: exit code, stdout, stderr.
    fn ask(&self, word: &str) -> (i32, String, String) {
        run(Command::new(darner()).arg(word).env("DARNER_RUN_DIR", self.folder.path().join("run")))
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it is there");
    }

    fn end(&mut self) -> i32 {
        let mut code = None;
        wait_until("its end", || {
            code = self.child.try_wait().expect("its status");
            code.is_some()
        });
        code.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

fn replace(conf: &str, port: u16, folder: &Path) -> String {
    conf.replace("{port}", &port.to_string()).replace("{folder}", &folder.display().to_string())
}

/// Sends CONNECT with MQTT 3.1.1, maybe with user and password `u`, and returns CONNACK's return code.
fn connect(port: u16, credentials: bool) -> Option<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let packet: &[u8] =
        if credentials { b"\x10\x12\0\x04MQTT\x04\xc2\0\x3c\0\0\0\x01u\0\x01u" } else { b"\x10\x0c\0\x04MQTT\x04\x02\0\x3c\0\0" };
    stream.write_all(packet).ok()?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok()?;
    Some(answer[3])
}

fn answers(port: u16) -> bool {
    connect(port, false).is_some()
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn status_line(pid: Pid, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim_start_matches(':').trim().to_owned()
}

const OPEN: &str = "listener {port} 127.0.0.1\nallow_anonymous true\n";

#[test]
fn a_crashed_broker_is_replaced_and_no_connection_is_refused() {
    let supervised = Supervised::start(OPEN);
    let port = supervised.port;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let knocking = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut refused = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                refused += i32::from(TcpStream::connect(("127.0.0.1", port)).is_err());
                std::thread::sleep(Duration::from_millis(1));
            }
            refused
        }
    });
    for _ in 0..3 {
        supervised.crash();
        wait_until("an answer", || answers(port));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(knocking.join().expect("the other thread"), 0);
    assert!(supervised.log().contains("The broker ended with signal 9 (SIGKILL); restarting it now."), "{}", supervised.log());
    assert!(supervised.ask("status").1.contains("restarts  3"));
}

#[test]
fn a_broker_that_keeps_dying_is_given_up_with_its_exit_code() {
    let mut supervised = Supervised::start(OPEN);
    for _ in 0..4 {
        supervised.crash();
    }
    kill(supervised.broker().expect("a broker"), Signal::SIGKILL).expect("it is there");
    assert_eq!(supervised.end(), 137);
    assert!(supervised.log().contains("giving up with its exit code"), "{}", supervised.log());
}

#[test]
fn a_broker_that_somebody_ends_is_replaced_too() {
    let supervised = Supervised::start(OPEN);
    let old = supervised.broker().expect("a broker");
    kill(old, Signal::SIGTERM).expect("it is there");
    wait_until("another broker", || supervised.broker().is_some_and(|new| new != old) && answers(supervised.port));
}

#[test]
fn a_stop_is_orderly_and_successful() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut supervised = Supervised::start(OPEN);
        let broker = supervised.broker().expect("a broker");
        supervised.signal(signal);
        assert_eq!(supervised.end(), 0, "{signal}: {}", supervised.log());
        assert!(!Path::new(&format!("/proc/{broker}")).exists());
        assert!(supervised.log().contains("terminating"), "{signal}: {}", supervised.log());
        assert!(TcpStream::connect(("127.0.0.1", supervised.port)).is_err(), "nobody listens any more");
        assert!(!supervised.folder.path().join("run/control.sock").exists());
    }
}

#[test]
fn a_stop_while_it_starts_is_heard() {
    for delay in 0..=20 {
        let mut supervised = Supervised::begin(OPEN, |_| {});
        std::thread::sleep(Duration::from_millis(delay));
        supervised.signal(Signal::SIGTERM);
        let code = supervised.end();
        // -1: the signal came before our first statement and ended the process itself.
        assert!(code == 0 || code == -1, "after {delay} ms: {code}");
    }
}

#[test]
fn a_reload_is_all_or_nothing_and_says_which() {
    let supervised = Supervised::start(OPEN);
    supervised.write_conf("listener {port} 127.0.0.1\nallow_anonymous false\n");
    let (code, out, _) = supervised.ask("reload");
    assert!(code == 0 && out.contains("Reload done"), "{code} {out} {}", supervised.log());
    assert_eq!(connect(supervised.port, false), Some(5), "anonymous clients are refused now");

    supervised.write_conf("listener {port} 127.0.0.1\nallow_anonymous true\nallow_anonymus true\npassword_fil x\npersistence true\n");
    let (code, _, error) = supervised.ask("reload");
    assert_eq!(code, 1);
    for part in ["Reload refused", "mosquitto.conf:3", "mosquitto.conf:4"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert!(!error.contains("persistence"), "a warning is no reason: {error}");
    assert_eq!(connect(supervised.port, false), Some(5), "the old configuration stays");
    let (_, status, _) = supervised.ask("status");
    assert!(status.contains("Reload refused"), "{status}");
    // A crash does not bring the refused configuration in.
    supervised.crash();
    wait_until("an answer", || answers(supervised.port));
    assert_eq!(connect(supervised.port, false), Some(5));
}

/// A broker that was broken into may put pipes in the place of its own files: whoever reads such a file waits for bytes that never come.
#[test]
fn a_pipe_in_the_place_of_a_file_is_refused_and_stops_nobody() {
    let mut supervised = Supervised::start_with("listener {port} 127.0.0.1\npassword_file {folder}/passwd\n", |command| {
        let folder = command.get_args().last().and_then(|conf| Path::new(conf).parent()).expect("its folder").to_owned();
        std::fs::write(folder.join("passwd"), "").expect("a password file");
    });
    let passwd = supervised.folder.path().join("passwd");
    std::fs::remove_file(&passwd).expect("it was there");
    nix::unistd::mkfifo(&passwd, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let (code, _, error) = supervised.ask("reload");
    assert!(code == 1 && error.contains("Reload refused"), "{code} {error}\n{}", supervised.log());
    // Somebody holds it open, and says nothing.
    let _silent = std::fs::File::options().read(true).write(true).open(&passwd).expect("both ends");
    let (code, _, error) = supervised.ask("reload");
    assert!(code == 1 && error.contains("Reload refused"), "{code} {error}\n{}", supervised.log());
    assert!(answers(supervised.port));
    kill(supervised.pid(), Signal::SIGTERM).expect("it is there");
    assert_eq!(supervised.end(), 0);
}

#[test]
fn an_unusable_configuration_is_told_as_mosquitto_tells_it() {
    let mut supervised = Supervised::begin("listener {port} 127.0.0.1\npersistence true\nlistner 1\n", |_| {});
    assert_eq!(supervised.child.wait().expect("its end").code(), Some(3));
    let log = supervised.log();
    for part in [": Error: Unknown configuration variable 'listner'. ", "mosquitto.conf:3.\n", "not started (exit code 3)"] {
        assert!(log.contains(part), "{part} in {log}");
    }
}

#[test]
fn the_broker_goes_by_mosquittos_name() {
    let supervised = Supervised::start(OPEN);
    let broker = supervised.broker().expect("a broker");
    assert_eq!(std::fs::read_to_string(format!("/proc/{broker}/comm")).expect("its name"), "mosquitto\n");
}

#[test]
fn hup_reloads_and_logs_the_verdict() {
    let supervised = Supervised::start(OPEN);
    supervised.signal(Signal::SIGHUP);
    wait_until("the verdict", || supervised.log().contains("Reload done"));
    supervised.write_conf("nonsense\n");
    wait_until("the refusal", || {
        supervised.signal(Signal::SIGHUP);
        supervised.log().contains("Reload refused, the old configuration stays")
    });
    assert!(answers(supervised.port));
}

#[test]
fn a_reload_that_is_asked_for_while_the_broker_restarts_comes_after() {
    let supervised = Supervised::start(OPEN);
    // Who does not read is waited for at the end.
    let mut slow = Client::connect(supervised.port, "slow");
    slow.subscribe("a");
    let mut publisher = Client::connect(supervised.port, "publisher");
    for _ in 0..16 {
        publisher.publish("a", &vec![b'x'; 1 << 20]);
    }
    let (restart, reload) = std::thread::scope(|scope| {
        let restart = scope.spawn(|| supervised.ask("restart"));
        wait_until("the restart", || supervised.log().contains("Restarting the broker."));
        let reload = scope.spawn(|| supervised.ask("reload"));
        (restart.join().expect("an answer"), reload.join().expect("an answer"))
    });
    assert_eq!(restart.0, 0, "{restart:?}");
    assert!(reload.0 == 0 && reload.1.contains("Reload done"), "{reload:?}\n{}", supervised.log());
    assert!(answers(supervised.port));
}

#[test]
fn a_storm_of_hups_is_a_few_reloads() {
    let supervised = Supervised::start(OPEN);
    let began = std::time::Instant::now();
    for _ in 0..1000 {
        supervised.signal(Signal::SIGHUP);
    }
    wait_until("a reload", || supervised.log().contains("Reload done"));
    let possible = 2 + began.elapsed().as_secs() as usize;
    assert!(supervised.log().matches("Reload done").count() <= possible, "{}", supervised.log());
}

#[test]
fn secrets_that_only_root_reads_reach_the_broker_also_at_reload() {
    let conf = "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\n";
    let supervised = Supervised::start_with(conf, |command| {
        let folder = PathBuf::from(command.get_envs().find(|(name, _)| *name == "DARNER_RUN_DIR").and_then(|(_, v)| v).expect("a folder"));
        let passwords = folder.parent().expect("a folder").join("passwords");
        std::fs::write(&passwords, "").expect("written");
        std::fs::set_permissions(&passwords, PermissionsExt::from_mode(0o600)).expect("permissions");
    });
    assert_eq!(connect(supervised.port, true), Some(5));
    let passwords = supervised.folder.path().join("passwords");
    assert_eq!(run(Command::new(darner()).args(["mosquitto_passwd", "-b"]).arg(&passwords).args(["u", "u"])).0, 0);
    std::fs::set_permissions(&passwords, PermissionsExt::from_mode(0o600)).expect("permissions");
    if is_root() {
        nix::unistd::chown(&passwords, Some(0.into()), Some(0.into())).expect("root's");
    }
    assert_eq!(supervised.ask("reload").0, 0, "{}", supervised.log());
    assert_eq!(connect(supervised.port, true), Some(0), "{}", supervised.log());
}

#[test]
fn restart_follows_changed_listeners_and_refuses_what_cannot_work() {
    let supervised = Supervised::start(OPEN);
    let second = free_port();
    supervised.write_conf(&format!("{OPEN}listener {second} 127.0.0.1\n"));
    let (_, out, error) = supervised.ask("reload");
    assert!(format!("{out}{error}").contains("darner restart"), "{out} {error}");
    let old = supervised.broker();
    let (code, out, error) = supervised.ask("restart");
    assert_eq!((code, out.trim()), (0, "Restarted: the broker is ready."), "{error} {}", supervised.log());
    assert_ne!(supervised.broker(), old);
    assert!(answers(second) && answers(supervised.port));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its port").port();
    supervised.write_conf(&format!("{OPEN}listener {port} 127.0.0.1\n"));
    let (code, _, error) = supervised.ask("restart");
    assert!(code == 1 && error.contains("Address already in use") && error.contains(&port.to_string()), "{error}");
    supervised.write_conf("nonsense\n");
    let (code, _, error) = supervised.ask("restart");
    assert!(code == 1 && error.contains("Restart refused, the broker runs on"), "{error}");
    assert!(answers(second) && answers(supervised.port));
}

#[test]
fn what_cannot_start_ends_once_with_mosquittos_code() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its port").port();
    let cases = [
        ("nonsense\n".to_owned(), 3, "Unknown configuration variable 'nonsense'"),
        ("listener {port}\nallow_anonymous false\npassword_file {folder}/none\n".to_owned(), 13, "Unable to open pwfile"),
        (format!("listener {port} 127.0.0.1\n"), 1, "Address already in use"),
    ];
    for (conf, code, text) in cases {
        let mut supervised = Supervised::begin(&conf, |_| {});
        assert_eq!(supervised.end(), code, "{}", supervised.log());
        assert_eq!(supervised.log().matches(text).count(), 1, "{text} once in {}", supervised.log());
    }
    let (code, out, error) = run(Command::new(darner()).args(["supervise", "-c", "/no/such.conf"]));
    assert!(code == 3 && format!("{out}{error}").contains("/no/such.conf"), "{code} {out} {error}");
}

#[test]
fn a_frozen_broker_is_replaced() {
    let supervised = Supervised::start_with(OPEN, |command| {
        command.env("DARNER_WATCHDOG_SECS", "1");
    });
    let old = supervised.broker().expect("a broker");
    kill(old, Signal::SIGSTOP).expect("it is there");
    wait_until("another broker", || supervised.broker().is_some_and(|new| new != old) && answers(supervised.port));
    assert!(supervised.log().contains("gives no sign of life"), "{}", supervised.log());
}

#[test]
fn a_frozen_broker_does_not_keep_us_from_stopping() {
    let mut supervised = Supervised::start(OPEN);
    kill(supervised.broker().expect("a broker"), Signal::SIGSTOP).expect("it is there");
    supervised.signal(Signal::SIGTERM);
    assert_eq!(supervised.end(), 0);
}

#[test]
fn the_broker_has_no_rights() {
    if !is_root() {
        return eprintln!("skipped: not root");
    }
    let supervised = Supervised::start(OPEN);
    let broker = supervised.broker().expect("a broker");
    let uids: Vec<_> = status_line(broker, "Uid").split_ascii_whitespace().map(str::to_owned).collect();
    assert!(uids.iter().all(|uid| *uid == uids[0] && uid != "0"), "{uids:?}");
    assert_eq!(status_line(broker, "CapEff"), "0000000000000000");
    assert_eq!(status_line(broker, "CapPrm"), "0000000000000000");
    assert_eq!(status_line(broker, "NoNewPrivs"), "1");
    assert!(!status_line(broker, "Groups").split(' ').any(|group| group == "0"));
    let adj = std::fs::read_to_string(format!("/proc/{broker}/oom_score_adj")).expect("its score");
    assert_eq!(adj.trim(), "500");
    // PUID and PGID choose who it is.
    let supervised = Supervised::start_with(OPEN, |command| {
        command.env("PUID", "4321").env("PGID", "8765");
    });
    let broker = supervised.broker().expect("a broker");
    assert!(status_line(broker, "Uid").starts_with("4321") && status_line(broker, "Gid").starts_with("8765"));
}

#[test]
fn any_uid_can_supervise() {
    if !is_root() {
        return eprintln!("skipped: every other test here is it");
    }
    // The binary may lie where only root looks.
    let copy = std::env::temp_dir().join(format!("darner-any-uid-{}", std::process::id()));
    std::fs::copy(darner(), &copy).expect("a copy");
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("permissions");
    let folder = Folder::new("any-uid");
    nix::unistd::chown(folder.path(), Some(54321.into()), Some(0.into())).expect("its folder");
    let port = free_port();
    let conf = folder.write("mosquitto.conf", replace(OPEN, port, folder.path()));
    let mut command = Command::new(&copy);
    command.arg("supervise").arg("-c").arg(conf).env("DARNER_RUN_DIR", folder.path()).uid(54321).gid(0).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    wait_until("an answer of the broker", || answers(port));
    // Root may ask, and so may that user.
    assert_eq!(run(Command::new(&copy).arg("reload").env("DARNER_RUN_DIR", folder.path())).0, 0);
    assert_eq!(run(Command::new(&copy).arg("status").env("DARNER_RUN_DIR", folder.path()).uid(54321).gid(0)).0, 0);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it is there");
    assert_eq!(child.wait().expect("its end").code(), Some(0));
    let _ = std::fs::remove_file(copy);
}

#[test]
fn asking_nobody_says_what_to_do() {
    let folder = Folder::new("nobody");
    for word in ["reload", "restart", "status"] {
        let (code, _, error) = run(Command::new(darner()).arg(word).env("DARNER_RUN_DIR", folder.path()));
        assert!(code == 1 && error.contains("no supervisor answers here") && error.contains("docker exec"), "{word}: {code} {error}");
    }
}

#[test]
fn askers_who_say_nothing_or_nonsense_do_not_hold_up_others() {
    let supervised = Supervised::start(OPEN);
    let socket = supervised.folder.path().join("run/control.sock");
    let _silent: Vec<_> = (0..8).map(|_| std::os::unix::net::UnixStream::connect(&socket).expect("connected")).collect();
    let mut noisy = std::os::unix::net::UnixStream::connect(&socket).expect("connected");
    noisy.write_all(&[b'x'; 4096]).expect("written");
    let mut strange = std::os::unix::net::UnixStream::connect(&socket).expect("connected");
    strange.write_all(b"frobnicate\n").expect("written");
    let mut answer = String::new();
    strange.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "64\nunknown request\n");
    assert_eq!(supervised.ask("status").0, 0);
}

#[test]
fn the_entrypoint_runs_any_other_command_as_it_is() {
    let entry = |words: &[&str]| run(Command::new(darner()).arg("run").args(words));
    assert_eq!(entry(&["sh", "-c", "echo out; exit 5"]).0, 5);
    assert_eq!(entry(&["/no/such"]).0, 127);
    assert_eq!(entry(&["/etc/passwd"]).0, 126);
    assert_eq!(entry(&["grep", "SigBlk", "/proc/self/status"]).1.split_ascii_whitespace().nth(1), Some("0000000000000000"));
    // By its name in the image, with a tool of the image.
    let folder = Folder::new("entrypoint");
    let link = folder.path().join("docker-entrypoint.sh");
    std::os::unix::fs::symlink(darner(), &link).expect("a link");
    let tool = folder.path().join("mosquitto_passwd");
    std::os::unix::fs::symlink(darner(), &tool).expect("a link");
    let passwords = folder.path().join("passwords");
    let (code, _, error) = run(Command::new(&link).arg(&tool).arg("-c").arg("-b").arg(&passwords).args(["u", "p"]));
    assert_eq!(code, 0, "{error}");
    assert!(std::fs::read_to_string(passwords).expect("written").starts_with("u:$"));
    // mosquitto's own questions are answered, not supervised.
    let (code, out, _) = run(Command::new(&link).args(["/usr/sbin/mosquitto", "--version"]));
    assert!(code == 0 && out.starts_with("mosquitto "), "{code} {out}");
    assert_eq!(run(Command::new(&link).args(["-c", "/no/such.conf"])).0, 3);
}

#[test]
fn words_are_explained() {
    let (code, out, _) = run(Command::new(darner()).arg("--help"));
    assert!(code == 0 && ["reload", "status", "init", "healthcheck"].iter().all(|word| out.contains(word)), "{out}");
    assert!(run(Command::new(darner()).arg("--version")).1.starts_with("darner "));
    let (code, _, error) = run(Command::new(darner()).arg("frobnicate"));
    assert!(code == 64 && error.contains("frobnicate"), "{error}");
}

#[test]
fn a_broker_whose_router_stands_still_is_started_again() {
    let supervised = Supervised::start_with("listener {port}\nallow_anonymous true\nuser root\n", |command| {
        command.env("DARNER_ENGINE", "rumqttd");
    });
    let old = supervised.broker().expect("a broker");
    let mut client = Client::connect(supervised.port, "c");
    client.subscribe("a");
    let router = stop_router(old.as_raw());
    client.publish("a", b"1");
    client.socket.set_read_timeout(Some(Duration::from_secs(60))).expect("patience");
    client.wait_for_end();
    let _ = waitpid(router, Some(WaitPidFlag::__WALL));
    wait_until("another broker", || supervised.broker().is_some_and(|new| new != old) && answers(supervised.port));
    let mut client = Client::connect(supervised.port, "c");
    client.subscribe("a");
    client.publish("a", b"2");
    assert_eq!(client.receive_payload(), b"2");
    assert!(supervised.log().contains("75"), "{}", supervised.log());
}

#[test]
fn status_names_what_one_looks_for() {
    let supervised = Supervised::start(OPEN);
    let (code, out, _) = supervised.ask("status");
    assert_eq!(code, 0);
    let broker = supervised.broker().expect("a broker").to_string();
    for part in ["phase     ready", &format!("pid {broker}"), &format!("127.0.0.1:{}", supervised.port), "mosquitto.conf", "restarts  0"] {
        assert!(out.contains(part), "{part} in {out}");
    }
}
