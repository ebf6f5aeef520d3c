//! The store's file as bytes: a header of 20 bytes and frames, each with a head of 20 bytes and a payload under a mask.

use std::ops::Range;

const HEADER: usize = 20;
const HEAD: usize = 20;

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Where each frame stands in a whole file, and its payload in plain.
pub fn frames(file: &[u8]) -> Vec<(Range<usize>, Vec<u8>)> {
    let mut frames = Vec::new();
    let mut at = HEADER;
    while at < file.len() {
        let end = at + HEAD + number(file, at + 4) as usize;
        let mask = &file[at + 8..at + 16];
        let payload = file[at + HEAD..end].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        frames.push((at..end, payload));
        at = end;
    }
    frames
}

/// How often `text` stands in its payloads.
pub fn count(file: &[u8], text: &str) -> usize {
    let holds = |payload: &[u8]| payload.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
    frames(file).iter().map(|(_, payload)| holds(payload)).sum()
}

/// The frame with this text.
pub fn frame_with(file: &[u8], text: &str) -> Range<usize> {
    let holds = |payload: &[u8]| payload.windows(text.len()).any(|window| window == text.as_bytes());
    frames(file).into_iter().find(|(_, payload)| holds(payload)).expect("it is there").0
}

/// The same, as a later version of darner would write it.
pub fn of_a_later_version(file: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    bytes[8] = 99;
    let sum = crc32fast::hash(&bytes[..16]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
    bytes
}
