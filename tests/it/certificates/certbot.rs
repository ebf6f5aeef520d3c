//! certbot's volume taken over by darner and taken back by certbot, certificate and account, with Pebble as the CA of both.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::json;

use super::Running;
use crate::acme_worker::pebble::Pebble;
use crate::support::process::run;

const ISSUED: &str = "Issued certificate serial";
const SECOND_ACCOUNT: &str = "There are now 2 accounts in memory";

/// The folder with certbot, filled by pip the first time.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let library = root.join("target/certbot");
        if !library.join("certbot").is_dir() {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(&library);
            let (code, stdout, stderr) = run(pip.arg("-r").arg(root.join("tests/python/certbot.txt")));
            assert_eq!(code, 0, "pip cannot install certbot: {stdout}{stderr}");
        }
        library
    })
}

/// certbot over a folder, with a CA's own root trusted.
pub fn certbot(ca: &Pebble, config: &Path, words: &[&str]) -> String {
    let scratch = ca.folder.path().join("certbot");
    let mut python = Command::new("python3");
    python.args(["-c", "import sys; from certbot.main import main; sys.exit(main())"]).args(words);
    python.arg("--config-dir").arg(config).arg("--work-dir").arg(&scratch).arg("--logs-dir").arg(&scratch);
    python.env("PYTHONPATH", library()).env("PYTHONDONTWRITEBYTECODE", "1");
    python.env("REQUESTS_CA_BUNDLE", ca.folder.path().join("ca.pem"));
    let (code, stdout, stderr) = run(&mut python);
    assert_eq!(code, 0, "certbot {words:?}: {stdout}{stderr}");
    stdout
}

/// `certbot certonly`, with an account for these words.
pub fn obtain(ca: &Pebble, config: &Path, account: &[&str]) {
    let (port, directory) = (ca.http_port().to_string(), ca.environment()[0].1.clone());
    let words = ["certonly", "--standalone", "--http-01-port", &port, "--server", &directory, "-d", "mqtt.test", "--agree-tos"];
    certbot(ca, config, &[&words[..], &["--non-interactive"], account].concat());
}

struct Setting {
    running: Running,
    ca: Pebble,
}

impl Setting {
    fn new() -> Self {
        let ca = Pebble::start(&json!({}), &[]);
        let environment = ca.environment();
        let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        more.push(("RENEWAL", "reload"));
        let running = Running::of_domain(&more);
        Self { running, ca }
    }

    fn certbot(&self, words: &[&str]) -> String {
        certbot(&self.ca, &self.running.folder.path().join("letsencrypt"), words)
    }

    fn obtain(&self, account: &[&str]) {
        obtain(&self.ca, &self.running.folder.path().join("letsencrypt"), account);
    }

    fn renew_by_certbot(&self) {
        let port = self.ca.http_port().to_string();
        self.certbot(&["renew", "--force-renewal", "--non-interactive", "--no-random-sleep-on-renew", "--http-01-port", &port]);
        let listed = self.certbot(&["certificates"]);
        assert!(listed.contains("Certificate Name: mqtt.test") && listed.contains("VALID"), "{listed}");
    }

    fn renew_by_darner(&self) {
        let (code, stdout, stderr) = self.running.darner(&["cert", "renew", "--force"]);
        assert_eq!(code, 0, "{stdout}{stderr}{}", self.running.log());
    }

    fn version(&self) -> String {
        let link = self.running.live("cert.pem").read_link().expect("a link");
        link.file_name().expect("a name").to_string_lossy().into_owned()
    }
}

#[test]
fn what_certbot_obtained_is_renewed_with_its_account_and_taken_back() {
    let mut setting = Setting::new();
    setting.obtain(&["-m", "a@b.test", "--no-eff-email"]);
    setting.running.start();
    assert_eq!((setting.ca.count(ISSUED), setting.version().as_str()), (1, "cert1.pem"), "taken over as it is");
    setting.renew_by_darner();
    assert_eq!((setting.ca.count(ISSUED), setting.version().as_str()), (2, "cert2.pem"));
    setting.running.stop();
    setting.renew_by_certbot();
    assert_eq!((setting.ca.count(ISSUED), setting.version().as_str()), (3, "cert3.pem"));
    setting.running.start();
    setting.renew_by_darner();
    assert_eq!((setting.ca.count(ISSUED), setting.version().as_str()), (4, "cert4.pem"));
    assert_eq!(setting.ca.count(SECOND_ACCOUNT), 0, "certbot's account, an RSA one, goes on");
}

#[test]
fn what_darner_obtained_is_certbot_s_to_renew_with_the_same_account() {
    let mut setting = Setting::new();
    setting.running.start();
    setting.running.wait_for("a certificate", |running| running.log().contains("Obtained a certificate for"));
    setting.running.stop();
    // Twice: certbot must find the account again under the name that it gives it itself.
    for version in ["cert2.pem", "cert3.pem"] {
        setting.renew_by_certbot();
        assert_eq!(setting.version(), version);
    }
    setting.running.start();
    setting.renew_by_darner();
    assert_eq!((setting.ca.count(ISSUED), setting.version().as_str()), (4, "cert4.pem"));
    assert_eq!(setting.ca.count(SECOND_ACCOUNT), 0, "{}", setting.ca.log());
}

#[test]
fn an_account_that_the_ca_has_lost_is_replaced_by_one_of_ours() {
    let mut setting = Setting::new();
    setting.obtain(&["--register-unsafely-without-email"]);
    let accounts = walkdir::WalkDir::new(setting.running.folder.path().join("letsencrypt/accounts"));
    let file = accounts.into_iter().flatten().find(|entry| entry.file_name() == "regr.json").expect("the account").into_path();
    let text = std::fs::read_to_string(&file).expect("an account");
    std::fs::write(&file, text.replace("/my-account/", "/my-account/f")).expect("written");
    setting.running.start();
    setting.renew_by_darner();
    assert!(setting.running.log().contains("does not know our account any more"), "{}", setting.running.log());
    setting.running.stop();
    setting.renew_by_certbot();
    assert_eq!(setting.ca.count(ISSUED), 3);
}
