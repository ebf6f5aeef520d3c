//! What a stranger sent cannot start a new line or drive a terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// C0, DEL and C1 as `\x1b`; line separators and the marks that reorder text as `\u{202e}`.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(must_be_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for char in text.chars() {
        let code = u32::from(char);
        let _ = match must_be_escaped(char) {
            false => escaped.write_char(char),
            true if code < 0x100 => write!(escaped, "\\x{code:02x}"),
            true => write!(escaped, "\\u{{{code:x}}}"),
        };
    }
    Cow::Owned(escaped)
}

fn must_be_escaped(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_stays_one_harmless_line() {
        assert_eq!(escape("id\x1b[2J\r\nfake\u{9b}\u{202e}\u{2028}ok ü"), "id\\x1b[2J\\x0d\\x0afake\\x9b\\u{202e}\\u{2028}ok ü");
        assert!(matches!(escape("plain ü"), Cow::Borrowed(_)));
    }
}
