//! The machine: sessions, routing, retained messages, wills, `$SYS`. Sans-IO: no clock, socket, file, tokio or randomness in here.
//! One [`Broker`] is one shard. `handle(now, input, out)` changes it and appends effects, which the driver performs in order.

pub mod interface;
pub mod record;
pub mod shard;

pub use interface::*;

/// One shard's state.
pub struct Broker {}

impl Broker {
    /// `seed` feeds the choices among members of a Shared Subscription and made-up Client Identifiers.
    pub fn new(_shard: ShardId, _shards: u16, _settings: Settings, _seed: u64) -> Self {
        todo!()
    }

    /// Takes one input, appends effects to `out`.
    pub fn handle(&mut self, _now: Time, _input: Input<'_>, _out: &mut Outbox) {
        todo!()
    }

    /// When `Input::DeadlineReached` is due next.
    pub fn next_deadline(&self) -> Option<Time> {
        todo!()
    }
}
