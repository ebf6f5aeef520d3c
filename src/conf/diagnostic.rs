//! A finding in a configuration, password or ACL file: place, word, reason, next step, in one line.

use std::fmt;
use std::path::PathBuf;

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

impl Diagnostic {
    /// As mosquitto logs it: `Error: MESSAGE HINT` and then `Error found at FILE:LINE.`, `Warning: …`, or the bare notice.
    pub fn log_lines(&self) -> Vec<(LogType, String)> {
        let (log_type, prefix) = match self.severity {
            Severity::Error => (LogType::Error, "Error: "),
            Severity::Warning => (LogType::Warning, "Warning: "),
            Severity::Notice => (LogType::Notice, ""),
        };
        let hint = self.hint.as_ref().map(|hint| format!(" {hint}")).unwrap_or_default();
        let mut lines = vec![(log_type, format!("{prefix}{}{hint}", self.message))];
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
