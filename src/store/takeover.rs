//! A store that begins with what mosquitto kept.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::mosquitto::{self, Damage, Report, Terms, Unreadable};
use super::place::Place;
use super::{State, frames};
use crate::conf::{Conf, Persistence};
use crate::notice::Notice;

/// mosquitto's database, and what it takes to understand it.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub terms: Terms,
}

/// `persistence_file`, if it is mosquitto's.
fn database(conf: &Persistence) -> Option<PathBuf> {
    let file = super::configured(conf);
    frames::is_mosquittos(&file).then_some(file)
}

impl Source {
    /// `zero`: the time of day at the machine's `Time(0)`, in milliseconds since 1970.
    pub fn of(conf: &Conf, zero: i64) -> Option<Self> {
        Some(Self { path: database(&conf.persistence)?, terms: Terms::of(conf, zero) })
    }

    /// Into the state of a store that is new. The database is only read.
    pub(super) fn take_over(&self, state: &mut State, store: &Path, say: &dyn Fn(&Notice)) {
        let path = || self.path.display().to_string();
        let bytes = std::fs::read(&self.path).map_err(|error| error.to_string());
        let (imported, report) = match bytes.and_then(|bytes| mosquitto::import(&bytes, &self.terms).map_err(|error| error.to_string())) {
            Ok(imported) => imported,
            Err(reason) => return say(&Notice::NotImported { path: path(), reason, store: store.display().to_string() }),
        };
        *state = imported;
        let Report { retained, sessions, subscriptions, queued, expired, .. } = report;
        say(&Notice::Imported { path: path(), retained, sessions, subscriptions, queued, expired });
        if !report.is_whole() {
            say(&Notice::ImportedInPart { path: path(), what: report.missing() });
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if self.path.canonicalize().is_ok_and(|file| has_nothing_lasting_beside(&file, &mounts)) {
            say(&Notice::StoreBesideMount { path: path(), store: store.display().to_string() });
        }
    }

    /// The store is there already: what mosquitto has written since is not in it.
    pub(super) fn compare(&self, store: &Path, say: &dyn Fn(&Notice)) {
        let written = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        if let (Some(theirs), Some(ours)) = (written(&self.path), written(store))
            && theirs > ours
        {
            say(&Notice::DatabaseIsYounger { path: self.path.display().to_string(), store: store.display().to_string() });
        }
    }
}

impl Report {
    /// What could not be read or makes no sense, in words for people.
    pub fn missing(&self) -> String {
        let mut words = Vec::new();
        if self.is_doubtful {
            words.push(format!(
                "it says that its format is of version {}, which is not known, and was read as far as it looks like one that is",
                self.version
            ));
        }
        if self.damage.places > 0 {
            let Damage { places, at, why, bytes } = &self.damage;
            words.push(format!("{why} (byte {at}); {places} places of {bytes} bytes in all were passed over"));
        }
        if self.senseless > 0 {
            words.push(format!("{} entries name a message that is not there, or what MQTT does not permit", self.senseless));
        }
        words.join("; ")
    }
}

/// Whether `file` is a mount by itself, as `-v ./mosquitto.db:…` makes it, in a folder that goes with its container: of the image, or an
/// anonymous volume. `mountinfo`: the text of /proc/self/mountinfo.
fn has_nothing_lasting_beside(file: &Path, mountinfo: &str) -> bool {
    // Fields: id, parent, device, path within the filesystem, mount point, … [proc_pid_mountinfo(5)]
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, Path::new(fields.next()?)))
    });
    let of_folder = |(_, point): &(&str, &Path)| file.parent().is_some_and(|folder| folder.starts_with(point));
    let folder = mounts.clone().filter(of_folder).max_by_key(|(_, point)| point.components().count());
    let is_anonymous = |root: &str| {
        let name = root.strip_suffix("/_data").and_then(|root| root.rsplit('/').next());
        name.is_some_and(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let goes = folder.is_some_and(|(root, point)| point == Path::new("/") || is_anonymous(root));
    goes && mounts.clone().any(|(_, point)| point == file)
}

/// A database by itself, for people.
pub fn read_database(path: &Path, terms: &Terms) -> std::io::Result<Result<(State, Report), Unreadable>> {
    let mut bytes = Vec::new();
    Place::of(path)?.open()?.read_to_end(&mut bytes)?;
    Ok(mosquitto::import(&bytes, terms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_beside_a_mounted_file_lasts_in_a_volume_with_a_name_only() {
        let volume = |name: &str| format!("1 2 8:1 /var/lib/docker/volumes/{name}/_data /mosquitto/config rw - ext4 /dev/sda1 rw");
        let (root, file) =
            ("1 1 0:50 / / rw - overlay overlay rw", "1 3 8:1 /home/u/data.db /mosquitto/config/data.db rw - ext4 /dev/sda1 rw");
        let anonymous = volume(&"0f".repeat(32));
        let data = Path::new("/mosquitto/config/data.db");
        let goes = |lines: &[&str]| has_nothing_lasting_beside(data, &lines.join("\n"));
        assert!(goes(&[root, file]));
        assert!(goes(&[root, &anonymous, file]));
        assert!(!goes(&[root, &volume("config"), file]));
        assert!(!goes(&[root, &anonymous]), "the file is in the volume");
        assert!(!goes(&[root]) && !goes(&[]));
    }
}
