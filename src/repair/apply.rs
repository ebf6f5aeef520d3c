//! Performs what was planned. Dull: whatever fails is counted, and the rest goes on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::AccessFlags;

use super::failure::{Failed, Failures};
use super::location::{Anchor, Place};
use super::observation::{Found, Role, Wanted, as_allowed, may, observe};
use super::plan::{Step, plan, substitute};
use super::{Report, Request, Secrets, defaults};
use crate::conf::files::Generation;
use crate::os::beneath::{Facts, Kind, NewFile};

/// Actions that are told one by one; the rest is a number.
const LINES_MAX: usize = 50;
/// Sentences for people; a volume cannot make the log endless.
const PROBLEMS_MAX: usize = 50;
const FOLDER_MODE: u32 = 0o755;
/// The low bits of a mode, which speak of group and others.
const OTHERS_BITS: u32 = 6;

/// One repair while it runs.
pub(super) struct Repair<'r> {
    pub(super) request: &'r Request,
    pub(super) anchor: Anchor,
    pub(super) deadline: Option<Instant>,
    pub(super) failures: Failures,
    pub(super) complete: bool,
    config: Vec<u8>,
    changes: usize,
    actions: Vec<String>,
    problems: Vec<String>,
    pub(super) substitutes: BTreeMap<PathBuf, Vec<u8>>,
    /// Keys that stay with root when everything else is given to the broker.
    pub(super) authority_keys: Vec<PathBuf>,
    secrets: Secrets,
}

impl<'r> Repair<'r> {
    pub(super) fn new(request: &'r Request) -> Self {
        let mut repair = Self {
            request,
            anchor: Anchor::new(&request.root),
            deadline: (!request.full).then(|| Instant::now() + request.time_budget),
            failures: Failures::default(),
            complete: true,
            config: defaults::config(&request.root, &request.config),
            changes: 0,
            actions: Vec::new(),
            problems: Vec::new(),
            substitutes: BTreeMap::new(),
            authority_keys: Vec::new(),
            secrets: Secrets::default(),
        };
        if repair.anchor.root().is_none() {
            // Above the root nothing is ours, so this is a path of the whole system.
            let root = request.root.clone();
            if repair.make_folders(&root).is_ok() {
                repair.anchor = Anchor::new(&request.root);
            }
        }
        repair
    }

    /// Tells what was done (or would be).
    pub(super) fn did(&mut self, action: String) {
        // What a dry run did not create is missing again for the next step.
        if self.request.dry_run && self.actions.iter().any(|told| told.ends_with(&action)) {
            return;
        }
        self.changes += 1;
        if self.actions.len() < LINES_MAX {
            self.actions.push(if self.request.dry_run { format!("dry run: {action}") } else { action });
        }
    }

    /// Files as they are to be seen from here on.
    pub(super) fn files(&self) -> Generation {
        let mut files = Generation::default();
        for (path, bytes) in &self.substitutes {
            files.insert(path.clone(), bytes.clone());
        }
        files
    }

    /// Tells what somebody has to do.
    pub(super) fn say(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX && !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// A line with a secret.
    pub(super) fn tell_once(&mut self, line: String) {
        self.secrets.add(line);
    }

    /// Brings back what is missing.
    pub(super) fn restore(&mut self, wanted: &[Wanted]) {
        for one in wanted {
            let path = absolute(&one.path);
            let found = observe(&self.anchor, self.request, &path);
            for step in plan(one, &found, &self.config) {
                self.perform(one, step);
            }
        }
    }

    fn perform(&mut self, wanted: &Wanted, step: Step) {
        match step {
            Step::Say(sentence) => self.say(sentence),
            Step::Substitute(path, bytes) => drop(self.substitutes.entry(path).or_insert(bytes)),
            Step::MakeFolder(path) => {
                let path = absolute(&path);
                if let Err(error) = self.make_folders(&path)
                    && wanted.named
                {
                    self.failures.add(&self.top(&path), Failed::MakeFolder, errno(&error), &path);
                }
            }
            Step::MakeFile { path, bytes, mode, mtime, why } => {
                let file = NewFile { bytes: &bytes, mode, mtime, owner: self.request.owner };
                let absolute = absolute(&path);
                match self.make_file(&absolute, &file) {
                    Ok(()) => self.did(format!("created '{}' (mode {mode:04o}): {why}", absolute.display())),
                    // Another container was faster.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => {
                        let failed = if wanted.named { Failed::Restore } else { Failed::RestoreUnnamed };
                        self.failures.add(&self.top(&absolute), failed, errno(&error), &absolute);
                        if let Some(bytes) = substitute(wanted, &self.config) {
                            // The first user may stand there already.
                            self.substitutes.entry(path).or_insert(bytes);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn make_file(&mut self, path: &Path, file: &NewFile<'_>) -> io::Result<()> {
        let place = self.anchor.locate(path)?;
        // Where the links lead, if there were any to follow.
        if let Some(folder) = place.relative.parent().map(|folder| place.whole(folder)) {
            self.make_folders(&folder)?;
        }
        if self.request.dry_run {
            return Ok(());
        }
        let place = self.anchor.locate(path)?;
        if let Some(error) = as_allowed(self.request.owner, || place.base.create(&place.relative, file))? {
            self.failures.add(&self.request.root, Failed::Owner, errno(&error), path);
        }
        Ok(())
    }

    /// Puts a whole file in the place of one that is there. `false`: it is no plain file with one name.
    pub(super) fn replace_file(&self, path: &Path, file: &NewFile<'_>) -> io::Result<bool> {
        let place = self.anchor.locate(path)?;
        as_allowed(self.request.owner, || place.base.replace(&place.relative, file, |facts| facts.links == 1))
    }

    /// Writes into a file that is empty. `false`: it is not any more.
    pub(super) fn fill_file(&self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        let place = self.anchor.locate(path)?;
        as_allowed(self.request.owner, || place.base.fill_empty(&place.relative, bytes, |facts| facts.links == 1))
    }

    /// Makes the folder and those above it that are missing.
    fn make_folders(&mut self, path: &Path) -> io::Result<()> {
        let owner = self.request.owner;
        let mut made = Vec::new();
        let mut kept = None;
        let result = (|| {
            let place = self.anchor.locate(path)?;
            let Place { base, relative, .. } = &place;
            let mut missing = Vec::new();
            for folder in relative.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
                match as_allowed(owner, || base.facts(folder)) {
                    Ok(facts) if facts.kind == Kind::Folder => break,
                    Ok(_) => return Err(nix::errno::Errno::ENOTDIR.into()),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(folder),
                    Err(error) => return Err(error),
                }
            }
            for folder in missing.into_iter().rev() {
                if !self.request.dry_run {
                    match as_allowed(owner, || base.make_folder(folder, FOLDER_MODE)) {
                        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                        result => result?,
                    }
                    if let Some(owner) = owner
                        && let Err(error) = base.change_owner(folder, owner, |facts| (facts.uid, facts.gid) != owner)
                    {
                        kept = Some(error);
                    }
                }
                made.push(place.whole(folder));
            }
            Ok(())
        })();
        if let Some(error) = kept {
            self.failures.add(&self.request.root, Failed::Owner, errno(&error), path);
        }
        for folder in made {
            self.did(format!("created '{}/' (mode {FOLDER_MODE:04o}): it was missing", folder.display()));
        }
        result
    }

    /// Takes the rights of group and others off password files that are the broker's own.
    pub(super) fn protect(&mut self, wanted: &[Wanted]) {
        let owner = self.request.owner.map_or_else(|| nix::unistd::geteuid().as_raw(), |(uid, _)| uid);
        for one in wanted.iter().filter(|one| one.role == Role::PasswordFile) {
            let path = absolute(&one.path);
            let Found::File(facts) = observe(&self.anchor, self.request, &path) else { continue };
            // In a dry run its owner was not corrected, but would have been.
            let ours = facts.uid == owner || (self.request.dry_run && self.anchor.holds(&path));
            if facts.mode.trailing_zeros() >= OTHERS_BITS || facts.links > 1 || !ours {
                continue;
            }
            let result = if self.request.dry_run { Ok(true) } else { self.narrow(&path, owner) };
            match result {
                Ok(true) => self.did(format!("mode of '{}' changed to 0600 (rw-------)", path.display())),
                Ok(false) => {}
                Err(error) => self.failures.add(&self.top(&path), Failed::Mode, errno(&error), &path),
            }
        }
    }

    fn narrow(&self, path: &Path, owner: u32) -> io::Result<bool> {
        let place = self.anchor.locate(path)?;
        as_allowed(self.request.owner, || place.base.change_mode(&place.relative, 0o600, |facts| facts.uid == owner && facts.links == 1))
    }

    /// Says where the broker will not be able to do its work, after everything that could be mended is.
    pub(super) fn judge(&mut self, wanted: &[Wanted]) {
        if self.request.dry_run {
            return;
        }
        for one in wanted.iter().filter(|one| one.named) {
            let path = absolute(&one.path);
            let Ok(place) = self.anchor.locate(&path) else { continue };
            let Ok(facts) = as_allowed(self.request.owner, || place.base.facts(&place.relative)) else { continue };
            match (one.role, facts.kind) {
                (Role::DataFolder | Role::LogFolder, Kind::Folder) => {
                    if place.base.is_immutable(&place.relative) {
                        let (shown, word) = (path.display(), one.role.word());
                        self.say(format!("'{shown}' ({word}) is immutable, nothing can be written there: chattr -i it on the host"));
                    } else if !self.may(&path, &facts, AccessFlags::W_OK | AccessFlags::X_OK) {
                        self.say_forbidden(one, &path, &facts, "may not write there");
                    }
                }
                // PID 1 as root reads files for the broker, so only without root does it matter whose they are.
                (Role::Config | Role::PasswordFile | Role::AclFile, Kind::File)
                    if self.request.owner.is_none() && !self.may(&path, &facts, AccessFlags::R_OK) =>
                {
                    self.say_forbidden(one, &path, &facts, "may not read it");
                    if one.role == Role::PasswordFile {
                        self.substitutes.insert(one.path.clone(), Vec::new());
                    }
                }
                _ => {}
            }
        }
    }

    fn may(&self, path: &Path, facts: &Facts, wish: AccessFlags) -> bool {
        match self.request.owner {
            Some((uid, gid)) => may(uid, gid, wish.bits() as u32, facts.uid, facts.gid, facts.mode),
            None => nix::unistd::access(path, wish).is_ok(),
        }
    }

    fn say_forbidden(&mut self, wanted: &Wanted, path: &Path, facts: &Facts, what: &str) {
        let (uid, gid) = self.request.owner.unwrap_or_else(|| (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()));
        self.say(format!(
            "'{}' ({}) belongs to {}:{} (mode {:04o}) and the broker runs as {uid}:{gid}, which {what}: \
             run chown -R {uid}:{gid} on the host, on what is mounted",
            path.display(),
            wanted.role.word(),
            facts.uid,
            facts.gid,
            facts.mode
        ));
    }

    /// The folder that a failure is counted under: the mount directly below the root, or the folder of a path elsewhere.
    pub(super) fn top(&self, path: &Path) -> PathBuf {
        let root = &self.request.root;
        match path.strip_prefix(root).ok().and_then(|relative| relative.components().next()) {
            Some(first) if root.join(first) != path => root.join(first),
            Some(_) => root.clone(),
            None => path.parent().unwrap_or(path).to_owned(),
        }
    }

    pub(super) fn report(mut self) -> Report {
        let mut lines = vec!["[IOTstack] begin self-repair".to_owned()];
        let untold = self.changes - self.actions.len();
        lines.append(&mut self.actions);
        if untold > 0 {
            lines.push(format!("… and {untold} more changes"));
        }
        let told: Vec<_> = self.failures.sentences().collect();
        for (is_problem, sentence) in told {
            if is_problem {
                self.say(sentence);
            } else {
                lines.push(format!("repair: note: {sentence}"));
            }
        }
        lines.extend(self.problems.iter().map(|problem| format!("repair: {problem}")));
        if !self.complete {
            lines.push("repair: note: paused after its time budget; `darner repair --full` looks at the rest".to_owned());
        }
        lines.push("[IOTstack] end self-repair".to_owned());
        Report {
            lines,
            problems: self.problems,
            substitutes: self.substitutes.into_iter().collect(),
            secrets: self.secrets,
            changes: self.changes,
            complete: self.complete,
        }
    }
}

pub(super) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(nix::errno::Errno::EIO as i32)
}

pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
