//! What the broker's process is born with: its files, sockets, environment and rights.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::signal::{SigSet, Signal};

use super::Broker;
use crate::acme::exchange::CHALLENGES_VARIABLE;
use crate::os;
use crate::os::spawn::{Child, SpawnError, Step};

/// Environment that only the supervisor may give to the broker, or that is not its business.
const PRIVATE_ENVIRONMENT: &[&str] =
    &["LISTEN_", "NOTIFY_SOCKET=", "WATCHDOG_", "DARNER_CONTROL_FD=", "DARNER_ACME_CHALLENGES=", "DARNER_ADMIN_PASSWORD"];

impl Broker {
    pub(super) fn try_spawn(&mut self) -> Result<i32, SpawnError> {
        let here = |error: std::io::Error| SpawnError { step: Step::Descriptors, error };
        let (ours, theirs) = os::fd_passing::pair().map_err(here)?;
        if let Some(archive) = &mut self.archive {
            os::fd_passing::send(&ours, b"GENERATION", archive).map_err(here)?;
        }
        let mut fds: Vec<BorrowedFd<'_>> = self.listeners.fds().collect();
        let mut names = vec!["listener"; fds.len()];
        if let Some(health) = &self.health {
            fds.push(health.as_fd());
            names.push("health");
        }
        let env = self.environment(&names);
        fds.push(theirs.as_fd());
        let program = std::env::current_exe().ok().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
        let argv = [OsString::from("mosquitto")].into_iter().chain(self.arguments.raw.iter().cloned());
        let pid = os::spawn::spawn(&Child {
            programs: [Some(c"/proc/self/exe".to_owned()), program].into_iter().flatten().collect(),
            argv: argv.filter_map(|word| CString::new(word.as_bytes()).ok()).collect(),
            env,
            fds,
            listen_pid: true,
            identity: self.identity,
            null_stdin: true,
            stdio: None,
            no_new_privs: true,
            oom_score_adj: Some(500),
            mask: SigSet::empty(),
            keep_dispositions: false,
            parent_death_signal: Some(Signal::SIGTERM as i32),
        })?;
        self.channel = Some(ours);
        Ok(pid)
    }

    fn environment(&self, names: &[&str]) -> Vec<CString> {
        let private = |entry: &CString| PRIVATE_ENVIRONMENT.iter().any(|prefix| entry.as_bytes().starts_with(prefix.as_bytes()));
        let mut env = os::spawn::environment();
        env.retain(|entry| !private(entry));
        let mut add = |name: &str, value: String| env.extend(CString::new(format!("{name}={value}")).ok());
        add("LISTEN_FDS", names.len().to_string());
        add("LISTEN_FDNAMES", names.join(":"));
        add("DARNER_CONTROL_FD", (3 + names.len()).to_string());
        if let Some(notify) = &self.notify {
            add("NOTIFY_SOCKET", notify.name().to_owned());
        }
        if let Some(folder) = self.certificates.challenges() {
            add(CHALLENGES_VARIABLE, folder.display().to_string());
        }
        if let Some(watchdog) = self.watchdog {
            add("WATCHDOG_USEC", (watchdog * 1000).to_string());
        }
        env
    }
}
