//! Text → directives. mosquitto's grammar, and what hurts nobody besides: tabs, a byte order mark, CRLF.

/// One line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directive<'a> {
    /// 1-based.
    pub(super) line: usize,
    pub(super) key: &'a str,
    /// Everything after the separator, trimmed.
    pub(super) rest: &'a str,
}

/// A line of a file: a directive, or bytes that are no UTF-8 (outside of remarks).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Directive(Directive<'a>),
    NotText(usize),
}

const SEPARATORS: [char; 2] = [' ', '\t'];

/// The directives of a file in order; remarks (`#` first) and empty lines are skipped.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').enumerate().filter_map(|(index, line)| {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            return None;
        }
        let number = index + 1;
        let Ok(text) = std::str::from_utf8(line) else {
            return Some(Line::NotText(number));
        };
        let (key, rest) = text.split_once(SEPARATORS).unwrap_or((text, ""));
        Some(Line::Directive(Directive { line: number, key, rest: rest.trim_start_matches(SEPARATORS) }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tabs_marks_carriage_returns_and_remarks_are_taken() {
        let text = b"\xEF\xBB\xBF# remark \xFF\r\nlistener\t1883 #x\r\n\r\n  user   me \r\n\xFFbad\nlast";
        let found: Vec<_> = lines(text).collect();
        let directive = |line, key, rest| Line::Directive(Directive { line, key, rest });
        assert_eq!(found, [directive(2, "listener", "1883 #x"), directive(4, "user", "me"), Line::NotText(5), directive(6, "last", "")]);
    }
}
