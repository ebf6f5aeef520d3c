//! The life of PID 1.

/// What the supervisor is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    /// Signals are blocked and nothing has happened yet.
    Booting,
    /// The volumes are being mended.
    Repairing,
    /// The configuration is read and the sockets are bound. There is no child yet.
    Preparing,
    /// The child runs, and has not said that it is ready.
    Starting,
    /// The child works.
    Ready,
    /// The child works, and has been handed a new configuration that it has not yet taken or refused.
    Reloading,
    /// The child hangs: it was sent SIGABRT and has a moment to leave a trace.
    Aborting,
    /// The child died, and the next one waits for its turn.
    BackingOff,
    /// The child was asked to end.
    Stopping,
    /// The child has ended; what it left behind is being ended too.
    Sweeping,
    /// Nothing is left to do but to exit.
    Finished,
}

impl Phase {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Repairing => "repairing",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Reloading => "reloading",
            Self::Aborting => "aborting a frozen broker",
            Self::BackingOff => "waiting to restart",
            Self::Stopping => "stopping",
            Self::Sweeping => "ending what is left",
            Self::Finished => "finished",
        }
    }
}
