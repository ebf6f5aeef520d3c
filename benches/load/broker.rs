//! A broker under load: started on its own core, its CPU time and memory read from /proc.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

const BROKER_CORE: usize = 0;
pub const LOAD_CORE: usize = 1;

/// Pins a process (0: this one) to a core, where there are two.
pub fn pin(pid: i32, core: usize) {
    let mut cores = CpuSet::new();
    if cores.set(core).is_ok() {
        let _ = sched_setaffinity(Pid::from_raw(pid), &cores);
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

pub struct Broker {
    pub port: u16,
    child: Child,
    conf: PathBuf,
    /// Where it keeps its state.
    location: Option<PathBuf>,
}

impl Broker {
    /// Ours, and mosquitto where it is installed.
    pub fn installed() -> Vec<(&'static str, Vec<String>)> {
        let mut brokers = vec![("darner", vec![env!("CARGO_BIN_EXE_darner").to_owned(), "broker".to_owned()])];
        let mosquitto =
            ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"].into_iter().find(|path| std::fs::exists(path).unwrap_or(false));
        match mosquitto {
            Some(path) => brokers.push(("mosquitto", vec![path.to_owned()])),
            None => eprintln!("mosquitto is not installed: darner runs alone."),
        }
        brokers
    }

    pub fn start(program: &[String]) -> Self {
        Self::start_with(program, false)
    }

    /// `kept`: with `persistence true`, in a folder of its own.
    pub fn start_with(program: &[String], kept: bool) -> Self {
        let location = kept.then(|| std::env::temp_dir().join(format!("darner-bench-kept-{}", std::process::id())));
        Self::start_at(program, location, None)
    }

    /// With `persistence true`, in a folder that goes at the end; `durability` for darner.
    pub fn start_at(program: &[String], location: Option<PathBuf>, durability: Option<&str>) -> Self {
        let port = free_port();
        let conf = std::env::temp_dir().join(format!("darner-bench-{}-{port}.conf", std::process::id()));
        let mut text = format!("listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nlog_dest none\n");
        if let Some(folder) = &location {
            std::fs::create_dir_all(folder).expect("a folder");
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).expect("ours");
            text += &format!("persistence true\npersistence_location {}/\n", folder.display());
        }
        std::fs::write(&conf, text).expect("a configuration");
        Self::spawn(program, (port, conf, location), durability)
    }

    /// With a configuration of the caller's, for which there is a folder.
    pub fn configured(program: &[String], configuration: impl FnOnce(&Path, u16) -> String) -> Self {
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("darner-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let conf = folder.join("mosquitto.conf");
        std::fs::write(&conf, configuration(&folder, port)).expect("a configuration");
        Self::spawn(program, (port, conf, Some(folder)), None)
    }

    fn spawn(program: &[String], (port, conf, location): (u16, PathBuf, Option<PathBuf>), durability: Option<&str>) -> Self {
        let child = run(program, &conf, durability);
        let broker = Self { port, child, conf, location };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return broker;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} does not listen", program[0]);
    }

    /// Where the files of its configuration are, for one that was `configured`.
    pub fn folder(&self) -> &Path {
        self.location.as_deref().unwrap_or(Path::new("."))
    }

    /// SIGTERM, and its end. What it keeps stays.
    pub fn end(&mut self) {
        nix::sys::signal::kill(Pid::from_raw(self.pid()), nix::sys::signal::Signal::SIGTERM).expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// After [`Self::end`], on what it kept; whether it listens yet is for the caller to see.
    pub fn begin_again(&mut self, program: &[String]) {
        self.child = run(program, &self.conf, None);
    }

    /// Of the largest file that it keeps.
    pub fn kept_bytes(&self) -> u64 {
        let files = self.location.iter().flat_map(|folder| std::fs::read_dir(folder).expect("a folder")).flatten();
        files.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or_default()
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Bytes handed to `write`, sockets included.
    pub fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.child.id())).expect("the broker runs");
        io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).expect("wchar")
    }

    /// Seconds that its threads have run.
    pub fn cpu_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("the broker runs");
        let nanoseconds = tasks.flatten().filter_map(|task| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        nanoseconds.sum::<u64>() as f64 / 1e9
    }

    pub fn rss_kib(&self) -> f64 {
        self.status("VmRSS:")
    }

    pub fn peak_kib(&self) -> f64 {
        self.status("VmHWM:")
    }

    fn status(&self, name: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the broker runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

fn run(program: &[String], conf: &Path, durability: Option<&str>) -> Child {
    let child = Command::new(&program[0])
        .args(&program[1..])
        .arg("-c")
        .arg(conf)
        .envs(durability.map(|level| ("DARNER_DURABILITY", level)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the broker starts");
    pin(child.id() as i32, BROKER_CORE);
    child
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.conf);
        if let Some(folder) = &self.location {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
