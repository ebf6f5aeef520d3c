//! The only `unsafe` and libc of the project.

pub mod beneath;
pub mod identity;
pub mod signals;
