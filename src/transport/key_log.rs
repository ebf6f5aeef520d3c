//! `--tls-keylog`: the secrets of TLS sessions, in the form that Wireshark reads.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The file, for its owner's eyes only.
#[derive(Debug)]
pub(super) struct KeyLogFile(File);

impl KeyLogFile {
    /// `Err` is the line that says why not.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        opened.map(Self).map_err(|error| format!("Error: Unable to open TLS key log \"{}\" ({error}).", path.display()))
    }
}

impl rustls::KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        for byte in client_random {
            let _ = write!(line, "{byte:02x}");
        }
        line.push(' ');
        for byte in secret {
            let _ = write!(line, "{byte:02x}");
        }
        line.push('\n');
        // One write, so that lines stay whole; a full disk is no reason to end a session.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}
