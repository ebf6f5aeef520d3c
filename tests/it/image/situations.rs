//! Volumes and identities that sent the predecessors into a restart loop: each time the container stays up and serves, or
//! ends once with a plain line.

use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use crate::support::docker::{Container, Ended, docker, image};
use crate::support::process::{Engine, Folder};

const CONF: &str = "listener 1883\nallow_anonymous true\n";

fn mount(folder: &Folder, inside: &str) -> String {
    format!("{}:{inside}", folder.path().display())
}

/// What is asked of a container with either engine: `options` of `docker run`, with those that choose the engine.
fn with_both(options: &[&str], ask: impl Fn(&[&str])) {
    for engine in Engine::BOTH {
        let folder = Folder::new("engine");
        let chosen = engine.options(&folder);
        ask(&[options, &chosen.each_ref().map(String::as_str)[..]].concat());
    }
}

/// Starts a container that has to answer, and returns it with what its health check said.
#[track_caller]
fn answers(image: &str, options: &[&str]) -> (Container, Ended) {
    let container = Container::start(image, options, &[]);
    container.wait_until_answering();
    assert_eq!(container.inspect("{{.State.Running}} {{.RestartCount}}"), "true 0", "{}", container.logs());
    let health = container.exec(&["darner", "healthcheck"]);
    (container, health)
}

/// Starts a container that has to serve and to keep, and returns it.
#[track_caller]
fn serves(image: &str, options: &[&str]) -> Container {
    let (container, health) = answers(image, options);
    assert_eq!(health.code, 0, "{}\n{}", health.said(), container.logs());
    container
}

/// Starts a container that has to serve though nothing can be kept in its volume, and to say so where people look, and
/// returns it.
#[track_caller]
fn serves_from_memory(image: &str, options: &[&str]) -> Container {
    let (container, health) = answers(image, options);
    assert_eq!(health.code, 1, "{}\n{}", health.said(), container.logs());
    assert!(health.said().starts_with("unhealthy: Nothing can be kept in "), "{}", health.said());
    assert!(container.logs().contains("Error: Nothing can be kept in "), "{}", container.logs());
    let round_trip = "mosquitto_sub -t memory -C 1 -W 2 & sleep 0.3; mosquitto_pub -t memory -m served && wait $!";
    container.wait_for("a message that passes", || container.exec(&["sh", "-c", round_trip]).stdout == "served\n");
    container
}

#[test]
fn a_read_only_configuration_without_the_other_defaults() {
    let Some(image) = image() else { return };
    for engine in Engine::BOTH {
        let folder = Folder::new("ro");
        folder.write("mosquitto.conf", CONF);
        // darner.toml stands beside mosquitto.conf.
        engine.choose(&folder);
        let container = serves(image, &["-v", &(mount(&folder, "/mosquitto/config") + ":ro")]);
        assert_eq!(container.logs().contains("The rumqttd engine"), engine == Engine::Rumqttd, "{}", container.logs());
    }
}

#[test]
fn a_read_only_configuration_folder_that_is_empty_means_the_built_in_default() {
    let Some(image) = image() else { return };
    let folder = Folder::new("ro-empty");
    serves(image, &["-v", &(mount(&folder, "/mosquitto/config") + ":ro")]);
}

#[test]
fn a_directory_that_docker_made_of_a_missing_file_is_explained() {
    let Some(image) = image() else { return };
    let folder = Folder::new("missing");
    let file = format!("{}/mosquitto.conf:/mosquitto/config/mosquitto.conf", folder.path().display());
    let container = serves(image, &["-v", &file]);
    let log = container.logs();
    assert!(log.contains("/mosquitto/config/mosquitto.conf") && log.contains("directory"), "{log}");
}

#[test]
fn a_file_where_a_named_folder_is_due() {
    let Some(image) = image() else { return };
    let folder = Folder::new("file");
    folder.write("mosquitto.conf", format!("{CONF}persistence true\npersistence_location /mosquitto/config/data/\nlog_dest stdout\n"));
    folder.write("data", "not a folder");
    let container = serves_from_memory(image, &["-v", &mount(&folder, "/mosquitto/config")]);
    assert!(container.logs().contains("/mosquitto/config/data"), "{}", container.logs());
    assert_eq!(std::fs::read_to_string(folder.path().join("data")).expect("the file"), "not a folder");
}

#[test]
fn a_full_disk() {
    let Some(image) = image() else { return };
    let options = [
        "--tmpfs",
        "/mosquitto/config:size=4k,nr_inodes=2",
        "--tmpfs",
        "/mosquitto/pwfile:size=4k,nr_inodes=1",
        "--tmpfs",
        "/mosquitto/data:size=4k,nr_inodes=1",
    ];
    with_both(&options, |options| {
        let container = serves_from_memory(image, options);
        assert!(container.logs().contains("/mosquitto/pwfile full"), "{}", container.logs());
    });
}

#[test]
fn under_the_user_1883_on_fresh_volumes() {
    let Some(image) = image() else { return };
    let container = serves(image, &["--user", "1883:1883"]);
    assert!(container.exec(&["cat", "/mosquitto/config/mosquitto.conf"]).ok().contains("listener 1883"));
}

#[test]
fn under_another_user_on_that_user_s_folder() {
    let Some(image) = image() else { return };
    let folder = Folder::new("user");
    chown(folder.path(), Some(1000), Some(1000)).expect("root");
    let container = serves_from_memory(image, &["--user", "1000:1000", "-v", &mount(&folder, "/mosquitto/config")]);
    assert!(container.exec(&["ls", "/mosquitto/config"]).ok().contains("mosquitto.conf"), "{}", container.logs());
}

#[test]
fn without_any_capability() {
    let Some(image) = image() else { return };
    with_both(&["--cap-drop", "ALL"], |options| drop(serves_from_memory(image, options)));
}

#[test]
fn with_the_three_capabilities_of_changing_identity() {
    let Some(image) = image() else { return };
    let folder = Folder::new("caps");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("ours");
    chown(folder.path(), Some(1883), Some(1883)).expect("root");
    let options = [
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--cap-add",
        "SETUID",
        "--cap-add",
        "SETGID",
        "-v",
        &mount(&folder, "/mosquitto/config"),
    ];
    serves(image, &options);
    assert!(folder.path().join("mosquitto.conf").exists(), "made as the owner of the folder");
}

#[test]
fn on_a_read_only_root() {
    let Some(image) = image() else { return };
    with_both(&["--read-only"], |options| drop(serves(image, options)));
}

#[test]
fn under_a_random_user_without_any_right() {
    let Some(image) = image() else { return };
    let options = ["--user", "1000620000:0", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"];
    with_both(&options, |options| drop(serves_from_memory(image, options)));
}

#[test]
fn a_password_file_that_is_a_link_to_elsewhere_is_left_alone() {
    let Some(image) = image() else { return };
    let folder = Folder::new("link");
    let outside = Folder::new("outside");
    let target = outside.write("precious", "keep");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o644)).expect("ours");
    symlink("/outside/precious", folder.path().join("pwfile")).expect("a link");
    let container = serves(image, &["-v", &mount(&folder, "/mosquitto/pwfile"), "-v", &mount(&outside, "/outside")]);
    let kept = std::fs::metadata(&target).expect("the target");
    assert_eq!((kept.permissions().mode() & 0o777, std::os::unix::fs::MetadataExt::uid(&kept)), (0o644, 0), "{}", container.logs());
}

#[test]
fn a_bad_configuration_names_file_line_and_word_and_ends_with_3_where_nobody_waits() {
    let Some(image) = image() else { return };
    let folder = Folder::new("bad");
    folder.write("mosquitto.conf", "listener 1883\nallow_anonymus true\n");
    let container = Container::start(image, &["-e", "DARNER_PATIENCE_SECS=0", "-v", &mount(&folder, "/mosquitto/config")], &[]);
    assert_eq!(container.wait_until_ended(), "3", "{}", container.logs());
    let log = container.logs();
    for part in ["/mosquitto/config/mosquitto.conf:2", "allow_anonymus", "allow_anonymous"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn a_bad_configuration_is_no_crash_loop_and_starts_once_it_is_corrected() {
    let Some(image) = image() else { return };
    let folder = Folder::new("corrected");
    folder.write("mosquitto.conf", "listener 1883\nallow_anonymus true\n");
    let container = Container::start(image, &["--restart", "unless-stopped", "-v", &mount(&folder, "/mosquitto/config")], &[]);
    container.wait_for_log("Waiting up to 300 s for the files to be corrected");
    let health = container.exec(&["darner", "healthcheck"]);
    assert!(health.code != 0, "nothing answers yet: {}", health.said());
    folder.write("mosquitto.conf", "listener 1883\nallow_anonymous true\n");
    container.wait_for_log(" running");
    container.wait_until_answering();
    assert_eq!(container.inspect("{{.RestartCount}}"), "0");
}

#[test]
fn a_stop_is_heard_while_a_configuration_is_waited_for() {
    let Some(image) = image() else { return };
    let folder = Folder::new("stopped");
    folder.write("mosquitto.conf", "nonsense 1\n");
    let container = Container::start(image, &["-v", &mount(&folder, "/mosquitto/config")], &[]);
    container.wait_for_log("Waiting up to 300 s");
    docker(&["stop", "-t", "60", &container.name]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "3", "ended by itself, not killed");
}

#[test]
fn an_empty_configuration_runs_for_this_container_only_and_says_so() {
    let Some(image) = image() else { return };
    let folder = Folder::new("empty");
    folder.write("mosquitto.conf", "");
    let container = serves(image, &["-v", &mount(&folder, "/mosquitto/config")]);
    container.wait_for_log("local only mode");
    assert_eq!(std::fs::read_to_string(folder.path().join("mosquitto.conf")).expect("the file"), "", "an existing file is never touched");
}

#[test]
fn a_log_folder_that_cannot_be_written_silences_nothing() {
    let Some(image) = image() else { return };
    let folder = Folder::new("log");
    let conf = Folder::new("log-conf");
    conf.write("mosquitto.conf", format!("{CONF}log_dest file /mosquitto/log/mosquitto.log\nlog_dest stdout\n"));
    let container = serves(image, &["-v", &(mount(&folder, "/mosquitto/log") + ":ro"), "-v", &mount(&conf, "/mosquitto/config")]);
    container.wait_for_log("/mosquitto/log/mosquitto.log");
    container.wait_for_log(" running");
}

#[test]
fn a_password_file_that_the_configuration_names_and_nobody_made() {
    let Some(image) = image() else { return };
    let folder = Folder::new("named");
    folder.write("mosquitto.conf", format!("{CONF}password_file /mosquitto/config/users/passwd\n"));
    let container = serves(image, &["-v", &mount(&folder, "/mosquitto/config")]);
    assert!(container.exec(&["cat", "/mosquitto/config/users/passwd"]).ok().is_empty());
}

/// Of a retained message with a payload, in a container that starts anew on the same file.
#[track_caller]
fn a_single_file_keeps(image: &str, file: &str, options: &[&str]) {
    let options = [&["-v", file], options].concat();
    let told = |container: &Container| container.exec(&["mosquitto_sub", "-t", "state", "-C", "1", "-W", "5"]).stdout;
    let container = serves(image, &options);
    container.exec(&["mosquitto_pub", "-t", "state", "-m", "kept", "-r", "-q", "1"]).ok();
    assert_eq!(docker(&["kill", "--signal=KILL", &container.name]).code, 0);
    drop(container);
    let container = serves(image, &options);
    assert_eq!(told(&container), "kept\n", "{}", container.logs());
    // The file outgrows what it holds many times over, and is written anew where it is.
    let many = "i=0; while [ $i -lt 80 ]; do head -c 60000 /dev/zero | tr '\\0' x | mosquitto_pub -t state -s -r -q 1 || exit 1; i=$((i + 1)); done";
    container.exec(&["sh", "-c", many]).ok();
    container.exec(&["mosquitto_pub", "-t", "state", "-m", "last", "-r", "-q", "1"]).ok();
    container.wait_for("a file that was written anew", || {
        container
            .exec(&[
                "sh",
                "-c",
                "mosquitto_pub -t state -m last -r -q 1; test $(wc -c <\"$0\") -lt 2000000",
                file.rsplit(':').next().unwrap_or_default(),
            ])
            .code
            == 0
    });
    assert_eq!(docker(&["kill", "--signal=KILL", &container.name]).code, 0);
    drop(container);
    assert_eq!(told(&serves(image, &options)), "last\n");
}

/// Seed 001's, which mosquitto answers with "Error: Resource busy."
#[test]
fn a_single_file_as_database() {
    let Some(image) = image() else { return };
    for engine in Engine::BOTH {
        let folder = Folder::new("single");
        folder
            .write("mosquitto.conf", format!("{CONF}persistence true\npersistence_location /mosquitto/config\npersistence_file data.db\n"));
        folder.write("data.db", "");
        let conf = format!("{}/mosquitto.conf:/mosquitto/config/mosquitto.conf", folder.path().display());
        let file = format!("{}/data.db:/mosquitto/config/data.db", folder.path().display());
        let chosen = engine.options(&folder);
        a_single_file_keeps(image, &file, &[&["-v", &conf], &chosen.each_ref().map(String::as_str)[..]].concat());
    }
}

#[test]
fn a_single_file_as_database_on_a_read_only_root() {
    let Some(image) = image() else { return };
    let folder = Folder::new("single");
    folder.write("mosquitto.conf", format!("{CONF}persistence true\npersistence_location /mosquitto/config\npersistence_file data.db\n"));
    folder.write("data.db", "");
    std::fs::set_permissions(folder.path().join("data.db"), std::fs::Permissions::from_mode(0o666)).expect("ours");
    let conf = format!("{}/mosquitto.conf:/mosquitto/config/mosquitto.conf:ro", folder.path().display());
    let file = format!("{}/data.db:/mosquitto/config/data.db", folder.path().display());
    a_single_file_keeps(image, &file, &["-v", &conf, "--read-only"]);
}
