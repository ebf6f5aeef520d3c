//! What the control socket and new certificates ask of the supervisor.

use std::collections::VecDeque;

use super::Broker;
use crate::acme::settings::Renewal;
use crate::exit_code::ExitCode;
use crate::logging::LogType;
use crate::repair;
use crate::supervisor::control::{Request, Waits};
use crate::supervisor::machine::Event;
use crate::supervisor::phase::Phase;
use crate::supervisor::run::{Service as _, State};
use crate::supervisor::voice;

impl Broker {
    pub(super) fn asked(&mut self, index: usize, request: Request, state: &State<'_>, events: &mut VecDeque<Event>) {
        match request {
            Request::Status => {
                let text = crate::supervisor::status::text(self, state);
                self.answer(index, ExitCode::Ok, &text);
            }
            Request::Reload if state.machine.is_ending() => self.answer(index, ExitCode::Failure, "Reload refused: darner is stopping."),
            Request::Reload => {
                if let Some(control) = &mut self.control {
                    control.wait(index, Waits::Verdict(self.reloads + 1), state.now);
                }
                events.push_back(Event::ReloadAsked);
            }
            Request::Restart => self.restart(index, state, events),
            Request::Health => {
                let (is_good, text) = self.certificates.health();
                let (is_good, text) = match (self.ill.as_str(), text.as_str()) {
                    ("", _) => (is_good, text),
                    (ill, "") => (false, ill.to_owned()),
                    (ill, text) => (false, format!("{ill}; {text}")),
                };
                self.answer(index, if is_good { ExitCode::Ok } else { ExitCode::Failure }, &text);
            }
            Request::Renew(how) => match self.certificates.renew(how) {
                Err((is_fine, text)) => self.answer(index, if is_fine { ExitCode::Ok } else { ExitCode::Failure }, &text),
                Ok(()) => {
                    if let Some(control) = &mut self.control {
                        control.wait(index, Waits::Certificate, state.now);
                    }
                }
            },
        }
    }

    /// Everything that can fail is tried before the old broker is asked to end.
    fn may_restart(&mut self) -> Result<(), String> {
        let refused = |reason: String| format!("Restart refused, the broker runs on: {reason}");
        let loaded = self.load().map_err(|refusal| refused(refusal.one_line()))?;
        self.listeners.follow(&loaded.conf, self.identity).map_err(|error| refused(error.to_string()))?;
        self.adopt(&loaded.conf);
        self.certificates.served(loaded.given, &self.voice);
        self.conf = Some(loaded.conf);
        self.archive = Some(loaded.archive);
        self.candidate = None;
        self.say(LogType::Notice, "Restarting the broker.");
        Ok(())
    }

    fn restart(&mut self, index: usize, state: &State<'_>, events: &mut VecDeque<Event>) {
        if state.machine.is_ending() {
            return self.answer(index, ExitCode::Failure, "Restart refused: darner is stopping.");
        }
        if let Err(refusal) = self.may_restart() {
            return self.answer(index, ExitCode::Failure, &refusal);
        }
        if let Some(control) = &mut self.control {
            control.wait(index, Waits::ReadyAfter(state.child), state.now);
        }
        events.push_back(Event::RestartAsked);
    }

    /// Renews certificates that we made ourselves. That the files have changed is then seen as when anybody else renews them.
    fn renew_self_made(&self) {
        let (Some(request), Some(conf)) = (self.repair_request(), &self.conf) else { return };
        let report = repair::renew(&request, &repair::Named::from_conf(conf));
        if report.changes > 0 || !report.problems.is_empty() {
            report.lines.iter().for_each(|line| voice::print(line));
        }
    }

    /// What is due about certificates, and what came of it.
    pub(super) fn certify(&mut self, state: &State<'_>, events: &mut VecDeque<Event>) {
        if self.certificates.is_self_made_due(state.now) {
            self.renew_self_made();
        }
        let is_ready = state.machine.phase() == Phase::Ready;
        self.certificates.turn(state.now, is_ready, &self.voice);
        if let Some((is_good, text)) = self.certificates.outcome()
            && let Some(control) = &mut self.control
        {
            let code = if is_good { ExitCode::Ok } else { ExitCode::Failure };
            control.answer_all(code, &text, |waits| waits == Waits::Certificate);
        }
        // One thing at a time: a broker that starts reads the files that are there by then.
        if !is_ready {
            return;
        }
        match self.certificates.renewed(state.now) {
            Some(Renewal::Reload) => events.push_back(Event::ReloadAsked),
            Some(Renewal::Restart) => match self.may_restart() {
                Ok(()) => events.push_back(Event::RestartAsked),
                Err(refusal) => self.say(LogType::Error, &refusal),
            },
            None => {}
        }
    }
}
