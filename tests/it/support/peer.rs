//! Debian's mosquitto as the peer: its broker with a configuration of ours, and its clients.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::process::{Folder, free_port, wait_until};

/// Debian's client, to compare ours with.
pub fn debian(tool: &str) -> Command {
    Command::new(format!("/usr/bin/{tool}"))
}

/// Debian's broker on a free port. `{port}` and `{folder}` in the configuration are replaced.
pub struct Peer {
    pub port: u16,
    pub folder: Folder,
    child: Child,
}

impl Peer {
    pub fn start(conf: &str) -> Self {
        Self::start_in(Folder::new("peer"), conf)
    }

    pub fn start_in(folder: Folder, conf: &str) -> Self {
        let port = free_port();
        let conf = conf.replace("{port}", &port.to_string()).replace("{folder}", &folder.path().display().to_string());
        let conf = folder.write("mosquitto.conf", format!("user root\n{conf}"));
        let child = Command::new("/usr/sbin/mosquitto")
            .arg("-c")
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Debian's mosquitto is installed");
        let peer = Self { port, folder, child };
        wait_until("Debian's mosquitto to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        peer
    }
}

impl Peer {
    /// SIGTERM, then waits for its end; the folder stays.
    pub fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        self.child.wait().expect("Debian's mosquitto ends");
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal).expect("the broker is there");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
