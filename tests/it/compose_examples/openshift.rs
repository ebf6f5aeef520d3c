//! The example for OpenShift: a user id that nobody knows, group 0, no rights, a read-only root, and everything in `/myuser`.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{NOT_AUTHORISED, USER, publish};
use crate::support::docker::{Container, Project, docker, image};
use crate::support::process::{Engine, Folder, run};

const UID: &str = "1000620000:0";

/// The host's port of the container's 8883.
fn tls_port(container: &Container) -> String {
    let shown = docker(&["port", &container.name, "8883/tcp"]).ok();
    shown.lines().next().and_then(|line| line.rsplit(':').next()).expect("a published port").trim().to_owned()
}

/// The authority, fetched as users fetch it.
fn fetch_authority(container: &Container, folder: &Path) -> PathBuf {
    let copy = folder.join("mosquitto_ca.crt");
    let _ = std::fs::remove_file(&copy);
    docker(&["cp", &format!("{}:/myuser/ca.crt", container.name), &copy.display().to_string()]).ok();
    copy
}

/// Debian's mosquitto_pub over TLS, by the name localhost.
fn publish_over_tls(container: &Container, authority: &Path, credentials: &[&str]) -> (i32, String) {
    let port = tls_port(container);
    let mut client = Command::new("mosquitto_pub");
    client.args(["-h", "localhost", "-p", &port, "-t", "foo", "-m", "text", "-q", "1"]).arg("--cafile").arg(authority);
    let (code, stdout, stderr) = run(client.args(credentials));
    (code, stdout + &stderr)
}

/// The password in the line that shows it, as a user would read it.
fn random_password(log: &str) -> String {
    let line = log.lines().find(|line| line.contains("FIRST USER")).unwrap_or_else(|| panic!("a first user in:\n{log}"));
    line.split_once("random PASSWORD ").and_then(|(_, rest)| rest.split_whitespace().next()).expect("a password").to_owned()
}

fn wait_for_health(container: &Container) {
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
}

/// Lines of the log that are no plain news, but for what the second engine always says.
fn worries(log: &str) -> Vec<&str> {
    let is_one = |line: &&str| ["Warning", "Error", "repair:"].iter().any(|word| line.contains(word));
    log.lines().filter(is_one).filter(|line| !line.contains("The rumqttd engine cannot honour")).collect()
}

with_both_engines!(an_empty_volume_becomes_a_broker_that_keeps_its_certificates_and_its_first_user);

fn an_empty_volume_becomes_a_broker_that_keeps_its_certificates_and_its_first_user(engine: Engine) {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "openshift", "mosquitto");
    project.choose(engine, "mosquitto");
    project.edit("docker-compose.yml", "    ports:", "    healthcheck:\n      interval: 1s\n    ports:");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    container.wait_for("health", || container.inspect("{{.State.Health.Status}}") == "healthy");
    assert_eq!(container.inspect("{{.Config.User}} {{.HostConfig.Memory}}"), format!("{UID} {}", 128 << 20));
    let log = container.logs();
    let password = random_password(&log);
    assert!(log.contains("SELF-MADE") && log.matches(&password).count() == 1, "{log}");
    assert!(!log.contains("/mosquitto/"), "the image's other volumes are no matter: {log}");

    let admin = ["-u", "admin", "-P", &password];
    let authority = fetch_authority(container, project.folder.path());
    assert_eq!(publish_over_tls(container, &authority, &admin), (0, String::new()), "{}", container.logs());
    assert_eq!(publish(&container.port(), &admin), (0, String::new()));
    assert_eq!(publish(&container.port(), &[]).0, NOT_AUTHORISED);
    assert_eq!(publish(&container.port(), &["-u", "admin", "-P", "admin"]).0, NOT_AUTHORISED);
    // As `oc cp` does it.
    let packed = container.exec(&["sh", "-c", "tar -cf - -C /myuser ca.crt | tar -xOf -"]).ok();
    assert_eq!(packed, std::fs::read_to_string(&authority).expect("the copy"));
    assert_eq!(
        container.exec(&["sh", "-c", "stat -c '%a %u %g' /myuser/passwd /myuser/darner-ca.key"]).ok(),
        "600 1000620000 0\n600 1000620000 0\n"
    );
    for command in [&["darner", "check"][..], &["darner", "status"]] {
        let ended = container.exec(command);
        assert!(ended.code == 0 && !ended.said().contains(&password), "{}", ended.said());
    }
    let broker = container.exec(&["sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'"]).ok();
    assert!(!broker.contains(&password), "{broker}");

    container.exec(&["mosquitto_passwd", "-b", "/myuser/passwd", "hello", "world"]).ok();
    container.exec(&["darner", "reload"]).ok();
    assert_eq!(publish(&container.port(), USER), (0, String::new()));

    // Another container on the same volume, with a first user of its own in mind.
    for again in [&["restart"][..], &["up", "-d", "--force-recreate"]] {
        project.folder.write(".env", "DARNER_ADMIN_PASSWORD=another\n");
        project.compose(again).ok();
        wait_for_health(container);
        assert_eq!(publish_over_tls(container, &authority, &admin), (0, String::new()), "{again:?}: {}", container.logs());
        assert_eq!(publish(&container.port(), USER).0, 0);
        assert_eq!(publish(&container.port(), &["-u", "admin", "-P", "another"]).0, NOT_AUTHORISED);
    }
    let log = container.logs();
    assert!(!log.contains(&password) && !log.contains("FIRST USER") && !log.contains("SELF-MADE"), "{log}");
    assert_eq!(worries(&log), Vec::<&str>::new(), "{log}");
}

#[test]
fn a_password_from_the_environment_and_new_names_in_the_certificate() {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "openshift", "mosquitto");
    project.folder.write(".env", "DARNER_ADMIN_PASSWORD=se cret\nDARNER_ADMIN_USER=chief\n");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    wait_for_health(container);
    let chief = ["-u", "chief", "-P", "se cret"];
    let authority = fetch_authority(container, project.folder.path());
    assert_eq!(publish_over_tls(container, &authority, &chief), (0, String::new()), "{}", container.logs());
    let log = container.logs();
    assert!(!log.contains("se cret") && !log.contains("FIRST USER"), "{log}");
    let broker =
        container.exec(&["sh", "-c", "pid=$(ps -o pid,ppid | awk '$2 == 1 {print $1; exit}'); tr '\\0' '\\n' < /proc/$pid/environ"]).ok();
    assert!(broker.contains("NOTIFY_SOCKET") && !broker.contains("se cret"), "the broker does not need it: {broker}");

    project.folder.write(".env", "DARNER_ADMIN_PASSWORD=se cret\nDARNER_ADMIN_USER=chief\nDARNER_TLS_NAMES=mosquitto.apps.example\n");
    project.compose(&["up", "-d"]).ok();
    wait_for_health(container);
    container.wait_for_log("renewed '/myuser/server.crt' of listener 8883");
    assert_eq!(publish_over_tls(container, &authority, &chief), (0, String::new()), "by the same authority: {}", container.logs());
    let port = tls_port(container);
    let mut client = Command::new("openssl");
    client.args([
        "s_client",
        "-connect",
        &format!("127.0.0.1:{port}"),
        "-verify_return_error",
        "-verify_hostname",
        "mosquitto.apps.example",
    ]);
    // The name that the router reads in the first message.
    let shown = run(client.args(["-servername", "mosquitto.apps.example"]).arg("-CAfile").arg(&authority));
    assert_eq!(shown.0, 0, "{shown:?}");
}

#[test]
fn users_from_a_config_map_are_mounted_over_the_password_file() {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "openshift", "mosquitto");
    // Root's, and readable by everybody, as a file of a ConfigMap is.
    let passwd = project.folder.write("passwd", "");
    let made = run(Command::new(crate::support::process::darner())
        .args(["mosquitto_passwd", "-H", "sha512", "-b"])
        .arg(&passwd)
        .args(["foo", "foo"]));
    assert_eq!(made.0, 0, "{made:?}");
    std::fs::set_permissions(&passwd, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("ours");
    let before = std::fs::read(&passwd).expect("the file");
    project.edit("docker-compose.yml", "# - ./passwd", "- ./passwd");
    project.folder.write(".env", "DARNER_ADMIN_PASSWORD=secret\n");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    wait_for_health(container);
    assert_eq!(publish(&container.port(), &["-u", "foo", "-P", "foo"]), (0, String::new()), "{}", container.logs());
    assert_eq!(publish(&container.port(), &["-u", "admin", "-P", "secret"]).0, NOT_AUTHORISED);
    let authority = fetch_authority(container, project.folder.path());
    assert_eq!(publish_over_tls(container, &authority, &["-u", "foo", "-P", "foo"]), (0, String::new()));
    project.compose(&["restart"]).ok();
    wait_for_health(container);
    let log = container.logs();
    assert!(!log.contains("FIRST USER") && !log.contains("passwd'"), "{log}");
    assert_eq!(worries(&log).len(), 1, "but for the certificate of the first start: {log}");
    assert_eq!(std::fs::read(&passwd).expect("the file"), before);
}

#[test]
fn probes_leave_no_line_behind() {
    let Some(image) = image() else { return };
    let project = Project::copy(image, "openshift", "mosquitto");
    project.compose(&["up", "-d"]).ok();
    let container = &project.container;
    wait_for_health(container);
    let before = container.logs();
    for port in [container.port(), tls_port(container)] {
        for _ in 0..5 {
            drop(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("a connection"));
        }
    }
    for _ in 0..3 {
        container.exec(&["darner", "healthcheck"]).ok();
    }
    wait_for_health(container);
    let log = container.logs();
    let new = log.strip_prefix(before.as_str()).unwrap_or(&log);
    assert_eq!(worries(new), Vec::<&str>::new(), "{new}");
    assert!(new.lines().count() <= 10, "{new}");
}

/// The files of the system that this stands for, where that keeps them, under the image's own command: whoever mounts something in `/myuser` means it.
#[test]
fn the_configuration_of_the_other_image_works_as_it_is_without_a_command() {
    let Some(image) = image() else { return };
    let folder = Folder::new("myuser");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o770)).expect("ours");
    let text = include_str!("../../conf/seed_004_openshift.conf").replace("password_file pwfile", "password_file /myuser/passwd");
    let conf = folder.write("mosquitto.conf", &text);
    std::fs::set_permissions(&conf, std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("ours");
    let mount = format!("{}:/myuser", folder.path().display());
    let options = ["--user", UID, "--cap-drop", "ALL", "-v", &mount, "-p", "127.0.0.1::1883", "-p", "127.0.0.1::8883"];
    let container = Container::start(image, &options, &[]);
    wait_for_health(&container);
    let password = random_password(&container.logs());
    let admin = ["-u", "admin", "-P", &password];
    assert_eq!(publish(&container.port(), &admin), (0, String::new()), "{}", container.logs());
    assert_eq!(publish(&container.port(), &[]).0, NOT_AUTHORISED);
    let authority = fetch_authority(&container, folder.path());
    assert_eq!(publish_over_tls(&container, &authority, &admin), (0, String::new()), "{}", container.logs());
    assert_eq!(std::fs::read_to_string(&conf).expect("the file"), text);
    for command in [&["darner", "check"][..], &["darner", "repair", "--dry-run"]] {
        let ended = container.exec(command);
        assert!(ended.code == 0 && !ended.said().contains("/mosquitto/"), "{}", ended.said());
    }
}

/// The files that the other image has in it, made as its documents make them: RSA, certificates of the first version of X.509, without names.
fn files_of_the_other_image() -> Folder {
    let folder = Folder::new("files");
    let script = "openssl req -new -x509 -days 3650 -extensions v3_ca -keyout ca.key -out ca.crt -subj /O=acme/CN=com -passout pass:secret
        openssl genrsa -out server.key 2048
        openssl req -new -out server.csr -key server.key -subj /O=acme2/CN=com
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 3650 -passin pass:secret
        openssl rsa -in server.key -out server.key
        rm ca.key ca.srl server.csr
        chmod 644 server.key";
    let made = run(Command::new("sh").args(["-ec", script]).current_dir(folder.path()));
    assert_eq!(made.0, 0, "{made:?}");
    let passwd = folder.write("passwd", "");
    let user = run(Command::new(crate::support::process::darner())
        .args(["mosquitto_passwd", "-H", "sha512", "-b"])
        .arg(&passwd)
        .args(["admin", "admin"]));
    assert_eq!(user.0, 0, "{user:?}");
    std::fs::set_permissions(&passwd, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("ours");
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
    folder.write(
        "mosquitto.conf",
        include_str!("../../conf/seed_004_openshift.conf").replace("password_file pwfile", "password_file /myuser/passwd"),
    );
    folder
}

#[test]
fn the_files_of_the_other_image_work_as_they_are_and_stay_as_they_are() {
    let Some(image) = image() else { return };
    let folder = files_of_the_other_image();
    let contents = || {
        let mut all: Vec<_> = std::fs::read_dir(folder.path()).expect("lists").flatten().map(|entry| entry.path()).collect();
        all.sort();
        all.into_iter().map(|path| (std::fs::read(&path).expect("a file"), path)).collect::<Vec<_>>()
    };
    let before = contents();
    for access in ["ro", "rw"] {
        let mount = format!("{}:/myuser:{access}", folder.path().display());
        let options = ["--user", UID, "-v", &mount, "-p", "127.0.0.1::1883", "-p", "127.0.0.1::8883"];
        let container = Container::start(image, &options, &[]);
        wait_for_health(&container);
        let admin = ["-u", "admin", "-P", "admin"];
        assert_eq!(publish(&container.port(), &admin), (0, String::new()), "{}", container.logs());
        assert_eq!(publish(&container.port(), &["-u", "foo", "-P", "foo"]).0, NOT_AUTHORISED);
        let insecure = ["--insecure", "-u", "admin", "-P", "admin"];
        assert_eq!(publish_over_tls(&container, &folder.path().join("ca.crt"), &insecure), (0, String::new()), "{}", container.logs());
        assert_eq!(worries(&container.logs()), Vec::<&str>::new(), "{}", container.logs());
    }
    assert_eq!(contents(), before);
}

/// Without a volume, as `podman run IMAGE` of the other image: everything is in the container, and goes with it.
#[test]
fn a_container_without_a_volume_has_it_all_in_itself() {
    let Some(image) = image() else { return };
    for user in [UID, "0:0"] {
        let options = ["--user", user, "-p", "127.0.0.1::1883", "-p", "127.0.0.1::8883"];
        let container = Container::start(image, &options, &["mosquitto", "-c", "/myuser/mosquitto.conf"]);
        wait_for_health(&container);
        let password = random_password(&container.logs());
        let folder = Folder::new("authority");
        let authority = fetch_authority(&container, folder.path());
        assert_eq!(publish_over_tls(&container, &authority, &["-u", "admin", "-P", &password]), (0, String::new()), "{}", container.logs());
        docker(&["restart", &container.name]).ok();
        wait_for_health(&container);
        assert_eq!(publish_over_tls(&container, &authority, &["-u", "admin", "-P", &password]), (0, String::new()), "{}", container.logs());
        assert_eq!(container.logs().matches(&password).count(), 1, "{}", container.logs());
    }
}

/// Nothing can be written at all: what the environment says is enough, and nobody gets a random password that would be another one each time.
#[test]
fn a_read_only_container_without_a_volume_serves_the_user_of_its_environment() {
    let Some(image) = image() else { return };
    let options = ["--user", UID, "--read-only", "-e", "DARNER_ADMIN_PASSWORD=secret", "-p", "127.0.0.1::1883", "-p", "127.0.0.1::8883"];
    let container = Container::start(image, &options, &["mosquitto", "-c", "/myuser/mosquitto.conf"]);
    container.wait_for("the user", || publish(&container.port(), &["-u", "admin", "-P", "secret"]).0 == 0);
    assert_eq!(publish(&container.port(), &[]).0, NOT_AUTHORISED);
    // Its authority is in the log; it is the same until the container ends.
    let folder = Folder::new("authority");
    let log = container.logs();
    let authority = log.split_once("Its authority: ").map(|(_, rest)| rest.lines().next().unwrap_or_default()).expect("in the log");
    let authority = folder.write("ca.crt", authority.replace("\\n", "\n"));
    for again in ["reload", "restart"] {
        container.exec(&["darner", again]).ok();
        let admin = ["-u", "admin", "-P", "secret"];
        assert_eq!(publish_over_tls(&container, &authority, &admin), (0, String::new()), "{again}: {}", container.logs());
    }
    assert!(!container.logs().contains("FIRST USER"), "{}", container.logs());
}

/// The manifest beside the compose file, read as a cluster reads it.
#[test]
fn the_manifest_says_what_the_compose_file_and_the_code_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("compose-examples/openshift");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/manifest.py");
    let defaults = Path::new(env!("CARGO_MANIFEST_DIR")).join("defaults/pod/mosquitto.conf");
    // Debian's, which has YAML; that of the tests has not.
    let (code, stdout, stderr) =
        run(Command::new("/usr/bin/python3").arg(script).arg(&examples).arg(&defaults).env("PYTHONDONTWRITEBYTECODE", "1"));
    assert_eq!(code, 0, "{stdout}{stderr}");
}
