//! `strace` on a running broker: what it asks of the kernel and in which order, or what the kernel is made to answer.

use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::process::{Broker, wait_until};

/// Lets the broker go when dropped.
pub struct Strace(Child);

impl Strace {
    /// `within`: what its command line begins with.
    pub fn attach(broker: &Broker, within: &[String], arguments: &[&str]) -> Self {
        let said = broker.folder.path().join("strace");
        let program = within.first().map_or("strace", String::as_str);
        let mut strace = Command::new(program);
        if !within.is_empty() {
            strace.args(&within[1..]).arg("strace");
        }
        let strace = strace
            .args(["-f", "-p", &broker.pid().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&said).expect("a file"))
            .spawn()
            .expect("strace runs");
        let strace = Self(strace);
        // It says so when every thread is.
        wait_until("strace", || std::fs::read_to_string(&said).is_ok_and(|said| said.contains("attached")));
        strace
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}
