//! The store that lasts: the driver's end of it, and the thread that writes.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::frames::{self, Found};
use super::writer::Writer;
use super::{Level, Options, Progress, State, Store};
use crate::broker::Record;
use crate::notice::Notice;

/// Records that nobody waits for are written together, so late at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// A steady stream of nothing but retained values that nobody waits for is written so often: each write costs a card some pages more
/// than its bytes.
const GATHER: Duration = Duration::from_secs(30);
/// So many writes may come sooner, once it was quiet for long enough.
const SOON_MAX: u32 = 20;
/// More than this, and the broker stops reading until it is written.
const BEHIND_BYTES: u64 = 64 << 20;
/// A record costs so much besides its payload, roughly.
const RECORD_BYTES: u64 = 200;

/// What a damaged file is called: this and a date follow its name.
const DAMAGED: &str = ".damaged-";
/// So many of them are kept.
const DAMAGED_MAX: usize = 5;

#[derive(Default)]
struct Inbox {
    records: Vec<Record>,
    /// Records handed over since the beginning.
    count: u64,
    /// Somebody waits.
    hurry: bool,
    /// There is more than retained values.
    soon: bool,
    save: bool,
    ends: bool,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    bell: Condvar,
    stored: AtomicU64,
    failing: AtomicBool,
    ended: AtomicBool,
    waiting_bytes: AtomicU64,
}

/// Appends batches to a file, on a thread of its own.
pub struct Journal {
    level: Level,
    batch: Vec<Record>,
    count: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

pub(super) fn weight(record: &Record) -> u64 {
    let payload = match record {
        Record::Retained { message } | Record::Received { message, .. } => message.payload.len(),
        Record::Queued { delivery, .. } => delivery.message.payload.len(),
        _ => 0,
    };
    RECORD_BYTES + payload as u64
}

impl Store for Journal {
    fn append(&mut self, record: Record) {
        self.batch.push(record);
        self.count += 1;
    }

    fn commit(&mut self, awaited: bool) {
        let bytes = self.batch.iter().map(weight).sum();
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let soon = self.batch.iter().any(|record| !matches!(record, Record::Retained { .. } | Record::RetainedCleared { .. }));
        self.tell(|inbox, batch, count| {
            inbox.records.append(batch);
            inbox.count = count;
            inbox.soon |= soon;
            inbox.hurry |= awaited || waiting > BEHIND_BYTES / 8;
        });
    }

    fn progress(&self) -> Progress {
        let stored = if self.level == Level::Snapshot { self.count } else { self.shared.stored.load(Ordering::Acquire) };
        let is_failing = self.shared.failing.load(Ordering::Acquire);
        Progress {
            stored,
            failing: is_failing && self.level != Level::Snapshot,
            is_unsaved: is_failing && self.level == Level::Snapshot,
            has_ended: self.shared.ended.load(Ordering::Acquire),
            is_behind: self.shared.waiting_bytes.load(Ordering::Relaxed) > BEHIND_BYTES,
        }
    }

    fn save(&mut self) {
        self.tell(|inbox, _, _| inbox.save = true);
    }

    fn close(&mut self) {
        self.tell(|inbox, batch, count| {
            inbox.records.append(batch);
            inbox.count = count;
            inbox.ends = true;
        });
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Journal {
    fn tell(&mut self, change: impl FnOnce(&mut Inbox, &mut Vec<Record>, u64)) {
        let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut inbox, &mut self.batch, self.count);
        if inbox.hurry || inbox.save || inbox.ends {
            self.shared.bell.notify_one();
        }
    }

    /// Reads what is there, moves aside what is damaged, and starts the thread. A place that cannot be written to is tried again and
    /// again. `wake` is called from the thread whenever [`Store::progress`] says something new.
    pub fn open(options: Options, say: Box<dyn Fn(&Notice) + Send>, wake: Box<dyn Fn() + Send>) -> (Self, State) {
        let mut state = State::default();
        let path = options.path.clone();
        let begins = read(&path, &options, &mut state, &*say);
        match &options.import {
            Some(source) if begins == Begins::Anew => source.take_over(&mut state, &path, &*say),
            Some(source) => source.compare(&path, &*say),
            None => {}
        }
        let whole = if let Begins::From { len } = begins { Some(len) } else { None };
        let level = options.level;
        let mut writer = Writer::new(options, path, state.clone(), say);
        writer.in_the_way = begins == Begins::Again { is_in_the_way: true };
        let shared = Arc::new(Shared::default());
        // A store that is not there yet is made at once, at each level: it holds the lock by which `darner db` sees that there is a broker.
        if level != Level::Snapshot || whole.is_none() {
            let begun = writer.begin(whole);
            note(&shared, &writer, begun.as_ref().err());
        } else {
            writer.hold();
        }
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
            let alarm = Alarm { shared: &theirs, wake: &*wake };
            work(&theirs, &mut writer, alarm.wake);
        });
        let thread = thread.ok();
        if thread.is_none() {
            // Nobody writes: what would have to be kept is refused instead of waiting for ever.
            shared.failing.store(true, Ordering::Release);
        }
        (Self { level, batch: Vec::new(), count: 0, shared, thread }, state)
    }
}

/// Rings when the thread panics: what waits for it would wait for ever.
struct Alarm<'a> {
    shared: &'a Shared,
    wake: &'a dyn Fn(),
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.failing.store(true, Ordering::Release);
            self.shared.ended.store(true, Ordering::Release);
            (self.wake)();
        }
    }
}

/// Says when it begins to fail, and when that is over.
fn note(shared: &Shared, writer: &Writer, error: Option<&std::io::Error>) {
    let was_failing = shared.failing.swap(error.is_some(), Ordering::AcqRel);
    let path = || writer.path.display().to_string();
    match error {
        Some(error) if !was_failing && writer.options.level == Level::Snapshot => {
            (writer.say)(&Notice::SaveFailing { path: path(), reason: error.to_string() });
        }
        Some(error) if !was_failing => (writer.say)(&Notice::StoreFailing { path: path(), reason: error.to_string() }),
        None if was_failing => (writer.say)(&Notice::StoreRecovered { path: path() }),
        _ => {}
    }
}

/// How often what can wait is written: once in [`GATHER`], and [`SOON_MAX`] times sooner.
struct Pace {
    left: u32,
    since: Instant,
}

impl Pace {
    fn may_write(&mut self, now: Instant) -> bool {
        let earned = (now.saturating_duration_since(self.since).as_secs() / GATHER.as_secs()) as u32;
        self.since += GATHER * earned;
        self.left = self.left.saturating_add(earned).min(SOON_MAX);
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

fn work(shared: &Shared, writer: &mut Writer, wake: &dyn Fn()) {
    let mut pace = Pace { left: SOON_MAX, since: Instant::now() };
    loop {
        let inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting =
            |inbox: &mut Inbox| !(inbox.hurry || inbox.save || inbox.ends) || (shared.failing.load(Ordering::Acquire) && !inbox.ends);
        let (mut inbox, _) =
            shared.bell.wait_timeout_while(inbox, writer.rest().unwrap_or(PATIENCE), waiting).unwrap_or_else(PoisonError::into_inner);
        let can_wait = !(inbox.hurry || inbox.soon || inbox.save || inbox.ends || inbox.records.is_empty());
        let is_busy = writer.rest().is_some() || shared.failing.load(Ordering::Acquire);
        if can_wait && !is_busy && writer.options.level != Level::Snapshot && !pace.may_write(Instant::now()) {
            continue;
        }
        let taken = Inbox { records: std::mem::take(&mut inbox.records), ..*inbox };
        (inbox.hurry, inbox.soon, inbox.save) = (false, false, false);
        drop(inbox);
        let bytes: u64 = taken.records.iter().map(weight).sum();
        let was_failing = shared.failing.load(Ordering::Acquire);
        let idle = taken.records.is_empty() && !taken.save && !taken.ends && !was_failing && writer.rest().is_none();
        if !idle || writer.options.level == Level::Snapshot {
            let written = writer.write(taken.records, taken.save, taken.ends);
            note(shared, writer, written.as_ref().err());
            shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            if written.is_ok() {
                shared.stored.store(taken.count, Ordering::Release);
            }
            wake();
        }
        if taken.ends {
            return;
        }
    }
}

/// What a store begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begins {
    /// Nothing was there.
    Anew,
    /// A file of this length, which can go on being used as it is.
    From { len: u64 },
    /// What could be read of a file that cannot. `is_in_the_way`: there may be more to it, and it could not be set aside.
    Again { is_in_the_way: bool },
}

/// Reads the file into `state`.
fn read(path: &Path, options: &Options, state: &mut State, say: &dyn Fn(&Notice)) -> Begins {
    let mut file = match frames::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Begins::Anew,
        Err(error) => {
            // A folder, such as Docker makes for a file that is not there, or a pipe: nothing was ever kept in it.
            let was_file = path.metadata().is_ok_and(|metadata| metadata.is_file());
            let aside = set_aside(path);
            let is_in_the_way = aside.is_err();
            say(&Notice::StoreUnreadable { path: path.display().to_string(), reason: error.to_string(), aside: told(aside) });
            return if was_file || is_in_the_way { Begins::Again { is_in_the_way } } else { Begins::Anew };
        }
    };
    if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
        return Begins::Anew;
    }
    let (what, at, is_read) = match frames::read(&mut file, options.zero, state) {
        Ok(Found::Whole { len }) => return Begins::From { len },
        Ok(Found::Unfinished) => return Begins::Anew,
        Ok(Found::Newer) => ("was written by a later version of darner", 0, false),
        Ok(Found::Older) => ("was written by a version of darner before the first release", 0, false),
        // What is left of it nobody can read.
        Ok(Found::Damaged { at, is_ours }) => ("is damaged", at, is_ours),
        Err(_) => ("cannot be read to its end", 0, false),
    };
    let aside = set_aside(path);
    let is_in_the_way = aside.is_err() && !is_read;
    say(&Notice::StoreDamaged {
        path: path.display().to_string(),
        what,
        at,
        sessions: state.sessions.len(),
        retained: state.retained.len(),
        aside: told(aside),
    });
    Begins::Again { is_in_the_way }
}

fn told(aside: std::io::Result<PathBuf>) -> String {
    aside.map_or_else(|error| format!("could not be set aside ({error})"), |path| format!("is now {}", path.display()))
}

/// Under a dated name; a file that is a mount is copied. Of those from before, the newest stay.
pub(super) fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let named = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let date = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let aside = (1..100).map(|n| named(&format!("{DAMAGED}{date}{}", if n == 1 { String::new() } else { format!("-{n:02}") })));
    let aside = aside.into_iter().find(|name| !name.exists()).ok_or(std::io::ErrorKind::AlreadyExists)?;
    if std::fs::rename(path, &aside).is_err()
        && let Err(error) = copy(path, &aside)
    {
        // Half a copy is of no use to anybody.
        let _ = std::fs::remove_file(&aside);
        return Err(error);
    }
    forget_oldest(path);
    Ok(aside)
}

/// Of a file; what else may be there is not waited for.
fn copy(path: &Path, aside: &Path) -> std::io::Result<()> {
    let mut file = frames::open(path)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(aside)?;
    std::io::copy(&mut file, &mut copy)?;
    Ok(())
}

fn forget_oldest(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let beginning = format!("{}{DAMAGED}", name.to_string_lossy());
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let is_ours = |entry: &std::fs::DirEntry| {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        is_file
            && entry
                .file_name()
                .to_string_lossy()
                .strip_prefix(&beginning)
                .is_some_and(|date| date.starts_with(|c: char| c.is_ascii_digit()))
    };
    // Dates sort by age.
    let mut old: Vec<PathBuf> = entries.flatten().filter(is_ours).map(|entry| entry.path()).collect();
    old.sort_unstable();
    for old in old.iter().rev().skip(DAMAGED_MAX) {
        let _ = std::fs::remove_file(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_wait_is_written_soon_until_it_is_a_steady_stream() {
        let start = Instant::now();
        let mut pace = Pace { left: SOON_MAX, since: start };
        let mut written_within = |from: u64, to: u64| (from..to).filter(|secs| pace.may_write(start + Duration::from_secs(*secs))).count();
        assert_eq!(written_within(0, 20), 20);
        assert_eq!(written_within(20, 3_620), 120);
        assert_eq!(written_within(86_400, 86_430), 20, "it was quiet for a day");
    }

    #[test]
    fn a_panic_of_the_thread_is_heard_of() {
        let folder = nix::unistd::mkdtemp("/tmp/darner-journal-XXXXXX").expect("a folder");
        let (bell, heard) = std::sync::mpsc::channel();
        let path = folder.join("store");
        let options = Options { path, level: Level::Process, autosave_interval_secs: 0, autosave_on_changes: false, zero: 0, import: None };
        let say = |notice: &Notice| assert!(!matches!(notice, Notice::Saving { .. }), "a test's panic");
        let (mut journal, _) = Journal::open(options, Box::new(say), Box::new(move || bell.send(()).unwrap_or_default()));
        assert!(!journal.progress().has_ended);
        journal.save();
        heard.recv_timeout(Duration::from_secs(10)).expect("it wakes who waits");
        assert!(journal.progress().has_ended && journal.progress().failing);
        journal.close();
        std::fs::remove_dir_all(folder).expect("ours");
    }
}
