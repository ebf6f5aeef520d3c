//! Certificates from a CA that speaks ACME (RFC 8555): what PID 1 asks of its worker, and the worker, which alone talks to strangers.

pub mod exchange;
pub mod lineage;
pub mod schedule;
pub mod settings;
pub mod stand_in;
pub mod state;
#[allow(clippy::unnecessary_box_returns)] // its error is large, and every function there may return it
mod worker;

pub use worker::command;
