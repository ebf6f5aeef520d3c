//! Data representation (1.5): integers, strings, binary data and Variable Byte Integers.

use super::DecodeError;
use crate::mqtt::{PacketId, ReasonCode};

/// Bytes that do not follow the format.
#[cold]
pub(in crate::mqtt) fn malformed(detail: &'static str) -> DecodeError {
    DecodeError::new(ReasonCode::MalformedPacket, detail)
}

/// Bytes that follow the format and say what may not be said.
#[cold]
pub(in crate::mqtt) fn protocol_error(detail: &'static str) -> DecodeError {
    DecodeError::new(ReasonCode::ProtocolError, detail)
}

/// What is left of a packet's body.
#[derive(Debug, Clone, Copy)]
pub(in crate::mqtt) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(in crate::mqtt) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    #[inline]
    pub(in crate::mqtt) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Everything not read yet.
    #[inline]
    pub(in crate::mqtt) fn rest(self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(in crate::mqtt) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(len) else { return Err(malformed("packet ends too early")) };
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk() else { return Err(malformed("packet ends too early")) };
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(in crate::mqtt) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(in crate::mqtt) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(in crate::mqtt) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Packet Identifier, not 0 `[MQTT-2.2.1-3]`.
    #[inline]
    pub(in crate::mqtt) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16()?).ok_or_else(|| protocol_error("Packet Identifier 0"))
    }

    /// Variable Byte Integer in the fewest bytes `[MQTT-1.5.5-1]`.
    pub(in crate::mqtt) fn variable_byte_integer(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte == 0 && index > 0 {
                return Err(malformed("Variable Byte Integer longer than needed"));
            }
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(malformed("Variable Byte Integer of more than four bytes"))
    }

    #[inline]
    pub(in crate::mqtt) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// UTF-8 Encoded String: well-formed `[MQTT-1.5.4-1]`, without U+0000 `[MQTT-1.5.4-2]`, and without the control characters and
    /// non-characters that a receiver may refuse (1.5.4) and mosquitto does.
    #[inline]
    pub(in crate::mqtt) fn string(&mut self) -> Result<&'a str, DecodeError> {
        self.binary().and_then(Self::of_string)
    }

    /// The string that these bytes are.
    #[inline]
    pub(in crate::mqtt) fn of_string(bytes: &'a [u8]) -> Result<&'a str, DecodeError> {
        let Ok(text) = core::str::from_utf8(bytes) else { return Err(malformed("string is not UTF-8")) };
        // Printable ASCII is the rule, and quickly seen.
        if bytes.iter().all(|byte| (0x20..0x7f).contains(byte)) || text.chars().all(is_permitted) {
            return Ok(text);
        }
        Err(malformed("string holds a control character"))
    }
}

/// Neither a control character, U+0000 among them, nor one of Unicode's 66 non-characters.
fn is_permitted(character: char) -> bool {
    let code = u32::from(character);
    !character.is_control() && !(0xfdd0..=0xfdef).contains(&code) && code & 0xfffe != 0xfffe
}

/// Bytes of a Variable Byte Integer of this value.
#[inline]
pub(in crate::mqtt) fn variable_byte_integer_len(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

#[inline]
pub(in crate::mqtt) fn write_variable_byte_integer(mut value: usize, out: &mut Vec<u8>) {
    for _ in 0..4 {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(byte);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Two bytes of length and the bytes. What does not fit in 65,535 bytes is cut off; nothing decoded can be that long.
#[inline]
pub(in crate::mqtt) fn write_binary(bytes: &[u8], out: &mut Vec<u8>) {
    let len = bytes.len().min(usize::from(u16::MAX));
    out.extend_from_slice(&(len as u16).to_be_bytes());
    out.extend_from_slice(bytes.get(..len).unwrap_or_default());
}

#[inline]
pub(in crate::mqtt) fn write_string(text: &str, out: &mut Vec<u8>) {
    let cut = text.floor_char_boundary(usize::from(u16::MAX));
    write_binary(text.as_bytes().get(..cut).unwrap_or_default(), out);
}

/// Appends what `write` appends, preceded by its length as a Variable Byte Integer.
pub(in crate::mqtt) fn write_with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.push(0);
    write(out);
    let len = out.len() - at - 1;
    if let (Some(byte), 0..=0x7f) = (out.get_mut(at), len) {
        *byte = len as u8;
        return;
    }
    let mut length = Vec::with_capacity(4);
    write_variable_byte_integer(len, &mut length);
    out.splice(at..=at, length);
}
