//! What mosquitto does to its own process at the start: going into the background, giving up root, the pid file.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, chown, geteuid, setgid, setgroups, setuid};

use crate::conf::Conf;
use crate::notice::Notice;
use crate::os::accounts;
use crate::os::spawn::Identity;

/// As many open files as we are allowed: a connection is one.
pub(super) fn raise_open_files() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Leaves the terminal. Before any thread is made.
pub(super) fn daemon() -> Result<(), String> {
    nix::unistd::daemon(true, false).map_err(|error| format!("Error in daemon(): {}.", error.desc()))
}

/// Who the broker becomes, by name; `None`: it stays who it is.
fn account(conf: &Conf, said: &mut Vec<Notice>) -> Result<Option<(String, Identity)>, String> {
    if !geteuid().is_root() || conf.user == "root" {
        return Ok(None);
    }
    let passwd = accounts::passwd_file();
    let look_up = |name: &str| accounts::find(name, &passwd).map(|who| (name.to_owned(), who));
    if let Some(user) = look_up(&conf.user) {
        return Ok(Some(user));
    }
    let missing = format!("Error: Unable to drop privileges to '{}' because this user does not exist.", conf.user);
    if conf.user != "mosquitto" {
        return Err(missing);
    }
    said.push(Notice::TryingNobody {});
    look_up("nobody").map(Some).ok_or(missing)
}

/// Gives up root for good, after handing the sockets that were made as root to the new owner. A supervisor chose who we are, and said
/// it where that could not be anybody but root.
pub(super) fn drop_privileges(conf: &Conf, supervised: bool) -> Result<Vec<Notice>, String> {
    let mut said = Vec::new();
    let user = if supervised { None } else { account(conf, &mut said)? };
    if let Some((name, who)) = user {
        let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
        for path in conf.listeners.iter().filter_map(|listener| listener.unix_path.as_ref()) {
            // A socket of a supervisor's making is its own matter.
            let _ = chown(path, Some(uid), Some(gid));
        }
        become_user(&name, uid, gid)?;
        said.push(Notice::RunningAs { user: name });
    }
    if geteuid().is_root() {
        said.push(Notice::RunningAsRoot {});
    }
    Ok(said)
}

fn become_user(name: &str, uid: Uid, gid: Gid) -> Result<(), String> {
    let failed =
        |what: &'static str| move |error: nix::Error| format!("Error setting {what} whilst dropping privileges: {}.", error.desc());
    let others = accounts::supplementary_groups(name, &accounts::group_file()).into_iter().map(Gid::from_raw);
    let groups: Vec<Gid> = std::iter::once(gid).chain(others.filter(|other| *other != gid)).collect();
    setgroups(&groups).map_err(failed("groups"))?;
    setgid(gid).map_err(failed("gid"))?;
    setuid(uid).map_err(failed("uid"))
}

/// Removes its file when the broker ends.
pub(super) struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    pub(super) fn write(path: &'a Path) -> Result<Self, String> {
        match std::fs::write(path, format!("{}", std::process::id())) {
            Ok(()) => Ok(Self(path)),
            Err(error) => Err(format!(
                "Error: Unable to write pid file {} ({error}): its folder must be writable by the broker's user.",
                path.display()
            )),
        }
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}
