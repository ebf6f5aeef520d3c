//! How mosquitto_sub prints a message: plain, verbose, or after the pattern of `-F`.

use std::io::Write as _;

use jiff::ZonedDateTime;
use jiff::tz::TimeZone;

use super::flows::Message;
use super::json;
use crate::mqtt::{PacketId, Property};

/// A checked `-F` pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Bytes(Vec<u8>),
    /// `%X`.
    Field(char, Width),
    /// `@X`: one conversion of strftime.
    Time(char),
}

/// Flags, width and precision between `%` and its letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Width {
    left: bool,
    zeros: bool,
    min: usize,
    max: Option<usize>,
}

/// Widths beyond this are taken as this: nobody's line is longer, and memory is not theirs to order.
const WIDTH_MAX: usize = 100_000;

/// Letters that may follow `%`.
const FIELDS: &str = "%ACDEFIjJlmPpqRrStUxX";

impl Format {
    /// Checks a pattern; `Err` is what the tool says.
    pub fn parse(pattern: &str) -> Result<Self, String> {
        let incomplete = || "Error: Incomplete format specifier.".to_owned();
        let mut pieces = Vec::new();
        let mut letters = pattern.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '%' => {
                    let mut width = Width {
                        left: letters.next_if_eq(&'-').is_some(),
                        zeros: letters.next_if_eq(&'0').is_some(),
                        min: digits(&mut letters).unwrap_or(0),
                        max: None,
                    };
                    if letters.next_if_eq(&'.').is_some() {
                        width.max = Some(digits(&mut letters).unwrap_or(0));
                    }
                    let field = letters.next().ok_or_else(incomplete)?;
                    if !FIELDS.contains(field) {
                        return Err(format!("Error: Invalid format specifier '{field}'."));
                    }
                    pieces.push(Piece::Field(field, width));
                }
                '@' => pieces.push(match letters.next().ok_or_else(incomplete)? {
                    '@' => Piece::Bytes(vec![b'@']),
                    conversion => Piece::Time(conversion),
                }),
                '\\' => {
                    let escape = letters.next().ok_or("Error: Incomplete escape specifier.")?;
                    pieces.push(Piece::Bytes(vec![match escape {
                        '\\' => b'\\',
                        '0' => 0,
                        'a' => 7,
                        'e' => 27,
                        'n' => b'\n',
                        'r' => b'\r',
                        't' => b'\t',
                        'v' => 11,
                        other => return Err(format!("Error: Invalid escape specifier '{other}'.")),
                    }]));
                }
                plain => pieces.push(Piece::Bytes(plain.to_string().into_bytes())),
            }
        }
        Ok(Self { pieces })
    }

    /// Appends one message. `Err` is what the tool says; what could be written stands in `out` all the same.
    pub fn write(&self, message: &Message, clock: &Clock, pretty: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let now = clock.now();
        let mut result = Ok(());
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Time('N') => write_nanoseconds(&now, out),
                Piece::Time(conversion) => out.extend_from_slice(strftime(*conversion, &now).as_bytes()),
                Piece::Field('j' | 'J', _) => {
                    let payload_is_json = matches!(piece, Piece::Field('J', _));
                    if json::write(message, &now, payload_is_json, pretty, out).is_err() {
                        result = Err(format!("Error: Message payload is not valid JSON on topic {}.", message.topic));
                    }
                }
                Piece::Field(field, width) => write_field(*field, *width, message, &now, out),
            }
        }
        result
    }
}

fn digits(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<usize> {
    let mut number = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        letters.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(WIDTH_MAX));
    }
    number
}

fn write_field(field: char, width: Width, message: &Message, now: &ZonedDateTime, out: &mut Vec<u8>) {
    let properties = &message.properties;
    let number = |find: fn(&Property) -> Option<u32>| properties.iter().find_map(find);
    let text = |find: fn(&Property) -> Option<&str>| properties.iter().find_map(find);
    match field {
        't' => width.text(&message.topic, out),
        'p' => width.payload(&message.payload, Hex::No, out),
        'x' => width.payload(&message.payload, Hex::Lower, out),
        'X' => width.payload(&message.payload, Hex::Upper, out),
        'q' => out.push(b'0' + message.qos as u8),
        'r' => out.push(b'0' + u8::from(message.retain)),
        'l' => width.number(Some(message.payload.len() as u64), out),
        'm' => width.number(Some(message.packet_id.map_or(0, PacketId::get).into()), out),
        'I' => width.text(&now.strftime("%Y-%m-%dT%H:%M:%S%z").to_string(), out),
        'U' => {
            let _ = write!(out, "{}.", now.timestamp().as_second());
            write_nanoseconds(now, out);
        }
        'A' => width.number(number(|p| if let Property::TopicAlias(n) = p { Some((*n).into()) } else { None }).map(Into::into), out),
        'E' => width.number(number(|p| if let Property::MessageExpiryInterval(n) = p { Some(*n) } else { None }).map(Into::into), out),
        'F' => {
            width.number(
                number(|p| if let Property::PayloadFormatIndicator(n) = p { Some((*n).into()) } else { None }).map(Into::into),
                out,
            );
        }
        'S' => width.number(number(|p| if let Property::SubscriptionIdentifier(n) = p { Some(*n) } else { None }).map(Into::into), out),
        'C' => width.text(text(|p| if let Property::ContentType(t) = p { Some(t) } else { None }).unwrap_or_default(), out),
        'R' => {
            if let Some(topic) = text(|p| if let Property::ResponseTopic(t) = p { Some(t) } else { None }) {
                width.text(topic, out);
            }
        }
        'D' => {
            if let Some(data) = properties.iter().find_map(|p| if let Property::CorrelationData(d) = p { Some(d) } else { None }) {
                out.extend_from_slice(data);
            }
        }
        'P' => {
            let pairs =
                properties.iter().filter_map(|p| if let Property::UserProperty(k, v) = p { Some(format!("{k}:{v}")) } else { None });
            out.extend_from_slice(pairs.collect::<Vec<_>>().join(" ").as_bytes());
        }
        _ => out.push(b'%'),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hex {
    No,
    Lower,
    Upper,
}

impl Width {
    fn text(self, text: &str, out: &mut Vec<u8>) {
        let kept: String = text.chars().take(self.max.unwrap_or(usize::MAX)).collect();
        let padding = vec![b' '; self.min.saturating_sub(kept.len())];
        let (before, after) = if self.left { (&[][..], &padding[..]) } else { (&padding[..], &[][..]) };
        for part in [before, kept.as_bytes(), after] {
            out.extend_from_slice(part);
        }
    }

    fn pad(self) -> u8 {
        if self.zeros { b'0' } else { b' ' }
    }

    /// A number that is absent is blank.
    fn number(self, number: Option<u64>, out: &mut Vec<u8>) {
        let digits = number.map(|number| number.to_string()).unwrap_or_default();
        let padding = self.min.saturating_sub(digits.len());
        if self.left && number.is_some() {
            out.extend_from_slice(digits.as_bytes());
            out.resize(out.len() + padding, b' ');
        } else {
            out.resize(out.len() + padding, self.pad());
            out.extend_from_slice(digits.as_bytes());
        }
    }

    /// A width cuts a payload, as mosquitto_sub does.
    fn payload(self, payload: &[u8], hex: Hex, out: &mut Vec<u8>) {
        let letters_each = if hex == Hex::No { 1 } else { 2 };
        let shown = if self.min > 0 && payload.len() > self.min { self.min } else { payload.len() };
        let shown = if self.min > 0 && hex != Hex::No { shown.min(self.min / 2) } else { shown };
        let padding = self.min.saturating_sub(shown * letters_each);
        if !self.left {
            out.resize(out.len() + padding, self.pad());
        }
        for byte in payload.iter().take(shown) {
            let _ = match hex {
                Hex::No => out.write_all(&[*byte]),
                Hex::Lower => write!(out, "{byte:02x}"),
                Hex::Upper => write!(out, "{byte:02X}"),
            };
        }
        if self.left {
            out.resize(out.len() + padding, b' ');
        }
    }
}

fn write_nanoseconds(now: &ZonedDateTime, out: &mut Vec<u8>) {
    let _ = write!(out, "{:09}", now.subsec_nanosecond());
}

/// One conversion of strftime in the C locale; one that is unknown prints nothing.
fn strftime(conversion: char, now: &ZonedDateTime) -> String {
    let pattern = match conversion {
        'c' => "%a %b %e %H:%M:%S %Y".to_owned(),
        'x' => "%m/%d/%y".to_owned(),
        'X' => "%H:%M:%S".to_owned(),
        'r' => "%I:%M:%S %p".to_owned(),
        other => format!("%{other}"),
    };
    jiff::fmt::strtime::format(pattern, now).unwrap_or_default()
}

/// The local time.
#[derive(Debug)]
pub struct Clock {
    zone: TimeZone,
}

impl Clock {
    /// The time zone of `TZ` or the machine; UTC where neither says one.
    pub fn new() -> Self {
        Self { zone: TimeZone::try_system().unwrap_or(TimeZone::UTC) }
    }

    pub fn now(&self) -> ZonedDateTime {
        jiff::Timestamp::now().to_zoned_datetime(self.zone.clone())
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// The payload, with the topic before it when `verbose`.
pub(super) fn write_plain(message: &Message, verbose: bool, end_of_line: bool, out: &mut Vec<u8>) {
    if message.payload.is_empty() {
        if verbose && end_of_line {
            let _ = writeln!(out, "{} (null)", message.topic);
        }
        return;
    }
    if verbose {
        let _ = write!(out, "{} ", message.topic);
    }
    out.extend_from_slice(&message.payload);
    if end_of_line {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::Qos;

    fn print(pattern: &str, message: &Message) -> String {
        let clock = Clock { zone: TimeZone::UTC };
        let mut out = Vec::new();
        let result = Format::parse(pattern).and_then(|format| format.write(message, &clock, false, &mut out));
        result.err().unwrap_or_else(|| String::from_utf8_lossy(&out).into_owned())
    }

    fn message() -> Message {
        Message {
            topic: "a/b".into(),
            payload: b"hi".to_vec(),
            qos: Qos::AtLeastOnce,
            retain: true,
            packet_id: PacketId::new(7),
            properties: vec![
                Property::ContentType("text".into()),
                Property::UserProperty("k".into(), "v".into()),
                Property::UserProperty("k".into(), "w".into()),
                Property::MessageExpiryInterval(60),
            ],
        }
    }

    #[test]
    fn widths_pad_and_cut_as_mosquitto_sub_does() {
        // Left column: what mosquitto_sub 2.0.11 printed for the same pattern and message.
        for (expected, pattern) in [
            ("a/b|       a/b|a/b       |a", "%t|%10t|%-10t|%.1t"),
            ("hi|   hi|hi   |000hi|h", "%p|%5p|%-5p|%05p|%1p"),
            ("6869|  6869|6869|68 |6869", "%x|%6x|%04x|%-3x|%X"),
            ("2|002|1|1|7|  7", "%l|%03l|%q|%r|%m|%3m"),
            ("|     |00000", "%S|%5S|%05S"),
            ("text|k:v k:w|60||%", "%C|%P|%E|%R|%%"),
            ("\t\n\\@", "\\t\\n\\\\@@"),
        ] {
            assert_eq!(print(pattern, &message()), expected);
        }
    }

    #[test]
    fn a_pattern_that_ends_too_early_or_is_unknown_is_refused() {
        for (pattern, expected) in [
            ("%", "Error: Incomplete format specifier."),
            ("%-", "Error: Incomplete format specifier."),
            ("%10", "Error: Incomplete format specifier."),
            ("%z", "Error: Invalid format specifier 'z'."),
            ("@", "Error: Incomplete format specifier."),
            ("\\", "Error: Incomplete escape specifier."),
            ("\\q", "Error: Invalid escape specifier 'q'."),
        ] {
            assert_eq!(Format::parse(pattern), Err(expected.to_owned()), "{pattern}");
        }
    }
}
