//! Starting a child: our own fork and exec, because the standard library's waits for children behind our back when exec fails, and
//! that races with the reaping of orphans.

use std::ffi::{CStr, CString};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;

use nix::fcntl::OFlag;
use nix::sys::signal::SigSet;

/// Who the child becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

/// A child to be: everything is prepared here, so that nothing is allocated between fork and exec.
pub struct Child<'a> {
    /// Tried in order until one exists.
    pub programs: Vec<CString>,
    pub argv: Vec<CString>,
    pub env: Vec<CString>,
    /// Become descriptors 3, 4, 5… of the child.
    pub fds: Vec<BorrowedFd<'a>>,
    /// Adds `LISTEN_PID` with the child's own pid, as the socket activation protocol wants it.
    pub listen_pid: bool,
    pub identity: Option<Identity>,
    pub null_stdin: bool,
    /// Become its stdin and stdout.
    pub stdio: Option<(BorrowedFd<'a>, BorrowedFd<'a>)>,
    pub no_new_privs: bool,
    /// Added to the chance of being chosen when memory runs out, so that the supervisor is spared.
    pub oom_score_adj: Option<i32>,
    /// The mask to start with; dispositions become default unless `keep_dispositions`.
    pub mask: SigSet,
    pub keep_dispositions: bool,
    /// Sent to the child when we die.
    pub parent_death_signal: Option<i32>,
}

/// The step of the child's set-up that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Fork,
    Session,
    Descriptors,
    Identity,
    Parent,
    Exec,
}

const STEPS: [Step; 6] = [Step::Fork, Step::Session, Step::Descriptors, Step::Identity, Step::Parent, Step::Exec];

#[derive(Debug, thiserror::Error)]
#[error("{step:?}: {error}")]
pub struct SpawnError {
    pub step: Step,
    pub error: io::Error,
}

impl SpawnError {
    fn here(error: impl Into<io::Error>) -> Self {
        Self { step: Step::Fork, error: error.into() }
    }

    /// What a shell exits with: 127 not found, 126 not executable.
    pub fn code(&self) -> u8 {
        match self.error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => 127,
            _ => 126,
        }
    }
}

/// Where a command may be: itself when it has a slash, else in each folder of PATH.
pub fn candidates(name: &CStr) -> Vec<CString> {
    if name.is_empty() {
        return Vec::new();
    }
    if name.to_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path)
        .filter_map(|folder| CString::new(folder.join(std::ffi::OsStr::from_bytes(name.to_bytes())).as_os_str().as_bytes()).ok())
        .collect()
}

/// Our environment as `NAME=value`.
pub fn environment() -> Vec<CString> {
    std::env::vars_os().filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok()).collect()
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// Arrays that exec takes, ready before fork.
struct Prepared {
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    listen_pid: [u8; 32],
    /// Copies of the descriptors out of the way of their targets.
    copies: Vec<RawFd>,
}

/// Starts the child and returns its pid (which is also its session and process group). Waits until exec has succeeded or failed. A
/// child whose set-up failed still has to be reaped, like any orphan.
pub fn spawn(child: &Child<'_>) -> Result<i32, SpawnError> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(SpawnError::here)?;
    let mut prepared = Prepared {
        argv: child.argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect(),
        env: Vec::with_capacity(child.env.len() + 2),
        listen_pid: [0; 32],
        copies: child.fds.iter().map(|_| -1).collect(),
    };
    prepared.env.extend(child.env.iter().map(|entry| entry.as_ptr()));
    let parent = std::process::id();
    // SAFETY: the supervisor has one thread, and the child only makes system calls on memory prepared above until exec or _exit.
    match unsafe { libc::fork() } {
        -1 => Err(SpawnError::here(io::Error::last_os_error())),
        0 => {
            // SAFETY: as above; we are the child.
            unsafe { in_child(child, &mut prepared, writer.as_raw_fd(), parent) }
        }
        pid => {
            drop(writer);
            read_failure(reader).map_or(Ok(pid), Err)
        }
    }
}

fn read_failure(reader: OwnedFd) -> Option<SpawnError> {
    let mut report = [0u8; 8];
    std::fs::File::from(reader).read_exact(&mut report).ok()?;
    let (step, errno) = report.split_at(4);
    let step = u32::from_le_bytes(step.try_into().ok()?) as usize;
    let errno = i32::from_le_bytes(errno.try_into().ok()?);
    Some(SpawnError { step: STEPS.get(step).copied().unwrap_or(Step::Exec), error: io::Error::from_raw_os_error(errno) })
}

/// SAFETY: only right after fork in the child; never returns.
unsafe fn in_child(child: &Child<'_>, prepared: &mut Prepared, pipe: RawFd, parent: u32) -> ! {
    // SAFETY: system calls on numbers and prepared memory.
    unsafe {
        let mut pipe = pipe;
        let (step, errno) = match set_up(child, prepared, &mut pipe, parent) {
            Ok(()) => (Step::Exec, exec(child, prepared)),
            Err((step, errno)) => (step, errno),
        };
        let index = STEPS.iter().position(|known| *known == step).unwrap_or(0) as u32;
        let mut report = [0u8; 8];
        report[..4].copy_from_slice(&index.to_le_bytes());
        report[4..].copy_from_slice(&errno.to_le_bytes());
        libc::write(pipe, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

fn errno() -> i32 {
    nix::errno::Errno::last_raw()
}

/// SAFETY: only in the child, see [`spawn`].
unsafe fn set_up(child: &Child<'_>, prepared: &mut Prepared, pipe: &mut RawFd, parent: u32) -> Result<(), (Step, i32)> {
    // SAFETY: system calls on numbers and prepared memory.
    unsafe {
        if libc::setsid() == -1 {
            return Err((Step::Session, errno()));
        }
        close_on_exec_from(3);
        place_descriptors(child, prepared, pipe).map_err(|errno| (Step::Descriptors, errno))?;
        if let Some(adj) = child.oom_score_adj {
            raise_oom_score(adj);
        }
        if let Some(identity) = child.identity {
            become_identity(identity).map_err(|errno| (Step::Identity, errno))?;
        }
        if child.no_new_privs {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        }
        if let Some(signal) = child.parent_death_signal {
            // After the change of uid, which clears it; then look whether the parent died in between.
            libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0);
            if libc::getppid() as u32 != parent {
                return Err((Step::Parent, libc::ESRCH));
            }
        }
        if child.listen_pid {
            write_listen_pid(prepared);
        }
        prepared.env.push(std::ptr::null());
        reset_signals(child);
    }
    Ok(())
}

/// SAFETY: only in the child.
unsafe fn place_descriptors(child: &Child<'_>, prepared: &mut Prepared, pipe: &mut RawFd) -> Result<(), i32> {
    // SAFETY: system calls on numbers; `copies` has as many places as `fds`.
    unsafe {
        let above = 3 + child.fds.len() as i32;
        *pipe = libc::fcntl(*pipe, libc::F_DUPFD_CLOEXEC, above);
        if *pipe == -1 {
            return Err(errno());
        }
        for (copy, fd) in prepared.copies.iter_mut().zip(&child.fds) {
            *copy = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above);
            if *copy == -1 {
                return Err(errno());
            }
        }
        // Before the targets below, which may be the numbers of these.
        for (target, fd) in child.stdio.iter().flat_map(|(input, output)| [(0, input), (1, output)]) {
            if libc::dup2(fd.as_raw_fd(), target) == -1 {
                return Err(errno());
            }
        }
        for (target, copy) in (3..).zip(&prepared.copies) {
            if libc::dup2(*copy, target) == -1 {
                return Err(errno());
            }
        }
        if child.null_stdin {
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
            if null > 0 {
                libc::dup2(null, 0);
            }
        }
        Ok(())
    }
}

/// SAFETY: only in the child.
unsafe fn raise_oom_score(adj: i32) {
    let mut digits = [0u8; 12];
    let len = decimal(adj.unsigned_abs(), &mut digits);
    // SAFETY: system calls on prepared memory. Best effort: raising one's own score needs no privilege, but /proc may be missing.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, digits.as_ptr().cast(), len);
            libc::close(fd);
        }
    }
}

/// SAFETY: only in the child.
unsafe fn become_identity(identity: Identity) -> Result<(), i32> {
    // SAFETY: system calls on numbers.
    unsafe {
        if libc::setgroups(1, &raw const identity.gid) == -1
            || libc::setresgid(identity.gid, identity.gid, identity.gid) == -1
            || libc::setresuid(identity.uid, identity.uid, identity.uid) == -1
        {
            return Err(errno());
        }
    }
    Ok(())
}

/// Decimal digits without allocating; returns how many.
fn decimal(mut number: u32, out: &mut [u8; 12]) -> usize {
    let mut reversed = [0u8; 12];
    let mut len = 0;
    for place in &mut reversed {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        len += 1;
        if number == 0 {
            break;
        }
    }
    for (to, from) in out.iter_mut().zip(reversed.iter().take(len).rev()) {
        *to = *from;
    }
    len
}

fn write_listen_pid(prepared: &mut Prepared) {
    let mut digits = [0u8; 12];
    let len = decimal(std::process::id(), &mut digits);
    // The buffer is zeroed, so that the string ends by itself.
    for (to, from) in prepared.listen_pid.iter_mut().zip(LISTEN_PID.iter().chain(digits.iter().take(len))) {
        *to = *from;
    }
    prepared.env.push(prepared.listen_pid.as_ptr().cast());
}

/// SAFETY: only in the child.
unsafe fn reset_signals(child: &Child<'_>) {
    // SAFETY: system calls on numbers.
    unsafe {
        if child.keep_dispositions {
            // Rust's start-up ignores SIGPIPE; the caller did not ask for that.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        } else {
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        libc::sigprocmask(libc::SIG_SETMASK, child.mask.as_ref(), std::ptr::null_mut());
    }
}

/// Tries every program; returns the errno that says most. SAFETY: only in the child.
unsafe fn exec(child: &Child<'_>, prepared: &Prepared) -> i32 {
    let mut worst = libc::ENOENT;
    for program in &child.programs {
        // SAFETY: both arrays end with null and live in the parent's copied memory.
        unsafe { libc::execve(program.as_ptr(), prepared.argv.as_ptr(), prepared.env.as_ptr()) };
        if !matches!(errno(), libc::ENOENT | libc::ENOTDIR) {
            worst = errno();
        }
    }
    worst
}

/// Marks every descriptor from `first` on as closed on exec. Old kernels, and sandboxes that answer EPERM, get the slow way.
pub(super) fn close_on_exec_from(first: i32) {
    // SAFETY: system calls on numbers.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) == -1 {
            for fd in first..1024 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
}
