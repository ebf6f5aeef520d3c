//! `darner db`: what is kept, for people: shown, taken over from mosquitto, and given back to it.

mod dump;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser as _;

use crate::check;
use crate::conf::Conf;
use crate::exit_code::ExitCode;
use crate::store::mosquitto::{self, Exported, Report, Terms};
use crate::store::offline::{self, Condition, Kind};
use crate::store::{self, Place, State};

/// Shows what is kept, takes over what mosquitto kept, and gives it back.
#[derive(clap::Parser)]
#[command(name = "darner db")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List a store of darner's or a database of mosquitto's; of a running broker, too.
    Dump {
        /// The file [default: the store of the configuration, or mosquitto's database where there is none yet].
        file: Option<PathBuf>,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        conf: Configuration,
    },
    /// Make a store of a database of mosquitto's, which is left as it is. A broker that starts without a store does so by itself.
    Import {
        /// mosquitto's database.
        #[arg(value_name = "MOSQUITTO_DB")]
        database: PathBuf,
        /// The store [default: that of the configuration].
        store: Option<PathBuf>,
        /// Put it in the place of a store that is there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        conf: Configuration,
    },
    /// Make a database for mosquitto 1.6.11 to 2.1 of a store.
    #[command(allow_missing_positional = true)]
    Export {
        /// The store [default: that of the configuration].
        store: Option<PathBuf>,
        /// The database to make.
        #[arg(value_name = "MOSQUITTO_DB", required = true)]
        database: PathBuf,
        /// Put it in the place of a file that is there.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        conf: Configuration,
    },
}

#[derive(clap::Args)]
struct Configuration {
    /// The configuration file [default: as darner check finds it].
    #[arg(short, long = "config-file", value_name = "FILE")]
    config_file: Option<PathBuf>,
}

impl Configuration {
    /// `is_needed`: it is to say where the store is.
    fn read(self, is_needed: bool) -> Result<Conf, String> {
        let is_named = self.config_file.is_some();
        let path = self.config_file.unwrap_or_else(check::usual_path);
        match File::open(&path) {
            Ok(_) => Ok(check::understood(&path)),
            Err(error) if is_named => Err(cannot("read", &path, &error)),
            Err(error) if is_needed => Err(format!("{} Name the files, or the configuration with -c.", cannot("read", &path, &error))),
            Err(_) => Ok(Conf::default()),
        }
    }
}

/// What went wrong, in a sentence.
type Outcome = Result<(), String>;

/// `darner db dump|import|export`
pub fn command(arguments: &[OsString]) -> ExitCode {
    let words = std::iter::once(OsString::from("darner db")).chain(arguments.iter().cloned());
    let arguments = match Arguments::try_parse_from(words) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok };
        }
    };
    let outcome = match arguments.command {
        Command::Dump { file, json, conf } => conf.read(file.is_none()).and_then(|conf| dump(file, json, &conf)),
        Command::Import { database, store, force, conf } => {
            conf.read(store.is_none()).and_then(|conf| import(&database, store, force, &conf))
        }
        Command::Export { store, database, force, conf } => {
            conf.read(store.is_none()).and_then(|conf| export(store, &database, force, &conf))
        }
    };
    match outcome {
        Ok(()) => ExitCode::Ok,
        Err(sentence) => {
            eprintln!("Error: {sentence}");
            ExitCode::Failure
        }
    }
}

/// Milliseconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn shown(path: &Path) -> impl std::fmt::Display {
    path.display()
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("{} cannot be {what}: {error}.", shown(path))
}

/// A file of either kind.
struct Contents {
    state: State,
    /// In a few words.
    kind: String,
    /// What is not in `state`, and why.
    missing: Option<String>,
}

fn read(path: &Path, terms: &Terms) -> Result<Contents, String> {
    match offline::kind(path).map_err(|error| cannot("read", path, &error))? {
        Kind::Mosquittos => {
            let (state, report) = read_database(path, terms)?;
            let missing = (!report.is_whole()).then(|| report.missing());
            Ok(Contents { state, kind: format!("mosquitto's database, format version {}", report.version), missing })
        }
        Kind::Empty => Ok(Contents { state: State::default(), kind: "an empty file".into(), missing: None }),
        Kind::Neither => Err(format!("{} is neither a store of darner's nor a database of mosquitto's.", shown(path))),
        Kind::Store => {
            let (state, condition) = offline::look(path, terms.zero).map_err(|error| cannot("read", path, &error))?;
            let missing = match condition {
                Condition::Whole => None,
                Condition::Damaged(at) if offline::is_in_use(path) => {
                    Some(format!("from byte {at} on it was not all readable, perhaps because a broker was writing to it"))
                }
                Condition::Damaged(at) => Some(format!("it is damaged from byte {at} on")),
                Condition::Newer => return Err(format!("{} was written by a later version of darner.", shown(path))),
                Condition::Older => return Err(format!("{} was written by a version of darner before the first release.", shown(path))),
            };
            Ok(Contents { state, kind: "a store of darner's".into(), missing })
        }
    }
}

fn read_database(path: &Path, terms: &Terms) -> Result<(State, Report), String> {
    let read = store::read_database(path, terms).map_err(|error| cannot("read", path, &error))?;
    read.map_err(|unreadable| format!("{} cannot be imported: {unreadable}.", shown(path)))
}

fn dump(file: Option<PathBuf>, json: bool, conf: &Conf) -> Outcome {
    let terms = Terms::of(conf, now());
    let usual = || {
        let store = store::path(&conf.persistence);
        if store.exists() { store } else { store::configured(&conf.persistence) }
    };
    let path = file.unwrap_or_else(usual);
    let Contents { state, kind, missing } = read(&path, &terms)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let written = if json {
        dump::json(&state, terms.zero, &mut out)
    } else {
        dump::text(&state, (&shown(&path).to_string(), &kind), terms.zero, &mut out)
    };
    match written {
        // A reader that went away (`| head`) is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(format!("the list cannot be written: {error}.")),
        _ => drop(out),
    }
    missing.map_or(Ok(()), |missing| Err(format!("not all of {} is in this list: {missing}.", shown(&path))))
}

fn import(database: &Path, store: Option<PathBuf>, force: bool, conf: &Conf) -> Outcome {
    let store = store.unwrap_or_else(|| store::path(&conf.persistence));
    match offline::kind(&store) {
        Ok(Kind::Mosquittos) => {
            return Err(format!("{} is a database of mosquitto's, which is left as it is. Name another store.", shown(&store)));
        }
        Ok(_) if offline::is_in_use(&store) => return Err(in_use(&store)),
        Ok(Kind::Store | Kind::Neither) if !force => {
            return Err(format!("{} is there already. --force puts the import in its place.", shown(&store)));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot("read", &store, &error)),
        _ => {}
    }
    let terms = Terms::of(conf, now());
    if offline::kind(database).is_ok_and(|kind| kind != Kind::Mosquittos) {
        return Err(format!("{} is not a database of mosquitto's.", shown(database)));
    }
    let (state, report) = read_database(database, &terms)?;
    offline::create(&store, &state, terms.zero).map_err(|error| cannot("written", &store, &error))?;
    let Report { retained, sessions, subscriptions, queued, expired, own, .. } = report;
    println!(
        "Imported from {} (format version {}), which was left as it was, into {}: {retained} retained messages, {sessions} sessions, \
         {subscriptions} subscriptions, {queued} queued messages.",
        shown(database),
        report.version,
        shown(&store)
    );
    if expired + own > 0 {
        println!("Left out: {expired} that had expired, {own} of the broker's own.");
    }
    if report.is_whole() { Ok(()) } else { Err(format!("not all of {} could be imported: {}.", shown(database), report.missing())) }
}

fn in_use(store: &Path) -> String {
    format!("a broker is running on {}, and would not notice. Stop it first.", shown(store))
}

fn export(store: Option<PathBuf>, database: &Path, force: bool, conf: &Conf) -> Outcome {
    let terms = Terms::of(conf, now());
    let store = store.unwrap_or_else(|| store::path(&conf.persistence));
    let is_same = |other: &Path| other.canonicalize().is_ok_and(|other| database.canonicalize().is_ok_and(|database| database == other));
    if is_same(&store) || (database.exists() && offline::is_in_use(database)) {
        return Err(format!("{} is the store itself, or another that a broker is running on. Name another file.", shown(database)));
    }
    let Contents { state, missing, .. } = read(&store, &terms)?;
    let exported = write_database(database, &state, &terms, force)?;
    let Exported { retained, sessions, subscriptions, queued, wills } = exported;
    println!(
        "Exported from {} to {}, for mosquitto 1.6.11 to 2.1: {retained} retained messages, {sessions} sessions, {subscriptions} subscriptions, \
         {queued} queued messages.",
        shown(&store),
        shown(database)
    );
    if wills > 0 {
        println!("Left out: {wills} wills that wait, for which mosquitto's database has no place.");
    }
    if offline::is_in_use(&store) {
        println!("A broker is running on {}: what it takes in from now on is not in the export.", shown(&store));
    }
    missing.map_or(Ok(()), |missing| Err(format!("not all of {} was exported: {missing}.", shown(&store))))
}

/// All of it or nothing.
fn write_database(path: &Path, state: &State, terms: &Terms, force: bool) -> Result<Exported, String> {
    if path.exists() && !force {
        return Err(format!("{} is there already. --force puts the export in its place.", shown(path)));
    }
    let write = |file: &mut File| mosquitto::export(state, terms, BufWriter::with_capacity(1 << 20, file));
    Place::of(path).and_then(|place| place.put(".export".as_ref(), write)).map_err(|error| cannot("written", path, &error))
}
