//! Passwords that are typed.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

use super::passwords;
use crate::support::process::{Folder, darner, wait_until};

/// Runs the tool with `typed` as its stdin: (exit code, stdout, stderr).
fn with_input(arguments: &[&str], typed: &str) -> (i32, String, String) {
    let mut child = Command::new(darner())
        .arg("mosquitto_passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("typed");
    let output = child.wait_with_output().expect("the tool ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn a_password_is_asked_for_twice() {
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    let pw = path.to_str().expect("text");
    let prompts = "Password: \nReenter password: \n".to_owned();
    assert_eq!(with_input(&["-c", pw, "u"], "se cret\nse cret\n"), (0, prompts.clone(), String::new()));
    assert!(passwords(&path).verify("u", b"se cret"));
    assert_eq!(with_input(&[pw, "u"], "one\ntwo\n"), (2, prompts, "Error: Passwords do not match.\n".into()));
    assert_eq!(with_input(&[pw, "u"], "\n\n"), (1, "Password: \n".into(), "Error: Empty password.\n".into()));
    assert_eq!(with_input(&[pw, "u"], ""), (1, "Password: \n".into(), "Error: Empty password.\n".into()));
    assert!(passwords(&path).verify("u", b"se cret"), "a failed change changes nothing");
    let (code, out, err) = with_input(&["-c", "-", "u"], "x\nx\n");
    assert!(code == 0 && out.starts_with("u:$7$") && out.lines().count() == 1 && err.contains("Password: "), "{out}{err}");
}

#[test]
fn a_terminal_does_not_show_the_password() {
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
    let mut child = Command::new(darner())
        .args(["mosquitto_passwd", "-c"])
        .arg(&path)
        .arg("u")
        .stdin(slave.try_clone().expect("a terminal"))
        .stdout(slave.try_clone().expect("a terminal"))
        .spawn()
        .expect("the tool starts");
    let mut terminal = std::fs::File::from(master.try_clone().expect("a terminal"));
    let mut seen = String::new();
    for prompt in ["Password: ", "Reenter password: "] {
        let mut chunk = [0; 256];
        while !seen.ends_with(prompt) {
            let len = terminal.read(&mut chunk).expect("the prompt");
            seen.push_str(&String::from_utf8_lossy(&chunk[..len]));
        }
        wait_until("echo to be off", || !tcgetattr(master.as_fd()).expect("a terminal").local_flags.contains(LocalFlags::ECHO));
        terminal.write_all(b"hidden-word\n").expect("typed");
    }
    assert!(child.wait().expect("the tool ends").success());
    assert!(!seen.contains("hidden"), "{seen:?}");
    assert!(tcgetattr(slave.as_fd()).expect("a terminal").local_flags.contains(LocalFlags::ECHO));
    assert!(passwords(&path).verify("u", b"hidden-word"));
}

#[test]
fn giving_up_leaves_the_terminal_with_echo() {
    let folder = Folder::new("passwd");
    let OpenptyResult { master, slave } = openpty(None, None).expect("a terminal");
    let mut child = Command::new(darner())
        .args(["mosquitto_passwd", "-c"])
        .arg(folder.path().join("pw"))
        .arg("u")
        .stdin(slave.try_clone().expect("a terminal"))
        .stdout(Stdio::null())
        .spawn()
        .expect("the tool starts");
    let echo = || tcgetattr(master.as_fd()).expect("a terminal").local_flags.contains(LocalFlags::ECHO);
    wait_until("echo to be off", || !echo());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("the tool is there");
    assert_eq!(child.wait().expect("the tool ends").code(), Some(130));
    assert!(echo() && !folder.path().join("pw").exists());
}
