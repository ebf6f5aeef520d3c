//! Password and ACL files: loading, a naive model of the rules, and files that make no sense.

use std::path::Path;

use darner::access::{self, Access, Acl, LoadError, Passwords};
use darner::conf::files::Disk;
use darner::conf::{Conf, Security};

use crate::support::process::Folder;

fn conf_with(password_file: Option<&Path>, acl_file: Option<&Path>) -> Conf {
    let security =
        Security { password_file: password_file.map(Path::to_path_buf), acl_file: acl_file.map(Path::to_path_buf), ..Security::default() };
    Conf { security: vec![security], ..Conf::default() }
}

fn lines(error: &LoadError) -> Vec<String> {
    error.diagnostics().iter().map(ToString::to_string).collect()
}

#[test]
fn each_security_gets_its_own_files() {
    let folder = Folder::new("access");
    let (pw, acl) = (folder.write("pw", "broken:plain\n"), folder.write("acl", "topic a\n"));
    let mut conf = conf_with(Some(&pw), None);
    conf.security.push(conf_with(None, Some(&acl)).security.remove(0));
    conf.security.push(Security::default());
    let (tables, diagnostics) = access::load(&Disk, &conf).expect("files");
    let shape: Vec<_> = tables.iter().map(|(passwords, acl)| (passwords.is_some(), acl.is_some())).collect();
    assert_eq!(shape, [(true, false), (false, true), (false, false)]);
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn a_missing_file_is_said_in_mosquittos_words_and_is_13() {
    let folder = Folder::new("access");
    let (missing, a_folder) = (folder.path().join("missing"), folder.path());
    let error = access::load(&Disk, &conf_with(Some(&missing), Some(a_folder))).expect_err("no files");
    let (missing, a_folder) = (missing.display(), a_folder.display());
    let lines = lines(&error);
    assert_eq!(error.exit_code().code(), 13);
    assert!(lines[0].starts_with(&format!("Error: Unable to open pwfile \"{missing}\".")), "{lines:?}");
    assert_eq!(lines[1], format!("Error opening password file \"{missing}\"."));
    assert!(
        lines[2].starts_with(&format!("Error: Unable to open acl_file \"{a_folder}\". It is a directory: Docker made it")),
        "{lines:?}"
    );
    assert_eq!((lines[3].clone(), lines.len()), (format!("Error opening acl file \"{a_folder}\"."), 4));
}

#[test]
fn a_bad_acl_file_is_3() {
    let folder = Folder::new("access");
    let error = access::load(&Disk, &conf_with(None, Some(&folder.write("acl", "topic\nnonsense\n")))).expect_err("bad");
    assert_eq!((error.exit_code().code(), lines(&error).len()), (3, 2));
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// 4.7 by recursion.
fn naive_match(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        ([first, filter @ ..], [level, topic @ ..]) => (*first == "+" || first == level) && naive_match(filter, topic),
        _ => false,
    }
}

/// The rules as prose: a list of (user or pattern, access type, filter).
fn naive_permits(rules: &[(Option<&str>, bool, &str, String)], user: Option<&str>, client: &str, topic: &str, write: bool) -> bool {
    let matches = |filter: &str| {
        let substituted: Vec<&str> = filter
            .split('/')
            .map(|level| match level {
                "%c" => client,
                "%u" => user.unwrap_or("\u{0}nobody"),
                other => other,
            })
            .collect();
        let hidden = topic.starts_with('$') && filter.starts_with(['+', '#']);
        !hidden && naive_match(&substituted, &topic.split('/').collect::<Vec<_>>())
    };
    let own = |rule: &&(Option<&str>, bool, &str, String)| !rule.1 && rule.0 == user;
    let pattern = |rule: &&(Option<&str>, bool, &str, String)| rule.1;
    let allows = |kind: &str| kind == "readwrite" || kind == if write { "write" } else { "read" };
    for mine in [&own as &dyn Fn(&&(Option<&str>, bool, &str, String)) -> bool, &pattern] {
        let hits: Vec<_> = rules.iter().filter(|rule| mine(rule) && matches(&rule.3)).collect();
        if hits.iter().any(|rule| rule.2 == "deny") {
            return false;
        }
        if hits.iter().any(|rule| allows(rule.2)) {
            return true;
        }
    }
    false
}

#[test]
fn the_rules_agree_with_a_naive_model() {
    let levels = ["a", "b", "c1", "bob", "+", "%c", "%u", "$SYS", ""];
    let topics = ["a", "b", "c1", "bob", "$SYS", "", "x"];
    let (mut permitted, mut denied) = (0, 0);
    for seed in 1..400_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut text = String::new();
        let mut rules = Vec::new();
        let mut user = None;
        for _ in 0..random.below(8) {
            if random.below(4) == 0 {
                let name = random.pick(&["bob", "eve"]);
                text.push_str(&format!("user {name}\n"));
                user = Some(name);
            }
            let pattern = random.below(3) == 0;
            let mut filter: Vec<&str> = (0..=random.below(3)).map(|_| random.pick(&levels)).collect();
            if random.below(3) == 0 {
                filter.push("#");
            }
            let mut filter = filter.join("/");
            if filter.is_empty() {
                filter.push('a');
            }
            if !pattern {
                filter = filter.replace('%', "p");
            }
            let kind = random.pick(&["read", "write", "readwrite", "deny"]);
            text.push_str(&format!("{} {kind} {filter}\n", if pattern { "pattern" } else { "topic" }));
            rules.push((user, pattern, kind, filter));
        }
        let (acl, _) = Acl::parse(Path::new("acl"), text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?} in {text}"));
        for _ in 0..200 {
            let topic = (0..=random.below(3)).map(|_| random.pick(&topics)).collect::<Vec<_>>().join("/");
            let user = [None, Some("bob"), Some("eve"), Some("mallory")][random.below(4)];
            let client = random.pick(&["c1", "bob", "zz"]);
            let write = random.below(2) == 0;
            let access = if write { Access::Write } else { Access::Read };
            let expected = naive_permits(&rules, user, client, &topic, write);
            assert_eq!(acl.permits(client, user, &topic, access), expected, "seed {seed}: {user:?} {client} {topic} {access:?}\n{text}");
            if expected { permitted += 1 } else { denied += 1 }
        }
    }
    assert!(permitted > 1000 && denied > 1000, "the model sees both answers: {permitted} {denied}");
}

#[test]
fn files_without_sense_end_nothing() {
    let acl = "# c\ntopic read a/b\nuser bob\npattern write %c/+/#\ntopic deny $SYS/#\n\u{feff}";
    let passwords = "a:$7$2$T+45pjzCdgD2+F9N$yH2M+Lo9HrVWyEO89qpyGiv03Xfw6JYqRtELzkW4t4bWB0sSHRuvidMOAP05qpkauAdeP0THC6XLfmDtztin1Q==\n\
        b:$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\nc:plain\n#x:y\r\n";
    for seed in 1..3000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for (text, is_acl) in [(acl, true), (passwords, false)] {
            let mut bytes = text.as_bytes().to_vec();
            for _ in 0..=random.below(6) {
                let place = random.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                match random.below(4) {
                    0 if !bytes.is_empty() => bytes[place] = random.below(256) as u8,
                    1 if !bytes.is_empty() => drop(bytes.remove(place)),
                    2 => bytes.insert(place, random.pick(&[":", "$", "\n", "\0", "#", "%", "+", " ", "\t", "9", "="]).as_bytes()[0]),
                    _ => bytes.truncate(place + bytes.len() / 2),
                }
            }
            if is_acl {
                if let Ok((acl, _)) = Acl::parse(Path::new("f"), &bytes) {
                    let _ = acl.permits("c", Some("bob"), "c/x/y", Access::Write);
                }
            } else {
                let (users, _) = Passwords::parse(Path::new("f"), &bytes);
                for name in ["a", "b", "c", "nobody"] {
                    assert!(!users.verify(name, b"not the password"), "seed {seed}");
                }
            }
        }
    }
}
