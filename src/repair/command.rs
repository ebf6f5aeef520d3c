//! `darner repair`

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;

use super::defaults::{self, usual_config};
use super::{Named, Request};
use crate::conf::{CommandLine, Conf};
use crate::exit_code::ExitCode;

/// Mends the volumes: puts back missing defaults, creates what the configuration names, corrects owners.
#[derive(clap::Parser)]
#[command(name = "darner repair", disable_version_flag = true)]
struct Arguments {
    /// Tell what would be done, and touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Look at everything, however long it takes.
    #[arg(long)]
    full: bool,
    /// The configuration file [default: config/mosquitto.conf below the root, or conf/mosquitto.conf where conf is mounted instead,
    /// or /myuser/mosquitto.conf].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder that holds config, pwfile, data and log [default: /mosquitto, or /myuser where that is mounted instead, else
    /// ./darner-data].
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The account that everything is to belong to [default: PUID:PGID, else 1883:1883 as root; nobody otherwise].
    #[arg(long, value_name = "UID:GID", value_parser = parse_owner)]
    owner: Option<(u32, u32)>,
}

/// How long the walk may take without `--full`.
const TIME_BUDGET: Duration = Duration::from_secs(10);
const LOCAL_ROOT: &str = "darner-data";
const IMAGE_OWNER: u32 = 1883;

fn parse_owner(text: &str) -> Result<(u32, u32), String> {
    let (uid, gid) = text.split_once(':').ok_or("two numbers are needed, such as 1883:1883")?;
    let number = |word: &str| word.parse().map_err(|_| format!("{word:?} is not a number"));
    Ok((number(uid)?, number(gid)?))
}

/// The account that files belong to when root repairs: PUID and PGID, else 1883.
fn usual_owner() -> Option<(u32, u32)> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(IMAGE_OWNER);
    nix::unistd::geteuid().is_root().then(|| (number("PUID"), number("PGID")))
}

/// The root and the configuration, absolute.
fn place(root: Option<PathBuf>, config: Option<PathBuf>) -> Option<(PathBuf, PathBuf)> {
    let config = config.map(std::path::absolute).transpose().ok()?;
    match (root, config) {
        (Some(root), config) => {
            let root = std::path::absolute(root).ok()?;
            Some((root.clone(), config.unwrap_or_else(|| usual_config(&root))))
        }
        (None, Some(config)) if config == defaults::pod_config() => Some((defaults::POD.into(), config)),
        (None, config) => {
            let image = Path::new(defaults::IMAGE);
            let (root, usual) =
                if image.is_dir() { defaults::usual(image) } else { defaults::usual(&std::path::absolute(LOCAL_ROOT).ok()?) };
            Some((root, config.unwrap_or(usual)))
        }
    }
}

/// `darner repair [--dry-run] [--full] [-c FILE]`: 0 when nothing is left to do, 1 when problems remain.
pub fn command(arguments: &[OsString]) -> ExitCode {
    let name = std::iter::once(OsString::from("repair"));
    let arguments = match Arguments::try_parse_from(name.chain(arguments.iter().cloned())) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
        }
    };
    let Some((root, config)) = place(arguments.root, arguments.config) else { return ExitCode::Usage };
    let request = Request {
        root,
        config,
        owner: arguments.owner.or_else(usual_owner),
        named: Named::default(),
        in_use: Vec::new(),
        dry_run: arguments.dry_run,
        full: arguments.full,
        time_budget: TIME_BUDGET,
    };
    let environment: Vec<_> =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect();
    let mut report = super::run(&request, |files| {
        // A configuration with errors is the broker's matter; its names are not known then.
        let conf = Conf::load(files, Some(&request.config), &CommandLine::default(), &environment).ok()?;
        Some(Named::from_conf(&conf))
    });
    let mut out = std::io::stdout().lock();
    let secrets = report.secrets.take();
    for line in report.lines.iter().chain(&secrets) {
        if writeln!(out, "{line}").is_err() {
            return ExitCode::Failure;
        }
    }
    if report.problems.is_empty() { ExitCode::Ok } else { ExitCode::Failure }
}
