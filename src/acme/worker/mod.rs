//! `darner acme`: one attempt to get a certificate, as a process of its own that PID 1 starts without privileges.

mod account;
mod certificate_key;
mod dns_01;
mod fault;
mod given_account;
mod http_01;
mod http_client;
mod jws;
mod order;
mod probe;
mod renewal_info;
mod self_check;
mod storage;
mod tls_alpn_01;

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::exchange::{Challenge, LINE_MAX, Level, Mode, Report, Request, Step};
use crate::exit_code::ExitCode;
use fault::{Fault, fault};
use http_client::Client;

/// For the removal of what the CA was shown, at the end of an attempt that came to none.
const TIDYING: Duration = Duration::from_secs(8);
/// Without `deadline_secs`.
const DEADLINE_SECS: u64 = 600;

struct Attempt {
    request: Request,
    client: Client,
    answers: http_01::Answers,
    /// What is to be undone when the CA has looked.
    traces: Mutex<Traces>,
}

#[derive(Default)]
struct Traces {
    records: Vec<dns_01::Record>,
    files: Vec<PathBuf>,
    /// What the attempt waits for just now, if not for the CA.
    waits_for: Option<&'static str>,
}

/// Reads a [`Request`] from stdin and writes [`Report`]s to stdout.
pub fn command(_: &[OsString]) -> ExitCode {
    let outcome = match read_request() {
        Ok(request) => run(request).unwrap_or_else(|fault| Report::Failed(*fault)),
        Err(reason) => Report::Failed(*fault(Step::Request, reason)),
    };
    let succeeded = !matches!(outcome, Report::Failed(_));
    say(&outcome);
    if succeeded { ExitCode::Ok } else { ExitCode::Failure }
}

fn read_request() -> Result<Request, String> {
    let mut text = String::new();
    std::io::stdin().take(LINE_MAX as u64).read_to_string(&mut text).map_err(|error| format!("the request cannot be read: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("darner acme takes a request from PID 1, and this is none: {error}"))
}

fn run(request: Request) -> Result<Report, Fault> {
    if request.mode == Mode::Probe {
        return probe::run(&request.targets);
    }
    check(&request)?;
    let account = request.account.as_ref().and_then(given_account::GivenAccount::new);
    let client = Client::new(request.ca_file.as_deref(), account).map_err(|reason| fault(Step::Request, reason))?;
    let seconds = if request.deadline_secs == 0 { DEADLINE_SECS } else { request.deadline_secs };
    let attempt = Attempt { request, client, answers: http_01::Answers::default(), traces: Mutex::default() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| fault(Step::Request, format!("the worker cannot start: {error}")))?;
    let result = runtime.block_on(async {
        let result = tokio::time::timeout(Duration::from_secs(seconds), attempt.run()).await;
        // Before PID 1 loses its patience.
        let _ = tokio::time::timeout(TIDYING, attempt.tidy()).await;
        result
    });
    // A name server that does not answer would be waited for.
    runtime.shutdown_background();
    result.unwrap_or_else(|_| {
        let who = attempt.traces().waits_for.unwrap_or("the CA");
        Err(fault(Step::Deadline, format!("{who} was not done within {seconds} seconds; the order goes on at the next try")))
    })
}

/// What no CA needs to be asked for.
fn check(request: &Request) -> Result<(), Fault> {
    let bad = |reason: &str| Err(fault(Step::Request, reason));
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if request.lineage.is_empty() || request.lineage.starts_with('.') || !request.lineage.chars().all(is_name) {
        return bad("the lineage's name must be letters, digits, '.', '-', '_' and ':'");
    }
    if request.mode == Mode::RenewalInfo {
        return Ok(());
    }
    if request.domains.is_empty() {
        return bad("no domain is named (DOMAIN)");
    }
    let wild = request.domains.iter().any(|name| name.starts_with("*."));
    match request.challenge {
        Challenge::Dns01 if request.dns_hook.is_none() => bad("dns-01 needs a command that changes the DNS zone"),
        Challenge::Http01 | Challenge::TlsAlpn01 if wild => bad("a name with a * needs dns-01"),
        _ => Ok(()),
    }
}

impl Attempt {
    async fn run(&self) -> Result<Report, Fault> {
        if self.request.mode == Mode::RenewalInfo {
            return self.renewal_info().await.map(Report::RenewalInfo);
        }
        let _lock = storage::prepare(&self.request.work_dir).map_err(|reason| fault(Step::Storage, reason))?;
        if let Some(issued) = self.waiting() {
            return Ok(Report::Issued(issued));
        }
        match self.request.challenge {
            Challenge::Http01 => http_01::serve(&self.answers).map_err(|reason| fault(Step::Request, reason))?,
            Challenge::TlsAlpn01 => tls_alpn_01::clear(&self.request),
            Challenge::Dns01 => {}
        }
        let directory = account::directory(&self.client, &self.request).await?;
        self.issue(&directory).await.map(Report::Issued)
    }

    fn traces(&self) -> MutexGuard<'_, Traces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what the CA was shown.
    async fn tidy(&self) {
        let (files, records) = {
            let mut traces = self.traces();
            (std::mem::take(&mut traces.files), std::mem::take(&mut traces.records))
        };
        for file in &files {
            let _ = std::fs::remove_file(file);
        }
        for record in &records {
            if let Some(hook) = &self.request.dns_hook
                && let Err(reason) = dns_01::run(hook, "remove", record).await
            {
                say(&Report::Event { level: Level::Warning, text: reason });
            }
        }
    }

    /// From now on the CA finds its token here.
    fn offer(&self, token: &str, answer: &str) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), answer.to_owned());
    }
}

fn say(report: &Report) {
    if let Ok(line) = serde_json::to_string(report) {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
