//! Changing a file that cannot be replaced: a bind mount of a single file, a folder without write permission, a second hard link.
//!
//! New lines are written behind the old ones before an old line becomes a comment by one byte, so at every moment each user has a
//! whole entry in the file; the reader takes the last one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::entries::{Edit, addition};

/// What is asked of a file; the test's stops at any byte.
pub(super) trait Storage {
    fn write_at(&self, bytes: &[u8], offset: usize) -> io::Result<()>;
    fn set_len(&self, len: usize) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

impl Storage for File {
    fn write_at(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
        self.write_all_at(bytes, offset as u64)
    }

    fn set_len(&self, len: usize) -> io::Result<()> {
        Self::set_len(self, len as u64)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }
}

/// Performs `edit` on a file that holds `bytes`.
pub(super) fn edit(file: &impl Storage, bytes: &[u8], edit: &Edit) -> io::Result<()> {
    let texts: Vec<&String> = edit.changes.iter().filter_map(|(_, text)| text.as_ref()).chain(&edit.append).collect();
    if !texts.is_empty() {
        let tail = addition(bytes, texts.iter().copied());
        if let Err(error) = file.write_at(tail.as_bytes(), bytes.len()).and_then(|()| file.sync()) {
            // A full disk: back to what was there.
            file.set_len(bytes.len())?;
            return Err(error);
        }
    }
    for (line, _) in &edit.changes {
        // The first byte does it; the rest is wiped because it is a password or its hash.
        file.write_at(b"#", line.start)?;
        file.write_at(&vec![b' '; line.len().saturating_sub(1)], line.start + 1)?;
    }
    file.sync()?;
    match edit.changes.last() {
        Some(_) if !texts.is_empty() && fits(edit) => move_back(file, bytes.len(), edit),
        // Nothing stands behind the last removed line: it need not stay as a comment.
        Some((line, None)) if texts.is_empty() && is_blank(bytes, line.end) => {
            file.set_len(line.start)?;
            file.sync()
        }
        _ => Ok(()),
    }
}

fn is_blank(bytes: &[u8], start: usize) -> bool {
    bytes.get(start..).is_some_and(|rest| rest.iter().all(u8::is_ascii_whitespace))
}

/// Changed passwords of the same scheme have entries of the same length.
fn fits(edit: &Edit) -> bool {
    edit.append.is_none() && edit.changes.iter().all(|(line, text)| text.as_ref().is_none_or(|text| text.len() == line.len()))
}

/// The new lines take the places of the old ones, each coming to life with its first byte; then the tail goes.
fn move_back(file: &impl Storage, end: usize, edit: &Edit) -> io::Result<()> {
    for (line, text) in &edit.changes {
        if let Some((first, rest)) = text.as_ref().and_then(|text| text.as_bytes().split_first()) {
            file.write_at(rest, line.start + 1)?;
            file.sync()?;
            file.write_at(&[*first], line.start)?;
        }
    }
    file.sync()?;
    file.set_len(end)
}

/// Puts `bytes` in the place of everything.
pub(super) fn rewrite(file: &impl Storage, bytes: &[u8]) -> io::Result<()> {
    file.write_at(bytes, 0)?;
    file.set_len(bytes.len())?;
    file.sync()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::path::Path;

    use super::super::entries;
    use super::*;
    use crate::access::Passwords;
    use crate::access::password_hash::{PasswordHash, Scheme};

    /// Dies after so many bytes and calls.
    struct Mortal {
        bytes: RefCell<Vec<u8>>,
        life: Cell<usize>,
    }

    impl Mortal {
        fn new(bytes: &[u8], life: usize) -> Self {
            Self { bytes: RefCell::new(bytes.to_vec()), life: Cell::new(life) }
        }

        fn spend(&self) -> io::Result<()> {
            let left = self.life.get().checked_sub(1).ok_or_else(|| io::Error::other("killed"))?;
            self.life.set(left);
            Ok(())
        }
    }

    impl Storage for Mortal {
        fn write_at(&self, bytes: &[u8], offset: usize) -> io::Result<()> {
            for (index, byte) in bytes.iter().enumerate() {
                self.spend()?;
                let mut own = self.bytes.borrow_mut();
                match own.get_mut(offset + index) {
                    Some(place) => *place = *byte,
                    None => own.push(*byte),
                }
            }
            Ok(())
        }

        fn set_len(&self, len: usize) -> io::Result<()> {
            self.spend()?;
            self.bytes.borrow_mut().truncate(len);
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn entry(username: &str, password: &str, scheme: Scheme) -> String {
        format!("{username}:{}", PasswordHash::new(scheme, password.as_bytes(), &[9; 12]).unwrap())
    }

    /// At every byte where the edit can stop, `kept` are all there, and `changed` has its old or its new password.
    fn die_everywhere(before: &str, edit_of: &Edit, kept: &[&str], changed: Option<(&str, [&str; 2])>) {
        for life in 0.. {
            let file = Mortal::new(before.as_bytes(), life);
            let done = edit(&file, before.as_bytes(), edit_of).is_ok();
            let (users, _) = Passwords::parse(Path::new("pw"), &file.bytes.borrow());
            for name in kept {
                assert!(users.verify(name, b"old"), "{name} is lost when killed after {life} bytes");
            }
            if let Some((name, [old, new])) = changed {
                assert!(users.verify(name, new.as_bytes()) || !done && users.verify(name, old.as_bytes()), "{name} after {life}");
            }
            if done {
                return;
            }
        }
    }

    #[test]
    fn no_moment_of_death_loses_an_entry() {
        let (short, long) = (Scheme::Sha512, Scheme::Pbkdf2 { iterations: 1 });
        let lines = ["a", "b", "c"].map(|name| entry(name, "old", short));
        for ending in ["\n", ""] {
            let before = format!("{}{ending}", lines.join("\n"));
            for scheme in [short, long] {
                let new = entry("b", "new", scheme);
                die_everywhere(&before, &entries::set(before.as_bytes(), "b", &new), &["a", "c"], Some(("b", ["old", "new"])));
            }
            for name in ["a", "b", "c"] {
                let kept: Vec<&str> = ["a", "b", "c"].into_iter().filter(|other| *other != name).collect();
                die_everywhere(&before, &entries::delete(before.as_bytes(), name), &kept, None);
            }
            die_everywhere(&before, &entries::set(before.as_bytes(), "d", &entry("d", "new", short)), &["a", "b", "c"], None);
        }
    }

    #[test]
    fn an_entry_of_the_same_length_takes_the_old_place() {
        let before = format!("{}\n# c\n", entry("a", "old", Scheme::Sha512));
        let file = Mortal::new(before.as_bytes(), usize::MAX);
        let new = entry("a", "new", Scheme::Sha512);
        edit(&file, before.as_bytes(), &entries::set(before.as_bytes(), "a", &new)).unwrap();
        assert_eq!(String::from_utf8(file.bytes.into_inner()).unwrap(), format!("{new}\n# c\n"));
    }
}
