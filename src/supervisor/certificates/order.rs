//! Attempts: what is asked of the worker, when, and what its outcome means.

use super::worker::Worker;
use super::{Certificates, LOOK_EVERY, WORKER_LIMIT, WORKER_SECS, random, report, settings, voice, wall_clock};
use crate::acme::exchange::{self, Failure, Mode, Report, Request, SelfCheck, Step};
use crate::acme::schedule::{self, Next};
use crate::acme::settings::Settings;
use crate::acme::state::Seconds;
use crate::logging::LogType;
use crate::os::reap::Ending;
use crate::supervisor::control::Renew;
use crate::supervisor::machine::Millis;
use crate::supervisor::voice::Voice;

impl Certificates {
    pub(super) fn finish(&mut self, worker: Worker, ending: Ending, voice: &Voice) {
        let now = wall_clock();
        let is_question = worker.request.mode == Mode::RenewalInfo;
        if worker.request.mode == Mode::Probe {
            return match &worker.outcome {
                Some(Report::Probed { leaves }) => self.probed(self.now, leaves, voice),
                _ => self.probe.unanswered(),
            };
        }
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
            Some(Report::Issued(issued)) => match self.take(&worker.request, &issued, now, &mut |_| Ok(()), voice) {
                Ok(text) => {
                    voice::print(&text);
                    self.outcome = Some((true, text));
                    if !worker.request.dry_run {
                        self.look_at_held(voice);
                        self.in_use.renewed();
                    }
                }
                Err(reason) => {
                    return self.failed(&worker.request, now, &unexplained(&format!("what it brought was not taken: {reason}")), voice);
                }
            },
            Some(Report::Failed(failure)) => return self.failed(&worker.request, now, &failure, voice),
            _ if is_question => self.state.not_wished(now, &asked, None),
            _ => return self.failed(&worker.request, now, &unexplained(&format!("the worker ended without a word ({ending:?})")), voice),
        }
        self.keep_state(voice);
    }

    fn failed(&mut self, request: &Request, now: Seconds, failure: &Failure, voice: &Voice) {
        let text = format!("no certificate for {}: {}", request.domains.join(", "), failure.text);
        self.outcome = Some((false, text.clone()));
        if request.dry_run {
            return voice.say(LogType::Error, &format!("Error: {}.", text.trim_end_matches('.')));
        }
        let reached_the_ca = failure.counted && !matches!(failure.step, Step::Request | Step::Storage);
        let is_news = if reached_the_ca {
            self.state.failed(now, random(), &failure.text, failure.retry_after_secs);
            true
        } else {
            self.state.stumbled(now, &failure.text)
        };
        // Who reads of it finds it in `darner cert`.
        self.keep_state(voice);
        if !is_news {
            return;
        }
        let next = self.state.next_try().map_or("later".to_owned(), report::time);
        voice.say(LogType::Error, &format!("Error: {}. Next try: {next}.", text.trim_end_matches('.')));
    }

    pub(super) fn act(&mut self, now: Millis, voice: &Voice) {
        let Some(settings) = self.settings.clone() else { return };
        let wall = wall_clock();
        match self.asked_for.take() {
            Some(Renew::DryRun) => return self.rehearse(now, &settings, voice),
            Some(Renew::Force) => return self.order(now, &settings, "it was asked for", voice),
            Some(Renew::IfDue) | None => {}
        }
        let next = schedule::next(&settings, self.held.as_ref(), &self.state, wall);
        self.said_wrong_clock &= matches!(next, Next::WrongClock(_));
        match next {
            Next::Wait(until) => self.look_at = now + LOOK_EVERY.min((until - wall).max(1) as Millis * 1000),
            Next::WrongClock(_) if std::mem::replace(&mut self.said_wrong_clock, true) => {}
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
                self.state.checked(wall, random());
                self.keep_state(voice);
                voice::print("Checking on certificates...");
                if schedule::is_kept_from_tests(&settings, self.held.as_ref(), wall) {
                    voice::print(report::KEPT_FROM_TESTS);
                }
                self.look_at = now;
            }
            Next::AskRenewalInfo => self.start(now, &settings, Mode::RenewalInfo, false, voice),
            Next::Order(reason) => self.order(now, &settings, report::reason(reason), voice),
        }
    }

    fn order(&mut self, now: Millis, settings: &Settings, why: &str, voice: &Voice) {
        // A volume that is full must not cost an order.
        if let Err(error) = self.store.probe() {
            let text = format!(
                "{} cannot be written ({error}): nothing was asked of the CA; free or mount the volume",
                self.store.root().display()
            );
            return self.stumble(now, &text, voice);
        }
        if let Err(text) = self.port.open(voice) {
            self.port.close(voice);
            return self.stumble(now, &text, voice);
        }
        let test = if settings.is_test { "TEST " } else { "" };
        let what = if self.held.is_some() {
            "Certificates exist, attempting to renew...".to_owned()
        } else {
            format!("Obtaining {test}cert for {}", settings.domains.join(", "))
        };
        voice::print(&format!("{what} ({why})"));
        if self.held.is_some() {
            voice::print("Renew certs ...");
        }
        if settings.challenge == exchange::Challenge::TlsAlpn01 && !self.watch.has_listeners() {
            voice.say(
                LogType::Warning,
                "Warning: tls-alpn-01 is answered by a TLS listener, and mosquitto.conf has none: add one, or use http-01.",
            );
        }
        self.state.begin(wall_clock(), random());
        self.keep_state(voice);
        self.start(now, settings, Mode::Issue, false, voice);
    }

    /// The attempt ended before the CA heard of it; the same reason is said once.
    fn stumble(&mut self, now: Millis, text: &str, voice: &Voice) {
        let is_news = self.state.stumbled(wall_clock(), text);
        self.look_at = now;
        // Said below, if it cannot be.
        let _ = self.state.write(self.store.root(), &self.name);
        if is_news {
            let next = self.state.next_try().map_or("later".to_owned(), report::time);
            voice.say(LogType::Error, &format!("Error: {text}. Next try: {next}."));
        }
        self.outcome = Some((false, text.to_owned()));
    }

    /// Goes the whole way to a CA and switches nothing. Let's Encrypt has one for this, which has an account and limits of its own.
    fn rehearse(&mut self, now: Millis, settings: &Settings, voice: &Voice) {
        voice::print("Renew dry run ...");
        let rehearsal = settings.for_rehearsal();
        if rehearsal.directory == settings.directory && !settings.is_test {
            let text = format!("The dry run asks {} itself, which may count it: no test server of this CA is known.", settings.directory);
            voice.say(LogType::Warning, &format!("Warning: {text}"));
        }
        if let Err(text) = self.port.open(voice) {
            self.port.close(voice);
            voice.say(LogType::Error, &format!("Error: {text}."));
            self.outcome = Some((false, text));
            return;
        }
        self.start(now, &rehearsal, Mode::Issue, true, voice);
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
            held: self.held.as_ref().filter(|_| !dry_run).map(|held| held.leaf.clone()),
            deadline_secs: WORKER_SECS,
            account: self.account(&settings.directory),
            self_check: Some(SelfCheck { port: 80, is_public: settings::is_public(&settings.directory) }),
            dry_run,
            targets: Vec::new(),
        };
        let sockets = if mode == Mode::Issue { self.port.sockets() } else { Vec::new() };
        match Worker::start(request, &sockets, now + WORKER_LIMIT) {
            Ok(worker) => self.worker = Some(worker),
            Err(error) => {
                if mode == Mode::Issue {
                    self.port.close(voice);
                }
                let text = format!("the worker that talks to the CA cannot be started: {error}");
                if mode == Mode::RenewalInfo {
                    let asked = self.held.as_ref().and_then(|held| held.id.clone()).unwrap_or_default();
                    self.state.not_wished(wall_clock(), &asked, None);
                }
                if dry_run {
                    voice.say(LogType::Error, &format!("Error: {text}."));
                    self.outcome = Some((false, text));
                } else {
                    self.stumble(now, &text, voice);
                }
            }
        }
    }

    /// `darner cert renew`. The outcome comes from [`Self::outcome`].
    ///
    /// # Errors
    /// Why there is nothing to wait for.
    pub(in crate::supervisor) fn renew(&mut self, how: Renew) -> Result<(), (bool, String)> {
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
            let reason = schedule::due(settings, self.held.as_ref(), &self.state, now)
                .map_err(|at| (true, format!("Nothing is due before {}; --force renews now.", report::time(at))))?;
            if let Some(at) = schedule::pause(&self.state, reason, now) {
                let interrupted = if self.state.next_try().is_none() { "the last one is new" } else { "an attempt was interrupted" };
                let last = self.state.last_error.as_deref().unwrap_or(interrupted);
                return Err((false, format!("the next try is due at {} ({last}); --force tries now", report::time(at))));
            }
        }
        self.asked_for = Some(how);
        self.look_at = 0;
        Ok(())
    }
}

fn unexplained(text: &str) -> Failure {
    Failure {
        step: Step::Certificate,
        problem: None,
        status: None,
        text: text.to_owned(),
        retry_after_secs: None,
        identifiers: Vec::new(),
        is_clock_error: false,
        counted: true,
    }
}
