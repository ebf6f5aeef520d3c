//! `Effect::Authenticate`: from memory, or off the shard's thread.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::driver::{Answer, Driver, Job, Shard};
use super::login::CHECKS_MAX;
use crate::access::Passwords;
use crate::broker::ConnectionId;

pub(super) struct Check {
    connection: ConnectionId,
    security: usize,
    username: String,
    password: Vec<u8>,
    passwords: Arc<Passwords>,
    era: u64,
}

impl Driver {
    pub(super) fn authenticate(&mut self, id: ConnectionId, security: usize, username: String, password: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.closing) else { return };
        connection.authenticating.get_or_insert_with(|| Rc::new(Notify::new()));
        let passwords = self.settings.security.get(security).and_then(|tables| tables.passwords.clone());
        let Some(passwords) = passwords else {
            // A reload took the password file away since the CONNECT: what holds without one holds now.
            let permitted = self.settings.conf.security.get(security).is_some_and(|conf| conf.allow_anonymous);
            return self.authenticated(id, permitted);
        };
        let fingerprint = self.logins.fingerprint(security, &username, &password);
        if self.logins.is_verified(&fingerprint) {
            return self.authenticated(id, true);
        }
        if self.logins.checks >= CHECKS_MAX {
            return self.authenticated(id, false);
        }
        self.logins.checks += 1;
        let era = self.logins.era;
        self.jobs.push(Job::Check(Check { connection: id, security, username, password, passwords, era }));
    }

    fn authenticated(&mut self, id: ConnectionId, permitted: bool) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if let Some(waiting) = connection.authenticating.take() {
            waiting.notify_one();
        }
        if !connection.closing {
            self.answers.push(Answer::Authenticated(id, permitted));
        }
    }

    fn checked(&mut self, check: Check, permitted: bool) {
        self.logins.checks -= 1;
        if check.era != self.logins.era {
            // The files changed meanwhile.
            return self.authenticate(check.connection, check.security, check.username, check.password);
        }
        if permitted {
            self.logins.remember(self.logins.fingerprint(check.security, &check.username, &check.password));
        }
        self.authenticated(check.connection, permitted);
    }
}

impl Check {
    pub(super) async fn run(self, shard: Shard) {
        let Some(threads) = shard.turn(|driver| Arc::clone(&driver.logins.threads)) else { return };
        let Ok(_thread) = threads.acquire().await else { return shard.fail() };
        let checked = tokio::task::spawn_blocking(move || {
            let permitted = self.passwords.verify(&self.username, &self.password);
            (self, permitted)
        })
        .await;
        match checked {
            Ok((check, permitted)) => drop(shard.turn(|driver| driver.checked(check, permitted))),
            Err(_) => shard.fail(),
        }
    }
}
