//! Records as bytes: a file is a header and frames, a frame is a batch of records under a checksum.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use memchr::memmem;

use super::State;
use super::mosquitto::MAGIC;
use crate::broker::Record;
use crate::broker::message::{Delivery, Identity, Message};
use crate::mqtt::{PacketId, Qos};

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

pub(super) fn is_mosquittos(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == MAGIC
}

pub(super) fn header() -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(FILE);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header
}

/// In the header's last bytes: the file is being written for the first time, and what it holds is void until that is done.
const UNFINISHED: u32 = 1;

/// The header of such a file.
pub(super) fn unfinished_header() -> [u8; HEADER_BYTES as usize] {
    let mut header = header();
    header[12..].copy_from_slice(&UNFINISHED.to_le_bytes());
    header
}

pub(super) fn is_unfinished(head: &[u8; HEADER_BYTES as usize]) -> bool {
    begins(head) && number(head, 12) == UNFINISHED
}

/// Whether these first bytes are a store's.
pub(super) fn begins(head: &[u8]) -> bool {
    head.starts_with(FILE)
}

/// Frames of their own: what stands between them, once it is whole, is everything, and what stood before is void. A file that cannot be
/// replaced is written anew behind its own end.
const ANEW_BEGINS: &[u8] = b"B";
const ANEW_ENDS: &[u8] = b"E";

pub(super) fn anew_begins() -> Vec<u8> {
    framed(vec![0; FRAME_BYTES], ANEW_BEGINS)
}

pub(super) fn anew_ends() -> Vec<u8> {
    framed(vec![0; FRAME_BYTES], ANEW_ENDS)
}

/// `bytes` with room for a frame's head, `more`, and that head.
fn framed(mut bytes: Vec<u8>, more: &[u8]) -> Vec<u8> {
    bytes.extend_from_slice(more);
    let payload = bytes.get(FRAME_BYTES..).unwrap_or_default();
    let (len, sum) = (payload.len() as u32, crc32fast::hash(payload));
    bytes[..4].copy_from_slice(FRAME);
    bytes[4..8].copy_from_slice(&len.to_le_bytes());
    bytes[8..12].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// In the place of a record's kind: a [`Record::Queued`] with the message of the one before it. A message for many is written once.
const AGAIN: u8 = 0x7f;

/// What is written of it.
#[derive(serde::Serialize, serde::Deserialize)]
struct Again {
    client: Arc<Identity>,
    qos: Qos,
    retain: bool,
    subscription_identifier: u32,
    number: u64,
    set_aside: Option<PacketId>,
    sent: Option<PacketId>,
}

impl Again {
    fn of(client: &Arc<Identity>, delivery: &Delivery, sent: Option<PacketId>) -> Self {
        let Delivery { qos, retain, subscription_identifier, packet_id: set_aside, number, .. } = *delivery;
        Self { client: Arc::clone(client), qos, retain, subscription_identifier, number, set_aside, sent }
    }

    fn record(self, message: Arc<Message>) -> Record {
        let Self { client, qos, retain, subscription_identifier, number, set_aside, sent } = self;
        let delivery = Delivery { message, qos, retain, subscription_identifier, packet_id: set_aside, number };
        Record::Queued { client, delivery, packet_id: sent }
    }
}

/// A frame that is being filled.
pub(super) struct Frame {
    bytes: Vec<u8>,
    zero: i64,
    /// The message of the last record, if that was a queued one.
    last: Option<Arc<Message>>,
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
        Self { bytes, zero, last: None }
    }

    fn is_empty(&self) -> bool {
        self.bytes.len() == FRAME_BYTES + size_of::<i64>()
    }

    fn push(&mut self, record: &Record) {
        let before = self.bytes.len();
        let queued = match record {
            Record::Queued { client, delivery, packet_id } => Some((client, delivery, *packet_id)),
            _ => None,
        };
        let again = queued.filter(|(_, delivery, _)| self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &delivery.message)));
        let written = match again {
            Some((client, delivery, sent)) => {
                self.bytes.push(AGAIN);
                postcard::to_extend(&Again::of(client, delivery, sent), Tail(&mut self.bytes)).is_ok()
            }
            None => postcard::to_extend(record, Tail(&mut self.bytes)).is_ok(),
        };
        if !written {
            // No type in a record can fail to be written.
            self.bytes.truncate(before);
        }
        self.last = queued.map(|(_, delivery, _)| Arc::clone(&delivery.message));
    }

    /// The bytes for the file; the frame is empty again.
    fn seal(&mut self) -> Vec<u8> {
        framed(std::mem::replace(self, Self::new(self.zero)).bytes, &[])
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

/// What the frames read so far add up to.
struct Sum<'a> {
    state: &'a mut State,
    /// What they added up to before all was written anew, while that is not known to be whole.
    before: Option<State>,
    zero: i64,
}

impl<'a> Sum<'a> {
    fn new(state: &'a mut State, zero: i64) -> Self {
        Self { state, before: None, zero }
    }

    /// Whether writing all anew was begun and not ended.
    fn is_unfinished(&self) -> bool {
        self.before.is_some()
    }

    /// False: it is none of ours.
    fn add(&mut self, payload: &[u8]) -> bool {
        match payload {
            ANEW_BEGINS => {
                let before = std::mem::take(self.state);
                self.before.get_or_insert(before);
                true
            }
            ANEW_ENDS => {
                self.before = None;
                true
            }
            records => self.decode(records),
        }
    }

    fn decode(&mut self, payload: &[u8]) -> bool {
        let Some((written, mut rest)) = payload.split_first_chunk::<8>() else { return false };
        let by = i64::from_le_bytes(*written).saturating_sub(self.zero);
        let mut last: Option<Arc<Message>> = None;
        while let Some(kind) = rest.first() {
            let record = if *kind == AGAIN {
                let Ok((again, after)) = postcard::take_from_bytes::<Again>(rest.get(1..).unwrap_or_default()) else { return false };
                let Some(message) = &last else { return false };
                rest = after;
                again.record(Arc::clone(message))
            } else {
                let Ok((mut record, after)) = postcard::take_from_bytes::<Record>(rest) else { return false };
                rest = after;
                record.shift(by);
                if let Record::Queued { delivery, .. } = &record {
                    last = Some(Arc::clone(&delivery.message));
                }
                record
            };
            self.state.apply(record);
        }
        true
    }
}

impl Drop for Sum<'_> {
    fn drop(&mut self) {
        // It was not written to its end. Where nothing stood before it, a beginning was lost, and it is all there is.
        if let Some(before) = self.before.take().filter(|before| *before != State::default()) {
            *self.state = before;
        }
    }
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes).unwrap_or_default()
}

/// What a file turned out to hold.
pub(super) enum Found {
    /// `len`: bytes that count; what follows goes.
    Whole { len: u64 },
    /// From `at` on it is not all readable; what is, was read.
    Damaged { at: u64 },
    /// A later version of darner wrote it.
    Newer,
    /// It was never written to its end.
    Unfinished,
}

/// Reads all into `state`.
pub(super) fn read(file: &mut File, zero: i64, state: &mut State) -> io::Result<Found> {
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(256 << 10, file);
    let mut head = [0; HEADER_BYTES as usize];
    if size < HEADER_BYTES || reader.read_exact(&mut head).is_err() || head[..8] != *FILE {
        return salvage(reader.into_inner(), 0, Sum::new(state, zero));
    }
    if number(&head, 8) != VERSION {
        return Ok(Found::Newer);
    }
    if is_unfinished(&head) {
        return Ok(Found::Unfinished);
    }
    let mut sum = Sum::new(state, zero);
    let (mut at, mut anew_from) = (HEADER_BYTES, HEADER_BYTES);
    let mut payload = Vec::new();
    while at < size {
        let mut head = [0; FRAME_BYTES];
        let room = size - at;
        let is_framed = room >= FRAME_BYTES as u64 && reader.read_exact(&mut head).is_ok() && head[..4] == *FRAME;
        let len = number(&head, 4);
        if !is_framed || len > FRAME_BYTES_MAX || u64::from(len) > room - FRAME_BYTES as u64 {
            return salvage(reader.into_inner(), at, sum);
        }
        payload.resize(len as usize, 0);
        reader.read_exact(&mut payload)?;
        let was_unfinished = sum.is_unfinished();
        if crc32fast::hash(&payload) != number(&head, 8) || !sum.add(&payload) {
            return salvage(reader.into_inner(), at, sum);
        }
        if sum.is_unfinished() && !was_unfinished {
            anew_from = at;
        }
        at += FRAME_BYTES as u64 + u64::from(len);
    }
    match &sum.before {
        None => Ok(Found::Whole { len: at }),
        Some(before) if *before == State::default() => Ok(Found::Damaged { at: anew_from }),
        Some(_) => Ok(Found::Whole { len: anew_from }),
    }
}

/// Reads every frame that can be found behind `at`.
fn salvage(file: &mut File, at: u64, mut sum: Sum<'_>) -> io::Result<Found> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut from = 0;
    while let Some(found) = bytes.get(from..).and_then(|rest| memmem::find(rest, FRAME)) {
        let start = from + found;
        let len = number(&bytes, start + 4) as usize;
        let payload = bytes.get(start + FRAME_BYTES..).and_then(|rest| rest.get(..len));
        from = match payload {
            Some(payload) if crc32fast::hash(payload) == number(&bytes, start + 8) && sum.add(payload) => start + FRAME_BYTES + len,
            _ => start + 1,
        };
    }
    Ok(Found::Damaged { at })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::broker::Time;
    use crate::broker::record::SessionRecord;
    use crate::mqtt::ProtocolVersion;

    fn cleared(number: usize) -> Record {
        Record::RetainedCleared { topic: format!("topic/{number}").into() }
    }

    fn scratch() -> File {
        let (file, path) = nix::unistd::mkstemp("/tmp/darner-frames-XXXXXX").map(|(fd, path)| (File::from(fd), path)).expect("a file");
        std::fs::remove_file(&path).expect("removed");
        file
    }

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: [b'x'; 500].into(),
            qos: Qos::AtLeastOnce,
            retain: true,
            properties: Vec::new(),
            expires_at: Some(Time(5_000)),
            publisher: None,
        })
    }

    fn framed_records(records: &[Record]) -> Vec<u8> {
        let mut frame = Frame::new(7);
        for record in records {
            assert_eq!(frame.add(record, usize::MAX), None);
        }
        frame.rest().expect("records")
    }

    /// What a file of these frames adds up to.
    fn state_of(frames: &[Vec<u8>]) -> (State, Option<u64>) {
        let mut file = scratch();
        file.write_all(&header()).expect("written");
        for frame in frames {
            file.write_all(frame).expect("written");
        }
        file.rewind().expect("a file");
        let mut state = State::default();
        match read(&mut file, 7, &mut state).expect("read") {
            Found::Whole { len } => (state, Some(len)),
            _ => (state, None),
        }
    }

    fn retained(topic: &str) -> Vec<u8> {
        framed_records(&[Record::Retained { message: message(topic) }])
    }

    fn topics(state: &State) -> Vec<&str> {
        state.retained.iter().map(|message| &*message.topic).collect()
    }

    #[test]
    fn what_is_written_anew_counts_once_it_is_whole() {
        let (begin, end) = (anew_begins(), anew_ends());
        let (state, len) = state_of(&[retained("a"), begin.clone(), retained("b"), end.clone(), retained("c")]);
        assert_eq!((topics(&state), len.is_some()), (vec!["b", "c"], true));
        let (state, len) = state_of(&[retained("a"), begin.clone(), retained("b")]);
        assert_eq!(topics(&state), ["a"]);
        assert_eq!(len, Some(HEADER_BYTES + retained("a").len() as u64), "the rest goes");
        // Its copy was on the way over the beginning.
        let torn = b"the rest of a frame".to_vec();
        let (state, len) = state_of(&[begin.clone(), retained("b"), torn, retained("old"), begin, retained("b"), retained("c"), end]);
        assert_eq!((topics(&state), len), (vec!["b", "c"], None));
    }

    #[test]
    fn a_message_for_many_is_written_once_and_shared_when_it_is_read() {
        let message = message("t");
        let identity =
            |number: usize| Arc::new(Identity { client_id: format!("c{number}").into(), username: None, security: 0, trusted: false });
        let began = |number| {
            let session = SessionRecord {
                client: identity(number),
                version: ProtocolVersion::V5,
                expiry_secs: 60,
                mount_point: None,
                max_qos: Qos::ExactlyOnce,
                will: None,
                last_packet_id: None,
            };
            Record::Session(Box::new(session))
        };
        let queued = |number: usize| {
            let (qos, packet_id) = (Qos::AtLeastOnce, PacketId::new(number as u16 + 1));
            let message = Arc::clone(&message);
            let delivery = Delivery { message, qos, retain: false, subscription_identifier: number as u32, packet_id: None, number: 9 };
            Record::Queued { client: identity(number), delivery, packet_id }
        };
        let records: Vec<Record> = (0..100).map(began).chain((0..100).map(queued)).collect();
        let bytes = framed_records(&records);
        assert!(bytes.len() < 100 * 50 + 1000, "{} bytes", bytes.len());
        let mut expected = State::default();
        for record in records {
            expected.apply(record);
        }
        let (state, _) = state_of(&[bytes]);
        assert!(state == expected);
        let of = |name: &str| Arc::clone(&state.sessions[name].deliveries[&9].delivery.message);
        assert!(Arc::ptr_eq(&of("c0"), &of("c99")));
    }

    #[test]
    fn a_batch_that_fills_a_frame_goes_on_in_the_next() {
        let mut file = scratch();
        file.write_all(&header()).expect("written");
        let mut frame = Frame::new(7);
        let mut frames = 0;
        for number in 0..300 {
            if let Some(bytes) = frame.add(&cleared(number), 200) {
                assert!(bytes.len() < 240, "{}", bytes.len());
                frames += 1;
                file.write_all(&bytes).expect("written");
            }
        }
        if let Some(bytes) = frame.rest() {
            file.write_all(&bytes).expect("written");
        }
        assert!(frames > 5);
        assert!(Frame::new(7).rest().is_none());
        file.rewind().expect("a file");
        let size = file.metadata().expect("a file").len();
        assert!(matches!(read(&mut file, 7, &mut State::default()), Ok(Found::Whole { len }) if len == size));
    }
}
