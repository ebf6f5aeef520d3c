//! (Phase × Event) → Phase + Actions: pure and total. Time is an argument; the run loop performs the actions in order.

use std::collections::VecDeque;

use super::phase::Phase;
use crate::logging::LogType;
use crate::os::reap::Ending;

/// Monotonic milliseconds since the process began.
pub(super) type Millis = u64;

/// A child that had been ready for this long is restarted at once and its past deaths are forgotten.
const STEADY: Millis = 10_000;
/// More deaths than [`DEATHS_MAX`] within this time, none of a steady child, and we give up.
const DEATHS_WINDOW: Millis = 60_000;
const DEATHS_MAX: usize = 5;
const BACK_OFF_FIRST: Millis = 100;
/// A child that cannot even be forked is tried again this often, this long apart.
const SPAWN_FAILURES_MAX: u32 = 60;
const SPAWN_RETRY: Millis = 1_000;
const BACK_OFF_MAX: Millis = 10_000;
/// A child may take this long until it is ready, or between two signs of life on the way there.
const START_LIMIT: Millis = 90_000;
/// After SIGABRT, the time to leave a trace.
const ABORT_GRACE: Millis = 2_000;
/// Two reloads are at least this far apart; what is asked for in between is done once.
const RELOAD_GAP: Millis = 1_000;
const RELOAD_LIMIT: Millis = 10_000;
/// What a second request to stop leaves of the grace.
const HASTE: Millis = 1_000;
/// Exit codes that mean "my configuration is unusable": trying again does not help.
const CONFIGURATION_CODES: [u8; 4] = [1, 3, 13, 78];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    Never,
    /// Unless it exits with 0 by itself.
    OnFailure,
    Always,
}

/// How the broker and any other command differ.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    pub(super) restart: Restart,
    /// The child says when it is ready; otherwise it is as soon as it runs.
    pub(super) readiness: bool,
    /// A stop that was asked for is a success, whatever the child's exit code.
    pub(super) orderly_is_success: bool,
    /// What asks the child to end; `None`: the signal that asked us.
    pub(super) stop_signal: Option<i32>,
    /// A ready child that gives no sign of life for this long is frozen.
    pub(super) watchdog: Option<Millis>,
    pub(super) stop_grace: Millis,
    pub(super) sweep_grace: Millis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Began,
    Repaired,
    /// Configuration read and sockets bound.
    Prepared,
    PrepareFailed(u8),
    Spawned,
    SpawnFailed(u8),
    BecameReady,
    /// A sign of life.
    Petted,
    Ended(Ending),
    /// Nobody is left of those that were to be swept.
    Swept,
    /// A signal that asks for the end.
    StopAsked(i32),
    QuitAsked(i32),
    ReloadAsked,
    /// The reload that was begun has a verdict.
    ReloadAnswered,
    RestartAsked,
    SignalForChild(i32),
    /// We did not run for a while (a paused container): silence of the child proves nothing.
    ClockJumped,
    DeadlineReached,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// What the child left in its session's group.
    Group,
    /// Everybody else in the namespace, or all our descendants.
    Everyone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Repair,
    Prepare,
    Spawn,
    Signal(i32),
    Reload,
    ReloadTimedOut,
    Dump,
    /// Signal them, and report `Event::Swept` when nobody is left.
    Sweep(Scope, i32),
    Exit(u8),
    /// About the child: a predicate, such as "ended with exit code 1; restarting it now".
    Say(LogType, String),
}

/// What follows once the child is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Respawn(Millis),
    Exit(u8),
}

pub(super) struct Machine {
    policy: Policy,
    phase: Phase,
    deadline: Option<Millis>,
    /// When silence means frozen.
    pet_by: Option<Millis>,
    ready_since: Option<Millis>,
    deaths: VecDeque<Millis>,
    /// In a row.
    spawn_failures: u32,
    configuration_exit: Option<u8>,
    next: Next,
    stop_requests: u8,
    killed: bool,
    remembered: Vec<i32>,
    reload_pending: bool,
    reload_began: Option<Millis>,
    restarts: u32,
}

impl Machine {
    pub(super) fn new(policy: Policy) -> Self {
        Self {
            policy,
            phase: Phase::Booting,
            deadline: None,
            pet_by: None,
            ready_since: None,
            deaths: VecDeque::new(),
            spawn_failures: 0,
            configuration_exit: None,
            next: Next::Exit(0),
            stop_requests: 0,
            killed: false,
            remembered: Vec::new(),
            reload_pending: false,
            reload_began: None,
            restarts: 0,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// It ends, and not only the child, which may be about to be started again.
    pub(super) fn is_ending(&self) -> bool {
        match self.phase {
            Phase::Stopping | Phase::Sweeping => !matches!(self.next, Next::Respawn(_)),
            phase => phase == Phase::Finished,
        }
    }

    /// How often the child was started again.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// When the current child became ready.
    pub(super) fn ready_since(&self) -> Option<Millis> {
        self.ready_since
    }

    /// When to call `handle` with `DeadlineReached`.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        match (self.deadline, self.pet_by) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    pub(super) fn handle(&mut self, now: Millis, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Began => self.began(out),
            Event::Repaired => self.repaired(out),
            Event::Prepared => self.prepared(out),
            Event::PrepareFailed(code) => self.prepare_failed(now, code, out),
            Event::Spawned => self.spawned(now, out),
            Event::SpawnFailed(code) => self.spawn_failed(now, code, out),
            Event::BecameReady => self.became_ready(now, out),
            Event::Petted => self.petted(now),
            Event::Ended(ending) => self.ended(now, ending, out),
            Event::Swept => self.swept(now, out),
            Event::StopAsked(signal) => self.stop_asked(now, signal, out),
            Event::QuitAsked(signal) => {
                out.push(Action::Dump);
                self.stop_asked(now, signal, out);
                self.hasten(now);
            }
            Event::ReloadAsked => self.reload_asked(now, out),
            Event::ReloadAnswered => self.reload_answered(),
            Event::RestartAsked => self.restart_asked(now, out),
            Event::SignalForChild(signal) => self.signal_for_child(signal, out),
            Event::ClockJumped => self.pet_by = self.pet_by.map(|by| by.max(now + self.policy.watchdog.unwrap_or(START_LIMIT))),
            Event::DeadlineReached => self.deadline_reached(now, out),
        }
    }

    fn began(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Booting => {
                self.phase = Phase::Repairing;
                out.push(Action::Repair);
            }
            Phase::Repairing
            | Phase::Preparing
            | Phase::Starting
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn repaired(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Repairing => {
                self.phase = Phase::Preparing;
                out.push(Action::Prepare);
            }
            Phase::Booting
            | Phase::Preparing
            | Phase::Starting
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn prepared(&mut self, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Preparing => {
                self.phase = Phase::Starting;
                out.push(Action::Spawn);
            }
            Phase::Booting
            | Phase::Repairing
            | Phase::Starting
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn prepare_failed(&mut self, now: Millis, code: u8, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Preparing => {
                self.next = Next::Exit(code);
                self.sweep(now, Scope::Everyone, out);
            }
            Phase::Booting
            | Phase::Repairing
            | Phase::Starting
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn spawned(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.spawn_failures = 0;
        match self.phase {
            Phase::Starting if self.policy.readiness => self.pet_by = self.policy.watchdog.map(|_| now + START_LIMIT),
            Phase::Starting => self.became_ready(now, out),
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn spawn_failed(&mut self, now: Millis, code: u8, out: &mut Vec<Action>) {
        match self.phase {
            // A command that is not there will not be there in a moment either; a broker that cannot be forked may.
            Phase::Starting if !self.policy.readiness => {
                self.next = Next::Exit(code);
                self.sweep(now, Scope::Everyone, out);
            }
            // No process or descriptor to be had: that passes by itself more often than a broker that dies, so it gets more time.
            Phase::Starting => {
                self.spawn_failures += 1;
                let (next, scope) = if self.spawn_failures < SPAWN_FAILURES_MAX {
                    (Next::Respawn(now + SPAWN_RETRY), Scope::Group)
                } else {
                    (Next::Exit(code), Scope::Everyone)
                };
                self.next = next;
                self.sweep(now, scope, out);
            }
            Phase::Stopping => self.ended(now, Ending::Exited(code), out),
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn became_ready(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting => {
                self.phase = Phase::Ready;
                self.ready_since = Some(now);
                self.pet_by = self.policy.watchdog.map(|limit| now + limit);
                self.deadline = self.reload_pending.then_some(now);
                out.extend(self.remembered.drain(..).map(Action::Signal));
            }
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn petted(&mut self, now: Millis) {
        match self.phase {
            Phase::Starting => self.pet_by = self.policy.watchdog.map(|_| now + START_LIMIT),
            Phase::Ready | Phase::Reloading => self.pet_by = self.policy.watchdog.map(|limit| now + limit),
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn ended(&mut self, now: Millis, ending: Ending, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting | Phase::Ready | Phase::Reloading | Phase::Aborting => self.next = self.after_death(now, ending, out),
            Phase::Stopping => {
                if matches!(self.next, Next::Exit(_)) && !self.policy.orderly_is_success {
                    self.next = Next::Exit(ending.code());
                }
            }
            Phase::Booting | Phase::Repairing | Phase::Preparing | Phase::BackingOff | Phase::Sweeping | Phase::Finished => return,
        }
        self.pet_by = None;
        self.ready_since = None;
        let scope = match self.next {
            Next::Respawn(_) => Scope::Group,
            Next::Exit(_) => Scope::Everyone,
        };
        self.sweep(now, scope, out);
    }

    /// The restart policy.
    fn after_death(&mut self, now: Millis, ending: Ending, out: &mut Vec<Action>) -> Next {
        let code = ending.code();
        let wanted = match self.policy.restart {
            Restart::Never => false,
            Restart::OnFailure => code != 0,
            Restart::Always => true,
        };
        if !wanted {
            return Next::Exit(code);
        }
        if self.ready_since.is_some_and(|since| now.saturating_sub(since) >= STEADY) {
            self.deaths.clear();
            self.configuration_exit = None;
            out.push(Action::Say(LogType::Error, format!("ended with {ending}; restarting it now")));
            return Next::Respawn(now);
        }
        let refused = self.policy.readiness && self.ready_since.is_none() && CONFIGURATION_CODES.contains(&code);
        if refused && self.configuration_exit == Some(code) {
            out.push(Action::Say(LogType::Error, format!("refused its configuration twice ({ending}); giving up with its exit code")));
            return Next::Exit(code);
        }
        self.configuration_exit = refused.then_some(code);
        self.deaths.retain(|death| now.saturating_sub(*death) < DEATHS_WINDOW);
        self.deaths.push_back(now);
        let count = self.deaths.len();
        if count >= DEATHS_MAX {
            let text = format!("ended with {ending}, {count} times within a minute; giving up with its exit code");
            out.push(Action::Say(LogType::Error, text));
            return Next::Exit(code);
        }
        // The first death costs nobody a wait.
        let wait = match count {
            0 | 1 => 0,
            _ => (BACK_OFF_FIRST << (count - 2).min(10)).min(BACK_OFF_MAX),
        };
        let when = if wait == 0 { "now".to_owned() } else { format!("in {wait} ms") };
        out.push(Action::Say(LogType::Error, format!("ended with {ending}; restarting it {when}")));
        Next::Respawn(now + wait)
    }

    fn sweep(&mut self, now: Millis, scope: Scope, out: &mut Vec<Action>) {
        self.phase = Phase::Sweeping;
        self.killed = false;
        self.pet_by = None;
        self.deadline = Some(now + self.policy.sweep_grace);
        out.push(Action::Sweep(scope, libc_signal::TERM));
    }

    fn swept(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Sweeping => match self.next {
                Next::Exit(code) => {
                    self.phase = Phase::Finished;
                    self.deadline = None;
                    out.push(Action::Exit(code));
                }
                Next::Respawn(at) if at <= now => self.respawn(out),
                Next::Respawn(at) => {
                    self.phase = Phase::BackingOff;
                    self.deadline = Some(at);
                }
            },
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Starting
            | Phase::Ready
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Finished => {}
        }
    }

    fn respawn(&mut self, out: &mut Vec<Action>) {
        self.phase = Phase::Starting;
        self.deadline = None;
        self.restarts = self.restarts.saturating_add(1);
        out.push(Action::Spawn);
    }

    fn stop_asked(&mut self, now: Millis, signal: i32, out: &mut Vec<Action>) {
        let to_child = self.policy.stop_signal.unwrap_or(signal);
        match self.phase {
            // A command that is not restarted decides itself what a signal means, as under any other init.
            Phase::Starting | Phase::Ready | Phase::Reloading | Phase::Aborting if self.policy.restart == Restart::Never => {
                out.push(Action::Signal(to_child));
            }
            Phase::Starting | Phase::Ready | Phase::Reloading | Phase::Aborting => {
                self.stop_requests = 1;
                self.stop_child(now, to_child, Next::Exit(0), out);
            }
            Phase::Booting | Phase::Repairing | Phase::Preparing | Phase::BackingOff => {
                let code = if self.policy.orderly_is_success { 0 } else { 128u8.saturating_add(signal as u8) };
                self.next = Next::Exit(code);
                self.sweep(now, Scope::Everyone, out);
            }
            Phase::Stopping => {
                self.next = Next::Exit(0);
                self.stop_requests = self.stop_requests.saturating_add(1);
                if self.stop_requests >= 3 {
                    out.push(Action::Signal(libc_signal::KILL));
                } else {
                    self.hasten(now);
                    out.push(Action::Signal(to_child));
                }
            }
            Phase::Sweeping => {
                if matches!(self.next, Next::Respawn(_)) {
                    self.next = Next::Exit(0);
                    self.sweep(now, Scope::Everyone, out);
                }
            }
            Phase::Finished => {}
        }
    }

    fn stop_child(&mut self, now: Millis, signal: i32, next: Next, out: &mut Vec<Action>) {
        self.phase = Phase::Stopping;
        self.pet_by = None;
        self.next = next;
        self.deadline = Some(now + self.policy.stop_grace);
        // A stopped process only dies once it is continued.
        out.extend([Action::Signal(signal), Action::Signal(libc_signal::CONT)]);
    }

    fn hasten(&mut self, now: Millis) {
        if self.phase == Phase::Stopping {
            self.deadline = self.deadline.map(|deadline| deadline.min(now + HASTE));
        }
    }

    fn reload_asked(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Ready => {
                let earliest = self.reload_began.map_or(now, |began| began + RELOAD_GAP);
                if earliest > now {
                    self.reload_pending = true;
                    self.deadline = Some(earliest);
                } else {
                    self.begin_reload(now, out);
                }
            }
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Starting
            | Phase::Reloading
            | Phase::Aborting
            | Phase::BackingOff => self.reload_pending = true,
            Phase::Stopping | Phase::Sweeping if !self.is_ending() => self.reload_pending = true,
            Phase::Stopping | Phase::Sweeping | Phase::Finished => {
                out.push(Action::Say(LogType::Notice, "is stopping; the reload is ignored".into()));
            }
        }
    }

    fn begin_reload(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.phase = Phase::Reloading;
        self.reload_pending = false;
        self.reload_began = Some(now);
        self.deadline = Some(now + RELOAD_LIMIT);
        out.push(Action::Reload);
    }

    fn reload_answered(&mut self) {
        match self.phase {
            Phase::Reloading => {
                self.phase = Phase::Ready;
                self.deadline = if self.reload_pending { self.reload_began.map(|began| began + RELOAD_GAP) } else { None };
            }
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Starting
            | Phase::Ready
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn restart_asked(&mut self, now: Millis, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Starting | Phase::Ready | Phase::Reloading => self.stop_child(now, libc_signal::TERM, Next::Respawn(now), out),
            Phase::BackingOff => self.deadline = Some(now),
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Aborting
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }

    fn signal_for_child(&mut self, signal: i32, out: &mut Vec<Action>) {
        match self.phase {
            Phase::Ready | Phase::Reloading | Phase::Stopping => out.push(Action::Signal(signal)),
            Phase::Booting | Phase::Repairing | Phase::Preparing | Phase::Starting | Phase::BackingOff | Phase::Sweeping => {
                if !self.remembered.contains(&signal) {
                    self.remembered.push(signal);
                }
            }
            Phase::Aborting | Phase::Finished => {}
        }
    }

    fn deadline_reached(&mut self, now: Millis, out: &mut Vec<Action>) {
        if self.pet_by.is_some_and(|by| by <= now) {
            return self.frozen(now, out);
        }
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        match self.phase {
            Phase::Ready => {
                if self.reload_pending {
                    self.begin_reload(now, out);
                }
            }
            Phase::Reloading => {
                out.push(Action::ReloadTimedOut);
                self.reload_answered();
            }
            Phase::Aborting | Phase::Stopping => {
                // Again and again: a process in uninterruptible sleep dies later.
                self.deadline = Some(now + HASTE);
                out.push(Action::Signal(libc_signal::KILL));
            }
            Phase::BackingOff => self.respawn(out),
            Phase::Sweeping if self.killed => self.swept(now, out),
            Phase::Sweeping => {
                self.killed = true;
                self.deadline = Some(now + HASTE);
                let scope = if matches!(self.next, Next::Exit(_)) { Scope::Everyone } else { Scope::Group };
                out.push(Action::Sweep(scope, libc_signal::KILL));
            }
            Phase::Booting | Phase::Repairing | Phase::Preparing | Phase::Starting | Phase::Finished => {}
        }
    }

    fn frozen(&mut self, now: Millis, out: &mut Vec<Action>) {
        self.pet_by = None;
        match self.phase {
            Phase::Starting | Phase::Ready | Phase::Reloading => {
                self.phase = Phase::Aborting;
                self.deadline = Some(now + ABORT_GRACE);
                out.push(Action::Say(LogType::Error, "gives no sign of life; aborting and restarting it".into()));
                out.extend([Action::Signal(libc_signal::ABRT), Action::Signal(libc_signal::CONT)]);
            }
            Phase::Booting
            | Phase::Repairing
            | Phase::Preparing
            | Phase::Aborting
            | Phase::BackingOff
            | Phase::Stopping
            | Phase::Sweeping
            | Phase::Finished => {}
        }
    }
}

/// The signals that the machine itself sends.
mod libc_signal {
    use nix::sys::signal::Signal;

    pub(super) const TERM: i32 = Signal::SIGTERM as i32;
    pub(super) const KILL: i32 = Signal::SIGKILL as i32;
    pub(super) const CONT: i32 = Signal::SIGCONT as i32;
    pub(super) const ABRT: i32 = Signal::SIGABRT as i32;
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
