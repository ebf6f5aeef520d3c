//! The password file on disk, changed under a lock: replaced as a whole by rename(2), or, where that cannot be, in place.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::{Gid, Uid, fchown};

use super::entries::Edit;
use super::{Failure, in_place, say};
use crate::conf::files::FILE_BYTES_MAX;

/// How long another run may take.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// How often the file may be replaced by others before it is ours.
const REPLACED_MAX: u32 = 1000;

fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |errno| Errno::from_raw(errno).desc().to_owned())
}

fn cannot_open(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("Error: Unable to open password file {}. {}.", path.display(), reason(error)))
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("Error: Unable to open file {} for writing. {}.", path.display(), reason(error)))
}

/// Says what is wrong with the file before a password is asked for.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    open(path, false).map(drop).map_err(|error| cannot_open(path, &error))
}

/// Changes an existing file as `decide` says from its bytes.
pub(super) fn edit(path: &Path, decide: impl FnOnce(&[u8]) -> Result<Edit, Failure>) -> Result<(), Failure> {
    let target = resolve(path).map_err(|error| cannot_open(path, &error))?;
    let mut locked = Locked::open(&target).map_err(|error| cannot_open(path, &error))?;
    warn_of_permissions(path, &locked.facts);
    let bytes = locked.read().map_err(|error| cannot_open(path, &error))?;
    let edit = decide(&bytes)?;
    if edit.is_empty() {
        return Ok(());
    }
    if replace(&target, &locked.facts, &edit.apply(&bytes)).is_ok() {
        return Ok(());
    }
    let file = open(&target, true).map_err(|error| cannot_write(path, &error))?;
    in_place::edit(&file, &bytes, &edit).map_err(|error| failed(path, &error))
}

/// `-c`: a file with this entry only. What exists keeps its owner and mode.
pub(super) fn create(path: &Path, entry: &str) -> Result<(), Failure> {
    let text = format!("{entry}\n");
    let target = resolve(path).map_err(|error| cannot_write(path, &error))?;
    let existing = match std::fs::metadata(&target) {
        Ok(facts) if facts.is_file() => true,
        Ok(facts) if facts.is_dir() => return Err(cannot_write(path, &io::Error::from_raw_os_error(Errno::EISDIR as i32))),
        Ok(_) => {
            // A pipe or a terminal.
            let mut sink = File::options().write(true).open(&target).map_err(|error| cannot_write(path, &error))?;
            return sink.write_all(text.as_bytes()).map_err(|error| failed(path, &error));
        }
        Err(_) => false,
    };
    if !existing {
        match make(&target, text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            done => return done.map_err(|error| cannot_write(path, &error)),
        }
    }
    let locked = Locked::open(&target).map_err(|error| cannot_write(path, &error))?;
    if replace(&target, &locked.facts, text.as_bytes()).is_ok() {
        return Ok(());
    }
    let file = open(&target, true).map_err(|error| cannot_write(path, &error))?;
    in_place::rewrite(&file, text.as_bytes()).map_err(|error| failed(path, &error))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("Error: Unable to write to password file {}. {}. No entry was lost.", path.display(), reason(error)))
}

/// The file that a path means when its last parts are symbolic links, even dangling ones.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    const LINKS_MAX: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let Ok(target) = std::fs::read_link(&path) else {
            let name = path.file_name().ok_or(Errno::EISDIR)?;
            return Ok(folder_of(&path).canonicalize()?.join(name));
        };
        path = folder_of(&path).join(target);
    }
    Err(Errno::ELOOP.into())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An existing regular file.
fn open(path: &Path, writable: bool) -> io::Result<File> {
    let file = File::options().read(true).write(writable).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let facts = file.metadata()?;
    if facts.is_dir() {
        return Err(Errno::EISDIR.into());
    }
    if !facts.is_file() {
        return Err(io::Error::other("It is not a regular file"));
    }
    Ok(file)
}

/// Held until dropped: the folder keeps apart those who would replace the file by name, the file those who reach it by another
/// folder (a bind mount).
struct Locked {
    _folder: Option<Flock<File>>,
    file: Flock<File>,
    facts: Metadata,
}

impl Locked {
    fn open(path: &Path) -> io::Result<Self> {
        // A folder that cannot be read cannot be locked; the file's own lock is the better part.
        let folder = File::open(folder_of(path)).ok().map(lock).transpose()?;
        for _ in 0..REPLACED_MAX {
            let file = lock(open(path, false)?)?;
            let facts = file.metadata()?;
            let named = std::fs::metadata(path)?;
            // Somebody may have put another file there while we waited.
            if (named.dev(), named.ino()) == (facts.dev(), facts.ino()) {
                return Ok(Self { _folder: folder, file, facts });
            }
        }
        Err(io::Error::other("Another program keeps replacing it"))
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        if (&*self.file).take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > FILE_BYTES_MAX {
            return Err(Errno::EFBIG.into());
        }
        Ok(bytes)
    }
}

fn lock(mut file: File) -> io::Result<Flock<File>> {
    let end = Instant::now() + LOCK_PATIENCE;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(locked),
            Err((back, Errno::EWOULDBLOCK | Errno::EINTR)) if Instant::now() < end => file = back,
            Err((_, Errno::EWOULDBLOCK)) => return Err(io::Error::other("Another process holds its lock")),
            Err((_, errno)) => return Err(errno.into()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Puts a complete, synced file with the same owner and mode in the place of the old one. On any error the old one is untouched.
fn replace(path: &Path, facts: &Metadata, bytes: &[u8]) -> io::Result<()> {
    if facts.nlink() > 1 {
        return Err(io::Error::other("It has more than one name"));
    }
    let draft = draft_path(path, "new");
    // Only the holder of the lock makes it: this is what a killed run left.
    let _ = std::fs::remove_file(&draft);
    let done = write_draft(&draft, bytes, |file| {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (facts.uid(), facts.gid()) {
            fchown(file, Some(Uid::from_raw(facts.uid())), Some(Gid::from_raw(facts.gid())))?;
        }
        file.set_permissions(std::fs::Permissions::from_mode(facts.mode() & 0o7777))
    })
    .and_then(|()| std::fs::rename(&draft, path));
    if done.is_err() {
        let _ = std::fs::remove_file(&draft);
        return done;
    }
    sync_folder(path);
    Ok(())
}

/// A new file, complete before it has its name. When root makes it, it belongs to whom its folder belongs to: the broker's user.
fn make(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = draft_path(path, &format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&draft);
    let done = write_draft(&draft, bytes, |file| {
        let folder = std::fs::metadata(folder_of(path))?;
        if Uid::effective().is_root() {
            // Without CAP_CHOWN it stays root's, and the supervisor's repair has its turn.
            let _ = fchown(file, Some(Uid::from_raw(folder.uid())), Some(Gid::from_raw(folder.gid())));
        }
        Ok(())
    })
    .and_then(|()| match std::fs::hard_link(&draft, path) {
        // A file system without hard links.
        Err(error) if matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK)) => {
            std::fs::rename(&draft, path)
        }
        done => done,
    });
    let _ = std::fs::remove_file(&draft);
    sync_folder(path);
    done
}

fn draft_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".");
    name.push(suffix);
    folder_of(path).join(name)
}

fn write_draft(draft: &Path, bytes: &[u8], dress: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(draft)?;
    dress(&file)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// So that the new name survives a power cut. A folder that cannot be opened has no such promise.
fn sync_folder(path: &Path) {
    if let Ok(folder) = File::open(folder_of(path)) {
        let _ = folder.sync_all();
    }
}

fn warn_of_permissions(path: &Path, facts: &Metadata) {
    if facts.mode() & 0o007 != 0 {
        let path = path.display();
        say(&format!("Warning: File {path} has world readable permissions. To fix this, use `chmod 0600 {path}`."));
    }
}
