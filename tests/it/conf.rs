//! mosquitto.conf: what is taken, what is refused, and with which words.

use std::path::{Path, PathBuf};

use darner::conf::files::Generation;
use darner::conf::{CommandLine, Conf, LogDestination};

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
    assert_eq!(conf.diagnostics.len(), 1, "persistence is said to be in memory only: {:?}", conf.diagnostics);
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
            "/c/mosquitto.conf:2: Unknown configuration variable \"pasword_file\". Did you mean `password_file`?",
            "/c/mosquitto.conf:3: max_qos must be between 0 and 2 inclusive.",
            "/c/mosquitto.conf:4: Invalid allow_anonymous value (maybe). Write true or false.",
        ]
    );
}
