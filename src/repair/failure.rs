//! What could not be done, added up by place and reason: one line each instead of one per file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Failed {
    Restore,
    /// A default that the configuration does not speak of.
    RestoreUnnamed,
    MakeFolder,
    ReadFolder,
    Owner,
    Mode,
    HardLink,
    OtherFilesystem,
}

const NAMES_MAX: usize = 3;

#[derive(Default)]
pub(super) struct Failures {
    rows: BTreeMap<(PathBuf, Failed, i32), (usize, Vec<String>)>,
}

impl Failures {
    /// Counts one failure at `path`, below `place`.
    pub(super) fn add(&mut self, place: &Path, failed: Failed, errno: i32, path: &Path) {
        let (count, names) = self.rows.entry((place.to_owned(), failed, errno)).or_default();
        *count += 1;
        if names.len() < NAMES_MAX {
            names.push(path.strip_prefix(place).ok().filter(|name| !name.as_os_str().is_empty()).unwrap_or(path).display().to_string());
        }
    }

    /// One sentence a row, and whether somebody has to do something about it.
    pub(super) fn sentences(&self) -> impl Iterator<Item = (bool, String)> {
        self.rows.iter().map(|((place, failed, errno), (count, names))| {
            let names = format!("{}{}", names.join(", "), if *count > names.len() { ", …" } else { "" });
            let items = format!("{count} {}", if *count == 1 { "item" } else { "items" });
            let (place, why) = (place.display(), reason(*errno));
            match failed {
                Failed::Restore | Failed::RestoreUnnamed => (
                    *failed == Failed::Restore,
                    format!("{place} {why}: {items} could not be restored ({names}): using built-in defaults"),
                ),
                Failed::MakeFolder => (true, format!("{place} {why}: {items} could not be created ({names}): nothing can be stored there")),
                Failed::ReadFolder => (true, format!("{place} {why}: {items} could not be looked into ({names})")),
                Failed::Owner => (false, format!("{place} {why}: owner of {items} not changed ({names})")),
                Failed::Mode => (false, format!("{place} {why}: mode of {items} not changed ({names})")),
                Failed::HardLink => (
                    true,
                    format!("{place}: {items} with another owner and other hard links left alone ({names}): change the owner by hand if it is right"),
                ),
                Failed::OtherFilesystem => {
                    (false, format!("{place}: {items} on another filesystem with another owner left alone ({names})"))
                }
            }
        })
    }
}

fn reason(errno: i32) -> String {
    match Errno::from_raw(errno) {
        Errno::EROFS => "read-only".into(),
        Errno::ENOSPC | Errno::EDQUOT => "full".into(),
        Errno::EPERM | Errno::EACCES => "not permitted".into(),
        other => format!("({})", other.desc()),
    }
}
