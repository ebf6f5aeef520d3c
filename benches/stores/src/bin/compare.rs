//! `make bench-stores`: the table of docs/durability.md. Each engine is a program of its own beside this one; it writes, dies as by
//! kill -9, and is read again: as it was left, cut off, and with a flipped bit.

use std::path::{Path, PathBuf};
use std::process::Command;

const ENGINES: [&str; 4] = ["journal", "fjall", "sqlite", "redb"];

fn program(name: &str) -> PathBuf {
    std::env::current_exe().expect("a program").with_file_name(name)
}

struct Answer {
    /// What it printed; none when it refused or crashed.
    words: Vec<String>,
    complained: bool,
}

fn ask(engine: &str, what: &str, folder: &Path) -> Answer {
    let output = Command::new(program(engine)).arg(what).arg(folder).output().expect("it runs");
    let words = String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
    Answer { words, complained: !output.stderr.is_empty() }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// The largest file, without what only keeps room behind its end.
fn largest(folder: &Path) -> (PathBuf, Vec<u8>) {
    let read = |path: PathBuf| {
        let mut bytes = std::fs::read(&path).expect("a file");
        let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes.truncate(len);
        (path, bytes)
    };
    files(folder).into_iter().map(read).max_by_key(|(_, bytes)| bytes.len()).expect("a file")
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success());
}

/// Share of the entries that are right after the damage, and whether anything was said of it.
fn damaged(engine: &str, folder: &Path, whole: &[String], damage: impl Fn(&mut Vec<u8>)) -> (f64, bool) {
    let other = folder.with_extension("damaged");
    let _ = std::fs::remove_dir_all(&other);
    copy(folder, &other);
    let (file, mut bytes) = largest(&other);
    damage(&mut bytes);
    std::fs::write(&file, bytes).expect("written");
    let answer = ask(engine, "read", &other);
    let _ = std::fs::remove_dir_all(&other);
    let right = answer.words.iter().skip(1).filter(|word| whole.binary_search(word).is_ok()).count();
    (right as f64 * 100.0 / whole.len() as f64, answer.complained)
}

const FLIPS: usize = 20;

fn main() {
    let size = |name: &str| std::fs::metadata(program(name)).expect("built beside this").len() as f64 / 1024.0;
    let base = std::env::temp_dir().join(format!("darner-stores-{}", std::process::id()));
    println!("| | bytes written for a byte given | memory | records/s | read again | binary | cut off at 90 % | a flipped bit |");
    println!("|---|---|---|---|---|---|---|---|");
    for engine in ENGINES {
        let folder = base.join(engine);
        std::fs::create_dir_all(&folder).expect("a folder");
        let written = ask(engine, "write", &folder).words;
        let pristine = base.join(format!("{engine}-pristine"));
        copy(&folder, &pristine);
        let again = ask(engine, "read", &folder).words;
        let whole = &again[1..];
        let said = |complained| if complained { "said" } else { "not said" };
        let (cut, complained) = damaged(engine, &pristine, whole, |bytes| bytes.truncate(bytes.len() * 9 / 10));
        let cut = format!("{cut:.0} % right, {}", said(complained));
        let flips = (0..FLIPS).map(|number| {
            damaged(engine, &pristine, whole, |bytes| {
                let at = bytes.len() * (2 * number + 1) / (2 * FLIPS);
                bytes[at] ^= 1;
            })
        });
        let flips: Vec<(f64, bool)> = flips.collect();
        let right = flips.iter().map(|(right, _)| right).sum::<f64>() / FLIPS as f64;
        let nothing = flips.iter().filter(|(right, _)| *right == 0.0).count();
        let silent = flips.iter().filter(|(right, complained)| *right < 100.0 && !complained).count();
        println!(
            "| {engine} | {} | {} MiB | {} | {} s ({} entries) | {:.0} KiB | {cut} | {right:.1} % right, {nothing} of {FLIPS} all lost, {silent} wrong and not said |",
            written[0],
            written[1],
            written[2],
            again[0],
            whole.len(),
            size(engine) - size("none"),
        );
    }
    let _ = std::fs::remove_dir_all(&base);
}
