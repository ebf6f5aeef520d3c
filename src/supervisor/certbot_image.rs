//! What the image with mosquitto and certbot says at its start, for those who come from it: where DOMAIN is set, or its folders are.

use std::path::{Path, PathBuf};

use crate::acme::settings;

/// What was there before the volumes were mended.
pub(super) struct Before {
    root: PathBuf,
    config: PathBuf,
    had_config: bool,
    had_passwords: bool,
}

/// What its words depend on.
#[derive(Debug, Clone, Copy, Default)]
struct Facts<'a> {
    domain: Option<&'a str>,
    has_its_folders: bool,
    had_config: bool,
    has_config: bool,
    /// The password file in its folder, where it is new.
    new_passwords: Option<&'a Path>,
    has_log: bool,
}

fn passwords(root: &Path) -> PathBuf {
    root.join("conf/passwd")
}

impl Before {
    pub(super) fn look(root: &Path, config: &Path) -> Self {
        Self { root: root.to_owned(), config: config.to_owned(), had_config: config.exists(), had_passwords: passwords(root).exists() }
    }

    /// Now that they are mended.
    pub(super) fn lines(&self) -> Vec<String> {
        let domains = settings::domains(|name| std::env::var(name).ok());
        let passwords = passwords(&self.root);
        lines(Facts {
            domain: domains.first().map(String::as_str),
            has_its_folders: self.config == self.root.join("conf/mosquitto.conf"),
            had_config: self.had_config,
            has_config: self.config.exists(),
            new_passwords: (!self.had_passwords && passwords.exists()).then_some(&passwords),
            has_log: self.root.join("log").is_dir(),
        })
    }
}

fn lines(facts: Facts<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    if facts.domain.is_none() && !facts.has_its_folders {
        return lines;
    }
    if !facts.has_log {
        lines.push("WARNING: missing /mosquitto/log directory".to_owned());
        lines.push("WARNING: ignore if your mosquitto.conf has a non-standard configuration".to_owned());
    }
    if let Some(path) = facts.new_passwords.filter(|_| facts.has_its_folders) {
        lines.push(format!("Creating blank passwd file at {}", path.display()));
    }
    if facts.had_config {
        lines.push("Keep existing mosquitto.conf".to_owned());
    } else if facts.has_config {
        lines.push("Copying adapted mosquitto.conf".to_owned());
        lines.extend(facts.domain.map(|domain| format!("mosquitto.conf adapted to {domain}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_said_to_those_who_know_it_and_to_nobody_else() {
        let passwd = Path::new("/mosquitto/conf/passwd");
        let iotstack = Facts { has_config: true, has_log: true, ..Facts::default() };
        let warning =
            ["WARNING: missing /mosquitto/log directory", "WARNING: ignore if your mosquitto.conf has a non-standard configuration"];
        let table: [(Facts<'_>, &[&str]); 6] = [
            (iotstack, &[]),
            (Facts { has_log: false, had_config: true, ..iotstack }, &[]),
            (Facts { domain: Some("a.test"), had_config: true, ..iotstack }, &["Keep existing mosquitto.conf"]),
            (Facts { domain: Some("a.test"), ..iotstack }, &["Copying adapted mosquitto.conf", "mosquitto.conf adapted to a.test"]),
            (
                Facts { has_its_folders: true, new_passwords: Some(passwd), ..iotstack },
                &["Creating blank passwd file at /mosquitto/conf/passwd", "Copying adapted mosquitto.conf"],
            ),
            (
                Facts { has_its_folders: true, had_config: true, has_log: false, ..iotstack },
                &[warning[0], warning[1], "Keep existing mosquitto.conf"],
            ),
        ];
        for (facts, expected) in table {
            assert_eq!(lines(facts), expected, "{facts:?}");
        }
    }
}
