//! The only `unsafe` and libc of the project.

pub mod signals;
