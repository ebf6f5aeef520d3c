//! Certificates that darner makes for a TLS listener without files, and how it goes on with them.

use std::path::Path;
use std::process::Command;

use darner::tls::leaf::Leaf;
use darner::tls::self_made::{self, AUTHORITY, Pem, Period};

use super::{Volume, has, is_root, mode_of, owner_of, without_root};
use crate::support::process::{darner, run};

const TLS: &str = "listener 8883\ncafile {root}/config/ca.crt\ncertfile {root}/config/server.crt\nkeyfile {root}/config/server.key\n";

#[test]
fn a_tls_listener_without_any_of_its_files_gets_an_authority_and_a_certificate_of_its_own() {
    let volume = Volume::with_conf(TLS);
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, "listener 8883 uses a SELF-MADE certificate for ");
    for (name, mode) in [("ca.crt", 0o644), ("server.crt", 0o644), ("server.key", 0o600)] {
        assert_eq!(mode_of(&volume.at("config").join(name)), mode, "{name}");
    }
    assert_eq!(owner_of(&volume.at("config/server.key")), owner_of(&volume.at("config/server.crt")));
    let verified = run(Command::new("openssl")
        .args(["verify", "-verify_hostname", "localhost", "-CAfile"])
        .arg(volume.at("config/ca.crt"))
        .arg(volume.at("config/server.crt")));
    assert_eq!(verified.0, 0, "{verified:?}");
    let judged = run(Command::new(darner()).args(["check", "-c"]).arg(volume.at("config/mosquitto.conf")));
    assert_eq!(judged.0, 0, "{judged:?}");
    let before = std::fs::read(volume.at("config/server.crt")).expect("made");
    assert_eq!(volume.repair(&[]).0, 0);
    assert_eq!(std::fs::read(volume.at("config/server.crt")).expect("still there"), before);
}

#[test]
fn a_tls_listener_that_lacks_some_of_its_files_is_told_which_and_nothing_is_made() {
    let volume = Volume::with_conf(TLS);
    volume.put("config/server.key", "mine");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    let at = |name: &str| volume.at("config").join(name).display().to_string();
    has(
        &out,
        &format!(
            "listener 8883: certfile '{}' and cafile '{}' are missing although keyfile '{}' is there",
            at("server.crt"),
            at("ca.crt"),
            at("server.key")
        ),
    );
    assert!(!volume.at("config/server.crt").exists() && !volume.at("config/ca.crt").exists());
    assert_eq!(std::fs::read_to_string(volume.at("config/server.key")).expect("still there"), "mine");
}

const DAY: u64 = 86_400;

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs()
}

fn read(volume: &Volume, name: &str) -> String {
    std::fs::read_to_string(volume.at("config").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn leaf(volume: &Volume) -> Leaf {
    Leaf::of_chain(read(volume, "server.crt").as_bytes()).expect("a certificate")
}

/// Puts a certificate of `authority` into the volume that began `age` days ago and holds for `days`.
fn put(volume: &Volume, authority: &Pem, names: &[&str], age: u64, days: u64) -> Pem {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let period = Period { not_before: now() - age * DAY, not_after: now() - age * DAY + days * DAY };
    let server = self_made::server(&names, period, authority).expect("made");
    volume.put("config/server.crt", &server.certificate);
    volume.put("config/server.key", &server.key);
    server
}

/// A volume that darner made certificates in some time ago: one is left for `left` days.
fn with_certificates(left: u64) -> (Volume, Pem, Pem) {
    let volume = Volume::with_conf(TLS);
    let authority =
        self_made::authority(AUTHORITY, Period { not_before: now() - 1000 * DAY, not_after: now() + 6000 * DAY }).expect("made");
    volume.put("config/ca.crt", &authority.certificate);
    volume.put("config/darner-ca.key", &authority.key);
    let server = put(&volume, &authority, &["localhost"], 820 - left, 820);
    (volume, authority, server)
}

#[test]
fn the_authority_s_key_stays_in_the_volume_and_is_root_s_alone() {
    let volume = Volume::with_conf(TLS);
    let (_, out) = volume.repair(&[]);
    let key = volume.at("config/darner-ca.key");
    assert_eq!(mode_of(&key), if is_root() { 0o1600 } else { 0o600 }, "{out}");
    has(&out, &format!("keep '{}' to yourself", key.display()));
    volume.repair(&["--full"]);
    if is_root() {
        assert_eq!((owner_of(&key), owner_of(&volume.at("config/server.key"))), ((0, 0), super::OWNER));
    }
    assert!(self_made::own_authority(read(&volume, "ca.crt").as_bytes(), read(&volume, "darner-ca.key").as_bytes()).is_some());
}

#[test]
fn the_authority_s_key_stays_root_s_by_whatever_name_and_no_configuration_gets_it() {
    if without_root("a key that is not the broker's") {
        return;
    }
    let volume = Volume::with_conf(TLS);
    volume.repair(&[]);
    let (key, moved) = (volume.at("config/darner-ca.key"), volume.at("config/other.key"));
    // What somebody can do who broke into the broker: the folder is its own.
    std::fs::rename(&key, &moved).expect("it was there");
    volume.repair(&["--full"]);
    assert_eq!((owner_of(&moved), mode_of(&moved)), ((0, 0), 0o1600));
    let conf = volume.at("config/mosquitto.conf");
    std::os::unix::fs::symlink(&moved, volume.at("config/link.key")).expect("a link");
    for name in ["other.key", "link.key"] {
        volume.put(
            "config/mosquitto.conf",
            &TLS.replace("server.crt", "ca.crt").replace("server.key", name).replace("{root}", &volume.at("").display().to_string()),
        );
        let (code, out, err) = run(Command::new(darner()).args(["check", "-c"]).arg(&conf));
        assert!(code != 0 && (out.clone() + &err).contains("Permission denied"), "{name}: {code} {out}{err}");
        let (code, out, err) = run(Command::new("chmod").arg("0600").arg(&moved));
        assert_eq!(code, 0, "{out}{err}");
        assert_eq!(run(Command::new(darner()).args(["check", "-c"]).arg(&conf)).0, 0, "only the mark was in the way");
        assert_eq!(run(Command::new("chmod").arg("1600").arg(&moved)).0, 0);
    }

    // From a backup that knows no such bits.
    volume.put("config/mosquitto.conf", &TLS.replace("{root}", &volume.at("").display().to_string()));
    std::fs::rename(&moved, &key).expect("it was there");
    assert_eq!(run(Command::new("chmod").arg("0600").arg(&key)).0, 0);
    let (_, out) = volume.repair(&[]);
    has(&out, &format!("mode of '{}' changed to 1600: it stays root's", key.display()));
    assert_eq!((owner_of(&key), mode_of(&key)), ((0, 0), 0o1600));
    assert_eq!(volume.repair(&[]).1.lines().count(), 2);
}

#[test]
fn a_certificate_that_ends_soon_is_renewed_by_the_same_authority_for_the_same_key() {
    let (volume, authority, server) = with_certificates(119);
    let (code, out) = volume.repair(&["--dry-run"]);
    assert_eq!(code, 0, "{out}");
    has(&out, "dry run: renewed");
    assert_eq!(read(&volume, "server.crt"), server.certificate);

    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 0, "{out}");
    has(&out, &format!("renewed '{}' of listener 8883: self-made for ", volume.at("config/server.crt").display()));
    assert_ne!(read(&volume, "server.crt"), server.certificate);
    assert_eq!((read(&volume, "server.key"), read(&volume, "ca.crt")), (server.key, authority.certificate));
    assert!(leaf(&volume).not_after as u64 > now() + 800 * DAY);
    assert_eq!(
        (mode_of(&volume.at("config/server.crt")), owner_of(&volume.at("config/server.crt"))),
        (0o644, owner_of(&volume.at("config/server.key")))
    );
    let verified = run(Command::new("openssl")
        .args(["verify", "-verify_hostname", "localhost", "-CAfile"])
        .arg(volume.at("config/ca.crt"))
        .arg(volume.at("config/server.crt")));
    assert_eq!(verified.0, 0, "{verified:?}");
    let judged = run(Command::new(darner()).args(["check", "-c"]).arg(volume.at("config/mosquitto.conf")));
    assert_eq!(judged.0, 0, "{judged:?}");
    let (_, out) = volume.repair(&[]);
    assert_eq!(out.lines().count(), 2, "{out}");
}

#[test]
fn an_expired_one_and_one_of_a_clock_that_was_ahead_are_renewed_too_and_a_good_one_is_not() {
    for (age, days, is_renewed) in [(900, 820, true), (701, 820, true), (699, 820, false), (1, 820, false)] {
        let (volume, authority, _) = with_certificates(500);
        let server = put(&volume, &authority, &["localhost"], age, days);
        let (_, out) = volume.repair(&[]);
        assert_eq!(read(&volume, "server.crt") != server.certificate, is_renewed, "{age} {days}: {out}");
    }
    let (volume, authority, _) = with_certificates(500);
    let names = ["localhost".to_owned()];
    let ahead = self_made::server(&names, Period::around(now() + 4000 * DAY, 820), &authority).expect("made");
    volume.put("config/server.crt", &ahead.certificate);
    volume.put("config/server.key", &ahead.key);
    volume.repair(&[]);
    assert!(leaf(&volume).not_before as u64 <= now());
}

#[test]
fn a_name_that_is_asked_for_is_taken_in_and_the_host_s_own_name_changes_nothing() {
    let (volume, authority, server) = with_certificates(500);
    let (_, out) = volume.repair(&[]);
    assert_eq!(read(&volume, "server.crt"), server.certificate, "this machine's name is not in it: {out}");
    let mut command = volume.command();
    let (code, out) = super::framed(command.env("DARNER_TLS_NAMES", "MQTT.apps.example, 192.0.2.7"));
    assert_eq!(code, 0, "{out}");
    let names = leaf(&volume).names;
    assert!(["mqtt.apps.example", "192.0.2.7", "localhost"].iter().all(|name| names.iter().any(|known| known == name)), "{names:?}");
    assert_eq!((read(&volume, "server.key"), read(&volume, "ca.crt")), (server.key, authority.certificate));
    let renewed = read(&volume, "server.crt");
    let mut command = volume.command();
    super::framed(command.env("DARNER_TLS_NAMES", "mqtt.apps.example"));
    assert_eq!(read(&volume, "server.crt"), renewed, "a name too many is no reason");
}

/// Everything in the volume's folder of certificates, as it is.
fn contents(folder: &Path) -> Vec<(String, String)> {
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .expect("lists")
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path()).expect("text")))
        .collect();
    all.sort();
    all
}

#[test]
fn what_anybody_else_made_is_never_touched() {
    let own = self_made::authority("acme", Period { not_before: 0, not_after: now() + 6000 * DAY }).expect("made");
    let (volume, authority, _) = with_certificates(1);
    let config = volume.at("config");
    // Somebody's authority in the place of ours; ours without its key; a server's certificate of somebody else beside our authority.
    let somebodys: [&dyn Fn(); 3] = [
        &|| {
            volume.put("config/ca.crt", &own.certificate);
            volume.put("config/darner-ca.key", &own.key);
            put(&volume, &own, &["localhost"], 819, 820);
        },
        &|| {
            volume.put("config/ca.crt", &authority.certificate);
            put(&volume, &authority, &["localhost"], 700, 820);
            std::fs::remove_file(volume.at("config/darner-ca.key")).expect("it was there");
        },
        &|| {
            volume.put("config/darner-ca.key", &authority.key);
            let impostor = self_made::authority(AUTHORITY, Period { not_before: 0, not_after: now() + 6000 * DAY }).expect("made");
            put(&volume, &impostor, &["localhost"], 819, 820);
        },
    ];
    for prepare in somebodys {
        prepare();
        volume.repair(&[]);
        let before = contents(&config);
        let mut command = volume.command();
        let (_, out) = super::framed(command.env("DARNER_TLS_NAMES", "other.example"));
        assert_eq!(contents(&config), before, "{out}");
    }
}

#[test]
fn without_the_authority_s_key_the_end_is_told() {
    let (volume, _, server) = with_certificates(30);
    std::fs::remove_file(volume.at("config/darner-ca.key")).expect("it was there");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, "ends soon, and without");
    assert_eq!(read(&volume, "server.crt"), server.certificate);
}

#[test]
fn a_crash_at_any_file_is_gone_on_from() {
    let volume = Volume::with_conf(TLS);
    volume.repair(&[]);
    let made: Vec<_> = ["darner-ca.key", "ca.crt", "server.key", "server.crt"].iter().map(|name| (*name, read(&volume, name))).collect();
    for there in 0..made.len() {
        for (name, _) in &made {
            let _ = std::fs::remove_file(volume.at("config").join(name));
        }
        for (name, text) in made.iter().take(there) {
            volume.put(&format!("config/{name}"), text);
        }
        let (_, out) = volume.repair(&[]);
        has(&out, "listener 8883 uses a SELF-MADE certificate for ");
        for (name, text) in made.iter().take(there) {
            assert_eq!(read(&volume, name), *text, "{there} {name}: {out}");
        }
        let judged = run(Command::new(darner()).args(["check", "-c"]).arg(volume.at("config/mosquitto.conf")));
        assert_eq!(judged.0, 0, "{there}: {judged:?}");
        let verified =
            run(Command::new("openssl").args(["verify", "-CAfile"]).arg(volume.at("config/ca.crt")).arg(volume.at("config/server.crt")));
        assert_eq!(verified.0, 0, "{there}: {verified:?}");
    }
}

#[test]
fn two_listeners_share_an_authority() {
    let volume = Volume::with_conf(&format!(
        "{TLS}listener 8083\nprotocol websockets\ncafile {{root}}/config/ca.crt\ncertfile {{root}}/config/ws.crt\nkeyfile {{root}}/config/ws.key\n"
    ));
    let (_, out) = volume.repair(&[]);
    has(&out, "listener 8083 uses a SELF-MADE certificate for ");
    for name in ["server.crt", "ws.crt"] {
        let verified =
            run(Command::new("openssl").args(["verify", "-CAfile"]).arg(volume.at("config/ca.crt")).arg(volume.at("config").join(name)));
        assert_eq!(verified.0, 0, "{name}: {verified:?}");
    }
}

#[test]
fn an_authority_without_its_key_is_not_overwritten() {
    let volume = Volume::with_conf("listener 8883\ncertfile {root}/config/server.crt\nkeyfile {root}/config/server.key\n");
    volume.put("config/darner-ca.crt", "somebody's");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, "is there without its key");
    assert!(!volume.at("config/server.key").exists());
    std::fs::remove_file(volume.at("config/darner-ca.crt")).expect("it was there");
    volume.repair(&[]);
    assert!(volume.at("config/darner-ca.key").exists() && volume.at("config/server.crt").exists());
}

#[test]
fn containers_that_start_on_the_same_empty_volume_leave_files_that_belong_together() {
    for _ in 0..5 {
        let volume = Volume::with_conf(TLS);
        let children: Vec<_> = (0..4).map(|_| volume.command().stdout(std::process::Stdio::null()).spawn().expect("it starts")).collect();
        for mut child in children {
            child.wait().expect("it ends");
        }
        volume.repair(&[]);
        let judged = run(Command::new(darner()).args(["check", "-c"]).arg(volume.at("config/mosquitto.conf")));
        assert_eq!(judged.0, 0, "{judged:?}");
        let verified =
            run(Command::new("openssl").args(["verify", "-CAfile"]).arg(volume.at("config/ca.crt")).arg(volume.at("config/server.crt")));
        assert_eq!(verified.0, 0, "{verified:?}");
        assert!(self_made::own_authority(read(&volume, "ca.crt").as_bytes(), read(&volume, "darner-ca.key").as_bytes()).is_some());
    }
}
