//! THE TABLE: every option of mosquitto.conf 2.0 and 2.1 once: its names, where it may stand, how its value is written, what it sets,
//! its default, when a change takes effect, and whether darner honours it.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::draft::SecurityDraft;
use super::{Conf, Listener, ProxyVersion, TlsIdentity};
use Effect::{OnReload, OnRestart};
use Kind::{Duration, Number, Path, Special as Its, Switch, Text, Unread};
use Scope::{Bridge, Global, Plugin, Security};
use Support::{Honoured, Ignored, Obsolete, Refused};

/// Where an option may stand, and what it governs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Global,
    Listener,
    /// Everywhere, or the listener above it under `per_listener_settings`.
    Security,
    /// Below a `connection`.
    Bridge,
    /// Below a plugin line.
    Plugin,
}

/// When a changed value takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    OnReload,
    OnRestart,
}

/// What darner does with an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Honoured,
    /// Honoured, and mosquitto's notice (or warning) about its age is repeated.
    Obsolete(&'static str),
    /// Accepted with a warning that says why it does nothing.
    Ignored(&'static str),
    /// An error that says what is missing.
    Refused(&'static str),
}

/// What a value is written into.
pub enum Set<V> {
    Conf(fn(&mut Conf, V)),
    Listener(fn(&mut Listener, V)),
    Security(fn(&mut SecurityDraft, V)),
}

/// Options whose meaning depends on the lines around them; `resolve` has an arm for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    AcceptProtocolVersions,
    BindAddress,
    Connection,
    IncludeDir,
    Listener,
    ListenerAllowAnonymous,
    ListenerAutoIdPrefix,
    LogDest,
    LogType,
    MountPoint,
    PerListenerSettings,
    Plugin,
    PluginLoad,
    PluginOption,
    PluginUse,
    Port,
    Protocol,
    SocketDomain,
    WebsocketsOrigin,
}

/// How a value is written, and what it sets.
pub enum Kind {
    /// `true`, `false`, `1`, `0`; the rest of the line is ignored.
    Switch(Set<bool>),
    /// A whole number in a range; the rest of the line is ignored.
    Number(RangeInclusive<i64>, Set<i64>),
    /// Digits and one of `s h d w m y`; the rest of the line is ignored.
    Duration(Set<u64>),
    /// The rest of the line, trimmed.
    Text(Set<String>),
    /// The rest of the line, trimmed: a file or folder.
    Path(Set<PathBuf>),
    Special(Special),
    /// Not looked at: ignored or refused whatever it says.
    Unread,
}

/// One option.
pub struct Row {
    pub name: &'static str,
    /// Other names that mosquitto takes for it.
    pub aliases: &'static [&'static str],
    pub scope: Scope,
    pub kind: Kind,
    /// As the manual prints it.
    pub default: &'static str,
    pub effect: Effect,
    pub support: Support,
    pub doc: &'static str,
}

/// The row of an option by its name, an alias, or a prefix row (`plugin_opt_*`).
pub fn find(name: &str) -> Option<&'static Row> {
    OPTIONS.iter().find(|row| {
        std::iter::once(&row.name).chain(row.aliases).any(|known| match known.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => *known == name,
        })
    })
}

/// Every name and alias, once.
pub fn names() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().flat_map(|row| std::iter::once(row.name).chain(row.aliases.iter().copied()))
}

const ENGINE: &str = "OpenSSL engines";
const PSK: &str = "TLS with pre-shared keys, which rustls, the TLS library it is built on, does not have";
const BRIDGES: &str = "bridges to other brokers";
const BRIDGE: (Kind, Effect, Support) = (Unread, OnRestart, Refused(BRIDGES));

fn some(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value > 0)
}

fn some32(value: i64) -> Option<u32> {
    some(value).map(|value| u32::try_from(value).unwrap_or(u32::MAX))
}

fn some16(value: i64) -> Option<u16> {
    some(value).map(|value| u16::try_from(value).unwrap_or(u16::MAX))
}

/// Numbers below 0 mean 0 here, as in mosquitto.
const ANY: RangeInclusive<i64> = i64::MIN..=(1 << 53);
const INT: RangeInclusive<i64> = i64::MIN..=i32::MAX as i64;

#[rustfmt::skip]
const fn row(name: &'static str, aliases: &'static [&'static str], scope: Scope, kind: Kind, default: &'static str, effect: Effect, support: Support, doc: &'static str) -> Row {
    Row { name, aliases, scope, kind, default, effect, support, doc }
}

const fn tls(name: &'static str, set: fn(&mut Listener, PathBuf), doc: &'static str) -> Row {
    row(name, &[], Scope::Listener, Path(Set::Listener(set)), "none", OnReload, Honoured, doc)
}

const fn tls_text(name: &'static str, default: &'static str, set: fn(&mut Listener, String), doc: &'static str) -> Row {
    row(name, &[], Scope::Listener, Text(Set::Listener(set)), default, OnReload, Honoured, doc)
}

const fn tls_flag(name: &'static str, set: fn(&mut Listener, bool), doc: &'static str) -> Row {
    row(name, &[], Scope::Listener, Switch(Set::Listener(set)), "false", OnReload, Honoured, doc)
}

fn identity(listener: &mut Listener, kind: TlsIdentity, on: bool) {
    if on {
        listener.tls.identity = kind;
    } else if listener.tls.identity == kind {
        listener.tls.identity = TlsIdentity::Client;
    }
}

const fn bridge(name: &'static str, aliases: &'static [&'static str], default: &'static str, doc: &'static str) -> Row {
    row(name, aliases, Bridge, BRIDGE.0, default, BRIDGE.1, BRIDGE.2, doc)
}

/// By name; a test keeps the order.
#[rustfmt::skip]
pub static OPTIONS: &[Row] = &[
    row("accept_protocol_versions", &[], Scope::Listener, Its(Special::AcceptProtocolVersions), "3,4,5", OnReload, Honoured,
        "Protocol versions that the listener takes: a list of 3 (MQTT 3.1), 4 (3.1.1) and 5 (5.0)."),
    row("acl_file", &[], Security, Path(Set::Security(|s, v| s.acl_file = Some(v))), "none", OnReload, Honoured,
        "File with the topics that each user may read and write."),
    bridge("address", &["addresses"], "none", "Brokers that the bridge connects to: host[:port] …"),
    row("allow_anonymous", &[], Security, Switch(Set::Security(|s, v| s.allow_anonymous = Some(v))), "false once a listener is set, else true", OnReload, Honoured,
        "Whether clients may connect without a user name."),
    row("allow_duplicate_messages", &[], Global, Switch(Set::Conf(|c, v| c.allow_duplicate_messages = v)), "false", OnReload,
        Obsolete("The 'allow_duplicate_messages' option is now deprecated and will be removed in a future version. The behaviour will default to true."),
        "Whether a client with overlapping subscriptions gets a message once for each (before MQTT 5)."),
    row("allow_zero_length_clientid", &[], Security, Switch(Set::Security(|s, v| s.allow_zero_length_clientid = Some(v))), "true", OnReload, Honoured,
        "Whether a client without an identifier gets one from the broker."),
    row("auth_plugin_deny_special_chars", &[], Plugin, Unread, "true", OnRestart, Ignored("User names and client identifiers with + or # never reach an ACL pattern here."),
        "Whether the plugin is spared names with + and #."),
    row("auto_id_prefix", &[], Security, Text(Set::Security(|s, v| s.auto_id_prefix = Some(v))), "auto-", OnReload, Honoured,
        "What client identifiers given by the broker begin with."),
    row("autosave_interval", &[], Global, Number(INT, Set::Conf(|c, v| c.persistence.autosave_interval_secs = some32(v).unwrap_or(0))), "1800", OnRestart, Honoured,
        "Seconds between saves of the state; 0 saves only at the end."),
    row("autosave_on_changes", &[], Global, Switch(Set::Conf(|c, v| c.persistence.autosave_on_changes = v)), "false", OnRestart, Honoured,
        "Whether autosave_interval counts changes and not seconds."),
    row("bind_address", &[], Scope::Listener, Its(Special::BindAddress), "none", OnRestart,
        Obsolete("The 'bind_address' option is now deprecated and will be removed in a future version. The behaviour will default to true."),
        "Address of the default listener; `listener PORT ADDRESS` is its successor."),
    row("bind_interface", &[], Scope::Listener, Text(Set::Listener(|l, v| l.bind_interface = Some(v))), "none", OnRestart, Honoured,
        "Network device that the listener is confined to."),
    bridge("bridge_alpn", &[], "none", "ALPN protocol of the bridge."),
    bridge("bridge_attempt_unsubscribe", &[], "true", "Whether the bridge unsubscribes from topics it no longer has."),
    bridge("bridge_bind_address", &[], "none", "Local address of the bridge's connection."),
    bridge("bridge_cafile", &[], "none", "Certificates that the bridge trusts."),
    bridge("bridge_capath", &[], "none", "Folder of certificates that the bridge trusts."),
    bridge("bridge_certfile", &[], "none", "Certificate of the bridge."),
    bridge("bridge_ciphers", &[], "none", "Ciphers of the bridge (2.1)."),
    bridge("bridge_ciphers_tls1.3", &[], "none", "TLS 1.3 cipher suites of the bridge (2.1)."),
    bridge("bridge_identity", &[], "none", "Identity for TLS with a pre-shared key."),
    bridge("bridge_insecure", &[], "false", "Whether the bridge skips checking the name in the certificate."),
    bridge("bridge_keyfile", &[], "none", "Key of the bridge's certificate."),
    bridge("bridge_max_packet_size", &[], "0", "Longest packet that the bridge sends."),
    bridge("bridge_max_topic_alias", &[], "10", "Topic aliases that the bridge takes (2.1)."),
    bridge("bridge_outgoing_retain", &[], "true", "Whether outgoing messages keep the retain flag."),
    bridge("bridge_protocol_version", &[], "mqttv311", "Protocol of the bridge."),
    bridge("bridge_psk", &[], "none", "Pre-shared key of the bridge, in hexadecimal."),
    bridge("bridge_receive_maximum", &[], "20", "Receive Maximum of the bridge (2.1)."),
    bridge("bridge_reload_type", &[], "lazy", "When a reload reconnects the bridge (2.1)."),
    bridge("bridge_require_ocsp", &[], "false", "Whether the remote certificate must come with an OCSP answer."),
    bridge("bridge_session_expiry_interval", &[], "0", "Session Expiry Interval of the bridge (2.1)."),
    bridge("bridge_tcp_keepalive", &[], "none", "TCP keep alive of the bridge (2.1)."),
    bridge("bridge_tcp_user_timeout", &[], "none", "TCP user timeout of the bridge (2.1)."),
    bridge("bridge_tls_use_os_certs", &[], "false", "Whether the bridge trusts the system's certificates (2.1)."),
    bridge("bridge_tls_version", &[], "tlsv1.2", "TLS version of the bridge."),
    tls("cafile", |l, v| l.tls.cafile = Some(v), "Certificates that sign client certificates."),
    tls("capath", |l, v| l.tls.capath = Some(v), "Folder of certificates that sign client certificates, named by `openssl rehash`."),
    tls("certfile", |l, v| l.tls.certfile = Some(v), "Certificate of the listener; with keyfile it makes the listener a TLS one."),
    row("check_retain_source", &[], Global, Switch(Set::Conf(|c, v| c.check_retain_source = v)), "true", OnReload, Honoured,
        "Whether a retained message is delivered only while its publisher may still write to the topic."),
    tls_text("ciphers", "all", |l, v| l.tls.ciphers = Some(v), "OpenSSL list of ciphers for TLS 1.2, of which ECDHE with AES-GCM or ChaCha20 is offered."),
    tls_text("ciphers_tls1.3", "all", |l, v| l.tls.ciphers_tls13 = Some(v), "TLS 1.3 cipher suites."),
    bridge("cleansession", &[], "false", "Whether the bridge starts without a session."),
    bridge("clientid", &["remote_clientid"], "name.hostname", "Client identifier of the bridge at the other broker."),
    row("clientid_prefixes", &[], Global, Text(Set::Conf(|c, v| c.clientid_prefixes = Some(v))), "none", OnReload,
        Obsolete("The 'clientid_prefixes' option is now deprecated and will be removed in a future version."),
        "Only clients whose identifier begins so may connect."),
    row("connection", &[], Bridge, Its(Special::Connection), "none", OnRestart, Refused(BRIDGES), "Starts a bridge."),
    row("connection_messages", &[], Global, Switch(Set::Conf(|c, v| c.connection_messages = v)), "true", OnReload, Honoured,
        "Whether connecting and disconnecting clients are logged."),
    tls("crlfile", |l, v| l.tls.crlfile = Some(v), "List of revoked client certificates."),
    row("dhparamfile", &[], Scope::Listener, Unread, "none", OnReload, Ignored("Key exchange is over elliptic curves only, which need no parameters."), "Diffie-Hellman parameters of a TLS listener."),
    tls_flag("disable_client_cert_date_checks", |l, v| l.tls.without_dates = v, "Whether client certificates that have run out, or are not valid yet, are taken (2.1)."),
    row("enable_control_api", &[], Global, Switch(Set::Conf(|c, v| c.control_api = v)), "false", OnReload, Honoured,
        "Whether the broker answers commands under $CONTROL/broker/v1: listListeners and listPlugins (2.1)."),
    row("enable_proxy_protocol", &[], Scope::Listener, Number(1..=2, Set::Listener(|l, v| l.proxy = ProxyVersion::of(v))), "none", OnRestart, Honoured,
        "Version of the PROXY protocol that the listener expects before all else (2.1): 1 or 2. Whoever reaches the listener past the proxy may claim any address."),
    row("global_max_clients", &[], Global, Number(INT, Set::Conf(|c, v| c.limits.global_clients = some32(v))), "-1", OnReload, Honoured,
        "Most sessions at once, also of absent clients (2.1); -1 is no limit."),
    row("global_max_connections", &[], Global, Number(INT, Set::Conf(|c, v| c.limits.global_connections = some32(v))), "-1", OnReload, Honoured,
        "Most connections at once over all listeners (2.1); -1 is no limit."),
    row("http_dir", &[], Scope::Listener, Unread, "none", OnRestart, Refused("files served over HTTP, which a web server does better beside the broker"), "Folder served to browsers on a WebSockets or HTTP listener."),
    bridge("idle_timeout", &[], "60", "Seconds of silence after which a lazy bridge disconnects."),
    row("include_dir", &[], Global, Its(Special::IncludeDir), "none", OnReload, Honoured,
        "Folder whose *.conf files are read here, in the order of their names. Only in the main file."),
    bridge("keepalive_interval", &[], "60", "Keep alive of the bridge in seconds."),
    tls("keyfile", |l, v| l.tls.keyfile = Some(v), "Key of the listener's certificate."),
    row("listener", &[], Scope::Listener, Its(Special::Listener), "none", OnRestart, Honoured,
        "Opens a port: `listener PORT [ADDRESS]`, or `listener 0 /path` for a unix socket. The options below it are its own."),
    row("listener_allow_anonymous", &[], Scope::Listener, Its(Special::ListenerAllowAnonymous), "allow_anonymous", OnReload, Honoured,
        "allow_anonymous of this listener alone (2.1)."),
    row("listener_auto_id_prefix", &[], Scope::Listener, Its(Special::ListenerAutoIdPrefix), "auto_id_prefix", OnReload, Honoured,
        "auto_id_prefix of this listener alone (2.1)."),
    bridge("local_cleansession", &[], "cleansession", "Whether the local side of the bridge starts without a session."),
    bridge("local_clientid", &[], "local.clientid", "Client identifier of the bridge at this broker."),
    bridge("local_password", &[], "none", "Password of the bridge at this broker."),
    bridge("local_username", &[], "none", "User name of the bridge at this broker."),
    row("log_dest", &[], Global, Its(Special::LogDest), "stderr", OnReload, Honoured,
        "Where log lines go: stdout, stderr, syslog, topic, `file PATH` or none. May be repeated."),
    row("log_facility", &[], Global, Number(0..=7, Set::Conf(|c, v| c.log.facility = u8::try_from(v).ok())), "daemon", OnReload, Honoured,
        "Syslog facility local0 to local7."),
    row("log_timestamp", &[], Global, Switch(Set::Conf(|c, v| c.log.timestamp = v)), "true", OnReload, Honoured, "Whether log lines begin with the time."),
    row("log_timestamp_format", &[], Global, Text(Set::Conf(|c, v| c.log.timestamp_format = Some(v))), "seconds since 1970", OnReload, Honoured,
        "Format of the time, as strftime takes it: %Y-%m-%dT%H:%M:%S."),
    row("log_type", &[], Global, Its(Special::LogType), "error warning notice information", OnReload, Honoured,
        "What is logged: error, warning, notice, information, debug, subscribe, unsubscribe, websockets, internal, all or none. May be repeated."),
    row("max_connections", &[], Scope::Listener, Number(INT, Set::Listener(|l, v| l.max_connections = some32(v))), "-1", OnReload, Honoured,
        "Most connections at once of the listener; -1 is no limit."),
    row("max_inflight_bytes", &[], Global, Number(ANY, Set::Conf(|c, v| c.limits.inflight_bytes = some(v))), "0", OnReload, Honoured,
        "Most bytes of QoS 1 and 2 messages under way to one client; 0 is no limit."),
    row("max_inflight_messages", &[], Global, Number(i64::MIN..=65535, Set::Conf(|c, v| c.limits.inflight_messages = some16(v))), "20", OnReload, Honoured,
        "Most QoS 1 and 2 messages under way to one client; 0 is no limit."),
    row("max_keepalive", &[], Global, Number(0..=65535, Set::Conf(|c, v| c.limits.keepalive_secs = some16(v))), "0", OnReload, Honoured,
        "Longest Keep Alive in seconds that a client may ask for; 0 is no limit."),
    row("max_packet_size", &[], Global, Number(20..=u32::MAX as i64, Set::Conf(|c, v| c.limits.packet_size = some32(v))), "2000000", OnReload, Honoured,
        "Longest packet in bytes (mosquitto 2.0 had no limit)."),
    row("max_qos", &["maximum_qos"], Scope::Listener, Number(0..=2, Set::Listener(|l, v| l.max_qos = u8::try_from(v).ok().and_then(crate::mqtt::Qos::from_u8).unwrap_or(l.max_qos))), "2", OnReload, Honoured,
        "Highest QoS that the listener's clients may use."),
    row("max_queued_bytes", &[], Global, Number(ANY, Set::Conf(|c, v| c.limits.queued_bytes = some(v))), "0", OnReload, Honoured,
        "Most bytes of QoS 1 and 2 messages waiting for one client; 0 is no limit."),
    row("max_queued_messages", &[], Global, Number(INT, Set::Conf(|c, v| c.limits.queued_messages = some32(v))), "1000", OnReload, Honoured,
        "Most QoS 1 and 2 messages waiting for one client; 0 is no limit."),
    row("max_topic_alias", &[], Scope::Listener, Number(0..=65535, Set::Listener(|l, v| l.max_topic_alias = some16(v).unwrap_or(0))), "10", OnReload, Honoured,
        "Topic aliases that an MQTT 5 client of the listener may use."),
    row("max_topic_alias_broker", &[], Scope::Listener, Number(0..=65535, Set::Listener(|l, v| l.max_topic_alias_broker = some16(v).unwrap_or(0))), "10", OnReload, Honoured,
        "Most topic aliases that the broker uses towards a client (2.1)."),
    row("memory_limit", &[], Global, Number(0..=(1 << 53), Set::Conf(|c, v| c.limits.memory_bytes = some(v))), "0", OnReload, Honoured,
        "Most bytes of memory that messages may take; 0 is no limit."),
    row("message_size_limit", &[], Global, Number(0..=268435455, Set::Conf(|c, v| c.limits.payload_size = some32(v))), "0", OnReload,
        Obsolete("Note: It is recommended to replace `message_size_limit` with `max_packet_size`."),
        "Longest payload in bytes; 0 is no limit."),
    row("mount_point", &[], Scope::Listener, Its(Special::MountPoint), "none", OnRestart, Honoured,
        "Put before every topic of the listener's clients, and taken off what they receive."),
    bridge("notification_topic", &[], "none", "Topic of the bridge's notifications."),
    bridge("notifications", &[], "true", "Whether the bridge publishes its state."),
    bridge("notifications_local_only", &[], "false", "Whether the bridge publishes its state only here."),
    row("packet_buffer_size", &[], Global, Unread, "4096", OnRestart, Ignored("Read buffers grow and shrink with the traffic here."), "Bytes of the read buffer of a connection (2.1)."),
    bridge("password", &["remote_password"], "none", "Password of the bridge at the other broker."),
    row("password_file", &[], Security, Path(Set::Security(|s, v| s.password_file = Some(v))), "none", OnReload, Honoured,
        "File with user names and password hashes, written by mosquitto_passwd."),
    row("per_listener_settings", &[], Global, Its(Special::PerListenerSettings), "false", OnReload, Honoured,
        "Whether the security options belong to the listener above them. Must stand before them."),
    row("persistence", &["retained_persistence"], Global, Switch(Set::Conf(|c, v| c.persistence.enabled = v)), "false", OnRestart, Honoured,
        "Whether sessions and retained messages survive a restart."),
    row("persistence_file", &[], Global, Text(Set::Conf(|c, v| c.persistence.file = v)), "mosquitto.db", OnRestart, Honoured, "Name of the file of the state; mosquitto's own is imported, and left as it was."),
    row("persistence_location", &[], Global, Path(Set::Conf(|c, v| c.persistence.location = Some(v))), "working folder", OnRestart, Honoured, "Folder of the file of the state."),
    row("persistent_client_expiration", &[], Global, Duration(Set::Conf(|c, v| c.persistence.client_expiration_secs = Some(v))), "never", OnReload, Honoured,
        "How long the session of an absent client is kept: a number and s, h, d, w, m (30 days) or y."),
    row("pid_file", &[], Global, Path(Set::Conf(|c, v| c.pid_file = Some(v))), "none", OnRestart, Honoured, "File that the process id is written to."),
    row("plugin", &["auth_plugin", "global_plugin"], Security, Its(Special::Plugin), "none", OnReload, Honoured,
        "mosquitto_password_file.so and mosquitto_acl_file.so are built in; any other plugin is refused."),
    row("plugin_load", &[], Global, Its(Special::PluginLoad), "none", OnReload, Honoured, "`plugin_load NAME FILE` (2.1): as plugin, for plugin_use."),
    row("plugin_opt_*", &["auth_opt_*"], Plugin, Its(Special::PluginOption), "none", OnReload, Honoured,
        "Options of the plugin above: plugin_opt_password_file and plugin_opt_acl_file."),
    row("plugin_use", &[], Scope::Listener, Its(Special::PluginUse), "none", OnReload, Honoured, "Uses a plugin of plugin_load for this listener (2.1)."),
    row("port", &[], Scope::Listener, Its(Special::Port), "1883", OnRestart,
        Obsolete("The 'port' option is now deprecated and will be removed in a future version. Please use 'listener' instead."),
        "Port of the default listener; `listener PORT` is its successor."),
    row("protocol", &[], Scope::Listener, Its(Special::Protocol), "mqtt", OnRestart, Honoured,
        "mqtt or websockets. The HTTP interface of 2.1 (http_api) is refused."),
    row("proxy_protocol_v2_require_tls", &[], Scope::Listener, Switch(Set::Listener(|l, v| l.proxy_requires_tls = v)), "false", OnReload, Honoured,
        "Whether the client must have reached the proxy over TLS (2.1)."),
    row("psk_file", &[], Security, Unread, "none", OnReload, Refused(PSK), "File with identities and pre-shared keys."),
    row("psk_hint", &[], Scope::Listener, Unread, "none", OnRestart, Refused(PSK), "Hint that makes the listener use pre-shared keys."),
    row("queue_qos0_messages", &[], Global, Switch(Set::Conf(|c, v| c.queue_qos0_messages = v)), "false", OnReload, Honoured,
        "Whether QoS 0 messages wait for absent clients too."),
    tls_flag("require_certificate", |l, v| l.tls.require_certificate = v, "Whether clients must show a certificate."),
    bridge("restart_timeout", &[], "5 30", "Seconds before the bridge tries again."),
    row("retain_available", &[], Global, Switch(Set::Conf(|c, v| c.retain_available = v)), "true", OnReload, Honoured, "Whether messages may be retained."),
    row("retain_expiry_interval", &[], Global, Number(0..=525600, Set::Conf(|_, _| {})), "0", OnReload, Honoured,
        "Minutes between sweeps for retained messages whose own expiry has passed (2.0.21). darner sweeps every minute, which any value permits."),
    row("retry_interval", &[], Global, Unread, "none", OnReload, Ignored("The retry_interval option is no longer available."), "Gone since mosquitto 1.5: messages are sent again when a client reconnects."),
    bridge("round_robin", &[], "false", "Whether the bridge stays with any of its addresses."),
    row("set_tcp_nodelay", &[], Global, Switch(Set::Conf(|c, v| c.set_tcp_nodelay = v)), "false", OnReload, Honoured,
        "Whether small packets leave at once. darner always does so, with one write per batch."),
    row("socket_domain", &[], Scope::Listener, Its(Special::SocketDomain), "both", OnRestart, Honoured, "ipv4 or ipv6: the only family that the listener opens."),
    bridge("start_type", &[], "automatic", "When the bridge connects: automatic, lazy or once."),
    row("store_clean_interval", &[], Global, Unread, "none", OnReload, Ignored("Messages that nobody waits for are freed at once."), "Gone since mosquitto 1.5."),
    row("sys_interval", &[], Global, Number(0..=65535, Set::Conf(|c, v| c.sys_interval_secs = some32(v).unwrap_or(0))), "10", OnReload, Honoured,
        "Seconds between updates of $SYS; 0 turns them off."),
    bridge("threshold", &[], "10", "Messages after which a lazy bridge connects."),
    row("tls_engine", &[], Scope::Listener, Unread, "none", OnRestart, Refused(ENGINE), "OpenSSL engine of the listener."),
    row("tls_engine_kpass_sha1", &[], Scope::Listener, Unread, "none", OnRestart, Refused(ENGINE), "SHA1 of the password of the engine's key."),
    row("tls_keyform", &[], Scope::Listener, Unread, "pem", OnRestart, Ignored("Keys are files in PEM form; those of an engine are refused with tls_engine."), "Whether the key is a file (pem) or the engine's (engine)."),
    tls_text("tls_version", "tlsv1.2", |l, v| l.tls.version = Some(v), "Lowest TLS version of the listener: tlsv1.2 or tlsv1.3. With tlsv1.1 it is 1.2 all the same."),
    bridge("topic", &[], "none", "Topics that the bridge shares: pattern [[[out|in|both] qos] local-prefix remote-prefix]."),
    bridge("try_private", &[], "true", "Whether the bridge says that it is one."),
    row("upgrade_outgoing_qos", &[], Global, Switch(Set::Conf(|c, v| c.upgrade_outgoing_qos = v)), "false", OnReload, Honoured,
        "Whether messages are sent at the QoS of the subscription even where they were published with less."),
    tls_flag("use_identity_as_username", |l, v| identity(l, TlsIdentity::CommonName, v), "Whether the name in the client's certificate is its user name."),
    tls_flag("use_subject_as_username", |l, v| identity(l, TlsIdentity::Subject, v), "Whether the whole subject of the client's certificate is its user name."),
    row("use_username_as_clientid", &[], Scope::Listener, Switch(Set::Listener(|l, v| l.use_username_as_clientid = v)), "false", OnReload, Honoured,
        "Whether the user name replaces the client identifier."),
    row("user", &[], Global, Text(Set::Conf(|c, v| c.user = v)), "mosquitto", OnRestart, Honoured,
        "Account to become when started as root; `root` stays."),
    bridge("username", &["remote_username"], "none", "User name of the bridge at the other broker."),
    row("websockets_headers_size", &[], Global, Number(0..=65535, Set::Conf(|c, v| c.limits.websockets_headers = u32::try_from(v).ok().filter(|v| *v > 0).unwrap_or(c.limits.websockets_headers))), "4096", OnReload, Honoured,
        "Bytes of HTTP headers that a WebSockets client may send; 0 is the default."),
    row("websockets_log_level", &[], Global, Unread, "0", OnReload, Ignored("There is no libwebsockets in here; what WebSockets clients do wrong is logged as a notice."), "Log mask of libwebsockets."),
    row("websockets_origin", &[], Scope::Listener, Its(Special::WebsocketsOrigin), "any", OnReload, Honoured,
        "Web site whose pages may connect over WebSockets, as the browser names it: https://example.com:8080. May be repeated (2.1)."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_names_nothing_twice() {
        let mut seen = std::collections::BTreeSet::new();
        for name in names() {
            assert!(seen.insert(name), "{name} stands twice");
        }
        for pair in OPTIONS.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} stands after {}", pair[1].name, pair[0].name);
        }
    }

    #[test]
    fn what_a_row_sets_fits_its_scope() {
        fn place<V>(set: &Set<V>) -> Scope {
            match set {
                Set::Conf(_) => Global,
                Set::Listener(_) => Scope::Listener,
                Set::Security(_) => Security,
            }
        }
        for row in OPTIONS {
            let scope = match &row.kind {
                Switch(set) => place(set),
                Number(_, set) => place(set),
                Duration(set) => place(set),
                Text(set) => place(set),
                Path(set) => place(set),
                Its(_) | Unread => row.scope,
            };
            assert_eq!(scope, row.scope, "{}", row.name);
        }
    }
}
