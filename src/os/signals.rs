//! Signal masks, and reading blocked signals from a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The mask that our caller gave us: what a command that we run for it must get back.
static INHERITED: OnceLock<SigSet> = OnceLock::new();

/// Blocks every signal in this thread (and in those it makes): they wait until a signalfd reads them.
pub fn block_all() {
    let mut before = SigSet::empty();
    // Can only fail on an invalid `how`.
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before));
    let _ = INHERITED.set(before);
}

/// Undoes [`block_all`], for the commands that want signals to act as usual.
pub fn unblock_all() {
    let _ = SigSet::all().thread_unblock();
}

/// The mask before [`block_all`].
pub fn inherited() -> SigSet {
    INHERITED.get().copied().unwrap_or_else(SigSet::empty)
}

/// SIGRTMIN, which libc decides at run time.
pub fn rtmin() -> i32 {
    libc::SIGRTMIN()
}

pub fn rtmax() -> i32 {
    libc::SIGRTMAX()
}

/// True when a stop signal waits to be read: long work on the supervisor's thread ends early then.
pub fn stop_is_pending() -> bool {
    // SAFETY: sigset_t is plain data, sigpending fills it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut set) == 0
            && (libc::sigismember(&raw const set, libc::SIGTERM) == 1 || libc::sigismember(&raw const set, libc::SIGINT) == 1)
    }
}

/// Every blocked signal, as a descriptor to poll.
pub struct Signals(SignalFd);

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }

    /// The next waiting signal's number.
    pub fn read(&mut self) -> Option<i32> {
        self.0.read_signal().ok().flatten().map(|info| info.ssi_signo as i32)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
