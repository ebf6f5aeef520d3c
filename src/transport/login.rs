//! Which logins were verified lately, so that a storm of reconnecting clients costs no password hashing.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

/// Remembered logins; beyond this many the memory starts anew.
const VERIFIED_MAX: usize = 4096;

/// Password checks that may wait or run; a client beyond is refused instead of queued without bound.
pub(super) const CHECKS_MAX: usize = 1024;

/// Threads that check passwords. More would only take turns with the broker's own.
pub(super) const CHECK_THREADS: usize = 2;

/// A login as a hash under a key that dies with the process: no password stays in memory.
pub(super) type Fingerprint = [u8; 32];

pub(super) struct Logins {
    key: [u8; 32],
    verified: HashSet<Fingerprint>,
    /// Counts reloads: a check that began before one does not say anything about the files after it.
    pub(super) era: u64,
    pub(super) checks: usize,
    /// Checks that run: they leave threads to the handshakes of TLS.
    pub(super) threads: Arc<Semaphore>,
}

impl Logins {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, verified: HashSet::new(), era: 0, checks: 0, threads: Arc::new(Semaphore::new(CHECK_THREADS)) }
    }

    pub(super) fn fingerprint(&self, security: usize, username: &str, password: &[u8]) -> Fingerprint {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update((security as u64).to_le_bytes());
        hash.update((username.len() as u64).to_le_bytes());
        hash.update(username);
        hash.update(password);
        hash.finalize().into()
    }

    pub(super) fn is_verified(&self, fingerprint: &Fingerprint) -> bool {
        self.verified.contains(fingerprint)
    }

    pub(super) fn remember(&mut self, fingerprint: Fingerprint) {
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(fingerprint);
    }

    /// The files changed: everything is to be checked again.
    pub(super) fn forget(&mut self) {
        self.verified.clear();
        self.era += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_its_user_password_and_file_together() {
        let logins = Logins::new([7; 32]);
        let all = [
            logins.fingerprint(0, "ab", b"c"),
            logins.fingerprint(0, "a", b"bc"),
            logins.fingerprint(1, "ab", b"c"),
            Logins::new([8; 32]).fingerprint(0, "ab", b"c"),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }

    #[test]
    fn nothing_is_remembered_across_a_reload_and_not_without_bound() {
        let mut logins = Logins::new([7; 32]);
        let one = logins.fingerprint(0, "a", b"b");
        logins.remember(one);
        assert!(logins.is_verified(&one));
        logins.forget();
        assert!(!logins.is_verified(&one));
        for number in 0..10_000_u32 {
            logins.remember(logins.fingerprint(0, "a", &number.to_le_bytes()));
        }
        assert!(logins.verified.len() <= VERIFIED_MAX);
    }
}
