//! Bytes as a sealed memory file, and descriptors sent over a socket pair.

use std::io::{self, IoSlice, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};

/// A memory file with these bytes that nobody can change any more.
pub fn sealed(name: &std::ffi::CStr, bytes: &[u8]) -> io::Result<std::fs::File> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Two ends that keep message boundaries, both closed on exec; the first does not block.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    fcntl(&ours, FcntlArg::F_SETFL(flags))?;
    Ok((ours, theirs))
}

/// Sends one message with one file. The file is rewound first, since its position is shared with whoever gets it.
pub fn send(socket: &impl AsFd, message: &[u8], file: &mut std::fs::File) -> io::Result<()> {
    file.rewind()?;
    let fds = [file.as_raw_fd()];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(message)],
        &control,
        MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// One message of at most `buffer.len()` bytes, without descriptors. `Ok(0)` is the end.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::sys::socket::recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?)
}

/// One datagram and the pid that sent it (0 when that is unknown). The socket needs [`tell_sender`].
pub fn receive_with_sender(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, i32)> {
    let mut room = nix::cmsg_space!(libc::ucred);
    let mut slices = [io::IoSliceMut::new(buffer)];
    let message = nix::sys::socket::recvmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut room), MsgFlags::MSG_DONTWAIT)?;
    let mut pid = 0;
    for control in message.cmsgs()? {
        if let nix::sys::socket::ControlMessageOwned::ScmCredentials(credentials) = control {
            pid = credentials.pid();
        }
    }
    Ok((message.bytes, pid))
}

/// Lets the kernel say with each datagram which process sent it.
pub fn tell_sender(socket: &impl AsFd) -> io::Result<()> {
    Ok(nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::PassCred, &true)?)
}
