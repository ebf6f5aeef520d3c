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
/// How long after an attempt that did not get as far as the CA the next one is due; the last one for all that follow.
const STUMBLE: [Seconds; 2] = [60, 600];
const HOUR: Seconds = 3_600;
const DAY: Seconds = 86_400;
const WEEK: Seconds = 7 * DAY;
/// So many certificates may be obtained within [`LEDGER`] or two lifetimes, whichever is shorter: Let's Encrypt's limit for one set of
/// names. The next one waits.
const OBTAINED_MAX: usize = 5;
const LEDGER: Seconds = WEEK;
/// Of how many certificates it is kept how they were obtained: the one in use, the one that takes its place, and some to go back to.
const ORIGINS_MAX: usize = 6;
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
    /// `Settings::fingerprint` of those that failed.
    pub settings: String,
    /// The certificate in use comes from a test server, where `origins` knows nothing of it.
    pub is_test: bool,
    pub failures: u32,
    pub last_error: Option<String>,
    pub last_attempt: Option<Seconds>,
    /// Nothing is ordered before.
    pub next_attempt: Option<Seconds>,
    /// Attempts in a row that did not get as far as the CA.
    pub stumbles: u32,
    /// After one of those nothing is tried before, but at the next start: whoever mends something starts us again.
    pub retry_at: Option<Seconds>,
    /// A certificate that is this new is replaced only by hand, or where it cannot be used.
    pub rest_until: Option<Seconds>,
    /// So many were obtained that the next one is due only then, whatever is wrong with them.
    pub fuse_until: Option<Seconds>,
    /// When certificates were obtained lately.
    pub obtained: Vec<Seconds>,
    /// How certificates were obtained, the newest last; each is here before it is in use.
    pub origins: Vec<Origin>,
    pub next_check: Option<Seconds>,
    pub renewal_info: Option<Wish>,
    /// Orders that the CA made, ever.
    pub orders: u64,
    /// Which listeners serve something else, by a look at them.
    pub not_served: Option<String>,
    /// What was there before the attempt that is under way.
    #[serde(skip)]
    pub(super) before: Option<(u32, Option<Seconds>)>,
}

/// How a certificate was obtained.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Origin {
    /// `Leaf::fingerprint`.
    pub leaf: String,
    pub directory: String,
    pub is_test: bool,
    /// The names that were asked for; the CA may have added some.
    pub names: Vec<String>,
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

    /// Forgets failures of other settings (`Settings::fingerprint`): whoever corrects a variable waits for nothing.
    pub fn turn_to(&mut self, directory: &str, settings: &str) {
        // A file of an older version knows no settings.
        let is_same = self.directory == directory && (self.settings == settings || self.settings.is_empty());
        if !is_same {
            let (is_test, next_check, orders) = (self.is_test, self.next_check, self.orders);
            let (origins, last_attempt) = (std::mem::take(&mut self.origins), self.last_attempt);
            *self = Self { is_test, last_attempt, origins, next_check, orders, ..Self::default() };
        }
        directory.clone_into(&mut self.directory);
        settings.clone_into(&mut self.settings);
        self.retry_at = None;
    }

    /// The clock was ahead when something was tried last: what was written then means nothing now.
    pub fn ran_backwards(&self, now: Seconds) -> bool {
        self.last_attempt.is_some_and(|last| last > now + HOUR)
    }

    /// When the next try is due after failures.
    pub fn next_try(&self) -> Option<Seconds> {
        self.next_attempt.max(self.retry_at)
    }

    /// An attempt begins. Until its outcome is known it counts as failed, so that whoever restarts us in the middle of it restarts the
    /// back-off too.
    pub fn begin(&mut self, now: Seconds, random: u64) {
        if self.ran_backwards(now) {
            (self.next_attempt, self.retry_at, self.rest_until, self.fuse_until) = (None, None, None, None);
        }
        let still = self.next_attempt.filter(|at| *at <= now.saturating_add(RETRY_MAX));
        self.before = Some((self.failures, still));
        self.failures = self.failures.saturating_add(1);
        self.last_attempt = Some(now);
        self.next_attempt = Some(now.saturating_add(jittered(self.pause(), random)));
    }

    /// How long to wait after the last failure.
    fn pause(&self) -> Seconds {
        let nth = self.failures.saturating_sub(1) as usize;
        BACK_OFF.get(nth).or(BACK_OFF.last()).copied().unwrap_or(DAY)
    }

    /// The attempt failed after the CA was asked for something. `retry_after` is its own word.
    pub fn failed(&mut self, now: Seconds, random: u64, error: &str, retry_after: Option<u64>) {
        self.last_error = Some(error.chars().take(ERROR_CHARS_MAX).collect());
        (self.stumbles, self.retry_at, self.before) = (0, None, None);
        let pause = match retry_after {
            Some(seconds) => Seconds::try_from(seconds).unwrap_or(Seconds::MAX).clamp(RETRY_MIN, RETRY_MAX),
            None => jittered(self.pause(), random),
        };
        self.next_attempt = Some(now.saturating_add(pause));
    }

    /// The CA was not asked for anything: no failure that it knows of, and what it said before still holds. Whether that is news.
    pub fn stumbled(&mut self, now: Seconds, error: &str) -> bool {
        if let Some((failures, next_attempt)) = self.before.take() {
            (self.failures, self.next_attempt) = (failures, next_attempt);
        }
        let error: String = error.chars().take(ERROR_CHARS_MAX).collect();
        let is_news = self.last_error.as_ref() != Some(&error);
        self.last_error = Some(error);
        let pause = STUMBLE.get(self.stumbles as usize).or(STUMBLE.last()).copied().unwrap_or(DAY);
        self.stumbles = self.stumbles.saturating_add(1);
        self.retry_at = Some(now.saturating_add(pause));
        is_news
    }

    /// A certificate was obtained: it will be in use soon.
    pub fn will_use(&mut self, origin: Origin) {
        self.origins.retain(|known| known.leaf != origin.leaf);
        self.origins.push(origin);
        let excess = self.origins.len().saturating_sub(ORIGINS_MAX);
        self.origins.drain(..excess);
    }

    /// Whether the certificate with this fingerprint comes from a test server. Of one that somebody else obtained nothing is known here.
    pub fn is_test(&self, leaf: &str) -> bool {
        match self.origin(leaf) {
            Some(origin) => origin.is_test,
            // As an older version wrote it.
            None => self.is_test && self.origins.is_empty(),
        }
    }

    /// How the certificate with this fingerprint was obtained.
    pub fn origin(&self, leaf: &str) -> Option<&Origin> {
        self.origins.iter().find(|origin| origin.leaf == leaf)
    }

    /// A new certificate is in use, which lives so long.
    pub fn installed(&mut self, now: Seconds, lifetime: Seconds, is_test: bool) {
        let window = LEDGER.min(lifetime.saturating_mul(2));
        let mut obtained = std::mem::take(&mut self.obtained);
        obtained.retain(|at| *at <= now && *at > now.saturating_sub(window));
        obtained.push(now);
        let nth_last = obtained.len().checked_sub(OBTAINED_MAX).and_then(|at| obtained.get(at));
        *self = Self {
            directory: std::mem::take(&mut self.directory),
            settings: std::mem::take(&mut self.settings),
            is_test,
            last_attempt: self.last_attempt,
            rest_until: Some(now.saturating_add(rest(lifetime))),
            fuse_until: nth_last.map(|first| first.saturating_add(window)),
            obtained,
            origins: std::mem::take(&mut self.origins),
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

/// How long a new certificate stays, whatever speaks for another: a CA that always wishes one, a clock that is ahead.
fn rest(lifetime: Seconds) -> Seconds {
    (lifetime / 20).clamp(HOUR, DAY).min(lifetime / 4)
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
            state.failed(1_000, 7, "no", None);
        }
        assert_eq!(state.failures, 6);
    }

    #[test]
    fn the_ca_s_own_word_goes_before_the_table() {
        let mut state = State::default();
        state.begin(0, 0);
        state.failed(0, 0, "rate limited", Some(122_400));
        assert_eq!((state.failures, state.next_attempt), (1, Some(122_400)));
        state.failed(0, 0, "busy", Some(1));
        assert_eq!(state.next_attempt, Some(60));
        state.failed(0, 0, "never", Some(u64::MAX));
        assert_eq!(state.next_attempt, Some(7 * 86_400));
    }

    #[test]
    fn what_did_not_reach_the_ca_is_not_counted_and_tried_again_soon() {
        let mut state = State::default();
        for (now, next) in [(0, 60), (60, 660), (660, 1_260), (1_260, 1_860)] {
            state.begin(now, 0);
            assert_eq!(state.stumbled(now, "the clock is wrong"), now == 0, "said once");
            assert_eq!((state.failures, state.next_attempt, state.next_try()), (0, None, Some(next)));
        }
    }

    #[test]
    fn a_stumble_leaves_what_the_ca_said_before() {
        let mut state = State::default();
        for _ in 0..3 {
            state.begin(0, 0);
            state.failed(0, 0, "rate limited", Some(122_400));
        }
        let before = state.clone();
        // A try by hand meanwhile, and one that was not even begun.
        state.begin(1_000, 0);
        state.stumbled(1_000, "the clock is wrong");
        state.stumbled(2_000, "the volume is full");
        assert_eq!((state.failures, state.next_attempt), (before.failures, before.next_attempt));
        assert_eq!((state.retry_at, state.next_try()), (Some(2_600), Some(122_400)));
        // The next start tries at once what was mended, but not what the CA forbade.
        state.turn_to("", "");
        assert_eq!((state.retry_at, state.next_attempt), (None, Some(122_400)));
    }

    #[test]
    fn what_a_clock_that_was_ahead_put_off_is_forgotten() {
        let mut state = State { last_attempt: Some(900 * DAY), ..State::default() };
        for _ in 0..5 {
            state.installed(900 * DAY, 90 * DAY, false);
        }
        state.stumbled(900 * DAY, "the clock is wrong");
        assert!(state.rest_until.is_some() && state.fuse_until.is_some() && state.ran_backwards(DAY));
        state.begin(DAY, 0);
        state.stumbled(DAY, "no network");
        assert_eq!((state.rest_until, state.fuse_until, state.next_attempt), (None, None, None));
        assert!(state.retry_at <= Some(DAY + 600));
    }

    #[test]
    fn a_new_certificate_rests_and_a_handful_of_them_blow_the_fuse() {
        for (lifetime, rest) in [(90 * DAY, DAY), (6 * DAY, 25_920), (DAY, 4_320), (7_200, 1_800), (30, 7)] {
            let mut state = State::default();
            state.installed(1_000, lifetime, false);
            assert_eq!((state.rest_until, state.fuse_until), (Some(1_000 + rest), None), "{lifetime}");
            // As often as it is right, at half of a short life.
            let mut now = 1_000;
            for _ in 0..100 {
                now += lifetime / 2 - lifetime / 50;
                state.installed(now, lifetime, false);
                assert!(state.fuse_until.is_none_or(|until| until <= now + lifetime / 2 - lifetime / 50), "{lifetime}");
            }
            // By hand, once too often.
            let mut state = State::default();
            for second in 0..5 {
                state.installed(1_000 + second, lifetime, false);
            }
            assert_eq!(state.fuse_until, Some(1_000 + WEEK.min(2 * lifetime)), "{lifetime}");
        }
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
    fn another_ca_or_a_corrected_variable_starts_anew() {
        let failing = || State {
            failures: 3,
            next_attempt: Some(9),
            next_check: Some(8),
            rest_until: Some(7),
            directory: "a".into(),
            settings: "1".into(),
            origins: vec![Origin::default()],
            ..State::default()
        };
        let mut state = failing();
        state.turn_to("a", "1");
        assert_eq!(state, failing());
        for (directory, settings) in [("b", "1"), ("a", "2")] {
            state.turn_to(directory, settings);
            assert_eq!((state.failures, state.next_attempt, state.rest_until, state.next_check), (0, None, None, Some(8)));
            assert_eq!((state.settings.as_str(), state.origins.len()), (settings, 1));
            state = failing();
        }
        // As an older version wrote it.
        let mut state = State { settings: String::new(), ..failing() };
        state.turn_to("a", "1");
        assert_eq!((state.failures, state.settings.as_str()), (3, "1"));
    }

    #[test]
    fn how_the_last_few_were_obtained_is_known() {
        let mut state = State::default();
        for nth in 0..20 {
            state.will_use(Origin { leaf: nth.to_string(), ..Origin::default() });
            state.will_use(Origin { leaf: nth.to_string(), is_test: true, ..Origin::default() });
        }
        assert_eq!(state.origins.len(), ORIGINS_MAX);
        assert!(state.is_test("19") && state.origin("2").is_none() && !state.is_test("certbot's"));
        assert!(State { is_test: true, ..State::default() }.is_test("of an older version"));
    }
}
