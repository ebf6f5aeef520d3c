//! PID 1's half of certificates: it asks the worker for them when they are due, looks at what it brings, stores it, and has the broker
//! use it. `worker` is the child, `challenge_port` the socket on port 80, `take` judges and stores what it brings, `watch` sees what somebody else renews, `report` is what people are told.

mod challenge_port;
mod report;
mod take;
mod watch;
mod worker;

use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) use report::command;

use super::control::Renew;
use super::machine::Millis;
use super::voice::{self, Voice};
use crate::acme::exchange::{self, Failure, Level, Mode, Report, Request, SelfCheck};
use crate::acme::lineage::Store;
use crate::acme::lineage::renewal_conf::RenewalConf;
use crate::acme::schedule::{self, Held, Next};
use crate::acme::settings::{self, Renewal, Settings};
use crate::acme::stand_in::StandIns;
use crate::acme::state::{Seconds, State};
use crate::conf::Conf;
use crate::logging::LogType;
use crate::os::reap::Ending;
use crate::os::spawn::Identity;
use challenge_port::ChallengePort;
use watch::Watch;
use worker::Worker;

/// The clock may be set at any time, so nothing is slept through.
const LOOK_EVERY: Millis = 60_000;
/// The worker gives up after this long by itself, and is killed a little later.
const WORKER_SECS: u64 = 600;
const WORKER_LIMIT: Millis = 610_000;
const WORKER: Identity = Identity { uid: 1884, gid: 1884 };

pub(super) struct Certificates {
    settings: Option<Settings>,
    /// The names in DOMAIN, also where something else is wrong.
    domains: Vec<String>,
    renewal: Renewal,
    store: Store,
    name: String,
    state: State,
    held: Option<Held>,
    port: ChallengePort,
    worker: Option<Worker>,
    watch: Watch,
    look_at: Millis,
    began: bool,
    asked_for: Option<Renew>,
    /// The outcome of the last attempt, for who waits for it.
    outcome: Option<(bool, String)>,
    /// The broker has yet to use what is new.
    is_new: bool,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Seconds since 1970.
fn wall_clock() -> Seconds {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as Seconds)
}

fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}

impl Certificates {
    pub(super) fn new() -> Self {
        Self {
            settings: None,
            domains: Vec::new(),
            renewal: Renewal::Restart,
            store: Store::new(&settings::root(variable)),
            name: String::new(),
            state: State::default(),
            held: None,
            port: ChallengePort::default(),
            worker: None,
            watch: Watch::default(),
            look_at: 0,
            began: false,
            asked_for: None,
            outcome: None,
            is_new: false,
        }
    }

    /// Reads the environment and the volume. Nothing here keeps the broker from starting.
    pub(super) fn begin(&mut self, voice: &Voice) {
        if std::mem::replace(&mut self.began, true) {
            return;
        }
        let (renewal, warning) = settings::renewal(variable);
        self.renewal = renewal;
        if let Some(warning) = warning {
            voice.say(LogType::Warning, &warning);
        }
        self.domains = settings::domains(variable);
        self.name = self.domains.first().map(|first| self.store.name_for(first)).unwrap_or_default();
        match Settings::read(variable) {
            Ok(Some(settings)) => self.settings = Some(settings),
            Ok(None) => {
                if variable("EMAIL").is_some_and(|email| !email.is_empty()) {
                    voice.say(LogType::Warning, "ERROR: $DOMAIN must be defined");
                }
                return;
            }
            Err(lines) => {
                for line in lines {
                    voice.say(LogType::Error, &line);
                }
                voice.say(
                    LogType::Error,
                    "Error: no certificate is asked for until the variables above are corrected; the broker starts all the same.",
                );
                return;
            }
        }
        let Some(settings) = &self.settings else { return };
        voice::print("Dealing with certificates...");
        voice::print(&format!("Location: {}", self.store.live(&self.name).display()));
        if let Err(error) = self.store.open() {
            voice.say(
                LogType::Error,
                &format!(
                    "Error: {} cannot be written ({error}); no certificate can be kept there. Mount a volume that can.",
                    self.store.root().display()
                ),
            );
        }
        match self.store.mend(&self.name) {
            Ok(lines) => lines.iter().for_each(|line| voice.say(LogType::Warning, &format!("Warning: {line}."))),
            Err(error) => {
                voice.say(LogType::Error, &format!("Error: {} cannot be mended: {error}.", self.store.live(&self.name).display()));
            }
        }
        let (state, said) = State::read(self.store.root(), &self.name);
        self.state = state;
        self.state.turn_to(&settings.directory);
        if let Some(said) = said {
            voice.say(LogType::Warning, &format!("Warning: {said}."));
        }
        if settings.challenge == exchange::Challenge::Http01 {
            self.port.bind(settings.http_port, voice);
        }
        self.look_at_held(voice);
        if self.settings.as_ref().is_some_and(|settings| schedule::is_kept_from_tests(settings, self.held.as_ref(), wall_clock())) {
            voice::print(report::KEPT_FROM_TESTS);
        }
    }

    /// What is on disk now.
    fn look_at_held(&mut self, voice: &Voice) {
        self.held = None;
        let live = self.store.live(&self.name);
        let leaf = match self.store.current(&self.name) {
            Ok(None) => return,
            Ok(Some(pair)) => pair.leaf(),
            Err(error) => Err(error.to_string()),
        };
        let leaf = match leaf {
            Ok(leaf) => leaf,
            Err(reason) => {
                return voice.say(LogType::Error, &format!("Error: the certificate in {} cannot be used: {reason}.", live.display()));
            }
        };
        let conf = std::fs::read_to_string(self.store.renewal_conf(&self.name)).unwrap_or_default();
        let directory = RenewalConf::parse(&conf).server().map(str::to_owned);
        let is_test = directory.as_deref().is_some_and(settings::is_test_server) || self.state.is_test;
        let spread = leaf.der.iter().rev().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        let id = exchange::certificate_id(&leaf.der);
        self.held =
            Some(Held { not_before: leaf.not_before, not_after: leaf.not_after, names: leaf.names, directory, is_test, id, spread });
    }

    /// Where the broker finds what a CA is to be shown by tls-alpn-01.
    pub(super) fn challenges(&self) -> Option<PathBuf> {
        let is_used = self.settings.as_ref().is_some_and(|settings| settings.challenge == exchange::Challenge::TlsAlpn01);
        is_used.then(|| self.store.root().join("darner/challenges"))
    }

    /// What the broker is to have in the place of files that are not there yet.
    pub(super) fn stand_ins(&self) -> StandIns {
        StandIns::new(&self.store, &self.name, &self.domains, self.held.is_some(), wall_clock())
    }

    /// The broker has been given the files of `conf`.
    pub(super) fn served(&mut self, conf: &Conf, stand_ins: &StandIns) {
        self.is_new = false;
        self.watch.follow(conf, stand_ins);
    }

    pub(super) fn sources(&self) -> Option<BorrowedFd<'_>> {
        self.worker.as_ref().and_then(Worker::source)
    }

    /// Whether `fd` was the worker's.
    pub(super) fn readable(&mut self, fd: RawFd, voice: &Voice) -> bool {
        let Some(worker) = self.worker.as_mut().filter(|worker| worker.is(fd)) else { return false };
        for report in worker.read() {
            match report {
                Report::Event { level, text } => {
                    let log_type = match level {
                        Level::Info => LogType::Notice,
                        Level::Warning => LogType::Warning,
                        Level::Error => LogType::Error,
                    };
                    voice.say(log_type, &format!("acme: {text}"));
                }
                Report::Ordered { url } => {
                    self.state.orders = self.state.orders.saturating_add(1);
                    voice.say(LogType::Notice, &format!("acme: the CA has taken the order {url}"));
                }
                outcome => worker.outcome = Some(outcome),
            }
        }
        true
    }

    /// Whether the process was ours.
    pub(super) fn reaped(&mut self, pid: i32, ending: Ending, voice: &Voice) -> bool {
        if self.worker.as_ref().is_none_or(|worker| worker.pid != pid) {
            return false;
        }
        if let Some(fd) = self.sources().map(|fd| crate::os::process::number(&fd)) {
            self.readable(fd, voice);
        }
        let Some(worker) = self.worker.take() else { return false };
        if worker.request.mode == Mode::Issue {
            self.port.close(voice);
        }
        self.look_at = 0;
        self.finish(worker, ending, voice);
        true
    }

    fn finish(&mut self, worker: Worker, ending: Ending, voice: &Voice) {
        let now = wall_clock();
        let is_question = worker.request.mode == Mode::RenewalInfo;
        let asked = worker.request.replaces.clone().unwrap_or_default();
        match worker.outcome {
            Some(Report::RenewalInfo(info)) => {
                self.state.wished(now, random(), &asked, &info);
                if let Some(url) = &info.explanation_url {
                    let text: String = url.chars().filter(char::is_ascii_graphic).take(200).collect();
                    voice.say(LogType::Notice, &format!("acme: the CA wants the certificate to be renewed at a time of its own: {text}"));
                }
            }
            Some(Report::Failed(failure)) if is_question => self.state.not_wished(now, &asked, failure.retry_after_secs),
            Some(Report::Issued(issued)) => match self.take(&worker.request, &issued, now) {
                Ok(text) => {
                    voice::print(&text);
                    self.outcome = Some((true, text));
                    if !worker.request.dry_run {
                        self.look_at_held(voice);
                        self.is_new = true;
                    }
                }
                Err(reason) => self.failed(&worker.request, now, &unexplained(&format!("what it brought was not taken: {reason}")), voice),
            },
            Some(Report::Failed(failure)) => self.failed(&worker.request, now, &failure, voice),
            _ if is_question => self.state.not_wished(now, &asked, None),
            _ => self.failed(&worker.request, now, &unexplained(&format!("the worker ended without a word ({ending:?})")), voice),
        }
        self.keep_state(voice);
    }

    fn failed(&mut self, request: &Request, now: Seconds, failure: &Failure, voice: &Voice) {
        if !request.dry_run {
            // What the worker does not even understand is no better in a minute.
            let retry_after = failure.retry_after_secs.or((failure.step == exchange::Step::Request).then_some(86_400));
            self.state.failed(now, random(), &failure.text, retry_after, failure.counted);
        }
        let next = self.state.next_attempt.map_or("later".to_owned(), report::time);
        let text = format!("no certificate for {}: {}", request.domains.join(", "), failure.text);
        let again = if request.dry_run { String::new() } else { format!(" Next try: {next}.") };
        voice.say(LogType::Error, &format!("Error: {}.{again}", text.trim_end_matches('.')));
        self.outcome = Some((false, text));
    }

    /// What is to happen to the broker because files of its listeners are new; told once.
    pub(super) fn renewed(&mut self) -> Option<Renewal> {
        std::mem::take(&mut self.is_new).then_some(self.renewal)
    }

    fn keep_state(&self, voice: &Voice) {
        if let Err(error) = self.state.write(self.store.root(), &self.name) {
            let place = State::path(self.store.root(), &self.name);
            voice.say(LogType::Error, &format!("Error: {} cannot be written: {error}.", place.display()));
        }
    }

    /// Does what is due; called at each turn while the broker may be told of it.
    pub(super) fn turn(&mut self, now: Millis, voice: &Voice) {
        if let Some(path) = self.watch.changed(now) {
            voice.say(LogType::Notice, &format!("{} has changed.", path.display()));
            let before = self.held.take();
            if !self.name.is_empty() {
                self.look_at_held(voice);
            }
            // What cannot be used does not take the place of what is served.
            let is_broken = self.held.is_none() && before.is_some();
            if is_broken {
                self.held = before;
            }
            self.is_new = !is_broken;
        }
        for line in self.watch.warnings(wall_clock()) {
            voice.say(LogType::Warning, &line);
        }
        if let Some(worker) = &mut self.worker {
            return worker.enforce(now);
        }
        if now < self.look_at || self.settings.is_none() {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        self.act(now, voice);
    }

    fn act(&mut self, now: Millis, voice: &Voice) {
        let Some(settings) = self.settings.clone() else { return };
        let wall = wall_clock();
        match self.asked_for.take() {
            Some(Renew::DryRun) => return self.start(now, &settings, Mode::Issue, true, voice),
            Some(Renew::Force) => return self.order(now, &settings, "it was asked for", voice),
            Some(Renew::IfDue) | None => {}
        }
        match schedule::next(&settings, self.held.as_ref(), &self.state, wall) {
            Next::Wait(until) => self.look_at = now + LOOK_EVERY.min((until - wall).max(1) as Millis * 1000),
            Next::WrongClock(_) => {
                voice.say(
                    LogType::Warning,
                    &format!(
                        "Warning: the clock says {}, which cannot be right; no certificate is asked for until it is set.",
                        report::time(wall)
                    ),
                );
            }
            Next::Check => {
                voice::print("Checking on certificates...");
                if schedule::is_kept_from_tests(&settings, self.held.as_ref(), wall) {
                    voice::print(report::KEPT_FROM_TESTS);
                }
                self.state.checked(wall, random());
                self.keep_state(voice);
                self.look_at = now;
            }
            Next::AskRenewalInfo => self.start(now, &settings, Mode::RenewalInfo, false, voice),
            Next::Order(reason) => self.order(now, &settings, report::reason(reason), voice),
        }
    }

    fn order(&mut self, now: Millis, settings: &Settings, why: &str, voice: &Voice) {
        let test = if settings.is_test { "TEST " } else { "" };
        let what = if self.held.is_some() {
            "Certificates exist, attempting to renew...".to_owned()
        } else {
            format!("Obtaining {test}cert for {}", settings.domains.join(", "))
        };
        voice::print(&format!("{what} ({why})"));
        if settings.challenge == exchange::Challenge::TlsAlpn01 && !self.watch.has_listeners() {
            voice.say(
                LogType::Warning,
                "Warning: tls-alpn-01 is answered by a TLS listener, and mosquitto.conf has none: add one, or use http-01.",
            );
        }
        // A volume that is full must not cost an order.
        if let Err(error) = self.store.probe() {
            let text = format!(
                "{} cannot be written ({error}): nothing was asked of the CA; free or mount the volume",
                self.store.root().display()
            );
            self.state.failed(wall_clock(), random(), &text, None, false);
            self.look_at = now + LOOK_EVERY;
            self.outcome = Some((false, text.clone()));
            return voice.say(LogType::Error, &format!("Error: {text}."));
        }
        self.state.begin(wall_clock(), random());
        self.keep_state(voice);
        self.start(now, settings, Mode::Issue, false, voice);
    }

    fn start(&mut self, now: Millis, settings: &Settings, mode: Mode, dry_run: bool, voice: &Voice) {
        let replaces =
            self.held.as_ref().filter(|held| held.directory.as_ref() == Some(&settings.directory)).and_then(|held| held.id.clone());
        if mode == Mode::RenewalInfo && replaces.is_none() {
            // Another CA's certificate, or one without a name for this: nobody to ask.
            let id = self.held.as_ref().and_then(|held| held.id.clone()).unwrap_or_default();
            return self.state.not_wished(wall_clock(), &id, None);
        }
        let request = Request {
            mode,
            lineage: self.name.clone(),
            domains: settings.domains.clone(),
            email: settings.email.clone(),
            directory: settings.directory.clone(),
            ca_file: settings.ca_file.clone(),
            eab: settings.eab.clone(),
            profile: settings.profile.clone(),
            preferred_chain: settings.preferred_chain.clone(),
            key_type: settings.key_type,
            challenge: settings.challenge,
            dns_hook: settings.dns_hook.clone(),
            work_dir: self.store.root().join("darner/worker"),
            challenge_dir: self.challenges(),
            replaces: if dry_run { None } else { replaces },
            deadline_secs: WORKER_SECS,
            account: self.account(&settings.directory),
            self_check: Some(SelfCheck { port: 80, is_public: settings::is_public(&settings.directory) }),
            dry_run,
        };
        let sockets = if mode == Mode::Issue { self.port.open(voice) } else { Vec::new() };
        match Worker::start(request, &sockets, now + WORKER_LIMIT) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => {
                let text = format!("the worker that talks to the CA cannot be started: {error}");
                voice.say(LogType::Error, &format!("Error: {text}."));
                self.outcome = Some((false, text));
                self.port.close(voice);
            }
        }
    }

    /// `darner cert renew`. The outcome comes from [`Self::outcome`].
    ///
    /// # Errors
    /// Why there is nothing to wait for.
    pub(super) fn renew(&mut self, how: Renew) -> Result<(), (bool, String)> {
        let Some(settings) = &self.settings else {
            return Err((false, "there is nothing to renew: no DOMAIN is set, or the variables beside it are wrong (see the log)".into()));
        };
        match self.worker.as_ref().map(|worker| &worker.request) {
            // Its outcome is what was asked for; a question to the CA has none, and is waited for.
            Some(request) if request.mode == Mode::Issue && request.dry_run == (how == Renew::DryRun) => return Ok(()),
            Some(request) if request.mode == Mode::Issue => return Err((false, "another attempt is under way: ask again after it".into())),
            _ => {}
        }
        let now = wall_clock();
        if how != Renew::DryRun && schedule::is_kept_from_tests(settings, self.held.as_ref(), now) {
            return Err((false, "TESTCERT is set, and a test certificate never takes the place of a real one; --dry-run rehearses".into()));
        }
        if how == Renew::IfDue {
            if let Err(at) = schedule::due(settings, self.held.as_ref(), &self.state, now) {
                return Err((true, format!("Nothing is due before {}; --force renews now.", report::time(at))));
            }
            if let Some(at) = self.state.next_attempt.filter(|at| *at > now) {
                let last = self.state.last_error.as_deref().unwrap_or("an attempt was interrupted");
                return Err((false, format!("the next try is due at {} ({last}); --force tries now", report::time(at))));
            }
        }
        self.asked_for = Some(how);
        self.look_at = 0;
        Ok(())
    }

    /// Whether a certificate that is served is one of ours and to be renewed; said now and then, as it may not succeed.
    pub(super) fn is_self_made_due(&mut self, now: Millis) -> bool {
        self.watch.is_self_made_due(now)
    }

    pub(super) fn outcome(&mut self) -> Option<(bool, String)> {
        self.outcome.take()
    }

    /// For the health check: what is expired, else what will be soon.
    pub(super) fn health(&self) -> (bool, String) {
        self.watch.health(wall_clock())
    }

    pub(super) fn next_turn(&self) -> Option<Millis> {
        let look = self.settings.as_ref().map(|_| self.look_at);
        let worker = self.worker.as_ref().map(|worker| worker.deadline);
        // While the worker runs nothing else is begun.
        if worker.is_some() { worker } else { look }.into_iter().chain(self.watch.next_look()).min()
    }
}

fn unexplained(text: &str) -> Failure {
    Failure {
        step: exchange::Step::Certificate,
        problem: None,
        status: None,
        text: text.to_owned(),
        retry_after_secs: None,
        identifiers: Vec::new(),
        is_clock_error: false,
        counted: true,
    }
}
