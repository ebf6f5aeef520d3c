//! Certificates from a CA that speaks ACME (RFC 8555): what PID 1 asks of its worker, and the worker, which alone talks to strangers.

pub mod exchange;
mod worker;

pub use worker::command;
