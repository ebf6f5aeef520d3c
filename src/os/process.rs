//! Other processes: signalling them, finding those that are left, knowing who is at the other end of a socket.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

pub fn is_pid_1() -> bool {
    std::process::id() == 1
}

pub fn uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// The name that `ps` and `top` show for this process; the kernel took the link's, "exe", where `/proc/self/exe` was started.
pub fn take_name(name: &CStr) {
    // Only for show.
    let _ = nix::sys::prctl::set_name(name);
}

/// Orphans below us come to us instead of to the real PID 1, so that nobody but us has to reap them.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Sends a signal to a process. Root without CAP_KILL (`cap_drop: ALL`) may not signal its own child of another uid, but that uid may.
pub fn signal(pid: i32, signal: i32, as_uid: Option<u32>) -> io::Result<()> {
    if pid <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    raw_kill(pid, signal, as_uid)
}

/// Sends a signal to every process of a group.
pub fn signal_group(group: i32, signal: i32, as_uid: Option<u32>) -> io::Result<()> {
    if group <= 1 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    raw_kill(-group, signal, as_uid)
}

/// Sends a signal to every other process of the pid namespace, when it is ours; else to what is left of our children.
pub fn signal_everyone(signal: i32, as_uid: Option<u32>) {
    if is_pid_1() {
        let _ = raw_kill(-1, signal, None);
        if as_uid.is_some() {
            let _ = raw_kill(-1, signal, as_uid);
        }
    } else {
        for pid in children() {
            let _ = self::signal(pid, signal, as_uid);
        }
    }
}

fn raw_kill(target: i32, signal: i32, as_uid: Option<u32>) -> io::Result<()> {
    // SAFETY: plain system calls on numbers.
    unsafe {
        if libc::kill(target, signal) == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match as_uid {
            Some(uid) if error.raw_os_error() == Some(libc::EPERM) && libc::setresuid(u32::MAX, uid, u32::MAX) == 0 => {
                let result = if libc::kill(target, signal) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
                let _ = libc::setresuid(u32::MAX, libc::getuid(), u32::MAX);
                result
            }
            _ => Err(error),
        }
    }
}

/// Whether a process group has a member that is not yet reaped.
pub fn group_exists(group: i32) -> bool {
    group > 1 && !matches!(raw_kill(-group, 0, None), Err(error) if error.raw_os_error() == Some(libc::ESRCH))
}

/// Whether anybody is left whom [`signal_everyone`] would reach. A process that entered the namespace from outside (`docker exec`)
/// counts, since it dies with us.
pub fn anyone_left() -> bool {
    if is_pid_1() { raw_kill(-1, 0, None).is_ok_and(|()| true) } else { !children().is_empty() }
}

/// Our direct children, orphans that came to us included.
pub fn children() -> Vec<i32> {
    let own = std::process::id();
    match std::fs::read_to_string(format!("/proc/self/task/{own}/children")) {
        Ok(text) => text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect(),
        // Kernels without CONFIG_PROC_CHILDREN.
        Err(_) => std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| parent_of(*pid) == Some(own))
            .collect(),
    }
}

fn parent_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Who is at the other end of a unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// 0 when that process is not in our pid namespace.
    pub pid: i32,
    pub uid: u32,
}

pub fn peer(socket: &impl AsFd) -> io::Result<Peer> {
    let credentials = getsockopt(socket, PeerCredentials)?;
    Ok(Peer { pid: credentials.pid(), uid: credentials.uid() })
}

/// True when a write of up to a page would not block: PID 1 must not hang on a full log pipe.
pub fn can_write(output: &impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(output.as_fd(), PollFlags::POLLOUT)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1)) && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLOUT))
}

/// Marks every inherited descriptor above stderr so that no child gets it.
pub fn close_inherited_on_exec() {
    super::spawn::close_on_exec_from(3);
}

/// Restores the caller's signal mask and runs another program in this process. Only returns when that fails.
pub fn replace(program: &CStr, argv: &[CString]) -> io::Error {
    let candidates = super::spawn::candidates(program);
    let pointers: Vec<_> = argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let mask = super::signals::inherited();
    let mut worst = libc::ENOENT;
    // SAFETY: the arrays live until exec replaces us and end with null; SIGPIPE was ignored by Rust's start-up, not by our caller.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let _ = mask.thread_set_mask();
        for path in &candidates {
            libc::execv(path.as_ptr(), pointers.as_ptr());
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::ENOENT);
            if !matches!(errno, libc::ENOENT | libc::ENOTDIR) {
                worst = errno;
            }
        }
    }
    super::signals::block_all();
    io::Error::from_raw_os_error(worst)
}

/// Raw number for `poll` tables keyed by descriptor.
pub fn number(fd: &impl AsFd) -> i32 {
    fd.as_fd().as_raw_fd()
}
