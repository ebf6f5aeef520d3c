//! The house rules as tests: who may name whom, how long things may be, what has no place here.

use std::path::{Path, PathBuf};

/// Rooms from the door inwards. A room may name the rooms of later rows, and those of its own row that [`BESIDE`] lists.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["supervisor", "transport", "client", "db", "health", "passwd", "repair"],
    &["check", "acme"],
    &["store", "engine"],
    &["broker"],
    &["access", "tls", "websocket", "proxy"],
    &["conf"],
    &["mqtt"],
];

/// Arrows within a row: from, to, why.
const BESIDE: &[(&str, &str, &str)] = &[
    ("supervisor", "repair", "PID 1 mends the volumes before each start"),
    ("repair", "passwd", "the first user's line is written as mosquitto_passwd writes it"),
    ("supervisor", "transport", "the broker's command line is understood in one place"),
    ("check", "acme", "a certificate of DOMAIN that is not there yet is no error"),
    ("health", "client", "the round trip is a client's"),
    ("transport", "passwd", "passwords are verified off the machine's thread"),
    ("transport", "health", "the private socket that the health check uses has one address"),
];

/// Rooms without rules of their own, which any room may name.
const PLAIN: &[&str] = &["notice", "logging", "exit_code"];

/// `os` serves every room but these: they are pure.
const WITHOUT_OS: &[&str] = &["broker", "access", "tls", "websocket", "proxy", "conf", "mqtt"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// Files over the budget: path, why.
const LONG_FILES: &[(&str, &str)] = &[("src/supervisor/machine.rs", "the table of phases and events: a cell each, and no second place")];

/// Functions over the budget: path, name, why.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Lines that may panic outside tests: path, what the line holds, why it cannot happen.
const MAY_PANIC: &[(&str, &str, &str)] = &[];

/// One file of the repository, by its path from the root.
struct File {
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, endings: &[&str]) -> Vec<File> {
    let left_out = |path: &Path| path.file_name().is_some_and(|name| ["target", ".git", "darner-data"].iter().any(|out| name == *out));
    let mut paths: Vec<PathBuf> = walkdir::WalkDir::new(root().join(folder))
        .into_iter()
        .filter_entry(|entry| !left_out(entry.path()))
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .filter(|path| endings.is_empty() || endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).ok()?;
        Some(File { path: path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned(), text })
    };
    paths.into_iter().filter_map(read).collect()
}

/// The sources without their tests.
fn sources() -> Vec<File> {
    let is_test = |path: &str| path.ends_with("tests.rs") || path.contains("/tests/");
    let mut files = files("src", &[".rs"]);
    files.retain(|file| !is_test(&file.path));
    assert!(files.len() > 20, "the sources are found");
    for file in &mut files {
        file.text = without_tests(&file.text);
    }
    files
}

/// Cuts `#[cfg(test)] mod … { … }` at the left margin out of a formatted source.
fn without_tests(text: &str) -> String {
    let mut kept = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.starts_with("mod ")) {
            let ends_at_once = lines.next().is_some_and(|line| line.ends_with(';'));
            if !ends_at_once {
                for line in lines.by_ref() {
                    if line == "}" {
                        break;
                    }
                }
            }
        } else {
            kept.push(line);
        }
    }
    kept.join("\n")
}

/// A line without its comment.
fn code(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") { "" } else { line.split(" // ").next().unwrap_or_default() }
}

/// `src/broker/route.rs` → `broker`.
fn room(path: &str) -> &str {
    path.trim_start_matches("src/").trim_end_matches(".rs").split('/').next().unwrap_or_default()
}

fn row(room: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&room))
}

fn may_name(from: &str, to: &str) -> bool {
    if from == to || PLAIN.contains(&to) {
        return true;
    }
    if to == "os" {
        return !WITHOUT_OS.contains(&from);
    }
    if from == "logging" || from == "notice" {
        return to == "conf" || to == "mqtt";
    }
    match (row(from), row(to)) {
        (Some(outer), Some(inner)) => outer < inner || BESIDE.iter().any(|(a, b, _)| (*a, *b) == (from, to)),
        _ => false,
    }
}

/// The identifiers that follow `crate::` in a line; a brace stands for itself.
fn rooms_named(line: &str) -> impl Iterator<Item = String> {
    line.match_indices("crate::")
        .filter_map(|(at, found)| {
            if line[..at].ends_with('$') {
                return None;
            }
            let rest = &line[at + found.len()..];
            if rest.starts_with('{') {
                return Some("{".to_owned());
            }
            let word: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            Some(word)
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn complain(rule: &str, wrong: &[String]) {
    assert!(wrong.is_empty(), "{rule}:\n  {}", wrong.join("\n  "));
}

#[test]
fn rooms_name_only_rooms_further_along_the_arrows() {
    let mut wrong = Vec::new();
    for file in sources() {
        let from = room(&file.path);
        for (number, line) in file.text.lines().enumerate() {
            for to in rooms_named(code(line)) {
                if from != "lib" && !may_name(from, &to) {
                    wrong.push(format!("{}:{}: {from} names {to}", file.path, number + 1));
                }
            }
        }
    }
    complain("an arrow that src/lib.rs does not draw", &wrong);
}

#[test]
fn only_the_transport_and_the_acme_worker_know_tokio() {
    let knows = |file: &File| file.text.lines().any(|line| code(line).contains("tokio::"));
    let wrong: Vec<_> = sources()
        .into_iter()
        .filter(|file| room(&file.path) != "transport" && !file.path.starts_with("src/acme/worker/") && knows(file))
        .map(|file| file.path)
        .collect();
    complain("tokio outside the transport and the ACME worker", &wrong);
}

#[test]
fn unsafe_stands_in_os_only_and_says_why() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines: Vec<_> = file.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let holds = code(line).split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|word| word == "unsafe");
            if !holds {
                continue;
            }
            let said = lines[number.saturating_sub(6)..=number].iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"));
            if room(&file.path) != "os" || !said {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    complain("unsafe outside src/os, or without a SAFETY comment", &wrong);
}

#[test]
fn nothing_panics_on_what_strangers_send() {
    let words = [".unwrap()", ".expect(", "panic!(", "unreachable!(", concat!("to", "do!("), concat!("unimple", "mented!(")];
    let mut wrong = Vec::new();
    for file in sources() {
        for (number, line) in file.text.lines().enumerate() {
            let allowed = MAY_PANIC.iter().any(|(path, holds, _)| file.path == *path && line.contains(holds));
            if !allowed && words.iter().any(|word| code(line).contains(word)) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    complain("a way to panic outside tests", &wrong);
}

#[test]
fn files_keep_to_the_budget() {
    let mut wrong = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(path, _)| *path == file.path) {
            wrong.push(format!("{}: {lines} lines", file.path));
        }
    }
    complain("a file over the budget: split it by what a reader would look for", &wrong);
}

/// Functions of a formatted source: name and lines, the closing brace included.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some((before, after)) = line.split_once("fn ") else { continue };
        let opens = before.split_whitespace().all(|word| {
            word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\"", "in", "crate)", "super)"].contains(&word)
        });
        if !opens {
            continue;
        }
        let name: String = after.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let closes = |line: &&str| line.len() - line.trim_start().len() == indent && line.trim_start().starts_with('}');
        let ends_in_line = line.ends_with('}') || line.ends_with(';');
        let length = if ends_in_line { 1 } else { lines[start + 1..].iter().position(closes).map_or(1, |at| at + 2) };
        found.push((name, length));
    }
    found
}

#[test]
fn functions_keep_to_the_budget() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (name, lines) in functions(&file.text) {
            let excepted = LONG_FUNCTIONS.iter().any(|(path, long, _)| file.path == *path && name == *long);
            if lines > FUNCTION_LINES_MAX && !excepted {
                wrong.push(format!("{}: fn {name} has {lines} lines", file.path));
            }
        }
    }
    complain("a function over the budget", &wrong);
}

#[test]
fn exceptions_are_still_needed() {
    let sources = sources();
    let source = |path: &str| sources.iter().find(|file| file.path == path).map(|file| file.text.as_str()).unwrap_or_default();
    let mut wrong = Vec::new();
    for (path, _) in LONG_FILES {
        if source(path).lines().count() <= FILE_LINES_MAX {
            wrong.push((*path).to_owned());
        }
    }
    for (path, name, _) in LONG_FUNCTIONS {
        if !functions(source(path)).iter().any(|(long, lines)| long == name && *lines > FUNCTION_LINES_MAX) {
            wrong.push(format!("{path}: fn {name}"));
        }
    }
    for (path, holds, _) in MAY_PANIC {
        if !source(path).contains(holds) {
            wrong.push(format!("{path}: {holds}"));
        }
    }
    complain("an exception that nothing needs any more", &wrong);
}

#[test]
fn the_function_counter_counts() {
    let text = "impl A {\n    pub(super) const fn short() -> u8 { 1 }\n\n    fn long(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n}\nfn last() {\n}";
    let found = functions(text);
    assert_eq!(found.len(), 3);
    assert_eq!(found[0], ("short".into(), 1));
    assert_eq!(found[2], ("last".into(), 2));
}

#[test]
fn no_word_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("HA", "CK"),
        concat!("db", "g!("),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    let mut wrong = Vec::new();
    for file in files("", &[".rs", ".md", ".toml", ".sh", ".yml", "Makefile", "Dockerfile"]) {
        for (number, line) in file.text.lines().enumerate() {
            let holds = |word: &&str| {
                line.match_indices(*word).any(|(at, _)| {
                    let around = |c: Option<char>| c.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
                    around(line[..at].chars().next_back()) && (word.ends_with('(') || around(line[at + word.len()..].chars().next()))
                })
            };
            if words.iter().any(holds) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    complain("a word that puts work off", &wrong);
}

#[test]
fn the_repository_names_no_machine() {
    let words = [
        concat!("/wor", "k/"),
        concat!("/ro", "ot/"),
        concat!("/tmp/", "setup"),
        concat!("registry", "-1."),
        concat!("ghcr", ".io"),
        concat!("quay", ".io"),
        concat!("10.255", "."),
    ];
    let mut wrong = Vec::new();
    for file in files("", &[]) {
        for (number, line) in file.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                wrong.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    complain("a path or host of one machine", &wrong);
}

#[test]
fn every_source_says_what_it_is_and_is_reached() {
    let mut wrong = Vec::new();
    for file in files("src", &[".rs"]) {
        if !file.text.starts_with("//!") {
            wrong.push(format!("{}: does not begin with what it is (//!)", file.path));
        }
        let path = Path::new(&file.path);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem == "lib" {
            continue;
        }
        let folder = path.parent().unwrap_or(Path::new("src"));
        let (name, parent) = if stem == "mod" {
            (folder.file_name().unwrap_or_default().to_string_lossy().into_owned(), folder.parent().unwrap_or(Path::new("src")))
        } else {
            (stem.into_owned(), folder)
        };
        let mut parents = vec![parent.join("mod.rs"), parent.join("lib.rs"), parent.with_extension("rs")];
        parents.extend(files(&parent.to_string_lossy(), &[".rs"]).into_iter().map(|file| PathBuf::from(file.path)));
        let named = |parent: &PathBuf| {
            std::fs::read_to_string(root().join(parent))
                .is_ok_and(|text| text.contains(&format!("mod {name};")) || text.contains(&format!("\"{name}.rs\"")))
        };
        if !parents.iter().any(named) {
            wrong.push(format!("{}: no `mod {name};` reaches it", file.path));
        }
    }
    complain("a source without introduction or without a door", &wrong);
}

/// The first words of the command table.
fn commands() -> Vec<String> {
    let cli = std::fs::read_to_string(root().join("src/cli.rs")).expect("the command table");
    let word = |line: &str| Some(line.trim().split_once("(\"")?.1.split_once('"')?.0.to_owned());
    let table = cli.split_once("COMMANDS").and_then(|(_, rest)| rest.split_once("\n];")).map(|(table, _)| table).unwrap_or_default();
    let words: Vec<_> = table.lines().filter_map(word).collect();
    assert!(words.len() > 5, "the command table is found");
    words
}

#[test]
fn every_command_is_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let wrong: Vec<_> = commands().into_iter().filter(|command| !readme.contains(command.as_str())).collect();
    complain("a command that the README does not name", &wrong);
}

#[test]
fn every_link_of_the_image_is_a_command() {
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).expect("a Dockerfile");
    let links = dockerfile.split("for name in ").nth(1).and_then(|rest| rest.split(';').next()).expect("the links");
    let commands = commands();
    let names = links.split_whitespace().filter(|word| *word != "\\").map(|link| link.rsplit('/').next().unwrap_or_default());
    let wrong: Vec<_> = names.filter(|name| !commands.iter().any(|command| command == name)).map(str::to_owned).collect();
    complain("a link in the image that the binary does not answer to", &wrong);
}

/// Variables between darner's own processes, systemd's service protocols, the one that every program has, and those of debug builds only.
const NOT_FOR_USERS: &[&str] = &[
    "DARNER_ACME_CHALLENGES",
    "DARNER_CONTROL_FD",
    "DARNER_TEST_BARE_TOPICS",
    "DARNER_TEST_ROUTER_AWAITED",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "PATH",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

#[test]
fn every_variable_of_the_certificates_is_explained_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let row = |variable: &darner::acme::settings::Variable| format!("| `{}` | {} | {} |", variable.name, variable.default, variable.help);
    let wrong: Vec<_> = darner::acme::settings::VARIABLES
        .iter()
        .filter(|variable| !readme.contains(&row(variable)))
        .map(|variable| variable.name.to_owned())
        .collect();
    complain("a variable that the README does not explain as the table does", &wrong);
}

#[test]
fn every_environment_variable_is_in_the_readme() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let is_name = |word: &str| word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let ours = |word: &str| word.starts_with("DARNER_") || word.starts_with("HEALTHCHECK_");
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in sources() {
        for line in file.text.lines() {
            for (nth, word) in line.split('"').enumerate() {
                let read = nth % 2 == 1
                    && is_name(word)
                    && (ours(word) || line.contains(&format!("var(\"{word}\"")) || line.contains(&format!("var_os(\"{word}\"")));
                if !read || NOT_FOR_USERS.contains(&word) {
                    continue;
                }
                count += 1;
                if !readme.contains(word) {
                    wrong.push(format!("{}: {word}", file.path));
                }
            }
        }
    }
    assert!(count > 3, "the variables are found");
    complain("an environment variable that the README does not name", &wrong);
}
