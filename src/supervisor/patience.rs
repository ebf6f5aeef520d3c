//! PID 1 with a configuration that cannot work: Docker would start it again and again, so it waits for somebody to mend the file.

use std::time::{Duration, Instant};

use super::arguments::Arguments;
use super::generation;
use super::voice::Voice;
use crate::conf::files::Disk;
use crate::exit_code::ExitCode;
use crate::logging::LogType;
use crate::os;

/// How long PID 1 waits, in seconds, unless `DARNER_PATIENCE_SECS` says otherwise (0: it ends at once, as mosquitto does).
const PATIENCE_SECS: u64 = 300;
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it asks whether it is to stop, and reaps.
const TICK: Duration = Duration::from_millis(100);

/// Whether to try again: true once the files are in order, false for the process to end with `code`.
pub(super) fn waits_for_mending(code: ExitCode, arguments: &Arguments) -> bool {
    if !os::process::is_pid_1() || ![ExitCode::Config, ExitCode::SecurityFile].map(ExitCode::code).contains(&code.code()) {
        return false;
    }
    let secs = super::seconds("DARNER_PATIENCE_SECS").unwrap_or(PATIENCE_SECS);
    // Files that are in order already are not what is wrong: trying again would go on without end.
    if secs == 0 || generation::load(&Disk, arguments, |_| ()).is_ok() {
        return false;
    }
    Voice::default().say(
        LogType::Notice,
        &format!("Waiting up to {secs} s for the files to be corrected, to start by itself then (DARNER_PATIENCE_SECS=0 ends at once)."),
    );
    let end = Instant::now() + Duration::from_secs(secs);
    let mut look_at = Instant::now() + LOOK_EVERY;
    while Instant::now() < end && !os::signals::stop_is_pending() {
        // Whoever is left to PID 1 while it waits.
        while let os::reap::Reaped::Ended(..) = os::reap::next() {}
        if Instant::now() >= look_at {
            if generation::load(&Disk, arguments, |_| ()).is_ok() {
                return true;
            }
            look_at = Instant::now() + LOOK_EVERY;
        }
        std::thread::sleep(TICK);
    }
    false
}
