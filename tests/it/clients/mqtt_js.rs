//! MQTT.js, the client library of web pages, against our broker's WebSockets: in node, and in a page that Chromium shows (`tests/js`).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::process::{Broker, Folder, free_port, run};

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js")
}

/// The folder with MQTT.js and the conversations beside it, filled by npm the first time.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/js");
        std::fs::create_dir_all(&library).expect("a folder");
        let wanted = std::fs::read(sources().join("package-lock.json")).expect("committed");
        let is_there = std::fs::read(library.join("installed")).is_ok_and(|installed| installed == wanted);
        for name in ["package.json", "package-lock.json", "conversations.js", "node.js"] {
            std::fs::copy(sources().join(name), library.join(name)).expect("copied");
        }
        if !is_there {
            let mut npm = Command::new("npm");
            npm.args(["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]).current_dir(&library);
            let (code, stdout, stderr) = run(&mut npm);
            assert_eq!(code, 0, "npm cannot install MQTT.js: {stdout}{stderr}");
            std::fs::write(library.join("installed"), wanted).expect("written");
        }
        library
    })
}

/// `{port}` is plain, the second one within TLS, the third for pages of an origin that there is none of.
fn broker(origin: &str) -> (Broker, [u16; 2]) {
    let (secure, shut) = (free_port(), free_port());
    let tls = "certfile {folder}/server.crt\nkeyfile {folder}/server.key\n";
    let origin = if origin.is_empty() { String::new() } else { format!("websockets_origin {origin}\n") };
    let conf = format!(
        "allow_anonymous true\nlistener {{port}} 127.0.0.1\nprotocol websockets\n{origin}\
         listener {secure} 127.0.0.1\nprotocol websockets\n{tls}{origin}\
         listener {shut} 127.0.0.1\nprotocol websockets\nwebsockets_origin https://elsewhere.example\n"
    );
    (Broker::start_in(crate::tls::folder().0, &conf), [secure, shut])
}

#[test]
fn mqtt_js_converses_in_node() {
    let (broker, [secure, _]) = broker("");
    let mut node = Command::new("node");
    node.arg(library().join("node.js"));
    node.args([format!("ws://127.0.0.1:{}", broker.port), format!("wss://localhost:{secure}/mqtt")]);
    let (code, stdout, stderr) = run(&mut node);
    assert_eq!(code, 0, "{stdout}\n{stderr}\nthe broker's log:\n{}", broker.log());
    assert!(stdout.contains("all conversations went well"), "{stdout}");
}

/// Answers a browser's requests for the files of the page, and hands on what it posts.
fn serve(listener: TcpListener, results: &Sender<String>) {
    for mut socket in listener.incoming().flatten() {
        let results = results.clone();
        std::thread::spawn(move || answer(&mut socket, &results));
    }
}

fn answer(socket: &mut TcpStream, results: &Sender<String>) -> Option<()> {
    let mut reader = BufReader::new(socket.try_clone().ok()?);
    let mut request = String::new();
    reader.read_line(&mut request).ok()?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let path = request.split_whitespace().nth(1)?.split('?').next()?;
    let (kind, file) = match path {
        "/page.html" => ("text/html", sources().join("page.html")),
        "/page.js" | "/conversations.js" => ("text/javascript", sources().join(&path[1..])),
        "/mqtt.js" => ("text/javascript", library().join("node_modules/mqtt/dist/mqtt.min.js")),
        "/result" => {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            results.send(String::from_utf8_lossy(&body).into_owned()).ok()?;
            return socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").ok();
        }
        _ => return socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok(),
    };
    let body = std::fs::read(file).ok()?;
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    socket.write_all(head.as_bytes()).ok()?;
    socket.write_all(&body).ok()
}

/// A browser and all its processes, gone when dropped.
struct Chromium {
    child: Child,
    folder: Folder,
}

impl Chromium {
    fn show(url: &str) -> Self {
        let folder = Folder::new("chromium");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new("chromium")
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-popup-blocking"])
            .args(["--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--ignore-certificate-errors"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .arg(url)
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("chromium is installed");
        Self { child, folder }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[test]
fn mqtt_js_converses_in_a_page_that_chromium_shows() {
    library();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let page = format!("http://127.0.0.1:{}", listener.local_addr().expect("bound").port());
    let (sender, results) = mpsc::channel();
    std::thread::spawn(move || serve(listener, &sender));
    let (broker, [secure, shut]) = broker(&page);
    let plain = broker.port;
    let address =
        format!("{page}/page.html?open=ws://127.0.0.1:{plain}/mqtt&open=wss://127.0.0.1:{secure}/&shut=ws://127.0.0.1:{shut}/mqtt");
    let browser = Chromium::show(&address);
    let Ok(said) = results.recv_timeout(Duration::from_secs(120)) else {
        panic!("the page says nothing.\nChromium: {}\nthe broker's log:\n{}", browser.log(), broker.log());
    };
    assert!(said.lines().count() > 20 && said.lines().all(|line| line.starts_with("ok")), "{said}\nthe broker's log:\n{}", broker.log());
    for wanted in ["theSubprotocolIsMqtt", "aWillComesWhenAPageIsClosed", "aPageOfAnotherOriginIsRefused"] {
        assert!(said.contains(wanted), "{said}");
    }
}
