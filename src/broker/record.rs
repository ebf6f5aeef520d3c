//! What must survive a restart, as data.

/// One change of durable state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {}
