//! The volumes of the image with mosquitto and certbot (seed 002) under darner: `/mosquitto/conf` instead of `/mosquitto/config`, files
//! of its user 100:101, certbot's own `/etc/letsencrypt`, `/restart.sh`.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use crate::acme_worker::pebble::Pebble;
use crate::certificates::certbot;
use crate::support::docker::{Container, image};
use crate::support::process::{Engine, Folder, darner, run};
use crate::support::published::{DOMAIN, ORDER, Ports, ca_for_containers};

/// What the seed's documents have its users write; only the place of the password file differs in the copy for other tests.
fn configuration() -> String {
    include_str!("../../conf/seed_002_certbot.conf").replace("password_file pwfile", "password_file /mosquitto/conf/passwd")
}

/// `docker run` as in the seed's compose file, on the folders `mosquitto/…` and `letsencrypt` of `folder`.
fn start(image: &str, engine: Engine, folder: &Folder, ca: &Pebble, ports: &Ports, mounts: &[&str]) -> Container {
    let [(_, directory), (_, ca_file), _] = ca.environment();
    let mut options: Vec<String> = engine.options(folder).into();
    for variable in
        [format!("DOMAIN={DOMAIN}"), "EMAIL=info@mqtt.test".into(), format!("ACME_DIRECTORY={directory}"), "ACME_CA_FILE=/ca.pem".into()]
    {
        options.extend(["-e".into(), variable]);
    }
    options.extend(["-v".into(), format!("{ca_file}:/ca.pem:ro"), "--add-host".into(), format!("{DOMAIN}:127.0.0.1")]);
    for mount in mounts {
        options.extend(["-v".into(), format!("{}/{mount}", folder.path().display())]);
    }
    for (inside, outside) in ports.pairs() {
        options.extend(["-p".into(), format!("127.0.0.1:{outside}:{inside}")]);
    }
    let container = Container::start(image, &options.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
    container
}

/// As the seed's users and its image do: everything to 100:101, files 0600, folders 0700.
fn give_to_the_seed_s_user(folder: &Path) {
    for entry in walkdir::WalkDir::new(folder).into_iter().filter_map(Result::ok) {
        let mode = if entry.file_type().is_dir() { 0o700 } else { 0o600 };
        std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(mode)).expect("ours");
        chown(entry.path(), Some(100), Some(101)).expect("root");
    }
}

fn publish(port: &str, credentials: &[&str]) -> i32 {
    run(Command::new("mosquitto_pub").args(["-h", "127.0.0.1", "-p", port, "-t", "t", "-m", "m", "-q", "1"]).args(credentials)).0
}

const VOLUMES: [&str; 3] = ["mosquitto/conf:/mosquitto/conf", "mosquitto/log:/mosquitto/log", "letsencrypt:/etc/letsencrypt"];

#[test]
fn everything_is_taken_over_as_it_is() {
    let Some(image) = image() else { return };
    let ca = ca_for_containers();
    let ports = Ports::new(&ca);
    let folder = Folder::new("certbot-volumes");
    certbot::obtain(&ca, &folder.path().join("letsencrypt"), &["-m", "info@mqtt.test", "--no-eff-email"]);
    let text = configuration();
    let conf = folder.write("mosquitto/conf/mosquitto.conf", &text);
    let log = folder.write("mosquitto/log/mosquitto.log", "1700000000: an older line\n");
    let passwd = folder.write("mosquitto/conf/passwd", "");
    // Its mosquitto 1.6 hashed like this.
    assert_eq!(
        run(Command::new(darner()).args(["mosquitto_passwd", "-H", "sha512", "-b"]).arg(&passwd).args(["firstuser", "firstPwd"])).0,
        0
    );
    assert!(std::fs::read_to_string(&passwd).expect("the file").starts_with("firstuser:$6$"));
    give_to_the_seed_s_user(&folder.path().join("mosquitto"));

    let container = start(image, Engine::Core, &folder, &ca, &ports, &VOLUMES);
    assert!(ports.serve_the_ca_s(), "{}", container.logs());
    let kept = std::fs::read_to_string(folder.path().join("letsencrypt/live/mqtt.test/cert.pem")).expect("certbot's");
    assert!(kept.contains(&ports.leaf()), "{}", container.logs());
    let user = ["-u", "firstuser", "-P", "firstPwd"];
    assert_eq!((publish(&ports.plain, &user), publish(&ports.plain, &[])), (0, 5), "{}", container.logs());
    // cafile names the chain: nobody is asked for a certificate.
    assert_eq!(ports.publish_over_tls("firstuser", "firstPwd"), 0, "{}", container.logs());
    assert_eq!(ports.through_websockets("firstuser", "firstPwd"), 0, "{}", container.logs());

    let check = container.exec(&["darner", "check"]);
    assert_eq!(check.code, 0, "{}", check.said());
    container.exec(&["mosquitto_passwd", "-b", "/mosquitto/conf/passwd", "second", "secondPwd"]).ok();
    assert_eq!(publish(&ports.plain, &["-u", "second", "-P", "secondPwd"]), 5, "not yet");
    container.exec(&["/restart.sh"]).ok();
    assert_eq!(publish(&ports.plain, &["-u", "second", "-P", "secondPwd"]), 0, "{}", container.logs());

    // The older spelling of a listener, and the name that the seed's image would have replaced.
    std::fs::write(&conf, text.replace("listener 1883\nprotocol mqtt", "port 1883")).expect("the file");
    container.exec(&["/restart.sh"]).ok();
    assert_eq!((publish(&ports.plain, &user), publish(&ports.plain, &[])), (0, 5), "{}", container.logs());
    std::fs::write(&conf, text.replace("mqtt.example.org", DOMAIN)).expect("the file");
    container.exec(&["/restart.sh"]).ok();
    assert!(ports.serve_the_ca_s() && publish(&ports.plain, &user) == 0, "{}", container.logs());

    assert!(std::fs::read_to_string(&log).expect("the log").contains("an older line"));
    let owner = std::fs::metadata(&log).expect("the log");
    assert_eq!((owner.uid(), owner.gid(), owner.mode() & 0o777), (1883, 1883, 0o600));
    assert!(!container.exec(&["ls", "/mosquitto/config"]).ok().contains("mosquitto.conf"), "there is one configuration");
    assert_eq!(ca.count(ORDER), 1, "certbot's: {}", container.logs());
    let renewal = container.exec(&["darner", "cert", "renew", "--force"]);
    assert_eq!(renewal.code, 0, "{}\n{}", renewal.said(), container.logs());
    container.wait_for("the next certificate", || ports.serve_the_ca_s() && !kept.contains(&ports.leaf()));
    assert_eq!(ca.count("There are now 2 accounts in memory"), 0, "certbot's account goes on");
}

#[test]
fn an_empty_volume_gets_a_configuration_for_the_domain() {
    let Some(image) = image() else { return };
    for (engine, volume, passwd) in [
        (Engine::Core, "mosquitto/conf:/mosquitto/conf", "/mosquitto/conf/passwd"),
        (Engine::Rumqttd, "mosquitto/config:/mosquitto/config", "/mosquitto/pwfile/pwfile"),
    ] {
        let ca = ca_for_containers();
        let ports = Ports::new(&ca);
        let folder = Folder::new("empty-volumes");
        let container = start(image, engine, &folder, &ca, &ports, &[volume, "letsencrypt:/etc/letsencrypt"]);
        container.wait_for("the CA's certificate to be served", || ports.serve_the_ca_s());
        assert_eq!(publish(&ports.plain, &[]), 5, "nobody without a password: {}", container.logs());
        container.exec(&["mosquitto_passwd", "-b", passwd, "firstuser", "firstPwd"]).ok();
        container.exec(&["/restart.sh"]).ok();
        assert_eq!(publish(&ports.plain, &["-u", "firstuser", "-P", "firstPwd"]), 0, "{}", container.logs());
        assert_eq!(ports.publish_over_tls("firstuser", "firstPwd"), 0, "{}", container.logs());
        assert_eq!(ports.through_websockets("firstuser", "firstPwd"), 0, "{}", container.logs());
        let made = volume.split(':').next().unwrap_or_default();
        let text = std::fs::read_to_string(folder.path().join(made).join("mosquitto.conf")).expect("made");
        assert!(text.contains("/etc/letsencrypt/live/mqtt.test/") && !text.contains("mqtt.example.org"), "{text}");
    }
}

#[test]
fn an_empty_conf_volume_without_a_domain_is_no_open_broker() {
    let Some(image) = image() else { return };
    let folder = Folder::new("no-domain");
    let mount = format!("{}:/mosquitto/conf", folder.path().display());
    let container = Container::start(image, &["-v", &mount, "-p", "127.0.0.1::1883"], &[]);
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
    assert_eq!(publish(&container.port(), &[]), 5, "{}", container.logs());
    container.exec(&["mosquitto_passwd", "-b", "/mosquitto/conf/passwd", "firstuser", "firstPwd"]).ok();
    container.exec(&["/restart.sh"]).ok();
    assert_eq!(publish(&container.port(), &["-u", "firstuser", "-P", "firstPwd"]), 0, "{}", container.logs());
    assert!(folder.path().join("mosquitto.conf").exists() && container.exec(&["darner", "check"]).code == 0);
}

#[test]
fn without_a_domain_the_log_says_what_its_tls_listeners_wait_for() {
    let Some(image) = image() else { return };
    let folder = Folder::new("no-domain");
    folder.write("mosquitto.conf", configuration());
    let mount = format!("{}:/mosquitto/conf", folder.path().display());
    let container = Container::start(image, &["-v", &mount, "-e", "DARNER_PATIENCE_SECS=0"], &[]);
    assert_eq!(container.wait_until_ended(), "1");
    let log = container.logs();
    for part in
        ["/etc/letsencrypt/live/mqtt.example.org/chain.pem", "DOMAIN is not: set both, or mount the folder in which certbot keeps them"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn the_user_of_the_other_image_keeps_its_files_where_puid_and_pgid_name_it() {
    let Some(image) = image() else { return };
    let folder = Folder::new("puid");
    let passwd = folder.write("mosquitto/conf/passwd", "");
    folder.write("mosquitto/conf/mosquitto.conf", "listener 1883\nallow_anonymous false\npassword_file /mosquitto/conf/passwd\n");
    give_to_the_seed_s_user(&folder.path().join("mosquitto"));
    let mount = format!("{}/mosquitto/conf:/mosquitto/conf", folder.path().display());
    let container = Container::start(image, &["-v", &mount, "-e", "PUID=100", "-e", "PGID=101", "-p", "127.0.0.1::1883"], &[]);
    container.wait_for("health", || container.exec(&["darner", "healthcheck"]).code == 0);
    container.exec(&["mosquitto_passwd", "-b", "/mosquitto/conf/passwd", "firstuser", "firstPwd"]).ok();
    container.exec(&["/restart.sh"]).ok();
    assert_eq!(publish(&container.port(), &["-u", "firstuser", "-P", "firstPwd"]), 0, "{}", container.logs());
    let owner = std::fs::metadata(&passwd).expect("the file");
    assert_eq!((owner.uid(), owner.gid(), owner.mode() & 0o777), (100, 101, 0o600));
}
