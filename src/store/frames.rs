//! Records as bytes: a file is a header and frames, a frame is a batch of records under a checksum.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use memchr::memmem;

use super::State;
use crate::broker::Record;

/// The file begins with this and a version.
const FILE: &[u8; 8] = b"darnerdb";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: u64 = 16;
/// A frame begins with this, its length and its checksum.
const FRAME: &[u8; 4] = b"\xdafr\xa0";
const FRAME_BYTES: usize = 12;
const FRAME_BYTES_MAX: u32 = 1 << 30;
/// A batch of more than this goes into several frames, since one more record, of a message of up to 256 MiB, must not make the frame longer
/// than the longest.
pub(super) const FRAME_BYTES_FULL: usize = 256 << 20;

/// How mosquitto's database begins.
const MOSQUITTO: &[u8] = b"\x00\xb5\x00mosquitto db";

pub(super) fn is_mosquittos(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOSQUITTO.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == MOSQUITTO
}

pub(super) fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(FILE);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// A frame that is being filled.
pub(super) struct Frame {
    bytes: Vec<u8>,
    zero: i64,
}

/// postcard wants to own what it extends.
struct Tail<'a>(&'a mut Vec<u8>);

impl Extend<u8> for Tail<'_> {
    fn extend<T: IntoIterator<Item = u8>>(&mut self, bytes: T) {
        self.0.extend(bytes);
    }
}

impl Frame {
    /// `zero` is the time of day at the machine's `Time(0)`, in milliseconds.
    pub(super) fn new(zero: i64) -> Self {
        let mut bytes = vec![0; FRAME_BYTES];
        bytes.extend_from_slice(&zero.to_le_bytes());
        Self { bytes, zero }
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_BYTES + size_of::<i64>()
    }

    fn push(&mut self, record: &Record) {
        let before = self.bytes.len();
        if postcard::to_extend(record, Tail(&mut self.bytes)).is_err() {
            // No type in a record can fail to be written.
            self.bytes.truncate(before);
        }
    }

    /// The bytes for the file; the frame is empty again.
    fn seal(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::replace(self, Self::new(self.zero)).bytes;
        let payload = bytes.get(FRAME_BYTES..).unwrap_or_default();
        let (len, sum) = (payload.len() as u32, crc32fast::hash(payload));
        bytes[..4].copy_from_slice(FRAME);
        bytes[4..8].copy_from_slice(&len.to_le_bytes());
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Adds a record; gives the bytes for the file when there are `full` of them.
    pub(super) fn add(&mut self, record: &Record, full: usize) -> Option<Vec<u8>> {
        self.push(record);
        (self.bytes.len() >= full).then(|| self.seal())
    }

    /// The bytes for the file, if there are records in it.
    pub(super) fn rest(mut self) -> Option<Vec<u8>> {
        (!self.is_empty()).then(|| self.seal())
    }
}

fn decode(payload: &[u8], zero: i64, state: &mut State) -> bool {
    let Some((written, mut rest)) = payload.split_first_chunk::<8>() else { return false };
    let by = i64::from_le_bytes(*written).saturating_sub(zero);
    while !rest.is_empty() {
        let Ok((mut record, after)) = postcard::take_from_bytes::<Record>(rest) else { return false };
        record.shift(by);
        state.apply(record);
        rest = after;
    }
    true
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes).unwrap_or_default()
}

/// What a file turned out to hold.
pub(super) enum Found {
    /// `len`: bytes that are whole.
    Whole { len: u64 },
    /// From `at` on it is not all readable; what is, was read.
    Damaged { at: u64 },
    /// A later version of darner wrote it.
    Newer,
}

/// Reads all into `state`.
pub(super) fn read(file: &mut File, zero: i64, state: &mut State) -> io::Result<Found> {
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut head = [0; HEADER_BYTES as usize];
    if size < HEADER_BYTES || reader.read_exact(&mut head).is_err() || head[..8] != *FILE {
        return salvage(reader.into_inner(), 0, zero, state);
    }
    if number(&head, 8) != VERSION {
        return Ok(Found::Newer);
    }
    let mut at = HEADER_BYTES;
    let mut payload = Vec::new();
    while at < size {
        let mut head = [0; FRAME_BYTES];
        let room = size - at;
        let is_framed = room >= FRAME_BYTES as u64 && reader.read_exact(&mut head).is_ok() && head[..4] == *FRAME;
        let len = number(&head, 4);
        if !is_framed || len > FRAME_BYTES_MAX || u64::from(len) > room - FRAME_BYTES as u64 {
            return salvage(reader.into_inner(), at, zero, state);
        }
        payload.resize(len as usize, 0);
        reader.read_exact(&mut payload)?;
        if crc32fast::hash(&payload) != number(&head, 8) || !decode(&payload, zero, state) {
            return salvage(reader.into_inner(), at, zero, state);
        }
        at += FRAME_BYTES as u64 + u64::from(len);
    }
    Ok(Found::Whole { len: at })
}

/// Reads every frame that can be found behind `at`.
fn salvage(file: &mut File, at: u64, zero: i64, state: &mut State) -> io::Result<Found> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| memmem::find(rest, FRAME)) {
        let start = from + found;
        let len = number(&bytes, start + 4) as usize;
        let payload = bytes.get(start + FRAME_BYTES..).and_then(|rest| rest.get(..len));
        from = match payload {
            Some(payload) if crc32fast::hash(payload) == number(&bytes, start + 8) && decode(payload, zero, state) => {
                start + FRAME_BYTES + len
            }
            _ => start + 1,
        };
    }
    Ok(Found::Damaged { at })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn cleared(number: usize) -> Record {
        Record::RetainedCleared { topic: format!("topic/{number}").into() }
    }

    #[test]
    fn a_batch_that_fills_a_frame_goes_on_in_the_next() {
        let mut file = nix::unistd::mkstemp("/tmp/darner-frames-XXXXXX").map(|(fd, path)| (File::from(fd), path)).expect("a file");
        std::fs::remove_file(&file.1).expect("removed");
        file.0.write_all(&header()).expect("written");
        let mut frame = Frame::new(7);
        let mut frames = 0;
        for number in 0..300 {
            if let Some(bytes) = frame.add(&cleared(number), 200) {
                assert!(bytes.len() < 240, "{}", bytes.len());
                frames += 1;
                file.0.write_all(&bytes).expect("written");
            }
        }
        if let Some(bytes) = frame.rest() {
            file.0.write_all(&bytes).expect("written");
        }
        assert!(frames > 5);
        assert!(Frame::new(7).rest().is_none());
        file.0.rewind().expect("a file");
        let size = file.0.metadata().expect("a file").len();
        assert!(matches!(read(&mut file.0, 7, &mut State::default()), Ok(Found::Whole { len }) if len == size));
    }
}
