//! What has been read so far: listeners and security with "not said" kept apart from any default.

use std::path::PathBuf;

use super::{Conf, Listener, LogDestination, Security};
use crate::logging::LogType;

/// The security options of one place, as far as they are said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecurityDraft {
    pub allow_anonymous: Option<bool>,
    pub allow_zero_length_clientid: Option<bool>,
    pub auto_id_prefix: Option<String>,
    pub password_file: Option<PathBuf>,
    pub acl_file: Option<PathBuf>,
}

impl SecurityDraft {
    /// What is said here, else there.
    pub(super) fn over(&self, other: &Self) -> Self {
        Self {
            allow_anonymous: self.allow_anonymous.or(other.allow_anonymous),
            allow_zero_length_clientid: self.allow_zero_length_clientid.or(other.allow_zero_length_clientid),
            auto_id_prefix: self.auto_id_prefix.clone().or_else(|| other.auto_id_prefix.clone()),
            password_file: self.password_file.clone().or_else(|| other.password_file.clone()),
            acl_file: self.acl_file.clone().or_else(|| other.acl_file.clone()),
        }
    }

    /// With every default applied.
    pub(super) fn resolve(&self, anonymous: bool) -> Security {
        let default = Security::default();
        Security {
            allow_anonymous: self.allow_anonymous.unwrap_or(anonymous),
            allow_zero_length_clientid: self.allow_zero_length_clientid.unwrap_or(default.allow_zero_length_clientid),
            auto_id_prefix: self.auto_id_prefix.clone().unwrap_or(default.auto_id_prefix),
            password_file: self.password_file.clone(),
            acl_file: self.acl_file.clone(),
        }
    }
}

/// A listener, where it was opened, and the security options that stand below it.
#[derive(Debug, Clone, Default)]
pub(super) struct ListenerDraft {
    pub(super) listener: Listener,
    pub(super) at: Option<(PathBuf, usize)>,
    /// Under `per_listener_settings`.
    pub(super) security: SecurityDraft,
    /// `listener_…` and `plugin_use`: over the security of the place.
    pub(super) own: SecurityDraft,
}

/// Everything read so far.
#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) conf: Conf,
    pub(super) security: SecurityDraft,
    pub(super) listeners: Vec<ListenerDraft>,
    /// Options that stand before the first `listener`.
    pub(super) default_listener: ListenerDraft,
    /// `port` or `bind_address` was said.
    pub(super) default_is_open: bool,
    /// The first option that asks for the default listener without `port`: name, place.
    pub(super) default_opened_by: Option<(String, PathBuf, usize)>,
    /// Security options before the first listener that reach nobody unless the default listener opens.
    pub(super) default_security: Vec<(String, PathBuf, usize)>,
    pub(super) log_types: Option<Vec<LogType>>,
    pub(super) log_destinations: Option<Vec<LogDestination>>,
}

impl Draft {
    pub(super) fn new() -> Self {
        let mut draft = Self::default();
        draft.conf.listeners.clear();
        draft.conf.security.clear();
        draft
    }
}
