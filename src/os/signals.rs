//! Signal masks.

/// Blocks every signal in this thread (and in those it makes): they wait until a signalfd reads them.
pub fn block_all() {
    let all = nix::sys::signal::SigSet::all();
    // Can only fail on an invalid `how`.
    let _ = all.thread_block();
}

/// Undoes [`block_all`], for the commands that want signals to act as usual.
pub fn unblock_all() {
    let _ = nix::sys::signal::SigSet::all().thread_unblock();
}
