//! Certificates on disk as certbot keeps them, so that certbot's volume is ours and ours is certbot's.
//!
//! | below /etc/letsencrypt | what |
//! |---|---|
//! | `archive/NAME/{privkey,cert,chain,fullchain}N.pem` | version N of a lineage |
//! | `live/NAME/{privkey,cert,chain,fullchain}.pem` | relative links to the version in use |
//! | `renewal/NAME.conf` | how it was obtained: `renewal_conf` |
//! | `accounts/SERVER/ID/` | who asked for it: `account` |
//! | `darner/` | what only darner knows, see `acme::state`, and its worker's folder |

pub mod account;
pub mod durable;
pub mod renewal_conf;

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::tls::leaf::{self, Leaf};

/// The four files of a version; the first is the key.
pub const KINDS: [&str; 4] = ["privkey", "cert", "chain", "fullchain"];

/// Older versions than so many are removed.
const VERSIONS_KEPT: u32 = 5;

/// Nothing in a lineage is longer: a certificate has some 2 KB.
const FILE_BYTES_MAX: u64 = 256 << 10;

const README: &str = "\
Every folder here holds the certificate in use: links to the newest version in ../archive, switched together after each renewal.

privkey.pem    the private key; keep it secret
fullchain.pem  the certificate with its chain: certfile of mosquitto.conf
chain.pem      the chain alone: cafile of mosquitto.conf
cert.pem       the certificate alone

Name these links in configurations and do not move them: darner and certbot both expect them here.
";

/// A certificate and its key as they came, in PEM form.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub privkey: Vec<u8>,
    pub fullchain: Vec<u8>,
}

impl Pair {
    /// The leaf, if the two belong together.
    ///
    /// # Errors
    /// Why they do not, as half a sentence.
    pub fn leaf(&self) -> Result<Leaf, String> {
        leaf::pair(&self.fullchain, &self.privkey)
    }

    /// The certificate alone, and the rest of the chain.
    fn split(&self) -> Option<(&[u8], &[u8])> {
        const END: &[u8] = b"-----END CERTIFICATE-----";
        let at = self.fullchain.windows(END.len()).position(|window| window == END)? + END.len();
        let (cert, chain) = self.fullchain.split_at_checked(at)?;
        let start = chain.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(chain.len());
        Some((cert, chain.get(start..).unwrap_or_default()))
    }

    fn files(&self) -> io::Result<[Vec<u8>; 4]> {
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "there is no chain after the certificate");
        let (cert, chain) = self.split().ok_or_else(damaged)?;
        if chain.is_empty() {
            return Err(damaged());
        }
        let lines = |bytes: &[u8]| [bytes, if bytes.ends_with(b"\n") { b"" } else { b"\n" }].concat();
        let (cert, chain) = (lines(cert), lines(chain));
        let fullchain = [cert.as_slice(), &chain].concat();
        Ok([lines(&self.privkey), cert, chain, fullchain])
    }
}

/// Called before each step of [`Store::install`] with what comes next; an error ends it there, as a crash would.
pub type BeforeStep<'a> = &'a mut dyn FnMut(&str) -> io::Result<()>;

/// The tree below `/etc/letsencrypt`.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn live(&self, name: &str) -> PathBuf {
        self.root.join("live").join(name)
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.root.join("archive").join(name)
    }

    fn file(&self, name: &str, kind: &str, version: u32) -> PathBuf {
        self.archive(name).join(format!("{kind}{version}.pem"))
    }

    pub fn renewal_conf(&self, name: &str) -> PathBuf {
        self.root.join("renewal").join(format!("{name}.conf"))
    }

    /// Makes the folders that are missing, with certbot's modes.
    ///
    /// # Errors
    /// The volume cannot be written.
    pub fn open(&self) -> io::Result<()> {
        durable::folder(&self.root, 0o755)?;
        for name in ["accounts", "archive", "live", "renewal"] {
            durable::folder(&self.root.join(name), 0o700)?;
        }
        for name in ["pre", "deploy", "post"] {
            durable::folder(&self.root.join("renewal-hooks").join(name), 0o755)?;
        }
        durable::folder(&self.root.join("darner"), 0o755)?;
        let readme = self.root.join("live/README");
        if !readme.exists() {
            durable::write(&readme, README.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    /// Writes and removes a file as large as a renewal needs: a full or read-only volume must not cost an order.
    ///
    /// # Errors
    /// What a renewal would meet.
    pub fn probe(&self) -> io::Result<()> {
        self.open()?;
        let probe = self.root.join("darner/probe");
        durable::write(&probe, &vec![b'.'; 64 << 10], 0o600)?;
        std::fs::remove_file(&probe)
    }

    /// What the lineage of these domains is called: the first domain, or the highest of certbot's `DOMAIN-0001`… where only that is live.
    pub fn name_for(&self, domain: &str) -> String {
        let plain = domain.trim_start_matches("*.").to_ascii_lowercase();
        if self.live(&plain).exists() {
            return plain;
        }
        let numbered = |name: &String| {
            let digits = name.strip_prefix(&plain).and_then(|rest| rest.strip_prefix('-'));
            digits.is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        };
        self.names().into_iter().rfind(numbered).unwrap_or(plain)
    }

    /// Every lineage, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("live")).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// The pair that is live; `None` where there is no lineage of this name.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn current(&self, name: &str) -> io::Result<Option<Pair>> {
        let live = self.live(name);
        if !live.is_dir() {
            return Ok(None);
        }
        Ok(Some(Pair { privkey: read(&live.join("privkey.pem"))?, fullchain: read(&live.join("fullchain.pem"))? }))
    }

    /// Versions that have any file, highest first.
    fn versions(&self, name: &str) -> Vec<u32> {
        let entries = std::fs::read_dir(self.archive(name)).into_iter().flatten().flatten();
        let version = |file: String| {
            let stem = file.strip_suffix(".pem")?.to_owned();
            KINDS.iter().find_map(|kind| stem.strip_prefix(kind)?.parse::<u32>().ok())
        };
        let mut versions: Vec<_> = entries.filter_map(|entry| version(entry.file_name().into_string().ok()?)).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        versions
    }

    fn version(&self, name: &str, version: u32) -> Option<Pair> {
        let file = |kind| read(&self.file(name, kind, version)).ok();
        file("cert")?;
        file("chain")?;
        Some(Pair { privkey: file("privkey")?, fullchain: file("fullchain")? })
    }

    /// The version that each link names, in the order of [`KINDS`].
    fn linked(&self, name: &str) -> [Option<u32>; 4] {
        KINDS.map(|kind| {
            let target = self.live(name).join(format!("{kind}.pem")).read_link().ok()?;
            let file = target.file_name()?.to_str()?.to_owned();
            file.strip_prefix(kind)?.strip_suffix(".pem")?.parse().ok()
        })
    }

    /// Ends what a crash interrupted: links that disagree, or name what is damaged or gone, are set to the newest version that is whole.
    /// Returns what was done, as sentences.
    ///
    /// # Errors
    /// The volume cannot be written.
    pub fn mend(&self, name: &str) -> io::Result<Vec<String>> {
        let mut said = Vec::new();
        for folder in [self.live(name), self.archive(name)] {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| durable::is_unfinished(&entry.path())) {
                std::fs::remove_file(entry.path())?;
            }
        }
        // Somebody's own files instead of links are his business.
        let is_foreign = self.archive(name).symlink_metadata().is_err();
        let linked = self.linked(name);
        let first = linked.first().copied().flatten();
        let is_whole = |version: u32| self.version(name, version).is_some_and(|pair| pair.leaf().is_ok());
        if is_foreign || (first.is_some_and(is_whole) && linked.iter().all(|version| *version == first)) {
            return Ok(said);
        }
        let versions = self.versions(name);
        let Some(good) = versions.iter().copied().find(|version| is_whole(*version)) else { return Ok(said) };
        for version in versions.into_iter().take_while(|version| *version > good) {
            self.set_aside(name, version, &mut said)?;
        }
        self.switch(name, good, &mut |_| Ok(()))?;
        said.push(format!("the links of {} did not lead to one whole version; they lead to version {good} now", self.live(name).display()));
        Ok(said)
    }

    /// A version that is complete but broken is kept for whoever wants to look at it; an incomplete one is what a crash left.
    fn set_aside(&self, name: &str, version: u32, said: &mut Vec<String>) -> io::Result<()> {
        let files: Vec<_> = KINDS.iter().map(|kind| self.file(name, kind, version)).filter(|file| file.exists()).collect();
        for file in &files {
            if files.len() == KINDS.len() {
                let aside = durable::move_aside(file)?;
                said.push(format!("{} is damaged and was moved to {}", file.display(), aside.display()));
            } else {
                std::fs::remove_file(file)?;
            }
        }
        Ok(())
    }

    /// Stores a pair that was looked at as the next version and puts it in use. Returns its number.
    ///
    /// # Errors
    /// Of any step. Before the links are switched the old version is in use; afterwards [`Self::mend`] completes the new one.
    pub fn install(&self, name: &str, pair: &Pair, before: BeforeStep<'_>) -> io::Result<u32> {
        let files = pair.files()?;
        before("folders")?;
        durable::folder(&self.archive(name), 0o700)?;
        durable::folder(&self.live(name), 0o700)?;
        let newest = self.versions(name).first().copied().unwrap_or(0);
        let version = newest.checked_add(1).ok_or(io::ErrorKind::InvalidData)?;
        let (key_mode, group) = self.key_rights(name);
        for (kind, bytes) in KINDS.iter().zip(&files) {
            before(kind)?;
            let path = self.file(name, kind, version);
            durable::write(&path, bytes, if *kind == "privkey" { key_mode } else { 0o644 })?;
            if let ("privkey", Some(group)) = (*kind, group) {
                // Somebody shares the key with a group, as certbot lets him; without the right to it stays root's.
                let _ = std::os::unix::fs::chown(&path, None, Some(group));
            }
        }
        let readme = self.live(name).join("README");
        if !readme.exists() {
            durable::write(&readme, README.as_bytes(), 0o644)?;
        }
        self.switch(name, version, before)?;
        for old in self.versions(name).into_iter().filter(|old| old.saturating_add(VERSIONS_KEPT) <= version) {
            for kind in KINDS {
                let _ = std::fs::remove_file(self.file(name, kind, old));
            }
        }
        Ok(version)
    }

    /// Mode and group of the next key: those of the last one, without any right of others.
    fn key_rights(&self, name: &str) -> (u32, Option<u32>) {
        match std::fs::metadata(self.live(name).join("privkey.pem")) {
            Ok(last) => (0o600 | (last.permissions().mode() & 0o040), Some(last.gid())),
            Err(_) => (0o600, None),
        }
    }

    fn switch(&self, name: &str, version: u32, before: BeforeStep<'_>) -> io::Result<()> {
        durable::folder(&self.live(name), 0o700)?;
        for kind in KINDS {
            before(&format!("link {kind}"))?;
            let target = PathBuf::from(format!("../../archive/{name}/{kind}{version}.pem"));
            durable::link(&self.live(name).join(format!("{kind}.pem")), &target)?;
        }
        before("sync")?;
        durable::sync_folder_of(&self.live(name).join("README"))
    }
}

/// A file of at most [`FILE_BYTES_MAX`].
///
/// # Errors
/// As for any file, and `InvalidData` for a longer one.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_from(std::fs::File::open(path)?)
}

/// The same of a file that is open.
///
/// # Errors
/// As for any file, and `InvalidData` for a longer one.
pub fn read_from(file: std::fs::File) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is far too long"));
    }
    Ok(bytes)
}
