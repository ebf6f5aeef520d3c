//! The compose examples, driven by what the documents of the systems they stand for tell their users to type.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::support::docker::{Project, image};
use super::support::process::{Engine, run, wait_until};

/// Debian's mosquitto_pub against the project's published port: its exit code and what it said.
fn publish(port: &str, credentials: &[&str]) -> (i32, String) {
    let (code, stdout, stderr) = run(Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", port, "-t", "/password/test", "-m", "up up and away"])
        .args(credentials));
    (code, stdout + &stderr)
}

/// Connection Refused: not authorised.
const NOT_AUTHORISED: i32 = 5;

const USER: &[&str] = &["-u", "hello", "-P", "world"];

/// Debian's mosquitto_sub in the background, until its first message; the output is in a file.
struct Subscriber {
    child: Child,
    output: std::path::PathBuf,
}

impl Subscriber {
    fn start(port: &str, folder: &Path, arguments: &[&str]) -> Self {
        let output = folder.join("subscriber");
        let file = std::fs::File::create(&output).expect("a file");
        let arguments = ["-h", "127.0.0.1", "-p", port, "-C", "1"].into_iter().chain(arguments.iter().copied());
        let child = Command::new("mosquitto_sub").args(arguments).stdin(Stdio::null()).stdout(file).spawn().expect("mosquitto_sub");
        Self { child, output }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let data = std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (data.uid(), data.gid(), data.mode() & 0o777)
}

#[test]
fn every_example_is_valid() {
    if image().is_none() {
        return;
    }
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples");
    let mut count = 0;
    for example in std::fs::read_dir(examples).expect("examples").filter_map(Result::ok) {
        let (code, _, stderr) = run(Command::new("docker-compose")
            .args(["config", "-q"])
            .env("DOMAIN", "a.test")
            .env("EMAIL", "a@a.test")
            .current_dir(example.path()));
        assert_eq!(code, 0, "{}: {stderr}", example.path().display());
        count += 1;
    }
    assert!(count >= 4, "the examples are found");
}

/// Each scenario with either engine, from the same lines.
macro_rules! with_both_engines {
    ($($scenario:ident),* $(,)?) => {
        $(mod $scenario {
            use crate::support::process::Engine;

            #[test]
            fn with_the_core_engine() {
                super::$scenario(Engine::Core);
            }

            #[test]
            fn with_the_rumqttd_engine() {
                super::$scenario(Engine::Rumqttd);
            }
        })*
    };
}

mod openshift;
mod public_tls;

with_both_engines!(
    iotstack_starts_on_four_empty_volumes_and_becomes_healthy,
    iotstack_s_security_table,
    iotstack_s_password_file_commands_and_its_round_trip,
    single_files_in_20_megabytes_and_then_read_only,
    users_are_added_to_a_running_broker_under_a_user_id,
);

fn iotstack_starts_on_four_empty_volumes_and_becomes_healthy(engine: Engine) {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "iotstack", "mosquitto");
    project.choose(engine, "mosquitto");
    project.edit("docker-compose.yml", "    ports:", "    healthcheck:\n      interval: 1s\n    ports:");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    container.wait_for("health", || container.inspect("{{.State.Health.Status}}") == "healthy");

    let volume = |name: &str| project.path("volumes/mosquitto").join(name);
    for (name, mode) in [("config/mosquitto.conf", 0o644), ("config/filter.acl", 0o644), ("pwfile/pwfile", 0o600)] {
        assert_eq!(owner_and_mode(&volume(name)), (1883, 1883, mode), "{name}");
    }
    for folder in ["config", "data", "log", "pwfile"] {
        let (uid, gid, _) = owner_and_mode(&volume(folder));
        assert_eq!((uid, gid), (1883, 1883), "{folder}");
    }
    assert_eq!(std::fs::read_to_string(volume("pwfile/pwfile")).expect("the file"), "");
    let conf = std::fs::read_to_string(volume("config/mosquitto.conf")).expect("the file");
    assert!(conf.contains("#password_file /mosquitto/pwfile/pwfile") && conf.contains("allow_anonymous true"), "{conf}");
    let log = container.logs();
    let frame = log.find("[IOTstack] begin self-repair").zip(log.find("[IOTstack] end self-repair")).zip(log.find(" running"));
    assert!(frame.is_some_and(|((begin, end), running)| begin < end && end < running), "{log}");

    // A message from outside the container gets in.
    assert_eq!(publish(&container.port(), &[]), (0, String::new()));
}

fn iotstack_s_security_table(engine: Engine) {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "iotstack", "mosquitto");
    project.choose(engine, "mosquitto");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    container.wait_until_answering();
    container.exec(&["mosquitto_passwd", "-b", "/mosquitto/pwfile/pwfile", "hello", "world"]).ok();
    let wrong: &[&str] = &["-u", "hello", "-P", "moon"];
    // password_file, allow_anonymous; exit codes of: nobody, the user, the user with a wrong password.
    let table = [(false, true, [0, 0, 0]), (false, false, [5, 5, 5]), (true, true, [0, 0, 5]), (true, false, [5, 0, 5])];
    let conf = project.path("volumes/mosquitto/config/mosquitto.conf");
    let original = std::fs::read_to_string(&conf).expect("the default");
    for (password_file, anonymous, expected) in table {
        let mut text = original.replace("allow_anonymous true", &format!("allow_anonymous {anonymous}"));
        if password_file {
            text = text.replace("#password_file", "password_file");
        }
        std::fs::write(&conf, text).expect("the configuration");
        project.compose(&["restart", "mosquitto"]).ok();
        container.wait_for("health", || container.exec(&["iotstack_healthcheck.sh"]).code == 0);
        let port = container.port();
        let codes = [&[], USER, wrong].map(|credentials| publish(&port, credentials).0);
        assert_eq!(codes, expected, "password_file {password_file}, allow_anonymous {anonymous}\n{}", container.logs());
    }
}

fn iotstack_s_password_file_commands_and_its_round_trip(engine: Engine) {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "iotstack", "mosquitto");
    project.choose(engine, "mosquitto");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    container.wait_until_answering();
    let pwfile = "/mosquitto/pwfile/pwfile";
    let passwd = |arguments: &[&str]| {
        let ended = container.exec(&[&["mosquitto_passwd"], arguments].concat());
        assert_eq!((ended.code, ended.said()), (0, String::new()), "{arguments:?} is silent");
        container.exec(&["cat", pwfile]).ok()
    };
    assert!(passwd(&["-b", pwfile, "other", "user"]).starts_with("other:$7$"));
    assert_eq!(passwd(&["-c", "-b", pwfile, "dummy", "dummy"]).lines().count(), 1);
    assert_eq!(passwd(&["-D", pwfile, "dummy"]), "");
    assert!(passwd(&["-b", pwfile, "hello", "world"]).starts_with("hello:$7$"));
    assert_eq!(owner_and_mode(&project.path("volumes/mosquitto/pwfile/pwfile")), (1883, 1883, 0o600), "as before the tool ran as root");

    let conf = "volumes/mosquitto/config/mosquitto.conf";
    project.edit(conf, "#password_file /mosquitto", "password_file /mosquitto");
    project.edit(conf, "allow_anonymous true", "allow_anonymous false");
    project.compose(&["restart", "mosquitto"]).ok();
    container.wait_for("health", || container.exec(&["iotstack_healthcheck.sh"]).code == 0);
    let port = container.port();

    let (code, said) = publish(&port, &[]);
    assert_eq!(code, NOT_AUTHORISED);
    assert!(said.contains("Connection Refused: not authorised."), "{said}");
    assert_eq!(publish(&port, USER), (0, String::new()), "silence is success");
    let subscriber =
        Subscriber::start(&port, project.folder.path(), &["-v", "-t", "/password/test", "-F", "%I %t %p", "-u", "hello", "-P", "world"]);
    // Until it has subscribed, what is published goes past it.
    wait_until("the message", || {
        publish(&port, USER).0 == 0 && subscriber.text().lines().any(|line| line.ends_with(" /password/test up up and away"))
    });

    // The same with the tools in the image.
    let inside = container.exec(&["mosquitto_pub", "-h", "127.0.0.1", "-p", "1883", "-t", "/password/test", "-m", "up up and away"]);
    assert_eq!(inside.code, NOT_AUTHORISED);
    assert!(inside.said().contains("not authorised"), "{}", inside.said());

    // Reset: without the file, the next start makes an empty one, and nobody gets in.
    std::fs::remove_file(project.path("volumes/mosquitto/pwfile/pwfile")).expect("it was there");
    project.compose(&["restart", "mosquitto"]).ok();
    container.wait_for("health", || container.exec(&["iotstack_healthcheck.sh"]).code == 0);
    assert_eq!(container.exec(&["cat", pwfile]).ok(), "");
    assert_eq!(publish(&container.port(), USER).0, NOT_AUTHORISED);
}

fn single_files_in_20_megabytes_and_then_read_only(engine: Engine) {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "stateless", "mqtt-mosquitto");
    project.choose(engine, "mqtt-mosquitto");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    let healthy = || container.exec(&["darner", "healthcheck"]).code == 0;
    container.wait_for("health", healthy);
    assert_eq!(container.inspect("{{.HostConfig.Memory}}"), (20 * 1024 * 1024).to_string());
    assert_eq!(publish(&container.port(), &[]).0, NOT_AUTHORISED);

    let database = "/mosquitto/config/password.db";
    container.exec(&["sh", "-c", &format!("mosquitto_passwd -b {database} hello world && mosquitto_passwd -b {database} other user")]).ok();
    container.exec(&["mosquitto_passwd", "-D", database, "other"]).ok();
    assert_eq!(container.exec(&["cat", database]).ok().lines().count(), 1);
    container.exec(&["darner", "reload"]).ok();
    let port = container.port();
    container.wait_for("the new user", || publish(&port, USER).0 == 0);
    assert_eq!(publish(&port, &["-u", "other", "-P", "user"]).0, NOT_AUTHORISED);

    project.compose(&["down"]).ok();
    project.edit("docker-compose.yml", ":rw", ":ro");
    project.compose(&["up", "-d"]).ok();
    container.wait_for("health", healthy);
    let port = container.port();
    assert_eq!(publish(&port, USER), (0, String::new()), "{}", container.logs());
    assert_eq!(publish(&port, &[]).0, NOT_AUTHORISED);
    assert_eq!(container.inspect("{{.State.OOMKilled}} {{.RestartCount}}"), "false 0");
}

fn users_are_added_to_a_running_broker_under_a_user_id(engine: Engine) {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "tiguitto-like", "mosquitto");
    project.choose(engine, "mosquitto");
    for folder in ["mosquitto/config", "mosquitto/log", "mosquitto/config/mosquitto.conf", "mosquitto/config/passwd"] {
        chown(project.path(folder), Some(1000), Some(1000)).expect("root");
    }
    let passwd = project.path("mosquitto/config/passwd");
    std::fs::set_permissions(&passwd, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let mount = format!("{}:/mosquitto/config", project.path("mosquitto/config").display());
    let tool = |arguments: &[&str]| {
        let ended = super::support::docker::docker(&[&["run", "--rm", "-v", &mount, image, "mosquitto_passwd"], arguments].concat());
        assert_eq!((ended.code, ended.said()), (0, String::new()), "no response means that it is done");
    };
    tool(&["-U", "/mosquitto/config/passwd"]);
    let hashed = std::fs::read_to_string(&passwd).expect("the file");
    assert!(hashed.lines().count() == 2 && hashed.lines().all(|line| line.contains(":$")), "{hashed}");

    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
    let port = container.port();
    let user = |name| ["-u", name, "-P", "tiguitto"];
    assert_eq!(publish(&port, &user("pubclient")).0, 0, "{}", container.logs());
    assert_eq!(publish(&port, &user("pubclient1")).0, NOT_AUTHORISED);

    std::fs::write(&passwd, format!("{hashed}pubclient1:tiguitto\n")).expect("the file");
    tool(&["-U", "/mosquitto/config/passwd"]);
    super::support::docker::docker(&["kill", "--signal=SIGHUP", &container.name]).ok();
    container.wait_for_log("Reloading config.");
    container.wait_for("the new user", || publish(&port, &user("pubclient1")).0 == 0);
    assert_eq!(publish(&port, &user("subclient")).0, 0, "the others keep their passwords");

    tool(&["-D", "/mosquitto/config/passwd", "pubclient1"]);
    container.exec(&["darner", "reload"]).ok();
    container.wait_for("the user's end", || publish(&port, &user("pubclient1")).0 == NOT_AUTHORISED);
    assert_eq!(publish(&port, &user("pubclient")).0, 0);
    let log = std::fs::read_to_string(project.path("mosquitto/log/mosquitto.log")).expect("the log file");
    assert!(log.contains("Reloading config."), "{log}");
}
