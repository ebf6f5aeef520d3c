//! Which lines of a password file change. Pure: bytes in, an [`Edit`] out; every other byte of the file stays as it is.

use std::ops::Range;

use crate::access::password_hash::{HashError, PasswordHash};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Lines that change, in the order of the file, and one that is added at its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Edit {
    /// The bytes of a line without its ending, and what stands there instead; `None` removes it with its ending.
    pub(super) changes: Vec<(Range<usize>, Option<String>)>,
    pub(super) append: Option<String>,
}

/// An entry that is no hash.
pub(super) struct PlainText<'a> {
    pub(super) line: Range<usize>,
    pub(super) username: &'a str,
    pub(super) password: &'a [u8],
}

/// The line's bytes, its user name as the broker reads it, and what follows the first colon.
struct Entry<'a> {
    line: Range<usize>,
    username: &'a str,
    rest: &'a [u8],
}

/// Adds or changes: the last entry of the user gets the new line, others of the same user go.
pub(super) fn set(bytes: &[u8], username: &str, line: &str) -> Edit {
    let mut edit = delete(bytes, username);
    match edit.changes.last_mut() {
        Some((_, replacement)) => *replacement = Some(line.to_owned()),
        None => edit.append = Some(line.to_owned()),
    }
    edit
}

/// Removes every entry of the user.
pub(super) fn delete(bytes: &[u8], username: &str) -> Edit {
    let changes = entries(bytes).filter(|entry| entry.username == username).map(|entry| (entry.line, None)).collect();
    Edit { changes, append: None }
}

/// Entries whose password is plain text, and the users whose hash is damaged.
pub(super) fn plain_text(bytes: &[u8]) -> (Vec<PlainText<'_>>, Vec<&str>) {
    let (mut plain, mut broken) = (Vec::new(), Vec::new());
    for Entry { line, username, rest } in entries(bytes) {
        let text = String::from_utf8_lossy(rest);
        let meant_as_hash = ["$6$", "$7$", "$argon2id$"].iter().any(|head| text.trim_start().starts_with(head));
        match PasswordHash::parse(text.trim()) {
            Ok(_) => {}
            Err(HashError::Missing) => broken.push(username),
            Err(_) if meant_as_hash => broken.push(username),
            Err(_) => plain.push(PlainText { line, username, password: rest }),
        }
    }
    (plain, broken)
}

fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    lines(bytes).filter_map(|line| {
        let text = bytes.get(line.clone())?;
        let colon = text.iter().position(|&byte| byte == b':')?;
        let username = std::str::from_utf8(text.get(..colon)?).ok()?.trim();
        let rest = text.get(colon + 1..)?;
        (!text.starts_with(b"#") && !username.is_empty()).then_some(Entry { line, username, rest })
    })
}

/// Without endings (`\n` or `\r\n`) and the mark of order at the file's head.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    std::iter::from_fn(move || {
        let rest = bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let len = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let text = rest.get(..len)?;
        let line = start..start + text.strip_suffix(b"\r").unwrap_or(text).len();
        start += len + 1;
        Some(line)
    })
}

/// What the file's lines end with.
pub(super) fn line_ending(bytes: &[u8]) -> &'static str {
    match memchr::memchr(b'\n', bytes) {
        Some(end) if bytes.get(..end).is_some_and(|line| line.ends_with(b"\r")) => "\r\n",
        _ => "\n",
    }
}

impl Edit {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.append.is_none()
    }

    /// The whole file after the edit.
    pub(super) fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 256);
        let mut kept = 0;
        for (line, replacement) in &self.changes {
            out.extend(bytes.get(kept..line.start).unwrap_or_default());
            kept = line.end;
            if let Some(text) = replacement {
                out.extend(text.as_bytes());
            } else {
                let ending = bytes.get(kept..).unwrap_or_default();
                kept += if ending.starts_with(b"\r\n") { 2 } else { usize::from(ending.starts_with(b"\n")) };
            }
        }
        out.extend(bytes.get(kept..).unwrap_or_default());
        // The last line gets the ending it lacks, as with the original: people append to this file with `echo >>`.
        out.extend(addition(&out, self.append.iter()).as_bytes());
        out
    }
}

/// Lines to put behind `bytes`, whose last line may lack its ending.
pub(super) fn addition<'a>(bytes: &[u8], texts: impl IntoIterator<Item = &'a String>) -> String {
    let ending = line_ending(bytes);
    let open = !bytes.is_empty() && bytes != BYTE_ORDER_MARK && !bytes.ends_with(b"\n");
    let mut out = String::from(if open { ending } else { "" });
    for text in texts {
        out.push_str(text);
        out.push_str(ending);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_text(text: &str, username: &str) -> String {
        let edit = set(text.as_bytes(), username, &format!("{username}:NEW"));
        String::from_utf8(edit.apply(text.as_bytes())).unwrap()
    }

    fn delete_text(text: &str, username: &str) -> String {
        String::from_utf8(delete(text.as_bytes(), username).apply(text.as_bytes())).unwrap()
    }

    #[test]
    fn adding_keeps_every_byte() {
        assert_eq!(set_text("", "a"), "a:NEW\n");
        assert_eq!(set_text("sub:x", "a"), "sub:x\na:NEW\n");
        assert_eq!(set_text("# c\n\nbroken\nsub:x\n", "a"), "# c\n\nbroken\nsub:x\na:NEW\n");
        assert_eq!(set_text("sub:x\r\npub:y", "a"), "sub:x\r\npub:y\r\na:NEW\r\n");
        assert_eq!(set_text("\u{feff}", "a"), "\u{feff}a:NEW\n");
        assert_eq!(set_text("#a:x\n", "a"), "#a:x\na:NEW\n");
    }

    #[test]
    fn changing_touches_one_line() {
        assert_eq!(set_text("# c\n a : old\nb:x", "a"), "# c\na:NEW\nb:x\n");
        assert_eq!(set_text("\u{feff}a:old\r\nb:x\r\n", "a"), "\u{feff}a:NEW\r\nb:x\r\n");
        assert_eq!(set_text("a:1\nb:x\na:2\n", "a"), "b:x\na:NEW\n");
        assert_eq!(set_text("b:x\na:old", "a"), "b:x\na:NEW\n");
    }

    #[test]
    fn deleting_removes_the_user_only() {
        assert_eq!(delete_text("a:1\n# c\nb:x\na:2", "a"), "# c\nb:x\n");
        assert_eq!(delete_text("a:1\r\nab:2\r\n", "a"), "ab:2\r\n");
        assert!(delete(b"ab:1\n", "a").is_empty());
    }

    #[test]
    fn only_plain_text_is_taken_for_a_password() {
        let hash = PasswordHash::new(crate::access::password_hash::Scheme::Sha512, b"x", &[0; 12]).unwrap();
        let text = format!("#x:y\nh:{hash}\nd:$7$101$AAAA\np:se:cr et \r\ne:\nno colon\n");
        let (plain, broken) = plain_text(text.as_bytes());
        let plain: Vec<_> = plain.iter().map(|entry| (entry.username, entry.password)).collect();
        assert_eq!(plain, [("p", &b"se:cr et "[..])]);
        assert_eq!(broken, ["d", "e"]);
    }
}
