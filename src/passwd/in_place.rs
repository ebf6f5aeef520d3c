//! Changing a file that cannot be replaced: a bind mount of a single file, a folder without write permission, a second hard link.
//!
//! New lines are written behind the old ones before an old line becomes a comment by one byte, so at every moment each user has a
//! whole entry in the file; the reader takes the last one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::entries::{Edit, addition};

/// Performs `edit` on a file that holds `bytes`.
pub(super) fn edit(file: &File, bytes: &[u8], edit: &Edit) -> io::Result<()> {
    let replacements = edit.changes.iter().filter_map(|(_, replacement)| replacement.as_ref());
    let tail = addition(bytes, replacements.chain(&edit.append));
    let end = bytes.len() as u64;
    let has_tail = edit.append.is_some() || edit.changes.iter().any(|(_, replacement)| replacement.is_some());
    if has_tail && let Err(error) = file.write_all_at(tail.as_bytes(), end).and_then(|()| file.sync_data()) {
        // A full disk: back to what was there.
        file.set_len(end)?;
        return Err(error);
    }
    for (line, _) in &edit.changes {
        comment_out(file, line.start, line.end - line.start)?;
    }
    file.sync_data()?;
    // Password changes of the same scheme have the same length: the new lines move into the old places, and the tail goes.
    let fits = edit.append.is_none()
        && has_tail
        && edit.changes.iter().all(|(line, replacement)| replacement.as_ref().is_none_or(|text| text.len() == line.len()));
    if fits {
        for (line, replacement) in &edit.changes {
            if let Some((first, rest)) = replacement.as_ref().and_then(|text| text.as_bytes().split_first()) {
                file.write_all_at(rest, line.start as u64 + 1)?;
                file.sync_data()?;
                file.write_all_at(&[*first], line.start as u64)?;
            }
        }
        file.sync_data()?;
        file.set_len(end)?;
    } else if !has_tail
        && let Some((line, None)) = edit.changes.last()
        && bytes.get(line.end..).is_some_and(|after| after.iter().all(u8::is_ascii_whitespace))
    {
        file.set_len(line.start as u64)?;
    }
    file.sync_all()
}

/// The first byte does it; the rest is wiped because it is a password or its hash.
fn comment_out(file: &File, start: usize, len: usize) -> io::Result<()> {
    file.write_all_at(b"#", start as u64)?;
    file.write_all_at(&vec![b' '; len.saturating_sub(1)], start as u64 + 1)
}

/// Puts `bytes` in the place of everything.
pub(super) fn rewrite(file: &File, bytes: &[u8]) -> io::Result<()> {
    file.write_all_at(bytes, 0)?;
    file.set_len(bytes.len() as u64)?;
    file.sync_all()
}
