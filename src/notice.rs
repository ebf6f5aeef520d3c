//! The lines that people grep for, each once: data → log type and text. mosquitto's sentences where it has one.

use std::fmt;

use crate::logging::LogType;

macro_rules! notices {
    ($($(#[$doc:meta])* $name:ident { $($field:ident : $kind:ty),* } $log_type:ident $text:literal;)*) => {
        /// A log line as data.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Notice { $($(#[$doc])* $name { $($field: $kind),* }),* }

        impl Notice {
            pub fn log_type(&self) -> LogType {
                match self { $(Self::$name { .. } => LogType::$log_type),* }
            }
        }

        impl fmt::Display for Notice {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$name { $($field),* } => write!(f, $text)),* }
            }
        }
    };
}

notices! {
    Starting { version: &'static str } Information "mosquitto version {version} starting";
    Running { version: &'static str } Information "mosquitto version {version} running";
    Terminating { version: &'static str } Information "mosquitto version {version} terminating";
    ConfigLoaded { path: String } Information "Config loaded from {path}.";
    DefaultConfig {} Information "Using default config.";
    Reloading {} Information "Reloading config.";
    OpeningListener { family: &'static str, port: u16 } Information "Opening {family} listen socket on port {port}.";
    OpeningUnixListener { path: String } Information "Opening unix listen socket on path {path}.";
    /// `reason`: "received fatal alert: UnknownCA", "it took longer than 10 seconds" …
    HandshakeFailed { peer: String, reason: String } Notice "Client connection from {peer} failed: TLS handshake: {reason}.";
    EntranceFull { most: usize, address: String } Warning
        "Warning: {most} connections have not finished their handshake: the oldest of {address}, which has most of them, are closed.";
    /// `reason`: "The request asks for no upgrade to a WebSocket", "it took longer than 10 seconds" …
    UpgradeFailed { peer: String, reason: String } Notice "Client connection from {peer} failed: WebSocket upgrade: {reason}.";
    ProxyCorrupt {} Notice "Connection rejected, corrupt PROXY header.";
    /// mosquitto says no more than that input was invalid.
    ProxyCorruptBinary {} Notice "Client (null) [(null):0] disconnected: bad socket read/write: Invalid input: corrupt PROXY header.";
    ProxyRefused { peer: String, why: &'static str } Notice "Connection from {peer} rejected, {why}.";
    ProxyNegotiated { peer: String, version: String, cipher: String } Notice "Connection from {peer} negotiated {version} cipher {cipher}";
    LocalOnly {} Warning "Starting in local only mode. Connections will only be possible from clients running on this machine.";
    LocalOnlyHelp {} Warning "Create a configuration file which defines a listener to allow remote access.";
    LocalOnlyMore {} Warning "For more details see https://mosquitto.org/documentation/authentication-methods/";
    RunningAs { user: String } Information "Info: running mosquitto as user: {user}.";
    RunningAsRoot {} Warning "Warning: Mosquitto should not be run as root/administrator.";
    TryingNobody {} Warning "Warning: Unable to drop privileges to 'mosquitto' because this user does not exist. Trying 'nobody' instead.";
    MaxConnections { peer: String } Notice "Client connection from {peer} denied: max_connections exceeded.";
    ListenersChanged {} Error "Error: It is not currently possible to add/remove listeners when reloading the config file.";
    KeepingConfig {} Error "Error: The new configuration is not used; the broker goes on with the one it has.";
    NothingToSave {} Notice "Nothing was saved: persistence is off.";
    Saving { path: String } Information "Saving in-memory database to {path}.";
    StoreFailing { path: String, reason: String } Error "Error: Nothing can be kept in {path} ({reason}): the broker serves from memory and refuses what it would have to keep, until this is mended.";
    SaveFailing { path: String, reason: String } Error "Error: {path} cannot be saved ({reason}): what has changed since it last was would be lost with the broker, until this is mended.";
    StoreRecovered { path: String } Notice "{path} can be written to again: everything is kept.";
    StoreUnreadable { path: String, reason: String, aside: String } Error
        "Error: {path} cannot be opened ({reason}): the broker starts without what it holds; the file {aside}. (If it is mosquitto's, darner db import takes it over once it can be read.)";
    StoreDamaged { path: String, what: &'static str, at: u64, sessions: usize, retained: usize, aside: String } Error
        "Error: {path} {what} from byte {at} on. {sessions} sessions and {retained} retained messages were recovered; the file {aside}.";
    Imported { path: String, retained: usize, sessions: usize, subscriptions: usize, queued: usize, expired: usize } Notice
        "Imported from mosquitto's database {path}, which is left as it was: {retained} retained messages, {sessions} sessions, {subscriptions} subscriptions, {queued} queued messages; {expired} had expired.";
    ImportedInPart { path: String, what: String } Error "Error: Not all of {path} could be imported: {what}.";
    NotImported { path: String, reason: String, store: String } Error
        "Error: Nothing was imported from mosquitto's database {path} ({reason}). It is left as it was, and the state begins empty; to try again, remove {store} and restart.";
    /// A single file that is mounted cannot have another beside it that lasts.
    StoreBesideMount { path: String, store: String } Warning
        "Warning: {path} is a mount by itself, and mosquitto's. What is kept from now on is in {store}, which is lost with the container, and the next one imports the same again. Mount the folder instead, or the store in its place: see docs/durability.md.";
    DatabaseIsYounger { path: String, store: String } Warning
        "Warning: mosquitto has written to {path} after it was imported. That is not in {store}, which is used; to import again, remove it and restart.";
    StoreSetAside { path: String, aside: String } Notice "What {path} held is now {aside}.";
    StoreThreadGone {} Error "Error: The store's thread has ended by an internal error.";
    RouterGone {} Error "Error: The router of rumqttd is gone; the broker ends, so that it can be started afresh.";
    InternalError {} Error "Error: Internal error; the broker ends, so that it can be started afresh.";
    ClientConnected { peer: String, client_id: String, version: u8, clean: u8, keep_alive_secs: u16, username: String } Notice
        "New client connected from {peer} as {client_id} (p{version}, c{clean}, k{keep_alive_secs}{username}).";
    /// `how`: "disconnected", "closed its connection", "has exceeded timeout, disconnecting" …
    ClientEnded { client_id: String, how: String } Notice "Client {client_id} {how}.";
    ClientRefused { client_id: String, why: &'static str } Notice "Client {client_id} disconnected, {why}.";
    ProxiedRefused { client_id: String, peer: String } Notice "Client {client_id} [{peer}] disconnected: not authorised.";
    TakenOver { client_id: String } Notice "Client {client_id} already connected, closing old connection.";
    SessionExpired { client_id: String } Notice "Expiring client {client_id} due to timeout.";
    BrokerCommand { client_id: String, username: String, command: &'static str } Information "Broker: {client_id}/{username} | {command}";
    Dropping { client_id: String } Notice "Outgoing messages are being dropped for client {client_id}.";
    Received { name: &'static str, client_id: String, detail: String } Debug "Received {name} from {client_id}{detail}";
    Sending { name: &'static str, client_id: String, detail: String } Debug "Sending {name} to {client_id}{detail}";
    MemoryFull { most: u64 } Error "The memory_limit of {most} bytes is reached: new clients and messages that must be kept are refused until there is less.";
    MemoryFree {} Notice "Memory is below memory_limit again.";
    Subscribed { client_id: String, qos: u8, filter: String } Subscribe "{client_id} {qos} {filter}";
    Unsubscribed { client_id: String, filter: String } Unsubscribe "{client_id} {filter}";
    SubscriptionTree { version: &'static str } Information "Subscription tree of mosquitto version {version}:";
    SubscriptionTreeRow { filter: String, client_id: String, qos: u8 } Information "  {filter} <- {client_id} (q{qos})";
    NewConnection { peer: String, port: u16 } Notice "New connection from {peer} on port {port}.";
}
