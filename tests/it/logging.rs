//! Log lines: destinations that fail, formats, and what a stranger can write into them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use darner::conf::{LogConf, LogDestination};
use darner::logging::{LogType, Logger};

use crate::support::process::Folder;

fn to_files(paths: &[&Path]) -> LogConf {
    let destinations = paths.iter().map(|path| LogDestination::File(path.to_path_buf())).collect();
    LogConf { destinations, timestamp: false, ..LogConf::default() }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_file_is_private_and_appended_to() {
    let folder = Folder::new("log");
    let path = folder.path().join("mosquitto.log");
    for text in ["one", "two"] {
        Logger::new(&to_files(&[&path])).log(LogType::Notice, text);
    }
    assert_eq!(read(&path), "one\ntwo\n");
    assert_eq!(path.metadata().expect("the log").permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_file_that_cannot_be_opened_does_not_silence_the_others() {
    let folder = Folder::new("log");
    let good = folder.path().join("good.log");
    let logger = Logger::new(&to_files(&[&folder.path().join("no/such/folder.log"), &good]));
    logger.log(LogType::Information, "still here");
    let text = read(&good);
    assert!(text.starts_with("Error: Unable to open log file ") && text.contains("no/such/folder.log for writing."), "{text}");
    assert!(text.ends_with("\nstill here\n") && text.lines().count() == 2, "{text}");
}

#[test]
fn only_wanted_types_are_written() {
    let folder = Folder::new("log");
    let path = folder.path().join("log");
    let logger = Logger::new(&LogConf { types: vec![LogType::Warning], ..to_files(&[&path]) });
    assert!(logger.enabled(LogType::Warning) && !logger.enabled(LogType::Error));
    logger.log(LogType::Error, "no");
    logger.log(LogType::Warning, "yes");
    assert_eq!(read(&path), "yes\n");
    logger.reconfigure(&LogConf { destinations: vec![LogDestination::None], ..to_files(&[&path]) });
    assert!(!logger.enabled(LogType::Error));
    logger.log(LogType::Error, "no");
    assert_eq!(read(&path), "yes\n");
}

#[test]
fn one_event_is_one_line_whatever_a_client_sent() {
    let folder = Folder::new("log");
    let path = folder.path().join("log");
    let logger = Logger::new(&to_files(&[&path]));
    logger.log(LogType::Notice, "New client connected as a\x1b[31m\r\n1700000000: mosquitto version 2.0.20 terminating");
    assert_eq!(read(&path), "New client connected as a\\x1b[31m\\x0d\\x0a1700000000: mosquitto version 2.0.20 terminating\n");
}

#[test]
fn json_lines_are_objects_with_time_type_and_message() {
    let folder = Folder::new("log");
    let path = folder.path().join("log");
    let logger = Logger::new(&LogConf { json: true, ..to_files(&[&path]) });
    logger.log(LogType::Warning, "say \"hi\"\n");
    let line: serde_json::Value = serde_json::from_str(&read(&path)).expect("one object");
    assert_eq!((line["type"].as_str(), line["message"].as_str()), (Some("warning"), Some("say \"hi\"\\x0a")));
    let time = line["time"].as_str().expect("a time");
    assert!(time.len() == "2026-01-01T00:00:00.000+00:00".len() && time.as_bytes()[10] == b'T', "{time}");
}

#[test]
fn after_a_rotation_a_new_file_is_written() {
    let folder = Folder::new("log");
    let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
    let logger = Logger::new(&to_files(&[&path]));
    logger.log(LogType::Notice, "before");
    std::fs::rename(&path, &old).expect("rotated");
    logger.log(LogType::Notice, "between");
    logger.reopen();
    logger.log(LogType::Notice, "after");
    assert_eq!((read(&old).as_str(), read(&path).as_str()), ("before\nbetween\n", "after\n"));
}

#[test]
fn a_format_that_cannot_be_used_is_said_once() {
    let folder = Folder::new("log");
    let path = folder.path().join("log");
    let conf = LogConf { timestamp: true, timestamp_format: Some("%!".into()), ..to_files(&[&path]) };
    let logger = Logger::new(&conf);
    logger.reconfigure(&conf);
    logger.log(LogType::Notice, "x");
    let text = read(&path);
    let (stamp, message) = text.lines().last().and_then(|line| line.split_once(": ")).expect("a line");
    assert!(stamp.parse::<u64>().is_ok() && message == "x", "{text}");
    assert_eq!(text.matches("log_timestamp_format \"%!\" is not usable").count(), 1, "{text}");
}

#[test]
fn topic_lines_carry_the_letter_of_their_type() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let types = vec![LogType::Error, LogType::Information, LogType::Debug, LogType::Subscribe];
    let conf = LogConf { destinations: vec![LogDestination::Topic], types, timestamp: false, ..LogConf::default() };
    let logger = Logger::new(&conf);
    let sink = Arc::clone(&seen);
    logger.set_topic_sink(Box::new(move |topic, line| sink.lock().expect("unpoisoned").push(format!("{topic} {line}"))));
    for log_type in [LogType::Error, LogType::Information, LogType::Debug, LogType::Subscribe, LogType::Notice] {
        logger.log(log_type, "x");
    }
    let seen = seen.lock().expect("unpoisoned");
    assert_eq!(*seen, ["$SYS/broker/log/E x", "$SYS/broker/log/I x", "$SYS/broker/log/M/subscribe x"]);
}

#[test]
fn a_full_disk_ends_nothing() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let folder = Folder::new("log");
    let good = folder.path().join("log");
    let logger = Logger::new(&to_files(&[Path::new("/dev/full"), &good]));
    for _ in 0..3 {
        logger.log(LogType::Error, "x");
    }
    assert_eq!(read(&good), "x\nx\nx\n");
}

#[test]
fn a_reader_who_does_not_read_is_told_how_much_was_lost() {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let folder = Folder::new("log");
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("a fifo");
    let mut reader = std::fs::File::options().read(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits()).open(&fifo).expect("a reader");
    let logger = Logger::new(&to_files(&[&fifo]));
    let text = "y".repeat(1000);
    for _ in 0..200 {
        logger.log(LogType::Error, &text);
    }
    let mut drain = || {
        let mut seen = Vec::new();
        let _ = reader.read_to_end(&mut seen);
        String::from_utf8(seen).expect("text")
    };
    let before = drain().lines().filter(|line| line.len() == 1000).count();
    logger.log(LogType::Error, "again");
    assert!((1..200).contains(&before));
    let lost = 200 - before;
    assert_eq!(drain(), format!("Warning: {lost} log lines were lost because they could not be written here.\nagain\n"));
}
