//! The broker process as a black box.

pub mod client;
mod command_line;
mod hostile;
mod signals;
mod supervised;

/// A connection is a descriptor, in the test and in the broker that it starts.
fn allow_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("up to the hard limit");
}

/// A broker that a test started in its own way; killed when the test fails.
struct Started(std::process::Child);

impl Started {
    /// SIGTERM, and a good end.
    fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the broker is there");
        assert_eq!(self.0.wait().expect("the broker ends").code(), Some(0));
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
