//! The files of `work_dir`: written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::acme::lineage::durable;

/// As much as an attempt writes.
const PROBE: usize = 64 * 1024;

pub(super) fn folder(path: &Path) -> io::Result<()> {
    durable::folder(path, 0o700)
}

/// Replaces a file; it is on the disk when this returns.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    folder(parent)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let fresh = parent.join(name);
    let put = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        File::open(parent)?.sync_all()
    };
    put().inspect_err(|_| drop(fs::remove_file(&fresh)))
}

/// The lock of one attempt at a time, and a proof that there is room: before anything is asked of the CA.
pub(super) fn prepare(work_dir: &Path) -> Result<Flock<File>, String> {
    let bad = |error: io::Error| {
        format!("{} cannot be written, so that no certificate was asked for: {error}. Make it writable, or make room.", work_dir.display())
    };
    folder(work_dir).map_err(bad)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(work_dir.join("lock")).map_err(bad)?;
    let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
        .map_err(|_| format!("another attempt is under way in {}", work_dir.display()))?;
    let probe = work_dir.join("probe");
    let tried = write(&probe, &vec![0; PROBE]);
    let _ = fs::remove_file(&probe);
    tried.map_err(bad)?;
    Ok(lock)
}

/// A damaged file is kept for whoever wonders.
pub(super) fn set_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    let _ = fs::rename(path, PathBuf::from(aside));
}
