//! Where the bytes of named files come from: the disk, or a generation that PID 1 read (as root) and handed to the broker.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Reading, and nothing else.
pub trait ReadFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Plain files in a folder, sorted by name bytes.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// What `part` takes of a file. The rest need not be handed on: it may be the key of somebody else.
    fn read_part(&self, path: &Path, part: &dyn Fn(&[u8]) -> Vec<u8>) -> io::Result<Vec<u8>> {
        self.read(path).map(|bytes| part(&bytes))
    }
}

/// The disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// No named file of a configuration is longer than this many bytes; a longer one is refused instead of filling memory.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// The permission bits of a file that stays with root whatever it is called and wherever it is moved to. The sticky bit means nothing
/// on a regular file, and whoever does not own the file can neither set nor take it.
pub const KEPT_MODE: u32 = 0o1600;

/// Whether a regular file of that owner and those permission bits (setuid, setgid and sticky among them) is marked to stay root's.
pub fn is_kept(uid: u32, mode: u32) -> bool {
    uid == 0 && mode == KEPT_MODE
}

/// The disk, for somebody who named this file by hand: it may be a pipe that he waits for, such as `/dev/stdin`.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a>(pub &'a Path);

/// Entries of a folder that is listed: nobody has so many files of a configuration in one.
const ENTRIES_MAX: usize = 10_000;

fn refused(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, why)
}

/// What PID 1 does not open. Whoever may write where it reads may put something else there than a file, or name it in the configuration:
/// it waits for no pipe and no terminal, wakes no device, and tells nobody what the kernel tells root.
fn look_before_opening(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
    let metadata = std::fs::metadata(path)?;
    let kind = metadata.file_type();
    if kind.is_fifo() {
        return Err(refused("it is a pipe, not a file"));
    }
    if kind.is_block_device() || kind.is_char_device() && metadata.rdev() != libc::makedev(1, 3) {
        return Err(refused("it is a device, not a file"));
    }
    let filesystem = nix::sys::statfs::statfs(path)?.filesystem_type();
    if [nix::sys::statfs::PROC_SUPER_MAGIC, nix::sys::statfs::SYSFS_MAGIC].contains(&filesystem) {
        return Err(refused("it is the kernel's, not a file"));
    }
    Ok(())
}

fn read_all(file: std::fs::File) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    // PID 1 reads as root what the broker is to see, and the broker may have written the configuration that names it.
    if metadata.is_file() && is_kept(metadata.uid(), metadata.mode() & 0o7777) {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    let mut bytes = Vec::new();
    if file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)? as u64 > FILE_BYTES_MAX {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

impl ReadFiles for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
        look_before_opening(path)?;
        let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        // It may have been put there since.
        if file.metadata()?.file_type().is_fifo() {
            return Err(refused("it is a pipe, not a file"));
        }
        read_all(file)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for (count, entry) in std::fs::read_dir(folder)?.enumerate() {
            if count >= ENTRIES_MAX {
                return Err(refused("there are more than 10,000 files in it"));
            }
            let path = entry?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }
}

impl ReadFiles for Named<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == self.0 { read_all(std::fs::File::open(path)?) } else { Disk.read(path) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Disk.list(folder)
    }
}

/// Everything that was read from disk in one go: path → bytes or the errno of the failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Generation {
    files: BTreeMap<PathBuf, Result<Vec<u8>, i32>>,
    folders: BTreeMap<PathBuf, Result<Vec<PathBuf>, i32>>,
}

impl ReadFiles for Generation {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(Ok(bytes)) => Ok(bytes.clone()),
            Some(Err(errno)) => Err(io::Error::from_raw_os_error(*errno)),
            // Named, but not handed over: the broker's own eyes are the second chance.
            None => Disk.read(path),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        match self.folders.get(folder) {
            Some(Ok(paths)) => Ok(paths.clone()),
            Some(Err(errno)) => Err(io::Error::from_raw_os_error(*errno)),
            None => Disk.list(folder),
        }
    }
}

/// What PID 1 reads for one broker, in bytes. The broker's user may own the configuration: it must not be able to fill PID 1's memory.
const GENERATION_BYTES_MAX: usize = 32 << 20;
/// And in files and folders.
const GENERATION_FILES_MAX: usize = 10_000;
/// The same with those that several listeners name counted for each: it must not be able to keep PID 1 busy either.
const ASKED_BYTES_MAX: usize = 128 << 20;

/// Reads from another source, each file once, and remembers everything, so that the same bytes that were validated are handed over.
pub struct Recorder<'a> {
    source: &'a dyn ReadFiles,
    seen: RefCell<Generation>,
    /// Bytes that were read, and those that were asked for.
    count: Cell<usize>,
    asked: Cell<usize>,
    /// What was taken of files that nobody wanted whole.
    parts: RefCell<BTreeMap<PathBuf, Vec<Vec<u8>>>>,
    whole: RefCell<BTreeSet<PathBuf>>,
}

fn errno<T: Clone>(result: &io::Result<T>) -> Result<T, i32> {
    match result {
        Ok(value) => Ok(value.clone()),
        Err(error) => Err(error.raw_os_error().unwrap_or(match error.kind() {
            io::ErrorKind::IsADirectory => 21,
            io::ErrorKind::FileTooLarge => 27,
            io::ErrorKind::Unsupported => 95,
            _ => 5,
        })),
    }
}

impl<'a> Recorder<'a> {
    pub fn new(source: &'a dyn ReadFiles) -> Self {
        Self {
            source,
            seen: RefCell::default(),
            count: Cell::new(0),
            asked: Cell::new(0),
            parts: RefCell::default(),
            whole: RefCell::default(),
        }
    }

    pub fn into_generation(self) -> Generation {
        let mut generation = self.seen.into_inner();
        for (path, parts) in self.parts.into_inner().into_iter().filter(|(path, _)| !self.whole.borrow().contains(path)) {
            generation.insert(path, parts.concat());
        }
        generation
    }

    fn see(&self, path: &Path) -> io::Result<Vec<u8>> {
        let known = self.seen.borrow().files.get(path).cloned();
        let bytes = match known {
            Some(result) => result.map_err(io::Error::from_raw_os_error)?,
            None => self.look(path)?,
        };
        self.asked.set(self.asked.get().saturating_add(bytes.len()));
        if self.asked.get() > ASKED_BYTES_MAX {
            return Err(refused("the configuration names files of 128 MiB in all, those of several listeners counted for each"));
        }
        Ok(bytes)
    }

    fn look(&self, path: &Path) -> io::Result<Vec<u8>> {
        let result = self.has_room().and_then(|()| self.source.read(path)).and_then(|bytes| {
            self.count.set(self.count.get().saturating_add(bytes.len()));
            self.has_room().map(|()| bytes)
        });
        self.seen.borrow_mut().files.insert(path.to_owned(), errno(&result));
        result
    }

    fn has_room(&self) -> io::Result<()> {
        let seen = self.seen.borrow();
        let is_full = seen.files.len() + seen.folders.len() >= GENERATION_FILES_MAX || self.count.get() > GENERATION_BYTES_MAX;
        if is_full { Err(refused("the configuration names more than 10,000 files or 32 MiB in all")) } else { Ok(()) }
    }
}

impl ReadFiles for Recorder<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.whole.borrow_mut().insert(path.to_owned());
        self.see(path)
    }

    fn read_part(&self, path: &Path, part: &dyn Fn(&[u8]) -> Vec<u8>) -> io::Result<Vec<u8>> {
        let taken = part(&self.see(path)?);
        let mut parts = self.parts.borrow_mut();
        let parts = parts.entry(path.to_owned()).or_default();
        if !parts.contains(&taken) {
            parts.push(taken.clone());
        }
        Ok(taken)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        if let Some(Ok(paths)) = self.seen.borrow().folders.get(folder) {
            return Ok(paths.clone());
        }
        let result = self.has_room().and_then(|()| self.source.list(folder));
        self.seen.borrow_mut().folders.insert(folder.to_owned(), errno(&result));
        result
    }
}

impl Generation {
    pub fn insert(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.files.insert(path, Ok(bytes));
    }

    /// One archive, for a sealed memfd. JSON would need an escape for bytes; this is four kinds of length-prefixed record.
    pub fn to_bytes(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt as _;
        fn field(out: &mut Vec<u8>, bytes: &[u8]) {
            out.extend((bytes.len() as u32).to_le_bytes());
            out.extend(bytes);
        }
        let mut out = Vec::new();
        for (path, result) in &self.files {
            out.push(if result.is_ok() { b'F' } else { b'f' });
            field(&mut out, path.as_os_str().as_bytes());
            match result {
                Ok(bytes) => field(&mut out, bytes),
                Err(errno) => out.extend(errno.to_le_bytes()),
            }
        }
        for (path, result) in &self.folders {
            out.push(if result.is_ok() { b'D' } else { b'd' });
            field(&mut out, path.as_os_str().as_bytes());
            match result {
                Ok(paths) => {
                    out.extend((paths.len() as u32).to_le_bytes());
                    for path in paths {
                        field(&mut out, path.as_os_str().as_bytes());
                    }
                }
                Err(errno) => out.extend(errno.to_le_bytes()),
            }
        }
        out
    }

    /// `None` when the bytes are not an archive.
    pub fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        use std::os::unix::ffi::OsStrExt as _;
        fn word(bytes: &mut &[u8]) -> Option<u32> {
            let (head, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*head))
        }
        fn field<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
            let len = word(bytes)? as usize;
            let (head, rest) = bytes.split_at_checked(len)?;
            *bytes = rest;
            Some(head)
        }
        fn path(bytes: &mut &[u8]) -> Option<PathBuf> {
            field(bytes).map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)))
        }
        let mut generation = Self::default();
        while let Some((kind, rest)) = bytes.split_first() {
            bytes = rest;
            let name = path(&mut bytes)?;
            match kind {
                b'F' => drop(generation.files.insert(name, Ok(field(&mut bytes)?.to_vec()))),
                b'f' => drop(generation.files.insert(name, Err(word(&mut bytes)? as i32))),
                b'D' => {
                    let count = word(&mut bytes)?;
                    let paths = (0..count).map(|_| path(&mut bytes)).collect::<Option<Vec<_>>>()?;
                    generation.folders.insert(name, Ok(paths));
                }
                b'd' => drop(generation.folders.insert(name, Err(word(&mut bytes)? as i32))),
                _ => return None,
            }
        }
        Some(generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Endless(Cell<usize>);

    impl ReadFiles for Endless {
        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            self.0.set(self.0.get() + 1);
            Ok(vec![b'x'; 1 << 20])
        }

        fn list(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_configuration_names_so_much_and_no_more_and_each_file_is_read_once() {
        let source = Endless(Cell::new(0));
        let recorder = Recorder::new(&source);
        for nth in 0..100 {
            let path = PathBuf::from(format!("/{nth}"));
            assert_eq!(recorder.read(&path).is_ok(), nth < 32);
            assert_eq!(recorder.read(&path).is_ok(), nth < 32);
        }
        assert_eq!(source.0.get(), 33);
        let recorder = Recorder::new(&source);
        assert_eq!((0..200).filter(|_| recorder.read(Path::new("/again")).is_ok()).count(), 128);
        let recorder = Recorder::new(&source);
        assert!((0..9_999).all(|nth| recorder.list(Path::new(&format!("/{nth}"))).is_ok()));
        assert!(recorder.read(Path::new("/last")).is_ok() && recorder.list(Path::new("/more")).is_err());
    }

    #[test]
    fn of_a_file_only_what_was_taken_is_handed_on_unless_somebody_wants_it_whole() {
        let source = Endless(Cell::new(0));
        let recorder = Recorder::new(&source);
        let take = |path: &str, text: &'static [u8]| recorder.read_part(Path::new(path), &|_| text.to_vec()).expect("read");
        assert_eq!(take("/a", b"one"), b"one");
        take("/a", b"two");
        take("/a", b"one");
        take("/b", b"one");
        recorder.read(Path::new("/b")).expect("read");
        let generation = recorder.into_generation();
        assert_eq!(generation.read(Path::new("/a")).expect("there"), b"onetwo");
        assert_eq!(generation.read(Path::new("/b")).expect("there").len(), 1 << 20);
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        assert_eq!(Disk.read(Path::new("/dev/null")).expect("nothing"), b"");
        for path in ["/dev/zero", "/dev/tty", "/proc/self/environ", "/sys/kernel/profiling"] {
            assert!(Disk.read(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_generation_survives_the_archive() {
        let mut generation = Generation::default();
        generation.insert("/a/b".into(), b"x\0y".to_vec());
        generation.files.insert("/none".into(), Err(2));
        generation.folders.insert("/d".into(), Ok(vec!["/d/1.conf".into(), "/d/2.conf".into()]));
        generation.folders.insert("/e".into(), Err(13));
        let bytes = generation.to_bytes();
        assert_eq!(Generation::from_bytes(&bytes), Some(generation));
        for cut in 1..bytes.len() {
            // A prefix is either refused or a shorter archive; it never panics.
            let _ = Generation::from_bytes(&bytes[..cut]);
        }
    }
}
