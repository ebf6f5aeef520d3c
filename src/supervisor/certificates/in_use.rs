//! Whether the broker has what is there. What it is given is numbered before its files are read, so that nothing that changes meanwhile
//! passes for used.

use std::path::PathBuf;

use super::super::machine::Millis;
use super::probe::Expected;
use super::watch::{self, Stamp};
use crate::acme::stand_in::StandIns;
use crate::conf::Conf;
use crate::conf::files::{Generation, ReadFiles as _};
use crate::tls::leaf::Leaf;

/// A reload or restart that was refused is tried again after this, then after twice as long, until [`AGAIN_MAX`].
const AGAIN: Millis = 5_000;
const AGAIN_MAX: Millis = 600_000;

/// The TLS files of one configuration as they were read for a broker.
#[derive(Default)]
pub(in crate::supervisor) struct Given {
    /// Of what is there; [`InUse::version`].
    pub(super) version: u64,
    /// As they were before they were read.
    pub(super) stamps: Vec<(PathBuf, Stamp)>,
    pub(super) certificates: Vec<(PathBuf, Leaf)>,
    /// What each TLS listener is to serve.
    pub(super) listeners: Vec<Expected>,
}

impl Given {
    pub(super) fn of(version: u64) -> Self {
        Self { version, ..Self::default() }
    }

    /// The configuration is known, and none of the files that it names was read.
    pub(in crate::supervisor) fn look(&mut self, conf: &Conf, stand_ins: &StandIns) {
        let mut paths = Vec::new();
        for listener in &conf.listeners {
            let Some((certfile, keyfile)) = listener.tls_files() else { continue };
            let tls = &listener.tls;
            let more = [tls.cafile.as_deref(), tls.crlfile.as_deref()].into_iter().flatten();
            paths.extend([certfile, keyfile].into_iter().chain(more).map(|path| stand_ins.path(path)));
        }
        paths.sort();
        paths.dedup();
        self.stamps = paths.into_iter().map(|path| (path.clone(), watch::stamp(&path))).collect();
    }

    /// All was read.
    pub(in crate::supervisor) fn read(&mut self, conf: &Conf, files: &Generation, stand_ins: &StandIns) {
        for listener in &conf.listeners {
            let Some((certfile, _)) = listener.tls_files() else { continue };
            let path = stand_ins.path(certfile);
            self.listeners.extend(Expected::of(listener, &path, files.read(certfile).ok()));
            // What stands for a file is nobody's to renew.
            if self.stamps.iter().any(|(known, stamp)| *known == path && stamp.is_some()) {
                let leaf = files.read(certfile).ok().and_then(|bytes| Leaf::of_chain(&bytes).ok());
                self.certificates.extend(leaf.map(|leaf| (path, leaf)));
            }
        }
        self.certificates.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.certificates.dedup_by(|(a, _), (b, _)| a == b);
    }
}

#[derive(Default)]
pub(super) struct InUse {
    /// Of what is there.
    version: u64,
    /// Of what the broker has.
    used: u64,
    tries: u32,
    try_at: Millis,
}

impl InUse {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// There is something new.
    pub(super) fn renewed(&mut self) {
        self.version += 1;
        (self.tries, self.try_at) = (0, 0);
    }

    pub(super) fn served(&mut self, version: u64) {
        self.used = version;
    }

    /// Whether the broker has, by its own word, what is there.
    pub(super) fn is_settled(&self) -> bool {
        self.used == self.version
    }

    /// The broker has it by its word, and not by what it serves, for the nth time.
    pub(super) fn mistrusted(&mut self, now: Millis, nth: u32) {
        self.version += 1;
        self.try_at = if nth <= 1 { now } else { now + (AGAIN << (2 * nth).min(16)) };
    }

    /// Whether the broker is to be made to use what is there; told once for each try.
    pub(super) fn is_due(&mut self, now: Millis) -> bool {
        let is_due = !self.is_settled() && now >= self.try_at;
        if is_due {
            self.try_at = now + AGAIN_MAX.min(AGAIN << self.tries.min(16));
            self.tries = self.tries.saturating_add(1);
        }
        is_due
    }

    pub(super) fn next_try(&self) -> Option<Millis> {
        (!self.is_settled()).then_some(self.try_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_tried_again_until_it_is_used_and_what_came_meanwhile_too() {
        let mut in_use = InUse::default();
        assert!(!in_use.is_due(0) && in_use.next_try().is_none());
        in_use.renewed();
        let before = in_use.version();
        let tries: Vec<_> = (0..2_000).map(|second| second * 1_000).filter(|now| in_use.is_due(*now)).collect();
        assert_eq!(tries, [0, 5_000, 15_000, 35_000, 75_000, 155_000, 315_000, 635_000, 1_235_000, 1_835_000]);
        // The broker is being given that when the next one comes.
        in_use.renewed();
        in_use.served(before);
        assert!(in_use.is_due(2_000_000));
        in_use.served(in_use.version());
        assert!(!in_use.is_due(9_000_000) && in_use.next_try().is_none());
    }
}
