//! What tests share.
#![allow(dead_code)]

pub mod docker;
pub mod fault_proxy;
pub mod peer;
pub mod process;
pub mod published;
pub mod random;
pub mod store;
pub mod strace;
pub mod volume;
