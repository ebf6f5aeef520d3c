//! `mosquitto_passwd`: mosquitto's options, sentences and exit codes, and none of its ways to lose an entry.

mod options;
mod original;
mod prompt;
mod safety;

use std::path::Path;
use std::process::Command;

use darner::access::Passwords;

use crate::support::process::{darner, run};

/// Runs the tool: (exit code, stdout, stderr).
fn tool<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> (i32, String, String) {
    run(Command::new(darner()).arg("mosquitto_passwd").args(arguments))
}

/// Runs the tool, which must succeed in silence.
fn succeed(arguments: &[&str]) {
    assert_eq!(tool(arguments), (0, String::new(), String::new()), "{arguments:?}");
}

fn passwords(path: &Path) -> Passwords {
    Passwords::parse(path, &std::fs::read(path).expect("the password file")).0
}

fn text(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).expect("the password file")).expect("text")
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).expect("the file").permissions().mode() & 0o7777
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Made with a cheap hash, as mosquitto 1.6 would.
fn entry(username: &str, password: &str) -> String {
    use darner::access::password_hash::{PasswordHash, Scheme};
    format!("{username}:{}", PasswordHash::new(Scheme::Sha512, password.as_bytes(), &[7; 12]).expect("a hash"))
}
