//! `darner acme` as PID 1's child: another user, no privileges, a deadline, and a folder of its own.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::signal::{SigSet, Signal};

use super::super::machine::Millis;
use super::WORKER;
use crate::acme::exchange::{HTTP_01_SOCKET, Issued, LINE_MAX, Mode, Report, Request};
use crate::acme::lineage::{self, Pair};
use crate::os;
use crate::os::beneath::Base;
use crate::os::spawn::{Child, Identity, SpawnError, Step};

/// More lines than this say nothing new.
const REPORTS_MAX: usize = 1000;

pub(super) struct Worker {
    pub(super) pid: i32,
    pub(super) request: Request,
    pub(super) outcome: Option<Report>,
    pub(super) deadline: Millis,
    output: Option<File>,
    unread: Vec<u8>,
    reports: usize,
}

impl Worker {
    pub(super) fn start(request: Request, sockets: &[BorrowedFd<'_>], deadline: Millis) -> Result<Self, String> {
        let identity = (os::process::uid() == 0).then_some(WORKER);
        if request.mode != Mode::Probe {
            folder(&request.work_dir, identity, 0o700).map_err(|error| format!("{}: {error}", request.work_dir.display()))?;
        }
        if let Some(challenges) = &request.challenge_dir {
            folder(challenges, identity, 0o755).map_err(|error| format!("{}: {error}", challenges.display()))?;
        }
        let text = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let mut input = os::fd_passing::sealed(c"darner-acme", &text).map_err(|error| error.to_string())?;
        input.rewind().map_err(|error| error.to_string())?;
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|error| error.to_string())?;
        let _ = nix::fcntl::fcntl(&ours, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        let start = |identity| spawn(&input, &theirs, sockets, identity);
        let pid = match start(identity) {
            // Without CAP_SETUID it has our own rights, as the broker has then.
            Err(SpawnError { step: Step::Identity, .. }) => start(None),
            result => result,
        };
        let pid = pid.map_err(|error| error.to_string())?;
        Ok(Self { pid, request, outcome: None, deadline, output: Some(ours.into()), unread: Vec::new(), reports: 0 })
    }

    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(|output| output.as_fd())
    }

    pub(super) fn is(&self, fd: RawFd) -> bool {
        self.output.as_ref().is_some_and(|output| os::process::number(output) == fd)
    }

    /// What it has said. Lines that are too long or make no sense are none.
    pub(super) fn read(&mut self) -> Vec<Report> {
        let mut reports = Vec::new();
        let mut buffer = vec![0; 16 << 10];
        while let Some(output) = &mut self.output {
            match output.read(&mut buffer) {
                Ok(0) => self.output = None,
                Ok(len) => self.unread.extend(buffer.iter().take(len)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(_) => self.output = None,
            }
            while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.unread.drain(..=end).collect();
                self.reports += 1;
                reports.extend(serde_json::from_slice(&line).ok().filter(|_| self.reports <= REPORTS_MAX));
            }
            if self.unread.len() > LINE_MAX || self.reports > REPORTS_MAX {
                self.output = None;
            }
        }
        reports
    }

    /// Kills it when its time is over.
    pub(super) fn enforce(&mut self, now: Millis) {
        if now >= self.deadline {
            let _ = os::process::signal_group(self.pid, Signal::SIGKILL as i32, Some(WORKER.uid));
            self.deadline = now + 1_000;
        }
    }
}

/// Makes a folder of the worker's, on the way to which it can pass.
fn folder(path: &Path, owner: Option<Identity>, mode: u32) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    let data = path.symlink_metadata()?;
    if !data.is_dir() {
        return Err(nix::errno::Errno::ENOTDIR.into());
    }
    if data.mode() & 0o7777 != mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    let Some(Identity { uid, gid }) = owner else { return Ok(()) };
    if (data.uid(), data.gid()) != (uid, gid) {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    }
    // `/etc/letsencrypt` of some hosts is root's alone; passing through shows nothing of it.
    for above in path.ancestors().skip(1).take(2) {
        let mode = above.metadata()?.mode();
        if mode & 0o001 == 0 {
            std::fs::set_permissions(above, std::fs::Permissions::from_mode((mode & 0o7777) | 0o001))?;
        }
    }
    Ok(())
}

fn spawn(input: &File, output: &OwnedFd, sockets: &[BorrowedFd<'_>], identity: Option<Identity>) -> Result<i32, SpawnError> {
    let mut env = os::spawn::environment();
    let private = |entry: &CString| {
        [&b"LISTEN_"[..], b"NOTIFY_SOCKET=", b"WATCHDOG_", b"DARNER_ADMIN_PASSWORD"]
            .iter()
            .any(|prefix| entry.as_bytes().starts_with(prefix))
    };
    env.retain(|entry| !private(entry));
    let names = vec![HTTP_01_SOCKET; sockets.len()].join(":");
    env.extend(
        [format!("LISTEN_FDS={}", sockets.len()), format!("LISTEN_FDNAMES={names}")].into_iter().filter_map(|row| CString::new(row).ok()),
    );
    let program = std::env::current_exe().ok().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    os::spawn::spawn(&Child {
        programs: [Some(c"/proc/self/exe".to_owned()), program].into_iter().flatten().collect(),
        argv: vec![c"darner".to_owned(), c"acme".to_owned()],
        env,
        fds: sockets.to_vec(),
        listen_pid: true,
        identity,
        null_stdin: false,
        stdio: Some((input.as_fd(), output.as_fd())),
        no_new_privs: true,
        oom_score_adj: Some(800),
        mask: SigSet::empty(),
        keep_dispositions: false,
        parent_death_signal: Some(Signal::SIGKILL as i32),
    })
}

/// Reads what a worker says that it has brought, if it is in its own folder.
pub(super) fn bring(work_dir: &Path, issued: &Issued) -> Result<Pair, String> {
    Ok(Pair { privkey: read(work_dir, &issued.privkey)?, fullchain: read(work_dir, &issued.fullchain)? })
}

/// A file of the worker's, if it is in its own folder. Nothing there is followed or waited for: the folder belongs to another user.
pub(super) fn read(work_dir: &Path, path: &Path) -> Result<Vec<u8>, String> {
    let bad = |error: std::io::Error| format!("{}: {error}", path.display());
    let relative = path.strip_prefix(work_dir).map_err(|_| format!("{} is not in the worker's folder", path.display()))?;
    let file = Base::open(work_dir).and_then(|base| base.open_file(relative)).map_err(bad)?;
    lineage::read_from(file).map_err(bad)
}

/// Removes what a worker has brought.
pub(super) fn clear(request: &Request) {
    let name = if request.dry_run { format!("{}.dry-run", request.lineage) } else { request.lineage.clone() };
    let _ = Base::open(&request.work_dir).and_then(|base| base.remove(&Path::new("issued").join(name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_pipes_of_a_worker_lead_nowhere() {
        let root = std::env::temp_dir().join(format!("darner-worker-{}", std::process::id()));
        let (work, victim) = (root.join("work"), root.join("victim"));
        for folder in [&work, &victim.join("a.test")] {
            std::fs::create_dir_all(folder).expect("a folder");
        }
        std::fs::write(victim.join("a.test/privkey.pem"), "secret").expect("a file");
        std::os::unix::fs::symlink(&victim, work.join("issued")).expect("a link");
        let text = format!(r#"{{"lineage":"a.test","domains":["a.test"],"directory":"https://ca/dir","work_dir":"{}"}}"#, work.display());
        let request = serde_json::from_str(&text).expect("a request");
        clear(&request);
        assert!(victim.join("a.test/privkey.pem").exists());
        nix::unistd::mkfifo(&work.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a pipe");
        for path in ["issued/a.test/privkey.pem", "../victim/a.test/privkey.pem", "pipe", "none"] {
            assert!(read(&work, &work.join(path)).is_err(), "{path}");
        }
        assert!(read(&work, &victim.join("a.test/privkey.pem")).is_err());
        let _ = std::fs::remove_dir_all(root);
    }
}
