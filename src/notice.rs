//! The lines that people grep for, each once: data → log type and text. mosquitto's sentences where it has one.

use std::fmt;

use crate::logging::LogType;

macro_rules! notices {
    ($($(#[$doc:meta])* $name:ident { $($field:ident : $kind:ty),* } $log_type:ident $text:literal;)*) => {
        /// A log line as data.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Notice { $($(#[$doc])* $name { $($field: $kind),* }),* }

        impl Notice {
            pub fn log_type(&self) -> LogType {
                match self { $(Self::$name { .. } => LogType::$log_type),* }
            }
        }

        impl fmt::Display for Notice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name { $($field),* } => write!(f, $text)),* }
            }
        }
    };
}

notices! {
    Starting { version: &'static str } Information "mosquitto version {version} starting";
    Running { version: &'static str } Information "mosquitto version {version} running";
    Terminating { version: &'static str } Information "mosquitto version {version} terminating";
    ConfigLoaded { path: String } Information "Config loaded from {path}.";
    DefaultConfig {} Information "Using default config.";
    Reloading {} Information "Reloading config.";
    OpeningListener { family: &'static str, port: u16 } Information "Opening {family} listen socket on port {port}.";
    OpeningUnixListener { path: String } Information "Opening unix listen socket on path {path}.";
    LocalOnly {} Warning "Starting in local only mode. Connections will only be possible from clients running on this machine.";
    LocalOnlyHelp {} Warning "Create a configuration file which defines a listener to allow remote access.";
    NewConnection { peer: String, port: u16 } Notice "New connection from {peer} on port {port}.";
}
