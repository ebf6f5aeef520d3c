//! Every numbered statement of MQTT 3.1.1 and 5.0 has a test or a reason: `tests/conformance/*.txt` says which, and docs/conformance.md is
//! made from them (`DARNER_BLESS=1` rewrites it).
//!
//! A line is `NUMBER | what it says, in our words | -> test, test` or `… | n/a: reason`. A test is a conversation script
//! (`01-connect/accepted`), a golden line (`packets/connect "reserved flag"`) or a function of this binary (`shards::its_name`).

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::conversation::versions_spoken;

/// Title, table, how many statements appendix B of the specification lists, and the version in the words of the scripts.
const TABLES: &[(&str, &str, usize, &str)] =
    &[("MQTT 3.1.1", "tests/conformance/mqtt-3.1.1.txt", 141, "v311"), ("MQTT 5.0", "tests/conformance/mqtt-5.0.txt", 251, "v5")];

/// Scripts that may be cited for any version, and why.
const OF_NO_VERSION: &[(&str, &str)] = &[
    ("01-connect/packet-before-connect", "what comes before a CONNECT is of no version"),
    ("01-connect/not-mqtt", "nor is what is no MQTT"),
    ("01-connect/unknown-protocol", "nor what is another protocol"),
    ("01-connect/unknown-version", "its versions are those that nobody knows"),
];

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(source(path)).unwrap_or_default()
}

enum Shown {
    By(Vec<String>),
    NotApplicable(String),
}

struct Statement {
    number: String,
    says: String,
    shown: Shown,
}

fn statement(line: &str) -> Option<Statement> {
    let mut columns = line.splitn(3, " | ");
    let (number, says, shown) = (columns.next()?, columns.next()?, columns.next()?);
    let shown = match (shown.strip_prefix("-> "), shown.strip_prefix("n/a: ")) {
        (Some(tests), _) => Shown::By(tests.split(", ").map(str::to_owned).collect()),
        (None, Some(reason)) if !reason.is_empty() => Shown::NotApplicable(reason.to_owned()),
        _ => return None,
    };
    Some(Statement { number: number.to_owned(), says: says.to_owned(), shown })
}

fn statements(path: &str) -> Vec<Statement> {
    let text = read(path);
    text.lines().map(|line| statement(line).unwrap_or_else(|| panic!("{path}: neither a test nor a reason: {line}"))).collect()
}

/// Whether a test of this name is there.
fn exists(test: &str) -> bool {
    if let Some((file, words)) = test.strip_prefix("packets/").and_then(|golden| golden.split_once(" \"")) {
        let words = words.trim_end_matches('"');
        let about = |line: &str| line.split(" | ").nth(2).is_some_and(|shows| shows.starts_with(words));
        return read(&format!("tests/packets/{file}.txt")).lines().any(about);
    }
    if let Some((module, function)) = test.rsplit_once("::") {
        let text = read(&format!("tests/it/{}.rs", module.replace("::", "/")));
        return text.contains(&format!("#[test]\nfn {function}()"));
    }
    source(&format!("tests/conversations/{test}.txt")).is_file()
}

/// The sections of a number, to sort by.
fn sections(number: &str) -> Vec<u32> {
    number.trim_start_matches("MQTT-").split(['.', '-']).filter_map(|part| part.parse().ok()).collect()
}

#[test]
fn every_statement_has_a_test_that_exists_or_a_reason() {
    let mut faults = Vec::new();
    for (_, path, count, _) in TABLES {
        let statements = statements(path);
        let numbers: BTreeSet<Vec<u32>> = statements.iter().map(|statement| sections(&statement.number)).collect();
        if numbers.len() != *count || statements.len() != *count {
            faults.push(format!("{path}: {} statements, {} numbers, {count} in the specification", statements.len(), numbers.len()));
        }
        for statement in &statements {
            let Shown::By(tests) = &statement.shown else { continue };
            let missing = tests.iter().filter(|test| !exists(test));
            faults.extend(missing.map(|test| format!("{path}: {}: there is no test {test}", statement.number)));
        }
        if !statements.is_sorted_by_key(|statement| sections(&statement.number)) {
            faults.push(format!("{path}: not in the order of the numbers"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A script that is played in another version shows nothing of this one.
#[test]
fn every_script_that_is_cited_speaks_the_version_of_its_table() {
    let mut faults = Vec::new();
    for (_, path, _, version) in TABLES {
        for statement in statements(path) {
            let Shown::By(tests) = &statement.shown else { continue };
            let is_script = |test: &&String| !test.contains("::") && !test.starts_with("packets/");
            let scripts = tests.iter().filter(is_script).filter(|test| !OF_NO_VERSION.iter().any(|(script, _)| script == test));
            let of_another = scripts.filter(|test| !versions_spoken(test).contains(version));
            faults.extend(of_another.map(|test| format!("{path}: {}: {test} has no CONNECT of {version}", statement.number)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_name_that_is_no_test_is_noticed() {
    for nonsense in ["01-connect/acceptedd", "packets/connect \"no such line\"", "shards::no_such_function", "nowhere::at_all"] {
        assert!(!exists(nonsense), "{nonsense}");
    }
}

fn link(test: &str) -> String {
    if let Some((file, words)) = test.strip_prefix("packets/").and_then(|golden| golden.split_once(' ')) {
        return format!("[packets/{file}](../tests/packets/{file}.txt) {words}");
    }
    match test.rsplit_once("::") {
        Some((module, _)) => format!("[{test}](../tests/it/{}.rs)", module.replace("::", "/")),
        None => format!("[{test}](../tests/conversations/{test}.txt)"),
    }
}

fn markdown() -> String {
    let mut text = read("tests/conformance/introduction.md");
    for (title, path, ..) in TABLES {
        let statements = statements(path);
        let shown = statements.iter().filter(|statement| matches!(statement.shown, Shown::By(_))).count();
        let of = statements.len();
        let _ = write!(
            text,
            "\n## {title}\n\n{of} statements: {shown} shown by tests, {} that do not apply.\n\n| statement | what it says | shown by |\n|---|---|---|\n",
            of - shown
        );
        for statement in statements {
            let shown = match statement.shown {
                Shown::By(tests) => tests.iter().map(|test| link(test)).collect::<Vec<_>>().join(", "),
                Shown::NotApplicable(reason) => format!("does not apply: {reason}"),
            };
            let _ = writeln!(text, "| {} | {} | {shown} |", statement.number, statement.says);
        }
    }
    text
}

#[test]
fn the_page_is_what_the_tables_say() {
    let now = markdown();
    let page = source("docs/conformance.md");
    if std::env::var_os("DARNER_BLESS").is_some() {
        std::fs::write(&page, &now).expect("docs is writable");
    }
    let is_stale = std::fs::read_to_string(&page).unwrap_or_default() != now;
    assert!(!is_stale, "docs/conformance.md is stale: DARNER_BLESS=1 rewrites it");
}
