//! What shards say to each other.

/// A shard's number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// One message from shard to shard; mailboxes keep their order.
#[derive(Debug, Clone)]
pub enum ShardMessage {}
