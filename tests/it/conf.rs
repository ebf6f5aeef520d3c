//! mosquitto.conf: what is taken, what is refused, and with which words.

use std::path::{Path, PathBuf};
use std::process::Command;

use darner::conf::files::{Disk, Generation};
use darner::conf::{CommandLine, Conf, LogDestination};

use crate::support::process::{Broker, Folder, darner, run};

/// Loads a configuration without a disk; further files come as (path, text).
fn load(text: &str, others: &[(&str, &str)]) -> Result<Conf, Vec<String>> {
    let mut files = Generation::default();
    files.insert("/c/mosquitto.conf".into(), text.into());
    for (path, text) in others {
        files.insert(PathBuf::from(path), (*text).into());
    }
    Conf::load(&files, Some(Path::new("/c/mosquitto.conf")), &CommandLine::default(), &[])
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn the_iotstack_default_is_taken() {
    let conf = load(
        "listener 1883\npersistence true\npersistence_location /mosquitto/data\nlog_dest stdout\n\
         log_timestamp_format %Y-%m-%dT%H:%M:%S\nconnection_messages false\nallow_anonymous true\n",
        &[],
    )
    .expect("taken");
    assert_eq!(conf.listeners.len(), 1);
    assert_eq!(conf.listeners[0].port, 1883);
    assert!(!conf.local_only && conf.security[0].allow_anonymous && !conf.connection_messages);
    assert_eq!(conf.log.destinations, [LogDestination::Stdout]);
    assert_eq!(conf.log.timestamp_format.as_deref(), Some("%Y-%m-%dT%H:%M:%S"));
    assert!(conf.diagnostics.is_empty(), "{:?}", conf.diagnostics);
}

#[test]
fn an_empty_file_is_what_no_file_is() {
    let empty = Conf { source: None, ..load("", &[]).expect("taken") };
    assert_eq!(empty, Conf::default());
}

#[test]
fn a_configuration_with_three_errors_reports_three() {
    let found = load("listener 1883\npasword_file /p\nmax_qos 3\nallow_anonymous maybe\n", &[]).expect_err("refused");
    assert_eq!(
        found,
        [
            "/c/mosquitto.conf:2: Unknown configuration variable 'pasword_file'. Did you mean `password_file`?",
            "/c/mosquitto.conf:3: 'max_qos' must be between 0 and 2 inclusive.",
            "/c/mosquitto.conf:4: Invalid 'allow_anonymous' value (maybe). Write true or false.",
        ]
    );
}

/// Files under tests/conf and docs are compared with what the program says, and rewritten under `DARNER_BLESS=1`.
fn golden(path: &Path, now: &str, faults: &mut Vec<String>) {
    if std::env::var_os("DARNER_BLESS").is_some() {
        std::fs::write(path, now).expect("a golden file");
    }
    let golden = std::fs::read_to_string(path).unwrap_or_default();
    if golden != now {
        faults.push(format!("{} is not what the program says now (DARNER_BLESS=1 rewrites it):\n{now}", path.display()));
    }
}

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_sample_is_judged_as_its_golden_file_says() {
    let mut faults = Vec::new();
    let mut count = 0;
    for entry in std::fs::read_dir(source("tests/conf")).expect("samples").map(|entry| entry.expect("a sample").path()) {
        if entry.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        count += 1;
        let name = entry.file_name().expect("a name");
        let (code, out, err) = run(Command::new(darner()).current_dir(source("tests/conf")).args(["check", "-c"]).arg(name));
        golden(&entry.with_extension("expected"), &format!("{out}{err}exit code {code}\n"), &mut faults);
    }
    assert!(count > 15, "only {count} samples");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_manual_is_what_the_table_says() {
    let mut faults = Vec::new();
    golden(&source("docs/mosquitto.conf.md"), &darner::conf::manual::markdown(), &mut faults);
    assert!(faults.is_empty(), "docs/mosquitto.conf.md is stale: DARNER_BLESS=1 rewrites it");
}

fn load_with(
    text: Option<&str>,
    command_line: &CommandLine,
    environment: &[(&str, &str)],
    others: &[(&str, &str)],
) -> Result<Conf, Vec<String>> {
    let mut files = Generation::default();
    if let Some(text) = text {
        files.insert("/c/mosquitto.conf".into(), text.into());
    }
    for (path, text) in others {
        files.insert(PathBuf::from(path), (*text).into());
    }
    let environment: Vec<_> = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Conf::load(&files, text.map(|_| Path::new("/c/mosquitto.conf")), command_line, &environment)
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn ports_of_the_command_line_are_loopback_only_and_yield_to_the_file() {
    let two = CommandLine { ports: vec![1884, 1885], ..CommandLine::default() };
    let conf = load_with(None, &two, &[], &[]).expect("taken");
    assert!(conf.local_only && conf.security[0].allow_anonymous);
    assert_eq!(conf.listeners.iter().map(|l| l.port).collect::<Vec<_>>(), [1884, 1885]);
    let conf = load_with(Some("listener 1900\n"), &two, &[], &[]).expect("taken");
    assert!(!conf.local_only && !conf.security[0].allow_anonymous);
    assert_eq!(conf.listeners.iter().map(|l| l.port).collect::<Vec<_>>(), [1900]);
    assert!(conf.diagnostics[0].message.starts_with("-p is ignored"));
    let eleven = CommandLine { ports: (1..=11).collect(), ..CommandLine::default() };
    assert_eq!(load_with(None, &eleven, &[], &[]), Err(vec!["Only 10 ports can be specified on the command line.".into()]));
}

#[test]
fn verbose_logs_every_type_and_quiet_none() {
    let verbose = CommandLine { verbose: true, ..CommandLine::default() };
    assert_eq!(load_with(Some("log_type error\n"), &verbose, &[], &[]).expect("taken").log.types.len(), 9);
    let quiet = CommandLine { quiet: true, ..CommandLine::default() };
    assert_eq!(load_with(Some("log_dest stdout\n"), &quiet, &[], &[]).expect("taken").log.destinations, [LogDestination::None]);
}

#[test]
fn an_explicit_no_to_anonymous_holds_even_without_a_listener() {
    let conf = load("allow_anonymous false\n", &[]).expect("taken");
    assert!(conf.local_only && !conf.security[0].allow_anonymous);
}

#[test]
fn each_listener_has_its_own_security_under_per_listener_settings() {
    let conf = load(
        "per_listener_settings true\nlistener 1883\nallow_anonymous true\nauto_id_prefix a-\nlistener 1884\npassword_file /p\nacl_file /a\n",
        &[],
    )
    .expect("taken");
    let of = |index: usize| &conf.security[conf.listeners[index].security];
    assert!(of(0).allow_anonymous && of(0).password_file.is_none() && of(0).auto_id_prefix == "a-");
    assert!(!of(1).allow_anonymous && of(1).auto_id_prefix == "auto-");
    assert_eq!((of(1).password_file.as_deref(), of(1).acl_file.as_deref()), (Some(Path::new("/p")), Some(Path::new("/a"))));
}

#[test]
fn options_of_one_listener_do_not_reach_the_others() {
    let conf = load(
        "password_file /p\nlistener 1883\nlistener_allow_anonymous true\nmax_connections 5\nlistener 1884 ::1\nlistener 0 /run/m.sock\n",
        &[],
    )
    .expect("taken");
    let of = |index: usize| &conf.security[conf.listeners[index].security];
    assert!(of(0).allow_anonymous && !of(1).allow_anonymous && !of(2).allow_anonymous);
    assert!((0..3).all(|index| of(index).password_file.is_some() && conf.listeners[index].security == index));
    assert_eq!(conf.listeners[0].max_connections, Some(5));
    assert_eq!((conf.listeners[1].max_connections, conf.listeners[1].host.as_deref()), (None, Some("::1")));
    assert_eq!((conf.listeners[2].port, conf.listeners[2].unix_path.as_deref()), (0, Some(Path::new("/run/m.sock"))));
}

#[test]
fn the_plugins_of_2_1_become_the_files_they_name() {
    let conf = load(
        "plugin /usr/lib/mosquitto_password_file.so\nplugin_opt_password_file /p\nlistener 1883\nplugin_load rules /x/mosquitto_acl_file.so\n\
         plugin_opt_acl_file /a\nplugin_use rules\nlistener 1884\n",
        &[],
    )
    .expect("taken");
    let of = |index: usize| &conf.security[conf.listeners[index].security];
    assert_eq!((of(0).password_file.as_deref(), of(0).acl_file.as_deref()), (Some(Path::new("/p")), Some(Path::new("/a"))));
    assert_eq!((of(1).password_file.as_deref(), of(1).acl_file.as_deref()), (Some(Path::new("/p")), None));
}

#[test]
fn port_and_bind_address_make_the_default_listener_after_the_others() {
    let conf = load("port 1900\nbind_address 127.0.0.1\nmax_connections 4\nlistener 1901\n", &[]).expect("taken");
    assert_eq!(conf.listeners.iter().map(|l| (l.port, l.max_connections)).collect::<Vec<_>>(), [(1901, None), (1900, Some(4))]);
    assert_eq!(conf.listeners[1].host.as_deref(), Some("127.0.0.1"));
    assert_eq!(
        conf.diagnostics[0].log_lines()[0].1,
        "The 'port' option is now deprecated and will be removed in a future version. Please use 'listener' instead."
    );
}

#[test]
fn darner_toml_and_the_environment_choose_the_log_format() {
    let json = |environment: &[(&str, &str)], toml: Option<&str>| {
        let others: Vec<_> = toml.map(|text| ("/c/darner.toml", text)).into_iter().collect();
        load_with(Some("listener 1883\n"), &CommandLine::default(), environment, &others).map(|conf| conf.log.json)
    };
    assert_eq!(json(&[], None), Ok(false));
    assert_eq!(json(&[], Some("log_format = \"json\"\nengine = \"core\"\nshards = 1\n")), Ok(true));
    assert_eq!(json(&[("DARNER_LOG_FORMAT", "text")], Some("log_format = \"json\"\n")), Ok(false));
    assert_eq!(json(&[("DARNER_LOG_FORMAT", "json")], None), Ok(true));
    assert_eq!(
        json(&[("DARNER_LOG_FORMAT", "xml")], Some("log_formt = \"json\"\nshards = 2\nengine = \"rumqtt\"\n")).expect_err("refused"),
        [
            "/c/darner.toml:1: Unknown key \"log_formt\". Did you mean `log_format`?",
            "/c/darner.toml:2: Invalid shards value (2). This version of darner runs 1 shard.",
            "/c/darner.toml:3: Invalid engine value (\"rumqtt\"). This darner has: core, rumqttd.",
            "Invalid DARNER_LOG_FORMAT value (xml). Write text or json.",
        ]
    );
    assert_eq!(json(&[], Some("log_format = \n")).expect_err("refused").len(), 1);
    assert_eq!(
        json(&[("DARNER_CONFIG", "/none/darner.toml")], None).expect_err("refused"),
        ["Unable to open config file /none/darner.toml (No such file or directory (os error 2)). DARNER_CONFIG names it."]
    );
}

#[test]
fn check_says_what_a_missing_file_and_a_folder_are_and_writes_nothing() {
    let folder = Folder::new("check");
    let missing = folder.path().join("none.conf");
    let (code, out, _) = run(Command::new(darner()).args(["check", "-c"]).arg(&missing));
    assert_eq!(code, 3);
    assert!(out.starts_with(&format!("Error: Unable to open config file '{}'.\n", missing.display())), "{out}");
    let (code, out, _) = run(Command::new(darner()).args(["check", "-c"]).arg(folder.path()));
    assert_eq!(code, 3);
    assert!(out.starts_with(&format!("Error: Config file '{}' is a directory. Docker makes a folder", folder.path().display())), "{out}");
    let path = folder.path().display();
    let conf = folder.write(
        "mosquitto.conf",
        format!("listener 0 {path}/sock\npersistence true\npersistence_location {path}\npid_file {path}/pid\nlog_dest file {path}/log\n"),
    );
    let (code, out, _) = run(Command::new(darner()).args(["check", "-c"]).arg(conf));
    assert_eq!(code, 0, "{out}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "something was written");
}

#[test]
fn explain_prints_a_row_and_the_near_miss() {
    let (code, out, _) = run(Command::new(darner()).args(["explain", "retained_persistence"]));
    assert_eq!(code, 0);
    assert!(out.starts_with("persistence\n") && out.contains("also called: retained_persistence\n"), "{out}");
    let (code, _, err) = run(Command::new(darner()).args(["explain", "persistance"]));
    assert_eq!((code, err.as_str()), (1, "Error: Unknown configuration variable 'persistance'. Did you mean `persistence`?\n"));
}

#[test]
fn a_configuration_that_would_fill_memory_or_never_end_is_refused() {
    let error = |text: &str, others: &[(&str, &str)]| load(text, others).expect_err("too much").join(" | ");
    assert!(error(&"# nothing\n".repeat(500_000), &[]).contains("longer than 4 MiB"));
    let listeners: String = (1..=1_001).map(|port| format!("listener {port}\n")).collect();
    assert!(error(&listeners, &[]).contains("More than 1000 listeners."));
    let folder = Folder::new("included");
    folder.write("a.conf", "# nothing\n");
    let include = format!("include_dir {}\n", folder.path().display());
    assert!(load(&include.repeat(500), &[]).is_ok());
    assert!(error(&include.repeat(501), &[]).contains("More than 1000 files and folders are included."));
    (0..10_001).for_each(|nth| drop(folder.write(&format!("{nth}"), "")));
    assert!(error(&include, &[]).contains("there are more than 10,000 files in it"));
    // A line is quoted, but not all of one that never ends.
    assert!(error(&"x".repeat(1_000_000), &[]).len() < 2_000);
}

#[test]
fn check_takes_a_configuration_from_a_pipe() {
    let check = |text: &str| run(Command::new("sh").args(["-c", &format!("echo '{text}' | {} check -c /dev/stdin", darner().display())]));
    assert_eq!(check("listener 1883"), (0, "Configuration file is OK.\n".to_owned(), String::new()));
    let (code, said, _) = check("listner 1883");
    assert!(code == 3 && said.starts_with("/dev/stdin:1: Error: Unknown configuration variable 'listner'."), "{code} {said}");
}

#[test]
fn a_file_of_noise_gives_a_bounded_list() {
    let noise = "\u{1}noise\n".repeat(100_000);
    let found = load(&noise, &[]).expect_err("refused");
    assert_eq!(found.len(), 201);
    assert!(found[200].contains("Too many errors"), "{}", found[200]);
}

/// A small generator (xorshift) so that a failure can be repeated from its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }
}

#[test]
fn mutated_configurations_never_panic() {
    let mut samples: Vec<Vec<u8>> = std::fs::read_dir(source("tests/conf"))
        .expect("samples")
        .map(|entry| entry.expect("a sample").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .map(|path| std::fs::read(path).expect("a sample"))
        .collect();
    samples.sort();
    let values = ["", " -1", " 99999999999999999999", " true", "\t#", " 0 /x", " 3é", " /p # x", " 0y", " -", " \u{feff}"];
    samples.push(
        darner::conf::options::names()
            .enumerate()
            .map(|(i, name)| format!("{name}{}", values[i % values.len()]))
            .collect::<Vec<_>>()
            .join("\n")
            .into(),
    );
    for seed in 1..=1000u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut text = samples[dice.roll(samples.len())].clone();
        for _ in 0..=dice.roll(6) {
            let at = dice.roll(text.len());
            match dice.roll(5) {
                0 => text.insert(at, dice.roll(256) as u8),
                1 if !text.is_empty() => drop(text.remove(at)),
                2 if !text.is_empty() => text[at] = b" \t\n#=\0\xFF09-"[dice.roll(10)],
                3 => text.truncate(at),
                _ => {
                    let other = &samples[dice.roll(samples.len())];
                    let from = dice.roll(other.len());
                    let piece = other[from..(from + dice.roll(80)).min(other.len())].to_vec();
                    drop(text.splice(at..at, piece));
                }
            }
        }
        let mut files = Generation::default();
        files.insert("/c/mosquitto.conf".into(), text.clone());
        files.insert("/c/darner.toml".into(), text);
        if let Ok(conf) = Conf::load(&files, Some(Path::new("/c/mosquitto.conf")), &CommandLine::default(), &[]) {
            assert!(!conf.listeners.is_empty(), "seed {seed}");
            assert!(conf.listeners.iter().all(|listener| listener.security < conf.security.len()), "seed {seed}");
        }
    }
}

#[test]
fn test_config_has_mosquittos_words_and_exit_codes() {
    let folder = Folder::new("test-config");
    let good = folder.write("good.conf", "listener 1883\n");
    let bad = folder.write("bad.conf", "listener 1883\nfoo 1\nmax_qos 3\n");
    let test = |path: &Path| run(Command::new(darner()).args(["broker", "--test-config", "-c"]).arg(path));
    let (code, out, err) = test(&good);
    assert_eq!((code, format!("{out}{err}").contains("Configuration file is OK.")), (0, true));
    let (code, out, err) = test(&bad);
    let lines = format!("{out}{err}");
    assert_eq!(code, 3, "{lines}");
    for line in [
        "Error: Unknown configuration variable 'foo'.".to_owned(),
        format!("Error found at {}:2.", bad.display()),
        "Error: 'max_qos' must be between 0 and 2 inclusive.".to_owned(),
        format!("Error found at {}:3.", bad.display()),
    ] {
        assert!(lines.contains(&line), "{line} is not in\n{lines}");
    }
    assert!(!lines.contains("Configuration file is OK."), "{lines}");
}

#[test]
fn a_reload_says_what_waits_for_a_restart() {
    let broker = Broker::start("listener {port} 127.0.0.1\nallow_anonymous true\n");
    let text = format!("listener {} 127.0.0.1\nallow_anonymous true\nmount_point house/\npid_file /nowhere/pid\n", broker.port);
    broker.folder.write("mosquitto.conf", text);
    broker.signal(nix::sys::signal::Signal::SIGHUP);
    broker.wait_for_log("pid_file: none → /nowhere/pid (takes effect at the next restart)");
    broker.wait_for_log(&format!("listener {} 127.0.0.1: mount_point: none → house/ (takes effect at the next restart)", broker.port));
    assert_eq!(broker.stop(), 0);
}

#[test]
fn every_configuration_that_is_shipped_is_taken() {
    let shipped: Vec<_> = ["defaults", "compose-examples"]
        .into_iter()
        .flat_map(|folder| walkdir::WalkDir::new(source(folder)))
        .map(|entry| entry.expect("readable").into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    assert!(!shipped.is_empty());
    for path in shipped {
        let conf = Conf::load(&Disk, Some(&path), &CommandLine::default(), &[]);
        assert!(conf.as_ref().is_ok_and(|conf| !conf.local_only), "{}: {conf:?}", path.display());
    }
}
