//! What must outlive a restart: failures, the next try, the CA's wish. One JSON file for a lineage, `darner/NAME.json` beside `live`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::exchange::RenewalInfo;
use super::lineage::durable;

/// Seconds since 1970.
pub type Seconds = i64;

/// How long after a failure the next try is due, with [`JITTER_PERCENT`]; the last one for all that follow.
const BACK_OFF: [Seconds; 4] = [60, 600, 6_000, 86_400];
const JITTER_PERCENT: i64 = 10;
const WEEK: Seconds = 7 * 86_400;
/// The weekly check happens up to this much later, so that not everybody asks at once.
const CHECK_SPREAD: Seconds = 86_400;
/// A CA is not asked for the same thing more often, whatever it says.
const RETRY_MIN: Seconds = 60;
/// No limit of a CA lasts longer, and nobody's certificate shall expire of a slip in its answer.
const RETRY_MAX: Seconds = WEEK;
/// An error is told whole, but not without end.
const ERROR_CHARS_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The CA that failures and renewal information are about.
    pub directory: String,
    /// The certificate in use comes from a test server.
    pub is_test: bool,
    pub failures: u32,
    pub last_error: Option<String>,
    pub last_attempt: Option<Seconds>,
    /// Nothing is ordered before.
    pub next_attempt: Option<Seconds>,
    pub next_check: Option<Seconds>,
    pub renewal_info: Option<Wish>,
    /// Orders that the CA made, ever.
    pub orders: u64,
}

/// When the CA wants a certificate to be renewed (RFC 9773).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Wish {
    /// Which certificate: `exchange::certificate_id`.
    pub certificate: String,
    pub window: Option<(Seconds, Seconds)>,
    /// A time within the window, chosen once.
    pub selected: Option<Seconds>,
    pub ask_at: Seconds,
}

impl State {
    pub fn path(root: &Path, name: &str) -> PathBuf {
        root.join("darner").join(format!("{name}.json"))
    }

    /// Reads it. A file that makes no sense is moved aside, which is said in a sentence.
    pub fn read(root: &Path, name: &str) -> (Self, Option<String>) {
        let path = Self::path(root, name);
        let shown = path.display();
        let reason = match super::lineage::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(state) => return (state, None),
                Err(error) => error.to_string(),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => return (Self::default(), None),
            Err(error) => return (Self::default(), Some(format!("{shown} cannot be read: {error}"))),
        };
        let done = match durable::move_aside(&path) {
            Ok(aside) => format!("{shown} is damaged ({reason}) and was moved to {}", aside.display()),
            Err(error) => format!("{shown} is damaged ({reason}) and cannot be moved aside: {error}"),
        };
        (Self::default(), Some(done))
    }

    /// # Errors
    /// The volume cannot be written.
    pub fn write(&self, root: &Path, name: &str) -> io::Result<()> {
        durable::write(&Self::path(root, name), serde_json::to_string_pretty(self)?.as_bytes(), 0o600)
    }

    /// Forgets what was about another CA.
    pub fn turn_to(&mut self, directory: &str) {
        if self.directory != directory {
            let (is_test, next_check, orders) = (self.is_test, self.next_check, self.orders);
            *self = Self { directory: directory.to_owned(), is_test, next_check, orders, ..Self::default() };
        }
    }

    /// An attempt begins. Until its outcome is known it counts as failed, so that whoever restarts us in the middle of it restarts the
    /// back-off too.
    pub fn begin(&mut self, now: Seconds, random: u64) {
        self.failures = self.failures.saturating_add(1);
        self.last_attempt = Some(now);
        self.next_attempt = Some(now.saturating_add(jittered(self.pause(), random)));
    }

    /// How long to wait after the last failure.
    fn pause(&self) -> Seconds {
        let nth = self.failures.saturating_sub(1) as usize;
        BACK_OFF.get(nth).or(BACK_OFF.last()).copied().unwrap_or(86_400)
    }

    /// The attempt failed. `counted`: the CA was asked for something; `retry_after` is its own word.
    pub fn failed(&mut self, now: Seconds, random: u64, error: &str, retry_after: Option<u64>, counted: bool) {
        self.last_error = Some(error.chars().take(ERROR_CHARS_MAX).collect());
        if !counted {
            self.failures = self.failures.saturating_sub(1);
        }
        let pause = match retry_after {
            Some(seconds) => Seconds::try_from(seconds).unwrap_or(Seconds::MAX).clamp(RETRY_MIN, RETRY_MAX),
            None if counted => jittered(self.pause(), random),
            None => RETRY_MIN,
        };
        self.next_attempt = Some(now.saturating_add(pause));
    }

    /// A new certificate is in use.
    pub fn installed(&mut self, is_test: bool) {
        *self = Self {
            directory: std::mem::take(&mut self.directory),
            is_test,
            last_attempt: self.last_attempt,
            next_check: self.next_check,
            orders: self.orders,
            ..Self::default()
        };
    }

    /// The weekly check was made.
    pub fn checked(&mut self, now: Seconds, random: u64) {
        self.next_check = Some(now + WEEK + (random % CHECK_SPREAD as u64) as Seconds);
    }

    /// The CA has said when it wants the certificate to be renewed, or nothing (RFC 9773 4.2, 4.3).
    pub fn wished(&mut self, now: Seconds, random: u64, certificate: &str, info: &RenewalInfo) {
        let pause = Seconds::try_from(info.retry_after_secs).unwrap_or(Seconds::MAX).clamp(RETRY_MIN, 43_200);
        let window = info.window.map(|window| (window.start, window.end)).filter(|(start, end)| end > start);
        let former = self.renewal_info.take().filter(|wish| wish.certificate == certificate && wish.window == window);
        let pick = |(start, end): (Seconds, Seconds)| start + (random % end.abs_diff(start).max(1)) as Seconds;
        let selected = former.and_then(|wish| wish.selected).or(window.map(pick));
        self.renewal_info = Some(Wish { certificate: certificate.to_owned(), window, selected, ask_at: now.saturating_add(pause) });
    }

    /// The CA could not be asked; what it said before still holds.
    pub fn not_wished(&mut self, now: Seconds, certificate: &str, retry_after: Option<u64>) {
        let pause = retry_after.map_or(6 * 3600, |seconds| Seconds::try_from(seconds).unwrap_or(Seconds::MAX)).clamp(RETRY_MIN, 86_400);
        let former = self.renewal_info.take().filter(|wish| wish.certificate == certificate);
        self.renewal_info =
            Some(Wish { certificate: certificate.to_owned(), ask_at: now.saturating_add(pause), ..former.unwrap_or_default() });
    }
}

/// Up to [`JITTER_PERCENT`] more or less.
fn jittered(pause: Seconds, random: u64) -> Seconds {
    let spread = pause * JITTER_PERCENT / 100;
    pause - spread + (random % (2 * spread.max(0) as u64 + 1)) as Seconds
}

#[cfg(test)]
mod tests {
    use super::super::exchange::Window;
    use super::*;

    #[test]
    fn failures_are_tried_again_ever_more_seldom() {
        let mut state = State::default();
        for (nth, pause) in [60, 600, 6_000, 86_400, 86_400, 86_400].into_iter().enumerate() {
            for random in [0, 1, u64::MAX / 3, u64::MAX] {
                let mut state = state.clone();
                state.begin(1_000, random);
                let waits = state.next_attempt.expect("a time") - 1_000;
                assert!((waits - pause).abs() <= pause / 10, "{nth}: {waits}");
            }
            state.begin(1_000, 7);
            state.failed(1_000, 7, "no", None, true);
        }
        assert_eq!(state.failures, 6);
    }

    #[test]
    fn the_ca_s_own_word_goes_before_the_table() {
        let mut state = State::default();
        state.begin(0, 0);
        state.failed(0, 0, "rate limited", Some(122_400), true);
        assert_eq!((state.failures, state.next_attempt), (1, Some(122_400)));
        state.failed(0, 0, "busy", Some(1), true);
        assert_eq!(state.next_attempt, Some(60));
        state.failed(0, 0, "never", Some(u64::MAX), true);
        assert_eq!(state.next_attempt, Some(7 * 86_400));
    }

    #[test]
    fn what_did_not_reach_the_ca_is_not_counted() {
        let mut state = State::default();
        state.begin(0, 0);
        state.failed(0, 0, "the clock is wrong", None, false);
        assert_eq!((state.failures, state.next_attempt), (0, Some(60)));
    }

    #[test]
    fn a_time_within_the_window_is_chosen_once() {
        let mut state = State::default();
        let info = RenewalInfo { window: Some(Window { start: 100, end: 200 }), retry_after_secs: 1, explanation_url: None };
        state.wished(0, 42, "id", &info);
        let wish = state.renewal_info.clone().expect("a wish");
        assert_eq!((wish.selected, wish.ask_at), (Some(142), 60));
        state.wished(60, 77, "id", &info);
        assert_eq!(state.renewal_info.as_ref().and_then(|wish| wish.selected), Some(142));
        let moved = RenewalInfo { window: Some(Window { start: 10, end: 20 }), retry_after_secs: u64::MAX, ..info.clone() };
        state.wished(60, 3, "id", &moved);
        let wish = state.renewal_info.clone().expect("a wish");
        assert_eq!((wish.selected, wish.ask_at), (Some(13), 60 + 43_200));
        state.not_wished(70, "id", None);
        assert_eq!(state.renewal_info.as_ref().map(|wish| (wish.selected, wish.ask_at)), Some((Some(13), 70 + 21_600)));
        let backwards = RenewalInfo { window: Some(Window { start: 20, end: 20 }), ..info };
        state.wished(60, 3, "id", &backwards);
        assert_eq!(state.renewal_info.and_then(|wish| wish.selected), None);
    }

    #[test]
    fn another_ca_starts_anew() {
        let mut state = State { failures: 3, next_attempt: Some(9), next_check: Some(8), directory: "a".into(), ..State::default() };
        state.turn_to("a");
        assert_eq!(state.failures, 3);
        state.turn_to("b");
        assert_eq!((state.failures, state.next_attempt, state.next_check), (0, None, Some(8)));
    }
}
