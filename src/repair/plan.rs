//! What was found → what is to be done about it. Pure: the whole judgement of the repair is here.

use std::path::{Path, PathBuf};

use super::observation::{Found, Leads, Role, Wanted};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    MakeFolder(PathBuf),
    MakeFile {
        path: PathBuf,
        bytes: Vec<u8>,
        mode: u32,
        mtime: Option<i64>,
        why: &'static str,
    },
    /// The broker is to use these bytes instead of what is at the path.
    Substitute(PathBuf, Vec<u8>),
    /// Somebody has to do something that we cannot or must not do.
    Say(String),
}

pub(super) const PASSWORD_MODE: u32 = 0o600;

/// What to do about one path. `config` is the built-in configuration.
pub(super) fn plan(wanted: &Wanted, found: &Found, config: &[u8]) -> Vec<Step> {
    let path = &wanted.path;
    match found {
        Found::Nothing { folder_exists } => missing(wanted, *folder_exists, config),
        Found::File(facts) if wanted.role == Role::Config && facts.bytes == 0 => vec![Step::Say(format!(
            "'{}' is empty: without a listener line only programs on this machine can connect. Remove the file to get the default one",
            path.display()
        ))],
        Found::File(_) if wanted.role.is_folder() => in_the_way(path, wanted, config),
        Found::File(_) => Vec::new(),
        Found::Folder if wanted.role.is_folder() => Vec::new(),
        Found::Folder => with_substitute(is_a_directory(path, wanted), wanted, config),
        Found::Special if wanted.role.is_folder() => in_the_way(path, wanted, config),
        Found::Special => Vec::new(),
        Found::Link(Leads::Folder) | Found::LinkAbove(_, Leads::Folder) if wanted.role.is_folder() => Vec::new(),
        Found::Link(leads) => link(wanted, path, *leads, config),
        Found::LinkAbove(above, leads) => link(wanted, above, *leads, config),
        Found::FileAbove(above) => in_the_way(above, wanted, config),
        Found::Unseen(errno) => vec![Step::Say(format!(
            "'{}' ({}) cannot be looked at: {}",
            path.display(),
            wanted.role.word(),
            nix::errno::Errno::from_raw(*errno).desc()
        ))],
    }
}

/// The bytes the broker can do with when the file cannot be had. Never an ACL that nobody wrote.
pub(super) fn substitute(wanted: &Wanted, config: &[u8]) -> Option<Vec<u8>> {
    match (wanted.role, &wanted.default) {
        (Role::Config, _) => Some(config.to_vec()),
        (Role::PasswordFile, _) => Some(Vec::new()),
        (Role::AclFile, default) => default.as_ref().map(|default| default.bytes.clone()),
        _ => None,
    }
}

fn missing(wanted: &Wanted, folder_exists: bool, config: &[u8]) -> Vec<Step> {
    let path = wanted.path.clone();
    if let Some(default) = &wanted.default {
        let why = "it was missing";
        return vec![Step::MakeFile { path, bytes: default.bytes.clone(), mode: default.mode, mtime: Some(default.mtime), why }];
    }
    match wanted.role {
        Role::PasswordFile => {
            let why = "the configuration names it; it is empty, so every login fails until mosquitto_passwd adds somebody";
            vec![Step::MakeFile { path, bytes: Vec::new(), mode: PASSWORD_MODE, mtime: None, why }]
        }
        // A typing error must not become an open broker: only a file of that very name, in a folder that is there.
        Role::Config if folder_exists && path.file_name().is_some_and(|name| name == "mosquitto.conf") => {
            vec![Step::MakeFile { path, bytes: config.to_vec(), mode: 0o644, mtime: None, why: "it was missing" }]
        }
        Role::Config => {
            vec![Step::Say(format!("the configuration '{}' does not exist: check the -c argument and the volumes", path.display()))]
        }
        Role::AclFile => vec![Step::Say(format!(
            "acl_file '{}' does not exist, and permissions are not invented: create it, or take the acl_file line away",
            path.display()
        ))],
        Role::DataFolder | Role::LogFolder | Role::PidFolder | Role::SocketFolder => vec![Step::MakeFolder(path)],
    }
}

fn is_a_directory(path: &Path, wanted: &Wanted) -> Vec<Step> {
    let shown = path.display();
    let mut sentence = format!(
        "'{shown}' ({}) is a directory: Docker made it because the file to be mounted did not exist on the host. \
         Stop the container, replace that directory on the host by the file, start again",
        wanted.role.word()
    );
    match wanted.role {
        Role::Config => sentence.push_str("; until then the built-in default configuration is used"),
        Role::PasswordFile => sentence.push_str("; until then every login fails"),
        _ => {}
    }
    vec![Step::Say(sentence)]
}

fn in_the_way(blocking: &Path, wanted: &Wanted, config: &[u8]) -> Vec<Step> {
    let sentence = format!(
        "'{}' is a file where a folder is due: check the volumes; built-in defaults are used for what should be in it",
        blocking.display()
    );
    with_substitute(vec![Step::Say(sentence)], wanted, config)
}

fn link(wanted: &Wanted, link: &Path, leads: Leads, config: &[u8]) -> Vec<Step> {
    let shown = link.display();
    match leads {
        Leads::File { readable: true, .. } if wanted.role == Role::Config || wanted.role == Role::AclFile => Vec::new(),
        // How Kubernetes mounts secrets; PID 1 as root may read them for the broker.
        Leads::File { inside: true, .. } => Vec::new(),
        Leads::File { readable: true, .. } => vec![Step::Say(format!(
            "'{shown}' is a symbolic link out of the volume: owner and mode of its target are left alone; replace it by the file itself"
        ))],
        Leads::File { readable: false, .. } => with_substitute(
            vec![Step::Say(format!(
                "'{shown}' is a symbolic link to a file that the broker may not read: refused; replace it by the file itself"
            ))],
            wanted,
            config,
        ),
        Leads::Nowhere | Leads::Folder => with_substitute(
            vec![Step::Say(format!(
                "'{shown}' is a symbolic link to nothing that can be used as {}: refused; replace it by the file itself",
                wanted.role.word()
            ))],
            wanted,
            config,
        ),
    }
}

fn with_substitute(mut steps: Vec<Step>, wanted: &Wanted, config: &[u8]) -> Vec<Step> {
    // An ACL stays with the broker's own answer (13): what stands in its place was put there by somebody who wanted other rules.
    if wanted.role != Role::AclFile
        && let Some(bytes) = substitute(wanted, config)
    {
        steps.push(Step::Substitute(wanted.path.clone(), bytes));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(role: Role) -> Wanted {
        Wanted { path: "/v/x/mosquitto.conf".into(), role, default: None, named: true }
    }

    #[test]
    fn no_cure_touches_what_is_there_or_invents_permissions() {
        let facts =
            crate::os::beneath::Facts { kind: crate::os::beneath::Kind::File, uid: 0, gid: 0, mode: 0o644, links: 1, device: 1, bytes: 1 };
        let there = [
            Found::File(facts),
            Found::Folder,
            Found::Special,
            Found::Link(Leads::Nowhere),
            Found::LinkAbove("/v".into(), Leads::File { inside: false, readable: false }),
            Found::FileAbove("/v".into()),
            Found::Unseen(13),
        ];
        for role in [Role::Config, Role::PasswordFile, Role::AclFile, Role::DataFolder, Role::LogFolder] {
            for found in &there {
                for step in plan(&wanted(role), found, b"config") {
                    assert!(matches!(step, Step::Say(_) | Step::Substitute(..)), "{role:?} {found:?} {step:?}");
                    assert!(!(role == Role::AclFile && matches!(step, Step::Substitute(..))), "{found:?} {step:?}");
                }
            }
        }
        assert!(matches!(*plan(&wanted(Role::AclFile), &Found::Nothing { folder_exists: true }, b"config"), [Step::Say(_)]));
        assert!(matches!(*plan(&wanted(Role::Config), &Found::Nothing { folder_exists: false }, b"config"), [Step::Say(_)]));
    }
}
