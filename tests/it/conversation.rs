//! One script, two runners: `tests/conversations/FAMILY/*.txt` is played to the pure core in virtual time and to the real binary over
//! sockets. `SCRIPT=part-of-a-path` plays only those.
//!
//! A script has one action a line; `#` begins a comment.
//!
//! | line | what it does |
//! |---|---|
//! | `versions v311 v5` | played once in each, which stands where `{version}` is said |
//! | `conf LINE` | a line of mosquitto.conf, before the first action |
//! | `file NAME LINE` | a line of a file `{folder}/NAME` |
//! | `a: > connect v5 id=a clean` | client `a` sends a packet; CONNECT opens a Network Connection unless one is open |
//! | `a: > hex 10 00` | … or any bytes |
//! | `a: > close` | the connection breaks without DISCONNECT |
//! | `a: < connack success` | `a` is sent this packet next; fields that are not named have their defaults |
//! | `a: < hex 20 02 00 00` | … or exactly these bytes |
//! | `a: <~ publish topic=x` | … or later: others may come first |
//! | `a: < closed` | the connection is closed; `closed ...`: whatever was sent before |
//! | `a: < nothing` | nothing was sent |
//! | `wait 90s` | time passes; scripts that wait longer than 2 s are only played to the core |
//!
//! `key=?` matches any value, `key=$name` any value the first time and the same ever after, `key=!name` any other value, `...` all fields that are not named. The
//! properties of a CONNACK need not be named. See `words.rs` for the packets.

mod core;
mod play;
mod script;
mod socket;
mod words;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use script::Script;

use crate::support::process::Engine;

fn scripts() -> Vec<Script> {
    let mut paths = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    for family in std::fs::read_dir(&root).expect("the scripts' folder") {
        let family = family.expect("an entry").path();
        paths.extend(std::fs::read_dir(family).expect("a family").map(|entry| entry.expect("an entry").path()));
    }
    paths.sort();
    let wanted = std::env::var("SCRIPT").unwrap_or_default();
    paths.retain(|path: &PathBuf| path.to_string_lossy().contains(&wanted));
    paths.iter().flat_map(|path| Script::read(&root, path)).collect()
}

/// The protocol versions that the clients of `FAMILY/NAME` speak.
pub fn versions_spoken(script: &str) -> BTreeSet<&'static str> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conversations");
    Script::read(&root, &root.join(format!("{script}.txt"))).iter().flat_map(Script::versions).collect()
}

/// Plays all and reports every script that went wrong.
fn play_all<R: play::Runner>(scripts: &[Script], start: impl Fn(&Script) -> R) {
    let mut failures = Vec::new();
    for script in scripts {
        if let Err(failure) = play::play(script, &mut start(script)) {
            failures.push(failure);
        }
    }
    assert!(!scripts.is_empty(), "no script was played");
    assert!(failures.is_empty(), "{} of {} scripts failed\n\n{}", failures.len(), scripts.len(), failures.join("\n"));
}

#[test]
fn conversations_with_the_core() {
    play_all(&scripts(), |script| core::Core::start(Engine::Core, script));
}

#[test]
fn conversations_with_the_core_and_a_router_outside() {
    play_all(&scripts(), |script| core::Core::start(Engine::Rumqttd, script));
}

#[test]
fn conversations_with_the_binary() {
    let mut scripts = scripts();
    scripts.retain(|script| !script.core_only);
    play_all(&scripts, |script| socket::Socket::start(Engine::Core, script));
}

#[test]
fn conversations_with_the_rumqttd_engine() {
    let mut scripts = scripts();
    scripts.retain(|script| !script.core_only);
    play_all(&scripts, |script| socket::Socket::start(Engine::Rumqttd, script));
}
