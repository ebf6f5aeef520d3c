//! The image: what it is made of, and how its container lives and ends.

use std::process::Command;

mod certbot_volumes;
mod situations;

use super::support::docker::{Container, docker, image};
use super::support::process::{Broker, Folder, run};

/// Lines of `ps` in the container that run the broker, as (pid, parent).
fn processes(container: &Container) -> Vec<(String, String, String)> {
    let shown = container.exec(&["ps", "-o", "pid,ppid,stat,args"]).ok();
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
        Some((words.first()?.clone(), words.get(1)?.clone(), words.get(2)?.clone()))
    };
    shown.lines().skip(1).filter_map(row).collect()
}

/// The pid of PID 1's child.
fn broker_pid(container: &Container) -> Option<String> {
    processes(container).into_iter().find(|(_, parent, _)| parent == "1").map(|(pid, ..)| pid)
}

#[test]
fn the_image_is_small_and_declares_what_mosquitto_s_users_rely_on() {
    let Some(image) = image() else { return };
    let show = |format: &str| docker(&["image", "inspect", "--format", format, image]).ok().trim().to_owned();
    let size: u64 = show("{{.Size}}").parse().expect("bytes");
    assert!(size < 12_000_000, "{size} bytes");
    assert_eq!(show("{{json .Config.Entrypoint}}"), r#"["/docker-entrypoint.sh"]"#);
    assert_eq!(show("{{json .Config.Cmd}}"), r#"["/usr/sbin/mosquitto","-c","/mosquitto/config/mosquitto.conf"]"#);
    assert_eq!(show("{{.Config.StopSignal}}"), "SIGTERM");
    assert_eq!(show("{{json .Config.ExposedPorts}}"), r#"{"1883/tcp":{}}"#);
    let volumes = show("{{json .Config.Volumes}}");
    for volume in ["/mosquitto/config", "/mosquitto/data", "/mosquitto/log", "/mosquitto/pwfile"] {
        assert!(volumes.contains(volume), "{volumes}");
    }
    let health = show(
        "{{.Config.Healthcheck.StartPeriod}} {{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.Timeout}} {{.Config.Healthcheck.Retries}}",
    );
    assert_eq!(health, "30s 30s 10s 3");
}

/// Whoever carries the one binary out of the image has all of it: nothing of the host's C library is loaded, whatever its
/// nsswitch.conf names.
#[test]
fn the_binary_of_the_image_serves_outside_it_and_gives_up_root() {
    let Some(image) = image() else { return };
    let folder = Folder::new("carried-out");
    let carried = folder.path().join("darner");
    let container = Container::start(image, &[], &[]);
    docker(&["cp", &format!("{}:/usr/sbin/darner", container.name), &carried.display().to_string()]).ok();
    let broker = Broker::start_with(Command::new(&carried), folder, "listener {port} 127.0.0.1\nallow_anonymous true\nuser nobody\n");
    broker.wait_for_log("running mosquitto as user: nobody.");
    let sent = run(Command::new(&carried).args(["mosquitto_pub", "-h", "localhost", "-p", &broker.port.to_string(), "-t", "a", "-m", "b"]));
    assert_eq!(sent.0, 0, "{sent:?}\n{}", broker.log());
}

#[test]
fn what_people_type_in_the_container_is_there() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &[]);
    container.wait_until_answering();
    for command in [
        &["sh", "-c", "exit 0"][..],
        &["/bin/bash", "-c", "test \"$0\" = zero", "zero"],
        &["cat", "/mosquitto/config/mosquitto.conf"],
        &["ls", "-l", "/mosquitto"],
        &["date"],
        &["tar", "-cf", "/dev/null", "/mosquitto/config"],
        &["cat", "/mosquitto-no-auth.conf"],
        &["which", "mosquitto", "mosquitto_passwd", "mosquitto_pub", "mosquitto_sub", "iotstack_healthcheck.sh", "darner"],
        &["iotstack_healthcheck.sh"],
        &["darner", "healthcheck"],
        &["darner", "status"],
    ] {
        let ended = container.exec(command);
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.said());
    }
    let names = container.exec(&["id", "-un"]).ok() + &container.exec(&["ls", "-ld", "/mosquitto/config"]).ok();
    assert!(names.starts_with("root\n") && names.contains("mosquitt"), "{names}");
}

#[test]
fn another_command_runs_instead_of_the_broker_and_its_exit_code_is_the_container_s() {
    let Some(image) = image() else { return };
    assert_eq!(docker(&["run", "--rm", image, "sh", "-c", "echo said; exit 7"]).code, 7);
    assert!(docker(&["run", "--rm", image, "sh", "-c", "echo said"]).ok().contains("said"));
    assert_eq!(docker(&["run", "--rm", image, "no-such-program"]).code, 127);
    let folder = Folder::new("passwd");
    let mount = format!("{}:/mosquitto/config", folder.path().display());
    let made = docker(&["run", "--rm", "-v", &mount, image, "mosquitto_passwd", "-c", "-b", "/mosquitto/config/passwd", "hello", "world"]);
    assert_eq!(made.code, 0, "{}", made.said());
    assert!(std::fs::read_to_string(folder.path().join("passwd")).expect("the file").starts_with("hello:$7$"));
}

#[test]
fn a_configuration_elsewhere_is_served_when_the_command_names_it() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &["mosquitto", "-c", "/mosquitto-no-auth.conf"]);
    container.wait_until_answering();
    assert_eq!(container.exec(&["darner", "healthcheck"]).code, 0);
}

#[test]
fn a_container_of_its_own_becomes_healthy() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &["--health-interval=1s"], &[]);
    assert_eq!(container.inspect("{{.State.Health.Status}}"), "starting");
    container.wait_for("health", || container.inspect("{{.State.Health.Status}}") == "healthy");
}

#[test]
fn a_frozen_broker_is_not_healthy_and_the_health_check_says_so_in_time() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &[]);
    container.wait_until_answering();
    let pid = broker_pid(&container).expect("a broker");
    container.exec(&["kill", "-STOP", &pid]).ok();
    let ended = container.exec(&["timeout", "10", "darner", "healthcheck"]);
    assert_eq!(ended.code, 1, "{}", ended.said());
    assert!(!ended.said().trim().is_empty(), "the reason is said");
}

#[test]
fn docker_stop_ends_the_container_by_itself_with_0() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &[]);
    container.wait_until_answering();
    docker(&["stop", "-t", "9", &container.name]).ok();
    assert_eq!(container.inspect("{{.State.ExitCode}}"), "0", "{}", container.logs());
    assert!(container.logs().contains("terminating"), "{}", container.logs());
}

#[test]
fn a_killed_broker_comes_back_while_the_container_stays() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &[]);
    container.wait_until_answering();
    let started = container.inspect("{{.State.StartedAt}}");
    let killed = broker_pid(&container).expect("a broker");
    container.exec(&["kill", "-KILL", &killed]).ok();
    container.wait_for("another broker", || broker_pid(&container).is_some_and(|pid| pid != killed));
    container.wait_until_answering();
    assert_eq!(container.inspect("{{.State.StartedAt}}"), started);
    assert_eq!(container.inspect("{{.RestartCount}}"), "0");
}

#[test]
fn orphans_of_a_shell_in_the_container_leave_no_zombies() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &[]);
    container.wait_until_answering();
    container.exec(&["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.1 &); done"]).ok();
    container.wait_for("the end of the orphans", || {
        processes(&container).iter().all(|(_, _, state)| !state.starts_with('Z')) && !container.exec(&["ps"]).ok().contains("sleep")
    });
}

#[test]
fn reload_prints_its_verdict_and_a_bad_configuration_changes_nothing() {
    let Some(image) = image() else { return };
    let folder = Folder::new("reload");
    let conf = folder.write("mosquitto.conf", "listener 1883\nallow_anonymous true\n");
    let mount = format!("{}:/mosquitto/config", folder.path().display());
    let container = Container::start(image, &["-v", &mount], &[]);
    container.wait_until_answering();

    std::fs::write(&conf, "listener 1883\nallow_anonymus false\n").expect("the file");
    let refused = container.exec(&["darner", "reload"]);
    assert_ne!(refused.code, 0, "{}", refused.said());
    assert!(refused.said().contains("allow_anonymus"), "{}", refused.said());
    container.wait_until_answering();

    std::fs::write(&conf, "listener 1883\nallow_anonymous false\n").expect("the file");
    let taken = container.exec(&["darner", "reload"]);
    assert_eq!(taken.code, 0, "{}", taken.said());
    container.wait_for("a refusal", || container.exec(&["mosquitto_pub", "-t", "t", "-m", "m"]).code == 5);
    assert_eq!(container.exec(&["darner", "healthcheck"]).code, 0, "without credentials the health check still proves a round trip");
}

#[test]
fn restart_sh_restarts_the_broker_in_place() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &[], &[]);
    container.wait_until_answering();
    let before = broker_pid(&container).expect("a broker");
    let ended = container.exec(&["/restart.sh"]);
    assert_eq!(ended.code, 0, "{}", ended.said());
    container.wait_for("another broker", || broker_pid(&container).is_some_and(|pid| pid != before));
    container.wait_until_answering();
    assert!(container.running());
}

#[test]
fn the_time_zone_is_built_in_and_an_unknown_one_is_said() {
    let Some(image) = image() else { return };
    let container = Container::start(image, &["-e", "TZ=Australia/Melbourne"], &[]);
    container.wait_until_answering();
    let hour = || jiff::Timestamp::now().in_tz("Australia/Melbourne").expect("a zone").strftime("%Y-%m-%dT%H").to_string();
    let hours = [
        jiff::Timestamp::now()
            .in_tz("Australia/Melbourne")
            .expect("a zone")
            .checked_sub(jiff::Span::new().hours(1))
            .expect("a time")
            .strftime("%Y-%m-%dT%H")
            .to_string(),
        hour(),
    ];
    let log = container.logs();
    let running = log.lines().find(|line| line.contains("running")).unwrap_or_default();
    assert!(hours.iter().any(|hour| running.starts_with(hour.as_str())), "{hours:?}: {log}");
    let date = container.exec(&["date", "+%Y-%m-%dT%H"]).ok();
    assert!(hours.iter().any(|hour| date.starts_with(hour.as_str())), "{date}");

    let lost = Container::start(image, &["-e", "TZ=Middle/Earth"], &[]);
    lost.wait_until_answering();
    lost.wait_for_log("Middle/Earth");
}
