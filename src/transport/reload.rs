//! Reloading: validate everything, then apply everything, or nothing.

use std::sync::Arc;

use super::driver::{Driver, Shard};
use super::settings::{Loaded, Source, same_listeners};
use crate::broker::{Input, Settings};
use crate::conf::change;
use crate::conf::diagnostic::Diagnostic;
use crate::conf::files::ReadFiles;
use crate::logging::LogType;
use crate::notice::Notice;
use crate::tls::Servers;

/// Reads the settings again. `Err` is a line for whoever asked; the log has all of them.
pub(super) fn reload(shard: &Shard, source: &Source, files: &dyn ReadFiles) -> Result<(), String> {
    shard.notice(&Notice::Reloading {});
    let loaded = source.load(files).map_err(|refused| refused.diagnostics);
    let verdict = match loaded {
        Ok(Loaded { settings, tls, diagnostics }) => {
            log_all(shard, &diagnostics);
            shard.turn(|driver| driver.reconfigure(settings, tls)).unwrap_or_else(|| Err("internal error".to_owned()))
        }
        Err(diagnostics) => {
            log_all(shard, &diagnostics);
            Err(diagnostics.first().map(ToString::to_string).unwrap_or_default())
        }
    };
    if verdict.is_err() {
        shard.notice(&Notice::KeepingConfig {});
    }
    verdict
}

fn log_all(shard: &Shard, diagnostics: &[Diagnostic]) {
    for (log_type, line) in diagnostics.iter().flat_map(Diagnostic::log_lines) {
        shard.log(log_type, &line);
    }
}

impl Driver {
    fn reconfigure(&mut self, settings: Settings, tls: Servers) -> Result<(), String> {
        if !same_listeners(&self.settings.conf, &settings.conf) {
            let notice = Notice::ListenersChanged {};
            self.logger.notice(&notice);
            if let Some(path) = &settings.conf.source {
                self.logger.log(LogType::Error, &format!("Restart the broker to use the listeners of {}.", path.display()));
            }
            return Err(notice.to_string());
        }
        let mut conf = (*settings.conf).clone();
        for line in change::keep_until_restart(&self.settings.conf, &mut conf) {
            self.logger.log(LogType::Warning, &format!("Warning: {line}."));
        }
        let settings = Settings { conf: Arc::new(conf), ..settings };
        self.logger.reconfigure(&settings.conf.log);
        self.logins.forget();
        self.settings = settings.clone();
        self.tls = tls;
        self.input(Input::Reconfigured { settings });
        Ok(())
    }
}
