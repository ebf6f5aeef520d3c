//! mosquitto's command line.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::conf::CommandLine;

/// What the arguments ask for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Help,
    Version,
    Run(Options),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Options {
    pub(super) config_file: Option<PathBuf>,
    pub(super) daemon: bool,
    /// `--test-config`: read everything, say what is wrong, do not run.
    pub(super) test: bool,
    pub(super) adds: CommandLine,
    /// File that the secrets of TLS sessions are written to, for debugging.
    pub(super) tls_keylog: Option<PathBuf>,
}

/// mosquitto takes no more `-p` than this.
const PORTS_MAX: usize = 10;

pub(super) const USAGE: &str = "\
Usage: mosquitto [-c config_file] [-d] [-h] [-p port] [-v] [-q]
       mosquitto --test-config [-c config_file]

 -c, --config-file : specify the broker config file.
 -d, --daemon : put the broker into the background after starting.
 -h, --help : display this help.
 -p, --port : start the broker listening on the specified port, on this machine only.
              Not recommended in conjunction with the -c option.
 -q, --quiet : quiet mode - disable all logging types. This overrides
               any logging options given in the config file, and -v.
 -v, --verbose : verbose mode - enable all logging types. This overrides
                 any logging options given in the config file.
 --tls-keylog : write the secrets of TLS sessions to this file, for Wireshark. Whoever has them reads everything.
 --test-config : test the config file and exit.
 --version : display the version and exit.
";

/// `Err` is the line that says what is wrong.
pub(super) fn parse(arguments: &[OsString]) -> Result<Request, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.to_str() {
            Some("-c" | "--config-file") => {
                let path = rest.next().ok_or("Error: -c argument given, but no config file specified.")?;
                options.config_file = Some(path.into());
            }
            Some("-d" | "--daemon") => options.daemon = true,
            Some("-h" | "--help") => return Ok(Request::Help),
            Some("-p" | "--port") => options.adds.ports.push(port(rest.next(), options.adds.ports.len())?),
            Some("-q" | "--quiet") => options.adds.quiet = true,
            Some("-v" | "--verbose") => options.adds.verbose = true,
            Some("--tls-keylog") => {
                let path = rest.next().ok_or("Error: --tls-keylog argument given, but no file specified.")?;
                options.tls_keylog = Some(path.into());
            }
            Some("--version") => return Ok(Request::Version),
            Some("--test-config") => options.test = true,
            _ => return Err(format!("Error: Unknown option '{}'.", argument.to_string_lossy())),
        }
    }
    Ok(Request::Run(options))
}

fn port(value: Option<&OsString>, given: usize) -> Result<u16, String> {
    if given == PORTS_MAX {
        return Err(format!("Error: Only {PORTS_MAX} ports can be specified."));
    }
    let text = value.ok_or("Error: -p argument given, but no port specified.")?;
    match text.to_str().and_then(|text| text.parse().ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err(format!("Error: Invalid port specified ({}).", OsStr::to_string_lossy(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_in_both_spellings() {
        let expected = Options {
            config_file: Some("/a.conf".into()),
            daemon: true,
            test: true,
            adds: CommandLine { ports: vec![1883, 1884], verbose: true, quiet: true },
            tls_keylog: Some("/k".into()),
        };
        assert_eq!(parsed("-c /a.conf -d -p 1883 -p 1884 -v -q --test-config --tls-keylog /k"), Ok(Request::Run(expected.clone())));
        let long = "--config-file /a.conf --daemon --port 1883 --port 1884 --verbose --quiet --test-config --tls-keylog /k";
        assert_eq!(parsed(long), Ok(Request::Run(expected)));
        assert_eq!(parsed("-v --version"), Ok(Request::Version));
        assert_eq!(parsed("-h"), Ok(Request::Help));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(parsed("--nonsense"), Err("Error: Unknown option '--nonsense'.".into()));
        assert_eq!(parsed("-p 0"), Err("Error: Invalid port specified (0).".into()));
        assert_eq!(parsed("-p 65536"), Err("Error: Invalid port specified (65536).".into()));
        assert_eq!(parsed("-p"), Err("Error: -p argument given, but no port specified.".into()));
        assert_eq!(parsed(&"-p 1 ".repeat(11)), Err("Error: Only 10 ports can be specified.".into()));
        assert_eq!(parsed("--tls-keylog"), Err("Error: --tls-keylog argument given, but no file specified.".into()));
        assert_eq!(parsed("-c"), Err("Error: -c argument given, but no config file specified.".into()));
    }
}
