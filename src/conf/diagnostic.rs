//! A finding in a configuration, password or ACL file: place, word, reason, next step, in one line.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::logging::LogType;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Notice,
    Warning,
    Error,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    pub file: Option<PathBuf>,
    /// 1-based; `None` when the whole file is meant.
    pub line: Option<usize>,
    /// mosquitto's own sentence where it has one ("Unknown configuration variable \"foo\".").
    pub message: String,
    /// The near miss or the next step.
    pub hint: Option<String>,
}

/// Most findings of one file: something else that was taken for one must not fill the memory, nor the log.
pub const FINDINGS_MAX: usize = 200;
/// Bytes of a sentence, which may quote a line.
const SENTENCE_MAX: usize = 1_000;

/// A sentence that is not too long.
pub(super) fn cut(mut sentence: String) -> String {
    if sentence.len() > SENTENCE_MAX {
        sentence.truncate(sentence.floor_char_boundary(SENTENCE_MAX));
        sentence.push('…');
    }
    sentence
}

/// The findings of one file, of which there are not too many.
#[derive(Debug, Default)]
pub struct Findings {
    kept: Vec<Diagnostic>,
    has_error: bool,
    /// How many are not kept.
    more: usize,
}

impl Findings {
    pub fn push(&mut self, found: Diagnostic) {
        self.has_error |= found.severity == Severity::Error;
        if self.kept.len() < FINDINGS_MAX {
            self.kept.push(Diagnostic { message: cut(found.message), ..found });
        } else {
            self.more += 1;
        }
    }

    pub fn has_error(&self) -> bool {
        self.has_error
    }

    /// All that were kept, and how many were not.
    pub fn end(self, file: &Path) -> Vec<Diagnostic> {
        let Self { mut kept, has_error, more } = self;
        if more > 0 {
            let (severity, word) = if has_error { (Severity::Error, "Error") } else { (Severity::Warning, "Warning") };
            let message = format!("{word}: There are {more} findings more.");
            kept.push(Diagnostic {
                severity,
                file: Some(file.to_owned()),
                line: None,
                message,
                hint: Some("Is this the right file?".into()),
            });
        }
        kept
    }
}

/// By file in the order they were first spoken of, then by line; what concerns no file comes last.
pub(super) fn sort(diagnostics: &mut [Diagnostic]) {
    let mut files: Vec<PathBuf> = Vec::new();
    for file in diagnostics.iter().filter_map(|found| found.file.as_ref()) {
        if !files.contains(file) {
            files.push(file.clone());
        }
    }
    let place = |found: &Diagnostic| {
        let file = found.file.as_ref().and_then(|file| files.iter().position(|known| known == file));
        (file.unwrap_or(usize::MAX), found.line.unwrap_or(usize::MAX))
    };
    diagnostics.sort_by_key(place);
}

impl Diagnostic {
    /// `Error: MESSAGE HINT`, `Warning: …`, or the bare notice. A sentence that begins with the word itself keeps it once.
    pub fn sentence(&self) -> String {
        let word = match self.severity {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
            Severity::Notice => "",
        };
        let prefix = if word.is_empty() || self.message.starts_with(word) { String::new() } else { format!("{word}: ") };
        let hint = self.hint.as_ref().map(|hint| format!(" {hint}")).unwrap_or_default();
        format!("{prefix}{}{hint}", self.message)
    }

    /// As mosquitto logs it: the sentence, and for an error then `Error found at FILE:LINE.`
    pub fn log_lines(&self) -> Vec<(LogType, String)> {
        let log_type = match self.severity {
            Severity::Error => LogType::Error,
            Severity::Warning => LogType::Warning,
            Severity::Notice => LogType::Notice,
        };
        let mut lines = vec![(log_type, self.sentence())];
        if let (Severity::Error, Some(file), Some(line)) = (self.severity, &self.file, self.line) {
            lines.push((LogType::Error, format!("Error found at {}:{line}.", file.display())));
        }
        lines
    }
}

impl fmt::Display for Diagnostic {
    /// `FILE:LINE: MESSAGE HINT`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " {hint}")?;
        }
        Ok(())
    }
}
