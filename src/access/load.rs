//! The password and ACL files that a configuration names, all of them or a reason.

use std::io;
use std::path::Path;

use super::{Acl, Passwords};
use crate::conf::diagnostic::{Diagnostic, Severity};
use crate::conf::files::ReadFiles;
use crate::conf::{Conf, Security};
use crate::exit_code::ExitCode;

/// Why the files cannot be used. Every error of every file is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadError {
    /// A file cannot be read (mosquitto's exit code 13).
    Unreadable(Vec<Diagnostic>),
    /// An ACL file has errors (3).
    BadAcl(Vec<Diagnostic>),
}

impl LoadError {
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            Self::Unreadable(diagnostics) | Self::BadAcl(diagnostics) => diagnostics,
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreadable(_) => ExitCode::SecurityFile,
            Self::BadAcl(_) => ExitCode::Config,
        }
    }
}

/// What one of `conf.security` names: `None` where it names no file.
pub type Tables = (Option<Passwords>, Option<Acl>);

/// One pair for each of `conf.security`. Broken password entries are among the diagnostics.
pub fn load(files: &dyn ReadFiles, conf: &Conf) -> Result<(Vec<Tables>, Vec<Diagnostic>), LoadError> {
    let mut tables: Vec<Tables> = Vec::new();
    let mut diagnostics = Vec::new();
    let (mut unreadable, mut bad_acl) = (false, false);
    for (index, security) in conf.security.iter().enumerate() {
        // Most listeners share their files: they are read, and complained of, once.
        let files_of = |other: &Security| (other.password_file.clone(), other.acl_file.clone());
        let earlier = conf.security.iter().take(index).position(|other| files_of(other) == files_of(security));
        if let Some(shared) = earlier.and_then(|earlier| tables.get(earlier).cloned()) {
            tables.push(shared);
            continue;
        }
        let mut passwords = None;
        if let Some(path) = &security.password_file {
            match files.read(path) {
                Ok(bytes) => {
                    let (parsed, found) = Passwords::parse(path, &bytes);
                    passwords = Some(parsed);
                    diagnostics.extend(found);
                }
                Err(reason) => {
                    unreadable = true;
                    diagnostics.extend(cannot_open(path, &reason, "pwfile", "password file", "password_file"));
                }
            }
        }
        let mut acl = None;
        if let Some(path) = &security.acl_file {
            match files.read(path).map(|bytes| Acl::parse(path, &bytes)) {
                Ok(Ok((parsed, found))) => {
                    acl = Some(parsed);
                    diagnostics.extend(found);
                }
                Ok(Err(found)) => {
                    bad_acl = true;
                    diagnostics.extend(found);
                }
                Err(reason) => {
                    unreadable = true;
                    diagnostics.extend(cannot_open(path, &reason, "acl_file", "acl file", "acl_file"));
                }
            }
        }
        tables.push((passwords, acl));
    }
    match (unreadable, bad_acl) {
        (true, _) => Err(LoadError::Unreadable(diagnostics)),
        (false, true) => Err(LoadError::BadAcl(diagnostics)),
        (false, false) => Ok((tables, diagnostics)),
    }
}

/// mosquitto's two lines.
fn cannot_open(path: &Path, reason: &io::Error, short: &str, long: &str, option: &str) -> [Diagnostic; 2] {
    let error = |message, hint| Diagnostic { severity: Severity::Error, file: None, line: None, message, hint };
    let shown = path.display();
    let hint = match reason.kind() {
        // EISDIR may have travelled as a bare number.
        io::ErrorKind::IsADirectory => "It is a directory: Docker made it because the file of a bind mount was missing on the host. Remove it there, create the file, and start again.".to_owned(),
        io::ErrorKind::NotFound => format!("It does not exist: create it, or remove {option} from the configuration."),
        io::ErrorKind::PermissionDenied => "The broker may not read it: make it belong to the broker's user (1883 in the image), mode 0600.".to_owned(),
        _ => format!("({reason})"),
    };
    [error(format!("Error: Unable to open {short} \"{shown}\"."), Some(hint)), error(format!("Error opening {long} \"{shown}\"."), None)]
}
