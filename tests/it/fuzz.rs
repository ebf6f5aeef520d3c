//! The fuzz targets on their corpora and on bytes changed from them: a bounded run of what `cargo fuzz` does without end.

mod session;
mod targets;

use std::path::{Path, PathBuf};

use crate::packets::generate::Generator;
use targets::TARGETS;

/// Changed inputs for each target.
const CHANGED: u64 = 6_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder().join("corpus").join(target))
        .unwrap_or_else(|error| panic!("the corpus of {target}: {error}"))
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a readable file")).collect()
}

fn changed(generator: &mut Generator, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |generator: &mut Generator| corpus[generator.below(corpus.len() as u64) as usize].clone();
    let mut bytes = pick(generator);
    for _ in 0..=generator.below(6) {
        let at = generator.below(bytes.len() as u64 + 1) as usize;
        match generator.below(6) {
            0 if at < bytes.len() => bytes[at] = generator.next() as u8,
            1 if at < bytes.len() => bytes[at] ^= 1 << generator.below(8),
            2 => bytes.insert(at, generator.next() as u8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            4 => bytes.truncate(at),
            _ => {
                let other = pick(generator);
                let from = generator.below(other.len() as u64 + 1) as usize;
                bytes.splice(at..at, other[from..].iter().copied().take(200));
            }
        }
    }
    bytes
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(target, _)| *target == name).expect("a row of TARGETS");
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "{name} has a corpus");
    for bytes in &corpus {
        target(bytes);
    }
    let mut generator = Generator::new(11);
    for _ in 0..CHANGED {
        let bytes = changed(&mut generator, &corpus);
        let passed = std::panic::catch_unwind(|| target(&bytes)).is_ok();
        assert!(passed, "{name} fails on {bytes:02x?}");
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        /// Each in a test of its own, so that they run side by side.
        mod bounded {
            $(#[test] fn $name() { super::run(stringify!($name)); })*
        }
        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}
targets!(codec session websocket proxy mosquitto_conf password_file acl_file mosquitto_db);

#[test]
fn every_target_is_tested_and_has_a_program() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, TESTED);
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml")).expect("the fuzzing package");
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"target.rs\"")), "tests/fuzz/Cargo.toml has no program {name}");
    }
}
