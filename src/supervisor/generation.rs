//! A configuration and every file that it names, read and checked in one go, sealed for the broker.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::arguments::Arguments;
use super::certificates::Given;
use crate::access;
use crate::acme::stand_in::StandIns;
use crate::conf::Conf;
use crate::conf::diagnostic::{Diagnostic, Severity};
use crate::conf::files::{Generation, ReadFiles, Recorder};
use crate::exit_code::ExitCode;
use crate::logging::LogType;
use crate::os;
use crate::os::spawn::Identity;
use crate::tls;

pub(super) struct Loaded {
    pub(super) conf: Conf,
    /// `Generation::to_bytes` in a sealed memory file.
    pub(super) archive: File,
    /// What is in it.
    pub(super) files: Generation,
    /// For who is to be told what a broker has.
    pub(super) given: Given,
}

/// Why nothing was loaded, and mosquitto's exit code for it.
pub(super) struct Refusal {
    /// As mosquitto logs them.
    pub(super) log_lines: Vec<(LogType, String)>,
    reasons: Vec<String>,
    pub(super) code: ExitCode,
}

impl Refusal {
    fn new(diagnostics: &[Diagnostic], code: ExitCode) -> Self {
        // What is only doubtful is no reason.
        let errors = diagnostics.iter().filter(|found| found.severity == Severity::Error);
        Self {
            log_lines: diagnostics.iter().flat_map(Diagnostic::log_lines).collect(),
            reasons: errors.map(ToString::to_string).collect(),
            code,
        }
    }

    /// For a verdict, which is one line.
    pub(super) fn one_line(&self) -> String {
        self.reasons.join(" | ")
    }
}

/// Reads the configuration through `files` and checks everything that can be checked without applying it. `look` is called when the
/// configuration is known and none of the files that it names was read.
pub(super) fn load(files: &dyn ReadFiles, arguments: &Arguments, look: impl FnOnce(&Conf)) -> Result<Loaded, Refusal> {
    let recorder = Recorder::new(files);
    let conf = read_conf(&recorder, arguments)?;
    look(&conf);
    read_security(&recorder, &conf)?;
    tls::load(&recorder, &conf).map_err(|diagnostics| Refusal::new(&diagnostics, ExitCode::Failure))?;
    let files = recorder.into_generation();
    let archive = os::fd_passing::sealed(c"darner-generation", &files.to_bytes()).map_err(|error| {
        let reason = format!("Error: the configuration cannot be handed to the broker: {error}.");
        Refusal { log_lines: vec![(LogType::Error, reason.clone())], reasons: vec![reason], code: ExitCode::Internal }
    })?;
    Ok(Loaded { conf, archive, files, given: Given::default() })
}

/// Only the configuration itself.
pub(super) fn read_conf(files: &dyn ReadFiles, arguments: &Arguments) -> Result<Conf, Refusal> {
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("DARNER_"))
        .collect();
    Conf::load(files, arguments.config.as_deref(), &arguments.command_line, &environment)
        .map_err(|diagnostics| Refusal::new(&diagnostics, ExitCode::Config))
}

/// Password and ACL files.
fn read_security(files: &dyn ReadFiles, conf: &Conf) -> Result<(), Refusal> {
    access::load(files, conf).map(drop).map_err(|error| Refusal::new(error.diagnostics(), error.exit_code()))
}

/// Files as the broker is to see them: what the repair puts in place of unusable ones, else the disk as PID 1 sees it. Root without
/// CAP_DAC_OVERRIDE cannot read the broker's own files, but the broker's user can.
#[derive(Default)]
pub(super) struct Eyes {
    pub(super) identity: Option<Identity>,
    pub(super) substitutes: Vec<(PathBuf, Vec<u8>)>,
    pub(super) stand_ins: StandIns,
}

impl ReadFiles for Eyes {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = &*self.stand_ins.path(path);
        if let Some(bytes) = self.stand_ins.file(path) {
            return Ok(bytes.to_owned());
        }
        match self.substitutes.iter().find(|(known, _)| known == path) {
            Some((_, bytes)) => Ok(bytes.clone()),
            None => self.look(|disk| disk.read(path)),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        self.look(|disk| disk.list(folder))
    }
}

impl Eyes {
    fn look<T>(&self, see: impl Fn(&dyn ReadFiles) -> io::Result<T>) -> io::Result<T> {
        let disk = crate::conf::files::Disk;
        match (see(&disk), self.identity) {
            (Err(error), Some(who)) if error.kind() == io::ErrorKind::PermissionDenied => {
                os::identity::acting_as((who.uid, who.gid), || see(&disk))
            }
            (result, _) => result,
        }
    }
}
