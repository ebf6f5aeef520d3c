//! Being somebody else for one operation.

use std::io;

use nix::unistd::{Gid, Uid, getegid, geteuid, setegid, seteuid};

/// Does `work` with the effective uid and gid of `owner`, then takes the former ones back.
///
/// What root may not do without CAP_DAC_OVERRIDE (make a file in a folder of somebody else), the owner may. Only for programs of
/// one thread. Errors: EPERM without CAP_SETUID and CAP_SETGID, and whatever `work` fails with.
pub fn acting_as<T>((uid, gid): (u32, u32), work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (former_uid, former_gid) = (geteuid(), getegid());
    // The group first and last: both need the rights of root.
    setegid(Gid::from_raw(gid))?;
    if let Err(error) = seteuid(Uid::from_raw(uid)) {
        setegid(former_gid)?;
        return Err(error.into());
    }
    let result = work();
    seteuid(former_uid)?;
    setegid(former_gid)?;
    result
}
