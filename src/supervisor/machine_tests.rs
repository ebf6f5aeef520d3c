//! Every phase with every event, and the stories between a start and an end.

use super::*;
use crate::os::reap::Ending;

const BROKER: Policy = Policy {
    restart: Restart::Always,
    readiness: true,
    orderly_is_success: true,
    stop_signal: Some(TERM),
    watchdog: Some(15_000),
    stop_grace: 8_000,
    sweep_grace: 300,
};
const COMMAND: Policy = Policy {
    restart: Restart::Never,
    readiness: false,
    orderly_is_success: false,
    stop_signal: None,
    watchdog: None,
    stop_grace: 8_000,
    sweep_grace: 1_000,
};

const TERM: i32 = 15;
const CONT: i32 = 18;
const CRASH: Ending = Ending::Killed(9);

/// A machine, its clock and what it did, without the texts.
struct Play {
    machine: Machine,
    now: Millis,
}

impl Play {
    fn new(policy: Policy) -> Self {
        Self { machine: Machine::new(policy), now: 0 }
    }

    fn all(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.machine.handle(self.now, event, &mut out);
        out
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        let mut out = self.all(event);
        out.retain(|action| !matches!(action, Action::Say(..)));
        out
    }

    /// To a running, ready broker.
    fn ready(policy: Policy) -> Self {
        let mut play = Self::new(policy);
        play.event(Event::Began);
        play.event(Event::Repaired);
        assert_eq!(play.event(Event::Prepared), [Action::Spawn]);
        play.event(Event::Spawned);
        play.event(Event::BecameReady);
        assert_eq!(play.machine.phase(), Phase::Ready);
        play
    }

    /// Goes to the next deadline.
    fn deadline(&mut self) -> Vec<Action> {
        self.now = self.machine.next_deadline().expect("a deadline");
        self.event(Event::DeadlineReached)
    }

    /// The child dies and leaves nobody: the wait until the next one, or the exit code.
    fn crash(&mut self, ending: Ending) -> Result<Millis, u8> {
        self.event(Event::Ended(ending));
        match self.event(Event::Swept).as_slice() {
            [Action::Spawn] => {}
            [Action::Exit(code)] => return Err(*code),
            _ => {
                let began = self.now;
                assert_eq!(self.deadline(), [Action::Spawn]);
                return Ok(self.now - began);
            }
        }
        Ok(0)
    }

    fn becomes_ready(&mut self) {
        self.event(Event::Spawned);
        self.event(Event::BecameReady);
    }
}

#[test]
fn the_way_up_is_repair_prepare_spawn() {
    let mut play = Play::new(BROKER);
    assert_eq!(play.event(Event::Began), [Action::Repair]);
    assert_eq!(play.event(Event::Repaired), [Action::Prepare]);
    assert_eq!(play.event(Event::Prepared), [Action::Spawn]);
    assert_eq!(play.machine.phase(), Phase::Starting);
    assert_eq!(play.event(Event::Spawned), []);
    assert_eq!(play.event(Event::BecameReady), []);
    assert_eq!(play.machine.phase(), Phase::Ready);
}

#[test]
fn a_bad_configuration_ends_with_its_code() {
    let mut play = Play::new(BROKER);
    play.event(Event::Began);
    play.event(Event::Repaired);
    play.event(Event::PrepareFailed(3));
    assert_eq!(play.event(Event::Swept), [Action::Exit(3)]);
}

#[test]
fn crashes_back_off_and_then_give_up_with_the_childs_code() {
    let mut play = Play::ready(BROKER);
    let mut waits = Vec::new();
    let code = loop {
        match play.crash(CRASH) {
            Ok(wait) => waits.push(wait),
            Err(code) => break code,
        }
        play.becomes_ready();
    };
    assert_eq!((waits, code), (vec![0, 100, 200, 400], 137));
}

#[test]
fn a_broker_that_cannot_be_forked_is_tried_for_a_minute() {
    let mut play = Play::ready(BROKER);
    assert_eq!(play.crash(Ending::Killed(9)), Ok(0));
    for _ in 1..60 {
        play.event(Event::SpawnFailed(126));
        assert_eq!(play.event(Event::Swept), []);
        assert_eq!(play.deadline(), [Action::Spawn]);
    }
    assert!(play.now >= 59_000);
    play.event(Event::SpawnFailed(126));
    assert_eq!(play.event(Event::Swept), [Action::Exit(126)]);
}

#[test]
fn a_steady_broker_is_restarted_at_once_for_ever() {
    let mut play = Play::ready(BROKER);
    for _ in 0..50 {
        play.now += STEADY;
        assert_eq!(play.crash(CRASH), Ok(0));
        play.becomes_ready();
    }
    assert_eq!(play.machine.restarts(), 50);
}

#[test]
fn deaths_that_are_far_apart_are_not_a_crash_loop() {
    let mut play = Play::ready(BROKER);
    for _ in 0..50 {
        play.now += DEATHS_WINDOW - 1;
        assert!(play.crash(CRASH).is_ok());
        // Never ready, so that only the window counts.
        play.event(Event::Spawned);
    }
}

#[test]
fn the_same_configuration_error_twice_is_enough() {
    let mut play = Play::new(BROKER);
    play.event(Event::Began);
    play.event(Event::Repaired);
    play.event(Event::Prepared);
    play.event(Event::Spawned);
    assert_eq!(play.crash(Ending::Exited(13)), Ok(0));
    play.event(Event::Spawned);
    assert_eq!(play.crash(Ending::Exited(13)), Err(13));
}

#[test]
fn stop_is_term_then_cont_then_kill_and_exits_0() {
    let mut play = Play::ready(BROKER);
    assert_eq!(play.event(Event::StopAsked(TERM)), [Action::Signal(TERM), Action::Signal(CONT)]);
    assert_eq!(play.deadline(), [Action::Signal(9)]);
    assert_eq!(play.now, 8_000);
    assert_eq!(play.event(Event::Ended(CRASH)), [Action::Sweep(Scope::Everyone, TERM)]);
    assert_eq!(play.deadline(), [Action::Sweep(Scope::Everyone, 9)]);
    assert_eq!(play.event(Event::Swept), [Action::Exit(0)]);
}

#[test]
fn a_second_term_shortens_the_grace_and_a_third_kills() {
    let mut play = Play::ready(BROKER);
    play.event(Event::StopAsked(TERM));
    play.event(Event::StopAsked(TERM));
    assert_eq!(play.machine.next_deadline(), Some(HASTE));
    assert_eq!(play.event(Event::StopAsked(TERM)), [Action::Signal(9)]);
}

#[test]
fn stop_is_heard_in_every_phase() {
    // Before there is a child, and between two.
    let mut play = Play::new(BROKER);
    play.event(Event::StopAsked(TERM));
    assert_eq!(play.event(Event::Swept), [Action::Exit(0)]);
    let mut play = Play::ready(BROKER);
    play.event(Event::Ended(CRASH));
    assert_eq!(play.event(Event::StopAsked(TERM)), [Action::Sweep(Scope::Everyone, TERM)]);
    assert_eq!(play.event(Event::Swept), [Action::Exit(0)]);
    let mut play = Play::ready(BROKER);
    assert_eq!(play.crash(CRASH), Ok(0));
    play.event(Event::Spawned);
    play.event(Event::Ended(CRASH));
    play.event(Event::Swept);
    assert_eq!(play.machine.phase(), Phase::BackingOff);
    play.event(Event::StopAsked(TERM));
    assert_eq!(play.event(Event::Swept), [Action::Exit(0)]);
    // Read after the configuration, before the child.
    let mut play = Play::new(BROKER);
    play.event(Event::Began);
    play.event(Event::Repaired);
    assert_eq!(play.event(Event::StopAsked(TERM)), [Action::Sweep(Scope::Everyone, TERM)]);
    assert_eq!(play.event(Event::Prepared), []);
    assert_eq!(play.event(Event::Swept), [Action::Exit(0)]);
    // A stop during a restart that was asked for.
    let mut play = Play::ready(BROKER);
    play.event(Event::RestartAsked);
    play.event(Event::StopAsked(TERM));
    play.event(Event::Ended(Ending::Exited(0)));
    assert_eq!(play.event(Event::Swept), [Action::Exit(0)]);
}

#[test]
fn reloads_are_one_a_second_and_none_is_lost() {
    let mut play = Play::ready(BROKER);
    assert_eq!(play.event(Event::ReloadAsked), [Action::Reload]);
    for _ in 0..1000 {
        assert_eq!(play.event(Event::ReloadAsked), []);
    }
    play.event(Event::ReloadAnswered);
    assert_eq!(play.event(Event::ReloadAsked), []);
    assert_eq!(play.deadline(), [Action::Reload]);
    assert_eq!(play.now, RELOAD_GAP);
    play.event(Event::ReloadAnswered);
    assert_eq!(play.machine.phase(), Phase::Ready);
    // Nothing is pending: what wakes next is the watchdog, not a reload.
    assert_eq!(play.machine.next_deadline(), Some(15_000));
}

#[test]
fn a_reload_asked_before_the_broker_is_ready_comes_after() {
    let mut play = Play::new(BROKER);
    assert_eq!(play.event(Event::ReloadAsked), []);
    play.event(Event::Began);
    play.event(Event::Repaired);
    play.event(Event::Prepared);
    play.becomes_ready();
    assert_eq!(play.deadline(), [Action::Reload]);
}

#[test]
fn a_broker_that_does_not_answer_a_reload_is_not_waited_for() {
    let mut play = Play::ready(BROKER);
    play.event(Event::ReloadAsked);
    assert_eq!(play.deadline(), [Action::ReloadTimedOut]);
    assert_eq!((play.now, play.machine.phase()), (RELOAD_LIMIT, Phase::Ready));
}

#[test]
fn a_frozen_broker_is_aborted_then_killed() {
    let mut play = Play::ready(BROKER);
    play.now = 10_000;
    play.event(Event::Petted);
    assert_eq!(play.deadline(), [Action::Signal(6), Action::Signal(CONT)]);
    assert_eq!((play.now, play.machine.phase()), (25_000, Phase::Aborting));
    assert_eq!(play.deadline(), [Action::Signal(9)]);
    assert_eq!(play.now, 27_000);
    assert_eq!(play.crash(CRASH), Ok(0));
}

#[test]
fn a_pause_of_everybody_is_not_the_brokers_silence() {
    let mut play = Play::ready(BROKER);
    play.now = 1_000_000;
    play.event(Event::ClockJumped);
    assert_eq!(play.event(Event::DeadlineReached), []);
    assert_eq!(play.machine.next_deadline(), Some(1_015_000));
}

#[test]
fn signals_before_ready_are_passed_on_once_after() {
    let mut play = Play::new(BROKER);
    play.event(Event::Began);
    for _ in 0..3 {
        assert_eq!(play.event(Event::SignalForChild(10)), []);
    }
    play.event(Event::Repaired);
    play.event(Event::Prepared);
    play.event(Event::Spawned);
    assert_eq!(play.event(Event::BecameReady), [Action::Signal(10)]);
    assert_eq!(play.event(Event::SignalForChild(12)), [Action::Signal(12)]);
}

#[test]
fn a_command_gets_term_and_decides_itself() {
    let mut play = Play::new(COMMAND);
    play.event(Event::Began);
    play.event(Event::Repaired);
    play.event(Event::Prepared);
    play.event(Event::Spawned);
    assert_eq!(play.machine.phase(), Phase::Ready);
    assert_eq!(play.event(Event::StopAsked(TERM)), [Action::Signal(TERM)]);
    assert_eq!((play.machine.phase(), play.machine.next_deadline()), (Phase::Ready, None));
    play.event(Event::Ended(Ending::Killed(TERM)));
    assert_eq!(play.event(Event::Swept), [Action::Exit(143)]);
}

/// Every event in every phase that short plays can reach: it never panics, an exit is final, and a stop always leads to one.
#[test]
fn the_table_is_total_and_a_stop_always_ends() {
    let events = [
        Event::Began,
        Event::Repaired,
        Event::Prepared,
        Event::PrepareFailed(3),
        Event::Spawned,
        Event::SpawnFailed(126),
        Event::BecameReady,
        Event::Petted,
        Event::Ended(CRASH),
        Event::Swept,
        Event::StopAsked(TERM),
        Event::QuitAsked(3),
        Event::ReloadAsked,
        Event::ReloadAnswered,
        Event::RestartAsked,
        Event::SignalForChild(10),
        Event::ClockJumped,
        Event::DeadlineReached,
    ];
    let mut reached = std::collections::BTreeSet::new();
    // A fixed linear congruence: every run is the same.
    let mut seed: u64 = 1;
    for _ in 0..10_000 {
        let policy = if seed >> 40 & 1 == 0 { BROKER } else { Policy { restart: Restart::OnFailure, ..COMMAND } };
        let mut play = if seed >> 41 & 1 == 0 { Play::new(policy) } else { Play::ready(policy) };
        for _ in 0..60 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            play.now += if seed >> 60 == 0 { START_LIMIT } else { seed >> 50 & 0xf };
            let event = events[(seed >> 33) as usize % events.len()];
            let before = play.machine.phase();
            let actions = play.all(event);
            reached.insert((before, format!("{event:?}")));
            if before == Phase::Finished {
                assert!(
                    actions.iter().all(|action| matches!(action, Action::Say(..) | Action::Dump)),
                    "{event:?} after the end: {actions:?}"
                );
            }
        }
        play.event(Event::StopAsked(TERM));
        for _ in 0..12 {
            play.event(Event::Ended(CRASH));
            play.event(Event::Swept);
            if play.machine.next_deadline().is_some() {
                play.deadline();
            }
        }
        assert_eq!(play.machine.phase(), Phase::Finished);
    }
    let phases: std::collections::BTreeSet<_> = reached.iter().map(|(phase, _)| *phase).collect();
    assert_eq!((phases.len(), reached.len()), (11, 11 * events.len()), "every cell of the table was visited: {phases:?}");
}
