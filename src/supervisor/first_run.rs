//! `make run`: plain `darner` outside of a container. The same supervisor, with its files in a folder here.

use std::os::unix::fs::MetadataExt as _;

use super::arguments::Arguments;
use super::broker::{Broker, Home};
use super::entry::over_broker;
use super::voice;
use crate::conf::{Listener, Protocol, Security};
use crate::exit_code::ExitCode;
use crate::os;
use crate::os::spawn::Identity;

pub(super) fn run() -> ExitCode {
    let folder = os::local_socket::run_folder();
    let root = match std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize()) {
        Ok(root) => root,
        Err(error) => {
            let place = folder.display();
            eprintln!("darner: {place} cannot be made here: {error}. Go to a folder of yours, or set DARNER_RUN_DIR.");
            return ExitCode::Failure;
        }
    };
    // The broker belongs to whom the folder belongs, so that its files are theirs.
    let identity = std::env::current_dir().and_then(|here| here.metadata()).ok().map(|here| Identity { uid: here.uid(), gid: here.gid() });
    let arguments = Arguments::with_config(&root.join("config/mosquitto.conf"));
    over_broker(arguments, Home { root: Some(root), identity, on_ready: Some(screen) })
}

/// What a newcomer sees once the broker works.
fn screen(broker: &Broker) {
    let Some(conf) = broker.conf() else { return };
    let name = std::env::args().next().unwrap_or_else(|| "darner".into());
    let config = broker.arguments().config.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
    let root = config.trim_end_matches("/config/mosquitto.conf");
    let mut lines =
        vec![String::new(), format!("darner {} mended {root} and supervises a broker there.", env!("CARGO_PKG_VERSION")), String::new()];
    for listener in &conf.listeners {
        let security = conf.security.get(listener.security);
        lines.push(format!("  listens   {}: {}", place(listener, conf.local_only), security.map(who).unwrap_or_default()));
    }
    lines.push(format!("  settings  {config}  (after a change: {name} reload)"));
    lines.push(format!("  users     {root}/pwfile/pwfile  ({name} mosquitto_passwd -b {root}/pwfile/pwfile NAME PASSWORD)"));
    lines.push(format!("  data      {root}/data"));
    lines.push(String::new());
    let at = conf.listeners.iter().find(|listener| listener.unix_path.is_none()).map_or(1883, |listener| listener.port);
    lines.push("Try it in another terminal (Ctrl-C here ends it):".to_owned());
    lines.push(format!("  {name} mosquitto_sub -p {at} -t hello -v &"));
    lines.push(format!("  {name} mosquitto_pub -p {at} -t hello -m world"));
    lines.push(String::new());
    for line in lines {
        voice::print(&line);
    }
}

fn place(listener: &Listener, local_only: bool) -> String {
    let protocol = match listener.protocol {
        Protocol::Mqtt => "mqtt",
        Protocol::Websockets => "mqtt over websockets",
    };
    match (&listener.unix_path, &listener.host) {
        (Some(path), _) => format!("{protocol} at {}", path.display()),
        (None, Some(host)) => format!("{protocol} on port {} of {host}", listener.port),
        (None, None) if local_only => format!("{protocol} on port {} of this machine only", listener.port),
        (None, None) => format!("{protocol} on port {}, every address", listener.port),
    }
}

/// Who may connect.
fn who(security: &Security) -> String {
    let mut text = match (security.allow_anonymous, &security.password_file) {
        (true, None) => "anybody".to_owned(),
        (true, Some(path)) => format!("anybody, and users of {}", path.display()),
        (false, Some(path)) => format!("users of {}", path.display()),
        (false, None) => "nobody (allow_anonymous is false and no password_file is named)".to_owned(),
    };
    if let Some(path) = &security.acl_file {
        text.push_str(&format!(", within {}", path.display()));
    }
    text
}
