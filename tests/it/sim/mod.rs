//! Deterministic simulation: the real machine, several shards of it, in a world made of a seed, against a naive model.
//!
//! `SEED=n cargo test --test it sim::seeds -- --nocapture` replays one seed with its trace.

mod client;
mod disk;
mod fault;
mod judge;
mod ledger;
mod profile;
mod router;
mod run;
mod sessions;
mod world;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fault::Fault;
use run::Run;

use crate::support::process::Engine;

/// What went wrong with a seed.
struct Failure {
    seed: u64,
    what: String,
}

fn play(seed: u64, engine: Engine, fault: Option<Fault>, traced: bool) -> Result<(), (String, Vec<String>)> {
    let mut run = Run::new(seed, engine, fault, traced);
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
fn play_all(engine: Engine, seeds: std::ops::Range<u64>) -> Option<Failure> {
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return None;
            }
            if let Err((what, _)) = play(seed, engine, None, false) {
                return Some(Failure { seed, what });
            }
        }
    };
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).min_by_key(|failure| failure.seed)
    })
}

fn play_seeds(engine: Engine, seeds: std::ops::Range<u64>) {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        if let Err((what, trace)) = play(seed, engine, None, true) {
            panic!("{}\nseed {seed}: {what}", trace.join("\n"));
        }
        return;
    }
    let (began, count) = (Instant::now(), seeds.end - seeds.start);
    if let Some(Failure { seed, what }) = play_all(engine, seeds) {
        panic!("seed {seed}: {what}\nreplay: SEED={seed} cargo test --test it sim::seeds -- --nocapture");
    }
    println!("{count} seeds in {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn seeds() {
    play_seeds(Engine::Core, 0..1_000);
}

#[test]
fn seeds_with_a_router_outside() {
    play_seeds(Engine::Rumqttd, 0..500);
}

#[test]
fn each_broken_variant_is_caught() {
    let missed: Vec<Fault> =
        fault::ALL.into_iter().filter(|fault| (0..3_000).all(|seed| play(seed, Engine::Core, Some(*fault), false).is_ok())).collect();
    assert!(missed.is_empty(), "not noticed in 3,000 seeds: {missed:?}");
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in 0..20 {
        let traces = [0, 1].map(|_| {
            let mut run = Run::new(seed, Engine::Core, None, true);
            run.play();
            run.trace
        });
        assert!(traces[0] == traces[1], "seed {seed} differs from itself");
    }
}

#[test]
#[ignore = "runs until stopped: make soak"]
fn soak() {
    let first = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1_000_000);
    for start in (first..u64::MAX).step_by(1_000) {
        if let Some(Failure { seed, what }) = play_all(Engine::Core, start..start + 1_000) {
            panic!("seed {seed}: {what}\nreplay: SEED={seed} cargo test --test it sim::seeds -- --nocapture");
        }
        println!("seeds {start} to {} keep all promises", start + 999);
    }
}
