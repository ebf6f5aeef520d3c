//! The file of the store and who writes it: frames are appended, and now and then all is written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::frames::{FRAME_BYTES_FULL, Frame, HEADER_BYTES};
use super::journal::{set_aside, weight};
use super::rewrite::{self, Rewrite, beside, lock};
use super::squeeze::squeeze;
use super::{Level, Options, State};
use crate::broker::Record;
use crate::notice::Notice;

/// A file smaller than this is not written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Records of this weight may wait for a disk that takes nothing; with more, all is written anew when it takes something again.
const UNWRITTEN_BYTES_MAX: u64 = 16 << 20;
/// How often to look whether the disk has what is written anew.
const FLUSHING: Duration = Duration::from_millis(20);
/// Writing all anew is tried again after so many times as long as the attempt took, so that a full disk is not kept busy with it.
const PAUSE: u32 = 10;

pub(super) struct Writer {
    pub(super) options: Options,
    pub(super) path: PathBuf,
    /// Open for appending; `None`: all has to be written anew before anything can be appended.
    file: Option<File>,
    /// Bytes of it that are whole frames.
    len: u64,
    /// Its length when it was last written anew, or what it would be.
    base: u64,
    /// What the records so far add up to.
    state: State,
    /// Records that `file` did not take, in their order.
    unwritten: Vec<Record>,
    /// All is being written anew.
    rewrite: Option<Rewrite>,
    /// The file is a mount: nothing can take its place.
    in_place: bool,
    /// What the file holds was not read: it is not overwritten before it has been set aside.
    pub(super) in_the_way: bool,
    /// Writing all anew failed: it is not tried before this.
    pause_until: Option<Instant>,
    changes: u64,
    saved_at: Instant,
    /// A snapshot was to be saved and was not.
    save_owed: bool,
    pub(super) say: Box<dyn Fn(&Notice) + Send>,
}

impl Writer {
    pub(super) fn new(options: Options, path: PathBuf, state: State, say: Box<dyn Fn(&Notice) + Send>) -> Self {
        Self {
            options,
            path,
            file: None,
            len: 0,
            base: 0,
            state,
            unwritten: Vec::new(),
            rewrite: None,
            in_place: false,
            in_the_way: false,
            pause_until: None,
            changes: 0,
            saved_at: Instant::now(),
            save_owed: false,
            say,
        }
    }

    /// Makes a batch safe. After an error all is to be tried again with nothing.
    pub(super) fn write(&mut self, mut records: Vec<Record>, save: bool, ends: bool) -> io::Result<()> {
        self.changes += records.len() as u64;
        // Those that were missed are part of the state already.
        let missed = self.unwritten.len();
        if missed > 0 {
            self.unwritten.append(&mut records);
            records = std::mem::take(&mut self.unwritten);
        }
        let changed = !records.is_empty();
        let appended = if self.options.level == Level::Snapshot { Ok(()) } else { self.append(&records) };
        if let Err(error) = appended {
            records.iter().skip(missed).for_each(|record| self.state.apply(record.clone()));
            self.take_back(records);
            // A file of old values may shrink when it is written anew.
            return if missed > 0 && self.len > REWRITE_BYTES_MIN { self.rewrite_or_wait(ends, error) } else { Err(error) };
        }
        records.drain(missed..).for_each(|record| self.state.apply(record));
        if self.options.level == Level::Snapshot {
            return self.save_if_due(save, ends);
        }
        if self.file.is_none() {
            return self.rewrite_or_wait(ends, io::ErrorKind::StorageFull.into());
        }
        if save {
            (self.say)(&Notice::Saving { path: self.path.display().to_string() });
        }
        if let Some(file) = self.file.as_ref().filter(|_| save || ends || (changed && self.options.level == Level::Power))
            && let Err(error) = file.sync_data()
        {
            // What of it is on the disk cannot be known any more: the kernel forgets what it could not write.
            self.file = None;
            return Err(error);
        }
        if ends {
            self.give_up_rewrite();
            return Ok(());
        }
        self.go_on_rewriting()
    }

    /// What is appended is safe, whatever comes of this; an error is one of the file itself.
    fn go_on_rewriting(&mut self) -> io::Result<()> {
        if let Some(rewrite) = &mut self.rewrite {
            return match rewrite.go_on(&self.state, self.options.zero) {
                Ok(true) => self.finish_rewrite(),
                Ok(false) => Ok(()),
                Err(_) => {
                    self.give_up_rewrite();
                    Ok(())
                }
            };
        }
        if self.len <= REWRITE_BYTES_MIN || self.len <= 3 * self.base {
            return Ok(());
        }
        if !self.in_place {
            match Rewrite::begin(&self.path) {
                Ok(rewrite) => self.rewrite = Some(rewrite),
                Err(error) if is_of_the_folder(&error) => self.in_place = true,
                Err(_) => self.base = self.len / 2,
            }
        }
        let overwritten = if self.in_place { self.overwrite() } else { Ok(()) };
        if overwritten.is_err() && self.file.is_some() {
            self.base = self.len / 2;
            return Ok(());
        }
        overwritten
    }

    fn give_up_rewrite(&mut self) {
        if let Some(rewrite) = self.rewrite.take() {
            rewrite.give_up();
            // A disk without room for all of it may have some when there is half as much again.
            self.base = self.len / 2;
        }
    }

    fn finish_rewrite(&mut self) -> io::Result<()> {
        let Some(rewrite) = self.rewrite.take() else { return Ok(()) };
        match rewrite.take_place(&self.path, self.options.level == Level::Power) {
            Ok((file, len)) => self.adopt_renamed(file, len),
            Err(error) => {
                let _ = std::fs::remove_file(beside(&self.path));
                self.in_place |= error.kind() == io::ErrorKind::ResourceBusy;
                self.base = self.len / 2;
                Ok(())
            }
        }
    }

    /// Where the file is, all of it at once: batches wait.
    fn overwrite(&mut self) -> io::Result<()> {
        let written = rewrite::write_in_place(&self.path, &self.state, self.options.zero);
        let written = written.and_then(|()| OpenOptions::new().append(true).open(&self.path));
        match written.and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((len, file)) => {
                self.adopt(file, len);
                Ok(())
            }
            Err(error) => {
                if !std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.len() == self.len) {
                    self.file = None;
                }
                Err(error)
            }
        }
    }

    /// Goes on with a file that was renamed to be ours; where that may not last, all is written anew before anything else.
    fn adopt_renamed(&mut self, file: File, len: u64) -> io::Result<()> {
        self.file = None;
        self.sync_folder()?;
        self.adopt(file, len);
        Ok(())
    }

    /// Goes on with a file that was written anew.
    fn adopt(&mut self, file: File, len: u64) {
        (self.len, self.base) = (len, len);
        lock(&file);
        self.file = Some(file);
    }

    /// Makes a renaming last.
    fn sync_folder(&self) -> io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = File::open(folder);
        if self.options.level != Level::Process {
            return folder?.sync_all();
        }
        if let Ok(folder) = folder {
            // Nobody waits for what a power cut takes.
            drop(std::thread::Builder::new().name("flush".into()).spawn(move || drop(folder.sync_all())));
        }
        Ok(())
    }

    /// How long there is nothing to be done without new records; `None`: as long as they don't come.
    pub(super) fn rest(&self) -> Option<Duration> {
        self.rewrite.as_ref().map(|rewrite| if rewrite.is_flushing() { FLUSHING } else { Duration::ZERO })
    }

    /// After an append that failed: what was written of it goes, so that the file is whole and can be appended to later.
    fn take_back(&mut self, records: Vec<Record>) {
        let is_whole = self.file.as_ref().is_some_and(|file| file.set_len(self.len).is_ok());
        if is_whole && records.iter().map(weight).sum::<u64>() <= UNWRITTEN_BYTES_MAX {
            self.unwritten = records;
        } else {
            self.file = None;
        }
    }

    /// `error`: why it has to be.
    fn rewrite_or_wait(&mut self, ends: bool, error: io::Error) -> io::Result<()> {
        if self.pause_until.is_some_and(|until| Instant::now() < until) && !ends {
            return Err(error);
        }
        let began = Instant::now();
        let rewritten = self.rewrite();
        self.pause_until = rewritten.is_err().then(|| Instant::now() + began.elapsed() * PAUSE);
        rewritten
    }

    fn autosave_is_due(&self) -> bool {
        let interval = u64::from(self.options.autosave_interval_secs);
        if interval == 0 || self.changes == 0 {
            return false;
        }
        if self.options.autosave_on_changes { self.changes >= interval } else { self.saved_at.elapsed() >= Duration::from_secs(interval) }
    }

    /// At the level `snapshot`. One that failed is tried again until it has not.
    fn save_if_due(&mut self, asked: bool, ends: bool) -> io::Result<()> {
        let is_due = asked || (ends && self.changes > 0) || self.autosave_is_due();
        if is_due {
            // One that failed stays due where changes are counted, and is no other one for that.
            if asked || !self.save_owed {
                (self.say)(&Notice::Saving { path: self.path.display().to_string() });
                self.pause_until = None;
            }
            self.saved_at = Instant::now();
            self.save_owed = true;
        }
        if !self.save_owed {
            return Ok(());
        }
        self.rewrite_or_wait(ends, io::ErrorKind::StorageFull.into())?;
        self.save_owed = false;
        Ok(())
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let needed = squeeze(records);
        if needed.is_empty() {
            return Ok(());
        }
        let mut frame = Frame::new(self.options.zero);
        let mut len = self.len;
        let mut twin = Ok(());
        let mut put = |bytes: Option<Vec<u8>>| -> io::Result<()> {
            let Some(bytes) = bytes else { return Ok(()) };
            len += bytes.len() as u64;
            file.write_all(&bytes)?;
            if let Some(rewrite) = self.rewrite.as_mut().filter(|_| twin.is_ok()) {
                twin = rewrite.add(&bytes);
            }
            Ok(())
        };
        let appended = needed.into_iter().try_for_each(|record| put(frame.add(record, FRAME_BYTES_FULL)));
        let appended = appended.and_then(|()| put(frame.rest()));
        if appended.is_err() || twin.is_err() {
            self.give_up_rewrite();
        }
        appended?;
        self.len = len;
        Ok(())
    }

    /// Writes all anew at once, beside the file and then in its place, or in a file that cannot be replaced (a mount of its own, a
    /// folder that takes no other) where it is.
    pub(super) fn rewrite(&mut self) -> io::Result<()> {
        self.make_way()?;
        match if self.in_place { None } else { self.replace()? } {
            Some(file) => {
                let len = file.metadata()?.len();
                self.adopt_renamed(file, len)?;
            }
            None => self.overwrite()?,
        }
        self.unwritten = Vec::new();
        self.changes = 0;
        Ok(())
    }

    /// Sets aside what must not be overwritten.
    fn make_way(&mut self) -> io::Result<()> {
        if self.in_the_way {
            let unread =
                |error: io::Error| io::Error::new(error.kind(), format!("what it holds was not read and cannot be set aside: {error}"));
            let aside = set_aside(&self.path).map_err(unread)?;
            (self.say)(&Notice::StoreSetAside { path: self.path.display().to_string(), aside: aside.display().to_string() });
            self.in_the_way = false;
        }
        Ok(())
    }

    /// `None`: it cannot be replaced.
    fn replace(&mut self) -> io::Result<Option<File>> {
        self.give_up_rewrite();
        match rewrite::write_beside(&self.path, &self.state, self.options.zero) {
            Ok(file) => match std::fs::rename(beside(&self.path), &self.path) {
                Ok(()) => Ok(Some(file)),
                Err(error) => {
                    let _ = std::fs::remove_file(beside(&self.path));
                    self.in_place = error.kind() == io::ErrorKind::ResourceBusy;
                    if self.in_place { Ok(None) } else { Err(error) }
                }
            },
            Err(error) if self.path.exists() && is_of_the_folder(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new file, or one whose contents are already in `state`.
    pub(super) fn begin(&mut self, whole: Option<u64>) -> io::Result<()> {
        let Some(len) = whole.filter(|len| *len >= HEADER_BYTES) else {
            let made = self.rewrite();
            self.save_owed = made.is_err();
            return made;
        };
        // What cannot be removed does no harm until all is to be written anew.
        let _ = rewrite::clear(&beside(&self.path));
        let file = OpenOptions::new().append(true).open(&self.path)?;
        file.set_len(len)?;
        // Restarts must not let a file of old values grow and grow.
        (self.len, self.base) = (len, len.min(self.state.weight()));
        lock(&file);
        self.file = Some(file);
        Ok(())
    }

    /// Lets others see that the file has a broker, which will write to it by and by.
    pub(super) fn hold(&mut self) {
        self.file = File::open(&self.path).ok().inspect(lock);
    }
}

/// No file can be made where ours is, which may be writable all the same.
fn is_of_the_folder(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_save_that_failed_is_begun_again_after_its_pause_or_when_somebody_asks_and_is_told_once() {
        let folder = nix::unistd::mkdtemp("/tmp/darner-writer-XXXXXX").expect("a folder");
        let path = folder.join("not there").join("store");
        let options = Options { path, level: Level::Snapshot, autosave_interval_secs: 1, autosave_on_changes: true, zero: 0, import: None };
        let told = Arc::new(AtomicUsize::new(0));
        let counts = Arc::clone(&told);
        let say = move |notice: &Notice| {
            counts.fetch_add(usize::from(matches!(notice, Notice::Saving { .. })), Ordering::Relaxed);
        };
        let mut writer = Writer::new(options.clone(), options.path, State::default(), Box::new(say));
        let change = || vec![Record::RetainedCleared { topic: "t".into() }];
        assert!(writer.write(change(), false, false).is_err() && writer.pause_until.is_some());
        // A disk that took a minute to fail.
        let pause = Some(Instant::now() + Duration::from_secs(600));
        writer.pause_until = pause;
        for _ in 0..3 {
            assert!(writer.write(change(), false, false).is_err());
            assert_eq!(writer.pause_until, pause);
        }
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(writer.write(Vec::new(), true, false).is_err() && writer.pause_until < pause);
        assert_eq!(told.load(Ordering::Relaxed), 2, "he sees that it was tried");
        std::fs::create_dir(writer.path.parent().expect("a folder")).expect("ours");
        writer.pause_until = None;
        assert!(writer.write(Vec::new(), false, false).is_ok() && !writer.save_owed);
        std::fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn a_store_that_could_not_be_made_at_the_start_is_owed() {
        let folder = nix::unistd::mkdtemp("/tmp/darner-writer-XXXXXX").expect("a folder");
        let path = folder.join("not there").join("store");
        let options =
            Options { path, level: Level::Snapshot, autosave_interval_secs: 0, autosave_on_changes: false, zero: 0, import: None };
        let mut writer = Writer::new(options.clone(), options.path, State::default(), Box::new(|_| {}));
        assert!(writer.begin(None).is_err());
        assert!(writer.write(Vec::new(), false, false).is_err(), "nothing has changed, and still it is not there");
        std::fs::create_dir(writer.path.parent().expect("a folder")).expect("ours");
        writer.pause_until = None;
        assert!(writer.write(Vec::new(), false, false).is_ok() && writer.path.exists());
        std::fs::remove_dir_all(folder).expect("ours");
    }
}
