//! Frames ↔ the bytes of packets. Packets may be split and joined over frames at will `[MQTT-6.0.0-2]`, so that the frames of a client only
//! have to be taken off; payloads are never gathered here.

use std::io::Cursor;

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

/// Longest frame: more than the longest packet of MQTT.
const FRAME_BYTES_MAX: u64 = 256 << 20;
/// RFC 6455, 5.5.
const CONTROL_BYTES_MAX: u64 = 125;
/// Two bytes, eight of a length, four of a mask.
const HEADER_BYTES_MAX: usize = 14;

/// The code of a goodbye without a reason to complain.
pub const NORMAL: u16 = 1000;

/// Why no more frames are taken. `code` is RFC 6455's (7.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The peer said goodbye.
    Closed,
    Violation {
        code: u16,
        what: &'static str,
    },
}

/// The side of a connection that reads frames of a client.
#[derive(Debug, Default)]
pub struct Frames {
    /// A header that is not whole yet.
    header: Vec<u8>,
    mask: [u8; 4],
    /// Payload of the current frame that is still to come.
    remaining: u64,
    /// A control frame's payload so far; `None` in a data frame.
    control: Option<(Control, Vec<u8>)>,
    /// In a message of several frames.
    in_message: bool,
    ended: bool,
}

impl Frames {
    /// Takes the frames off `bytes`, in place: what is left at its start are bytes of packets, as many as are returned. Frames to send back
    /// (pongs, the answer to a goodbye) are appended to `answers`. After an end nothing more is taken.
    pub fn unframe(&mut self, bytes: &mut [u8], answers: &mut Vec<u8>) -> (usize, Option<End>) {
        let mut read = 0;
        let mut kept = 0;
        while read < bytes.len() && !self.ended {
            if self.remaining > 0 {
                let count = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len() - read);
                let Some(payload) = bytes.get_mut(read..read + count) else { break };
                unmask(payload, &mut self.mask);
                if let Some((_, gathered)) = &mut self.control {
                    gathered.extend_from_slice(payload);
                } else {
                    bytes.copy_within(read..read + count, kept);
                    kept += count;
                }
                self.remaining -= count as u64;
                read += count;
            } else {
                let rest = bytes.get(read..).unwrap_or_default();
                match self.begin(rest) {
                    Ok(used) => read += used,
                    Err(end) => return (kept, Some(self.end(end, answers))),
                }
                if !self.header.is_empty() {
                    continue;
                }
            }
            if self.remaining == 0
                && let Some((kind, payload)) = self.control.take()
                && let Err(end) = control(kind, &payload, answers)
            {
                return (kept, Some(self.end(end, answers)));
            }
        }
        (kept, None)
    }

    fn end(&mut self, end: End, answers: &mut Vec<u8>) -> End {
        self.ended = true;
        if let End::Violation { code, .. } = end {
            goodbye(code, answers);
        }
        end
    }

    /// Reads a header; how many bytes of it were in `rest`.
    fn begin(&mut self, rest: &[u8]) -> Result<usize, End> {
        let held = self.header.len();
        let taken = rest.len().min(HEADER_BYTES_MAX - held.min(HEADER_BYTES_MAX));
        let fresh = rest.get(..taken).unwrap_or_default();
        let joined = if held == 0 { Vec::new() } else { [&*self.header, fresh].concat() };
        let view = if held == 0 { rest } else { &joined };
        let mut cursor = Cursor::new(view);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| violation("a frame of no known kind"))?;
        let Some((header, length)) = parsed else {
            self.header.extend_from_slice(fresh);
            return Ok(taken);
        };
        self.header = Vec::new();
        self.accept(&header, length)?;
        Ok((cursor.position() as usize).saturating_sub(held))
    }

    fn accept(&mut self, header: &FrameHeader, length: u64) -> Result<(), End> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(violation("a reserved bit is set"));
        }
        self.mask = header.mask.ok_or_else(|| violation("a frame without a mask"))?;
        match header.opcode {
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => return Err(violation("a frame of no known kind")),
            OpCode::Control(_) if !header.is_final => return Err(violation("a control frame in pieces")),
            OpCode::Control(_) if length > CONTROL_BYTES_MAX => return Err(violation("a control frame of more than 125 bytes")),
            OpCode::Control(kind) => self.control = Some((kind, Vec::new())),
            // [MQTT-6.0.0-1]
            OpCode::Data(Data::Text) => return Err(End::Violation { code: 1003, what: "a text frame" }),
            OpCode::Data(Data::Binary) if self.in_message => return Err(violation("a new message within another")),
            OpCode::Data(Data::Continue) if !self.in_message => return Err(violation("a continuation of nothing")),
            OpCode::Data(_) if length > FRAME_BYTES_MAX => {
                return Err(End::Violation { code: 1009, what: "a frame longer than any packet" });
            }
            OpCode::Data(_) => self.in_message = !header.is_final,
        }
        self.remaining = length;
        Ok(())
    }
}

fn violation(what: &'static str) -> End {
    End::Violation { code: 1002, what }
}

/// A whole control frame.
fn control(kind: Control, payload: &[u8], answers: &mut Vec<u8>) -> Result<(), End> {
    match (kind, payload) {
        (Control::Ping, _) => {
            // Writing into a Vec does not fail.
            let _ = Frame::pong(payload.to_vec()).format(answers);
            Ok(())
        }
        (Control::Pong | Control::Reserved(_), _) => Ok(()),
        (Control::Close, [_]) => Err(violation("a goodbye with half a code")),
        (Control::Close, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            let known = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !known || std::str::from_utf8(reason).is_err() {
                return Err(violation("a goodbye that makes no sense"));
            }
            goodbye(code, answers);
            Err(End::Closed)
        }
        (Control::Close, []) => {
            answers.extend_from_slice(&[0x88, 0]);
            Err(End::Closed)
        }
    }
}

/// A frame that says that nothing more comes.
pub fn goodbye(code: u16, answers: &mut Vec<u8>) {
    let [high, low] = code.to_be_bytes();
    answers.extend_from_slice(&[0x88, 2, high, low]);
}

/// The header of a message of one binary frame with `length` bytes, which are to follow.
pub fn message(length: usize, frames: &mut Vec<u8>) {
    let header = FrameHeader { opcode: OpCode::Data(Data::Binary), mask: None, ..FrameHeader::default() };
    // Writing into a Vec does not fail.
    let _ = header.format(length as u64, frames);
}

/// Leaves the mask as the next byte of the frame needs it.
fn unmask(payload: &mut [u8], mask: &mut [u8; 4]) {
    let key = u32::from_ne_bytes(*mask);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ key).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(*mask) {
        *byte ^= key;
    }
    mask.rotate_left(rest.len());
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];

    /// A client's frame: first byte, payload.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..=125 => bytes.push(0x80 | short as u8),
            middle @ 126..=65535 => {
                bytes.push(0xfe);
                bytes.extend((middle as u16).to_be_bytes());
            }
            long => {
                bytes.push(0xff);
                bytes.extend((long as u64).to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.into_iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// All of it in pieces of `size`: payload, answers, end.
    fn in_pieces(bytes: &[u8], size: usize) -> (Vec<u8>, Vec<u8>, Option<End>) {
        let (mut frames, mut payload, mut answers) = (Frames::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let (count, end) = frames.unframe(&mut piece, &mut answers);
            payload.extend_from_slice(&piece[..count]);
            if end.is_some() {
                return (payload, answers, end);
            }
        }
        (payload, answers, None)
    }

    #[test]
    fn the_payload_is_the_same_however_it_is_cut() {
        let long: Vec<u8> = (0..70_000_u32).map(|number| number as u8).collect();
        let bytes = [
            frame(0x82, b"one"),
            frame(0x02, b"tw"),
            frame(0x89, b"are you there"),
            frame(0x00, b""),
            frame(0x80, b"o"),
            frame(0x82, &long[..300]),
            frame(0x8a, b"unasked"),
            frame(0x82, &long),
        ]
        .concat();
        let expected = [&b"onetwo"[..], &long[..300], &long].concat();
        for size in [1, 2, 3, 5, 7, 14, 64, 1000, bytes.len()] {
            let (payload, answers, end) = in_pieces(&bytes, size);
            assert!(payload == expected && end.is_none(), "in pieces of {size}");
            assert_eq!(answers, [&[0x8a, 13][..], b"are you there"].concat());
        }
    }

    #[test]
    fn a_goodbye_is_answered_with_its_own_code_and_ends_all() {
        let bytes = [frame(0x82, b"last"), frame(0x88, &[0x03, 0xe9, b'b', b'y', b'e']), frame(0x82, b"late")].concat();
        for size in [1, 4, bytes.len()] {
            assert_eq!(in_pieces(&bytes, size), (b"last".to_vec(), vec![0x88, 2, 0x03, 0xe9], Some(End::Closed)));
        }
        assert_eq!(in_pieces(&frame(0x88, b""), 9), (Vec::new(), vec![0x88, 0], Some(End::Closed)));
    }

    #[test]
    fn what_a_client_must_not_send_ends_the_connection_with_its_code() {
        let mut unmasked = frame(0x82, b"");
        unmasked[1] = 0;
        let cases: &[(Vec<u8>, u16)] = &[
            (frame(0x81, b"text"), 1003),
            (unmasked, 1002),
            (frame(0xc2, b"compressed"), 1002),
            (frame(0x83, b"reserved"), 1002),
            (frame(0x8b, b"reserved"), 1002),
            (frame(0x09, b"ping in pieces"), 1002),
            (frame(0x89, &[0; 126]), 1002),
            (frame(0x80, b"continues nothing"), 1002),
            ([frame(0x02, b"a"), frame(0x82, b"b")].concat(), 1002),
            (frame(0x88, &[3]), 1002),
            (frame(0x88, &[0x03, 0xed]), 1002),
            (frame(0x88, &[0x03, 0xe8, 0xff]), 1002),
            (vec![0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4], 1009),
        ];
        for (bytes, expected) in cases {
            let (_, answers, end) = in_pieces(bytes, bytes.len());
            assert!(matches!(end, Some(End::Violation { code, .. }) if code == *expected), "{bytes:x?}: {end:?}");
            assert_eq!(answers, [&[0x88, 2][..], &expected.to_be_bytes()].concat());
        }
    }

    #[test]
    fn a_message_is_one_frame() {
        for (length, header) in [(5, &[0x82, 5][..]), (300, &[0x82, 126, 1, 44]), (70_000, &[0x82, 127, 0, 0, 0, 0, 0, 1, 0x11, 0x70])] {
            let mut bytes = Vec::new();
            message(length, &mut bytes);
            assert_eq!(bytes, header);
        }
    }

    #[test]
    fn any_bytes_are_survived() {
        let mut state = 0x9e37_79b9_u32;
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) as u8
                })
                .collect();
            assert_eq!(in_pieces(&bytes, 3).0, in_pieces(&bytes, 40).0);
        }
    }
}
