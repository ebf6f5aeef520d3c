//! What is worth a warning although nothing is broken yet: certificates that nobody renews, and certificates that go with the container.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::Certificates;
use crate::acme::state::State;
use crate::logging::LogType;
use crate::supervisor::voice::Voice;

impl Certificates {
    /// What to do where a configuration was refused (with these lines) for files that nobody was asked to obtain.
    pub(in crate::supervisor) fn advice(&self, lines: &[(LogType, String)]) -> Option<String> {
        let live = self.store.root().join("live").display().to_string();
        let is_about_them = lines.iter().any(|(_, line)| line.contains(&live));
        (self.domains.is_empty() && is_about_them).then(|| {
            format!(
                "Error: certificates below {live} are obtained when DOMAIN and EMAIL are set, and DOMAIN is not: set both, or mount the folder in which \
                 certbot keeps them."
            )
        })
    }

    /// Names lineages that listeners use and that are not renewed here, each once. `paths`: the files of listeners.
    pub(super) fn warn_of_others<'a>(&mut self, paths: impl Iterator<Item = &'a Path>, voice: &Voice) {
        let live = self.store.root().join("live");
        let lineage = |path: &Path| Some(path.strip_prefix(&live).ok()?.components().next()?.as_os_str().to_str()?.to_owned());
        let names: BTreeSet<_> = paths.filter_map(lineage).filter(|name| *name != self.name).collect();
        for name in names {
            // Without DOMAIN somebody else renews, unless it was us.
            let was_ours = State::path(self.store.root(), &name).exists();
            if (self.settings.is_none() && !was_ours) || !self.warned_of.insert(name.clone()) {
                continue;
            }
            let reason = match self.domains.first() {
                Some(first) => format!("DOMAIN begins with {first}, so that {} is renewed", live.join(&self.name).display()),
                None => "DOMAIN is not set".to_owned(),
            };
            let text = format!(
                "Warning: a listener uses {}, which darner does not renew: {reason}. Correct DOMAIN or the listener, if nobody else renews it.",
                live.join(&name).display()
            );
            voice.say(LogType::Warning, &text);
        }
    }

    /// Says it where certificates would be lost with the container, and ordered anew with the next.
    pub(super) fn warn_of_loss(&self, voice: &Voice) {
        let device = |path: &Path| path.metadata().ok().map(|data| data.dev());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_in_the_container = device(Path::new("/")).is_some() && device(self.store.root()) == device(Path::new("/"));
        if is_in_the_container && is_root_a_layer(&mounts) {
            let root = self.store.root().display();
            let text = format!(
                "Warning: {root} is no volume: certificates and the account are lost with this container, and a CA gives only so many a week. Mount a \
                 volume there."
            );
            voice.say(LogType::Warning, &text);
        }
    }
}

/// Whether `/` is what a container engine lays over its image, by /proc/self/mountinfo.
fn is_root_a_layer(mounts: &str) -> bool {
    let mut roots = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    roots.any(|line| {
        line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("overlay ") || rest.starts_with("fuse.fuse-overlayfs "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_known_from_a_disk() {
        let line = |mount: &str, kind: &str| format!("1 2 0:50 / {mount} rw,relatime shared:1 - {kind} none rw\n");
        assert!(is_root_a_layer(&(line("/", "overlay") + &line("/proc", "proc"))));
        assert!(!is_root_a_layer(&(line("/", "ext4") + &line("/var/lib/docker/overlay2/x/merged", "overlay"))));
        assert!(!is_root_a_layer(""));
    }
}
