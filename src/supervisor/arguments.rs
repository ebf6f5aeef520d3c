//! mosquitto's command line, as far as the supervisor needs to know it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::conf::CommandLine;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Arguments {
    pub(super) config: Option<PathBuf>,
    pub(super) command_line: CommandLine,
    /// As given, for the broker.
    pub(super) raw: Vec<OsString>,
}

impl Arguments {
    /// `mosquitto -c PATH`
    pub(super) fn with_config(path: &Path) -> Self {
        Self { config: Some(path.to_owned()), raw: vec!["-c".into(), path.into()], ..Self::default() }
    }

    /// Another configuration in the place of the named one.
    pub(super) fn instead(mut self, path: &Path) -> Self {
        if let Some(named) = self.config.replace(path.to_owned()) {
            self.raw.iter_mut().filter(|word| **word == named).for_each(|word| *word = path.into());
        }
        self
    }
}

/// `None` when it is not a plain start (`--help`, `--version`, `--test-config`, a mistake): then the broker answers, unsupervised.
pub(super) fn parse(raw: &[OsString]) -> Option<Arguments> {
    let mut arguments = Arguments::default();
    let mut words = raw.iter();
    while let Some(word) = words.next() {
        match word.to_str()? {
            "-c" | "--config-file" => arguments.config = Some(words.next()?.into()),
            "-p" | "--port" => arguments.command_line.ports.push(words.next()?.to_str()?.parse().ok().filter(|port| *port != 0)?),
            "-v" | "--verbose" => arguments.command_line.verbose = true,
            "-q" | "--quiet" => arguments.command_line.quiet = true,
            // PID 1 that goes to the background ends its container, which nobody means.
            "-d" | "--daemon" => continue,
            _ => return None,
        }
        arguments.raw.push(word.clone());
        if let (Some(value), "-c" | "--config-file" | "-p" | "--port") = (raw.get(raw.len() - words.len() - 1), word.to_str()?) {
            arguments.raw.push(value.clone());
        }
    }
    Some(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_ascii_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_plain_start_is_supervised_and_passed_on_without_daemon() {
        let arguments = parse(&words("-d -c /a.conf -p 1884 -v")).expect("a plain start");
        assert_eq!(arguments.config, Some("/a.conf".into()));
        assert_eq!(arguments.command_line, CommandLine { ports: vec![1884], verbose: true, quiet: false });
        assert_eq!(arguments.raw, words("-c /a.conf -p 1884 -v"));
    }

    #[test]
    fn another_configuration_takes_the_place_of_the_named_one() {
        let arguments = parse(&words("-c /a.conf -v")).expect("a plain start").instead(Path::new("/b.conf"));
        assert_eq!((arguments.config, arguments.raw), (Some("/b.conf".into()), words("-c /b.conf -v")));
    }

    #[test]
    fn anything_else_is_left_to_the_broker() {
        for text in ["--help", "-c", "-p", "-p x", "-p 0", "--test-config -c /a", "-x"] {
            assert_eq!(parse(&words(text)), None, "{text}");
        }
    }
}
