//! The first user of a broker that lets nobody in without a password: made once, with the file, and never again.
//!
//! With a password from the environment it is made in a password file that is missing or empty. With a password at random it is made only
//! where somebody asked for it (`DARNER_ADMIN_USER`, the layout for OpenShift): a door that nobody expects is no help.

use std::io;
use std::path::{Path, PathBuf};

use super::apply::{Repair, absolute, errno};
use super::failure::Failed;
use super::observation::{Found, observe};
use super::plan::PASSWORD_MODE;
use super::{Named, defaults};
use crate::conf::files::{Disk, ReadFiles as _};
use crate::os::beneath::NewFile;
use crate::passwd;

const USER: &str = "admin";
/// Without those that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Of five bits each.
const RANDOM_LEN: usize = 24;

/// What the environment says.
struct Wish {
    user: Option<String>,
    password: Option<Vec<u8>>,
}

/// What is at the path of a password file that can get its first user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Missing,
    Empty,
}

impl Wish {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
        let password = match variable("DARNER_ADMIN_PASSWORD_FILE") {
            None => variable("DARNER_ADMIN_PASSWORD").map(String::into_bytes),
            Some(path) => {
                let mut bytes = Disk
                    .read(Path::new(&path))
                    .map_err(|error| format!("DARNER_ADMIN_PASSWORD_FILE '{path}' cannot be read ({error}): no user was made"))?;
                while bytes.ends_with(b"\n") || bytes.ends_with(b"\r") {
                    bytes.pop();
                }
                if bytes.is_empty() {
                    return Err(format!("DARNER_ADMIN_PASSWORD_FILE '{path}' is empty: no user was made"));
                }
                Some(bytes)
            }
        };
        Ok(Self { user: variable("DARNER_ADMIN_USER"), password })
    }
}

impl Repair<'_> {
    /// Before empty password files are made, so that one is never there without its first user.
    pub(super) fn admit(&mut self, named: &Named) {
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let given =
            ["DARNER_ADMIN_USER", "DARNER_ADMIN_PASSWORD", "DARNER_ADMIN_PASSWORD_FILE"].into_iter().find(|name| variable(name).is_some());
        let is_pod = defaults::is_pod(&self.request.root, &self.request.config);
        if given.is_none() && !is_pod {
            return;
        }
        if let Some(name) = given.filter(|_| named.password_files.is_empty()) {
            return self.say(format!("{name} is set, but the configuration names no password_file: no user was made"));
        }
        let places: Vec<_> = named.password_files.iter().filter_map(|path| Some((path.clone(), self.place(path)?))).collect();
        if places.is_empty() {
            return;
        }
        let wish = match Wish::read(variable) {
            Ok(wish) => wish,
            Err(reason) => return self.say(reason),
        };
        let user = wish.user.as_deref().unwrap_or(USER);
        if let Some(password) = &wish.password {
            for (path, place) in places {
                self.admit_to(&path, place, user, password, false);
            }
            return;
        }
        let invites =
            |path: &PathBuf, place| named.closed_password_files.contains(path) && (wish.user.is_some() || place == Place::Missing);
        for (path, place) in places.into_iter().filter(|(path, place)| invites(path, *place)) {
            match random_password() {
                Ok(password) => self.admit_to(&path, place, user, password.as_bytes(), true),
                Err(error) => self.say(format!("no password can be made for '{user}': {error}")),
            }
        }
    }

    fn place(&self, path: &Path) -> Option<Place> {
        match observe(&self.anchor, self.request, &absolute(path)) {
            Found::Nothing { .. } => Some(Place::Missing),
            Found::File(facts) if facts.bytes == 0 => Some(Place::Empty),
            _ => None,
        }
    }

    fn admit_to(&mut self, path: &Path, place: Place, user: &str, password: &[u8], is_random: bool) {
        let shown = path.display();
        let line = match passwd::entry(user, password) {
            Ok(line) => line + "\n",
            Err(reason) => return self.say(format!("no first user was made in '{shown}': {reason}")),
        };
        match self.store_entry(path, place, line.as_bytes()) {
            Ok(true) => {}
            // Another container was faster.
            Ok(false) => return,
            Err(error) if is_random => {
                return self.say(format!(
                    "'{shown}' cannot be written ({error}), so that no first user with a random password is made: make the folder writable, or set \
                     DARNER_ADMIN_PASSWORD"
                ));
            }
            Err(error) => {
                // A missing one is missed again, and counted, when an empty one is to be made.
                if place == Place::Empty {
                    self.failures.add(&self.top(&absolute(path)), Failed::Restore, errno(&error), &absolute(path));
                }
                self.substitutes.insert(path.to_owned(), line.into_bytes());
                return;
            }
        }
        match place {
            Place::Missing => self.did(format!("created '{shown}' (mode {PASSWORD_MODE:04o}): with '{user}' as its first user")),
            Place::Empty => self.did(format!("added '{user}' to '{shown}' as its first user: it was empty")),
        }
        if is_random && !self.request.dry_run {
            let password = String::from_utf8_lossy(password).into_owned();
            self.tell_once(format!(
                "*** FIRST USER of '{shown}': {user}, with the random PASSWORD {password} - shown this once and kept nowhere. \
                 To change it: mosquitto_passwd -b {shown} {user} NEW, then darner reload. If it is lost: remove the file and start again. ***"
            ));
        }
    }

    /// `false`: somebody else was there first.
    fn store_entry(&mut self, path: &Path, place: Place, line: &[u8]) -> io::Result<bool> {
        let path = absolute(path);
        match place {
            Place::Missing => {
                let file = NewFile { bytes: line, mode: PASSWORD_MODE, mtime: None, owner: self.request.owner };
                match self.make_file(&path, &file) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
                    result => result.map(|()| true),
                }
            }
            Place::Empty if self.request.dry_run => Ok(true),
            Place::Empty => self.fill_file(&path, line),
        }
    }
}

fn random_password() -> Result<String, getrandom::Error> {
    let mut bytes = [0; RANDOM_LEN];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().filter_map(|byte| LETTERS.get(usize::from(byte % 32))).map(|letter| char::from(*letter)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_passwords_are_long_and_no_two_are_alike() {
        let [first, second] = [(); 2].map(|()| random_password().expect("random"));
        assert_eq!((first.len(), second.len()), (RANDOM_LEN, RANDOM_LEN));
        assert_ne!(first, second);
        assert!(first.bytes().all(|byte| LETTERS.contains(&byte)));
    }

    #[test]
    fn a_file_with_the_password_goes_before_the_variable_and_has_to_be_there() {
        let file = std::env::temp_dir().join(format!("darner-admin-password-{}", std::process::id()));
        std::fs::write(&file, "from a file\n").expect("a file");
        let shown = file.display().to_string();
        let read = |pairs: &[(&str, &str)]| {
            Wish::read(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())).map(|wish| wish.password)
        };
        let both = [("DARNER_ADMIN_PASSWORD", "x"), ("DARNER_ADMIN_PASSWORD_FILE", shown.as_str())];
        assert_eq!(read(&both), Ok(Some(b"from a file".to_vec())));
        assert_eq!(read(&both[..1]), Ok(Some(b"x".to_vec())));
        assert_eq!(read(&[("DARNER_ADMIN_PASSWORD", "")]), Ok(None));
        std::fs::write(&file, "\n").expect("a file");
        assert!(read(&both).is_err_and(|reason| reason.contains("is empty")));
        let _ = std::fs::remove_file(&file);
        assert!(read(&both).is_err_and(|reason| reason.contains("cannot be read")));
    }
}
