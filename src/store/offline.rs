//! A store without a broker: looked at, and made. A store that a broker serves may be looked at, too, since it only grows.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::frames::{self, Found};
use super::place::Place;
use super::rewrite;
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
    kind_of(&Place::of(path)?.open()?)
}

fn kind_of(file: &File) -> io::Result<Kind> {
    let mut head = Vec::new();
    file.take(mosquitto::MAGIC.len() as u64).read_to_end(&mut head)?;
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
    let condition = match frames::read(&mut Place::of(path)?.open()?, zero, &mut state)? {
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
    let place = Place::of(path)?;
    place.put(rewrite::BESIDE.as_ref(), |file| rewrite::write_new(file, state, zero)).or_else(|error| {
        // A mount, or a file in a folder that takes no other.
        let file = match place.open_to_write() {
            Err(other) if other.kind() == io::ErrorKind::Other => return Err(other),
            Ok(file) if matches!(kind_of(&file), Ok(Kind::Store | Kind::Empty)) => file,
            _ => return Err(error),
        };
        rewrite::write_over(file, state, zero)
    })
}

/// A broker has it open.
pub fn is_in_use(path: &Path) -> bool {
    Place::of(path).and_then(|place| place.open()).is_ok_and(|file| matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)))
}
