//! A file system of a test's own, in a mount namespace that goes when the test ends.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::process::{Folder, run};

/// A tmpfs of a few pages, mounted on a folder that stays empty for everybody else.
pub struct Volume {
    folder: Folder,
    /// Keeps the namespace.
    holder: Child,
}

impl Volume {
    /// `size`: as tmpfs takes it, like "1m".
    pub fn new(size: &str) -> Self {
        Self::mounted("mount -t tmpfs -o mode=0777,size=$1 tmpfs \"$2\"", size).expect("the volume is mounted")
    }

    /// A file with a file system in it; `None` where it cannot be mounted.
    pub fn of_image(image: &Path) -> Option<Self> {
        Self::mounted("mount -o loop \"$1\" \"$2\"", &image.display().to_string())
    }

    fn mounted(script: &str, what: &str) -> Option<Self> {
        let folder = Folder::new("volume");
        let mut unshare = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        let script = format!("{script} && echo mounted && exec cat");
        let holder = unshare.args(["--mount", "sh", "-c", &script, "sh", what]).arg(folder.path());
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare runs");
        let mut said = [0; 8];
        let is_mounted = holder.stdout.as_mut().expect("piped").read_exact(&mut said).is_ok();
        let volume = Self { folder, holder };
        is_mounted.then_some(volume)
    }

    /// What a command begins with that is to see the volume.
    pub fn within(&self) -> Vec<String> {
        let mut words: Vec<String> = vec!["nsenter".into(), "-t".into(), self.holder.id().to_string(), "-m".into()];
        if !nix::unistd::geteuid().is_root() {
            words.extend(["-U".into(), "--preserve-credentials".into()]);
        }
        words.push("--".into());
        words
    }

    /// Runs a command that sees the volume.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let within = self.within();
        let (code, out, err) = run(Command::new(&within[0]).args(&within[1..]).args(words));
        assert_eq!(code, 0, "{words:?}: {out}{err}");
        out
    }

    /// As those in the namespace know it.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A file of the volume, from outside.
    pub fn file(&self, name: &str) -> PathBuf {
        let inside = self.folder.path().join(name);
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside.strip_prefix("/").expect("an absolute path"))
    }

    /// Leaves no room, but for what is freed later.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.file("ballast")).expect("a file");
        let zeros = [0; 4096];
        while std::io::Write::write(&mut file, &zeros).is_ok_and(|count| count > 0) {}
    }

    /// Undoes [`Self::fill`].
    pub fn free(&self) {
        std::fs::remove_file(self.file("ballast")).expect("ours");
    }

    /// `ro` or `rw`
    pub fn remount(&self, how: &str) {
        self.run(&["mount", "-o", &format!("remount,{how}"), &self.path().display().to_string()]);
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
