//! dns-01 through the user's command, which is told what to do by its arguments and its environment.

use std::process::Command;

/// A record that the CA will look for.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// The name that is certified, without `*.`.
    pub(super) domain: String,
    pub(super) value: String,
}

/// Runs `HOOK add|remove NAME VALUE`; waits for its end.
pub(super) fn run(hook: &str, action: &str, record: &Record) -> Result<(), String> {
    let name = format!("_acme-challenge.{}", record.domain);
    let status = Command::new("/bin/sh")
        .args(["-c", &format!("{hook} \"$@\""), "dns-hook", action, &name, &record.value])
        .env("ACME_ACTION", action)
        .env("ACME_DOMAIN", &record.domain)
        .env("ACME_RECORD", &name)
        .env("ACME_VALUE", &record.value)
        .stdin(std::process::Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| format!("the DNS hook cannot be started: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("the DNS hook did not {action} the TXT record {name} ({status}); it says why above"))
    }
}
