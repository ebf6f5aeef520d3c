//! mosquitto's ACL file.

use std::collections::BTreeMap;
use std::path::Path;

use super::Access;
use crate::conf::diagnostic::{Diagnostic, Findings, Severity};
use crate::mqtt::topic_filter;

/// The rules of one ACL file. No rule at all denies everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acl {
    /// What stands before the first `user`: clients without a user name.
    anonymous: Rules,
    users: BTreeMap<Box<str>, Rules>,
    patterns: Rules,
}

/// Deny entries, then the others; each in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rules {
    deny: Vec<Box<str>>,
    allow: Vec<(Permits, Box<str>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Permits {
    read: bool,
    write: bool,
}

/// What stands for `%c` and `%u`.
#[derive(Clone, Copy)]
struct Identity<'a> {
    client_id: &'a str,
    username: Option<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Denied,
    Permitted,
    Silent,
}

impl Acl {
    /// `Err` holds every error; warnings come with the rules.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<(Self, Vec<Diagnostic>), Vec<Diagnostic>> {
        let mut acl = Self::default();
        let mut diagnostics = Findings::default();
        let mut user: Option<Box<str>> = None;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        for (index, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
            if let Err((severity, message)) = acl.add_line(path, line, &mut user) {
                diagnostics.push(Diagnostic { severity, file: Some(path.to_owned()), line: Some(index + 1), message, hint: None });
            }
        }
        let is_wrong = diagnostics.has_error();
        let diagnostics = diagnostics.end(path);
        if is_wrong { Err(diagnostics) } else { Ok((acl, diagnostics)) }
    }

    fn add_line(&mut self, path: &Path, line: &[u8], user: &mut Option<Box<str>>) -> Result<(), (Severity, String)> {
        let file = path.display();
        let error = |message: String| Err((Severity::Error, message));
        if line.starts_with(b"#") {
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return error(format!("Error: Invalid line in acl_file \"{file}\": it is not UTF-8."));
        };
        let (word, rest) = split_word(text);
        match word {
            "" => Ok(()),
            "user" if rest.is_empty() => error(format!("Error: Missing username in acl_file \"{file}\".")),
            "user" => {
                *user = Some(rest.into());
                // A user without a rule is one who is denied everything, which needs no entry.
                Ok(())
            }
            "topic" | "pattern" => {
                let (permits, filter) = match split_word(rest) {
                    ("", _) => return error(format!("Error: Empty topic in acl_file \"{file}\".")),
                    // One word is the filter, whatever it says.
                    (filter, "") => (Some(Permits { read: true, write: true }), filter),
                    ("read", filter) => (Some(Permits { read: true, write: false }), filter),
                    ("write", filter) => (Some(Permits { read: false, write: true }), filter),
                    ("readwrite", filter) => (Some(Permits { read: true, write: true }), filter),
                    ("deny", filter) => (None, filter),
                    (other, _) => {
                        let other = other.escape_debug();
                        return error(format!("Error: Invalid topic access type \"{other}\" in acl_file \"{file}\"."));
                    }
                };
                if !is_valid_filter(filter) {
                    return error(format!("Error: Invalid ACL topic \"{}\" in acl_file \"{file}\".", filter.escape_debug()));
                }
                let rules = match (word, &*user) {
                    ("pattern", _) => &mut self.patterns,
                    (_, Some(user)) => self.users.entry(user.clone()).or_default(),
                    (_, None) => &mut self.anonymous,
                };
                match permits {
                    None => rules.deny.push(filter.into()),
                    Some(permits) => rules.allow.push((permits, filter.into())),
                }
                if word == "pattern" && !filter.split('/').any(|level| level == "%c" || level == "%u") {
                    let message = format!("Warning: ACL pattern '{}' does not contain '%c' or '%u'.", filter.escape_debug());
                    return Err((Severity::Warning, message));
                }
                Ok(())
            }
            _ => error(format!("Error: Invalid line in acl_file \"{file}\": {}.", text.trim_end().escape_debug())),
        }
    }

    /// Deny entries first, then any allowing entry; nothing matches: denied. The user's own entries come before the patterns.
    pub fn permits(&self, client_id: &str, username: Option<&str>, topic: &str, access: Access) -> bool {
        if access == Access::Subscribe {
            return true;
        }
        let own = match username {
            Some(name) => self.users.get(name),
            None => Some(&self.anonymous),
        };
        match own.map_or(Verdict::Silent, |rules| rules.judge(topic, access, None)) {
            Verdict::Permitted => return true,
            Verdict::Denied => return false,
            Verdict::Silent => {}
        }
        if self.patterns.is_empty() || self.danger(client_id, username).is_some() {
            return false;
        }
        self.patterns.judge(topic, access, Some(Identity { client_id, username })) == Verdict::Permitted
    }

    /// mosquitto's sentence about a name that would act as a wildcard in the patterns (CVE-2017-7650): all that only a pattern would
    /// permit is denied. `None`: nothing to say.
    pub fn danger(&self, client_id: &str, username: Option<&str>) -> Option<String> {
        if self.patterns.is_empty() {
            return None;
        }
        let dangerous = |name: &str| name.contains(['+', '#']);
        match username.filter(|name| dangerous(name)) {
            Some(username) => Some(format!("ACL denying access to client with dangerous username \"{username}\"")),
            None if dangerous(client_id) => Some(format!("ACL denying access to client with dangerous client id \"{client_id}\"")),
            None => None,
        }
    }
}

impl Rules {
    fn is_empty(&self) -> bool {
        self.deny.is_empty() && self.allow.is_empty()
    }

    fn judge(&self, topic: &str, access: Access, identity: Option<Identity<'_>>) -> Verdict {
        if self.deny.iter().any(|filter| matches(filter, topic, identity, false)) {
            return Verdict::Denied;
        }
        let allows = |permits: Permits| match access {
            Access::Read => permits.read,
            Access::Write => permits.write,
            Access::Subscribe => true,
        };
        if self.allow.iter().any(|(permits, filter)| allows(*permits) && matches(filter, topic, identity, true)) {
            return Verdict::Permitted;
        }
        Verdict::Silent
    }
}

/// First word, and the rest without surrounding blanks.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_once([' ', '\t']).map_or((text, ""), |(word, rest)| (word, rest.trim_start()))
}

/// `$share/…` names no topic.
fn is_valid_filter(filter: &str) -> bool {
    !filter.contains('\0') && topic_filter::parse(filter).is_some_and(|parsed| parsed.share_name.is_none())
}

/// Whether `topic` is matched by `filter`, in which the levels `%c` and `%u` stand for `identity` if there is one. An allowing entry
/// (`strict`) is not matched by a name that is more than one level, or that would name a `$` tree: the client chooses it.
fn matches(filter: &str, topic: &str, identity: Option<Identity<'_>>, strict: bool) -> bool {
    let Some(identity) = identity else { return topic_filter::matches(filter, topic) };
    let (mut client_id, mut username) = (false, false);
    for level in filter.split('/') {
        client_id |= level == "%c";
        username |= level == "%u";
    }
    let name = identity.username.unwrap_or_default();
    if username && identity.username.is_none() {
        return false;
    }
    let unfit = |name: &str| name.contains('/') || name.starts_with('$');
    if strict && (client_id && unfit(identity.client_id) || username && unfit(name)) {
        return false;
    }
    let substituted = |level| match level {
        "%c" => identity.client_id,
        "%u" => name,
        other => other,
    };
    levels_match(filter.split('/').flat_map(|level| substituted(level).split('/')), topic)
}

/// As [`topic_filter::matches`], for a filter that is nowhere in one piece.
fn levels_match<'a>(filter: impl Iterator<Item = &'a str>, topic: &str) -> bool {
    let mut topic_levels = topic.split('/');
    for (index, level) in filter.enumerate() {
        // [MQTT-4.7.2-1]
        if index == 0 && matches!(level, "+" | "#") && topic.starts_with('$') {
            return false;
        }
        if level == "#" {
            return true;
        }
        match topic_levels.next() {
            Some(topic_level) if level == "+" || level == topic_level => {}
            _ => return false,
        }
    }
    topic_levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(text: &str) -> Acl {
        Acl::parse(Path::new("/acl"), text.as_bytes()).unwrap().0
    }

    #[test]
    fn a_file_without_rules_denies_everything_but_subscribing() {
        let acl = acl("# nothing\n\n");
        for username in [None, Some("a")] {
            assert!(!acl.permits("c", username, "t", Access::Read) && !acl.permits("c", username, "t", Access::Write));
            assert!(acl.permits("c", username, "t", Access::Subscribe));
        }
    }

    #[test]
    fn lines_before_the_first_user_are_for_anonymous_clients() {
        let acl = acl("topic read a/#\nuser bob\ntopic b\ntopic write with blanks/+\r\n");
        assert!(acl.permits("c", None, "a", Access::Read) && acl.permits("c", None, "a/x", Access::Read));
        assert!(!acl.permits("c", None, "a", Access::Write) && !acl.permits("c", Some("bob"), "a", Access::Read));
        assert!(acl.permits("c", Some("bob"), "b", Access::Read) && acl.permits("c", Some("bob"), "b", Access::Write));
        assert!(!acl.permits("c", Some("eve"), "b", Access::Read));
    }

    #[test]
    fn access_types_and_blanks_in_topics() {
        let acl = acl("topic readwrite my topic/+\ntopic deny my topic/secret\ntopic read\n");
        assert!(acl.permits("c", None, "my topic/x", Access::Write) && !acl.permits("c", None, "my topic/secret", Access::Read));
        // A single word is a topic, even one that looks like an access type.
        assert!(acl.permits("c", None, "read", Access::Write));
    }

    #[test]
    fn patterns_hold_for_everybody_and_whole_levels() {
        let acl = acl("user bob\npattern readwrite dev/%c/#\npattern write x%u/y\npattern read home/%u\n");
        assert!(acl.permits("c1", None, "dev/c1/t", Access::Write) && !acl.permits("c1", None, "dev/c2/t", Access::Write));
        assert!(acl.permits("c1", Some("u"), "home/u", Access::Read) && !acl.permits("c1", None, "home/u", Access::Read));
        assert!(!acl.permits("c1", None, "home/", Access::Read));
        assert!(!acl.permits("c1", Some("u"), "xu/y", Access::Write));
    }

    #[test]
    fn a_name_cannot_act_as_a_wildcard_or_a_path() {
        let acl = acl("pattern %c/#\npattern deny a/b/secret\nuser +\ntopic own\n");
        for name in ["+", "#", "a/b", "$SYS"] {
            assert!(!acl.permits(name, None, &format!("{name}/x"), Access::Read), "{name}");
        }
        assert!(!acl.permits("+", None, "x/y", Access::Read) && acl.permits("c", Some("+"), "own", Access::Read));
        assert!(!acl.permits("c", Some("+"), "c/x", Access::Read));
        assert_eq!(acl.danger("c", Some("+")).as_deref(), Some("ACL denying access to client with dangerous username \"+\""));
        assert_eq!(acl.danger("a#", None).as_deref(), Some("ACL denying access to client with dangerous client id \"a#\""));
    }

    #[test]
    fn deny_patterns_hold_for_names_with_slashes() {
        let acl = acl("pattern deny %c/secret\npattern readwrite #\n");
        assert!(!acl.permits("a/b", None, "a/b/secret", Access::Read) && acl.permits("a/b", None, "a/b/other", Access::Read));
    }

    #[test]
    fn own_entries_come_before_patterns_and_deny_before_allow() {
        let acl = acl("topic a\ntopic deny b\ntopic b\npattern deny a\npattern deny %c\npattern b\n");
        assert!(acl.permits("c", None, "a", Access::Read) && !acl.permits("c", None, "b", Access::Read));
    }

    #[test]
    fn dollar_topics_need_to_be_named() {
        let acl = acl("topic #\ntopic +/x\nuser s\ntopic $SYS/#\n");
        assert!(!acl.permits("c", None, "$SYS/broker", Access::Read) && !acl.permits("c", None, "$SYS/x", Access::Read));
        assert!(acl.permits("c", Some("s"), "$SYS/broker", Access::Read) && acl.permits("c", None, "/x", Access::Read));
    }

    #[test]
    fn all_errors_are_reported_with_their_lines() {
        let text = "\u{feff}topic\ntopic reed a\ntopic a/#/b\nuser\n  # indented\nhello world\r\npattern a\nuser x\ntopic fine\r\n";
        let errors = Acl::parse(Path::new("/acl"), text.as_bytes()).unwrap_err();
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "/acl:1: Error: Empty topic in acl_file \"/acl\".",
                "/acl:2: Error: Invalid topic access type \"reed\" in acl_file \"/acl\".",
                "/acl:3: Error: Invalid ACL topic \"a/#/b\" in acl_file \"/acl\".",
                "/acl:4: Error: Missing username in acl_file \"/acl\".",
                "/acl:5: Error: Invalid line in acl_file \"/acl\":   # indented.",
                "/acl:6: Error: Invalid line in acl_file \"/acl\": hello world.",
                "/acl:7: Warning: ACL pattern 'a' does not contain '%c' or '%u'.",
            ]
        );
    }
}
