//! `darner check` and `darner explain`: a configuration judged without running it. Nothing is written.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser as _;

use crate::access;
use crate::acme::stand_in::StandIns;
use crate::conf::diagnostic::{Diagnostic, Severity};
use crate::conf::files::{Disk, Named, ReadFiles};
use crate::conf::{CommandLine, Conf, manual, options};
use crate::exit_code::ExitCode;
use crate::tls;

/// Where the image keeps its configuration, where certbot's image and one for OpenShift did, and where `darner` without an image does.
const USUAL_PATHS: [&str; 4] =
    ["/mosquitto/config/mosquitto.conf", "/mosquitto/conf/mosquitto.conf", "/myuser/mosquitto.conf", "darner-data/config/mosquitto.conf"];

/// A reader that went away (`| head`) is no failure.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// The disk, and what PID 1 puts in the place of certificates of DOMAIN that are not there yet.
struct WithCertificates(StandIns);

impl WithCertificates {
    fn now() -> Self {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self(StandIns::as_of(|name| std::env::var(name).ok(), i64::try_from(seconds).unwrap_or(i64::MAX)))
    }
}

impl ReadFiles for WithCertificates {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let path = self.0.path(path);
        self.0.file(&path).map_or_else(|| Disk.read(&path), |bytes| Ok(bytes.to_owned()))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(folder)
    }
}

/// The configuration file that commands take when none is named.
pub fn usual_path() -> PathBuf {
    USUAL_PATHS.into_iter().map(PathBuf::from).find(|path| path.exists()).unwrap_or_else(|| USUAL_PATHS[0].into())
}

/// A configuration as far as it can be understood, whatever is wrong with it.
pub fn understood(path: &Path) -> Conf {
    let environment: Vec<_> =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect();
    Conf::read(&Disk, Some(path), &CommandLine::default(), &environment).0
}

/// Every finding of a configuration and of the password and ACL files that it names, and how a broker would end on it.
fn judge(path: &Path) -> (Vec<Diagnostic>, ExitCode) {
    let environment: Vec<_> =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect();
    let (conf, mut found) = Conf::read(&Named(path), Some(path), &CommandLine::default(), &environment);
    let is_error = |found: &Diagnostic| found.severity == Severity::Error;
    let mut verdict = if found.iter().any(is_error) { ExitCode::Config } else { ExitCode::Ok };
    let files = WithCertificates::now();
    match access::load(&files, &conf) {
        Ok((_, more)) => found.extend(more),
        Err(error) => {
            found.extend_from_slice(error.diagnostics());
            if verdict == ExitCode::Ok {
                verdict = error.exit_code();
            }
        }
    }
    if let Err(more) = tls::load(&files, &conf) {
        found.extend(more);
        if verdict == ExitCode::Ok {
            verdict = ExitCode::Failure;
        }
    }
    (found, verdict)
}

/// Prints every error and warning of a mosquitto.conf and of the files that it names.
#[derive(clap::Parser)]
#[command(name = "darner check")]
struct CheckArguments {
    /// The configuration file [default: /mosquitto/config/mosquitto.conf, else /mosquitto/conf/mosquitto.conf, else /myuser/mosquitto.conf, else darner-data/config/mosquitto.conf].
    #[arg(short, long = "config-file", value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// The same without -c.
    #[arg(value_name = "FILE", conflicts_with = "config_file")]
    file: Option<PathBuf>,
}

/// `darner check [-c FILE]`: 0 where a broker would start, else what it would end with.
pub fn command(arguments: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from("darner check")).chain(arguments.iter().cloned());
    let arguments = match CheckArguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
        }
    };
    let path = arguments.config_file.or(arguments.file).unwrap_or_else(usual_path);
    let (found, verdict) = judge(&path);
    let mut text = String::new();
    for finding in &found {
        let place = match (&finding.file, finding.line) {
            (Some(file), Some(line)) => format!("{}:{line}: ", file.display()),
            (Some(file), None) => format!("{}: ", file.display()),
            (None, _) => String::new(),
        };
        let _ = writeln!(text, "{place}{}", finding.sentence());
    }
    let count = |severity| found.iter().filter(|finding| finding.severity == severity).count();
    let _ = match (verdict, count(Severity::Error), count(Severity::Warning)) {
        (ExitCode::Ok, _, 0) => writeln!(text, "Configuration file is OK."),
        (ExitCode::Ok, _, warnings) => writeln!(text, "Configuration file is OK. Warnings: {warnings}."),
        (_, errors, warnings) => writeln!(text, "Configuration file is not OK. Errors: {errors}, warnings: {warnings}."),
    };
    print(&text);
    verdict
}

/// `darner explain OPTION`: the table's row; without an option, every name.
pub fn explain_command(arguments: &[OsString]) -> ExitCode {
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    match words.as_slice() {
        [] => {
            let mut text = String::new();
            for row in options::OPTIONS {
                let _ = writeln!(text, "{:32} {}", row.name, row.doc);
            }
            print(&text);
            ExitCode::Ok
        }
        [option] if option.starts_with('-') => {
            print("darner explain [OPTION]: what an option of mosquitto.conf means here; without OPTION, all of them in a line each.\n");
            if option == "-h" || option == "--help" { ExitCode::Ok } else { ExitCode::Usage }
        }
        [option, ..] => match manual::explain(option) {
            Ok(text) => {
                print(&text);
                ExitCode::Ok
            }
            Err(near) => {
                let hint = near.map(|name| format!(" Did you mean `{name}`?")).unwrap_or_default();
                eprintln!("Error: Unknown configuration variable '{}'.{hint}", option.escape_debug());
                ExitCode::Failure
            }
        },
    }
}
