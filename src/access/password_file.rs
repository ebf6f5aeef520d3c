//! mosquitto's password file: `$6$`, `$7$` (12 and 64 byte salts) and argon2id.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use super::password_hash::{HashError, PasswordHash};
use crate::conf::diagnostic::{Diagnostic, Findings, Severity};

/// Bytes of a user name: what a string of MQTT can hold.
const USERNAME_BYTES_MAX: usize = 65535;

/// The users of one password file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passwords {
    entries: BTreeMap<Box<str>, PasswordHash>,
}

/// What a line of the file is, to those who only read it.
enum Line<'a> {
    Ignored,
    Entry(&'a str, PasswordHash),
    Broken(Finding),
}

struct Finding {
    severity: Severity,
    message: String,
    hint: Option<String>,
}

impl Passwords {
    /// Never fails: a broken line costs its own user and a diagnostic with its line number.
    pub fn parse(path: &Path, bytes: &[u8]) -> (Self, Vec<Diagnostic>) {
        let mut passwords = Self::default();
        let mut diagnostics = Findings::default();
        let mut report = |index: usize, finding: Finding| {
            let Finding { severity, message, hint } = finding;
            diagnostics.push(Diagnostic { severity, file: Some(path.to_owned()), line: Some(index + 1), message, hint });
        };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            match read_line(path, line) {
                Line::Ignored => {}
                Line::Broken(finding) => report(index, finding),
                Line::Entry(username, hash) => {
                    if passwords.entries.insert(username.into(), hash).is_some() {
                        let message = format!(
                            "Duplicate user '{}' in password file '{}': the last entry counts.",
                            username.escape_debug(),
                            path.display()
                        );
                        report(index, Finding { severity: Severity::Warning, message, hint: None });
                    }
                }
            }
        }
        (passwords, diagnostics.end(path))
    }

    /// Whether the file has this very entry (user name and hash line), to find who changed at a reload.
    pub fn same_entry(&self, other: &Self, username: &str) -> bool {
        matches!((self.entries.get(username), other.entries.get(username)), (Some(mine), Some(theirs)) if mine == theirs)
    }

    pub fn contains(&self, username: &str) -> bool {
        self.entries.contains_key(username)
    }

    /// Takes milliseconds: never called from a shard. An unknown user costs as much as a known one.
    pub fn verify(&self, username: &str, password: &[u8]) -> bool {
        if let Some(hash) = self.entries.get(username) {
            return hash.verify(password);
        }
        // The neighbour in the alphabet stands in: its cost is one that this file has, and the same each time.
        let after = self.entries.range::<str, _>((Bound::Excluded(username), Bound::Unbounded)).next();
        if let Some((_, stand_in)) = after.or_else(|| self.entries.iter().next()) {
            std::hint::black_box(stand_in.verify(password));
        }
        false
    }
}

fn read_line<'a>(path: &Path, line: &'a [u8]) -> Line<'a> {
    let error =
        |message: String, hint: Option<&str>| Line::Broken(Finding { severity: Severity::Error, message, hint: hint.map(str::to_owned) });
    if line.starts_with(b"#") || !line.contains(&b':') {
        return Line::Ignored;
    }
    let Ok(line) = std::str::from_utf8(line) else {
        return error("Error: The line is not UTF-8, removing entry.".into(), None);
    };
    let (username, rest) = line.split_once(':').unwrap_or_default();
    let username = username.trim();
    // mosquitto cuts what follows a second colon; no hash has one.
    let text = rest.split(':').next().unwrap_or_default().trim();
    if username.is_empty() {
        return error(format!("Error: Invalid line in password file '{}', no username.", path.display()), None);
    }
    if username.len() > USERNAME_BYTES_MAX {
        return error(format!("Error: Invalid line in password file '{}', username too long.", path.display()), None);
    }
    match PasswordHash::parse(text) {
        Ok(hash) => Line::Entry(username, hash),
        Err(reason) => {
            let hint = match reason {
                HashError::Type if !text.starts_with('$') => {
                    Some(format!("If it is a plain text password, run: mosquitto_passwd -U {}", path.display()))
                }
                HashError::Iterations => Some("The cost is not a number between 1 and what darner allows.".to_owned()),
                HashError::Type | HashError::Invalid | HashError::Salt | HashError::Hash | HashError::Missing => {
                    Some(format!("Set the password again: mosquitto_passwd {} {}", path.display(), username.escape_debug()))
                }
            };
            error(format!("Error: {reason} for user {}, removing entry.", username.escape_debug()), hint.as_deref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by mosquitto_passwd 2.0.11 for the password `world`, with either of its schemes.
    const HELLO: &str =
        "hello:$7$101$T+45pjzCdgD2+F9N$yH2M+Lo9HrVWyEO89qpyGiv03Xfw6JYqRtELzkW4t4bWB0sSHRuvidMOAP05qpkauAdeP0THC6XLfmDtztin1Q==";

    fn parse(text: &str) -> (Passwords, Vec<String>) {
        let (passwords, diagnostics) = Passwords::parse(Path::new("/pw"), text.as_bytes());
        (passwords, diagnostics.iter().map(ToString::to_string).collect())
    }

    const OLD: &str = "old:$6$Ub/Qw+3FbMi2nXlx$nCaexPFH98Ad58i8e/0JqskGtmJr2yRyetQZPzoynI1GOdHrEpVteUPwxPNYMqK9w4sClpJ5Yx6qLLByz0cz+g==";

    #[test]
    fn entries_of_the_original_tool_are_accepted() {
        let (passwords, diagnostics) = parse(&format!("{HELLO}\n{OLD}"));
        assert!(passwords.verify("old", b"world") && !passwords.verify("old", b"word"));
        assert_eq!(diagnostics, Vec::<String>::new());
        assert!(passwords.verify("hello", b"world"));
        assert!(!passwords.verify("hello", b"World") && !passwords.verify("hell", b"world") && !passwords.verify("z", b"world"));
    }

    #[test]
    fn a_file_of_windows_with_comments_is_accepted() {
        let (passwords, diagnostics) = parse(&format!("\u{feff}{HELLO}\r\n# a comment: with colon\r\n\r\nno colon\r\n"));
        assert_eq!(diagnostics, Vec::<String>::new());
        assert!(passwords.verify("hello", b"world"));
    }

    #[test]
    fn a_broken_line_costs_its_own_user_only() {
        let (passwords, diagnostics) = parse(&format!("pubclient1:tiguitto\n{HELLO}\nempty:\n:x\n"));
        assert!(passwords.contains("hello") && !passwords.contains("pubclient1") && !passwords.contains("empty"));
        assert_eq!(
            diagnostics,
            [
                "/pw:1: Error: Invalid password hash type for user pubclient1, removing entry. If it is a plain text password, run: mosquitto_passwd -U /pw",
                "/pw:3: Error: Missing password hash for user empty, removing entry. Set the password again: mosquitto_passwd /pw empty",
                "/pw:4: Error: Invalid line in password file '/pw', no username.",
            ]
        );
    }

    #[test]
    fn what_is_no_password_file_is_not_complained_of_without_end() {
        let (_, diagnostics) = parse(&format!("{}\n{}", "a:b\n".repeat(100_000), "x".repeat(100_000) + ":y"));
        assert_eq!(diagnostics.len(), 201);
        assert_eq!(diagnostics[200], "/pw: Error: There are 99801 findings more. Is this the right file?");
    }

    #[test]
    fn the_last_of_two_entries_counts() {
        let (passwords, diagnostics) = parse(&format!("hello:$6$AAAAAAAAAAAAAAAA${}==\n{HELLO}\n", "A".repeat(86)));
        assert!(passwords.verify("hello", b"world"));
        assert_eq!(diagnostics.len(), 1);
    }

    #[test]
    fn a_changed_entry_is_noticed() {
        let (one, two) = (parse(HELLO).0, parse(&HELLO.replace("yH2M", "yH2N")).0);
        assert!(one.same_entry(&one.clone(), "hello") && !one.same_entry(&two, "hello") && !one.same_entry(&one, "gone"));
    }
}
