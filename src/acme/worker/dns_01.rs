//! dns-01 through the user's command, which is told what to do by its arguments and its environment.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// A hook may wait for minutes, until the whole world sees its record.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A record that the CA will look for.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// The name that is certified, without `*.`.
    pub(super) domain: String,
    pub(super) value: String,
}

/// The hook and all that it has started: nothing of it outlives the wait for it.
struct Hook(Child);

impl Drop for Hook {
    fn drop(&mut self) {
        if !matches!(self.0.try_wait(), Ok(Some(_))) {
            let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }
}

/// Runs `HOOK add|remove NAME VALUE`; waits for its end. A wait that is given up ends it.
pub(super) async fn run(hook: &str, action: &str, record: &Record) -> Result<(), String> {
    let name = format!("_acme-challenge.{}", record.domain);
    let child = Command::new("/bin/sh")
        .args(["-c", &format!("{hook} \"$@\""), "dns-hook", action, &name, &record.value])
        .env("ACME_ACTION", action)
        .env("ACME_DOMAIN", &record.domain)
        .env("ACME_RECORD", &name)
        .env("ACME_VALUE", &record.value)
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("the DNS hook cannot be started: {error}"))?;
    let mut child = Hook(child);
    let status = loop {
        match child.0.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
            Err(error) => return Err(format!("the DNS hook cannot be waited for: {error}")),
        }
    };
    if status.success() {
        Ok(())
    } else {
        Err(format!("the DNS hook did not {action} the TXT record {name} ({status}); it says why above"))
    }
}
