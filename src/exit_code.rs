//! Every exit code, once. Those of mosquitto are kept where its users script against them.

/// How a darner process ends. `code()` is what the shell sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Graceful end.
    Ok,
    /// mosquitto's 1: bind failure, user missing, pid file; also the plain failure of the tools.
    Failure,
    /// mosquitto_passwd's 2: the two passwords typed differ.
    Differ,
    /// mosquitto's 3: configuration missing, invalid, or the command line is off.
    Config,
    /// mosquitto's 13: a password or ACL file is missing or unreadable.
    SecurityFile,
    /// mosquitto_sub's 27: `-W` ran out.
    TimedOut,
    /// EX_USAGE: darner's own command line is off.
    Usage,
    /// EX_SOFTWARE: an internal error was caught.
    Internal,
    /// EX_TEMPFAIL: the router of the rumqttd engine is gone.
    RouterGone,
    /// The supervised command is not executable.
    NotExecutable,
    /// The supervised command was not found.
    NotFound,
    /// Whatever the child (or the peer's return code) said; 128 + signal for a killed child.
    Other(u8),
}

impl ExitCode {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Differ => 2,
            Self::Config => 3,
            Self::SecurityFile => 13,
            Self::TimedOut => 27,
            Self::Usage => 64,
            Self::Internal => 70,
            Self::RouterGone => 75,
            Self::NotExecutable => 126,
            Self::NotFound => 127,
            Self::Other(code) => code,
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code.code())
    }
}
