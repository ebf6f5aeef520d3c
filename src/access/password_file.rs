//! mosquitto's password file: `$6$`, `$7$` (12 and 64 byte salts) and argon2id.

use crate::conf::diagnostic::Diagnostic;

/// The users of one password file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passwords {}

impl Passwords {
    /// Never fails: a broken line costs its own user and a diagnostic with its line number.
    pub fn parse(_path: &std::path::Path, _bytes: &[u8]) -> (Self, Vec<Diagnostic>) {
        todo!()
    }

    /// Whether the file has this very entry (user name and hash line), to find who changed at a reload.
    pub fn same_entry(&self, _other: &Self, _username: &str) -> bool {
        todo!()
    }

    pub fn contains(&self, _username: &str) -> bool {
        todo!()
    }

    /// Takes milliseconds: never called from a shard. An unknown user costs as much as a known one.
    pub fn verify(&self, _username: &str, _password: &[u8]) -> bool {
        todo!()
    }
}
