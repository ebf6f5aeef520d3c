//! Password hashes and the `mosquitto_passwd` command.
//!
//! `arguments` reads the command line, `entries` decides which lines change (pure), `file` makes the change under a lock so that no
//! kill, full disk or second run loses an entry.

mod arguments;
mod entries;
mod file;
mod in_place;
mod prompt;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use crate::access::password_hash::{PasswordHash, Scheme};
use crate::exit_code::ExitCode;
use arguments::{Action, Request};
use entries::Edit;

/// mosquitto 2.1's cost of argon2id.
const ARGON2ID: Scheme = Scheme::Argon2id { memory: 47104, passes: 1, lanes: 1 };

/// A failure as the user sees it: one line, and how the process ends.
struct Failure {
    message: String,
    exit_code: ExitCode,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), exit_code: ExitCode::Failure }
    }
}

/// `mosquitto_passwd` with its arguments (without the program's name). Silent when it succeeds, as mosquitto 2.0 is.
pub fn command(arguments: &[OsString]) -> ExitCode {
    match arguments::parse(arguments).and_then(|request| perform(&request)) {
        Ok(()) => ExitCode::Ok,
        Err(failure) => {
            say(&failure.message);
            failure.exit_code
        }
    }
}

/// To stderr; that nobody listens is no reason to fail.
fn say(line: &str) {
    if !line.is_empty() {
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}

fn perform(request: &Request) -> Result<(), Failure> {
    let path = Path::new(&request.path);
    match &request.action {
        Action::Delete { username } => file::edit(path, |bytes| {
            let edit = entries::delete(bytes, username);
            if edit.is_empty() { Err(Failure::new(format!("Warning: User {username} not found in password file."))) } else { Ok(edit) }
        }),
        Action::HashAll => file::edit(path, |bytes| hash_all(bytes, request.scheme)),
        Action::Set { create, username, password } => {
            let to_stdout = *create && arguments::is_stdout(&request.path);
            if !create {
                file::check(path)?;
            }
            let password = match password {
                Some(password) => password.clone(),
                None => prompt::new_password(to_stdout)?,
            };
            let entry = format!("{username}:{}", hash(request.scheme, &password)?);
            if to_stdout {
                let unable = |_| Failure::new("Error: Unable to write to stdout.");
                return std::io::stdout().write_all(format!("{entry}\n").as_bytes()).map_err(unable);
            }
            if *create { file::create(path, &entry) } else { file::edit(path, |bytes| Ok(entries::set(bytes, username, &entry))) }
        }
    }
}

/// A line of a password file, as the command would write it.
///
/// # Errors
/// The name or the password cannot be used: a sentence.
pub fn entry(username: &str, password: &[u8]) -> Result<String, String> {
    let make = || {
        let username = arguments::check_username(username.as_ref())?;
        let password = arguments::check_password(std::os::unix::ffi::OsStrExt::from_bytes(password))?;
        Ok(format!("{username}:{}", hash(arguments::SCHEME_DEFAULT, &password)?))
    };
    make().map_err(|failure: Failure| failure.message)
}

fn hash_all(bytes: &[u8], scheme: Scheme) -> Result<Edit, Failure> {
    let (plain, broken) = entries::plain_text(bytes);
    for username in broken {
        say(&format!("Warning: The hash of user {} is damaged; it is left as it is. Set the password again.", username.escape_debug()));
    }
    let mut edit = Edit::default();
    for entry in plain {
        let line = format!("{}:{}", entry.username, hash(scheme, entry.password)?);
        edit.changes.push((entry.line, Some(line)));
    }
    Ok(edit)
}

/// 12 bytes of salt: what every mosquitto reads.
fn hash(scheme: Scheme, password: &[u8]) -> Result<PasswordHash, Failure> {
    let mut salt = [0; 16];
    let salt = if matches!(scheme, Scheme::Argon2id { .. }) { &mut salt[..] } else { &mut salt[..12] };
    getrandom::fill(salt).map_err(|reason| Failure::new(format!("Error: Unable to make a salt. {reason}.")))?;
    PasswordHash::new(scheme, password, salt)
        .ok_or_else(|| Failure { message: "Error: Unable to hash password.".into(), exit_code: ExitCode::Other(10) })
}
