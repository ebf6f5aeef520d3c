//! Files that are whole or not there, also after a power cut: written beside, synced, renamed, and the folder synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Ends the name of a file that is not yet whole.
const UNFINISHED: &str = ".darner-new";

/// Replaces a file by one with these bytes and this mode, whatever the umask.
///
/// # Errors
/// Of any step; then the old file is as it was.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = beside(path);
    remove(&beside)?;
    let result = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if result.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    result.and_then(|()| sync_folder_of(path))
}

/// Replaces a symbolic link, or makes it.
pub(super) fn link(path: &Path, target: &Path) -> io::Result<()> {
    let beside = beside(path);
    remove(&beside)?;
    std::os::unix::fs::symlink(target, &beside)?;
    std::fs::rename(&beside, path)
}

/// Makes a folder and those above it, with this mode for each that is new; each is on the disk.
///
/// # Errors
/// One of them cannot be made.
pub fn folder(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        folder(above, mode)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => return Err(error),
        _ => {}
    }
    sync_folder_of(path)
}

/// Moves a file out of the way, under a name that says why, and returns that name.
///
/// # Errors
/// It cannot be renamed.
pub fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(".broken");
    let aside = PathBuf::from(name);
    std::fs::rename(path, &aside)?;
    sync_folder_of(path)?;
    Ok(aside)
}

pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Whether a name is one of ours that a crash left behind.
pub(super) fn is_unfinished(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with(UNFINISHED)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    PathBuf::from(name)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
