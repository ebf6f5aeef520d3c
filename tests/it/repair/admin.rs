//! The first user: who gets one, and who is left alone.

use std::process::Command;

use super::{Volume, framed, has, mode_of, owner_of};
use crate::support::process::{darner, run};

const CLOSED: &str = "listener 1883\nallow_anonymous false\npassword_file {root}/config/passwd\n";
const OPEN: &str = "listener 1883\nallow_anonymous true\npassword_file {root}/config/passwd\n";

/// What is in the password file.
fn users(volume: &Volume) -> String {
    std::fs::read_to_string(volume.at("config/passwd")).expect("a password file")
}

/// Repairs with variables, and gives exit code and lines.
fn repair(volume: &Volume, variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = volume.command();
    if super::is_root() {
        command.args(["--owner", "1883:1883"]);
    }
    let (code, out, err) = run(command.envs(variables.iter().copied()));
    assert!(code == 0 || code == 1, "exit code {code}\n{out}\n{err}");
    (code, out)
}

/// The password in the line that shows it.
fn shown(out: &str) -> Option<String> {
    let (_, rest) = out.split_once("with the random PASSWORD ")?;
    Some(rest.split_whitespace().next().expect("a word").to_owned())
}

/// Whether the password opens the file.
fn opens(volume: &Volume, user: &str, password: &str) -> bool {
    let text = users(volume);
    let line = text.lines().find(|line| line.starts_with(&format!("{user}:"))).expect("the user");
    let hash = darner::access::password_hash::PasswordHash::parse(&line[user.len() + 1..]).expect("a hash");
    hash.verify(password.as_bytes())
}

#[test]
fn nobody_is_made_where_nobody_was_asked_for() {
    for conf in [CLOSED, OPEN] {
        let volume = Volume::with_conf(conf);
        let (_, out) = repair(&volume, &[("DARNER_ADMIN_PASSWORD", ""), ("DARNER_ADMIN_USER", "")]);
        assert_eq!(users(&volume), "", "{out}");
        assert_eq!(shown(&out), None);
    }
    // IOTstack's volumes, with and without: its configuration names no password file.
    let volume = Volume::new();
    let (code, out) = repair(&volume, &[("DARNER_ADMIN_PASSWORD", "secret")]);
    assert_eq!(code, 1, "{out}");
    has(&out, "DARNER_ADMIN_PASSWORD is set, but the configuration names no password_file");
    assert_eq!(std::fs::read_to_string(volume.at("pwfile/pwfile")).expect("the default"), "");
}

#[test]
fn a_password_from_the_environment_makes_the_first_user_in_a_missing_or_empty_file() {
    for conf in [CLOSED, OPEN] {
        for is_there in [false, true] {
            let volume = Volume::with_conf(conf);
            if is_there {
                volume.put("config/passwd", "");
            }
            let (code, out) = repair(&volume, &[("DARNER_ADMIN_PASSWORD", "se cret")]);
            assert_eq!(code, 0, "{out}");
            assert!(opens(&volume, "admin", "se cret") && !out.contains("se cret") && users(&volume).lines().count() == 1, "{out}");
            let passwd = volume.at("config/passwd");
            assert_eq!((mode_of(&passwd), owner_of(&passwd)), (0o600, owner_of(&volume.at("config/mosquitto.conf"))));
            let before = users(&volume);
            let (_, out) = repair(&volume, &[("DARNER_ADMIN_PASSWORD", "another")]);
            assert_eq!((users(&volume), out.lines().count()), (before, 2), "once: {out}");
        }
    }
}

#[test]
fn the_password_can_be_in_a_file_and_the_user_can_have_another_name() {
    let volume = Volume::with_conf(CLOSED);
    let secret = volume.host.write("secret", "from a file\n").display().to_string();
    let variables = [("DARNER_ADMIN_PASSWORD_FILE", secret.as_str()), ("DARNER_ADMIN_USER", "chief")];
    std::fs::rename(&secret, volume.host.path().join("away")).expect("ours");
    let (code, out) = repair(&volume, &variables);
    assert_eq!((code, users(&volume)), (1, String::new()), "{out}");
    has(&out, "DARNER_ADMIN_PASSWORD_FILE");
    std::fs::rename(volume.host.path().join("away"), &secret).expect("ours");
    let (code, out) = repair(&volume, &variables);
    assert_eq!(code, 0, "{out}");
    assert!(opens(&volume, "chief", "from a file"), "{out}");
}

#[test]
fn a_name_that_cannot_be_a_user_s_is_told() {
    let volume = Volume::with_conf(CLOSED);
    let (code, out) = repair(&volume, &[("DARNER_ADMIN_USER", "a:b"), ("DARNER_ADMIN_PASSWORD", "x")]);
    assert_eq!((code, users(&volume)), (1, String::new()), "{out}");
    has(&out, "Username must not contain the ':' character.");
}

#[test]
fn who_asks_for_a_user_without_a_password_gets_a_random_one_that_is_shown_once() {
    let volume = Volume::with_conf(CLOSED);
    let asked = [("DARNER_ADMIN_USER", "chief")];
    let mut dry = volume.command();
    let (_, out) = framed(dry.arg("--dry-run").envs(asked));
    assert!(shown(&out).is_none() && !volume.at("config/passwd").exists(), "{out}");
    let (code, out) = repair(&volume, &asked);
    assert_eq!(code, 0, "{out}");
    let password = shown(&out).expect("a password");
    assert!(opens(&volume, "chief", &password) && out.matches(&password).count() == 1, "{out}");
    let before = users(&volume);
    let (_, out) = repair(&volume, &asked);
    assert_eq!((users(&volume), out.lines().count()), (before, 2), "{out}");
    // Lost: the file is removed, and another one is made.
    std::fs::remove_file(volume.at("config/passwd")).expect("it was there");
    let (_, out) = repair(&volume, &asked);
    assert!(shown(&out).is_some_and(|again| again != password && opens(&volume, "chief", &again)), "{out}");
    // A door that is open needs no key.
    let open = Volume::with_conf(OPEN);
    let (_, out) = repair(&open, &asked);
    assert_eq!((users(&open), shown(&out)), (String::new(), None), "{out}");
}

#[test]
fn users_that_are_there_are_never_touched() {
    let volume = Volume::with_conf(CLOSED);
    for text in ["hello:$6$x$y\n", "# nobody yet\n"] {
        volume.put("config/passwd", text);
        let (_, out) = repair(&volume, &[("DARNER_ADMIN_USER", "chief"), ("DARNER_ADMIN_PASSWORD", "x")]);
        assert_eq!(users(&volume), text, "{out}");
    }
}

#[test]
fn a_link_in_the_volume_is_not_written_through() {
    let volume = Volume::with_conf(CLOSED);
    let outside = volume.host.write("outside", "");
    std::os::unix::fs::symlink(&outside, volume.at("config/passwd")).expect("a link");
    repair(&volume, &[("DARNER_ADMIN_PASSWORD", "x")]);
    assert_eq!(std::fs::read_to_string(outside).expect("still there"), "");
}

#[test]
fn in_a_pod_s_folder_there_is_a_first_user_and_a_certificate_from_the_start() {
    let volume = Volume::new();
    let pod = volume.host.path().join("myuser");
    std::fs::create_dir(&pod).expect("a folder");
    let conf = pod.join("mosquitto.conf");
    let repair = || run(Command::new(darner()).args(["repair", "--root"]).arg(&pod).arg("-c").arg(&conf));
    let (_, out, err) = repair();
    let password = shown(&out).unwrap_or_else(|| panic!("{out}{err}"));
    let mut names: Vec<_> =
        std::fs::read_dir(&pod).expect("lists").flatten().map(|entry| entry.file_name().into_string().expect("text")).collect();
    names.sort();
    assert_eq!(names, ["ca.crt", "darner-ca.key", "data", "mosquitto.conf", "passwd", "server.crt", "server.key"], "{out}");
    let judged = run(Command::new(darner()).args(["check", "-c"]).arg(&conf));
    assert_eq!(judged.0, 0, "{judged:?}");
    assert!(!out.contains("filter.acl") && std::fs::read_to_string(pod.join("passwd")).expect("made").starts_with("admin:$7$"), "{out}");
    let (code, again, _) = repair();
    assert_eq!((code, again.lines().count()), (0, 2), "{again}");
    assert!(!again.contains(&password));

    // An empty file was put there by somebody: only those who ask get a user.
    std::fs::write(pod.join("passwd"), "").expect("ours");
    assert_eq!(shown(&repair().1), None);
    assert_eq!(std::fs::read_to_string(pod.join("passwd")).expect("still there"), "");
}

#[test]
fn a_file_that_cannot_be_written_has_the_given_user_in_memory_and_no_random_one() {
    if super::without_root("a mount") {
        return;
    }
    let volume = Volume::with_conf(CLOSED);
    let read_only = |variable: &str| {
        volume.repair_in_namespace(&format!(
            "mount --bind $root/config $root/config; mount -o remount,bind,ro $root/config; {variable} $repair"
        ))
    };
    let (code, out) = read_only("DARNER_ADMIN_PASSWORD=secret");
    assert_eq!(code, 1, "{out}");
    has(&out, "read-only: 1 item could not be restored (passwd): using built-in defaults");
    let (code, out) = read_only("DARNER_ADMIN_USER=chief");
    assert_eq!((code, shown(&out)), (1, None), "{out}");
    has(&out, "no first user with a random password is made");
}
