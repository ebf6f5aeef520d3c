//! Plugin lines: mosquitto 2.1's password and ACL file plugins are built in, every other plugin is refused.

use std::collections::BTreeMap;
use std::path::Path;

use super::draft::SecurityDraft;
use super::options::Scope;
use super::resolve::{Reader, refused};
use super::syntax::Directive;
use super::value::{self, Fault};

/// The plugins that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BuiltIn {
    PasswordFile,
    AclFile,
}

impl BuiltIn {
    fn option(self) -> &'static str {
        match self {
            Self::PasswordFile => "password_file",
            Self::AclFile => "acl_file",
        }
    }

    fn of(path: &str) -> Option<Self> {
        match Path::new(path).file_name()?.to_str()? {
            "mosquitto_password_file.so" => Some(Self::PasswordFile),
            "mosquitto_acl_file.so" => Some(Self::AclFile),
            _ => None,
        }
    }
}

/// The plugin that `plugin_opt_…` lines speak of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Current {
    #[default]
    None,
    /// A refused plugin: its options are refused with it, once.
    Refused,
    /// `plugin`, `auth_plugin`, `global_plugin`: for the place it stands in, or for everybody.
    Here { kind: BuiltIn, global: bool },
    /// `plugin_load NAME`.
    Named { kind: BuiltIn, name: String },
}

/// Plugin lines so far.
#[derive(Debug, Default)]
pub(super) struct Plugins {
    current: Current,
    /// What `plugin_use NAME` brings.
    loaded: BTreeMap<String, SecurityDraft>,
    refused: Vec<String>,
    /// A built-in plugin whose file is not said yet, and its line: without the file it would guard nothing.
    unguarded: Option<(&'static str, usize)>,
}

impl Reader<'_> {
    /// The lines of a plugin end: at the next plugin, and at the end of its file.
    pub(super) fn plugin_done(&mut self) {
        self.plugins.current = Current::None;
        if let Some((option, line)) = self.plugins.unguarded.take() {
            let here = std::mem::replace(&mut self.here.line, line);
            self.error(format!("The plugin needs a line plugin_opt_{option} below it."), None);
            self.here.line = here;
        }
    }

    pub(super) fn plugin(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        self.plugin_done();
        self.plugins.current = Current::Refused;
        let path = value::text(directive.key, directive.rest)?;
        let Some(kind) = BuiltIn::of(&path) else {
            return Err(not_built_in(&path));
        };
        self.plugins.unguarded = Some((kind.option(), directive.line));
        self.plugins.current = Current::Here { kind, global: directive.key == "global_plugin" };
        Ok(())
    }

    pub(super) fn plugin_load(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        self.plugin_done();
        self.plugins.current = Current::Refused;
        let text = value::text(directive.key, directive.rest)?;
        let Some((name, path)) = text.split_once([' ', '\t']) else {
            return Err(Fault::new("Empty 'plugin_load' value in configuration.").hint("Write `plugin_load NAME FILE`."));
        };
        let Some(kind) = BuiltIn::of(path.trim()) else {
            self.plugins.refused.push(name.to_owned());
            return Err(not_built_in(path.trim()));
        };
        if self.plugins.loaded.insert(name.to_owned(), SecurityDraft::default()).is_some() {
            return Err(Fault::new(format!("Duplicate plugin_load name \"{name}\".")));
        }
        self.plugins.unguarded = Some((kind.option(), directive.line));
        self.plugins.current = Current::Named { kind, name: name.to_owned() };
        Ok(())
    }

    pub(super) fn plugin_use(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        let name = value::word(directive.key, directive.rest)?;
        if self.plugins.refused.iter().any(|refused| refused == name) {
            return Ok(());
        }
        let Some(loaded) = self.plugins.loaded.get(name).cloned() else {
            return Err(Fault::new(format!("plugin_use names \"{name}\", which no plugin_load line above defines.")));
        };
        let own = &mut self.listener().own;
        *own = own.over(&loaded);
        Ok(())
    }

    pub(super) fn plugin_option(&mut self, directive: &Directive<'_>) -> Result<(), Fault> {
        let option = directive.key.split_once("_opt_").map_or("", |(_, option)| option);
        let (kind, global, name) = match self.plugins.current.clone() {
            Current::None => {
                return Err(Fault::new(format!(
                    "The '{}' option requires plugin/global_plugin/plugin_load to be defined first.",
                    directive.key
                ))
                .hint("It belongs below a `plugin` line."));
            }
            Current::Refused if option.is_empty() => return Err(Fault::new(format!("Invalid '{}' config option.", directive.key))),
            Current::Refused => return value::text(option, directive.rest).map(drop),
            Current::Here { kind, global } => (kind, global, None),
            Current::Named { kind, name } => (kind, false, Some(name)),
        };
        let known = kind.option();
        if option != known {
            return Err(
                Fault::new(format!("{} is no option of the plugin above it.", directive.key)).hint(format!("It takes plugin_opt_{known}."))
            );
        }
        self.plugins.unguarded = None;
        let path = value::path(directive.key, directive.rest)?;
        let security = match name {
            Some(name) => self.plugins.loaded.entry(name).or_default(),
            None if global => &mut self.draft.security,
            None => self.security(),
        };
        let field = match kind {
            BuiltIn::PasswordFile => &mut security.password_file,
            BuiltIn::AclFile => &mut security.acl_file,
        };
        if field.replace(path).is_some() {
            return Err(Fault::new(format!("Duplicate '{known}' value in configuration.")));
        }
        Ok(())
    }
}

fn not_built_in(path: &str) -> Fault {
    refused(&format!("plugin {path}"), "plugins other than mosquitto_password_file.so and mosquitto_acl_file.so", Scope::Security)
}
