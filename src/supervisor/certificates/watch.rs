//! The files of TLS listeners: whether somebody else has renewed them, and until when their certificates are good.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::machine::Millis;
use super::report;
use crate::acme::state::Seconds;
use crate::repair;
use crate::tls::leaf::Leaf;

/// How often the files are looked at. A change counts when it is the same at two looks: whoever writes needs some time for all of them.
const LOOK_EVERY: Millis = 5_000;
/// A warning comes when this part of the lifetime is left.
const WARN_PART: Seconds = 10;
const WARN_EVERY: Seconds = 86_400;
/// How often a certificate of our own is renewed, should that come to nothing.
const RENEW_EVERY: Millis = 12 * 3_600_000;

/// Device, inode, size and time of a file; `None` where there is none.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64)>;

#[derive(Default)]
pub(super) struct Watch {
    stamps: Vec<(PathBuf, Stamp)>,
    /// What was there at the last look, where that was something new.
    seen: Option<Vec<Stamp>>,
    look_at: Millis,
    certificates: Vec<(PathBuf, Leaf)>,
    /// What was said last, and when.
    warned: Option<(Seconds, Vec<String>)>,
    renew_at: Millis,
}

pub(super) fn stamp(path: &Path) -> Stamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

impl Watch {
    /// From here on these are the files in use.
    pub(super) fn follow(&mut self, stamps: Vec<(PathBuf, Stamp)>, certificates: Vec<(PathBuf, Leaf)>) {
        self.stamps = stamps;
        self.certificates = certificates;
        self.seen = None;
        self.warned = None;
    }

    /// A file that is another one now; each change is told once.
    pub(super) fn changed(&mut self, now: Millis) -> Option<PathBuf> {
        if self.stamps.is_empty() || now < self.look_at {
            return None;
        }
        self.look_at = now + LOOK_EVERY;
        let found: Vec<_> = self.stamps.iter().map(|(path, _)| stamp(path)).collect();
        let first = self.stamps.iter().zip(&found).find(|((_, known), found)| known != *found).map(|((path, _), _)| path.clone())?;
        if self.seen.as_ref() != Some(&found) {
            self.seen = Some(found);
            return None;
        }
        for ((_, known), found) in self.stamps.iter_mut().zip(found) {
            *known = found;
        }
        self.seen = None;
        Some(first)
    }

    pub(super) fn is_self_made_due(&mut self, now: Millis) -> bool {
        let is_due = now >= self.renew_at && self.certificates.iter().any(|(_, leaf)| repair::is_due(leaf));
        if is_due {
            self.renew_at = now + RENEW_EVERY;
        }
        is_due
    }

    /// Whether there is any TLS listener.
    pub(super) fn has_listeners(&self) -> bool {
        !self.stamps.is_empty()
    }

    pub(super) fn next_look(&self) -> Option<Millis> {
        (!self.stamps.is_empty()).then_some(self.look_at)
    }

    fn expired(&self, now: Seconds) -> Vec<String> {
        let expired = self.certificates.iter().filter(|(_, leaf)| leaf.not_after <= now);
        expired.map(|(path, leaf)| format!("the certificate {} expired at {}", path.display(), report::time(leaf.not_after))).collect()
    }

    fn expiring(&self, now: Seconds) -> Vec<String> {
        let soon = |leaf: &Leaf| leaf.not_after > now && leaf.not_after - now < leaf.lifetime() / WARN_PART;
        let expiring = self.certificates.iter().filter(|(_, leaf)| soon(leaf));
        expiring.map(|(path, leaf)| format!("the certificate {} expires at {}", path.display(), report::time(leaf.not_after))).collect()
    }

    /// Lines for the log: when they are news, and once a day.
    pub(super) fn warnings(&mut self, now: Seconds) -> Vec<String> {
        let mut lines: Vec<_> = self.expired(now).iter().map(|text| format!("Warning: {text}; it is served all the same.")).collect();
        lines.extend(self.expiring(now).iter().map(|text| format!("Warning: {text}.")));
        let is_said = self.warned.as_ref().is_some_and(|(at, said)| *said == lines && now >= *at && now - at < WARN_EVERY);
        if lines.is_empty() {
            self.warned = None;
        } else if is_said {
            lines.clear();
        } else {
            self.warned = Some((now, lines.clone()));
        }
        lines
    }

    /// Good, and what there is to say.
    pub(super) fn health(&self, now: Seconds) -> (bool, String) {
        let expired = self.expired(now);
        if !expired.is_empty() {
            return (false, expired.join("; "));
        }
        (true, self.expiring(now).join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_a_tenth_of_the_lifetime_on_it_is_said_once_a_day() {
        const DAY: Seconds = 86_400;
        let leaf =
            |days| Leaf { names: Vec::new(), not_before: 0, not_after: days * DAY, issuer: String::new(), der: Vec::new(), others: 0 };
        let mut watch = Watch::default();
        watch.follow(Vec::new(), vec![(PathBuf::from("/a.pem"), leaf(90))]);
        let (mut expiring, mut expired) = (Vec::new(), Vec::new());
        for minute in 0..95 * 1440 {
            for line in watch.warnings(minute * 60) {
                if line.contains("expired at") { expired.push(minute / 1440) } else { expiring.push(minute / 1440) }
            }
        }
        assert_eq!((expiring.first(), expiring.len()), (Some(&81), 9), "{expiring:?}");
        assert_eq!((expired.first(), expired.len()), (Some(&90), 5), "{expired:?}");
        // A short life's last hours are not slept through.
        let mut short = Watch::default();
        short.follow(Vec::new(), vec![(PathBuf::from("/b.pem"), leaf(6))]);
        let said: Vec<_> = (0..6 * 1440 + 2).filter(|minute| !short.warnings(minute * 60).is_empty()).collect();
        assert_eq!(said, [6 * 1440 - 863, 6 * 1440], "with 14 hours left, and when it is over");
        assert!(watch.health(80 * DAY) == (true, String::new()) && watch.health(85 * DAY).0 && !watch.health(91 * DAY).0);
    }
}
