//! Deterministic simulation: the real machine, several shards of it, in a world made of a seed, against a naive model.
//!
//! `SEED=n cargo test --test it sim::seeds -- --nocapture` replays one seed with its trace.

mod client;
mod disk;
mod judge;
mod ledger;
mod profile;
mod random;
mod run;
mod sessions;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use run::Run;

/// What went wrong with a seed.
struct Failure {
    seed: u64,
    what: String,
}

fn play(seed: u64, traced: bool) -> Result<(), (String, Vec<String>)> {
    let mut run = Run::new(seed, traced);
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| run.play()));
    let what = match outcome {
        Ok(None) => return Ok(()),
        Ok(Some(what)) => what,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        }
    };
    Err((what, run.trace.unwrap_or_default()))
}

/// Plays seeds on two threads; the failure with the smallest seed.
fn play_all(seeds: std::ops::Range<u64>) -> Option<Failure> {
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return None;
            }
            if let Err((what, _)) = play(seed, false) {
                return Some(Failure { seed, what });
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).min_by_key(|failure| failure.seed)
    })
}

#[test]
fn seeds() {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        if let Err((what, trace)) = play(seed, true) {
            panic!("{}\nseed {seed}: {what}", trace.join("\n"));
        }
        return;
    }
    if let Some(Failure { seed, what }) = play_all(0..1_000) {
        panic!("seed {seed}: {what}\nreplay: SEED={seed} cargo test --test it sim::seeds -- --nocapture");
    }
}
