//! When to ask the CA for what: (what is held, what is wanted, what happened, now) → the next thing to do. Pure.

use super::settings::Settings;
use super::state::{Seconds, State};

/// Nothing was obtained before: an earlier clock is wrong. 2026-01-01.
const EARLIEST: Seconds = 1_767_225_600;
/// A certificate that begins this much later than now was made by somebody whose clock is right.
const CLOCK_TOLERANCE: Seconds = 86_400;
/// Shorter lifetimes are renewed at a half instead of a third.
const SHORT_LIFETIME: Seconds = 10 * 86_400;
/// How long to wait for a clock to be set.
const CLOCK_PAUSE: Seconds = 60;
/// However little there is to do.
const LONGEST_SLEEP: Seconds = 86_400;

/// The certificate that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// In lower case, sorted.
    pub names: Vec<String>,
    /// Those that were asked for, where that is known: a CA may add some of its own.
    pub asked_for: Option<Vec<String>>,
    pub not_before: Seconds,
    pub not_after: Seconds,
    /// The CA it comes from, where that is known.
    pub directory: Option<String>,
    pub is_test: bool,
    /// `exchange::certificate_id`.
    pub id: Option<String>,
    /// `Leaf::fingerprint`.
    pub leaf: String,
    /// Spreads renewals of equal certificates: any number that stays the same.
    pub spread: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Missing,
    Expired,
    /// DOMAIN was changed.
    OtherNames,
    /// Another CA was chosen.
    OtherDirectory,
    /// The CA wants it.
    Wished,
    /// Little of its lifetime is left.
    Age,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing to do before then.
    Wait(Seconds),
    /// Look at the certificate and say how it is.
    Check,
    /// Ask the CA when it wants the certificate to be renewed.
    AskRenewalInfo,
    Order(Reason),
    /// The clock cannot be right; look again then.
    WrongClock(Seconds),
}

impl Held {
    fn lifetime(&self) -> Seconds {
        self.not_after.saturating_sub(self.not_before).max(1)
    }

    /// When it is due by its age alone.
    pub fn due_by_age(&self) -> Seconds {
        let lifetime = self.lifetime();
        let margin = if lifetime < SHORT_LIFETIME { lifetime / 2 } else { lifetime / 3 };
        let spread = (self.spread % (lifetime / 50).max(1) as u64) as Seconds;
        self.not_after - margin - spread
    }

    /// Whether it has every name that is wanted, and none that was asked for and is not wanted any more.
    fn is_for(&self, wanted: &[String]) -> bool {
        let was_asked_for = |name: &String| self.asked_for.as_ref().is_none_or(|asked| asked.contains(name));
        wanted.iter().all(|name| self.names.contains(name)) && self.names.iter().all(|name| wanted.contains(name) || !was_asked_for(name))
    }

    /// The last moment to listen to the CA's wish to wait.
    fn emergency(&self) -> Seconds {
        self.not_after - self.lifetime() / 20
    }
}

/// Whether what a test server would give may not take the place of what is held.
pub fn is_kept_from_tests(settings: &Settings, held: Option<&Held>, now: Seconds) -> bool {
    settings.is_test && held.is_some_and(|held| !held.is_test && held.not_after > now)
}

/// Why a new certificate is due at `now`, and otherwise when it will be.
pub fn due(settings: &Settings, held: Option<&Held>, state: &State, now: Seconds) -> Result<Reason, Seconds> {
    let Some(held) = held else { return Ok(Reason::Missing) };
    if held.not_after <= now {
        return Ok(Reason::Expired);
    }
    if !held.is_for(&settings.domains) {
        return Ok(Reason::OtherNames);
    }
    if held.directory.as_ref().is_some_and(|directory| *directory != settings.directory) {
        return Ok(Reason::OtherDirectory);
    }
    let wish = state.renewal_info.as_ref().filter(|wish| Some(&wish.certificate) == held.id.as_ref()).and_then(|wish| wish.selected);
    let (reason, at) = match wish {
        Some(selected) if selected <= held.emergency() => (Reason::Wished, selected),
        Some(_) => (Reason::Age, held.emergency()),
        None => (Reason::Age, held.due_by_age()),
    };
    if at <= now { Ok(reason) } else { Err(at) }
}

pub fn next(settings: &Settings, held: Option<&Held>, state: &State, now: Seconds) -> Next {
    if now < EARLIEST || held.is_some_and(|held| held.not_before > now.saturating_add(CLOCK_TOLERANCE)) {
        return Next::WrongClock(now + CLOCK_PAUSE);
    }
    let mut wake = now + LONGEST_SLEEP;
    if !is_kept_from_tests(settings, held, now) {
        match due(settings, held, state, now) {
            Ok(reason) => match pause(state, reason, now) {
                Some(until) => wake = wake.min(until),
                None => return Next::Order(reason),
            },
            Err(at) => wake = wake.min(at),
        }
        if let Some(id) = held.filter(|held| held.not_after > now).and_then(|held| held.id.as_ref()) {
            let ask_at = state.renewal_info.as_ref().filter(|wish| wish.certificate == *id).map_or(now, |wish| wish.ask_at);
            // A clock that was ahead may have put it far away.
            if ask_at <= now || ask_at > now + LONGEST_SLEEP {
                return Next::AskRenewalInfo;
            }
            wake = wake.min(ask_at);
        }
    }
    match state.next_check {
        Some(at) if at > now && at <= now + 9 * 86_400 => Next::Wait(wake.min(at)),
        _ => Next::Check,
    }
}

/// Until when nothing is ordered for this reason, but by hand.
pub fn pause(state: &State, reason: Reason, now: Seconds) -> Option<Seconds> {
    if state.ran_backwards(now) {
        return None;
    }
    let rest = match reason {
        // The one that was obtained is gone, or of no use.
        Reason::Missing | Reason::Expired => None,
        Reason::OtherNames | Reason::OtherDirectory | Reason::Wished | Reason::Age => state.rest_until,
    };
    state.next_try().max(rest).max(state.fuse_until).filter(|until| *until > now)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
