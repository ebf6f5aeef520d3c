//! One source for all programs: each runs the row of the table that it is named after.
#![no_main]
#![allow(unreachable_pub)]

#[path = "../it/fuzz/session.rs"]
mod session;
#[path = "../it/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::run(env!("CARGO_BIN_NAME"), bytes));
