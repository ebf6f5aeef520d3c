//! The schedule over weeks of made-up time.

use super::super::exchange::{RenewalInfo, Window};
use super::*;

const DAY: Seconds = 86_400;
const NOW: Seconds = 1_800_000_000;

fn settings(rows: &[(&str, &str)]) -> Settings {
    let with = |name: &str| rows.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    Settings::read(|name| with(name).or_else(|| (name == "EMAIL").then(|| "a@b".into()))).expect("right").expect("wanted")
}

fn wanted() -> Settings {
    settings(&[("DOMAIN", "a.test")])
}

fn held(lifetime: Seconds) -> Held {
    Held {
        names: vec!["a.test".into()],
        asked_for: None,
        not_before: NOW,
        not_after: NOW + lifetime,
        directory: Some(wanted().directory),
        is_test: false,
        id: Some("id".into()),
        leaf: String::new(),
        spread: 12345,
    }
}

/// Runs until something is ordered; checks and questions are answered (`info`: by the CA). Returns when, why and how many questions.
fn run(settings: &Settings, held: &Held, state: &mut State, from: Seconds, info: Option<RenewalInfo>) -> (Seconds, Reason, usize) {
    let mut now = from;
    let mut asked = 0;
    for _ in 0..100_000 {
        match next(settings, Some(held), state, now) {
            Next::Wait(until) | Next::WrongClock(until) => {
                assert!(until > now, "time goes on");
                now = until;
            }
            Next::Check => state.checked(now, 99),
            Next::AskRenewalInfo => {
                asked += 1;
                match &info {
                    Some(info) => state.wished(now, 5, "id", info),
                    None => state.not_wished(now, "id", None),
                }
            }
            Next::Order(reason) => return (now, reason, asked),
        }
    }
    panic!("nothing was ordered");
}

#[test]
fn without_a_wish_a_third_is_left_and_of_short_lives_a_half() {
    for (lifetime, left) in [(90 * DAY, 30 * DAY), (64 * DAY, 64 * DAY / 3), (45 * DAY, 15 * DAY), (160 * 3600, 80 * 3600), (20, 10)] {
        let held = held(lifetime);
        let (at, reason, _) = run(&wanted(), &held, &mut State::default(), NOW, None);
        let remains = held.not_after - at;
        assert!((left..=left + lifetime / 50 + 1).contains(&remains), "{lifetime}: {remains}");
        assert_eq!(reason, Reason::Age);
    }
}

#[test]
fn the_ca_decides_when_and_is_asked_twice_a_day() {
    let window = Window { start: NOW + 10 * DAY, end: NOW + 12 * DAY };
    let info = RenewalInfo { window: Some(window), retry_after_secs: 1_000_000, explanation_url: None };
    let (at, reason, asked) = run(&wanted(), &held(90 * DAY), &mut State::default(), NOW, Some(info));
    assert!((window.start..window.end).contains(&at) && reason == Reason::Wished, "{at}");
    assert!((20..=22).contains(&asked), "{asked}");
}

#[test]
fn a_wish_for_the_past_is_a_wish_for_now_and_one_for_too_late_is_not_waited_for() {
    let info = |start, end| Some(RenewalInfo { window: Some(Window { start, end }), retry_after_secs: 21_600, explanation_url: None });
    let (at, reason, _) = run(&wanted(), &held(90 * DAY), &mut State::default(), NOW, info(1, 2));
    assert_eq!((at, reason), (NOW, Reason::Wished));
    let held = held(90 * DAY);
    let (at, _, _) = run(&wanted(), &held, &mut State::default(), NOW, info(held.not_after + DAY, held.not_after + 2 * DAY));
    assert_eq!(held.not_after - at, 90 * DAY / 20);
}

#[test]
fn a_ca_that_is_down_for_weeks_is_asked_once_a_day() {
    let (settings, held) = (wanted(), held(90 * DAY));
    let mut state = State::default();
    let (mut now, ..) = run(&settings, &held, &mut state, NOW, None);
    let mut attempts = Vec::new();
    while now < held.not_after + 7 * DAY {
        attempts.push(now);
        state.begin(now, attempts.len() as u64 * 7919);
        state.failed(now + 5, attempts.len() as u64 * 104_729, "down", None);
        (now, ..) = run(&settings, &held, &mut state, now + 5, None);
    }
    let first = attempts[0];
    assert_eq!(attempts.iter().filter(|at| **at < first + 7200).count(), 4);
    let days = (held.not_after + 7 * DAY - first) / DAY;
    assert!(attempts.len() as i64 <= days * 10 / 9 + 5, "{} in {days} days", attempts.len());
    assert_eq!(run(&settings, &held, &mut state, now, None).1, Reason::Expired);
    state.installed(now, 90 * DAY, false);
    assert_eq!((state.failures, state.next_attempt, state.last_error), (0, None, None));
}

#[test]
fn a_ca_that_says_when_is_not_asked_before_however_often_we_start_and_keeps_nobody_from_trying_later() {
    let (settings, held) = (wanted(), held(90 * DAY));
    let mut state = State::default();
    let (mut now, ..) = run(&settings, &held, &mut state, NOW, None);
    // Limited for 34 hours each time, for three weeks.
    let mut attempts = 0;
    let end = now + 21 * DAY;
    while now < end {
        attempts += 1;
        state.begin(now, attempts);
        state.failed(now, attempts, "limited", Some(34 * 3600));
        let again = now + 34 * 3600;
        for restart in 0..1000 {
            let at = now + restart * 122;
            assert!(!matches!(next(&settings, Some(&held), &state, at), Next::Order(_)), "{restart}");
        }
        (now, ..) = run(&settings, &held, &mut state, now, None);
        assert_eq!(now, again);
    }
    assert_eq!(attempts, 15);
}

#[test]
fn a_restart_in_the_middle_of_an_attempt_does_not_begin_another() {
    let mut state = State::default();
    assert_eq!(next(&wanted(), None, &state, NOW), Next::Order(Reason::Missing));
    state.begin(NOW, 0);
    state.checked(NOW, 0);
    for restart in 0..50 {
        assert!(matches!(next(&wanted(), None, &state, NOW + restart), Next::Wait(_)), "{restart}");
    }
    assert_eq!(next(&wanted(), None, &state, NOW + 70), Next::Order(Reason::Missing));
}

#[test]
fn changed_names_and_another_ca_are_due_at_once_and_the_order_of_names_means_nothing() {
    let state = State::default();
    let mut two = held(90 * DAY);
    two.names.push("b.test".into());
    let due = |rows: &[(&str, &str)], held: &Held| due(&settings(rows), Some(held), &state, NOW);
    assert!(due(&[("DOMAIN", "b.test a.test")], &two).is_err());
    assert_eq!(due(&[("DOMAIN", "a.test c.test")], &two), Ok(Reason::OtherNames));
    assert_eq!(due(&[("DOMAIN", "a.test")], &two), Ok(Reason::OtherNames));
    assert_eq!(due(&[("DOMAIN", "a.test"), ("ACME_DIRECTORY", "https://ca/dir")], &held(90 * DAY)), Ok(Reason::OtherDirectory));
}

#[test]
fn a_ca_that_adds_a_name_of_its_own_is_not_asked_again_for_the_same() {
    let mut held = held(90 * DAY);
    held.names = vec!["a.test".into(), "www.a.test".into()];
    let due = |rows: &[(&str, &str)], held: &Held| due(&settings(rows), Some(held), &State::default(), NOW);
    // Nobody knows who asked for it: certbot.
    assert_eq!(due(&[("DOMAIN", "a.test")], &held), Ok(Reason::OtherNames));
    held.asked_for = Some(vec!["a.test".into()]);
    assert!(due(&[("DOMAIN", "a.test")], &held).is_err());
    assert!(due(&[("DOMAIN", "a.test www.a.test")], &held).is_err());
    assert_eq!(due(&[("DOMAIN", "b.test")], &held), Ok(Reason::OtherNames));
    held.asked_for = Some(vec!["a.test".into(), "www.a.test".into()]);
    assert_eq!(due(&[("DOMAIN", "a.test")], &held), Ok(Reason::OtherNames));
}

#[test]
fn a_ca_that_always_wishes_another_gets_one_a_day_and_five_a_week() {
    let info = RenewalInfo { window: Some(Window { start: 1, end: 2 }), retry_after_secs: 60, explanation_url: None };
    for (lifetime, most) in [(90 * DAY, 5), (6 * DAY, 5)] {
        let (settings, mut state) = (wanted(), State::default());
        let (mut now, mut obtained) = (NOW, Vec::new());
        while now < NOW + 28 * DAY {
            let held = Held { not_before: now, not_after: now + lifetime, ..held(lifetime) };
            (now, ..) = run(&settings, &held, &mut state, now, Some(info.clone()));
            state.begin(now, 0);
            state.installed(now, lifetime, false);
            obtained.push(now);
        }
        let within =
            |days: i64| obtained.iter().map(|from| obtained.iter().filter(|at| (*from..from + days * DAY).contains(at)).count()).max();
        assert!(within(7) <= Some(most), "{lifetime}: {obtained:?}");
        assert!(obtained.windows(2).all(|two| two[1] - two[0] >= (lifetime / 20).min(DAY)), "{lifetime}: {obtained:?}");
    }
}

#[test]
fn a_certificate_that_is_gone_is_not_waited_for() {
    let mut state = State::default();
    state.installed(NOW, 90 * DAY, false);
    assert_eq!(next(&wanted(), None, &state, NOW + 1), Next::Order(Reason::Missing));
    assert_eq!(pause(&state, Reason::Wished, NOW + 1), Some(NOW + DAY));
    // But what is gone again and again is.
    for second in 0..5 {
        state.installed(NOW + second, 90 * DAY, false);
    }
    assert_eq!(pause(&state, Reason::Missing, NOW + 10), Some(NOW + 7 * DAY));
}

#[test]
fn a_test_server_never_takes_the_place_of_a_real_certificate() {
    let testing = settings(&[("DOMAIN", "a.test"), ("TESTCERT", "1")]);
    let mut state = State::default();
    state.checked(NOW, 0);
    let real = held(90 * DAY);
    assert!(matches!(next(&testing, Some(&real), &state, NOW), Next::Wait(_)));
    assert_eq!(next(&testing, Some(&real), &State { next_check: None, ..state.clone() }, real.not_after + 1), Next::Order(Reason::Expired));
    let test = Held { is_test: true, directory: Some(testing.directory.clone()), ..held(90 * DAY) };
    assert_eq!(next(&wanted(), Some(&test), &state, NOW), Next::Order(Reason::OtherDirectory));
}

#[test]
fn a_wrong_clock_orders_nothing() {
    for now in [0, 1_700_000_000] {
        assert!(matches!(next(&wanted(), None, &State::default(), now), Next::WrongClock(_)));
    }
    let held = held(90 * DAY);
    assert!(matches!(next(&wanted(), Some(&held), &State::default(), NOW - 2 * DAY), Next::WrongClock(_)));
    // It was ahead, and a try was put far away.
    let mut state = State::default();
    state.begin(NOW + 1000 * DAY, 0);
    assert_eq!(next(&wanted(), None, &state, NOW), Next::Order(Reason::Missing));
}

#[test]
fn a_check_is_made_every_week() {
    let (settings, held) = (wanted(), held(90 * DAY));
    let mut state = State::default();
    let mut checks = Vec::new();
    let mut now = NOW;
    while now < NOW + 50 * DAY {
        match next(&settings, Some(&held), &state, now) {
            Next::Check => {
                checks.push(now);
                state.checked(now, now as u64 * 31);
            }
            Next::AskRenewalInfo => state.not_wished(now, "id", None),
            Next::Wait(until) => now = until,
            other => panic!("{other:?}"),
        }
    }
    assert!((6..=8).contains(&checks.len()), "{checks:?}");
    assert!(checks.windows(2).all(|pair| (7 * DAY..=8 * DAY).contains(&(pair[1] - pair[0]))), "{checks:?}");
}
