//! PID 1's half of certificates: it asks the worker for them when they are due, looks at what it brings, stores it, and has the broker
//! use it. `worker` is the child, `challenge_port` the socket on port 80, `order` is when what is asked, `take` judges and stores what it brings, `watch` sees
//! what somebody else renews, `in_use` whether the broker has it, `probe` whether its
//! listeners serve it, `report` is what people are told, `advice` what
//! they are warned of.

mod advice;
mod challenge_port;
mod in_use;
mod order;
mod probe;
mod report;
mod take;
mod watch;
mod worker;

use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, RawFd};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) use in_use::Given;
pub(super) use report::command;

use super::control::Renew;
use super::machine::Millis;
use super::voice::{self, Voice};
use crate::acme::exchange::{self, Level, Mode, Report};
use crate::acme::lineage::Store;
use crate::acme::lineage::renewal_conf::RenewalConf;
use crate::acme::schedule::{self, Held};
use crate::acme::settings::{self, Renewal, Settings};
use crate::acme::stand_in::StandIns;
use crate::acme::state::{Seconds, State};
use crate::logging::LogType;
use crate::os::reap::Ending;
use crate::os::spawn::Identity;
use challenge_port::ChallengePort;
use in_use::InUse;
use probe::Probe;
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
    /// As of the last turn, and whether the broker was ready then.
    now: Millis,
    is_ready: bool,
    began: bool,
    asked_for: Option<Renew>,
    /// The outcome of the last attempt, for who waits for it.
    outcome: Option<(bool, String)>,
    in_use: InUse,
    probe: Probe,
    said_wrong_clock: bool,
    /// Lineages that are not renewed here.
    warned_of: BTreeSet<String>,
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
            now: 0,
            is_ready: false,
            began: false,
            asked_for: None,
            outcome: None,
            in_use: InUse::default(),
            probe: Probe::default(),
            said_wrong_clock: false,
            warned_of: BTreeSet::new(),
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
        self.warn_of_loss(voice);
        match self.store.mend(&self.name) {
            Ok(lines) => lines.iter().for_each(|line| voice.say(LogType::Warning, &format!("Warning: {line}."))),
            Err(error) => {
                voice.say(LogType::Error, &format!("Error: {} cannot be mended: {error}.", self.store.live(&self.name).display()));
            }
        }
        let (state, said) = State::read(self.store.root(), &self.name);
        self.state = state;
        let authorities = settings.ca_file.as_ref().and_then(|path| crate::acme::lineage::read(path).ok()).unwrap_or_default();
        self.state.turn_to(&settings.directory, &settings.fingerprint(&authorities));
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
        let origin = self.state.origin(&leaf.fingerprint());
        let directory = origin.map(|origin| origin.directory.clone()).or_else(|| RenewalConf::parse(&conf).server().map(str::to_owned));
        let is_test = self.state.is_test(&leaf.fingerprint()) || directory.as_deref().is_some_and(settings::is_test_server);
        let spread = leaf.der.iter().rev().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
        self.held = Some(Held {
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            asked_for: origin.map(|origin| origin.names.clone()),
            id: exchange::certificate_id(&leaf.der),
            leaf: leaf.fingerprint(),
            names: leaf.names,
            directory,
            is_test,
            spread,
        });
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

    /// What is to be given to a broker, before its files are read.
    pub(super) fn give(&self) -> Given {
        Given::of(self.in_use.version())
    }

    /// The broker has this, or is to have it when it starts.
    pub(super) fn served(&mut self, given: Given, voice: &Voice) {
        self.warn_of_others(given.stamps.iter().map(|(path, _)| path.as_path()), voice);
        self.in_use.served(given.version);
        self.watch.follow(given.stamps, given.certificates);
        self.probe.follow(given.listeners);
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

    /// What is to happen to the broker because files of its listeners are new: again and again, until it has them.
    pub(super) fn renewed(&mut self, now: Millis) -> Option<Renewal> {
        self.in_use.is_due(now).then_some(self.renewal)
    }

    fn keep_state(&self, voice: &Voice) {
        if let Err(error) = self.state.write(self.store.root(), &self.name) {
            let place = State::path(self.store.root(), &self.name);
            voice.say(LogType::Error, &format!("Error: {} cannot be written: {error}.", place.display()));
        }
    }

    /// Does what is due; called at each turn while the broker may be told of it.
    pub(super) fn turn(&mut self, now: Millis, is_ready: bool, voice: &Voice) {
        (self.now, self.is_ready) = (now, is_ready);
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
            if !is_broken {
                self.in_use.renewed();
            }
        }
        for line in self.watch.warnings(wall_clock()) {
            voice.say(LogType::Warning, &line);
        }
        self.look_at_listeners(now, is_ready, voice);
        if let Some(worker) = &mut self.worker {
            return worker.enforce(now);
        }
        if now < self.look_at || self.settings.is_none() {
            return;
        }
        self.look_at = now + LOOK_EVERY;
        self.act(now, voice);
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
        let attempt = if worker.is_some() { worker } else { look };
        let probe = self.probe.next().filter(|_| self.worker.is_none() && self.in_use.is_settled());
        let again = self.in_use.next_try().filter(|_| self.is_ready);
        attempt.into_iter().chain(probe).chain(again).chain(self.watch.next_look()).min()
    }
}
