//! The loop: one thread, one table of children, no tokio. It turns what happens into events and performs the machine's actions.

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::machine::{Action, Event, Machine, Millis, Policy, Scope};
use super::phase::Phase;
use super::signal_table::Meaning;
use crate::exit_code::ExitCode;
use crate::logging::LogType;
use crate::os;
use crate::os::reap::{Ending, Reaped};
use crate::os::spawn::SpawnError;

/// With a watchdog we wake at least this often, so that a long sleep of the whole container shows.
const TICK: Millis = 5_000;
/// Waking this much later than asked for means that we were not running.
const JUMP: Millis = 2_000;
/// Processes that are not our children end without telling us.
const SWEEP_TICK: Millis = 20;

/// What the loop supervises: the broker, or any command.
pub(super) trait Service {
    fn meaning(&self, signal: i32) -> Meaning;
    fn say(&self, log_type: LogType, text: &str);
    /// Says something about the child: a predicate.
    fn say_of_child(&self, log_type: LogType, text: &str);
    fn repair(&mut self) {}
    /// Reads the configuration and binds the sockets.
    fn prepare(&mut self) -> Result<(), ExitCode> {
        Ok(())
    }
    fn spawn(&mut self) -> Result<i32, SpawnError>;
    /// The uid of the child where it is not ours.
    fn child_uid(&self) -> Option<u32> {
        None
    }
    /// Descriptors to watch for input; those in `blocked` are not watched while the phase forbids it.
    fn sources(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }
    /// Something happened on one of [`Self::sources`].
    fn readable(&mut self, _fd: RawFd, _state: &State<'_>, _events: &mut VecDeque<Event>) {}
    /// Hands the new configuration to the child. Pushes `ReloadAnswered` when it is refused before it gets there.
    fn reload(&mut self, events: &mut VecDeque<Event>) {
        events.push_back(Event::ReloadAnswered);
    }
    fn reload_timed_out(&mut self) {}
    /// The child is gone.
    fn ended(&mut self, _ending: Ending) {}
    /// Called at each turn; `stopping` when no more reload will happen.
    fn turn(&mut self, _state: &State<'_>, _events: &mut VecDeque<Event>) {}
    /// A process that is not the child ended: one of the service's own, or an orphan.
    fn reaped(&mut self, _pid: i32, _ending: Ending) {}
    /// When it wants [`Self::turn`] next.
    fn next_turn(&self) -> Option<Millis> {
        None
    }
    fn dump(&self, state: &State<'_>) {
        self.say(LogType::Notice, &format!("supervisor: {}, {} restarts", state.machine.phase().name(), state.machine.restarts()));
    }
}

/// What a service may know of the loop.
pub(super) struct State<'a> {
    pub(super) machine: &'a Machine,
    pub(super) child: Option<i32>,
    pub(super) now: Millis,
}

struct Loop<'a> {
    service: &'a mut dyn Service,
    machine: Machine,
    signals: os::signals::Signals,
    watchdog: bool,
    clock: Instant,
    child: Option<i32>,
    /// The process group of the last child.
    group: i32,
    sweeping: Option<Scope>,
    events: VecDeque<Event>,
    exit: Option<u8>,
}

/// Runs until the service ends for good, and returns what the process exits with.
pub(super) fn supervise(service: &mut dyn Service, policy: Policy) -> ExitCode {
    let signals = match os::signals::Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            service.say(LogType::Error, &format!("Error: signals cannot be read ({error}); nothing can be supervised."));
            return ExitCode::Internal;
        }
    };
    if !os::process::is_pid_1() {
        // Without it, orphans go to the real PID 1, which is no loss.
        let _ = os::process::become_subreaper();
    }
    os::process::close_inherited_on_exec();
    let mut run = Loop {
        service,
        machine: Machine::new(policy),
        signals,
        watchdog: policy.watchdog.is_some(),
        clock: Instant::now(),
        child: None,
        group: 0,
        sweeping: None,
        events: VecDeque::new(),
        exit: None,
    };
    run.read_signals();
    run.events.push_back(Event::Began);

    // ---- From here on we must not die: if PID 1 ends, the kernel kills everything in the container. ----
    loop {
        let turn = guarded(|| {
            run.drain();
            if run.exit.is_none() {
                run.turn();
            }
        });
        if turn.is_none() {
            run.service.say(LogType::Error, "Error: the supervisor met a bug (above) and goes on; please report it.");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        if let Some(code) = run.exit {
            return ExitCode::Other(code);
        }
    }
}

/// `None` when it panicked; the panic hook has printed where.
fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}

impl Loop<'_> {
    fn now(&self) -> Millis {
        self.clock.elapsed().as_millis() as Millis
    }

    fn drain(&mut self) {
        let mut actions = Vec::new();
        while let Some(event) = self.events.pop_front() {
            self.machine.handle(self.now(), event, &mut actions);
            for action in actions.drain(..) {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Repair => {
                // A bug in the repair must not keep the broker from starting.
                let _ = guarded(|| self.service.repair());
                self.read_signals();
                self.events.push_back(Event::Repaired);
            }
            Action::Prepare => {
                let result = guarded(|| self.service.prepare()).unwrap_or(Err(ExitCode::Internal));
                self.read_signals();
                self.events.push_back(match result {
                    Ok(()) => Event::Prepared,
                    Err(code) => Event::PrepareFailed(code.code()),
                });
            }
            Action::Spawn => self.spawn(),
            Action::Signal(signal) => self.signal(signal),
            Action::Reload => {
                if guarded(|| self.service.reload(&mut self.events)).is_none() {
                    self.events.push_back(Event::ReloadAnswered);
                }
            }
            Action::ReloadTimedOut => self.service.reload_timed_out(),
            Action::Dump => {
                let state = State { machine: &self.machine, child: self.child, now: self.clock.elapsed().as_millis() as Millis };
                self.service.dump(&state);
            }
            Action::Sweep(scope, signal) => self.sweep(scope, signal),
            Action::Exit(code) => self.exit = Some(code),
            Action::Say(log_type, text) => self.service.say_of_child(log_type, &text),
        }
    }

    fn spawn(&mut self) {
        match self.service.spawn() {
            Ok(pid) => {
                self.child = Some(pid);
                self.group = pid;
                self.events.push_back(Event::Spawned);
            }
            Err(error) => {
                self.service.say_of_child(LogType::Error, &format!("cannot be started: {}", error.error));
                self.events.push_back(Event::SpawnFailed(error.code()));
            }
        }
    }

    fn signal(&self, signal: i32) {
        if let Some(pid) = self.child
            && let Err(error) = os::process::signal(pid, signal, self.service.child_uid())
        {
            self.service.say(LogType::Warning, &format!("Warning: signal {signal} cannot be sent to process {pid}: {error}"));
        }
    }

    fn sweep(&mut self, scope: Scope, signal: i32) {
        self.sweeping = Some(scope);
        match scope {
            Scope::Group if os::process::group_exists(self.group) => {
                let _ = os::process::signal_group(self.group, signal, self.service.child_uid());
            }
            Scope::Everyone if os::process::anyone_left() => os::process::signal_everyone(signal, self.service.child_uid()),
            Scope::Group | Scope::Everyone => {}
        }
        self.look_if_swept();
    }

    fn look_if_swept(&mut self) {
        let left = match self.sweeping {
            None => return,
            Some(Scope::Group) => os::process::group_exists(self.group),
            Some(Scope::Everyone) => os::process::anyone_left(),
        };
        if !left {
            self.sweeping = None;
            self.events.push_back(Event::Swept);
        }
    }

    /// Waits for something to happen and turns it into events.
    fn turn(&mut self) {
        let before = self.now();
        let wait = self.patience(before);
        let ready = self.poll(wait);
        let now = self.now();
        if wait.is_some_and(|wait| now > before + wait + JUMP) {
            self.events.push_back(Event::ClockJumped);
        }
        self.read_signals();
        for fd in ready {
            let state = State { machine: &self.machine, child: self.child, now };
            self.service.readable(fd, &state, &mut self.events);
        }
        self.reap();
        self.drain();
        if self.machine.next_deadline().is_some_and(|deadline| deadline <= self.now()) {
            self.events.push_back(Event::DeadlineReached);
        }
        if self.machine.phase() == Phase::Sweeping {
            self.look_if_swept();
        } else {
            self.sweeping = None;
        }
        self.drain();
        let state = State { machine: &self.machine, child: self.child, now };
        self.service.turn(&state, &mut self.events);
    }

    /// How long to wait, `None` without end.
    fn patience(&self, now: Millis) -> Option<Millis> {
        let tick = match self.machine.phase() {
            Phase::Sweeping => Some(SWEEP_TICK),
            _ => self.watchdog.then_some(TICK),
        };
        let deadlines = [self.machine.next_deadline(), self.service.next_turn()];
        deadlines.into_iter().flatten().map(|at| at.saturating_sub(now)).chain(tick).min()
    }

    /// The descriptors of the service that have something.
    fn poll(&self, wait: Option<Millis>) -> Vec<RawFd> {
        let sources = self.service.sources();
        let mut fds: Vec<_> = [self.signals.as_fd()].into_iter().chain(sources).map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        // One more, so that a deadline has passed when we wake for it.
        let timeout = wait.map_or(PollTimeout::NONE, |wait| PollTimeout::try_from(wait.saturating_add(1)).unwrap_or(PollTimeout::MAX));
        let _ = poll(&mut fds, timeout);
        let happened = |fd: &&PollFd<'_>| fd.any().unwrap_or(false);
        fds.iter().skip(1).filter(happened).map(|fd| fd.as_fd().as_raw_fd()).collect()
    }

    fn read_signals(&mut self) {
        let mut seen = Vec::new();
        while let Some(signal) = self.signals.read() {
            // The kernel folds equal signals into one; so do we with those of one turn. Each of TERM and INT counts.
            if !seen.contains(&signal) {
                seen.push(signal);
            }
        }
        for signal in seen {
            match self.service.meaning(signal) {
                Meaning::Stop => self.events.push_back(Event::StopAsked(signal)),
                Meaning::Quit => self.events.push_back(Event::QuitAsked(signal)),
                Meaning::Reload => self.events.push_back(Event::ReloadAsked),
                Meaning::ToChild => self.events.push_back(Event::SignalForChild(signal)),
                Meaning::Child | Meaning::Ignored => {}
            }
        }
    }

    fn reap(&mut self) {
        while let Reaped::Ended(pid, ending) = os::reap::next() {
            if self.child == Some(pid) {
                self.child = None;
                self.service.ended(ending);
                self.events.push_back(Event::Ended(ending));
            } else {
                self.service.reaped(pid, ending);
            }
        }
    }
}
