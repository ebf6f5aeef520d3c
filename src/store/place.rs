//! Where a person wants a file to be read or made. Often he is root and the folder is the broker's, in which a broker that was broken into
//! may have laid links: root must neither read nor write nor give away anything for it that is not its own.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use crate::os::beneath::{Base, Facts};

/// A name in an open folder.
pub struct Place {
    path: PathBuf,
    folder: Base,
    of_folder: Facts,
    name: OsString,
    is_root: bool,
}

impl Place {
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_root = nix::unistd::geteuid().is_root();
        let folder = if is_root { reach(folder).map_err(told)? } else { Base::open(folder)? };
        let of_folder = folder.facts(Path::new(""))?;
        Ok(Self { path: path.to_owned(), folder, of_folder, name, is_root })
    }

    /// Nobody can lead us to more than he has himself.
    fn is_trusted(&self) -> bool {
        !self.is_root || is_of_root_alone(&self.of_folder)
    }

    /// Opens the file that is there to be read. For root, in a folder that others may change, never waits for whoever is at the other end of
    /// a pipe.
    pub fn open(&self) -> io::Result<File> {
        if self.is_trusted() {
            return File::open(&self.path);
        }
        let file = self.folder.open_file(Path::new(&self.name)).map_err(told)?;
        let facts = file.metadata()?;
        // Who alone may write to a folder may give his own files as many names there as he likes.
        let is_his = facts.uid() == self.of_folder.uid && self.of_folder.uid != 0 && self.of_folder.mode & 0o022 == 0;
        if is_his { Ok(file) } else { with_one_name(file) }
    }

    /// Opens the file that is there to be written to, too.
    pub(super) fn open_to_write(&self) -> io::Result<File> {
        if self.is_trusted() {
            return OpenOptions::new().read(true).write(true).open(&self.path);
        }
        with_one_name(self.folder.open_to_write(Path::new(&self.name)).map_err(told)?)
    }

    /// Makes a file, or puts one in the place of another: all of it or nothing. It is filled under its name with `suffix`. What root makes
    /// in a volume is to be read by the broker, whose the volume is.
    pub fn put<T>(&self, suffix: &OsStr, fill: impl FnOnce(&mut File) -> io::Result<T>) -> io::Result<T> {
        let mut beside = self.name.clone();
        beside.push(suffix);
        let (name, beside) = (Path::new(&self.name), Path::new(&beside));
        match self.folder.remove_file(beside) {
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
                return Err(io::Error::other(format!("the folder {} beside it is in the way: move it elsewhere", beside.display())));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.folder.make_file(beside, 0o600)?;
        let made = fill(&mut file).and_then(|made| {
            if self.is_root {
                // While it is open, and not by a name that may lead elsewhere by then. Some file systems have no owners.
                let _ = fchown(&file, Some(self.of_folder.uid), Some(self.of_folder.gid));
            }
            file.sync_all()?;
            self.folder.rename(beside, name)?;
            Ok(made)
        });
        match &made {
            Ok(_) => self.folder.sync(),
            Err(_) => drop(self.folder.remove(beside)),
        }
        made
    }
}

fn is_of_root_alone(folder: &Facts) -> bool {
    folder.uid == 0 && folder.mode & 0o022 == 0
}

/// Opens a folder, through links that only root can have laid.
fn reach(path: &Path) -> io::Result<Base> {
    let mut here = Base::open(Path::new(if path.is_absolute() { "/" } else { "." }))?;
    for component in path.components() {
        here = match component {
            Component::Prefix(_) | Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) if !is_of_root_alone(&here.facts(Path::new(""))?) => here.folder(Path::new(name))?,
            Component::ParentDir | Component::Normal(_) => here.folder_through_links(component.as_os_str())?,
        };
    }
    Ok(here)
}

fn with_one_name(file: File) -> io::Result<File> {
    if file.metadata()?.nlink() > 1 {
        return Err(io::Error::other("it has more than one name in a folder of another user, who may have made the other"));
    }
    Ok(file)
}

/// What the kernel says of an entry that is not what it seems, in words.
fn told(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ELOOP) => {
            io::Error::other("there is a link in a folder of another user, which root does not follow: name the file it leads to")
        }
        Some(Errno::EINVAL) => io::Error::other("it is not a file"),
        _ => error,
    }
}
