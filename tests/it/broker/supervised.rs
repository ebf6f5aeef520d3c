//! Under a service manager: inherited sockets, notifications, and the control socket of darner's own PID 1.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use darner::conf::files::Generation;
use darner::os::fd_passing;

use super::Started;
use super::client::Client;
use crate::support::process::{Folder, darner, free_port, wait_until};

/// `darner broker -c CONF` with `fd` as its descriptor 3, set up by the words of `environment`.
fn start(conf: &Path, fd: OwnedFd, environment: &str, log: &Path) -> Started {
    let script =
        format!("exec 3<&0 </dev/null; export LISTEN_PID=$$ {environment}; exec {} broker -c {}", darner().display(), conf.display());
    let log = std::fs::File::create(log).unwrap();
    Started(Command::new("sh").args(["-c", &script]).stdin(Stdio::from(fd)).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

fn next(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let len = socket.recv(&mut buffer).expect("a notification");
    String::from_utf8_lossy(&buffer[..len]).into_owned()
}

#[test]
fn an_inherited_socket_is_served_and_the_manager_is_told() {
    let folder = Folder::new("inherited");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let conf = folder.write("c.conf", format!("listener {port} 127.0.0.1\nallow_anonymous true\n"));
    let notify = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notify).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let environment = format!("LISTEN_FDS=1 LISTEN_FDNAMES=listener NOTIFY_SOCKET={} WATCHDOG_USEC=200000", notify.display());
    // We keep our own copy: if the broker bound the port itself, it would fail.
    let child = start(&conf, listener.try_clone().unwrap().into(), &environment, &folder.path().join("log"));
    let mut said: Vec<String> = (0..4).map(|_| next(&manager)).collect();
    Client::connect(port, "through-the-inherited-socket").ping();
    assert!(said.contains(&"READY=1".to_owned()), "{said:?}");
    assert!(said.iter().filter(|line| *line == "WATCHDOG=1").count() >= 2, "{said:?}");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.0.id() as i32), nix::sys::signal::Signal::SIGHUP).unwrap();
    while said.last().is_none_or(|line| line != "RELOADING=1") {
        said.push(next(&manager));
    }
    child.stop();
    while said.last().is_none_or(|line| line != "STOPPING=1") {
        said.push(next(&manager));
    }
}

fn generation(conf: &Path, text: String) -> std::fs::File {
    let mut files = Generation::default();
    files.insert(conf.to_owned(), text.into_bytes());
    fd_passing::sealed(c"generation", &files.to_bytes()).unwrap()
}

fn answer(socket: &OwnedFd) -> String {
    let mut text = String::new();
    wait_until("an answer", || {
        let mut buffer = [0; 2048];
        match fd_passing::receive(socket, &mut buffer) {
            Ok(len) => text = String::from_utf8_lossy(&buffer[..len]).into_owned(),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        !text.is_empty()
    });
    text
}

#[test]
fn files_come_over_the_control_socket_and_are_answered_for() {
    let folder = Folder::new("control");
    let port = free_port();
    // This file does not exist: the broker has it from its supervisor, or not at all.
    let conf = folder.path().join("only-in-the-generation.conf");
    let text = |more: &str| format!("listener {port} 127.0.0.1\nallow_anonymous true\n{more}");
    let (ours, theirs) = fd_passing::pair().unwrap();
    fd_passing::send(&ours, b"GENERATION", &mut generation(&conf, text(""))).unwrap();
    let child = start(&conf, theirs, "DARNER_CONTROL_FD=3", &folder.path().join("log"));
    wait_until("the broker to listen", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let mut client = Client::connect(port, "client");
    fd_passing::send(&ours, b"RELOAD", &mut generation(&conf, text("max_keepalive 1000\n"))).unwrap();
    assert_eq!(answer(&ours), "OK");
    fd_passing::send(&ours, b"RELOAD", &mut generation(&conf, text("nonsense 1\n"))).unwrap();
    let refused = answer(&ours);
    assert!(refused.starts_with("REFUSED ") && refused.contains("nonsense"), "{refused}");
    fd_passing::send(&ours, b"RELOAD", &mut generation(&conf, text("listener 1 127.0.0.1\n"))).unwrap();
    assert!(answer(&ours).starts_with("REFUSED "));
    client.ping();
    child.stop();
}

#[test]
fn a_unix_listener_is_opened_even_where_a_dead_socket_lies() {
    let folder = Folder::new("unix");
    let path = folder.path().join("broker.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let conf = folder.write("c.conf", format!("user root\nlistener 0 {}\nallow_anonymous true\n", path.display()));
    let child =
        Started(Command::new(darner()).args(["broker", "-c"]).arg(&conf).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let mut answer = [0; 4];
    wait_until("a CONNACK over the unix socket", || {
        use std::io::{Read as _, Write as _};
        let Ok(mut socket) = std::os::unix::net::UnixStream::connect(&path) else { return false };
        socket.write_all(&[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'u']).unwrap();
        socket.read_exact(&mut answer).is_ok()
    });
    assert_eq!(answer, [0x20, 2, 0, 0]);
    child.stop();
}
