//! Topic Names (4.7).

/// Levels beyond this are refused (CVE-2019-11779: recursion on depth): mosquitto takes 200 separators.
pub const LEVELS_MAX: usize = 201;

/// A Topic Name that a client may publish to: not empty, no wildcard `[MQTT-3.3.2-2]`, at most [`LEVELS_MAX`] levels. UTF-8
/// well-formedness is the codec's matter.
pub fn is_valid(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#']) && topic.matches('/').count() < LEVELS_MAX
}
