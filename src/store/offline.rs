//! A store without a broker: looked at, and made. A store that a broker serves may be looked at, too, since it only grows.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::frames::{self, Found};
use super::rewrite::{self, beside};
use super::{State, mosquitto};

/// What a file is, by how it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Store,
    /// mosquitto's database.
    Mosquittos,
    Empty,
    Neither,
}

/// In what state a store was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Whole,
    /// From this byte on it is not all readable; what is, was read.
    Damaged(u64),
    /// A later version of darner wrote it: nothing was read.
    Newer,
    /// One from before the first release did: nothing was read.
    Older,
}

pub fn kind(path: &Path) -> io::Result<Kind> {
    let mut head = Vec::new();
    File::open(path)?.take(mosquitto::MAGIC.len() as u64).read_to_end(&mut head)?;
    Ok(match head.as_slice() {
        [] => Kind::Empty,
        head if head == mosquitto::MAGIC => Kind::Mosquittos,
        head if frames::begins(head) => Kind::Store,
        _ => Kind::Neither,
    })
}

/// Reads a store and changes nothing. `zero`: the time of day at `Time(0)`, in milliseconds since 1970.
pub fn look(path: &Path, zero: i64) -> io::Result<(State, Condition)> {
    let mut state = State::default();
    let condition = match frames::read(&mut File::open(path)?, zero, &mut state)? {
        Found::Whole { .. } => Condition::Whole,
        Found::Damaged { at, .. } => Condition::Damaged(at),
        Found::Newer => Condition::Newer,
        Found::Older => Condition::Older,
        Found::Unfinished => {
            state = State::default();
            Condition::Damaged(0)
        }
    };
    Ok((state, condition))
}

/// Makes a store of a state, or puts it in the place of one: all of it or nothing.
pub fn create(path: &Path, state: &State, zero: i64) -> io::Result<()> {
    match rewrite::write_beside(path, state, zero).and_then(|_| std::fs::rename(beside(path), path)) {
        Ok(()) => {
            if let Some(folder) = path.parent() {
                let _ =
                    File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }).and_then(|folder| folder.sync_all());
            }
            Ok(())
        }
        Err(error) => {
            let _ = std::fs::remove_file(beside(path));
            // A mount, or a file in a folder that takes no other.
            let is_there = matches!(kind(path), Ok(Kind::Store | Kind::Empty));
            if is_there { rewrite::write_in_place(path, state, zero) } else { Err(error) }
        }
    }
}

/// A broker has it open.
pub fn is_in_use(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}
