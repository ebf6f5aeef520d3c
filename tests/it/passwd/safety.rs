//! Whatever happens, no entry is lost.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::{entry, is_root, passwords, succeed, text, tool};
use crate::support::process::{Folder, darner, run};

#[test]
fn a_file_without_a_last_newline_is_added_to_properly() {
    let folder = Folder::new("passwd");
    let old = entry("sub", "tiguitto");
    let path = folder.write("pw", &old);
    tool(&["-b", path.to_str().expect("text"), "tignew", "p"]);
    assert!(text(&path).starts_with(&format!("{old}\ntignew:$7$")));
    assert!(passwords(&path).verify("sub", b"tiguitto") && passwords(&path).verify("tignew", b"p"));
}

#[test]
fn comments_blank_and_broken_lines_are_kept_byte_for_byte() {
    let folder = Folder::new("passwd");
    let before = format!("# first\n\n{}\n  \nbroken line\n\u{fc}ser:\u{0}\n# last", entry("a", "b"));
    let path = folder.write("pw", &before);
    tool(&["-b", path.to_str().expect("text"), "new", "p"]);
    assert!(text(&path).starts_with(&format!("{before}\nnew:$7$")));
    tool(&["-D", path.to_str().expect("text"), "new"]);
    assert_eq!(text(&path), format!("{before}\n"));
}

/// A second name makes replacing by rename impossible: the file is changed in place.
fn second_name(path: &Path) {
    std::fs::hard_link(path, path.with_extension("second")).expect("a hard link");
}

#[test]
fn in_place_changes_do_the_same_as_replacing() {
    let folder = Folder::new("passwd");
    let path = folder.write("pw", format!("# c\n{}\nplain:te:xt\n{}", entry("a", "1"), entry("z", "1")));
    second_name(&path);
    let pw = path.to_str().expect("text");
    for arguments in [&["-b", pw, "new", "p"][..], &["-b", pw, "a", "2"], &["-b", pw, "a", "3"], &["-U", pw], &["-D", pw, "z"]] {
        let (code, ..) = tool(arguments);
        assert_eq!(code, 0, "{arguments:?}");
    }
    let users = passwords(&path);
    assert!(users.verify("new", b"p") && users.verify("a", b"3") && users.verify("plain", b"te:xt") && !users.contains("z"));
    assert!(text(&path).starts_with("# c\n") && !text(&path).contains("te:xt"), "{}", text(&path));
    assert_eq!(text(&path), text(&path.with_extension("second")));
    let before = text(&path);
    tool(&["-b", pw, "a", "4"]);
    assert!(passwords(&path).verify("a", b"4") && text(&path).len() == before.len(), "an entry of the same length grows nothing");
    tool(&["-c", "-b", pw, "only", "p"]);
    assert!(text(&path).starts_with("only:$7$") && text(&path).lines().count() == 1);
}

/// Kills the tool at random moments and checks after each that every user of `before` is still there.
fn survive_kills(in_place: bool) {
    const USERS: usize = 300;
    let folder = Folder::new("passwd");
    let before: Vec<String> = (0..USERS).map(|n| entry(&format!("user{n}"), "old")).collect();
    let path = folder.write("pw", before.join("\n"));
    if in_place {
        second_name(&path);
    }
    let pw = path.to_str().expect("text");
    let mut killed = 0;
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..60 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let username = if round % 2 == 0 { format!("user{}", seed >> 33 & 0xff) } else { format!("new{round}") };
        let mut child = Command::new(darner())
            .args(["mosquitto_passwd", "-I", "1", "-b", pw, &username, "new"])
            .stderr(Stdio::null())
            .spawn()
            .expect("the tool starts");
        std::thread::sleep(Duration::from_micros(seed >> 20 & 0x1fff));
        let _ = child.kill();
        killed += usize::from(child.wait().expect("the tool ends").code().is_none());
        let users = passwords(&path);
        for n in 0..USERS {
            assert!(users.contains(&format!("user{n}")), "user{n} is lost in round {round}");
        }
        assert!(users.verify(&username, b"new") || round % 2 == 1 && !users.contains(&username) || users.verify(&username, b"old"));
    }
    assert!(killed > 0, "no run was killed midway");
    // And what the killed ones left behind disturbs nobody.
    tool(&["-b", pw, "after", "p"]);
    assert!(passwords(&path).verify("after", b"p"));
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), if in_place { 2 } else { 1 }, "{left:?}");
}

#[test]
fn a_kill_midway_loses_nothing() {
    survive_kills(false);
}

#[test]
fn a_kill_midway_loses_nothing_in_place() {
    survive_kills(true);
}

#[test]
fn many_at_once_lose_nothing() {
    for in_place in [false, true] {
        let folder = Folder::new("passwd");
        let path = folder.write("pw", "");
        if in_place {
            second_name(&path);
        }
        let children: Vec<_> = (0..20)
            .map(|n| {
                let mut command = Command::new(darner());
                command.args(["mosquitto_passwd", "-b"]).arg(&path).args([format!("user{n}"), "p".into()]);
                command.stderr(Stdio::null()).spawn().expect("the tool starts")
            })
            .collect();
        for mut child in children {
            assert!(child.wait().expect("the tool ends").success());
        }
        let users = passwords(&path);
        for n in 0..20 {
            assert!(users.contains(&format!("user{n}")), "user{n} is lost");
        }
    }
}

#[test]
fn a_bind_mounted_file_is_changed_in_place() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("passwd");
    let (host, mounted) = (folder.write("host", entry("a", "1")), folder.write("container/pw", ""));
    let script = r#"mount --bind "$1" "$2" && "$3" mosquitto_passwd -b "$2" new p && "$3" mosquitto_passwd -b "$2" a 2 && echo changed
        mount -o remount,bind,ro "$2" && "$3" mosquitto_passwd -b "$2" another p; echo "$?""#;
    let (code, out, err) = run(Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).args([&host, &mounted]).arg(darner()));
    if !out.starts_with("changed") && (code == 127 || err.contains("unshare failed") || err.contains("permission denied")) {
        return;
    }
    assert_eq!(out, "changed\n1\n", "{err}");
    assert!(err.contains("for writing. Read-only file system."), "{err}");
    let users = passwords(&host);
    assert!(users.verify("new", b"p") && users.verify("a", b"2") && !users.contains("another"));
    assert_eq!(std::fs::read_dir(folder.path().join("container")).expect("the folder").count(), 1);
}

#[test]
fn a_folder_without_write_permission_does_not_matter() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let folder = Folder::new("passwd");
    let path = folder.write("ro/pw", entry("a", "1"));
    if is_root() {
        std::os::unix::fs::chown(&path, Some(1883), Some(1883)).expect("an owner");
    }
    std::fs::set_permissions(folder.path().join("ro"), std::fs::Permissions::from_mode(0o555)).expect("a mode");
    let mut command = Command::new(darner());
    command.args(["mosquitto_passwd", "-b"]).arg(&path).args(["new", "p"]);
    if is_root() {
        if run(Command::new(darner()).arg("--no-such").uid(1883).gid(1883)).0 == -1 {
            return;
        }
        command.uid(1883).gid(1883);
    }
    let (code, _, err) = run(&mut command);
    std::fs::set_permissions(folder.path().join("ro"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    assert_eq!(code, 0, "{err}");
    assert!(passwords(&path).verify("new", b"p") && passwords(&path).verify("a", b"1"));
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    if !is_root() {
        return;
    }
    let folder = Folder::new("passwd");
    let entries: Vec<String> = (0..60).map(|n| entry(&format!("user{n}"), "p")).collect();
    let source = folder.write("source", entries.join("\n"));
    std::fs::create_dir(folder.path().join("disk")).expect("a folder");
    let script = r#"mount -t tmpfs -o size=12k none "$1" && cp "$2" "$1/pw" && ln "$1/pw" "$1/second" && { cat /dev/zero > "$1/full"; true; } 2>/dev/null
        "$3" mosquitto_passwd -b "$1/pw" "$(printf %4000s | tr ' ' x)" p; echo "$?"; cmp "$1/pw" "$2" && echo same"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).args([&folder.path().join("disk"), &source]).arg(darner());
    let (_, out, err) = run(&mut command);
    if err.contains("unshare failed") || err.contains("permission denied") {
        return;
    }
    assert_eq!(out, "1\nsame\n", "{err}");
    assert!(err.contains("No space left on device"), "{err}");
}

#[test]
fn success_is_silent() {
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    succeed(&["-c", "-b", path.to_str().expect("text"), "u", "p"]);
    succeed(&["-U", path.to_str().expect("text")]);
}
