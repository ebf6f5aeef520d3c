//! The certificate that `openssl req -x509` makes in one line, for a broker or a client: it signs itself, and could sign others.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::version_1::openssl;
use super::{ours, path, start};
use crate::support::peer::debian;
use crate::support::process::{Broker, Folder, run};

fn make(folder: &Folder, name: &str, common_name: &str) {
    let names = format!("-subj /CN={common_name} -addext subjectAltName=DNS:{common_name}");
    openssl(folder, &format!("req -x509 -newkey rsa:2048 -nodes -days 30 -keyout {name}.key -out {name}.crt {names}"));
}

fn come_in(broker: &Broker, mut tool: Command, authority: &str, client: Option<&str>) -> (bool, String) {
    tool.args(["-h", "localhost", "-p", &broker.port.to_string(), "-t", "a", "-m", "b", "-q", "1"]);
    tool.arg("--cafile").arg(path(broker, authority));
    if let Some(name) = client {
        tool.arg("--cert").arg(path(broker, &format!("{name}.crt"))).arg("--key").arg(path(broker, &format!("{name}.key")));
    }
    let (code, _, said) = run(&mut tool);
    (code == 0, said)
}

#[test]
fn it_is_enough_for_both_sides_and_vouches_for_no_namesake() {
    let folder = Folder::new("by-itself");
    for (name, common_name) in [("server", "localhost"), ("anna", "anna"), ("namesake", "anna"), ("other", "localhost")] {
        make(&folder, name, common_name);
    }
    // A broker without PID 1 reads it again as the user that it has become.
    std::fs::set_permissions(folder.path().join("server.key"), std::fs::Permissions::from_mode(0o644)).expect("ours");
    let broker = start(folder, "cafile {folder}/anna.crt\nrequire_certificate true\nuse_identity_as_username true\n");
    for tool in [|| debian("mosquitto_pub"), ours] {
        let (is_in, said) = come_in(&broker, tool(), "server.crt", Some("anna"));
        assert!(is_in, "{said}\n{}", broker.log());
        assert!(!come_in(&broker, tool(), "server.crt", Some("namesake")).0);
        assert!(!come_in(&broker, tool(), "other.crt", Some("anna")).0, "another broker of this name");
    }
    broker.wait_for_log("u'anna'");
}
