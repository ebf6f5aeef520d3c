//! Descriptors that a parent left open for us, or sent over a socket.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

/// Takes over an inherited descriptor, and marks it close-on-exec. `None` when it is not open. Each number is taken at most once: the
/// caller says where it found it (`LISTEN_FDS`, an environment variable that only it reads).
pub fn take(fd: RawFd) -> Option<OwnedFd> {
    if fd <= 2 {
        return None;
    }
    // SAFETY: only borrowed for the question whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let flags = fcntl(borrowed, FcntlArg::F_GETFD).ok()?;
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::from_bits_truncate(flags) | FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, and nothing else in this process knows of it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One message and the descriptor that came with it. A length of 0 is the end.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8], flags: MsgFlags) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut room = nix::cmsg_space!([RawFd; 4]);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut room), flags | MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made these for us; each is wrapped once, those that are not wanted are closed.
            received.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, received.into_iter().next()))
}
