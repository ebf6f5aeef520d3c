//! Self-repair of the volumes: observe (io) → plan (pure) → apply (io).
//!
//! `observation` says what is wanted and what is there, `plan` judges, `apply` performs and adds up what failed, `ownership` walks the
//! tree, `defaults` is the table of what is put back, `certificates` and `renewal` are for TLS listeners without files, `admin` for password
//! files without users. Whatever is wrong with a volume, a repair ends with a [`Report`].

mod admin;
mod apply;
mod certificates;
mod command;
pub mod defaults;
mod failure;
mod location;
mod observation;
mod ownership;
mod plan;
mod renewal;
mod shadowing;

use std::path::PathBuf;
use std::time::Duration;

use crate::conf::files::Generation;
use crate::conf::{Conf, LogDestination};
pub use certificates::TlsFiles;
pub use command::command;
pub use renewal::{is_due, renew};

/// What to repair.
#[derive(Debug, Clone)]
pub struct Request {
    /// `/mosquitto`, or another folder with the same inside. Absolute; made if it is missing.
    pub root: PathBuf,
    /// The configuration that the broker will load. Absolute.
    pub config: PathBuf,
    /// uid and gid that everything is to belong to; `None` leaves owners alone (when not root).
    pub owner: Option<(u32, u32)>,
    /// What the configuration names, if it was read already.
    pub named: Named,
    /// What the broker has used in place of files since an earlier repair.
    pub in_use: Vec<(PathBuf, Vec<u8>)>,
    /// Only tell.
    pub dry_run: bool,
    /// Ignore the time budget.
    pub full: bool,
    /// The walk over owners stops after this long, configuration and passwords first.
    pub time_budget: Duration,
}

/// Paths that a configuration names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    pub password_files: Vec<PathBuf>,
    /// Those of them without which nobody may connect.
    pub closed_password_files: Vec<PathBuf>,
    pub acl_files: Vec<PathBuf>,
    pub data_folder: Option<PathBuf>,
    pub log_files: Vec<PathBuf>,
    pub pid_file: Option<PathBuf>,
    pub sockets: Vec<PathBuf>,
    pub tls: Vec<TlsFiles>,
}

impl Named {
    /// The paths of a resolved configuration.
    pub fn from_conf(conf: &Conf) -> Self {
        let closed = conf.security.iter().filter(|security| !security.allow_anonymous);
        Self {
            password_files: conf.security.iter().filter_map(|security| security.password_file.clone()).collect(),
            closed_password_files: closed.filter_map(|security| security.password_file.clone()).collect(),
            acl_files: conf.security.iter().filter_map(|security| security.acl_file.clone()).collect(),
            data_folder: conf.persistence.location.clone().filter(|_| conf.persistence.enabled),
            log_files: conf
                .log
                .destinations
                .iter()
                .filter_map(|destination| match destination {
                    LogDestination::File(path) => Some(path.clone()),
                    _ => None,
                })
                .collect(),
            pid_file: conf.pid_file.clone(),
            sockets: conf.listeners.iter().filter_map(|listener| listener.unix_path.clone()).collect(),
            tls: conf.listeners.iter().filter_map(TlsFiles::of).collect(),
        }
    }
}

/// What a repair did and what it could not do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// For the log, whole: the frame, what was done (at most 50, then a number), notes and problems.
    pub lines: Vec<String>,
    /// What somebody has to do something about, one sentence each.
    pub problems: Vec<String>,
    /// Bytes that the broker is to use in place of files that are unusable and could not be restored.
    pub substitutes: Vec<(PathBuf, Vec<u8>)>,
    /// Lines that are shown once, after the others, and kept nowhere.
    pub secrets: Secrets,
    /// Things changed (or, in a dry run, that would be).
    pub changes: usize,
    /// `false`: the time budget ended the walk over owners early.
    pub complete: bool,
}

/// Lines with a password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<String>);

impl Secrets {
    fn add(&mut self, line: String) {
        self.0.push(line);
    }

    /// They are gone from here then.
    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} secrets", self.0.len())
    }
}

/// Repairs once, in two passes within one report: first the configuration, so that there is one; then `load` reads it (through the files it
/// is given) and says what it names; then that, the other defaults, the owners and the modes. After `None` from `load` it is what
/// `request` names. Never fails: what could not be mended is in the report.
pub fn run(request: &Request, load: impl FnOnce(&Generation) -> Option<Named>) -> Report {
    let mut repair = apply::Repair::new(request);
    let (config, mut wanted): (Vec<_>, Vec<_>) =
        observation::wanted_always(request).into_iter().partition(|one| one.path == request.config);
    repair.restore(&config);
    let loaded = load(&repair.files());
    if let Some(named) = &loaded {
        repair.admit(named);
    }
    let named = loaded.unwrap_or_else(|| request.named.clone());
    observation::add_named(&mut wanted, request, &named);
    repair.restore(&wanted);
    repair.certify(&named.tls);
    repair.own();
    repair.protect(&wanted);
    repair.judge(&wanted);
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for sentence in shadowing::shadowed(&mountinfo, &request.root) {
        repair.say(sentence);
    }
    repair.report()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> Request {
        let root = std::env::temp_dir().join(format!("darner-repair-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        Request {
            config: root.join("config/mosquitto.conf"),
            root,
            owner: Some((nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())),
            named: Named::default(),
            in_use: Vec::new(),
            dry_run: false,
            full: false,
            time_budget: Duration::from_mins(1),
        }
    }

    #[test]
    fn a_walk_without_time_is_paused_and_full_ignores_that() {
        let mut request = Request { time_budget: Duration::ZERO, ..request("budget") };
        let report = run(&request, |_| None);
        assert!(!report.complete && report.lines.iter().any(|line| line.contains("paused")), "{report:?}");
        request.full = true;
        assert!(run(&request, |_| None).complete);
        let _ = std::fs::remove_dir_all(&request.root);
    }

    #[test]
    fn a_single_folder_without_end_does_not_hold_the_walk() {
        let request = Request { time_budget: Duration::ZERO, ..request("one-folder") };
        for nth in 0..100 {
            std::fs::create_dir_all(request.root.join(format!("data/{nth}"))).expect("a folder");
        }
        let mut repair = apply::Repair::new(&request);
        assert_eq!(repair.entries(std::path::Path::new("data")).len(), 1);
        assert!(!repair.complete);
        let _ = std::fs::remove_dir_all(&request.root);
    }

    #[test]
    fn unusable_files_have_substitutes_under_the_names_that_the_configuration_uses() {
        let mut request = request("substitutes");
        request.named.password_files = vec![request.root.join("config/passwd"), request.root.join("pwfile/pwfile")];
        request.named.acl_files = vec![request.root.join("config/filter.acl"), request.root.join("config/mine.acl")];
        std::fs::create_dir_all(&request.root).expect("a folder");
        std::fs::write(request.root.join("config"), "not a folder").expect("a file");
        let report = run(&request, |files| {
            use crate::conf::files::ReadFiles as _;
            assert_eq!(files.read(&request.config).expect("the built-in one"), defaults::config(&request.root, &request.config));
            None
        });
        let names: Vec<_> = report.substitutes.iter().map(|(path, bytes)| (path.clone(), bytes.is_empty())).collect();
        assert_eq!(names, [(request.config.clone(), false), (request.root.join("config/passwd"), true)]);
        let _ = std::fs::remove_dir_all(&request.root);
    }

    #[test]
    fn the_authority_s_key_is_not_handed_over_as_a_server_s() {
        if !nix::unistd::geteuid().is_root() {
            return eprintln!("skipped: a key that is not the broker's needs root");
        }
        let mut request = Request { owner: Some((1883, 1883)), ..request("kept") };
        let config = request.root.join("config");
        let files = |certfile: PathBuf, keyfile: &str| TlsFiles {
            port: 8883,
            host: None,
            certfile,
            keyfile: config.join(keyfile),
            cafile: Some(config.join("ca.crt")),
        };
        request.named.tls = vec![files(config.join("server.crt"), "server.key")];
        run(&request, |_| None);
        let key = std::fs::read(config.join("darner-ca.key")).expect("it was made");
        std::fs::rename(config.join("darner-ca.key"), config.join("other.key")).expect("ours");
        std::fs::hard_link(config.join("other.key"), config.join("darner-ca.key")).expect("ours");
        for named in ["darner-ca.key", "other.key"] {
            // A place that takes no file, so that all would be handed over.
            request.named.tls = vec![files("/proc/server.crt".into(), named)];
            let report = run(&request, |_| None);
            assert!(report.substitutes.iter().any(|(path, _)| path.ends_with("server.crt")), "{report:?}");
            assert!(report.substitutes.iter().all(|(_, bytes)| *bytes != key), "{named}");
        }
        let _ = std::fs::remove_dir_all(&request.root);
    }
}
