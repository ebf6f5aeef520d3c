//! Arguments, exit codes, and the lines of the start.

use std::process::Command;

use super::Started;
use crate::support::process::{Broker, Folder, darner, free_port, run};

fn mosquitto(arguments: &[&str]) -> (i32, String, String) {
    run(Command::new(darner()).arg("broker").args(arguments))
}

#[test]
fn an_unknown_option_is_named_and_ends_with_3() {
    let (code, _, stderr) = mosquitto(&["--nonsense"]);
    assert_eq!(code, 3);
    assert!(stderr.starts_with("Error: Unknown option '--nonsense'.\n"), "{stderr}");
    assert!(stderr.contains("Usage: mosquitto"), "{stderr}");
}

#[test]
fn help_and_version_end_with_0() {
    let (code, stdout, _) = mosquitto(&["-h"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("Usage: mosquitto"), "{stdout}");
    let (code, stdout, _) = mosquitto(&["--version"]);
    assert_eq!((code, stdout.starts_with("mosquitto 2.1.2 (darner ")), (0, true), "{stdout}");
}

#[test]
fn a_configuration_is_tested_without_running_it() {
    let folder = Folder::new("test-config");
    let good = folder.write("good.conf", format!("listener {} 127.0.0.1\nallow_anonymous true\n", free_port()));
    let (code, _, stderr) = mosquitto(&["--test-config", "-c", good.to_str().unwrap()]);
    assert_eq!((code, stderr.ends_with("Configuration file is OK.\n")), (0, true), "{stderr}");
    let bad = folder.write("bad.conf", "listener 1883\nnonsense true\n");
    let (code, _, stderr) = mosquitto(&["--test-config", "-c", bad.to_str().unwrap()]);
    assert_eq!(code, 3);
    assert!(stderr.contains("Unknown configuration variable 'nonsense'"), "{stderr}");
    assert!(stderr.contains(&format!("Error found at {}:2.", bad.display())), "{stderr}");
}

#[test]
fn a_missing_configuration_file_ends_with_3() {
    let (code, _, stderr) = mosquitto(&["-c", "/nonexistent/mosquitto.conf"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("Error: Unable to open config file '/nonexistent/mosquitto.conf'."), "{stderr}");
}

#[test]
fn a_missing_password_file_ends_with_13() {
    let folder = Folder::new("no-pwfile");
    let conf = folder.write("c.conf", format!("listener {} 127.0.0.1\npassword_file /nonexistent/pw\n", free_port()));
    let (code, _, stderr) = mosquitto(&["-c", conf.to_str().unwrap()]);
    assert_eq!(code, 13);
    assert!(stderr.contains("Error: Unable to open pwfile \"/nonexistent/pw\"."), "{stderr}");
}

#[test]
fn a_broken_line_in_a_password_file_ends_with_3_where_no_supervisor_is() {
    let folder = Folder::new("broken-pwfile");
    let passwords = folder.write("pw", "alice:plain\n");
    let conf = folder.write("c.conf", format!("listener {} 127.0.0.1\npassword_file {}\n", free_port(), passwords.display()));
    let (code, _, stderr) = mosquitto(&["-c", conf.to_str().unwrap()]);
    assert_eq!(code, 3);
    assert!(stderr.contains("Error: Invalid password hash type for user alice"), "{stderr}");
    assert!(stderr.contains(&format!("Error: Unable to decode line in password file '{}'.", passwords.display())), "{stderr}");
}

#[test]
fn a_key_log_that_cannot_be_written_ends_with_1() {
    let (code, _, stderr) = mosquitto(&["--tls-keylog", "/nonexistent/keys", "-p", &free_port().to_string()]);
    assert_eq!(code, 1);
    assert!(stderr.contains("Error: Unable to open TLS key log \"/nonexistent/keys\""), "{stderr}");
}

#[test]
fn a_port_in_use_ends_with_1() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = Folder::new("taken");
    let conf = folder.write("c.conf", format!("listener {port} 127.0.0.1\nallow_anonymous true\n"));
    let (code, _, stderr) = mosquitto(&["-c", conf.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stderr.contains("Error: Address already in use"), "{stderr}");
    assert!(stderr.trim_end().ends_with("terminating"), "{stderr}");
}

#[test]
fn a_user_who_does_not_exist_ends_with_1() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = Folder::new("no-user");
    let conf = folder.write("c.conf", format!("listener {} 127.0.0.1\nallow_anonymous true\nuser nosuchuser\n", free_port()));
    let (code, _, stderr) = mosquitto(&["-c", conf.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stderr.contains("Error: Unable to drop privileges to 'nosuchuser' because this user does not exist."), "{stderr}");
}

#[test]
fn the_start_is_told_in_mosquittos_lines_and_order() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\nlog_timestamp false\n");
    broker.wait_for_log("running\n");
    let port = broker.port;
    let conf = broker.folder.path().join("mosquitto.conf");
    let wanted = [
        "mosquitto version 2.1.2 starting".to_owned(),
        format!("Config loaded from {}.", conf.display()),
        format!("Opening ipv4 listen socket on port {port}."),
        "mosquitto version 2.1.2 running".to_owned(),
    ];
    let log = broker.log();
    let positions: Vec<_> = wanted.iter().map(|line| log.lines().position(|found| found == line)).collect();
    assert!(positions.iter().all(Option::is_some) && positions.is_sorted(), "{positions:?} in\n{log}");
}

#[test]
fn a_port_alone_opens_loopback_of_both_families() {
    let folder = Folder::new("port");
    let port = free_port();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let command = &mut Command::new(darner());
    let child = Started(command.args(["broker", "-p", &port.to_string()]).stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap());
    let said = || std::fs::read_to_string(folder.path().join("log")).unwrap();
    crate::support::process::wait_until("the broker to run", || said().contains("running"));
    let text = said();
    child.stop();
    assert!(text.contains("Starting in local only mode."), "{text}");
    assert!(text.contains(&format!("Opening ipv4 listen socket on port {port}.")), "{text}");
}
