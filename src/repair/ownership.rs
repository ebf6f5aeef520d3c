//! Gives the volume to the broker's account: looks at everything, touches only what differs.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::apply::{Repair, errno};
use super::failure::Failed;
use super::observation::as_allowed;
use crate::conf::files::{self, KEPT_MODE};
use crate::os::beneath::{Facts, Kind};

/// What to do with one entry. Pure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Leave,
    Change,
    /// The same file has a name elsewhere, where its owner may matter.
    TellHardLink,
}

/// Whether it is root's and marked to stay so: see [`KEPT_MODE`].
pub(super) fn is_kept(facts: &Facts) -> bool {
    facts.kind == Kind::File && files::is_kept(facts.uid, facts.mode)
}

fn judge(facts: &Facts, owner: (u32, u32)) -> Verdict {
    match facts.kind {
        _ if (facts.uid, facts.gid) == owner => Verdict::Leave,
        Kind::Link | Kind::Special => Verdict::Leave,
        // Whatever the broker, who may rename what is in its folder, calls it by now.
        Kind::File if is_kept(facts) => Verdict::Leave,
        Kind::File if facts.links > 1 && facts.uid != owner.0 => Verdict::TellHardLink,
        Kind::File | Kind::Folder => Verdict::Change,
    }
}

/// What the broker needs first comes first, in case the time runs out.
const FIRST: [&str; 4] = ["config", "conf", "pwfile", "certs"];
/// What can be large comes last.
const LAST: [&str; 2] = ["data", "log"];

/// Folders, and entries of one folder, that are kept in mind at once.
const PENDING_MAX: usize = 100_000;

impl Repair<'_> {
    /// Walks the root. Nothing happens without an owner to give it to.
    pub(super) fn own(&mut self) {
        let Some(owner) = self.request.owner else { return };
        let Some(facts) = self.anchor.root().and_then(|base| base.facts(Path::new("")).ok()) else { return };
        self.mend_owner(Path::new(""), &facts, owner);
        let mut top = self.entries(Path::new(""));
        top.sort_by_key(|(name, _)| {
            let is = |names: &[&str]| names.iter().any(|word| name == Path::new(word));
            (
                if is(&FIRST) {
                    0
                } else if is(&LAST) {
                    2
                } else {
                    1
                },
                name.clone(),
            )
        });
        for (name, facts) in top {
            self.mend_owner(&name, &facts, owner);
            // Each of these may be a mount of its own, so each has its own device.
            if facts.kind == Kind::Folder && self.walk(name, facts.device, owner).is_break() {
                self.complete = false;
                return;
            }
        }
    }

    fn walk(&mut self, top: PathBuf, device: u64, owner: (u32, u32)) -> ControlFlow<()> {
        let mut folders = vec![top];
        while let Some(folder) = folders.pop() {
            for (name, facts) in self.entries(&folder) {
                if facts.kind == Kind::Folder && facts.device != device {
                    if (facts.uid, facts.gid) != owner {
                        let path = self.request.root.join(&name);
                        self.failures.add(&self.request.root, Failed::OtherFilesystem, 0, &path);
                    }
                    continue;
                }
                self.mend_owner(&name, &facts, owner);
                if facts.kind == Kind::Folder {
                    folders.push(name);
                }
            }
            // What is left of this folder, or of those that wait, is for the next time.
            let is_over = self.is_late() || self.has_too_many(folders.len());
            if !self.complete || is_over && !folders.is_empty() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// PID 1 has no more time for this; whoever asks for all of it waits.
    fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Nor memory: the broker's user may have made any number of folders.
    fn has_too_many(&self, count: usize) -> bool {
        self.deadline.is_some() && count >= PENDING_MAX
    }

    /// What is in a folder; only folders and what has a wrong owner, so that 100,000 right files cost no memory.
    pub(super) fn entries(&mut self, folder: &Path) -> Vec<(PathBuf, Facts)> {
        let owner = self.request.owner;
        let Some(base) = self.anchor.root() else { return Vec::new() };
        let entries = std::cell::RefCell::new(Vec::new());
        let cut = std::cell::Cell::new(false);
        let result = as_allowed(owner, || {
            entries.borrow_mut().clear();
            base.for_each(folder, |name, facts| {
                if facts.kind == Kind::Folder || Some((facts.uid, facts.gid)) != owner {
                    entries.borrow_mut().push((folder.join(name), facts));
                }
                // The top is always seen: there stands what the broker needs first.
                let is_late = !folder.as_os_str().is_empty() && self.is_late();
                cut.set(is_late || self.has_too_many(entries.borrow().len()));
                if cut.get() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        if cut.get() {
            self.complete = false;
        }
        if let Err(error) = result {
            let path = self.request.root.join(folder);
            // What the broker's account closed to us is in order as it is.
            let closed = error.kind() == std::io::ErrorKind::PermissionDenied
                && base.facts(folder).is_ok_and(|facts| Some((facts.uid, facts.gid)) == owner);
            if !closed {
                self.failures.add(&self.request.root, Failed::ReadFolder, errno(&error), &path);
            }
        }
        entries.into_inner()
    }

    /// Marks a key that was restored from a backup, or made by an earlier version, as root's.
    fn keep(&mut self, relative: &Path, whole: &Path) {
        let Some(base) = self.anchor.root().filter(|_| !self.request.dry_run) else { return };
        let is_unmarked = |facts: &Facts| facts.uid == 0 && facts.links == 1 && !is_kept(facts);
        let changed = base.change_mode(relative, KEPT_MODE, is_unmarked).unwrap_or(false);
        // Some filesystems keep no modes; they keep no owners either.
        if changed && base.facts(relative).is_ok_and(|facts| is_kept(&facts)) {
            self.did(format!("mode of '{}' changed to {KEPT_MODE:04o}: it stays root's", whole.display()));
        }
    }

    fn mend_owner(&mut self, relative: &Path, facts: &Facts, owner: (u32, u32)) {
        let whole = if relative.as_os_str().is_empty() { self.request.root.clone() } else { self.request.root.join(relative) };
        // Who breaks into the broker does not get the authority's key.
        if facts.uid == 0 && self.authority_keys.contains(&whole) {
            return self.keep(relative, &whole);
        }
        match judge(facts, owner) {
            Verdict::Leave => return,
            Verdict::TellHardLink => return self.failures.add(&self.request.root, Failed::HardLink, 0, &whole),
            Verdict::Change => {}
        }
        let Some(base) = self.anchor.root() else { return };
        let result =
            if self.request.dry_run { Ok(true) } else { base.change_owner(relative, owner, |now| judge(now, owner) == Verdict::Change) };
        match result {
            Ok(true) => self.did(format!("changed ownership of '{}' to {}:{}", whole.display(), owner.0, owner.1)),
            Ok(false) => {}
            // The mount's parent in a read-only container; nobody needs it.
            Err(_) if relative.as_os_str().is_empty() => {}
            Err(error) => self.failures.add(&self.request.root, Failed::Owner, errno(&error), &whole),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_and_folders_with_one_name_change_hands() {
        let file = Facts { kind: Kind::File, uid: 0, gid: 0, mode: 0o644, links: 1, device: 1, bytes: 0 };
        let owner = (1883, 1883);
        assert_eq!(judge(&file, owner), Verdict::Change);
        assert_eq!(judge(&Facts { uid: 1883, ..file }, owner), Verdict::Change);
        assert_eq!(judge(&Facts { uid: 1883, gid: 1883, links: 2, ..file }, owner), Verdict::Leave);
        assert_eq!(judge(&Facts { links: 2, ..file }, owner), Verdict::TellHardLink);
        assert_eq!(judge(&Facts { kind: Kind::Folder, links: 9, ..file }, owner), Verdict::Change);
        assert_eq!(judge(&Facts { kind: Kind::Link, ..file }, owner), Verdict::Leave);
        assert_eq!(judge(&Facts { kind: Kind::Special, ..file }, owner), Verdict::Leave);
        assert_eq!(judge(&Facts { mode: KEPT_MODE, ..file }, owner), Verdict::Leave, "marked to stay root's");
        assert_eq!(judge(&Facts { mode: KEPT_MODE, uid: 5, ..file }, owner), Verdict::Change, "not root's");
    }
}
