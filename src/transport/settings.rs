//! Configuration and security files → one consistent generation, or the reasons why not.

use std::path::PathBuf;
use std::sync::Arc;

use super::command_line::Options;
use super::key_log::KeyLogFile;
use crate::access;
use crate::broker::{SecurityTables, Settings};
use crate::conf::diagnostic::Diagnostic;
use crate::conf::files::ReadFiles;
use crate::conf::{CommandLine, Conf, Listener};
use crate::exit_code::ExitCode;
use crate::tls::{self, Servers};

/// Where the settings come from, at start and at each reload.
#[derive(Debug, Clone)]
pub(super) struct Source {
    path: Option<PathBuf>,
    adds: CommandLine,
    environment: Vec<(String, String)>,
    key_log: Option<Arc<dyn rustls::KeyLog>>,
}

pub(super) struct Refused {
    pub(super) exit_code: ExitCode,
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// One consistent generation.
pub(super) struct Loaded {
    pub(super) settings: Settings,
    pub(super) tls: Servers,
    /// What is to be said about them.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Source {
    pub(super) fn new(options: &Options) -> Self {
        let environment = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self {
            path: options.config_file.clone(),
            adds: options.adds.clone(),
            environment: environment.filter(|(name, _)| name.starts_with("DARNER_")).collect(),
            key_log: None,
        }
    }

    /// From now on the secrets of TLS sessions are written there.
    pub(super) fn log_keys(&mut self, key_log: KeyLogFile) {
        self.key_log = Some(Arc::new(key_log));
    }

    /// All that the configuration names, or the reasons why not.
    pub(super) fn load(&self, files: &dyn ReadFiles) -> Result<Loaded, Refused> {
        let conf = Conf::load(files, self.path.as_deref(), &self.adds, &self.environment)
            .map_err(|diagnostics| Refused { exit_code: ExitCode::Config, diagnostics })?;
        let (tables, more) = access::load(files, &conf)
            .map_err(|error| Refused { exit_code: error.exit_code(), diagnostics: error.diagnostics().to_vec() })?;
        let mut tls = tls::load(files, &conf).map_err(|diagnostics| Refused { exit_code: ExitCode::Failure, diagnostics })?;
        if let Some(key_log) = &self.key_log {
            for server in tls.iter_mut().flatten() {
                Arc::make_mut(server).key_log = Arc::clone(key_log);
            }
        }
        let diagnostics = conf.diagnostics.iter().cloned().chain(more).collect();
        let security = tables
            .into_iter()
            .map(|(passwords, acl)| SecurityTables { passwords: passwords.map(Arc::new), acl: acl.map(Arc::new) })
            .collect();
        Ok(Loaded { settings: Settings { conf: Arc::new(conf), security }, tls, diagnostics })
    }
}

/// Whether both configurations listen on the same sockets; only then one can take over from the other.
pub(super) fn same_listeners(old: &Conf, new: &Conf) -> bool {
    fn place(listener: &Listener) -> impl PartialEq + '_ {
        (
            (listener.port, &listener.host, &listener.unix_path),
            (&listener.bind_interface, listener.socket_domain, listener.protocol, listener.proxy),
            // A port of TLS never becomes one without.
            listener.tls_files().is_some(),
        )
    }
    old.listeners.len() == new.listeners.len() && old.listeners.iter().zip(&new.listeners).all(|(old, new)| place(old) == place(new))
}
