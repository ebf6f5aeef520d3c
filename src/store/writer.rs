//! The file of the store and who writes it: frames are appended, and now and then all is written anew.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::frames::{self, FRAME_BYTES_FULL, Frame, HEADER_BYTES};
use super::journal::weight;
use super::squeeze::squeeze;
use super::{Level, Options, State};
use crate::broker::Record;
use crate::notice::Notice;

/// A file smaller than this is not written anew.
const REWRITE_BYTES_MIN: u64 = 1 << 20;
/// Bytes of one frame when all is written anew: nothing of that file counts before the whole of it does.
const REWRITE_FRAME_BYTES: usize = 1 << 20;
/// Records of this weight may wait for a disk that takes nothing; with more, all is written anew when it takes something again.
const UNWRITTEN_BYTES_MAX: u64 = 16 << 20;
/// Writing all anew is tried again after so many times as long as the attempt took, so that a full disk is not kept busy with it.
const PAUSE: u32 = 10;

pub(super) struct Writer {
    pub(super) options: Options,
    pub(super) path: PathBuf,
    /// Open for appending; `None`: all has to be written anew before anything can be appended.
    file: Option<File>,
    /// Bytes of it that are whole frames.
    len: u64,
    /// Its length when it was last written anew.
    base: u64,
    /// What the records so far add up to.
    state: State,
    /// Records that `file` did not take, in their order.
    unwritten: Vec<Record>,
    /// Writing all anew failed: it is not tried before this.
    pause_until: Option<Instant>,
    changes: u64,
    saved_at: Instant,
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
            pause_until: None,
            changes: 0,
            saved_at: Instant::now(),
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
            return if save || (ends && self.changes > 0) || self.autosave_is_due() { self.save() } else { Ok(()) };
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
        if self.len > REWRITE_BYTES_MIN && self.len > 3 * self.base {
            match self.rewrite_beside() {
                // The file itself was being overwritten.
                Err(error) if self.file.is_none() => return Err(error),
                // What is appended is safe already. A disk without room for all of it may have some when there is half as much again.
                Err(_) => self.base = self.len / 2,
                Ok(()) => {}
            }
        }
        Ok(())
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

    fn save(&mut self) -> io::Result<()> {
        (self.say)(&Notice::Saving { path: self.path.display().to_string() });
        self.saved_at = Instant::now();
        self.rewrite()
    }

    fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let needed = squeeze(records);
        if needed.is_empty() {
            return Ok(());
        }
        let mut frame = Frame::new(self.options.zero);
        let mut len = self.len;
        let mut put = |bytes: Option<Vec<u8>>| -> io::Result<()> {
            let Some(bytes) = bytes else { return Ok(()) };
            len += bytes.len() as u64;
            file.write_all(&bytes)
        };
        for record in needed {
            put(frame.add(record, FRAME_BYTES_FULL))?;
        }
        put(frame.rest())?;
        self.len = len;
        Ok(())
    }

    /// Writes all anew, beside the file and then in its place; a file that cannot be replaced (a mount of its own) is overwritten.
    pub(super) fn rewrite(&mut self) -> io::Result<()> {
        self.rewrite_beside()?;
        self.unwritten = Vec::new();
        self.changes = 0;
        Ok(())
    }

    fn rewrite_beside(&mut self) -> io::Result<()> {
        let beside = beside(&self.path);
        let written = self.write_all_to(&beside);
        if let Err(error) = written {
            let _ = std::fs::remove_file(&beside);
            return Err(error);
        }
        match std::fs::rename(&beside, &self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                // The copy beside it is whole until this one is, and nothing can be appended.
                self.file = None;
                self.write_all_to(&self.path.clone())?;
                let _ = std::fs::remove_file(&beside);
            }
            Err(error) => return Err(error),
        }
        if let Some(folder) = self.path.parent()
            && let Ok(folder) = File::open(folder)
        {
            let _ = folder.sync_all();
        }
        let file = OpenOptions::new().append(true).open(&self.path)?;
        self.len = file.metadata()?.len();
        self.base = self.len;
        self.file = Some(file);
        Ok(())
    }

    fn write_all_to(&self, path: &Path) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(&frames::header())?;
        let mut frame = Frame::new(self.options.zero);
        let mut outcome = Ok(());
        self.state.each_record(|record| {
            if outcome.is_ok()
                && let Some(bytes) = frame.add(&record, REWRITE_FRAME_BYTES)
            {
                outcome = file.write_all(&bytes);
            }
        });
        outcome?;
        if let Some(bytes) = frame.rest() {
            file.write_all(&bytes)?;
        }
        file.sync_all()
    }

    /// A new file, or one whose contents are already in `state`.
    pub(super) fn begin(&mut self, whole: Option<u64>) -> io::Result<()> {
        let Some(len) = whole.filter(|len| *len >= HEADER_BYTES) else { return self.rewrite() };
        // A copy that a crash left is older than the file, and must not be taken for its whole one when the file is damaged later.
        match std::fs::remove_file(beside(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().append(true).open(&self.path)?;
        (self.len, self.base) = (len, len);
        self.file = Some(file);
        Ok(())
    }
}

/// Where all is written anew before it takes the file's place.
pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}
