//! The broker process: listeners, connections, timers, reloads. It performs the machine's effects, and is the only room with tokio.

mod accept;
mod challenges;
mod command_line;
mod connection;
mod connections;
mod crowd;
mod driver;
mod entrance;
mod keeping;
mod key_log;
mod listeners;
mod log_lines;
mod login;
mod outgoing;
mod password_check;
mod process;
mod reload;
#[cfg(feature = "rumqttd")]
mod routing;
#[cfg(not(feature = "rumqttd"))]
#[path = "no_routing.rs"]
mod routing;
mod run;
mod secure;
mod settings;
mod supervision;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use command_line::{Options, Request};
use key_log::KeyLogFile;
use listeners::Inherited;
use process::PidFile;
use run::Parts;
use settings::{Loaded, Refused, Source};
use supervision::{Control, Notify};

use crate::broker::{MOSQUITTO_VERSION, Settings};
use crate::conf::diagnostic::{Diagnostic, Severity};
use crate::conf::files::{Disk, ReadFiles};
use crate::conf::{Conf, LogConf, LogDestination};
use crate::exit_code::ExitCode;
use crate::logging::{LogType, Logger};
use crate::notice::Notice;

/// `mosquitto …` and `darner broker …` with their arguments: the broker alone, with or without a supervisor above it.
pub fn command(arguments: &[OsString]) -> ExitCode {
    match command_line::parse(arguments) {
        Ok(Request::Help) => {
            print(&format!("{}{}", version(), command_line::USAGE));
            ExitCode::Ok
        }
        Ok(Request::Version) => {
            print(&version());
            ExitCode::Ok
        }
        Ok(Request::Run(options)) => match start(&options) {
            Ok(code) => code,
            Err(Failure { code, lines }) => {
                // The log is not there yet, or it is what failed.
                let logger = Logger::new(&LogConf::default());
                for (log_type, line) in lines {
                    logger.log(log_type, &line);
                }
                code
            }
        },
        Err(line) => {
            complain(&format!("{line}\n\n{}", command_line::USAGE));
            ExitCode::Config
        }
    }
}

fn version() -> String {
    format!("mosquitto {MOSQUITTO_VERSION} (darner {})\n", env!("CARGO_PKG_VERSION"))
}

fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Why the broker does not start.
struct Failure {
    code: ExitCode,
    lines: Vec<(LogType, String)>,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { code: refused.exit_code, lines: refused.diagnostics.iter().flat_map(Diagnostic::log_lines).collect() }
    }
}

impl From<String> for Failure {
    fn from(line: String) -> Self {
        Self { code: ExitCode::Failure, lines: vec![(LogType::Error, line)] }
    }
}

/// In mosquitto's order, but for the sockets, which are bound before root is given up, so that ports below 1024 work.
fn start(options: &Options) -> Result<ExitCode, Failure> {
    let mut source = Source::new(options);
    if let Some(path) = &options.tls_keylog {
        source.log_keys(KeyLogFile::open(path)?);
    }
    let control = Control::from_environment().transpose()?;
    let files: Box<dyn ReadFiles> = match &control {
        Some(control) => Box::new(
            control.first().map_err(|error| format!("Error: The supervisor did not hand over the files of the configuration: {error}."))?,
        ),
        None => Box::new(Disk),
    };
    let Loaded { settings, tls, diagnostics } = source.load(&*files)?;
    if options.test {
        for (_, line) in diagnostics.iter().flat_map(Diagnostic::log_lines) {
            complain(&format!("{line}\n"));
        }
        complain("Configuration file is OK.\n");
        return Ok(ExitCode::Ok);
    }
    if control.is_none() {
        whole_password_files(&settings.conf, &diagnostics)?;
    }
    if options.daemon {
        process::daemon()?;
    }
    process::raise_open_files();
    if control.is_some() {
        crate::os::process::take_name(c"mosquitto");
    }
    let notify = Notify::from_environment();
    let (bound, result) = listeners::open(&settings.conf, Inherited::all());
    let dropped = process::drop_privileges(&settings.conf, control.is_some())?;
    let logger = Arc::new(Logger::new(&log_conf(options, &settings)));
    announce(&logger, &settings, &dropped, &diagnostics);
    for notice in &bound.notices {
        logger.notice(notice);
    }
    let stopped = |line: String| {
        logger.log(LogType::Error, &line);
        logger.notice(&Notice::Terminating { version: MOSQUITTO_VERSION });
        Ok(ExitCode::Failure)
    };
    if let Err(line) = result {
        return stopped(line);
    }
    let conf = Arc::clone(&settings.conf);
    let pid_file = conf.pid_file.as_deref().map(PidFile::write).transpose();
    let _pid_file = match pid_file {
        Ok(file) => file,
        Err(line) => return stopped(line),
    };
    let parts = Parts { settings, tls, source, logger: Arc::clone(&logger), listening: bound.listening, notify, control };
    let code = run::run(parts).map_err(|error| format!("Error: The event loop does not start: {error}."))?;
    logger.notice(&Notice::Terminating { version: MOSQUITTO_VERSION });
    Ok(code)
}

/// A broker of its own starts on no password file with a broken line, as mosquitto 2.1. Under PID 1 such a line costs its own user only,
/// and so it does at a reload: a container with one user less is better than none.
fn whole_password_files(conf: &Conf, diagnostics: &[Diagnostic]) -> Result<(), Failure> {
    let of_passwords = |path: &Path| conf.security.iter().any(|security| security.password_file.as_deref() == Some(path));
    let broken: Vec<_> =
        diagnostics.iter().filter(|found| found.severity == Severity::Error && found.file.as_deref().is_some_and(of_passwords)).collect();
    let Some(path) = broken.first().and_then(|found| found.file.as_ref()) else { return Ok(()) };
    let mut lines: Vec<_> = broken.iter().flat_map(|found| found.log_lines()).collect();
    lines.push((LogType::Error, format!("Error: Unable to decode line in password file '{}'.", path.display())));
    Err(Failure { code: ExitCode::Config, lines })
}

/// A daemon has no stderr: mosquitto's default destination is then syslog.
fn log_conf(options: &Options, settings: &Settings) -> LogConf {
    let mut log = settings.conf.log.clone();
    if options.daemon && log.destinations == LogConf::default().destinations {
        log.destinations = vec![LogDestination::Syslog];
    }
    log
}

fn announce(logger: &Logger, settings: &Settings, dropped: &[Notice], diagnostics: &[Diagnostic]) {
    logger.notice(&Notice::Starting { version: MOSQUITTO_VERSION });
    match &settings.conf.source {
        Some(path) => logger.notice(&Notice::ConfigLoaded { path: path.display().to_string() }),
        None => logger.notice(&Notice::DefaultConfig {}),
    }
    for (log_type, line) in diagnostics.iter().flat_map(Diagnostic::log_lines) {
        logger.log(log_type, &line);
    }
    for notice in dropped {
        logger.notice(notice);
    }
    if settings.conf.local_only {
        for notice in [Notice::LocalOnly {}, Notice::LocalOnlyHelp {}, Notice::LocalOnlyMore {}] {
            logger.notice(&notice);
        }
    }
}
