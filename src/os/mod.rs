//! The only `unsafe` and libc of the project.

pub mod accounts;
pub mod beneath;
pub mod fd_passing;
pub mod identity;
pub mod inherited;
pub mod local_socket;
pub mod process;
pub mod reap;
pub mod signals;
pub mod spawn;
