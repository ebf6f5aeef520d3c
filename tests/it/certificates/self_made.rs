//! A certificate that darner made itself, under PID 1 while it runs.

use std::process::{Child, Command, Stdio};

use darner::tls::leaf::Leaf;
use darner::tls::self_made::{self, Pem, Period};

use super::{DAY, now};
use crate::support::process::{Folder, darner, free_port, run};

/// Plain `darner`, which mends its folder as PID 1 mends the volumes.
struct Plain {
    folder: Folder,
    child: Child,
}

impl Plain {
    fn start(tls_port: u16, renewal: &str) -> Self {
        let folder = Folder::new("self-made");
        let config = folder.path().join("run/config").display().to_string();
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\nlistener {tls_port} 127.0.0.1\ncafile {config}/ca.crt\ncertfile {config}/server.crt\n\
             keyfile {config}/server.key\n",
            free_port()
        );
        folder.write("run/config/mosquitto.conf", text);
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new(darner());
        command.current_dir(folder.path()).env("DARNER_RUN_DIR", folder.path().join("run")).env("RENEWAL", renewal);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn().expect("it starts");
        Self { folder, child }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join("run/config").join(name)).unwrap_or_default()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = std::time::Instant::now() + std::time::Duration::from_mins(1);
        while !condition(self) {
            assert!(std::time::Instant::now() < end, "waited in vain for {what}:\n{}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// How many days are left of the certificate that is served, to who trusts the first authority.
fn served_days(port: u16, authority: &std::path::Path) -> Option<i64> {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-verify_return_error", "-CAfile"]).arg(authority);
    let (code, shown, _) = run(&mut client);
    let leaf = Leaf::of_chain(shown.as_bytes()).ok().filter(|_| code == 0)?;
    Some((leaf.not_after - now()) / DAY)
}

#[test]
fn it_is_renewed_while_the_broker_runs_and_who_trusts_its_authority_goes_on() {
    for (renewal, word) in [("reload", "Reload done"), ("restart", "Restarting the broker.")] {
        let port = free_port();
        let plain = Plain::start(port, renewal);
        let first = plain.folder.path().join("first-ca.crt");
        plain.wait_for("certificates", |plain| !plain.read("server.crt").is_empty());
        std::fs::write(&first, plain.read("ca.crt")).expect("a copy");
        plain.wait_for("the first certificate", |_| served_days(port, &first).is_some_and(|days| days > 800));

        // As if 800 days had passed.
        let authority = Pem { certificate: plain.read("ca.crt"), key: plain.read("darner-ca.key") };
        let period = Period { not_before: (now() - 780 * DAY) as u64, not_after: (now() + 40 * DAY) as u64 };
        let old = self_made::server_of(&["localhost".to_owned()], period, &authority, &plain.read("server.key")).expect("made");
        plain.folder.write("run/config/server.crt", &old.certificate);
        plain.wait_for("its renewal", |plain| {
            plain.log().contains("by the same authority as before") && plain.read("server.crt") != old.certificate
        });
        plain.wait_for("its use", |_| served_days(port, &first).is_some_and(|days| days > 800));
        assert_eq!((plain.read("ca.crt"), plain.log().contains(word)), (authority.certificate, true), "{}", plain.log());
        assert_eq!(plain.log().matches("by the same authority as before").count(), 1, "{}", plain.log());
    }
}

#[test]
fn who_writes_the_configuration_does_not_get_the_authority_s_key_at_a_reload() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: a key that is not the broker's needs root");
    }
    let port = free_port();
    let plain = Plain::start(port, "reload");
    let first = plain.folder.path().join("first-ca.crt");
    plain.wait_for("certificates", |plain| !plain.read("server.crt").is_empty());
    std::fs::write(&first, plain.read("ca.crt")).expect("a copy");
    plain.wait_for("the certificate", |_| served_days(port, &first).is_some());
    let config = plain.folder.path().join("run/config");
    // As it is where the broker has another user.
    assert_eq!(run(Command::new("chmod").arg("1600").arg(config.join("darner-ca.key"))).0, 0);
    let text = plain.read("mosquitto.conf").replace("server.crt", "ca.crt").replace("server.key", "darner-ca.key");
    plain.folder.write("run/config/mosquitto.conf", text);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(plain.child.id() as i32), nix::sys::signal::Signal::SIGHUP).expect("it runs");
    plain.wait_for("the refusal", |plain| plain.log().contains("Reload refused"));
    assert!(plain.log().contains("darner-ca.key") && plain.log().contains("Permission denied"), "{}", plain.log());
    assert!(served_days(port, &first).is_some(), "{}", plain.log());
}
