//! `renewal/NAME.conf`, certbot's record of how a certificate was obtained. What certbot wrote stays; only our own lines change.

use std::path::Path;

/// certbot takes this for its own version: one that wrote every line that we write.
const VERSION: &str = "2.0.0";
const PARAMETERS: &str = "renewalparams";

/// The lines of the file, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RenewalConf {
    lines: Vec<String>,
}

/// What the file of a lineage says when darner has renewed it.
pub struct Facts<'a> {
    pub name: &'a str,
    pub root: &'a Path,
    pub server: &'a str,
    /// The name of the account's folder, see `account`.
    pub account: Option<&'a str>,
    /// `ecdsa` or `rsa`, and for `ecdsa` the curve.
    pub key_type: (&'a str, Option<&'a str>),
}

impl RenewalConf {
    pub fn parse(text: &str) -> Self {
        Self { lines: text.lines().map(str::to_owned).collect() }
    }

    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    /// The value of a key in `[section]`, or above the first section.
    pub fn get(&self, section: Option<&str>, key: &str) -> Option<&str> {
        let (start, end) = self.section(section)?;
        let line = self.lines.get(start..end)?.iter().find(|line| is(line, key))?;
        line.split_once('=').map(|(_, value)| value.trim())
    }

    /// The CA's directory.
    pub fn server(&self) -> Option<&str> {
        self.get(Some(PARAMETERS), "server")
    }

    fn set(&mut self, section: Option<&str>, key: &str, value: Option<&str>) {
        let (start, mut end) = self.section(section).unwrap_or_else(|| {
            self.lines.extend([String::new(), format!("[{}]", section.unwrap_or_default())]);
            (self.lines.len(), self.lines.len())
        });
        let found = (start..end).find(|at| self.lines.get(*at).is_some_and(|line| is(line, key)));
        match (found, value) {
            (Some(at), Some(value)) => {
                if let Some(line) = self.lines.get_mut(at) {
                    *line = format!("{key} = {value}");
                }
            }
            (Some(at), None) => drop(self.lines.remove(at)),
            (None, Some(value)) => {
                while end > start && self.lines.get(end - 1).is_some_and(|line| line.trim().is_empty()) {
                    end -= 1;
                }
                self.lines.insert(end, format!("{key} = {value}"));
            }
            (None, None) => {}
        }
    }

    /// Lines from `.0` to before `.1`.
    fn section(&self, section: Option<&str>) -> Option<(usize, usize)> {
        let header = |line: &String| line.trim_start().starts_with('[');
        let start = match section {
            None => 0,
            Some(name) => self.lines.iter().position(|line| line.trim() == format!("[{name}]"))? + 1,
        };
        let length = self.lines.iter().skip(start).position(header).unwrap_or(self.lines.len() - start);
        Some((start, start + length))
    }

    /// Makes it the record of a certificate that darner obtained.
    pub fn record(&mut self, facts: &Facts<'_>) {
        let root = facts.root.display();
        if self.get(None, "version").is_none() {
            self.set(None, "version", Some(VERSION));
        }
        self.set(None, "archive_dir", Some(&format!("{root}/archive/{}", facts.name)));
        for kind in ["cert", "privkey", "chain", "fullchain"] {
            self.set(None, kind, Some(&format!("{root}/live/{}/{kind}.pem", facts.name)));
        }
        if self.section(Some(PARAMETERS)).is_none() {
            self.lines.extend([String::new(), "# How certbot would renew it.".into(), format!("[{PARAMETERS}]")]);
        }
        let mut parameter = |key, value: Option<&str>| self.set(Some(PARAMETERS), key, value);
        parameter("account", facts.account);
        parameter("server", Some(facts.server));
        parameter("key_type", Some(facts.key_type.0));
        parameter("elliptic_curve", facts.key_type.1);
        if self.get(Some(PARAMETERS), "authenticator").is_none() {
            self.set(Some(PARAMETERS), "authenticator", Some("standalone"));
        }
    }
}

fn is(line: &str, key: &str) -> bool {
    line.split_once('=').is_some_and(|(found, _)| found.trim() == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(account: Option<&str>) -> Facts<'_> {
        let root = Path::new("/etc/letsencrypt");
        Facts { name: "a.test", root, server: "https://ca.test/dir", account, key_type: ("ecdsa", Some("secp256r1")) }
    }

    #[test]
    fn what_certbot_wrote_stays() {
        let text = "# renew_before_expiry = 30 days\nversion = 5.8.0\ncert = /old\n\n# Options used\n[renewalparams]\naccount = old\n\
                    authenticator = webroot\npost_hook = /restart.sh\n[[webroot_map]]\na.test = /var/www\n[acme_renewal_info]\nari_retry_after = x\n";
        let mut conf = RenewalConf::parse(text);
        conf.record(&facts(Some("new")));
        let text = conf.text();
        for kept in [
            "# renew_before",
            "version = 5.8.0",
            "authenticator = webroot",
            "post_hook = /restart.sh",
            "[[webroot_map]]\na.test = /var/www",
        ] {
            assert!(text.contains(kept), "{kept}: {text}");
        }
        assert!(text.contains("cert = /etc/letsencrypt/live/a.test/cert.pem\n") && !text.contains("/old"), "{text}");
        assert_eq!(conf.get(Some("renewalparams"), "account"), Some("new"));
        assert_eq!(conf.server(), Some("https://ca.test/dir"));
        let again = conf.clone();
        conf.record(&facts(Some("new")));
        assert_eq!(conf, again);
    }

    #[test]
    fn a_new_one_has_all_that_certbot_asks_for() {
        let mut conf = RenewalConf::default();
        conf.record(&facts(None));
        for key in ["version", "archive_dir", "cert", "privkey", "chain", "fullchain"] {
            assert!(conf.get(None, key).is_some(), "{key}: {}", conf.text());
        }
        assert_eq!(conf.get(Some("renewalparams"), "authenticator"), Some("standalone"));
        assert_eq!(conf.get(Some("renewalparams"), "account"), None);
    }
}
