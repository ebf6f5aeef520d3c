//! The files that are put back when they are missing: one table, embedded in the binary.

use std::path::{Path, PathBuf};

use super::shadowing;
use crate::acme::lineage::Store;
use crate::acme::settings;

/// A default as it is embedded.
struct Default {
    path: &'static str,
    role: Role,
    mode: u32,
    text: &'static str,
}

/// What the broker uses the file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Config,
    Acl,
    Passwords,
}

/// A default for one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// Absolute.
    pub path: PathBuf,
    pub role: Role,
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: i64,
    pub bytes: Vec<u8>,
}

/// A constant, so that two containers restore the same file. 2026-11-23.
const MTIME: i64 = 1_795_392_000;

const DEFAULTS: &[Default] = &[
    Default { path: "config/mosquitto.conf", role: Role::Config, mode: 0o644, text: include_str!("../../defaults/config/mosquitto.conf") },
    Default { path: "config/filter.acl", role: Role::Acl, mode: 0o644, text: include_str!("../../defaults/config/filter.acl") },
    Default { path: "pwfile/pwfile", role: Role::Passwords, mode: 0o600, text: include_str!("../../defaults/pwfile/pwfile") },
];

/// The configuration of a broker with DOMAIN, and of volumes that were laid out for certbot's image.
const WITH_PASSWORDS: &str = include_str!("../../defaults/conf/mosquitto.conf");
/// Its TLS listeners.
const TLS_LISTENERS: &str = include_str!("../../defaults/conf/tls.conf");

/// The configuration of a pod.
const FOR_A_POD: &str = include_str!("../../defaults/pod/mosquitto.conf");

/// The image's volumes.
pub const IMAGE: &str = "/mosquitto";
/// The folder of an image for OpenShift, which has everything in one place.
pub const POD: &str = "/myuser";
const POD_NAME: &str = "myuser";

/// The folders that the texts speak of.
const WRITTEN_FOR: &str = "/mosquitto/";
const LINEAGE: &str = "/etc/letsencrypt/live/mqtt.example.org";
const PASSWORDS: &str = "/mosquitto/pwfile/pwfile";

/// Where the configuration is when nobody says: in `config`, or, where somebody mounted that instead, in the `conf` of certbot's image.
pub fn usual_config(root: &Path) -> PathBuf {
    let usual = root.join("config/mosquitto.conf");
    if root.join("conf").is_dir() && usual.symlink_metadata().is_err() { in_conf(root) } else { usual }
}

/// The configuration in [`POD`].
pub fn pod_config() -> PathBuf {
    Path::new(POD).join("mosquitto.conf")
}

/// Whether everything is in one folder, as in a pod on OpenShift.
pub fn is_pod(root: &Path, config: &Path) -> bool {
    root.file_name().is_some_and(|name| name == POD_NAME) && config == root.join("mosquitto.conf")
}

/// The root and the configuration when nobody says more than the root: who mounted something at or below [`POD`] in the place of the image's
/// volumes, or works there, means that.
pub fn usual(root: &Path) -> (PathBuf, PathBuf) {
    let config = usual_config(root);
    let pod = Path::new(POD);
    if root == Path::new(IMAGE) && pod.is_dir() && config.symlink_metadata().is_err() {
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let is_cwd = std::env::current_dir().is_ok_and(|folder| folder == pod);
        if is_cwd || pod_config().exists() || shadowing::is_mounted_within(&mountinfo, pod) {
            return (pod.to_owned(), pod_config());
        }
    }
    (root.to_owned(), config)
}

fn in_conf(root: &Path) -> PathBuf {
    root.join("conf/mosquitto.conf")
}

/// The defaults below `root` (absolute), which also replaces `/mosquitto` in their texts. `config` is the configuration that will be loaded.
pub fn rendered(root: &Path, config: &Path) -> Vec<Rendered> {
    render(root, config, lineage().as_deref())
}

/// The default configuration for `root`.
pub fn config(root: &Path, config: &Path) -> Vec<u8> {
    rendered(root, config).into_iter().find(|default| default.role == Role::Config).map(|default| default.bytes).unwrap_or_default()
}

/// Where the certificate of DOMAIN is, or will be.
fn lineage() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var(name).ok();
    let store = Store::new(&settings::root(variable));
    settings::domains(variable).first().map(|first| store.live(&store.name_for(first)))
}

fn render(root: &Path, config: &Path, lineage: Option<&Path>) -> Vec<Rendered> {
    if is_pod(root, config) {
        let bytes = FOR_A_POD.replace(POD, &root.display().to_string()).into_bytes();
        return vec![Rendered { path: config.to_owned(), role: Role::Config, mode: 0o644, mtime: MTIME, bytes }];
    }
    let here = format!("{}/", root.display().to_string().trim_end_matches('/'));
    let is_in_conf = config == in_conf(root);
    let text = |default: &Default| {
        if default.role != Role::Config || (lineage.is_none() && !is_in_conf) {
            return default.text.replace(WRITTEN_FOR, &here);
        }
        let text = if is_in_conf { WITH_PASSWORDS.replace(PASSWORDS, "/mosquitto/conf/passwd") } else { WITH_PASSWORDS.to_owned() };
        let listeners = lineage.map(|lineage| TLS_LISTENERS.replace(LINEAGE, &lineage.display().to_string())).unwrap_or_default();
        text.replace(WRITTEN_FOR, &here) + &listeners
    };
    let path = |default: &Default| if default.role == Role::Config && is_in_conf { in_conf(root) } else { root.join(default.path) };
    DEFAULTS
        .iter()
        .map(|default| Rendered {
            path: path(default),
            role: default.role,
            mode: default.mode,
            mtime: MTIME,
            bytes: text(default).into_bytes(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For the configuration that is `name` below `root`.
    fn text(root: &str, name: &str, lineage: Option<&str>) -> String {
        let root = Path::new(root);
        let all = render(root, &root.join(name), lineage.map(Path::new));
        let one = all.into_iter().find(|default| default.role == Role::Config).expect("a configuration");
        assert_eq!(one.path, root.join(name));
        String::from_utf8(one.bytes).expect("text")
    }

    #[test]
    fn texts_speak_of_the_root_they_are_put_into() {
        let usual = "config/mosquitto.conf";
        let elsewhere = text("/srv/data", usual, None);
        assert!(elsewhere.contains("\npersistence_location /srv/data/data\n"), "{elsewhere}");
        assert!(!elsewhere.contains("/mosquitto/"), "{elsewhere}");
        assert!(text("/mosquitto", usual, None).contains("\npersistence_location /mosquitto/data\n"));
    }

    #[test]
    fn with_a_domain_there_are_tls_listeners_and_nobody_comes_in_without_a_password() {
        for (name, passwords) in [("config/mosquitto.conf", "/mosquitto/pwfile/pwfile"), ("conf/mosquitto.conf", "/mosquitto/conf/passwd")]
        {
            let text = text("/mosquitto", name, Some("/le/live/mqtt.test"));
            for line in ["keyfile /le/live/mqtt.test/privkey.pem", "listener 8883", "listener 8083", "allow_anonymous false"] {
                assert!(text.lines().any(|known| known == line), "{line}: {text}");
            }
            assert!(text.contains(&format!("\npassword_file {passwords}\n")) && !text.contains("mqtt.example.org"), "{text}");
        }
        let without = text("/mosquitto", "conf/mosquitto.conf", None);
        assert!(without.contains("allow_anonymous false") && !without.contains("8883"), "{without}");
    }

    #[test]
    fn a_pod_has_everything_in_one_folder_and_nobody_comes_in_without_a_password() {
        let text = text("/srv/myuser", "mosquitto.conf", Some("/le/live/mqtt.test"));
        for line in ["listener 8883", "keyfile /srv/myuser/server.key", "password_file /srv/myuser/passwd", "allow_anonymous false"] {
            assert!(text.lines().any(|known| known == line), "{line}: {text}");
        }
        let root = Path::new("/srv/myuser");
        assert_eq!(render(root, &root.join("mosquitto.conf"), None).len(), 1);
        assert!(
            !is_pod(root, &root.join("config/mosquitto.conf")) && !is_pod(Path::new("/mosquitto"), Path::new("/mosquitto/mosquitto.conf"))
        );
    }
}
