//! Reaping: the one place that waits for children.

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Exited(u8),
    Killed(i32),
}

impl Ending {
    /// As a shell reports it: the exit code, or 128 + signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128u8.saturating_add(signal as u8),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "signal {signal} ({name})"),
                Err(_) => write!(f, "signal {signal}"),
            },
        }
    }
}

/// What [`next`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaped {
    Ended(i32, Ending),
    /// There are children, but none has ended.
    NoneEnded,
    /// There are no children at all.
    NoChildren,
}

/// Reaps one ended child, whoever it is; never blocks. A burst of deaths is one SIGCHLD, so call it until none has ended.
pub fn next() -> Reaped {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes the status it is given.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        return match pid {
            0 => Reaped::NoneEnded,
            -1 if nix::errno::Errno::last() == nix::errno::Errno::EINTR => continue,
            -1 => Reaped::NoChildren,
            _ if libc::WIFSIGNALED(status) => Reaped::Ended(pid, Ending::Killed(libc::WTERMSIG(status))),
            _ if libc::WIFEXITED(status) => Reaped::Ended(pid, Ending::Exited(libc::WEXITSTATUS(status) as u8)),
            _ => continue,
        };
    }
}
