//! Records as bytes: a file is a header and frames, a frame is a batch of records under a checksum.
//!
//! A frame's head is its mark, the length of its payload, a mask and a checksum. The payload is written under the mask, which is drawn
//! for each frame: what a client publishes stands nowhere in the file as the client chose it, so that in a damaged file nothing of it is
//! taken for a frame.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, BufReader, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use memchr::memmem;

use super::State;
use super::mosquitto::MAGIC;
use crate::broker::Record;
use crate::broker::message::{Delivery, Identity, Message};
use crate::mqtt::{PacketId, Qos};

/// The file begins with this, a version, whether it is unfinished, and a checksum.
const FILE: &[u8; 8] = b"darnerdb";
const VERSION: u32 = 2;
pub(super) const HEADER_BYTES: u64 = 20;
/// A frame begins with this, the length of its payload, a mask and a checksum.
const FRAME: &[u8; 4] = b"\xdafr\xa0";
const FRAME_BYTES: usize = 20;
const FRAME_BYTES_MAX: u32 = 1 << 30;
/// Where a damaged file is searched for frames, so much of it at once.
const WINDOW_BYTES: usize = 256 << 10;
/// A batch of more than this goes into several frames, since one more record, of a message of up to 256 MiB, must not make the frame longer
/// than the longest.
pub(super) const FRAME_BYTES_FULL: usize = 256 << 20;

/// Opens what should be a file; never waits for whoever is at the other end of a pipe.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    // Under a lease, of a file server say, which its holder has now been asked to give up.
    let is_lent = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock && path.is_file();
    let file = file.or_else(|error| if is_lent(&error) { File::open(path) } else { Err(error) })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

pub(super) fn is_mosquittos(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut head));
    read.is_ok() && head == MAGIC
}

pub(super) fn header() -> [u8; HEADER_BYTES as usize] {
    header_of(VERSION, 0)
}

fn header_of(version: u32, mark: u32) -> [u8; HEADER_BYTES as usize] {
    let mut header = [0; HEADER_BYTES as usize];
    header[..8].copy_from_slice(FILE);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[12..16].copy_from_slice(&mark.to_le_bytes());
    let sum = crc32fast::hash(&header[..16]);
    header[16..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// In the header: the file is being written for the first time, and what it holds is void until that is done.
const UNFINISHED: u32 = 1;

/// The header of such a file.
pub(super) fn unfinished_header() -> [u8; HEADER_BYTES as usize] {
    header_of(VERSION, UNFINISHED)
}

pub(super) fn is_unfinished(head: &[u8; HEADER_BYTES as usize]) -> bool {
    *head == unfinished_header()
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
    // The keys of a `RandomState` come from the operating system's randomness.
    let mask = RandomState::new().build_hasher().finish().to_le_bytes();
    let Some((head, payload)) = bytes.split_first_chunk_mut::<FRAME_BYTES>() else { return bytes };
    under(mask, payload);
    let len = (payload.len() as u32).to_le_bytes();
    let sum = checksum(len, mask, payload).finalize();
    head[..4].copy_from_slice(FRAME);
    head[4..8].copy_from_slice(&len);
    head[8..16].copy_from_slice(&mask);
    head[16..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Puts a payload under its mask, or takes it off.
fn under(mask: [u8; 8], payload: &mut [u8]) {
    let (whole, rest) = payload.as_chunks_mut::<8>();
    for chunk in whole {
        *chunk = (u64::from_ne_bytes(*chunk) ^ u64::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Of a frame with this much of its payload, as it is written.
fn checksum(len: [u8; 4], mask: [u8; 8], payload: &[u8]) -> crc32fast::Hasher {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&len);
    sum.update(&mask);
    sum.update(payload);
    sum
}

/// What a frame says of itself.
#[derive(Clone, Copy)]
struct Head {
    len: u32,
    mask: [u8; 8],
    sum: u32,
}

impl Head {
    /// `None`: no frame begins like this, or it does not end within `room` bytes behind its head.
    fn read(bytes: [u8; FRAME_BYTES], room: u64) -> Option<Self> {
        let mask = bytes[8..16].try_into().ok()?;
        let head = Self { len: number(&bytes, 4), mask, sum: number(&bytes, 16) };
        (bytes[..4] == *FRAME && head.len <= FRAME_BYTES_MAX && u64::from(head.len) <= room).then_some(head)
    }

    fn checksum(&self) -> crc32fast::Hasher {
        checksum(self.len.to_le_bytes(), self.mask, &[])
    }

    /// Takes the mask off a payload that is as it was written.
    fn unmask(&self, payload: &mut [u8]) -> bool {
        let mut sum = self.checksum();
        sum.update(payload);
        under(self.mask, payload);
        sum.finalize() == self.sum
    }

    /// Whether the payload at this place of the file is as it was written.
    fn is_at(&self, file: &File, mut at: u64, window: &mut [u8]) -> io::Result<bool> {
        let mut sum = self.checksum();
        let mut left = self.len as usize;
        while left > 0 {
            let count = left.min(window.len());
            let Some(piece) = window.get_mut(..count) else { break };
            file.read_exact_at(piece, at)?;
            sum.update(piece);
            at += count as u64;
            left -= count;
        }
        Ok(sum.finalize() == self.sum)
    }
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
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// `len`: bytes that count; what follows goes.
    Whole { len: u64 },
    /// From `at` on it is not all readable; what is, was read. `is_ours`: it has our header, or a frame.
    Damaged { at: u64, is_ours: bool },
    /// A later version of darner wrote it.
    Newer,
    /// It was never written to its end.
    Unfinished,
    /// One from before the first release did.
    Older,
}

/// Reads all into `state`.
pub(super) fn read(file: &mut File, zero: i64, state: &mut State) -> io::Result<Found> {
    let size = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(WINDOW_BYTES, file);
    let mut head = [0; HEADER_BYTES as usize];
    if size >= HEADER_BYTES {
        reader.read_exact(&mut head)?;
    }
    if is_unfinished(&head) {
        return Ok(Found::Unfinished);
    }
    if head != header() {
        let (version, mark) = (number(&head, 8), number(&head, 12));
        if head == header_of(version, mark) {
            return Ok(Found::Newer);
        }
        // The first version's header had 16 bytes and no checksum.
        if head.starts_with(FILE) && (version, mark) == (1, 0) {
            return Ok(Found::Older);
        }
        let file = reader.into_inner();
        let frames = salvage(file, 0, &mut Sum::new(state, zero), WINDOW_BYTES)?;
        let begun = head.get_mut(..size as usize).map(|begun| file.read_exact_at(begun, 0).is_ok() && header().starts_with(begun));
        return Ok(Found::Damaged { at: 0, is_ours: frames > 0 || begun == Some(true) });
    }
    let mut sum = Sum::new(state, zero);
    let (mut at, mut anew_from) = (HEADER_BYTES, HEADER_BYTES);
    let mut payload = Vec::new();
    while at < size {
        let mut head = [0; FRAME_BYTES];
        let room = (size - at).checked_sub(FRAME_BYTES as u64);
        if room.is_some() {
            reader.read_exact(&mut head)?;
        }
        let Some(head) = room.and_then(|room| Head::read(head, room)) else { break };
        payload.resize(head.len as usize, 0);
        reader.read_exact(&mut payload)?;
        let was_unfinished = sum.is_unfinished();
        if !head.unmask(&mut payload) || !sum.add(&payload) {
            break;
        }
        if sum.is_unfinished() && !was_unfinished {
            anew_from = at;
        }
        at += FRAME_BYTES as u64 + u64::from(head.len);
    }
    if at < size {
        salvage(reader.into_inner(), at, &mut sum, WINDOW_BYTES)?;
        return Ok(Found::Damaged { at, is_ours: true });
    }
    match &sum.before {
        None => Ok(Found::Whole { len: at }),
        Some(before) if *before == State::default() => Ok(Found::Damaged { at: anew_from, is_ours: true }),
        Some(_) => Ok(Found::Whole { len: anew_from }),
    }
}

/// Reads every frame that can be found behind `at`, and counts them. Besides the payload of one of them no more than `window_bytes` of the
/// file are in memory.
fn salvage(file: &File, mut at: u64, sum: &mut Sum<'_>, window_bytes: usize) -> io::Result<usize> {
    let size = file.metadata()?.len();
    let (mut window, mut piece, mut payload) = (vec![0; window_bytes], vec![0; window_bytes], Vec::new());
    let mut frames = 0;
    while size.saturating_sub(at) >= FRAME_BYTES as u64 {
        let count = window.len().min((size - at) as usize);
        let Some(seen) = window.get_mut(..count) else { break };
        file.read_exact_at(seen, at)?;
        // A mark across the window's end is whole in the next one.
        let mut next = at + (count - (FRAME.len() - 1)) as u64;
        for found in memmem::find_iter(seen, FRAME) {
            let start = at + found as u64;
            let Some(room) = (size - start).checked_sub(FRAME_BYTES as u64) else { break };
            let mut head = [0; FRAME_BYTES];
            file.read_exact_at(&mut head, start)?;
            let behind = start + FRAME_BYTES as u64;
            let Some(head) = Head::read(head, room) else { continue };
            if !head.is_at(file, behind, &mut piece)? {
                continue;
            }
            payload.resize(head.len as usize, 0);
            file.read_exact_at(&mut payload, behind)?;
            if head.unmask(&mut payload) && sum.add(&payload) {
                frames += 1;
                next = behind + u64::from(head.len);
                break;
            }
        }
        at = next;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

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

    /// What the bytes of a file add up to.
    fn read_bytes(bytes: &[u8]) -> (State, Found) {
        let mut file = scratch();
        file.write_all(bytes).expect("written");
        file.rewind().expect("a file");
        let mut state = State::default();
        let found = read(&mut file, 7, &mut state).expect("read");
        (state, found)
    }

    #[test]
    fn a_flipped_bit_of_the_header_loses_nothing() {
        let whole = [header().to_vec(), retained("a"), retained("b")].concat();
        assert_eq!(read_bytes(&whole).1, Found::Whole { len: whole.len() as u64 });
        for bit in 0..HEADER_BYTES as usize * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let (state, found) = read_bytes(&flipped);
            assert_eq!((topics(&state), found), (vec!["a", "b"], Found::Damaged { at: 0, is_ours: true }), "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_and_the_one_before_the_first_release_are_told_from_damage() {
        assert_eq!(read_bytes(&[header_of(VERSION + 1, 0).to_vec(), b"who knows".to_vec()].concat()).1, Found::Newer);
        assert_eq!(read_bytes(&[header_of(VERSION, UNFINISHED + 1).to_vec(), retained("a")].concat()).1, Found::Newer);
        assert_eq!(read_bytes(&[unfinished_header().to_vec(), retained("a")].concat()).1, Found::Unfinished);
        let first = [b"darnerdb\x01\0\0\0\0\0\0\0".as_slice(), b"\xdafr\xa0\x01\0\0\0\0\0\0\0x"].concat();
        assert_eq!(read_bytes(&first).1, Found::Older);
        assert_eq!(read_bytes(b"a file of somebody else").1, Found::Damaged { at: 0, is_ours: false });
        assert_eq!(read_bytes(&header()[..7]).1, Found::Damaged { at: 0, is_ours: true }, "cut off at the beginning");
    }

    /// As a client may who has read this source: frames that would clear all, and say what nobody published.
    fn forgery() -> Vec<u8> {
        [anew_begins(), framed_records(&[Record::Retained { message: message("forged") }]), anew_ends()].concat()
    }

    #[test]
    fn what_a_client_publishes_is_never_taken_for_a_frame() {
        let attack = Message { payload: forgery().into(), ..(*message("attack")).clone() };
        let outer = framed_records(&[Record::Retained { message: Arc::new(attack) }]);
        let before = [header().to_vec(), retained("a")].concat();
        let whole = [before.clone(), outer.clone(), retained("b")].concat();
        assert_eq!(topics(&read_bytes(&whole).0), ["a", "attack", "b"]);
        for at in 0..outer.len() {
            let mut flipped = whole.clone();
            flipped[before.len() + at] ^= 0x10;
            assert_eq!(topics(&read_bytes(&flipped).0), ["a", "b"], "byte {at} of the frame");
        }
        // Neither without the file's beginning.
        for at in 0..before.len() + outer.len() - 1 {
            let (state, _) = read_bytes(&whole[at + 1..]);
            assert!(!topics(&state).contains(&"forged"), "without {at} bytes");
            assert!(topics(&state).contains(&"b"), "without {at} bytes");
        }
    }

    #[test]
    fn a_damaged_file_is_searched_a_window_at_a_time() {
        let rubbish = |count: usize| (0..count).map(|n| b"\xdafr\xa0 no frame"[n % 13]).collect::<Vec<u8>>();
        let names: Vec<String> = (0..20).map(|n| format!("t/{n:02}")).collect();
        let mut bytes = Vec::new();
        for (n, name) in names.iter().enumerate() {
            bytes.extend(rubbish(n * 7));
            bytes.extend(retained(name));
        }
        let mut file = scratch();
        file.write_all(&bytes).expect("written");
        for window in [FRAME.len(), 16, 17, 64, 100, 4096, WINDOW_BYTES] {
            let mut state = State::default();
            let frames = salvage(&file, 0, &mut Sum::new(&mut state, 7), window).expect("read");
            assert_eq!((frames, topics(&state)), (20, names.iter().map(String::as_str).collect()), "{window}");
        }
    }
}
