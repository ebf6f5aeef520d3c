//! mosquitto.conf (and darner.toml and the environment) → one typed [`Conf`]. Pure but for [`files::ReadFiles`].

mod bridges;
pub mod change;
pub mod diagnostic;
mod draft;
pub mod engine_limits;
mod environment;
pub mod files;
mod finish;
pub mod manual;
mod near;
pub mod options;
mod plugins;
mod resolve;
mod special;
mod syntax;
mod value;

use std::path::{Path, PathBuf};

use crate::logging::LogType;
use crate::mqtt::{ProtocolVersion, Qos};
use diagnostic::{Diagnostic, Severity};
use files::ReadFiles;

/// What a configuration means, resolved: every default applied, every rule between options checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Conf {
    /// The file it came from; `None` for the embedded defaults of `mosquitto` without `-c`.
    pub source: Option<PathBuf>,
    /// Never empty. Without any `listener`/`port` it is one loopback listener, and `local_only` is set.
    pub listeners: Vec<Listener>,
    pub local_only: bool,
    pub per_listener_settings: bool,
    /// One entry per listener, in their order, so that an index keeps its meaning over a reload; `Listener::security` indexes it.
    pub security: Vec<Security>,
    pub engine: Engine,
    /// `rumqttd.accept_limits`: that engine may run where it cannot keep what the configuration promises.
    pub accepts_limits: bool,
    pub log: LogConf,
    pub persistence: Persistence,
    pub limits: Limits,
    /// Account to become when started as root (`user`).
    pub user: String,
    pub pid_file: Option<PathBuf>,
    pub connection_messages: bool,
    pub allow_duplicate_messages: bool,
    pub queue_qos0_messages: bool,
    pub retain_available: bool,
    pub upgrade_outgoing_qos: bool,
    /// The broker answers under `$CONTROL/broker/v1`.
    pub control_api: bool,
    pub check_retain_source: bool,
    pub set_tcp_nodelay: bool,
    pub clientid_prefixes: Option<String>,
    /// Seconds between `$SYS` updates; 0 turns them off.
    pub sys_interval_secs: u32,
    /// Warnings and notices found on the way; errors make `load` fail instead.
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// 0 for a unix socket.
    pub port: u16,
    /// Host name or address to bind; `None` is every address.
    pub host: Option<String>,
    pub unix_path: Option<PathBuf>,
    pub bind_interface: Option<String>,
    pub socket_domain: SocketDomain,
    pub protocol: Protocol,
    pub max_connections: Option<u32>,
    pub max_qos: Qos,
    pub max_topic_alias: u16,
    /// Most Topic Aliases towards a client.
    pub max_topic_alias_broker: u16,
    pub mount_point: Option<String>,
    pub use_username_as_clientid: bool,
    /// Empty means all.
    pub accept_protocol_versions: Vec<ProtocolVersion>,
    /// Index into `Conf::security`.
    pub security: usize,
    pub tls: Tls,
    /// Origins of browsers that may upgrade to a WebSocket; empty means all.
    pub websockets_origins: Vec<String>,
    pub proxy: Option<ProxyVersion>,
    /// Clients must have reached the proxy over TLS.
    pub proxy_requires_tls: bool,
}

/// The PROXY protocol that a listener's connections begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

impl ProxyVersion {
    fn of(number: i64) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            _ => None,
        }
    }
}

/// How TLS is done, where `certfile` and `keyfile` ask for it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tls {
    pub cafile: Option<PathBuf>,
    pub capath: Option<PathBuf>,
    pub certfile: Option<PathBuf>,
    pub keyfile: Option<PathBuf>,
    pub crlfile: Option<PathBuf>,
    pub require_certificate: bool,
    /// The lowest, as mosquitto.conf writes it; `None` is TLS 1.2.
    pub version: Option<String>,
    /// OpenSSL's list for TLS 1.2.
    pub ciphers: Option<String>,
    pub ciphers_tls13: Option<String>,
    pub identity: TlsIdentity,
    /// Client certificates that have run out are taken (`disable_client_cert_date_checks`).
    pub without_dates: bool,
}

/// What the user name of a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsIdentity {
    /// What it says in CONNECT.
    #[default]
    Client,
    /// The common name in its certificate.
    CommonName,
    /// The whole subject of its certificate.
    Subject,
}

impl Listener {
    /// Certificate and key, where the listener speaks TLS.
    pub fn tls_files(&self) -> Option<(&Path, &Path)> {
        match (&self.tls.certfile, &self.tls.keyfile, &self.unix_path) {
            (Some(certfile), Some(keyfile), None) => Some((certfile, keyfile)),
            _ => None,
        }
    }

    /// Whether clients may be known by their certificates: here, or at a proxy that tells about them.
    pub fn knows_certificates(&self) -> bool {
        self.tls_files().is_some() || self.proxy == Some(ProxyVersion::V2)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SocketDomain {
    #[default]
    Both,
    Ipv4,
    Ipv6,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Mqtt,
    Websockets,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Security {
    pub allow_anonymous: bool,
    pub allow_zero_length_clientid: bool,
    pub auto_id_prefix: String,
    pub password_file: Option<PathBuf>,
    pub acl_file: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LogConf {
    pub destinations: Vec<LogDestination>,
    pub types: Vec<LogType>,
    pub timestamp: bool,
    /// strftime format; `None` prints epoch seconds.
    pub timestamp_format: Option<String>,
    /// Syslog facility 0..=7 of `local`; `None` is daemon.
    pub facility: Option<u8>,
    /// One JSON object a line (darner.toml, `DARNER_LOG_FORMAT=json`).
    pub json: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogDestination {
    Stdout,
    Stderr,
    Syslog,
    /// `$SYS/broker/log/…`
    Topic,
    File(PathBuf),
    None,
}

/// What carries a message from its publisher to the sessions of its subscribers (darner.toml, `DARNER_ENGINE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// darner's own.
    #[default]
    Core,
    /// The router of the rumqttd crate.
    Rumqttd,
}

impl Engine {
    /// Those that this binary was built with.
    pub const WORDS: &[&str] = if cfg!(feature = "rumqttd") { &["core", "rumqttd"] } else { &["core"] };

    pub fn word(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Rumqttd => "rumqttd",
        }
    }

    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "core" => Some(Self::Core),
            "rumqttd" if cfg!(feature = "rumqttd") => Some(Self::Rumqttd),
            _ => None,
        }
    }
}

/// What is safe before an acknowledgement leaves (darner.toml, `DARNER_DURABILITY`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// With the operating system: a crash of the broker loses nothing.
    #[default]
    Process,
    /// On the disk: a power cut loses nothing.
    Power,
    /// Nothing: all is saved at intervals and at the end, as mosquitto does.
    Snapshot,
}

impl Durability {
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "process" => Some(Self::Process),
            "power" => Some(Self::Power),
            "snapshot" => Some(Self::Snapshot),
            _ => None,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Power => "power",
            Self::Snapshot => "snapshot",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Persistence {
    pub enabled: bool,
    pub durability: Durability,
    pub location: Option<PathBuf>,
    pub file: String,
    pub autosave_interval_secs: u32,
    pub autosave_on_changes: bool,
    /// Seconds after which the session of an absent client ends; `None` is never.
    pub client_expiration_secs: Option<u64>,
}

/// Limits; `None` is "no limit" everywhere.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub inflight_messages: Option<u16>,
    pub inflight_bytes: Option<u64>,
    pub queued_messages: Option<u32>,
    pub queued_bytes: Option<u64>,
    /// Bytes of a whole packet, both directions; announced to version 5 clients.
    pub packet_size: Option<u32>,
    /// Bytes of a payload (`message_size_limit`).
    pub payload_size: Option<u32>,
    pub keepalive_secs: Option<u16>,
    pub memory_bytes: Option<u64>,
    pub global_clients: Option<u32>,
    pub global_connections: Option<u32>,
    /// Bytes of the HTTP request that opens a WebSocket.
    pub websockets_headers: u32,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            port: 1883,
            host: None,
            unix_path: None,
            bind_interface: None,
            socket_domain: SocketDomain::Both,
            protocol: Protocol::Mqtt,
            max_connections: None,
            max_qos: Qos::ExactlyOnce,
            max_topic_alias: 10,
            max_topic_alias_broker: 10,
            mount_point: None,
            use_username_as_clientid: false,
            accept_protocol_versions: Vec::new(),
            security: 0,
            tls: Tls::default(),
            websockets_origins: Vec::new(),
            proxy: None,
            proxy_requires_tls: false,
        }
    }
}

impl Default for Security {
    fn default() -> Self {
        Self {
            allow_anonymous: false,
            allow_zero_length_clientid: true,
            auto_id_prefix: "auto-".into(),
            password_file: None,
            acl_file: None,
        }
    }
}

impl Default for LogConf {
    fn default() -> Self {
        Self {
            destinations: vec![LogDestination::Stderr],
            types: vec![LogType::Error, LogType::Warning, LogType::Notice, LogType::Information],
            timestamp: true,
            timestamp_format: None,
            facility: None,
            json: false,
        }
    }
}

impl Default for Persistence {
    fn default() -> Self {
        Self {
            enabled: false,
            durability: Durability::Process,
            location: None,
            file: "mosquitto.db".into(),
            autosave_interval_secs: 1800,
            autosave_on_changes: false,
            client_expiration_secs: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inflight_messages: Some(20),
            inflight_bytes: None,
            queued_messages: Some(1000),
            queued_bytes: None,
            packet_size: Some(2_000_000),
            payload_size: None,
            keepalive_secs: None,
            memory_bytes: None,
            global_clients: None,
            global_connections: None,
            websockets_headers: 4096,
        }
    }
}

impl Default for Conf {
    /// What an empty mosquitto.conf means: one loopback listener on 1883 that lets anybody in.
    fn default() -> Self {
        Self {
            source: None,
            listeners: vec![Listener::default()],
            local_only: true,
            per_listener_settings: false,
            security: vec![Security { allow_anonymous: true, ..Security::default() }],
            engine: Engine::default(),
            accepts_limits: false,
            log: LogConf::default(),
            persistence: Persistence::default(),
            limits: Limits::default(),
            user: "mosquitto".into(),
            pid_file: None,
            connection_messages: true,
            allow_duplicate_messages: false,
            queue_qos0_messages: false,
            retain_available: true,
            upgrade_outgoing_qos: false,
            control_api: false,
            check_retain_source: true,
            set_tcp_nodelay: false,
            clientid_prefixes: None,
            sys_interval_secs: 10,
            diagnostics: Vec::new(),
        }
    }
}

/// What the command line adds to a configuration file (`mosquitto -p PORT -v -q`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommandLine {
    /// `-p`, up to ten; loopback only, and ignored where the file has a listener.
    pub ports: Vec<u16>,
    /// `-v`: every log type.
    pub verbose: bool,
    /// `-q`: no log.
    pub quiet: bool,
}

impl CommandLine {
    /// Most ports that `-p` may give.
    pub const PORTS_MAX: usize = 10;
}

impl Conf {
    /// Reads and resolves `path` (`None`: the defaults), its `include_dir`s and the `DARNER_*` environment given in `environment`.
    /// All errors are reported at once.
    pub fn load(
        files: &dyn ReadFiles,
        path: Option<&Path>,
        command_line: &CommandLine,
        environment: &[(String, String)],
    ) -> Result<Self, Vec<Diagnostic>> {
        let (mut conf, diagnostics) = Self::read(files, path, command_line, environment);
        if diagnostics.iter().any(|found| found.severity == Severity::Error) {
            return Err(diagnostics);
        }
        conf.diagnostics = diagnostics;
        Ok(conf)
    }

    /// As `load`, but with errors it still gives what could be understood: for judging a file, never for running on it.
    pub fn read(
        files: &dyn ReadFiles,
        path: Option<&Path>,
        command_line: &CommandLine,
        environment: &[(String, String)],
    ) -> (Self, Vec<Diagnostic>) {
        let mut reader = resolve::Reader::new(files);
        if let Some(path) = path {
            reader.file(path);
        }
        let resolve::Reader { draft, mut diagnostics, .. } = reader;
        let mut conf = finish::finish(draft, path, command_line, &mut diagnostics);
        environment::apply(files, path, environment, &mut conf, &mut diagnostics);
        diagnostics.extend(engine_limits::diagnostics(&conf));
        diagnostic::sort(&mut diagnostics);
        (conf, diagnostics)
    }
}
