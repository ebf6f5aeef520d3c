//! What people are told: `darner cert`, times, reasons.

use std::ffi::OsString;

use super::{Renew, wall_clock};
use crate::acme::lineage::Store;
use crate::acme::schedule::Reason;
use crate::acme::settings;
use crate::acme::state::{Seconds, State};
use crate::exit_code::ExitCode;
use crate::supervisor::ask;
use crate::supervisor::control::Request;

pub(super) const KEPT_FROM_TESTS: &str = "TESTCERT is set, and a test certificate never takes the place of a real one: nothing is renewed \
     (darner cert renew --dry-run rehearses).";

const USAGE: &str = "\
Usage: darner cert                               every certificate: names, issuer, days left, next check, last error
       darner cert renew [--force] [--dry-run]   asks for a new one if it is due; now; as a rehearsal";

/// `darner cert …`
pub(in crate::supervisor) fn command(arguments: &[OsString]) -> ExitCode {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => list(),
        ["renew"] => ask::ask(Request::Renew(Renew::IfDue)),
        ["renew", "--force"] => ask::ask(Request::Renew(Renew::Force)),
        ["renew", "--dry-run"] => ask::ask(Request::Renew(Renew::DryRun)),
        ["-h" | "--help"] => {
            println!("{USAGE}");
            ExitCode::Ok
        }
        _ => {
            eprintln!("darner cert: {} is not understood\n{USAGE}", words.join(" "));
            ExitCode::Usage
        }
    }
}

fn list() -> ExitCode {
    let store = Store::new(&settings::root(|name| std::env::var(name).ok()));
    if let Err(error) = std::fs::read_dir(store.root().join("live"))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        eprintln!("darner cert: {} cannot be read: {error}", store.root().display());
        return ExitCode::Failure;
    }
    // A lineage that never came about has a state only.
    let states = std::fs::read_dir(store.root().join("darner")).into_iter().flatten().flatten();
    let mut names = store.names();
    names.extend(states.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned)));
    names.sort();
    names.dedup();
    if names.is_empty() {
        println!("no certificates in {}", store.root().display());
    }
    for name in names {
        print!("{}", lineage(&store, &name, wall_clock()));
    }
    ExitCode::Ok
}

fn lineage(store: &Store, name: &str, now: Seconds) -> String {
    let state: State = crate::acme::lineage::read(&State::path(store.root(), name))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let mut rows = Vec::new();
    match store.current(name).map(|pair| pair.map(|pair| pair.leaf())) {
        Ok(None) => rows.push(("state", "not obtained yet".to_owned())),
        Ok(Some(Ok(leaf))) => {
            let test = if state.is_test(&leaf.fingerprint()) { " (a test server)" } else { "" };
            let left = leaf.not_after - now;
            let days = if left <= 0 { "EXPIRED".to_owned() } else { format!("{} days left", left / 86_400) };
            rows.push(("names", leaf.names.join(", ")));
            rows.push(("issuer", format!("{}{test}", leaf.issuer)));
            rows.push(("valid", format!("until {} ({days})", time(leaf.not_after))));
        }
        Ok(Some(Err(reason))) => rows.push(("state", format!("unusable: {reason}"))),
        Err(error) => rows.push(("state", format!("unreadable: {error}"))),
    }
    if let Some(wrong) = &state.not_served {
        rows.push(("served", wrong.clone()));
    }
    rows.push(("next check", state.next_check.map_or("at the next start".to_owned(), time)));
    if let Some(at) = state.renewal_info.as_ref().and_then(|wish| wish.selected) {
        rows.push(("renewal", format!("the CA wants it at {}", time(at))));
    }
    if let Some(error) = &state.last_error {
        rows.push(("last error", error.clone()));
    }
    if let Some(at) = state.next_try() {
        rows.push(("next try", time(at)));
    }
    let rows: String = rows.iter().map(|(label, value)| format!("  {label:<11}{value}\n")).collect();
    format!("{name}\n{rows}")
}

/// `2026-11-24T01:02:03Z`
pub(super) fn time(at: Seconds) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| at.to_string(), |time| time.to_string())
}

pub(super) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Missing => "there is none yet",
        Reason::Expired => "it has expired",
        Reason::OtherNames => "DOMAIN has changed",
        Reason::OtherDirectory => "it comes from another CA",
        Reason::Wished => "the CA wants it",
        Reason::Age => "little of its lifetime is left",
    }
}
