//! argv → command. No logic: each room has its own command function.

use std::ffi::OsString;
use std::path::Path;

use crate::acme;
use crate::check;
use crate::client;
use crate::db;
use crate::exit_code::ExitCode;
use crate::health;
use crate::os;
use crate::passwd;
use crate::repair;
use crate::supervisor;
use crate::transport;

type Run = fn(&[OsString]) -> ExitCode;

struct Command {
    /// A subcommand of `darner`, and a name that the binary may be installed under.
    word: &'static str,
    /// It runs with signals still blocked, because it reads a signalfd.
    blocked: bool,
    run: Run,
    /// For `darner --help`; empty for other names of the same thing.
    help: &'static str,
}

const fn command(word: &'static str, run: Run, help: &'static str) -> Command {
    Command { word, blocked: false, run, help }
}

/// For commands that read a signalfd.
const fn blocked(word: &'static str, run: Run, help: &'static str) -> Command {
    Command { word, blocked: true, run, help }
}

/// Every word, once.
const COMMANDS: &[Command] = &[
    blocked("run", supervisor::entrypoint_command, "mend the volumes and supervise \"mosquitto …\"; run any other command as it is"),
    blocked("docker-entrypoint.sh", supervisor::entrypoint_command, ""),
    blocked("supervise", supervisor::command, "supervise a broker with mosquitto's options (-c FILE, -p PORT, -v)"),
    blocked("init", supervisor::init_command, "be PID 1 over any command: init [--no-restart] -- COMMAND"),
    blocked("broker", transport::command, "the broker alone, with mosquitto's options"),
    blocked("mosquitto", transport::command, ""),
    command("reload", supervisor::reload_command, "check the configuration, then use it or say why not"),
    command("restart", supervisor::restart_command, "check the configuration, then restart the broker"),
    command("restart.sh", supervisor::restart_command, ""),
    command("status", supervisor::status_command, "what the supervisor and the broker are doing"),
    command("cert", supervisor::cert_command, "certificates: list them; cert renew [--force] [--dry-run]"),
    command("check", check::command, "judge a configuration without running it: check [-c FILE]"),
    command("explain", check::explain_command, "what an option of mosquitto.conf does here: explain [OPTION]"),
    command("repair", repair::command, "mend the volumes now: repair [--dry-run] [--full]"),
    command("db", db::command, "what is kept: db dump [--json] [FILE], db import MOSQUITTO_DB [STORE], db export [STORE] MOSQUITTO_DB"),
    command("healthcheck", health::command, "one round trip through the broker: exit code 0 or 1"),
    command("iotstack_healthcheck.sh", health::command, ""),
    command("acme", acme::command, ""),
    command("mosquitto_passwd", passwd::command, "change a password file"),
    command("mosquitto_pub", client::pub_command, "publish"),
    command("mosquitto_sub", client::sub_command, "subscribe"),
];

const SYNOPSIS: &str = "\
Usage: darner             supervise a broker with its files in ./darner-data (in the image: /mosquitto)
       darner COMMAND …

";

/// Runs what `argv` asks for, by the name it was called under, and returns how the process ends.
pub fn run(argv: Vec<OsString>) -> ExitCode {
    let name = argv.first().and_then(|name| Path::new(name).file_name()).unwrap_or_default();
    let find = |wanted: &std::ffi::OsStr| COMMANDS.iter().find(|command| wanted == command.word);
    if let Some(command) = find(name) {
        return start(command, argv.get(1..).unwrap_or_default());
    }
    let Some(word) = argv.get(1) else { return supervisor::plain_command(&[]) };
    match find(word) {
        Some(command) => start(command, argv.get(2..).unwrap_or_default()),
        None => answer(word),
    }
}

fn start(command: &Command, arguments: &[OsString]) -> ExitCode {
    if !command.blocked {
        os::signals::unblock_all();
    }
    (command.run)(arguments)
}

/// `--help`, `--version`, and words that are none of ours.
fn answer(word: &OsString) -> ExitCode {
    let word = word.to_string_lossy();
    match word.as_ref() {
        "--help" | "-h" | "help" => {
            let rows = COMMANDS.iter().filter(|command| !command.help.is_empty());
            let list: String = rows.map(|command| format!("  {:<18} {}\n", command.word, command.help)).collect();
            print!("{SYNOPSIS}{list}");
            ExitCode::Ok
        }
        "--version" | "-V" => {
            println!("darner {}", env!("CARGO_PKG_VERSION"));
            ExitCode::Ok
        }
        _ => {
            eprintln!("darner: unknown command \"{word}\". darner --help lists them.");
            ExitCode::Usage
        }
    }
}
