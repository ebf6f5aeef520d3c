//! # darner: the map
//!
//! One static binary that is PID 1 of a broker's container, mends its volumes and supervises an embedded MQTT broker
//! that takes mosquitto's configuration, files, commands and signals as they are. The door is `entrypoint/main.rs`.
//!
//! | room | what it is | what is absent from it |
//! |---|---|---|
//! | [`mqtt`] | vocabulary and bytes of MQTT 3.1, 3.1.1 and 5 | sessions, sockets |
//! | [`conf`] | mosquitto.conf, darner.toml and environment → one typed [`conf::Conf`]; the option table | the broker; files are read through [`conf::files::ReadFiles`] |
//! | [`access`] | password file, ACL file: pure lookups over loaded bytes | files, sockets |
//! | [`tls`] | certificates, keys and revocation lists → what a handshake is done with | sockets; files are read through [`conf::files::ReadFiles`] |
//! | [`acme`] | certificates from a CA: what PID 1 asks, and the one-shot worker that talks to the CA | the broker; tokio but in its worker |
//! | [`websocket`] | the upgrade to a WebSocket, and its frames | sockets |
//! | [`proxy`] | the header that a proxy puts before a connection | sockets |
//! | [`check`] | a configuration and the files it names, judged without running them | the broker |
//! | [`broker`] | the machine: sessions, routing, retained, wills, `$SYS`; one instance is one shard | clock, sockets, files, tokio, randomness |
//! | [`engine`] | the second engine: the rumqttd router, guarded | sessions, sockets |
//! | [`db`] | `darner db`: what is kept, listed, taken over from mosquitto and given back | the broker's rules, tokio |
//! | [`store`] | the seam where records of durable state leave the machine | the broker's rules |
//! | [`transport`] | the broker process: sockets, timers, reloads; performs the machine's effects | the protocol's rules. The only tokio beside the ACME worker |
//! | [`client`] | `mosquitto_pub` and `mosquitto_sub` | tokio |
//! | [`health`] | the health check | tokio, a child process |
//! | [`passwd`] | password hashes and the `mosquitto_passwd` command | the broker |
//! | [`repair`] | self-repair of the volumes: observe → plan → apply | the broker |
//! | [`supervisor`] | PID 1: phases, table, run loop, sockets, reload | tokio, bytes from strangers |
//! | [`os`] | the only `unsafe` and libc | everything else |
//!
//! Arrows (tests/it/house.rs checks them): cli → supervisor, transport, client, db, health, passwd, repair → check, acme, store, engine → broker → access
//! → conf → mqtt; tls, websocket and proxy stand beside access; `os` serves every room except broker, access, tls, websocket, proxy, conf and mqtt; `notice`, `logging` and `exit_code` are plain.

#[deny(clippy::disallowed_methods, clippy::disallowed_types)] // .clippy.toml: no clock, files or sockets in here
pub mod access;
pub mod acme;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)] // .clippy.toml: no clock, files or sockets in here
pub mod broker;
pub mod check;
pub mod cli;
pub mod client;
pub mod conf;
pub mod db;
pub mod engine;
pub mod exit_code;
pub mod health;
pub mod logging;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)] // .clippy.toml: no clock, files or sockets in here
pub mod mqtt;
pub mod notice;
#[allow(unsafe_code)]
pub mod os;
pub mod passwd;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)] // .clippy.toml: no clock, files or sockets in here
pub mod proxy;
pub mod repair;
pub mod store;
pub mod supervisor;
pub mod tls;
pub mod transport;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)] // .clippy.toml: no clock, files or sockets in here
pub mod websocket;
