//! All written anew, beside the file or behind its end.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::State;
use super::frames::{self, Frame, HEADER_BYTES};
use crate::broker::Place;

/// Bytes of a frame, about: a flipped bit costs what is in one.
const FRAME_BYTES: usize = 8 << 10;
/// Bytes that are written or copied at once where nobody waits for less.
const BUFFER_BYTES: usize = 1 << 20;
/// What a batch may have to wait for while all is written anew little by little.
const PIECE_BYTES: usize = 256 << 10;

/// All is written beside the file, a piece after each batch; batches go to both. When it has reached the end of the state and is on the
/// disk, it takes the file's place.
pub(super) struct Rewrite {
    path: PathBuf,
    file: File,
    len: u64,
    place: Place,
    flush: Option<JoinHandle<io::Result<()>>>,
}

/// Where all is written anew before it takes the file's place.
pub(super) const BESIDE: &str = ".new";

pub(super) fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(BESIDE);
    name.into()
}

/// What a crash left there goes.
pub(super) fn clear(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A new file there.
fn create(path: &Path) -> io::Result<File> {
    clear(path)?;
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    // Before it takes the place of one that was locked.
    lock(&file);
    file.write_all(&frames::header())?;
    Ok(file)
}

/// For `darner db`, which leaves a broker's file alone. Where a file system has no locks, nothing else depends on them.
pub(super) fn lock(file: &File) {
    let _ = file.try_lock_shared();
}

/// Every record of the state, in frames.
fn write_all(state: &State, zero: i64, file: &mut File) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut frame = Frame::new(zero);
    let mut outcome = Ok(());
    state.each_record(|record| {
        if outcome.is_ok()
            && let Some(bytes) = frame.add(&record, FRAME_BYTES)
        {
            outcome = file.write_all(&bytes);
        }
    });
    outcome?;
    frame.rest().map_or(Ok(()), |bytes| file.write_all(&bytes))?;
    file.flush()
}

/// A whole file, from its beginning.
pub(super) fn write_new(file: &mut File, state: &State, zero: i64) -> io::Result<()> {
    file.write_all(&frames::header())?;
    write_all(state, zero, file)
}

/// At once.
pub(super) fn write_beside(path: &Path, state: &State, zero: i64) -> io::Result<File> {
    let beside = beside(path);
    let written = create(&beside).and_then(|mut file| {
        write_all(state, zero, &mut file)?;
        file.sync_all()?;
        Ok(file)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// In a file that cannot be replaced: behind its end first, and over its beginning once that is whole. So a crash at any moment leaves
/// all of it, in one place or the other.
pub(super) fn write_in_place(path: &Path, state: &State, zero: i64) -> io::Result<()> {
    write_over(OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?, state, zero)
}

/// The same in a file that is open to be read and written.
pub(super) fn write_over(mut file: File, state: &State, zero: i64) -> io::Result<()> {
    let old = file.metadata()?.len();
    let mut head = [0; HEADER_BYTES as usize];
    if old <= HEADER_BYTES || file.read_exact_at(&mut head, 0).is_ok_and(|()| frames::is_unfinished(&head)) {
        return write_first(&mut file, state, zero);
    }
    file.seek(SeekFrom::End(0))?;
    let behind = |file: &mut File| {
        file.write_all(&frames::anew_begins())?;
        write_all(state, zero, file)?;
        file.write_all(&frames::anew_ends())?;
        file.sync_all()
    };
    if let Err(error) = behind(&mut file) {
        file.set_len(old)?;
        return Err(error);
    }
    let new = file.metadata()?.len() - old;
    if HEADER_BYTES + new <= old {
        file.write_all_at(&frames::header(), 0)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = 0;
        while done < new {
            let piece = buffer.get_mut(..BUFFER_BYTES.min((new - done) as usize)).unwrap_or_default();
            file.read_exact_at(piece, old + done)?;
            file.write_all_at(piece, HEADER_BYTES + done)?;
            done += piece.len() as u64;
        }
        file.sync_all()?;
        file.set_len(HEADER_BYTES + new)?;
    }
    Ok(())
}

/// Where nothing was: it counts as nothing until it is whole.
fn write_first(file: &mut File, state: &State, zero: i64) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(&frames::unfinished_header(), 0)?;
    file.seek(SeekFrom::Start(HEADER_BYTES))?;
    write_all(state, zero, file)?;
    file.sync_all()?;
    file.write_all_at(&frames::header(), 0)?;
    file.sync_all()
}

impl Rewrite {
    pub(super) fn begin(path: &Path) -> io::Result<Self> {
        let path = beside(path);
        let file = create(&path)?;
        Ok(Self { path, file, len: HEADER_BYTES, place: Place::default(), flush: None })
    }

    /// What a batch gave to the file.
    pub(super) fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.len += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    /// The disk has it all but for what was added of late; there is nothing to do until then.
    pub(super) fn is_flushing(&self) -> bool {
        self.flush.as_ref().is_some_and(|flush| !flush.is_finished())
    }

    /// One piece more; true when it can take the file's place.
    pub(super) fn go_on(&mut self, state: &State, zero: i64) -> io::Result<bool> {
        if let Some(flush) = self.flush.take_if(|flush| flush.is_finished()) {
            flush.join().unwrap_or_else(|_| Err(io::Error::other("the flush ended early")))?;
            return Ok(true);
        }
        if self.flush.is_some() {
            return Ok(false);
        }
        if self.place == Place::End {
            let file = self.file.try_clone()?;
            self.flush = Some(std::thread::Builder::new().name("flush".into()).spawn(move || file.sync_all())?);
            return Ok(false);
        }
        let mut frame = Frame::new(zero);
        let mut piece = Vec::new();
        state.records_from(&mut self.place, |record| {
            // Those of a session come one and all.
            piece.extend(frame.add(&record, FRAME_BYTES).into_iter().flatten());
            piece.len() < PIECE_BYTES
        });
        piece.extend(frame.rest().into_iter().flatten());
        self.add(&piece)?;
        Ok(false)
    }

    /// Puts it in the file's place. `is_synced`: what was added since the flush must be on the disk before, as it was in the file.
    pub(super) fn take_place(self, path: &Path, is_synced: bool) -> io::Result<(File, u64)> {
        if is_synced {
            self.file.sync_data()?;
        }
        std::fs::rename(&self.path, path)?;
        Ok((self.file, self.len))
    }

    pub(super) fn give_up(self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::Record;
    use crate::broker::message::Message;
    use crate::mqtt::{Properties, Qos};
    use crate::store::frames::Found;

    fn value(topic: usize, value: usize) -> Record {
        let message = Message {
            topic: format!("t/{topic}").into(),
            payload: format!("value {value}").into_bytes().into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: Properties::new(),
            expires_at: None,
            publisher: None,
        };
        Record::Retained { message: Arc::new(message) }
    }

    fn scratch(bytes: &[u8]) -> (PathBuf, File) {
        let (fd, path) = nix::unistd::mkstemp("/tmp/darner-rewrite-XXXXXX").expect("a file");
        let mut file = File::from(fd);
        file.write_all(bytes).expect("written");
        file.rewind().expect("a file");
        (path, file)
    }

    fn read(bytes: &[u8]) -> State {
        let (path, mut file) = scratch(bytes);
        std::fs::remove_file(path).expect("ours");
        let mut state = State::default();
        let found = frames::read(&mut file, 0, &mut state).expect("read");
        assert!(matches!(found, Found::Whole { .. } | Found::Damaged { is_ours: true, .. }), "{found:?}");
        state
    }

    /// A file of old values, its state, and one that it does not hold yet.
    fn outgrown() -> (Vec<u8>, State, State) {
        let (mut bytes, mut state) = (frames::header().to_vec(), State::default());
        for n in 0..40 {
            let record = value(n % 3, n);
            let mut frame = Frame::new(0);
            assert_eq!(frame.add(&record, usize::MAX), None);
            bytes.extend(frame.rest().expect("a record"));
            state.apply(record);
        }
        let mut young = state.clone();
        young.apply(value(3, 99));
        (bytes, state, young)
    }

    #[test]
    fn a_crash_at_any_byte_of_writing_anew_in_place_leaves_all_of_it_in_one_place_or_the_other() {
        let (old, state, young) = outgrown();
        let (path, _) = scratch(&old);
        write_in_place(&path, &young, 0).expect("written");
        let new = std::fs::read(&path).expect("a file");
        std::fs::remove_file(path).expect("ours");
        assert!(new.len() < old.len() / 2, "the end was cut off");
        assert!(read(&new) == young);
        let header = HEADER_BYTES as usize;
        let anew = &new[header..];
        for count in 0..anew.len() {
            let torn = [&old, &anew[..count]].concat();
            assert!(read(&torn) == state, "{count} bytes behind the end");
            let zeros = [&torn, vec![0; anew.len() - count].as_slice()].concat();
            assert!(read(&zeros) == state, "{count} bytes behind the end and zeros");
        }
        let whole = [old, anew.to_vec()].concat();
        assert!(read(&whole) == young);
        for count in 0..=anew.len() {
            let mut torn = whole.clone();
            torn[header..header + count].copy_from_slice(&anew[..count]);
            assert!(read(&torn) == young, "{count} bytes over the beginning");
        }
        // A disk writes sectors in any order.
        for pattern in 1..400_usize {
            let mut torn = whole.clone();
            for (n, sector) in anew.chunks(32).enumerate().filter(|(n, _)| pattern.wrapping_mul(2_654_435_761) >> (n % 24) & 1 == 1) {
                torn[header + n * 32..][..sector.len()].copy_from_slice(sector);
            }
            assert!(read(&torn) == young, "sectors {pattern}");
        }
    }

    #[test]
    fn a_file_cut_off_at_any_byte_is_what_its_whole_frames_add_up_to() {
        let (bytes, ..) = outgrown();
        let mut expected = State::default();
        let mut ends: Vec<(usize, State)> = vec![(HEADER_BYTES as usize, expected.clone())];
        let mut len = HEADER_BYTES as usize;
        for n in 0..40 {
            let mut frame = Frame::new(0);
            assert_eq!(frame.add(&value(n % 3, n), usize::MAX), None);
            len += frame.rest().expect("a record").len();
            expected.apply(value(n % 3, n));
            ends.push((len, expected.clone()));
        }
        assert_eq!(len, bytes.len());
        for cut in 0..=bytes.len() {
            let expected = ends.iter().rev().find(|(end, _)| *end <= cut).map(|(_, state)| state.clone()).unwrap_or_default();
            if cut > 0 {
                assert!(read(&bytes[..cut]) == expected, "{cut} bytes");
            }
        }
    }
}
