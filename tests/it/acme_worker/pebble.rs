//! A CA for one test: Pebble and its name server, on ports of their own.

use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fault_proxy::FaultProxy;
use crate::support::process::{Folder, darner, free_port};

pub struct Pebble {
    pub folder: Folder,
    /// What its TLS certificate calls it.
    host: String,
    port: u16,
    http_port: u16,
    dns_management: u16,
    configuration: Value,
    children: Vec<Child>,
}

impl Pebble {
    /// `more` is merged into Pebble's configuration; `environment` are its knobs.
    pub fn start(more: &Value, environment: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1", more, environment)
    }

    /// For clients in containers, which find it at this address of the machine.
    pub fn start_at(address: &str, more: &Value, environment: &[(&str, &str)]) -> Self {
        let folder = Folder::new("pebble");
        let authority = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::new(vec![]).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate that is called as its issuer for self-signed.
        params.distinguished_name.push(rcgen::DnType::CommonName, "the roots of Pebble's own TLS");
        let root = params.self_signed(&authority).expect("a root");
        let issuer = rcgen::Issuer::new(params, authority);
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut server =
            rcgen::CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into(), address.to_owned()]).expect("parameters");
        // So that a clock that is far off shows.
        let now = rcgen::date_time_ymd(1970, 1, 1) + std::time::UNIX_EPOCH.elapsed().expect("after 1970");
        (server.not_before, server.not_after) = (now - Duration::from_secs(86_400 * 365), now + Duration::from_secs(86_400 * 365));
        let server = server.signed_by(&key, &issuer).expect("a certificate");
        folder.write("ca.pem", root.pem());
        let certificate = folder.write("server.pem", server.pem());
        let private_key = folder.write("server.key", key.serialize_pem());
        let (port, http_port) = (free_port(), free_port());
        let mut configuration = json!({
            "listenAddress": format!("{address}:{port}"), "managementListenAddress": format!("127.0.0.1:{}", free_port()),
            "certificate": certificate, "privateKey": private_key, "httpPort": http_port, "tlsPort": free_port(),
            "ocspResponderURL": "", "externalAccountBindingRequired": false, "certificateValidityPeriod": 7776000,
        });
        for (name, value) in more.as_object().expect("an object") {
            configuration[name] = value.clone();
        }
        let dns = free_port();
        let host = if address == "127.0.0.1" { "localhost" } else { address }.to_owned();
        let mut pebble = Self { folder, host, port, http_port, dns_management: free_port(), configuration, children: Vec::new() };
        let mut names = Command::new("pebble-challtestsrv");
        names.arg("-management").arg(format!("127.0.0.1:{}", pebble.dns_management));
        names.arg("-dns01").arg(format!("127.0.0.1:{dns}"));
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]);
        pebble.spawn(names);
        let conf = pebble.folder.write("pebble.json", json!({ "pebble": pebble.configuration }).to_string());
        let mut server = Command::new("pebble");
        server.arg("-config").arg(conf).arg("-dnsserver").arg(format!("127.0.0.1:{dns}")).arg("-strict=true");
        server.envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_WFE_NONCEREJECT", "0"), ("PEBBLE_AUTHZREUSE", "0")]);
        server.envs(environment.iter().copied());
        pebble.spawn(server);
        // Pebble makes its roots first.
        let end = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect((address, port)).is_err() {
            assert!(Instant::now() < end, "Pebble does not listen: {}", pebble.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        pebble
    }

    fn spawn(&mut self, mut command: Command) {
        let name = format!("log-{}", self.children.len());
        let log = std::fs::File::create(self.folder.path().join(name)).expect("a log");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
        self.children.push(child.expect("pebble and pebble-challtestsrv are installed by tests/setup/packages.sh"));
    }

    /// What Pebble wrote.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log-1")).unwrap_or_default()
    }

    pub fn count(&self, what: &str) -> usize {
        self.log().matches(what).count()
    }

    /// Something in front of it that can go wrong. It shows the CA's certificate.
    pub fn behind_proxy(&self) -> FaultProxy {
        FaultProxy::start(self.folder.path(), self.port)
    }

    /// Where it looks for http-01.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// A file with the root of what it issues.
    pub fn root(&self) -> std::path::PathBuf {
        self.nth_root(0)
    }

    /// With `PEBBLE_ALTERNATE_ROOTS` there are more than one.
    pub fn nth_root(&self, nth: usize) -> std::path::PathBuf {
        let management = self.configuration["managementListenAddress"].as_str().expect("an address");
        let ask = format!("printf 'GET /roots/{nth} HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -connect {management} 2>/dev/null");
        let output = Command::new("bash").args(["-c", &ask]).output().expect("openssl is installed");
        let text = String::from_utf8_lossy(&output.stdout);
        let begin = text.find("-----BEGIN").expect("a certificate");
        self.folder.write("root.pem", &text[begin..])
    }

    /// What PID 1's environment says of this CA.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        let ca_file = self.folder.path().join("ca.pem").display().to_string();
        [
            ("ACME_DIRECTORY", format!("https://{}:{}/dir", self.host, self.port)),
            ("ACME_CA_FILE", ca_file),
            ("ACME_HTTP_PORT", self.http_port.to_string()),
        ]
    }

    pub fn request(&self, more: &Value) -> Value {
        let mut request = json!({
            "lineage": "test", "domains": ["a.test", "b.test"], "directory": format!("https://localhost:{}/dir", self.port),
            "ca_file": self.folder.path().join("ca.pem"), "work_dir": self.folder.path().join("work"), "deadline_secs": 60,
        });
        for (name, value) in more.as_object().expect("an object") {
            request[name] = value.clone();
        }
        request
    }

    /// A hook that gives the name server its records.
    pub fn hook(&self) -> String {
        let script = format!(
            "case $1 in add) path=set-txt;; *) path=clear-txt;; esac\n\
             body=\"{{\\\"host\\\":\\\"$2.\\\",\\\"value\\\":\\\"$3\\\"}}\"\n\
             exec 3<>/dev/tcp/127.0.0.1/{}\n\
             printf 'POST /%s HTTP/1.0\\r\\nContent-Length: %s\\r\\n\\r\\n%s' $path ${{#body}} \"$body\" >&3\ncat <&3 >/dev/null\n",
            self.dns_management
        );
        format!("bash {}", self.folder.write("hook", script).display())
    }

    /// Tells the name server something.
    pub fn dns(&self, path: &str, body: &Value) {
        use std::io::{Read as _, Write as _};
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.dns_management)).expect("the name server");
        let request = format!("POST /{path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.contains(" 200 "), "{path}: {answer}");
    }

    /// A worker with the http-01 socket; its outcome, all reports before it, and whether it ended well.
    pub fn work(&self, request: &Value) -> Value {
        Self::reports(self.start_worker(request)).pop().expect("an outcome")
    }

    pub fn start_worker(&self, request: &Value) -> Child {
        let end = Instant::now() + Duration::from_secs(10);
        let socket = loop {
            match std::net::TcpListener::bind(("127.0.0.1", self.http_port)) {
                Ok(socket) => break socket,
                Err(error) => assert!(Instant::now() < end, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).expect("an open socket");
        let input = self.folder.write("request.json", request.to_string());
        Command::new("bash")
            .arg("-c")
            .arg(format!(
                "exec 3<&{}; LISTEN_FDS=1 LISTEN_FDNAMES=http-01 LISTEN_PID=$$ exec {} acme",
                socket.as_raw_fd(),
                darner().display()
            ))
            .stdin(std::fs::File::open(input).expect("the request"))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("the worker starts")
    }

    pub fn reports(child: Child) -> Vec<Value> {
        let output = child.wait_with_output().expect("the worker ends");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("a report")).collect()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
