//! What the rumqttd engine cannot honour: one table, from which `darner check`, the start and docs/engines.md speak.

use super::diagnostic::{Diagnostic, Severity};
use super::{Conf, Durability, Engine};

/// One thing that a configuration may ask for and that engine does not keep.
pub struct Limit {
    /// The option, or the guarantee where no option says it.
    pub of: &'static str,
    pub what: &'static str,
    /// Ignoring it would lose what the configuration promises to keep: refused unless `rumqttd.accept_limits`.
    pub loses: bool,
    applies: fn(&Conf) -> bool,
}

/// Bytes of the largest message that the router's logs may well keep several of.
const LARGE: u32 = 1 << 20;

pub const LIMITS: &[Limit] = &[
    Limit {
        of: "persistence",
        what: "a message that was acknowledged, or a will, is in the memory of the router until the sessions of its subscribers have it, and \
               the store; what is there when the broker crashes is lost",
        loses: true,
        applies: |conf| conf.persistence.enabled && conf.persistence.durability != Durability::Snapshot,
    },
    Limit {
        of: "memory_limit",
        what: "the logs of the router do not count, which keep the last messages of each filter for ever",
        loses: false,
        applies: |conf| conf.limits.memory_bytes.is_some(),
    },
    Limit {
        of: "max_packet_size",
        what: "each filter's log keeps its last four segments, and a segment may be one message of the largest size",
        loses: false,
        applies: |conf| conf.limits.packet_size.is_none_or(|most| most > LARGE),
    },
    Limit {
        of: "order",
        what: "messages keep their order within a subscription; between two subscriptions of one client, of which one may be shared, they may change places",
        loses: false,
        applies: |_| true,
    },
    Limit {
        of: "unsubscribe",
        what: "a message that is on its way through the router when a subscription to it ends does not come any more",
        loses: false,
        applies: |_| true,
    },
];

/// A line for each limit that this configuration meets.
pub(super) fn diagnostics(conf: &Conf) -> Vec<Diagnostic> {
    if conf.engine != Engine::Rumqttd {
        return Vec::new();
    }
    let met = LIMITS.iter().filter(|limit| (limit.applies)(conf));
    let said = met.map(|limit| {
        let is_refused = limit.loses && !conf.accepts_limits;
        Diagnostic {
            severity: if is_refused { Severity::Error } else { Severity::Warning },
            file: None,
            line: None,
            message: format!("The rumqttd engine cannot honour {}: {}.", limit.of, limit.what),
            hint: is_refused
                .then(|| "Write accept_limits = true under [rumqttd] in darner.toml to take that, or use the engine \"core\".".to_owned()),
        }
    });
    said.collect()
}
