//! What is wanted, and what is there instead.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::defaults::{self, Rendered};
use super::location::{Anchor, Place};
use super::{Named, Request};
use crate::os::beneath::{Facts, Kind};
use crate::os::identity;

/// What the broker uses a path for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Config,
    PasswordFile,
    AclFile,
    DataFolder,
    LogFolder,
    PidFolder,
    SocketFolder,
}

impl Role {
    /// The word of mosquitto.conf that names such a path.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Config => "configuration",
            Self::PasswordFile => "password_file",
            Self::AclFile => "acl_file",
            Self::DataFolder => "persistence_location",
            Self::LogFolder => "log_dest file",
            Self::PidFolder => "pid_file",
            Self::SocketFolder => "unix socket",
        }
    }

    pub(super) fn is_folder(self) -> bool {
        matches!(self, Self::DataFolder | Self::LogFolder | Self::PidFolder | Self::SocketFolder)
    }
}

/// A path that should be there.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) role: Role,
    pub(super) default: Option<Rendered>,
    /// The configuration (or the command line) names it; otherwise it is only a habit of the image.
    pub(super) named: bool,
}

/// What a symbolic link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leads {
    Nowhere,
    Folder,
    File { inside: bool, readable: bool },
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing {
        folder_exists: bool,
    },
    File(Facts),
    Folder,
    Special,
    Link(Leads),
    /// A folder above is a link, which is not followed.
    LinkAbove(PathBuf, Leads),
    /// What should be a folder above is a file.
    FileAbove(PathBuf),
    /// An errno.
    Unseen(i32),
}

/// What the image and every repair wants, with or without a configuration that names more.
pub(super) fn wanted_always(request: &Request) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for default in defaults::rendered(&request.root, &request.config) {
        let role = match default.role {
            defaults::Role::Config => Role::Config,
            defaults::Role::Acl => Role::AclFile,
            defaults::Role::Passwords => Role::PasswordFile,
        };
        wanted.push(Wanted { named: default.path == request.config, path: default.path.clone(), role, default: Some(default) });
    }
    if !wanted.iter().any(|one| one.path == request.config) {
        wanted.push(Wanted { path: request.config.clone(), role: Role::Config, default: None, named: true });
    }
    if defaults::is_pod(&request.root, &request.config) {
        return wanted;
    }
    for (name, role) in [("data", Role::DataFolder), ("log", Role::LogFolder)] {
        wanted.push(Wanted { path: request.root.join(name), role, default: None, named: false });
    }
    wanted
}

/// Adds what the configuration names.
pub(super) fn add_named(wanted: &mut Vec<Wanted>, request: &Request, named: &Named) {
    let folder_of = |path: &PathBuf| path.parent().map(Path::to_owned).filter(|folder| !folder.as_os_str().is_empty());
    let mut paths: Vec<(Role, PathBuf)> = Vec::new();
    paths.extend(named.password_files.iter().map(|path| (Role::PasswordFile, path.clone())));
    paths.extend(named.acl_files.iter().map(|path| (Role::AclFile, path.clone())));
    paths.extend(named.data_folder.iter().map(|path| (Role::DataFolder, path.clone())));
    paths.extend(named.log_files.iter().filter_map(folder_of).map(|path| (Role::LogFolder, path)));
    paths.extend(named.pid_file.iter().filter_map(folder_of).map(|path| (Role::PidFolder, path)));
    paths.extend(named.sockets.iter().filter_map(folder_of).map(|path| (Role::SocketFolder, path)));
    for (role, path) in paths {
        match wanted.iter_mut().find(|one| one.path == path) {
            Some(one) => one.named = true,
            None if path == request.config => {}
            None => wanted.push(Wanted { path, role, default: None, named: true }),
        }
    }
}

/// Tries as we are, then as the owner where root lacks CAP_DAC_OVERRIDE.
pub(super) fn as_allowed<T>(owner: Option<(u32, u32)>, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match (work(), owner) {
        (Err(error), Some(owner)) if error.raw_os_error() == Some(Errno::EACCES as i32) => identity::acting_as(owner, &work)
            .map_err(|second| if second.kind() == io::ErrorKind::PermissionDenied { error } else { second }),
        (result, _) => result,
    }
}

/// Looks at one path.
pub(super) fn observe(anchor: &Anchor, request: &Request, path: &Path) -> Found {
    let place = match anchor.locate(path) {
        Ok(place) => place,
        Err(error) => return Found::Unseen(error.raw_os_error().unwrap_or_default()),
    };
    let facts = |place: &Place<'_>| as_allowed(request.owner, || place.base.facts(&place.relative));
    match facts(&place) {
        Ok(facts) => match facts.kind {
            Kind::File => Found::File(facts),
            Kind::Folder => Found::Folder,
            Kind::Special => Found::Special,
            Kind::Link => Found::Link(leads(request, path)),
        },
        Err(error) => {
            // The lowest folder above that is there at all decides.
            let above = place.ancestors().find_map(|(path, relative)| {
                let facts = as_allowed(request.owner, || place.base.facts(relative)).ok()?;
                Some((path, facts.kind))
            });
            match above {
                Some((above, Kind::Link)) => Found::LinkAbove(above, leads(request, path)),
                Some((above, Kind::File | Kind::Special)) => Found::FileAbove(above),
                _ if error.kind() == io::ErrorKind::NotFound => Found::Nothing { folder_exists: path.parent().is_some_and(Path::is_dir) },
                _ => Found::Unseen(error.raw_os_error().unwrap_or_default()),
            }
        }
    }
}

/// Where a link leads. Nothing is changed on the strength of this answer.
fn leads(request: &Request, path: &Path) -> Leads {
    let Ok(metadata) = std::fs::metadata(path) else { return Leads::Nowhere };
    if metadata.is_dir() {
        return Leads::Folder;
    }
    let inside = match (path.canonicalize(), request.root.canonicalize()) {
        (Ok(target), Ok(root)) => target.starts_with(root),
        _ => false,
    };
    let readable = match request.owner {
        Some((uid, gid)) => may(uid, gid, 4, metadata.uid(), metadata.gid(), metadata.permissions().mode()),
        // By its bits and not by opening it: what is there may be a pipe.
        None => nix::unistd::access(path, nix::unistd::AccessFlags::R_OK).is_ok(),
    };
    Leads::File { inside, readable }
}

/// Whether the permission bits let `uid:gid` do `wish` (4 read, 2 write, 1 enter), as the kernel reads them.
pub(super) fn may(uid: u32, gid: u32, wish: u32, owner: u32, group: u32, mode: u32) -> bool {
    let shift = if uid == owner {
        6
    } else if gid == group {
        3
    } else {
        0
    };
    uid == 0 || (mode >> shift) & wish == wish
}
