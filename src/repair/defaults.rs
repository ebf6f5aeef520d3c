//! The files that are put back when they are missing: one table, embedded in the binary.

use std::path::{Path, PathBuf};

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

/// The root that the texts speak of.
const WRITTEN_FOR: &str = "/mosquitto/";

/// The defaults below `root` (absolute), which also replaces `/mosquitto` in their texts.
pub fn rendered(root: &Path) -> Vec<Rendered> {
    let here = format!("{}/", root.display().to_string().trim_end_matches('/'));
    DEFAULTS
        .iter()
        .map(|default| Rendered {
            path: root.join(default.path),
            role: default.role,
            mode: default.mode,
            mtime: MTIME,
            bytes: default.text.replace(WRITTEN_FOR, &here).into_bytes(),
        })
        .collect()
}

/// The default configuration for `root`.
pub fn config(root: &Path) -> Vec<u8> {
    rendered(root).into_iter().find(|default| default.role == Role::Config).map(|default| default.bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_speak_of_the_root_they_are_put_into() {
        let text = String::from_utf8(config(Path::new("/srv/data"))).expect("text");
        assert!(text.contains("\npersistence_location /srv/data/data\n"), "{text}");
        assert!(!text.contains("/mosquitto/"), "{text}");
        assert!(String::from_utf8(config(Path::new("/mosquitto"))).expect("text").contains("\npersistence_location /mosquitto/data\n"));
    }
}
