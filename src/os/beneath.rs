//! Files below one open folder. Nothing here follows a symbolic link or leaves that folder, whoever changes the tree meanwhile, but for
//! the ways to a folder that say so.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, linkat, unlinkat};

/// Somebody may have filled a tree to keep us busy: no call removes more entries than this, wherever they are in it.
const REMOVED_MAX: usize = 100;

/// A folder that everything else is relative to.
#[derive(Debug)]
pub struct Base(OwnedFd);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    /// Socket, pipe or device.
    Special,
}

/// What is known of an entry without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    pub kind: Kind,
    pub uid: u32,
    pub gid: u32,
    /// The permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Hard links.
    pub links: u64,
    pub device: u64,
    pub bytes: u64,
}

/// A file to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewFile<'a> {
    pub bytes: &'a [u8],
    pub mode: u32,
    /// Seconds since 1970; `None` is now.
    pub mtime: Option<i64>,
    pub owner: Option<(u32, u32)>,
}

impl From<FileStat> for Facts {
    fn from(stat: FileStat) -> Self {
        let kind = match stat.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File,
            libc::S_IFDIR => Kind::Folder,
            libc::S_IFLNK => Kind::Link,
            _ => Kind::Special,
        };
        #[allow(clippy::useless_conversion, clippy::unnecessary_cast)] // the widths differ between architectures
        Self {
            kind,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            links: stat.st_nlink as u64,
            device: stat.st_dev as u64,
            bytes: stat.st_size as u64,
        }
    }
}

impl Base {
    /// Opens the folder itself; links on the way to it are followed, because whoever starts us chose the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open(path, flags, Mode::empty())?))
    }

    /// A folder below this one. ELOOP when it is a link.
    pub fn folder(&self, relative: &Path) -> io::Result<Self> {
        // Of a link by itself openat2 says that it is no folder.
        Ok(Self(self.entry(&relative.join("."), OFlag::O_PATH | OFlag::O_DIRECTORY)?))
    }

    /// The folder that a name in this one leads to, through links, or above it: for ways that nobody else can have laid.
    pub fn folder_through_links(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(openat(&self.0, name, flags, Mode::empty())?))
    }

    /// What `relative` is; a link is itself, not what it leads to. ELOOP when a folder above it is a link.
    pub fn facts(&self, relative: &Path) -> io::Result<Facts> {
        Ok(fstat(&self.entry(relative, OFlag::O_PATH)?)?.into())
    }

    /// Calls `visit` for every entry of the folder `relative` (empty: of this one) until it breaks.
    pub fn for_each(&self, relative: &Path, mut visit: impl FnMut(&OsStr, Facts) -> ControlFlow<()>) -> io::Result<()> {
        let mut folder = nix::dir::Dir::from_fd(self.entry(relative, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        // SAFETY: the descriptor belongs to `folder`, which outlives every use of `fd`; iterating does not close it.
        let fd = unsafe { BorrowedFd::borrow_raw(folder.as_raw_fd()) };
        for entry in folder.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    if visit(name, stat.into()).is_break() {
                        break;
                    }
                }
                Err(Errno::ENOENT) => {} // gone since
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Opens a regular file to be read, without waiting for whoever is at the other end of a pipe.
    pub fn open_file(&self, relative: &Path) -> io::Result<File> {
        self.regular(relative, OFlag::O_RDONLY)
    }

    /// The same to be read and written.
    pub fn open_to_write(&self, relative: &Path) -> io::Result<File> {
        self.regular(relative, OFlag::O_RDWR)
    }

    fn regular(&self, relative: &Path, flags: OFlag) -> io::Result<File> {
        let entry = self.entry(relative, flags | OFlag::O_NONBLOCK)?;
        if Facts::from(fstat(&entry)?).kind != Kind::File {
            return Err(Errno::EINVAL.into());
        }
        Ok(File::from(entry))
    }

    /// Removes an entry with what is below it: links themselves, and at most [`REMOVED_MAX`] entries. ENOTEMPTY when there are more.
    pub fn remove(&self, relative: &Path) -> io::Result<()> {
        self.remove_within(relative, &mut { REMOVED_MAX })
    }

    /// Removes an entry that is no folder. EISDIR where it is one.
    pub fn remove_file(&self, relative: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(relative)?;
        Ok(unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?)
    }

    fn remove_within(&self, relative: &Path, budget: &mut usize) -> io::Result<()> {
        *budget = budget.checked_sub(1).ok_or(Errno::ENOTEMPTY)?;
        let (parent, name) = self.parent(relative)?;
        if Facts::from(fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?).kind != Kind::Folder {
            return self.remove_file(relative);
        }
        let mut names = Vec::new();
        self.for_each(relative, |name, _| {
            names.push(name.to_owned());
            if names.len() < *budget { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        for name in names {
            self.remove_within(&relative.join(name), budget)?;
        }
        Ok(unlinkat(&parent, name, UnlinkatFlags::RemoveDir)?)
    }

    /// Makes one folder; its parent must exist.
    pub fn make_folder(&self, relative: &Path, mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent(relative)?;
        Ok(mkdirat(&parent, name, Mode::from_bits_truncate(mode))?)
    }

    /// Makes an empty file, and opens it to be written to.
    pub fn make_file(&self, relative: &Path, mode: u32) -> io::Result<File> {
        let (parent, name) = self.parent(relative)?;
        Ok(File::from(openat(&parent, name, EXCLUSIVE, Mode::from_bits_truncate(mode))?))
    }

    /// Gives an entry another name, in the place of what has it.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let ((parent, name), (new_parent, new_name)) = (self.parent(from)?, self.parent(to)?);
        Ok(renameat(&parent, name, &new_parent, new_name)?)
    }

    /// Makes names of this folder last.
    pub fn sync(&self) {
        sync(&self.0);
    }

    /// Makes a file that is whole or absent: filled without a name, synced, then linked. EEXIST when there is one meanwhile.
    /// Gives the error of the change of owner, if only that failed.
    pub fn create(&self, relative: &Path, file: &NewFile<'_>) -> io::Result<Option<io::Error>> {
        let (parent, name) = self.parent(relative)?;
        let result = match create_unnamed(parent.as_fd(), name, file) {
            Err(error) if is_unsupported(&error) => create_beside(parent.as_fd(), name, file),
            result => result,
        }?;
        sync(&parent);
        Ok(result)
    }

    /// Puts a whole file in the place of the one that is there, if `permit` agrees to what that is; a link is never followed.
    /// `false`: it did not.
    pub fn replace(&self, relative: &Path, file: &NewFile<'_>, permit: impl FnOnce(&Facts) -> bool) -> io::Result<bool> {
        let (parent, name) = self.parent(relative)?;
        let facts = Facts::from(fstatat(&parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)?);
        if facts.kind != Kind::File || !permit(&facts) {
            return Ok(false);
        }
        let beside = temporary_name(name)?;
        let temporary = openat(&parent, beside.as_os_str(), EXCLUSIVE, Mode::from_bits_truncate(0o600))?;
        let result = fill(temporary, file).and_then(|_| Ok(renameat(&parent, beside.as_os_str(), &parent, name)?));
        if result.is_err() {
            let _ = unlinkat(&parent, beside.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        result?;
        sync(&parent);
        Ok(true)
    }

    /// Writes into a regular file that is empty, if `permit` agrees to what it is. `false`: something is in it, or it did not.
    pub fn fill_empty(&self, relative: &Path, bytes: &[u8], permit: impl FnOnce(&Facts) -> bool) -> io::Result<bool> {
        let entry = self.entry(relative, OFlag::O_WRONLY | OFlag::O_NONBLOCK)?;
        let facts = Facts::from(fstat(&entry)?);
        if facts.kind != Kind::File || facts.bytes != 0 || !permit(&facts) {
            return Ok(false);
        }
        let mut file = File::from(entry);
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(true)
    }

    /// What is in a regular file of at most `bytes_max` bytes.
    pub fn read(&self, relative: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.read_if(relative, bytes_max, |_| true)
    }

    /// The same if `permit` agrees to what it is; EACCES where it does not.
    pub fn read_if(&self, relative: &Path, bytes_max: u64, permit: impl FnOnce(&Facts) -> bool) -> io::Result<Vec<u8>> {
        let entry = self.entry(relative, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        let facts = Facts::from(fstat(&entry)?);
        if !permit(&facts) {
            return Err(Errno::EACCES.into());
        }
        if facts.kind != Kind::File || facts.bytes > bytes_max {
            return Err(Errno::EFBIG.into());
        }
        let mut bytes = Vec::new();
        File::from(entry).take(bytes_max).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Gives the entry another owner if `permit` agrees to what it is at that very moment. `false`: it did not.
    pub fn change_owner(&self, relative: &Path, owner: (u32, u32), permit: impl FnOnce(&Facts) -> bool) -> io::Result<bool> {
        let entry = self.entry(relative, OFlag::O_PATH)?;
        if !permit(&fstat(&entry)?.into()) {
            return Ok(false);
        }
        fchownat(&entry, "", Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)), AtFlags::AT_EMPTY_PATH)?;
        Ok(true)
    }

    /// Gives a regular file other permission bits if `permit` agrees to what it is at that very moment. `false`: it did not.
    pub fn change_mode(&self, relative: &Path, mode: u32, permit: impl FnOnce(&Facts) -> bool) -> io::Result<bool> {
        let entry = self.entry(relative, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        let facts = Facts::from(fstat(&entry)?);
        if facts.kind != Kind::File || !permit(&facts) {
            return Ok(false);
        }
        fchmod(&entry, Mode::from_bits_truncate(mode))?;
        Ok(true)
    }

    /// Whether `chattr +i` was done to it; `false` also when the filesystem does not know.
    pub fn is_immutable(&self, relative: &Path) -> bool {
        const FS_IMMUTABLE_FL: libc::c_int = 0x10;
        let Ok(entry) = self.entry(relative, OFlag::O_RDONLY | OFlag::O_NONBLOCK) else { return false };
        let mut flags: libc::c_int = 0;
        // SAFETY: FS_IOC_GETFLAGS writes one int, and `flags` is one.
        let result = unsafe { libc::ioctl(entry.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &raw mut flags) };
        result == 0 && flags & FS_IMMUTABLE_FL != 0
    }

    fn parent<'p>(&self, relative: &'p Path) -> io::Result<(OwnedFd, &'p OsStr)> {
        let name = relative.file_name().ok_or(Errno::EINVAL)?;
        let parent = relative.parent().unwrap_or(Path::new(""));
        Ok((self.entry(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, name))
    }

    fn entry(&self, relative: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let path = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        match openat2(&self.0, path, OpenHow::new().flags(flags).resolve(resolve)) {
            // An old kernel, or a seccomp filter that answers for it.
            Err(Errno::ENOSYS | Errno::EPERM) => self.entry_step_by_step(path, flags),
            result => Ok(result?),
        }
    }

    fn entry_step_by_step(&self, relative: &Path, flags: OFlag) -> io::Result<OwnedFd> {
        let folder = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut here = self.0.try_clone()?;
        let mut components = relative.components().peekable();
        while let Some(component) = components.next() {
            if !matches!(component, Component::Normal(_) | Component::CurDir) {
                return Err(Errno::EXDEV.into());
            }
            let name = component.as_os_str();
            let last = components.peek().is_none();
            here = match openat(&here, name, if last { flags } else { folder }, Mode::empty()) {
                // O_DIRECTORY says ENOTDIR of a link; openat2 says ELOOP.
                Err(Errno::ENOTDIR) if fstatat(&here, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(is_link) => {
                    return Err(Errno::ELOOP.into());
                }
                result => result?,
            };
        }
        Ok(here)
    }
}

fn is_link(stat: FileStat) -> bool {
    Facts::from(stat).kind == Kind::Link
}

/// No O_TMPFILE, or no /proc to link it through.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOENT | libc::ENOSYS | libc::EXDEV))
}

fn fill(fd: OwnedFd, file: &NewFile<'_>) -> io::Result<(File, Option<io::Error>)> {
    let mut target = File::from(fd);
    target.write_all(file.bytes)?;
    // Filesystems of other systems (vfat, cifs) keep neither modes nor owners; a file with theirs is better than none.
    let _ = fchmod(&target, Mode::from_bits_truncate(file.mode));
    if let Some(mtime) = file.mtime {
        let _ = futimens(&target, &TimeSpec::UTIME_OMIT, &TimeSpec::new(mtime, 0));
    }
    // The owner last: afterwards it is not ours to change any more, without CAP_FOWNER.
    let owner = file.owner.and_then(|(uid, gid)| fchown(&target, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).err());
    match fsync(&target) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOSYS) => Ok((target, owner.map(io::Error::from))),
        Err(error) => Err(error.into()),
    }
}

fn create_unnamed(parent: BorrowedFd<'_>, name: &OsStr, file: &NewFile<'_>) -> io::Result<Option<io::Error>> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let (target, owner) = fill(openat(parent, ".", flags, Mode::from_bits_truncate(0o600))?, file)?;
    let unnamed = format!("/proc/self/fd/{}", target.as_raw_fd());
    linkat(nix::fcntl::AT_FDCWD, unnamed.as_str(), parent, name, AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(owner)
}

const EXCLUSIVE: OFlag = OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

fn temporary_name(name: &OsStr) -> io::Result<OsString> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(|_| Errno::EIO)?;
    let mut beside = b".".to_vec();
    beside.extend(name.as_bytes());
    beside.extend(format!(".{:016x}", u64::from_le_bytes(suffix)).bytes());
    Ok(OsString::from_vec(beside))
}

/// A folder that cannot be synced (network filesystems) is not a failure: the file is there.
fn sync(folder: &OwnedFd) {
    if let Ok(folder) = openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        let _ = fsync(&folder);
    }
}

/// Under a temporary name first; then linked, or renamed where the filesystem has no links, or else made in place.
fn create_beside(parent: BorrowedFd<'_>, name: &OsStr, file: &NewFile<'_>) -> io::Result<Option<io::Error>> {
    let beside = temporary_name(name)?;
    let temporary = openat(parent, beside.as_os_str(), EXCLUSIVE, Mode::from_bits_truncate(0o600))?;
    let result = fill(temporary, file).and_then(|(_, owner)| match linkat(parent, beside.as_os_str(), parent, name, AtFlags::empty()) {
        Ok(()) => Ok(owner),
        Err(Errno::EEXIST) => Err(Errno::EEXIST.into()),
        Err(_) => match renameat2(parent, beside.as_os_str(), parent, name, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => Ok(owner),
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => create_in_place(parent, name, file),
            Err(error) => Err(error.into()),
        },
    });
    // Already gone after a rename.
    let _ = unlinkat(parent, beside.as_os_str(), UnlinkatFlags::NoRemoveDir);
    result
}

/// For filesystems with neither links nor exclusive renames (some of FUSE): a crash in the middle leaves a part.
fn create_in_place(parent: BorrowedFd<'_>, name: &OsStr, file: &NewFile<'_>) -> io::Result<Option<io::Error>> {
    let target = openat(parent, name, EXCLUSIVE, Mode::from_bits_truncate(0o600))?;
    let result = fill(target, file);
    if result.is_err() {
        let _ = unlinkat(parent, name, UnlinkatFlags::NoRemoveDir);
    }
    result.map(|(_, owner)| owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("darner-beneath-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("inner")).expect("a folder");
        path
    }

    #[test]
    fn what_is_removed_or_read_is_beneath_and_no_link() {
        let path = folder("removed");
        let outside = folder("removed-outside");
        std::fs::remove_dir(path.join("inner")).expect("empty");
        std::fs::write(outside.join("kept"), "k").expect("a file");
        std::fs::create_dir_all(path.join("a/b/c")).expect("folders");
        std::fs::write(path.join("a/b/file"), "x").expect("a file");
        std::os::unix::fs::symlink(&outside, path.join("a/b/away")).expect("a link");
        std::os::unix::fs::symlink(&outside, path.join("linked")).expect("a link");
        nix::unistd::mkfifo(&path.join("pipe"), Mode::from_bits_truncate(0o600)).expect("a pipe");
        let base = Base::open(&path).expect("the folder");
        assert!(base.remove(Path::new("linked/kept")).is_err() && base.open_file(Path::new("linked/kept")).is_err());
        assert!(base.remove(Path::new("../removed-outside/kept")).is_err());
        for other in ["pipe", "a", "linked", "none"] {
            assert!(base.open_file(Path::new(other)).is_err(), "{other}");
        }
        assert!(base.open_file(Path::new("a/b/file")).is_ok());
        for entry in ["a", "linked", "pipe"] {
            base.remove(Path::new(entry)).expect("removed");
        }
        assert_eq!(std::fs::read_dir(&path).expect("the folder").count(), 0);
        assert!(outside.join("kept").exists());
        for path in [path, outside] {
            let _ = std::fs::remove_dir_all(path);
        }
    }

    #[test]
    fn one_call_removes_no_more_than_its_number_however_deep_they_lie() {
        let path = folder("many");
        let mut deep = path.join("tree");
        for level in 0..9 {
            deep.push(level.to_string());
            std::fs::create_dir_all(&deep).expect("folders");
            (0..30).for_each(|file| std::fs::write(deep.join(format!("f{file}")), "").expect("a file"));
        }
        let count = || {
            fn below(folder: &Path) -> usize {
                let entries = std::fs::read_dir(folder).expect("lists").flatten();
                entries.map(|entry| 1 + if entry.path().is_dir() { below(&entry.path()) } else { 0 }).sum()
            }
            below(&path)
        };
        let base = Base::open(&path).expect("opens");
        let mut before = count();
        for call in 1.. {
            let result = base.remove(Path::new("tree"));
            let after = count();
            assert!(before - after <= REMOVED_MAX, "{before} {after}");
            if result.is_ok() {
                break;
            }
            assert!(call < 100 && after < before, "no end: {result:?}");
            before = after;
        }
        assert!(!path.join("tree").exists());
        let _ = std::fs::remove_dir_all(path);
    }

    #[test]
    fn both_ways_of_opening_refuse_links_and_dots() {
        let path = folder("links");
        std::fs::write(path.join("inner/file"), "x").expect("a file");
        std::os::unix::fs::symlink("inner", path.join("link")).expect("a link");
        let base = Base::open(&path).expect("opens");
        for (name, errno) in
            [("link/file", libc::ELOOP), ("../x", libc::EXDEV), ("inner/none", libc::ENOENT), ("inner/file/x", libc::ENOTDIR)]
        {
            let by_kernel = base.entry(Path::new(name), OFlag::O_PATH).expect_err(name);
            let by_hand = base.entry_step_by_step(Path::new(name), OFlag::O_PATH | OFlag::O_NOFOLLOW).expect_err(name);
            assert_eq!((by_kernel.raw_os_error(), by_hand.raw_os_error()), (Some(errno), Some(errno)), "{name}");
        }
        assert!(base.entry_step_by_step(Path::new("inner/file"), OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok());
        assert_eq!(base.facts(Path::new("link")).expect("is there").kind, Kind::Link);
        assert_eq!(base.folder(Path::new("link")).expect_err("a link").raw_os_error(), Some(libc::ELOOP));
        assert!(base.folder(Path::new("inner")).is_ok() && base.folder(Path::new("inner/file")).is_err());
        let _ = std::fs::remove_dir_all(path);
    }

    #[test]
    fn every_way_of_creating_leaves_an_existing_file_alone_and_no_temporary_name() {
        let path = folder("create");
        let base = Base::open(&path).expect("opens");
        let file = NewFile { bytes: b"new", mode: 0o640, mtime: Some(1_000_000_000), owner: None };
        for (name, create) in [
            ("unnamed", create_unnamed as fn(BorrowedFd<'_>, &OsStr, &NewFile<'_>) -> io::Result<Option<io::Error>>),
            ("beside", create_beside),
            ("in-place", create_in_place),
        ] {
            assert!(create(base.0.as_fd(), OsStr::new(name), &file).expect("creates").is_none());
            let again = create(base.0.as_fd(), OsStr::new(name), &NewFile { bytes: b"other", ..file }).expect_err("is there");
            assert_eq!(again.raw_os_error(), Some(libc::EEXIST));
            let facts = base.facts(Path::new(name)).expect("is there");
            assert_eq!((facts.mode, facts.bytes, facts.links), (0o640, 3, 1));
        }
        let mut names: Vec<_> = std::fs::read_dir(&path).expect("lists").flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["beside", "in-place", "inner", "unnamed"]);
        let _ = std::fs::remove_dir_all(path);
    }

    #[test]
    fn only_a_file_that_is_permitted_is_replaced_and_only_an_empty_one_is_filled() {
        let path = folder("replace");
        let base = Base::open(&path).expect("opens");
        let file = NewFile { bytes: b"new", mode: 0o640, mtime: None, owner: None };
        std::fs::write(path.join("old"), "old").expect("a file");
        std::fs::write(path.join("empty"), "").expect("a file");
        std::os::unix::fs::symlink("old", path.join("link")).expect("a link");
        let name = Path::new;
        assert!(!base.replace(name("old"), &file, |facts| facts.bytes > 3).expect("looked at"));
        assert!(!base.replace(name("link"), &file, |_| true).expect("looked at"), "a link");
        assert!(base.replace(name("none"), &file, |_| true).is_err());
        assert_eq!(base.read(name("old"), 3).expect("is there"), b"old");
        assert!(base.replace(name("old"), &file, |facts| facts.bytes == 3).expect("replaced"));
        assert_eq!(
            (base.read(name("old"), 3).expect("is there"), base.facts(name("old")).expect("is there").mode),
            (b"new".to_vec(), 0o640)
        );
        assert!(base.read(name("old"), 2).is_err() && base.read(name("inner"), 9).is_err() && base.read(name("link"), 9).is_err());
        assert!(!base.fill_empty(name("old"), b"more", |_| true).expect("looked at"));
        assert!(!base.fill_empty(name("empty"), b"more", |_| false).expect("looked at"));
        assert!(base.fill_empty(name("empty"), b"more", |_| true).expect("filled"));
        assert!(base.fill_empty(name("link"), b"more", |_| true).is_err());
        assert_eq!(std::fs::read(path.join("empty")).expect("is there"), b"more");
        assert_eq!(std::fs::read_dir(&path).expect("lists").count(), 4, "no temporary name is left");
        let _ = std::fs::remove_dir_all(path);
    }
}
