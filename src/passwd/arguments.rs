//! The command line of mosquitto_passwd, with its conflicts and sentences.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::{ARGON2ID, Failure};
use crate::access::password_hash::{ITERATIONS_MAX, Scheme};

/// mosquitto 2.1's; 2.0 reads it too.
const ITERATIONS_DEFAULT: u32 = 1000;
pub(super) const SCHEME_DEFAULT: Scheme = Scheme::Pbkdf2 { iterations: ITERATIONS_DEFAULT };
/// Bytes of a user name or a password: what a string of MQTT can hold.
const LEN_MAX: usize = 65535;

const USAGE: &str = "\
mosquitto_passwd is a tool for managing password files for mosquitto.

Usage: mosquitto_passwd [-H hash] [-I iterations] [-c | -D] passwordfile username
       mosquitto_passwd [-H hash] [-I iterations] [-c] -b passwordfile username password
       mosquitto_passwd [-H hash] [-I iterations] -U passwordfile
 -b : run in batch mode to allow passing passwords on the command line.
      Other users of this machine can see them there.
 -c : create a new password file. This will overwrite existing files.
      The file name - writes the entry to stdout.
 -D : delete the username rather than adding/updating its password.
 -H : specify the hashing algorithm: sha512-pbkdf2 (default), argon2id or sha512.
 -I : iterations of sha512-pbkdf2 (default 1000).
 -U : update a plain text password file to use hashed passwords.
      Entries that are hashed already are left alone.
";

pub(super) struct Request {
    pub(super) scheme: Scheme,
    pub(super) path: OsString,
    pub(super) action: Action,
}

pub(super) enum Action {
    /// Add or change; `create` starts with an empty file. Without a password, ask for it.
    Set {
        create: bool,
        username: String,
        password: Option<Vec<u8>>,
    },
    Delete {
        username: String,
    },
    HashAll,
}

#[derive(Default)]
struct Flags {
    batch: bool,
    create: bool,
    delete: bool,
    update: bool,
}

type Conflict = (fn(&Flags) -> bool, &'static str);

const CONFLICTS: &[Conflict] = &[
    (|flags| flags.create && flags.delete, "-c and -D"),
    (|flags| flags.create && flags.update, "-c and -U"),
    (|flags| flags.delete && flags.batch, "-b and -D"),
    (|flags| flags.delete && flags.update, "-D and -U"),
];

pub(super) fn parse(arguments: &[OsString]) -> Result<Request, Failure> {
    let mut flags = Flags::default();
    let (mut algorithm, mut iterations) = (OsStr::new("sha512-pbkdf2"), ITERATIONS_DEFAULT);
    let mut rest = arguments;
    while let [word, after @ ..] = rest {
        rest = after;
        let mut value = |option: &str| match rest.split_first() {
            Some((value, after)) => {
                rest = after;
                Ok(value.as_os_str())
            }
            None => Err(Failure::new(format!("Error: {option} argument given but not enough other arguments."))),
        };
        match word.as_bytes() {
            b"-b" => flags.batch = true,
            b"-c" => flags.create = true,
            b"-D" => flags.delete = true,
            b"-U" => flags.update = true,
            b"-H" => algorithm = value("-H")?,
            b"-I" => iterations = parse_iterations(value("-I")?)?,
            _ => {
                // The first that is no option ends them.
                rest = arguments.get(arguments.len() - after.len() - 1..).unwrap_or_default();
                break;
            }
        }
    }
    let scheme = match algorithm.as_bytes() {
        b"sha512" => Scheme::Sha512,
        b"sha512-pbkdf2" => Scheme::Pbkdf2 { iterations },
        b"argon2id" => ARGON2ID,
        _ => return Err(Failure::new(format!("Error: Unknown hash type '{}'", algorithm.display()))),
    };
    if let Some((_, pair)) = CONFLICTS.iter().find(|(conflict, _)| conflict(&flags)) {
        return Err(Failure::new(format!("Error: {pair} cannot be used together.")));
    }
    let (path, action) = action(&flags, rest)?;
    Ok(Request { scheme, path, action })
}

fn parse_iterations(value: &OsStr) -> Result<u32, Failure> {
    let number: u32 = value.to_str().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    match number {
        0 => Err(Failure::new("Error: Number of iterations must be > 0.")),
        1..=ITERATIONS_MAX => Ok(number),
        _ => Err(Failure::new(format!("Error: Number of iterations must be <= {ITERATIONS_MAX}."))),
    }
}

fn action(flags: &Flags, rest: &[OsString]) -> Result<(OsString, Action), Failure> {
    let missing = |what: &str| Err(Failure::new(format!("Error: {what} missing.")));
    let set = |path: &OsString, username: &OsString, password: Option<&OsString>| {
        let password = password.map(|password| check_password(password)).transpose()?;
        let username = check_username(username)?;
        Ok((path.clone(), Action::Set { create: flags.create, username, password }))
    };
    match rest {
        [path, username, password, ..] if flags.create && flags.batch => set(path, username, Some(password)),
        _ if flags.create && flags.batch => missing("-c argument given but password file, username, or password"),
        [path, username, ..] if flags.create => set(path, username, None),
        _ if flags.create => missing("-c argument given but password file or username"),
        [path, username, ..] if flags.delete => Ok((path.clone(), Action::Delete { username: check_username(username)? })),
        _ if flags.delete => missing("-D argument given but password file or username"),
        [path] if flags.update => Ok((path.clone(), Action::HashAll)),
        _ if flags.update => missing("-U argument given but password file"),
        [path, username, password] if flags.batch => set(path, username, Some(password)),
        [path, username] if !flags.batch => set(path, username, None),
        _ => Err(Failure::new(USAGE)),
    }
}

/// What the broker would read back differently is refused, beyond what mosquitto refuses.
pub(super) fn check_username(username: &OsStr) -> Result<String, Failure> {
    let refuse = |reason: &str| Err(Failure::new(format!("Error: Username must {reason}.")));
    let Some(username) = username.to_str() else { return refuse("be UTF-8") };
    if username.len() > LEN_MAX {
        return refuse("be less than 65536 characters long");
    }
    if username.contains(char::is_control) {
        return refuse("not contain control characters");
    }
    if username.contains(':') {
        return refuse("not contain the ':' character");
    }
    if username.is_empty() {
        return refuse("not be empty");
    }
    if username.starts_with('#') {
        return refuse("not begin with '#': the line would be a comment");
    }
    if username.trim() != username {
        return refuse("not begin or end with a blank: the broker would not read it back");
    }
    Ok(username.to_owned())
}

pub(super) fn check_password(password: &OsStr) -> Result<Vec<u8>, Failure> {
    if password.len() > LEN_MAX {
        return Err(Failure::new("Error: Password must be less than 65536 characters long."));
    }
    Ok(password.as_bytes().to_vec())
}

/// Names of the process's own output, which is written to and not replaced.
pub(super) fn is_stdout(path: &OsStr) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == *name)
}
