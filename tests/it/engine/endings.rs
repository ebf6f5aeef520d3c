//! A router that dies or stands still ends the process, which PID 1 starts again (see `supervisor`).

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::{PLAIN, broker};
use crate::broker::client::Client;
use crate::support::process::{Broker, Engine, Folder, darner, wait_until};

const GONE: &str = "Error: The router of rumqttd is gone; the broker ends, so that it can be started afresh.";

/// A thread of a process, by its name.
fn thread(pid: i32, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
    let is_it = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name);
    let task = tasks.filter_map(|task| Some(task.ok()?.path())).find(is_it).expect("the thread");
    Pid::from_raw(task.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a number"))
}

/// Makes the router's thread stand still, where it waits for something to do: it may hold no lock that it shares with the others.
/// `waitpid` it once the process has ended.
pub fn stop_router(pid: i32) -> Pid {
    let router = thread(pid, "router-0");
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/task/{router}/status")).expect("its thread");
        status.lines().filter(|line| line.contains("ctxt_switches")).collect::<String>()
    };
    let mut last = String::new();
    wait_until("a router with nothing to do", || {
        let before = std::mem::replace(&mut last, switches());
        std::thread::sleep(Duration::from_millis(200));
        before == last
    });
    ptrace::seize(router, ptrace::Options::empty()).expect("a descendant's threads may be stopped");
    ptrace::interrupt(router).expect("it stops");
    waitpid(router, Some(WaitPidFlag::__WALL)).expect("it has stopped");
    router
}

#[test]
fn a_router_that_stands_still_ends_the_process() {
    let mut broker = broker(Engine::Rumqttd, PLAIN);
    let mut client = Client::connect(broker.port, "c");
    client.subscribe("a");
    client.publish("a", b"1");
    assert_eq!(client.receive_payload(), b"1");
    let router = stop_router(broker.pid());
    // Neither for this client nor for one that comes now is anybody waited for.
    client.publish("a", b"2");
    client.ping();
    Client::connect(broker.port, "later").ping();
    client.socket.set_read_timeout(Some(Duration::from_secs(60))).expect("patience");
    client.wait_for_end();
    let _ = waitpid(router, Some(WaitPidFlag::__WALL));
    assert_eq!(broker.exit_code(), 75);
    broker.wait_for_log(GONE);
}

/// Of a topic that it cuts amid a character, which darner's `t/` keeps it from: without that, in a debug build, it dies.
#[test]
fn a_router_that_dies_ends_the_process_at_once() {
    let folder = Folder::new("engine");
    Engine::Rumqttd.choose(&folder);
    let mut command = Command::new(darner());
    command.env("DARNER_TEST_BARE_TOPICS", "1");
    let mut broker = Broker::start_with(command, folder, PLAIN);
    let mut client = Client::connect(broker.port, "c");
    client.subscribe("#");
    client.ping();
    let began = Instant::now();
    client.publish("\u{fc}/t", b"1");
    // Until the router has confirmed the subscription, the message does not go through it and is delivered.
    while client.receive_bytes().is_ok() {
        client.publish("\u{fc}/t", b"1");
    }
    assert_eq!(broker.exit_code(), 75);
    assert!(began.elapsed() < Duration::from_secs(8), "it was not waited for, as for one that stands still");
    broker.wait_for_log(GONE);
    assert!(broker.log().contains("thread 'router-0'"), "{}", broker.log());
}
