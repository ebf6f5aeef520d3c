//! From the volume to the broker: what is new is used in the end, whatever stands in the way.

use std::process::Command;
use std::time::Duration;

use super::{Running, pair};
use crate::acme_worker::pebble::Pebble;
use crate::support::process::darner;

#[test]
fn a_configuration_that_is_broken_during_a_renewal_delays_its_use_until_it_is_mended() {
    for renewal in ["restart", "reload"] {
        let mut running = Running::of_domain(&[("RENEWAL", renewal)]);
        let (old, new) = (pair("mqtt.test", (-1, 89)), pair("mqtt.test", (0, 90)));
        running.install("mqtt.test", &old);
        running.start();
        let conf = running.folder.path().join("mosquitto.conf");
        let good = std::fs::read_to_string(&conf).expect("the configuration");
        std::fs::write(&conf, format!("{good}half_edit")).expect("broken");
        running.install("mqtt.test", &new);
        running.wait_for("the refusal", |running| running.log().contains("refused, the"));
        assert!(running.serves(&old), "{}", running.log());
        std::fs::write(&conf, good).expect("mended");
        running.wait_for("the new certificate", |running| running.serves(&new));
    }
}

/// Stops the broker, has PID 1 begin a reload, does something, and lets the broker answer.
fn during_a_reload(running: &Running, what: impl FnOnce()) {
    let status = running.darner(&["status"]).1;
    let pid = status.split("pid ").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
    let pid = nix::unistd::Pid::from_raw(pid.unwrap_or_else(|| panic!("a pid: {status}")));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).expect("stopped");
    let mut reload = Command::new(darner())
        .arg("reload")
        .envs(running.environment.iter().map(|(name, value)| (name, value)))
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    std::thread::sleep(Duration::from_millis(500));
    what();
    // A slow machine may need longer than PID 1 waits for the broker's answer.
    let is_under_way = reload.try_wait().expect("a child").is_none();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).expect("goes on");
    assert!(reload.wait().expect("an end").success() || !is_under_way, "{}", running.log());
}

#[test]
fn what_somebody_else_renews_while_a_reload_is_under_way_is_used_after_it() {
    let mut running = Running::of_domain(&[("RENEWAL", "reload"), ("DARNER_WATCHDOG_SECS", "0")]);
    let (old, new) = (pair("mqtt.test", (-1, 89)), pair("mqtt.test", (0, 90)));
    running.install("mqtt.test", &old);
    running.start();
    during_a_reload(&running, || running.install("mqtt.test", &new));
    running.wait_for("the new certificate", |running| running.serves(&new));
}

#[test]
fn what_the_ca_brings_while_a_reload_is_under_way_is_used_after_it() {
    let ca = Pebble::start(&serde_json::json!({}), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.extend([("RENEWAL", "reload"), ("DARNER_WATCHDOG_SECS", "0")]);
    let mut running = Running::of_domain(&more);
    running.start();
    running.wait_for("the certificate's use", |running| running.log().contains("Reload done"));
    let served = running.served();
    during_a_reload(&running, || {
        let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
        assert_eq!(code, 0, "{stdout}{stderr}");
    });
    running.wait_for("the new certificate", |running| ![String::new(), served.clone()].contains(&running.served()));
}

#[test]
fn a_reload_that_is_asked_for_while_a_renewal_restarts_the_broker_is_done_and_not_refused() {
    let mut running = Running::of_domain(&[]);
    running.start();
    std::thread::scope(|scope| {
        let restart = scope.spawn(|| running.darner(&["restart"]));
        let mut reloads = 0;
        while !restart.is_finished() || reloads == 0 {
            let (_, stdout, stderr) = running.darner(&["reload"]);
            assert!(!stderr.contains("is stopping"), "{stdout}{stderr}{}", running.log());
            reloads += 1;
        }
        assert_eq!(restart.join().expect("an outcome").0, 0, "{}", running.log());
    });
    assert_eq!(running.darner(&["reload"]).0, 0, "{}", running.log());
}
