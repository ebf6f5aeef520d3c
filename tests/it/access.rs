//! Password and ACL files: loading, a naive model of the rules, and files that make no sense.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use darner::access::{self, Access, Acl, LoadError, Passwords};
use darner::conf::files::Disk;
use darner::conf::{Conf, Security};

use crate::support::process::{Folder, free_port, wait_until};

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

/// The one device that people name: an empty file.
#[test]
fn dev_null_is_a_file_without_users_and_without_rules() {
    let null = Path::new("/dev/null");
    let (tables, diagnostics) = access::load(&Disk, &conf_with(Some(null), Some(null))).expect("files");
    let [(Some(passwords), Some(acl))] = &tables[..] else { panic!("{tables:?}") };
    assert!(diagnostics.is_empty() && !passwords.verify("anna", b"") && !acl.permits("c", None, "a", Access::Write));
    for device in ["/dev/zero", "/proc/self/environ"] {
        let error = access::load(&Disk, &conf_with(Some(Path::new(device)), None)).expect_err("no file");
        assert!(lines(&error)[0].starts_with(&format!("Error: Unable to open pwfile \"{device}\". (it is ")), "{error:?}");
    }
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
fn naive_permits(rules: &[Rule], user: Option<&str>, client: &str, topic: &str, write: bool) -> bool {
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
    let own = |rule: &&Rule| !rule.1 && rule.0 == user;
    let pattern = |rule: &&Rule| rule.1;
    let allows = |kind: &str| kind == "readwrite" || kind == if write { "write" } else { "read" };
    for mine in [&own as &dyn Fn(&&Rule) -> bool, &pattern] {
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

type Rule = (Option<&'static str>, bool, &'static str, String);

/// An ACL file, and the same as a list of (user, whether it is a pattern, access type, filter).
fn random_rules(random: &mut Random, levels: &[&'static str]) -> (String, Vec<Rule>) {
    let mut lines = Vec::new();
    let mut rules = Vec::new();
    let mut user = None;
    for _ in 0..random.below(8) {
        if random.below(4) == 0 {
            let name = random.pick(&["bob", "eve"]);
            lines.push(format!("user {name}\n"));
            user = Some(name);
        }
        let pattern = random.below(3) == 0;
        let mut filter: Vec<&str> = (0..=random.below(3)).map(|_| random.pick(levels)).collect();
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
        lines.push(format!("{} {kind} {filter}\n", if pattern { "pattern" } else { "topic" }));
        rules.push((user, pattern, kind, filter));
    }
    (lines.concat(), rules)
}

#[test]
fn the_rules_agree_with_a_naive_model() {
    let levels = ["a", "b", "c1", "bob", "+", "%c", "%u", "$SYS", ""];
    let topics = ["a", "b", "c1", "bob", "$SYS", "", "x"];
    let (mut permitted, mut denied) = (0, 0);
    for seed in 1..400_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (text, rules) = random_rules(&mut random, &levels);
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

/// A version 5 client of mosquitto: publishes, and reads whether it was permitted.
struct Client(TcpStream);

impl Client {
    fn field(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }

    fn packet(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.0.write_all(&[&[kind, body.len() as u8][..], body].concat()).expect("sent");
        let mut head = [0; 2];
        self.0.read_exact(&mut head).expect("an answer");
        let mut answer = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut answer).expect("an answer");
        answer
    }

    fn connect(port: u16, client_id: &str, username: Option<&str>) -> Self {
        let mut client = Self(TcpStream::connect(("127.0.0.1", port)).expect("mosquitto"));
        let flags = if username.is_some() { 0x82 } else { 2 };
        let name = username.map(Self::field).unwrap_or_default();
        let body = [&Self::field("MQTT")[..], &[5, flags, 0, 60, 0], &Self::field(client_id), &name].concat();
        assert_eq!(client.packet(0x10, &body).get(1), Some(&0));
        client
    }

    /// QoS 1: PUBACK has reason code 0x87 where the ACL file says no.
    fn may_publish(&mut self, topic: &str) -> bool {
        let body = [&Self::field(topic)[..], &[0, 1, 0]].concat();
        self.packet(0x32, &body).get(2) != Some(&0x87)
    }
}

#[test]
fn the_rules_agree_with_mosquitto() {
    const BROKER: &str = "/usr/sbin/mosquitto";
    if !Path::new(BROKER).exists() {
        return;
    }
    let levels = ["a", "b", "c1", "bob", "+", "%c", "%u", "my level"];
    let topics = ["a", "b", "c1", "bob", "my level", "", "x"];
    let mut answers = [0, 0];
    for seed in 1..12_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = (0..3).map(|_| random_rules(&mut random, &levels).0).collect::<String>();
        let (acl, _) = Acl::parse(Path::new("acl"), text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?} in {text}"));
        let (folder, port) = (Folder::new("access"), free_port());
        let path = folder.write("acl", &text);
        let conf = format!("listener {port} 127.0.0.1\nallow_anonymous true\nacl_file {}\nuser root\n", path.display());
        let conf = folder.write("conf", conf);
        let mut broker = Command::new(BROKER).arg("-c").arg(conf).stderr(Stdio::null()).spawn().expect("mosquitto starts");
        wait_until("mosquitto to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let mut differences = Vec::new();
        for (client_id, username) in [("c1", None), ("c1", Some("bob")), ("bob", Some("eve")), ("zz", Some("mallory")), ("c+", Some("bob"))]
        {
            let mut client = Client::connect(port, client_id, username);
            for _ in 0..60 {
                let topic = (0..=random.below(3)).map(|_| random.pick(&topics)).collect::<Vec<_>>().join("/");
                let ours = acl.permits(client_id, username, &topic, Access::Write);
                answers[usize::from(ours)] += 1;
                if !topic.is_empty() && client.may_publish(&topic) != ours {
                    differences.push(format!("{client_id} {username:?} {topic:?} ours: {ours}"));
                }
            }
        }
        let _ = broker.kill();
        let _ = broker.wait();
        assert!(differences.is_empty(), "seed {seed}: {differences:#?}\n{text}");
    }
    assert!(answers[0] > 100 && answers[1] > 100, "both answers are compared: {answers:?}");
}
