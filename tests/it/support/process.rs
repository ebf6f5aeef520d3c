//! The real binary as a child process: started with a configuration, waited for by its port, stopped by its own id.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub fn darner() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_darner"))
}

/// A port that was free a moment ago. None is given twice in one run, and the kernel gives none of them to outgoing connections, so that
/// it is still free when a test comes to use it.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    const RANGE: std::ops::Range<u32> = 20_000..32_000;
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let next = || RANGE.start + first.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % (RANGE.end - RANGE.start);
    let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
    (0..RANGE.len()).map(|_| next() as u16).find(free).expect("a free port")
}

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Core,
    Rumqttd,
}

impl Engine {
    pub const BOTH: [Self; 2] = [Self::Core, Self::Rumqttd];

    /// darner.toml for this engine.
    pub fn toml(self) -> &'static str {
        match self {
            Self::Core => "engine = \"core\"\n",
            Self::Rumqttd => "engine = \"rumqttd\"\n[rumqttd]\naccept_limits = true\n",
        }
    }

    /// Options of `docker run`, with darner.toml in this folder.
    pub fn options(self, folder: &Folder) -> [String; 4] {
        self.choose(folder);
        let mount = format!("{}/darner.toml:/darner.toml:ro", folder.path().display());
        ["-v".into(), mount, "-e".into(), "DARNER_CONFIG=/darner.toml".into()]
    }

    /// For a broker whose mosquitto.conf is in this folder.
    pub fn choose(self, folder: &Folder) {
        folder.write("darner.toml", self.toml());
    }
}

/// A fresh folder for one test, removed when dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!("darner-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir_all(&path).expect("a folder for the test");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// `mosquitto -c CONF` running alone, without a supervisor. `{port}` in the configuration is replaced by a free port.
pub struct Broker {
    pub port: u16,
    pub folder: Folder,
    child: Child,
}

impl Broker {
    pub fn start(conf: &str) -> Self {
        Self::start_in(Folder::new("broker"), conf)
    }

    pub fn start_in(folder: Folder, conf: &str) -> Self {
        Self::start_within(&[], folder, conf)
    }

    /// `words`: what the command line begins with, a program that becomes the broker.
    pub fn start_within(words: &[String], folder: Folder, conf: &str) -> Self {
        let mut command = Command::new(words.first().map_or_else(darner, PathBuf::from));
        if !words.is_empty() {
            command.args(&words[1..]).arg(darner());
        }
        Self::start_with(command, folder, conf)
    }

    /// `command`: what becomes the broker once it has `broker -c CONF` for arguments.
    pub fn start_with(mut command: Command, folder: Folder, conf: &str) -> Self {
        let port = free_port();
        let conf = conf.replace("{port}", &port.to_string()).replace("{folder}", &folder.path().display().to_string());
        let conf = folder.write("mosquitto.conf", conf);
        let log = std::fs::File::create(folder.path().join("stderr")).expect("a log");
        let child = command
            .args(["broker", "-c"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the broker starts");
        let broker = Self { port, folder, child };
        broker.wait_until_listening();
        broker
    }

    fn wait_until_listening(&self) {
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "the broker does not listen:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        if let Ok(mut file) = std::fs::File::open(self.folder.path().join("stderr")) {
            let _ = file.read_to_string(&mut text);
        }
        text
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("{text:?} in the log"), || self.log().contains(text));
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.pid()), signal).expect("the broker is there");
    }

    /// SIGTERM, then the exit code.
    pub fn stop(mut self) -> i32 {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().expect("the broker ends").code().unwrap_or(-1)
    }

    pub fn exit_code(&mut self) -> i32 {
        self.child.wait().expect("the broker ends").code().unwrap_or(-1)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls a condition for at most 10 s.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a command to its end and returns (exit code, stdout, stderr).
pub fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("the command runs");
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}
