//! From a path as somebody wrote it to a folder that is held open and a path below it without links.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use crate::os::beneath::Base;

/// The volume's root, held open.
pub(super) struct Anchor {
    root: PathBuf,
    base: Option<Base>,
    everything: Option<Base>,
}

/// Where a path is.
pub(super) struct Place<'a> {
    pub(super) base: &'a Base,
    pub(super) relative: PathBuf,
    above: PathBuf,
}

impl Place<'_> {
    /// A path below the base, as a whole path.
    pub(super) fn whole(&self, relative: &Path) -> PathBuf {
        self.above.join(relative)
    }

    /// The folders above, lowest first: as a whole path and relative to the base.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = (PathBuf, &Path)> {
        self.relative.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).map(|path| (self.whole(path), path))
    }
}

impl Anchor {
    /// Holds what is there; a root that cannot be opened makes every path a path of the whole system.
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), base: Base::open(root).ok(), everything: Base::open(Path::new("/")).ok() }
    }

    /// The root itself, if it could be opened.
    pub(super) fn root(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Whether `path` is at or below the root, by its spelling.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.base.is_some() && path.strip_prefix(&self.root).is_ok_and(is_plain)
    }

    /// Finds the place of an absolute path.
    ///
    /// Below the root no link is followed at all, since whoever may write to a volume may plant one. Elsewhere links are followed where
    /// only root or we ourselves could have made them. Errors: ELOOP for any other link.
    pub(super) fn locate(&self, path: &Path) -> io::Result<Place<'_>> {
        if let (Some(base), Ok(relative)) = (&self.base, path.strip_prefix(&self.root))
            && is_plain(relative)
        {
            return Ok(Place { base, relative: relative.to_owned(), above: self.root.clone() });
        }
        let base = self.everything.as_ref().ok_or(Errno::EACCES)?;
        let followed = follow_trusted_links(path)?;
        let relative = followed.strip_prefix("/").map(Path::to_owned).map_err(|_| Errno::EINVAL)?;
        Ok(Place { base, relative, above: PathBuf::from("/") })
    }
}

fn is_plain(relative: &Path) -> bool {
    relative.components().all(|component| matches!(component, Component::Normal(_)))
}

/// Replaces links above the last name by their targets, if each stands in a folder that nobody else can write to.
fn follow_trusted_links(path: &Path) -> io::Result<PathBuf> {
    const LINKS_MAX: usize = 40; // as the kernel
    let mut links = 0;
    let mut todo: Vec<PathBuf> = path.components().rev().map(|component| PathBuf::from(component.as_os_str())).collect();
    let mut done = PathBuf::from("/");
    while let Some(name) = todo.pop() {
        match name.components().next() {
            Some(Component::RootDir) => done = PathBuf::from("/"),
            Some(Component::ParentDir) => drop(done.pop()),
            Some(Component::Normal(_)) => {
                let here = done.join(&name);
                // The last name is looked at by the caller, who wants to know that it is a link.
                let is_link = !todo.is_empty() && here.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink());
                if is_link {
                    links += 1;
                    if links > LINKS_MAX || !is_trusted(&done) {
                        return Err(Errno::ELOOP.into());
                    }
                    let target = here.read_link()?;
                    todo.extend(target.components().rev().map(|component| PathBuf::from(component.as_os_str())));
                } else {
                    done = here;
                }
            }
            _ => {}
        }
    }
    Ok(done)
}

/// Only root and we may write there.
fn is_trusted(folder: &Path) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    folder.metadata().is_ok_and(|metadata| (metadata.uid() == 0 || metadata.uid() == ours) && metadata.mode() & 0o022 == 0)
}
