//! An anonymous volume of the image that hides part of what the user mounted.

use std::path::Path;

const FOLDERS: [&str; 4] = ["config", "pwfile", "data", "log"];

/// The path within its filesystem and the mount point of each mount.
/// Fields: id, parent, device, path within the filesystem, mount point, … [proc_pid_mountinfo(5)]
fn mounts(mountinfo: &str) -> impl Iterator<Item = (&str, &Path)> {
    mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        Some((fields.next()?, Path::new(fields.next()?)))
    })
}

/// Whether something is mounted on `folder` or in it.
pub(super) fn is_mounted_within(mountinfo: &str, folder: &Path) -> bool {
    mounts(mountinfo).any(|(_, point)| point.starts_with(folder))
}

/// Finds, in the text of /proc/self/mountinfo, anonymous volumes below a mount on `root`. One sentence each.
pub(super) fn shadowed(mountinfo: &str, root: &Path) -> Vec<String> {
    let mounts: Vec<(&str, &Path)> = mounts(mountinfo).collect();
    if !mounts.iter().any(|(_, point)| *point == root) {
        return Vec::new();
    }
    FOLDERS
        .iter()
        .map(|name| root.join(name))
        .filter(|folder| mounts.iter().any(|(within, point)| point == folder && is_anonymous(within)))
        .map(|folder| {
            format!(
                "'{0}' is an anonymous volume of the image, which hides the {0} of what you mounted on '{1}': mount '{0}' by itself",
                folder.display(),
                root.display()
            )
        })
        .collect()
}

/// `…/volumes/<64 hexadecimal digits>/_data`: a volume that nobody gave a name.
fn is_anonymous(within: &str) -> bool {
    within
        .strip_suffix("/_data")
        .and_then(|path| path.rsplit_once("/volumes/"))
        .is_some_and(|(_, name)| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_anonymous_volume_below_a_mounted_root_is_told() {
        let hex = "0123456789abcdef".repeat(4);
        let root = "36 30 8:1 /srv/mqtt /mosquitto rw,relatime - ext4 /dev/sda1 rw\n";
        let anonymous = format!("37 36 8:1 /var/lib/docker/volumes/{hex}/_data /mosquitto/data rw - ext4 /dev/sda1 rw\n");
        let named = "38 36 8:1 /var/lib/docker/volumes/mqtt-log/_data /mosquitto/log rw - ext4 /dev/sda1 rw\n";
        let told = shadowed(&format!("{root}{anonymous}{named}"), Path::new("/mosquitto"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("/mosquitto/data"), "{told:?}");
        assert!(shadowed(&anonymous, Path::new("/mosquitto")).is_empty());
        assert!(shadowed("\n \nx", Path::new("/mosquitto")).is_empty());
        let pod = "39 30 8:1 /passwd /myuser/passwd ro,relatime - ext4 /dev/sda1 rw\n";
        assert!(is_mounted_within(pod, Path::new("/myuser")) && !is_mounted_within(root, Path::new("/myuser")));
    }
}
