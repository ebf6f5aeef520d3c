//! What the image's entrypoint does with its command, and plain `darner` without one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::arguments::{self, Arguments};
use super::broker::{Broker, Home};
use super::machine::{Policy, Restart};
use super::patience::waits_for_mending;
use super::run::supervise;
use super::{first_run, init};
use crate::exit_code::ExitCode;
use crate::os;
use crate::repair::defaults::{self, IMAGE};

const CONFIG: &str = "/mosquitto/config/mosquitto.conf";
/// How often the broker gives a sign of life, in seconds, unless `DARNER_WATCHDOG_SECS` says otherwise (0: never).
const WATCHDOG_SECS: u64 = 10;

/// `docker-entrypoint.sh COMMAND…`: mosquitto is supervised, anything else is run as it is.
pub(super) fn entrypoint(words: &[OsString]) -> ExitCode {
    match words.split_first() {
        None => image_default(),
        Some((first, _)) if first.as_encoded_bytes().starts_with(b"-") => mosquitto(words),
        Some((first, rest)) if Path::new(first).file_name().is_some_and(|name| name == "mosquitto") => mosquitto(rest),
        Some((first, _)) => init::replace(first, words),
    }
}

/// `darner` without a word.
pub(super) fn plain() -> ExitCode {
    if os::process::is_pid_1() { image_default() } else { first_run::run() }
}

fn image_default() -> ExitCode {
    over_broker(Arguments::with_config(Path::new(CONFIG)), image_home())
}

/// `mosquitto …`, supervised.
pub(super) fn mosquitto(words: &[OsString]) -> ExitCode {
    if let Some(arguments) = arguments::parse(words) {
        return over_broker(arguments, image_home());
    }
    let argv: Vec<_> = [OsString::from("mosquitto")].iter().chain(words).cloned().collect();
    init::replace(&"/proc/self/exe".into(), &argv)
}

fn image_home() -> Home {
    let root = PathBuf::from(IMAGE);
    Home { root: (os::process::is_pid_1() || root.is_dir()).then_some(root), ..Home::default() }
}

/// The image's own command names the usual place; who mounted another one means that.
fn placed(arguments: Arguments, home: Home) -> (Arguments, Home) {
    match (&arguments.config, &home.root) {
        (Some(config), Some(_)) if *config == defaults::pod_config() => (arguments, Home { root: Some(defaults::POD.into()), ..home }),
        (Some(config), Some(root)) if *config == root.join("config/mosquitto.conf") => {
            let (root, config) = defaults::usual(root);
            (arguments.instead(&config), Home { root: Some(root), ..home })
        }
        _ => (arguments, home),
    }
}

pub(super) fn over_broker(arguments: Arguments, home: Home) -> ExitCode {
    let (arguments, home) = placed(arguments, home);
    let watchdog = super::seconds("DARNER_WATCHDOG_SECS").unwrap_or(WATCHDOG_SECS) * 1000;
    let watchdog = (watchdog > 0).then_some(watchdog);
    let policy = Policy {
        restart: Restart::Always,
        readiness: true,
        orderly_is_success: true,
        stop_signal: Some(nix::sys::signal::Signal::SIGTERM as i32),
        // The broker pets twice per interval; three misses are one and a half.
        watchdog: watchdog.map(|interval| interval + interval / 2),
        stop_grace: super::stop_grace(),
        sweep_grace: 300,
    };
    loop {
        let code = supervise(&mut Broker::new(arguments.clone(), watchdog, home.clone()), policy);
        if !waits_for_mending(code, &arguments) {
            return code;
        }
    }
}
