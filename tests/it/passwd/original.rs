//! Against mosquitto itself, where it is installed: each reads what the other writes.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use super::{passwords, succeed, tool};
use crate::support::process::{Folder, free_port, run, wait_until};

const TOOL: &str = "/usr/bin/mosquitto_passwd";
const BROKER: &str = "/usr/sbin/mosquitto";

#[test]
fn its_entries_are_ours() {
    if !Path::new(TOOL).exists() {
        return;
    }
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    for (hash, username) in [("sha512", "six"), ("sha512-pbkdf2", "seven")] {
        let mut command = Command::new(TOOL);
        command.args(["-H", hash]);
        if username == "six" {
            command.arg("-c");
        }
        assert_eq!(run(command.arg("-b").arg(&path).args([username, "pa ss:wörd"])).0, 0);
    }
    let users = passwords(&path);
    assert!(users.verify("six", "pa ss:wörd".as_bytes()) && users.verify("seven", "pa ss:wörd".as_bytes()));
    assert!(!users.verify("six", b"pa ss") && !users.verify("seven", b""));
}

/// The reason code of CONNACK (MQTT 3.1.1).
fn connect(port: u16, username: &str, password: &str) -> Option<u8> {
    fn field(text: &str) -> Vec<u8> {
        [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
    }
    let body = [&field("MQTT")[..], &[4, 0xc2, 0, 10], &field("id"), &field(username), &field(password)].concat();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(&[&[0x10, body.len() as u8][..], &body].concat()).ok()?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).ok()?;
    Some(answer[3])
}

#[test]
fn our_entries_are_its() {
    if !Path::new(BROKER).exists() {
        return;
    }
    let folder = Folder::new("passwd");
    let path = folder.write("pw", "# comment\nplain:te xt");
    let pw = path.to_str().expect("text");
    // In place, so that what such a change leaves behind is read by it as well.
    std::fs::hard_link(&path, folder.path().join("second")).expect("a link");
    for arguments in [
        &["-H", "sha512", "-b", pw, "six", "p6"][..],
        &["-b", pw, "gone", "x"],
        &["-b", pw, "seven", "old"],
        &["-U", pw],
        &["-D", pw, "gone"],
    ] {
        assert_eq!(tool(arguments).0, 0);
    }
    std::fs::remove_file(folder.path().join("second")).expect("removed");
    assert_eq!(tool(&["-b", pw, "seven", "p7"]).0, 0);
    let port = free_port();
    let conf = folder.write("conf", format!("listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {pw}\nuser root\n"));
    let mut broker =
        Command::new(BROKER).arg("-c").arg(conf).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mosquitto starts");
    wait_until("mosquitto to listen", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let answers =
        [("six", "p6"), ("seven", "p7"), ("seven", "old"), ("plain", "te xt"), ("gone", "x")].map(|(user, word)| connect(port, user, word));
    let _ = broker.kill();
    let _ = broker.wait();
    assert_eq!(answers, [Some(0), Some(0), Some(5), Some(0), Some(5)]);
}

#[test]
fn a_file_of_both_tools_holds_the_users_of_both() {
    if !Path::new(TOOL).exists() {
        return;
    }
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    let pw = path.to_str().expect("text");
    succeed(&["-c", "-b", pw, "ours", "1"]);
    assert_eq!(run(Command::new(TOOL).args(["-b", pw, "theirs", "2"])).0, 0);
    succeed(&["-b", pw, "ours", "3"]);
    let users = passwords(&path);
    assert!(users.verify("ours", b"3") && users.verify("theirs", b"2"));
}
