//! Log lines as mosquitto writes them: destinations, types, timestamps.

/// mosquitto's log types (`log_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogType {
    Error,
    Warning,
    Notice,
    Information,
    Debug,
    Subscribe,
    Unsubscribe,
    Websockets,
    Internal,
}
