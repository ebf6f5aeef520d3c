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

/// One frame. `zero` is the time of day at the machine's `Time(0)`, in milliseconds.
pub(super) fn encode<'a>(records: impl IntoIterator<Item = &'a Record>, zero: i64) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_BYTES];
    bytes.extend_from_slice(&zero.to_le_bytes());
    for record in records {
        let before = bytes.len();
        match postcard::to_extend(record, std::mem::take(&mut bytes)) {
            Ok(extended) => bytes = extended,
            // No type in a record can fail to be written.
            Err(_) => bytes.truncate(before),
        }
    }
    let payload = bytes.get(FRAME_BYTES..).unwrap_or_default();
    let (len, sum) = (payload.len() as u32, crc32fast::hash(payload));
    bytes[..4].copy_from_slice(FRAME);
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
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
