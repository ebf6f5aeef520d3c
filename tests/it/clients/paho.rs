//! paho-mqtt, the client library that most users' scripts are made of, against our broker: `tests/python/interop.py`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::support::process::{Broker, run};

/// The folder with paho-mqtt, filled by pip the first time.
pub fn library() -> PathBuf {
    static FILLS: Mutex<()> = Mutex::new(());
    let _filling = FILLS.lock();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join("target/pylib");
    if !library.join("paho").is_dir() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&library);
        let (code, stdout, stderr) = run(pip.arg("-r").arg(root.join("tests/python/requirements.txt")));
        assert_eq!(code, 0, "pip cannot install paho-mqtt: {stdout}{stderr}");
    }
    library
}

fn converse(broker: &Broker, arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/interop.py");
    let mut python = Command::new("python3");
    python.arg(script).arg(broker.port.to_string()).args(arguments);
    python.env("PYTHONPATH", library()).env("PYTHONDONTWRITEBYTECODE", "1");
    let (code, stdout, stderr) = run(&mut python);
    assert_eq!(code, 0, "{stdout}\n{stderr}\nthe broker's log:\n{}", broker.log());
    assert!(stdout.contains("conversations went well"), "{stdout}");
}

#[test]
fn paho_converses_with_our_broker_in_every_version() {
    converse(&Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n"), &[]);
}

#[test]
fn paho_converses_over_websockets() {
    converse(&Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nprotocol websockets\n"), &["websockets"]);
}

#[test]
fn paho_converses_over_websockets_within_tls() {
    let conf =
        "listener {port} 127.0.0.1\nallow_anonymous true\nprotocol websockets\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n";
    let broker = Broker::start_in(crate::tls::folder().0, conf);
    let authority = broker.folder.path().join("ca.crt").display().to_string();
    converse(&broker, &["websockets", &authority]);
}
