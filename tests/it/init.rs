//! `darner init`: what PID 1 owes to any command, in a pid namespace of its own where the machine permits it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, pthread_sigmask};
use nix::unistd::Pid;

use crate::support::process::{Folder, darner, run, wait_until};

/// `darner init --no-restart -- sh -c SCRIPT`, not as PID 1.
fn init(script: &str) -> Command {
    let mut command = Command::new(darner());
    command.args(["init", "--no-restart", "--", "sh", "-c", script]);
    command
}

/// The same as PID 1 of a namespace; `None` where that needs rights that we lack.
fn init_as_pid_1(script: &str) -> Option<Command> {
    let possible = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output().is_ok_and(|out| out.status.success());
    if !possible {
        eprintln!("skipped: no pid namespace for us here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(darner());
    command.args(["init", "--no-restart", "--", "sh", "-c", script]);
    Some(command)
}

/// A running command whose lines can be waited for.
struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it is there");
    }

    /// The exit code, which must come within 10 s.
    fn end(mut self) -> i32 {
        let mut code = None;
        wait_until("its end", || {
            code = self.child.try_wait().expect("its status");
            code.is_some()
        });
        code.map_or(-1, |status| status.code().unwrap_or_else(|| 1000 + status.signal().unwrap_or(0)))
    }
}

/// The 25 signals that a supervisor passes on.
fn forwarded() -> Vec<Signal> {
    use Signal::*;
    Signal::iterator().filter(|signal| !matches!(signal, SIGKILL | SIGSTOP | SIGCHLD | SIGTSTP | SIGTTIN | SIGTTOU)).collect()
}

#[test]
fn the_exit_code_is_the_commands() {
    for code in [0, 1, 2, 3, 13, 32, 64, 70, 126, 127, 128, 254, 255] {
        assert_eq!(run(&mut init(&format!("exit {code}"))).0, code);
    }
}

#[test]
fn a_killed_command_is_128_and_its_signal() {
    for (signal, code) in [("TERM", 143), ("HUP", 129), ("QUIT", 131), ("KILL", 137), ("USR1", 138), ("USR2", 140)] {
        assert_eq!(run(&mut init(&format!("kill -{signal} $$; sleep 5"))).0, code, "{signal}");
    }
}

#[test]
fn a_command_that_cannot_run_is_126_or_127_and_says_why() {
    let try_it = |words: &[&str]| run(Command::new(darner()).args(["init", "--no-restart"]).args(words));
    for words in [&["--", "/no/such"][..], &["no-such-command"], &["--", "./no-such"], &["--", ""]] {
        let (code, _, error) = try_it(words);
        assert!(code == 127 && error.contains("No such file"), "{words:?}: {code} {error}");
    }
    let (code, _, error) = try_it(&["--", "/etc/passwd"]);
    assert!(code == 126 && error.contains("Permission denied"), "{code} {error}");
    // Also with restarts: a command that is not there will not be there in a moment either.
    assert_eq!(run(Command::new(darner()).args(["init", "--", "/no/such"])).0, 127);
}

#[test]
fn a_command_line_that_is_off_is_explained() {
    for words in [&["init"][..], &["init", "--"], &["init", "--frobnicate", "true"]] {
        let (code, _, error) = run(Command::new(darner()).args(words));
        assert!(code == 64 && error.contains("Usage:"), "{words:?}: {code} {error}");
    }
    let (code, out, _) = run(Command::new(darner()).args(["init", "--help"]));
    assert!(code == 0 && out.contains("Usage:"));
}

#[test]
fn every_signal_reaches_the_command() {
    let names: Vec<_> = forwarded();
    let traps: String = names.iter().map(|signal| format!("trap 'echo {0}' {0}; ", *signal as i32)).collect();
    let mut running = Running::start(&mut init(&format!("{traps} echo ready; while :; do sleep 0.05; done")));
    assert_eq!(running.line(), "ready");
    for signal in names.into_iter().filter(|signal| *signal != Signal::SIGCONT) {
        running.signal(signal);
        assert_eq!(running.line(), (signal as i32).to_string(), "{signal}");
    }
    running.signal(Signal::SIGKILL);
    // The command learns of our death.
    assert_eq!(running.line(), (Signal::SIGTERM as i32).to_string());
    assert_eq!(running.end(), 1000 + 9);
}

#[test]
fn job_control_signals_are_the_terminals() {
    let mut running =
        Running::start(&mut init("trap 'echo stopped' TSTP TTIN TTOU; trap 'echo asked' USR1; echo ready; while :; do sleep 0.05; done"));
    assert_eq!(running.line(), "ready");
    for signal in [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU, Signal::SIGUSR1] {
        running.signal(signal);
    }
    assert_eq!(running.line(), "asked");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end(), 143);
}

#[test]
fn a_storm_of_signals_is_folded_and_survived() {
    let mut running = Running::start(&mut init("trap 'echo hup' HUP; trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done"));
    assert_eq!(running.line(), "ready");
    for _ in 0..1000 {
        running.signal(Signal::SIGHUP);
    }
    assert_eq!(running.line(), "hup");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end(), 5);
}

#[test]
fn a_stop_right_after_the_start_is_never_lost() {
    for delay in 0..=20 {
        let running = Running::start(&mut init("sleep 60"));
        std::thread::sleep(Duration::from_millis(delay));
        // Before exec, the signal meets the test's own child; it dies of it as it should.
        running.signal(Signal::SIGTERM);
        let code = running.end();
        assert!(code == 143 || code == 1000 + 15, "after {delay} ms: {code}");
    }
}

/// As PID 1, a signal without a handler is thrown away by the kernel; ours are blocked from the first statement on.
#[test]
fn as_pid_1_a_stop_is_heard_as_soon_as_we_run() {
    let Some(mut command) = init_as_pid_1("echo ready; sleep 60") else { return };
    let mut running = Running::start(&mut command);
    assert_eq!(running.line(), "ready");
    let outer = running.child.id();
    let pid_1: i32 = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("PID 1 of the namespace");
    kill(Pid::from_raw(pid_1), Signal::SIGTERM).expect("sent");
    assert_eq!(running.end(), 143);
}

const ORPHANS: &str = "i=0; while [ $i -lt 100 ]; do (sh -c 'sleep 0.$0 & exit' $((i % 5 + 1)) &) ; i=$((i+1)); done; sleep 1.2; \
                       zombies=0; for s in /proc/[0-9]*/stat; do read -r line < $s 2>/dev/null || continue; \
                       case \"$line\" in *') Z '*) zombies=$((zombies+1));; esac; done; echo zombies $zombies";

#[test]
fn orphans_are_reaped_as_pid_1() {
    let Some(mut command) = init_as_pid_1(ORPHANS) else { return };
    let (code, out, _) = run(&mut command);
    assert_eq!((code, out.trim()), (0, "zombies 0"));
}

#[test]
fn orphans_come_to_us_when_we_are_not_pid_1() {
    // The orphan's parent is the supervisor, not the machine's PID 1.
    let script = "(sh -c 'sleep 0.2; read -r a b c parent rest < /proc/self/stat; echo $parent' &); sleep 0.5";
    let mut running = Running::start(&mut init(script));
    let supervisor = running.child.id();
    assert_eq!(running.line(), supervisor.to_string());
    assert_eq!(running.end(), 0);
}

#[test]
fn what_the_command_leaves_behind_is_ended() {
    let folder = Folder::new("init-left");
    let pids = folder.path().join("pids");
    // One in the command's group, one in a session of its own, one that ignores TERM.
    let script = format!(
        "sleep 60 & echo $! >> {0}; setsid sleep 60 & echo $! >> {0}; (trap '' TERM; exec sleep 60) & echo $! >> {0}; sleep 0.2; exit 4",
        pids.display()
    );
    assert_eq!(run(&mut init(&script)).0, 4);
    let text = std::fs::read_to_string(&pids).expect("the pids");
    assert_eq!(text.lines().count(), 3);
    for pid in text.lines() {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
}

#[test]
fn the_callers_mask_and_ignored_signals_reach_the_command() {
    // Without a shell, which would clear the mask.
    let mut command = Command::new(darner());
    command.args(["init", "--no-restart", "--", "grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    let blocked = [Signal::SIGTTIN, Signal::SIGILL, Signal::SIGUSR1];
    let ignored = [Signal::SIGTTOU, Signal::SIGINT, Signal::SIGUSR2];
    // SAFETY: only system calls between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            let mut set = SigSet::empty();
            for signal in blocked {
                set.add(signal);
            }
            pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&set), None)?;
            for signal in ignored {
                nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn)?;
            }
            Ok(())
        });
    }
    let (code, out, _) = run(&mut command);
    let bits = |name: &str| {
        let line = out.lines().find(|line| line.starts_with(name)).expect("the line");
        u64::from_str_radix(line.split_ascii_whitespace().nth(1).expect("a mask"), 16).expect("a number")
    };
    let mask = |signals: &[Signal]| signals.iter().fold(0, |bits, signal| bits | 1u64 << (*signal as i32 - 1));
    assert_eq!(code, 0);
    assert_eq!(bits("SigBlk"), mask(&blocked));
    assert_eq!(bits("SigIgn") & mask(&ignored), mask(&ignored));
    assert_eq!(bits("SigIgn") & mask(&[Signal::SIGPIPE]), 0, "SIGPIPE is as the caller left it");
}

#[test]
fn the_command_starts_with_nothing_blocked() {
    let (_, out, _) = run(Command::new(darner()).args(["init", "--no-restart", "--", "grep", "SigBlk", "/proc/self/status"]));
    assert_eq!(out.split_ascii_whitespace().nth(1), Some("0000000000000000"));
}

#[test]
fn no_descriptor_leaks_into_the_command() {
    let mut command = init("ls /proc/self/fd");
    // SAFETY: only a system call between fork and exec.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| {
            // A descriptor that our caller forgot to close.
            let null = std::fs::File::open("/dev/null")?;
            nix::fcntl::fcntl(&null, nix::fcntl::FcntlArg::F_DUPFD(7))?;
            Ok(())
        });
    }
    let (_, out, _) = run(&mut command);
    // 3 is the folder that `ls` reads.
    assert_eq!(out.split_ascii_whitespace().collect::<Vec<_>>(), ["0", "1", "2", "3"]);
}

#[test]
fn the_command_keeps_the_callers_folder_environment_and_input() {
    let folder = Folder::new("init-cwd");
    let mut command = init("pwd; echo \"$PERCENT\"; read -r line; echo \"$line\"");
    command.current_dir(folder.path()).env("PERCENT", "100%s %%").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), b"typed\n").expect("written");
    let out = child.wait_with_output().expect("its output");
    let expected = format!("{}\n100%s %%\ntyped\n", folder.path().display());
    assert_eq!(String::from_utf8_lossy(&out.stdout), expected);
}

#[test]
fn a_crashing_command_is_restarted_with_back_off_and_given_up_with_its_code() {
    let began = Instant::now();
    let (code, out, error) = run(Command::new(darner()).args(["init", "--", "sh", "-c", "echo run; exit 9"]));
    assert_eq!((code, out.as_str()), (9, "run\nrun\nrun\nrun\nrun\n"));
    assert!(error.contains("5 times within a minute"), "{error}");
    // 0 + 100 + 200 + 400 ms: waits have a lower bound, whatever the machine's load.
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    // Success is no crash.
    assert_eq!(run(Command::new(darner()).args(["init", "--", "sh", "-c", "exit 0"])).0, 0);
}

#[test]
fn a_restarted_command_can_be_stopped_also_when_it_ignores_term() {
    let mut command = Command::new(darner());
    command.args(["init", "--", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]).env("DARNER_STOP_SECS", "1");
    let mut running = Running::start(&mut command);
    assert_eq!(running.line(), "ready");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end(), 137);
}
