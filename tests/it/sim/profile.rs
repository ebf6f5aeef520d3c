//! What one seed plays: drawn first, so that seeds differ in kind and not only in order.

use std::path::Path;
use std::sync::Arc;

use darner::broker::{SecurityTables, Settings};
use darner::conf::files::Generation;
use darner::conf::{CommandLine, Conf};

use crate::support::process::Engine;
use crate::support::random::Random;

/// Weights and switches of a run.
#[derive(Debug, Clone)]
pub struct Profile {
    pub engine: Engine,
    pub shards: u16,
    pub clients: usize,
    pub steps: usize,
    /// A crash every so many steps, if at all.
    pub crash_every: Option<usize>,
    /// The store begins to fail, or recovers, every so many steps, if at all.
    pub fail_every: Option<usize>,
    /// A cut connection every so many steps.
    pub cut_every: usize,
    pub clean_one_in: usize,
    pub expiries: bool,
    pub wills: bool,
    pub shares: bool,
    pub keep_alive: bool,
    pub congests: bool,
    pub receive_maximum: bool,
    /// One in so many chances that something passes between shards is taken.
    pub mail_one_in: usize,
    /// Single bytes, instead of what there is.
    pub bytewise: bool,
    /// Steps per commit.
    pub commit_every: usize,
    pub inflight_messages: usize,
}

impl Profile {
    pub fn draw(random: &mut Random) -> Self {
        let crashes = random.one_in(2);
        Self {
            engine: Engine::Core,
            shards: *random.pick(&[1, 1, 2, 3]),
            clients: 2 + random.below(5),
            steps: 300 + random.below(900),
            crash_every: crashes.then(|| 50 + random.below(300)),
            fail_every: random.one_in(3).then(|| 20 + random.below(150)),
            cut_every: 10 + random.below(90),
            clean_one_in: *random.pick(&[2, 5, 20, 1000]),
            expiries: random.one_in(2),
            wills: random.one_in(2),
            shares: random.one_in(3),
            keep_alive: random.one_in(3),
            congests: random.one_in(3),
            receive_maximum: random.one_in(2),
            mail_one_in: *random.pick(&[1, 1, 4]),
            bytewise: random.one_in(10),
            commit_every: *random.pick(&[1, 5, 30]),
            inflight_messages: *random.pick(&[1, 3, 20, 20]),
        }
    }

    /// There is one shard for a router outside.
    pub fn with(self, engine: Engine) -> Self {
        match engine {
            Engine::Core => self,
            // Its mailboxes are the router's, which may be slow.
            Engine::Rumqttd => Self { engine, shards: 1, fail_every: None, mail_one_in: 4 * self.mail_one_in, ..self },
        }
    }

    pub fn settings(&self) -> Settings {
        let conf = format!(
            "listener 1883\nallow_anonymous true\npersistence true\nsys_interval 0\nmax_queued_messages 0\nmax_inflight_messages {}\n",
            self.inflight_messages
        );
        let mut files = Generation::default();
        files.insert("/mosquitto.conf".into(), conf.into_bytes());
        files.insert("/darner.toml".into(), self.engine.toml().into());
        let conf = Conf::load(&files, Some(Path::new("/mosquitto.conf")), &CommandLine::default(), &[]).expect("a configuration");
        let security = conf.security.iter().map(|_| SecurityTables::default()).collect();
        Settings { conf: Arc::new(conf), security }
    }
}
