//! Where the bytes of named files come from: the disk, or a generation that PID 1 read (as root) and handed to the broker.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Reading, and nothing else.
pub trait ReadFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Plain files in a folder, sorted by name bytes.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
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

impl ReadFiles for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        use std::io::Read as _;
        use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
        // Whoever may write where PID 1 reads may put a pipe or a terminal there: PID 1 waits for neither.
        let file = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        let metadata = file.metadata()?;
        if metadata.file_type().is_fifo() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it is a pipe, not a file"));
        }
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

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_file() {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
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

/// Reads from another source and remembers everything, so that the same bytes that were validated are handed over.
pub struct Recorder<'a> {
    source: &'a dyn ReadFiles,
    seen: RefCell<Generation>,
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
        Self { source, seen: RefCell::default() }
    }

    pub fn into_generation(self) -> Generation {
        self.seen.into_inner()
    }
}

impl ReadFiles for Recorder<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let result = self.source.read(path);
        self.seen.borrow_mut().files.insert(path.to_owned(), errno(&result));
        result
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let result = self.source.list(folder);
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
