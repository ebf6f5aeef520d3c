//! The real image in real containers: the `docker` and `docker-compose` commands that users type.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::process::{Engine, Folder, run};

/// What a command ended with.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Both outputs, for a look at what was said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The standard output of a success.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.said());
        self.stdout
    }
}

fn command(program: &str, folder: &Path, arguments: &[&str]) -> Ended {
    let (code, stdout, stderr) = run(Command::new(program).args(arguments).current_dir(folder));
    Ended { code, stdout, stderr }
}

pub fn docker(arguments: &[&str]) -> Ended {
    command("docker", Path::new("/"), arguments)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The image built from the real Dockerfile, once per run. `None`, loudly, where there is no Docker outside CI.
pub fn image() -> Option<&'static str> {
    static IMAGE: OnceLock<Option<String>> = OnceLock::new();
    IMAGE.get_or_init(build).as_deref()
}

fn build() -> Option<String> {
    let answers = Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success());
    if !answers {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no Docker daemon answers, and in CI the tests with Docker must run");
        eprintln!("skipped: no Docker daemon answers (make test starts one)");
        return None;
    }
    // One tag per checkout, so that two checkouts on a machine don't test each other's image.
    let checkout = root()
        .to_string_lossy()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let tag = format!("darner-it-{checkout:016x}");
    let built = command("docker", root(), &["build", "-q", "-t", &tag, "."]);
    assert_eq!(built.code, 0, "the image builds: {}", built.said());
    Some(tag)
}

/// A name that no other container or project of this machine has.
pub fn unique(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("darner-{what}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A container, removed with its anonymous volumes when dropped.
pub struct Container {
    pub name: String,
}

impl Container {
    /// `docker run -d OPTIONS IMAGE COMMAND`.
    #[track_caller]
    pub fn start(image: &str, options: &[&str], command: &[&str]) -> Self {
        let container = Self { name: unique("c") };
        let mut arguments = vec!["run", "-d", "--name", &container.name];
        arguments.extend(options);
        arguments.push(image);
        arguments.extend(command);
        let started = docker(&arguments);
        assert_eq!(started.code, 0, "docker {arguments:?}: {}", started.said());
        container
    }

    /// A container that compose made.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub fn exec(&self, command: &[&str]) -> Ended {
        let mut arguments = vec!["exec", &self.name];
        arguments.extend(command);
        docker(&arguments)
    }

    pub fn exec_with(&self, options: &[&str], command: &[&str]) -> Ended {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.push(&self.name);
        arguments.extend(command);
        docker(&arguments)
    }

    pub fn logs(&self) -> String {
        docker(&["logs", &self.name]).said()
    }

    pub fn inspect(&self, format: &str) -> String {
        docker(&["inspect", "--format", format, &self.name]).stdout.trim().to_owned()
    }

    pub fn running(&self) -> bool {
        self.inspect("{{.State.Running}}") == "true"
    }

    /// The port of this machine that leads to 1883 (`-p 127.0.0.1::1883`).
    pub fn port(&self) -> String {
        let shown = docker(&["port", &self.name, "1883/tcp"]).ok();
        shown.lines().next().and_then(|line| line.rsplit(':').next()).expect("a published port").trim().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        wait_for(what, || format!("{}\n{}", self.inspect("{{json .State}}"), self.logs()), condition);
    }

    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        self.wait_for(&format!("{text:?} in the log"), || self.logs().contains(text));
    }

    /// Waits until a client in the container can publish, on a listener that asks for no password.
    #[track_caller]
    pub fn wait_until_answering(&self) {
        self.wait_for("an answer of the broker", || self.exec(&["mosquitto_pub", "-t", "answers", "-m", "yes"]).code == 0);
    }

    /// Waits until the container has ended and returns its exit code.
    #[track_caller]
    pub fn wait_until_ended(&self) -> String {
        self.wait_for("the end of the container", || !self.running());
        self.inspect("{{.State.ExitCode}}")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        docker(&["rm", "-f", "-v", &self.name]);
    }
}

/// Polls for at most a minute: containers start slowly while the other tests run.
#[track_caller]
pub fn wait_for(what: &str, state: impl Fn() -> String, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}; now: {}", state());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A copy of one of `compose-examples`, under a project and container name and on a port of its own.
pub struct Project {
    pub folder: Folder,
    pub container: Container,
    name: String,
}

impl Project {
    /// `service` is the example's container name.
    pub fn copy(image: &str, example: &str, service: &str) -> Self {
        let folder = Folder::new(example);
        copy_tree(&root().join("compose-examples").join(example), folder.path());
        let name = unique(example);
        let project = Self { container: Container::named(&format!("{name}-{service}")), folder, name };
        let file = project.path("docker-compose.yml");
        let mut text = std::fs::read_to_string(&file).expect("the example's compose file");
        let built_here = "    build: ../..\n    image: darner\n";
        for (from, to) in [
            (built_here, format!("    image: {image}\n")),
            (&*format!("container_name: {service}\n"), format!("container_name: {}\n", project.container.name)),
        ] {
            assert!(text.contains(from), "{example} holds {from:?}");
            text = text.replace(from, &to);
        }
        let text: String = text.lines().map(|line| on_a_free_port(line) + "\n").collect();
        assert!(text.contains("\"127.0.0.1::1883\""), "{example} publishes 1883");
        std::fs::write(&file, text).expect("the copy is ours");
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compose reads this beside the example's own file, which stays as its users have it.
    pub fn choose(&self, engine: Engine, service: &str) {
        engine.choose(&self.folder);
        let text = format!(
            "version: \"2.4\"\nservices:\n  {service}:\n    environment:\n      - DARNER_CONFIG=/darner.toml\n    volumes:\n      - ./darner.toml:/darner.toml:ro\n"
        );
        self.folder.write("docker-compose.override.yml", text);
    }

    /// Replaces a part of a file, which has to be there.
    #[track_caller]
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.path(name)).expect("the file");
        assert!(text.contains(from), "{name} holds {from:?}:\n{text}");
        std::fs::write(self.path(name), text.replace(from, to)).expect("the file is writable");
    }

    pub fn compose(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["-p", &self.name];
        all.extend(arguments);
        command("docker-compose", self.folder.path(), &all)
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.compose(&["down", "-v", "-t", "3"]);
    }
}

/// A line of a compose file; if it publishes a port under its own number, then on one that Docker chooses, and for this machine only.
fn on_a_free_port(line: &str) -> String {
    let parts: Vec<_> = line.trim().strip_prefix("- \"").and_then(|rest| rest.strip_suffix('"')).unwrap_or_default().split(':').collect();
    match parts.as_slice() {
        [.., outside, inside] if outside == inside && inside.parse::<u16>().is_ok() => format!("      - \"127.0.0.1::{inside}\""),
        _ => line.to_owned(),
    }
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from).into_iter().filter_map(Result::ok) {
        let target = to.join(entry.path().strip_prefix(from).expect("below it"));
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).expect("a folder");
        } else {
            std::fs::copy(entry.path(), &target).expect("a copy");
        }
    }
}
