//! A new generation of configuration and security files: who may no longer stay, what may no longer be sent.

use std::cell::RefCell;
use std::sync::Arc;

use super::in_flight::Outgoing;
use super::interface::{ConnectionId, Outbox, Settings, Time};
use super::message::Delivery;
use super::message::Identity;
use super::{Broker, MOSQUITTO_VERSION};
use crate::access::Access;
use crate::conf::TlsIdentity;
use crate::mqtt::ReasonCode;
use crate::notice::Notice;

impl Broker {
    /// All at once. As in mosquitto, clients are disconnected that are anonymous where that is no longer allowed, or whose user has
    /// vanished or has another password; permissions hold from now on, for queued messages, too.
    pub(super) fn reconfigured(&mut self, settings: Settings, now: Time, out: &mut Outbox) {
        let old = std::mem::replace(&mut self.settings, settings);
        self.derive_from_settings();
        let connected: Vec<(u32, ConnectionId)> =
            self.sessions.iter().filter_map(|(key, session)| session.wire.as_ref().map(|wire| (key, wire.connection))).collect();
        for (key, connection) in connected {
            let Some(identity) = self.identity_of(key) else { continue };
            if !identity.trusted && !self.is_certified(connection) && !self.may_stay(&old, &identity) {
                self.abort(connection, ReasonCode::NotAuthorized, now, out);
            }
        }
        let keys: Vec<u32> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.drop_what_is_denied(key, out);
            self.pump(key, now, out);
        }
        self.sys_topics_reconfigured(&old, now);
    }

    /// Its certificate said who it is, and no password file was asked.
    fn is_certified(&self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id).filter(|connection| connection.certificate_user.is_some()) else { return false };
        self.listener(&connection.origin).is_some_and(|listener| listener.tls.identity != TlsIdentity::Client)
    }

    fn may_stay(&self, old: &Settings, identity: &Identity) -> bool {
        let Some(conf) = self.settings.conf.security.get(identity.security) else { return false };
        let Some(username) = &identity.username else { return conf.allow_anonymous };
        let tables = self.settings.security.get(identity.security);
        match tables.and_then(|tables| tables.passwords.as_ref()) {
            None => conf.allow_anonymous,
            Some(passwords) => {
                let before = old.security.get(identity.security).and_then(|tables| tables.passwords.as_ref());
                // A password that was never checked does not count as known.
                before.is_some_and(|before| {
                    before.contains(username) && passwords.contains(username) && passwords.same_entry(before, username)
                })
            }
        }
    }

    /// Queued messages that the ACL no longer lets this client read.
    pub(super) fn drop_what_is_denied(&mut self, key: u32, out: &mut Outbox) {
        self.change_outgoing(key, out, |outgoing, permits| outgoing.retain_queue(permits));
    }

    /// Before everything in flight is sent again, maybe to another user under the same Client Identifier.
    pub(super) fn drop_denied_in_flight(&mut self, key: u32, out: &mut Outbox) {
        self.change_outgoing(key, out, |outgoing, permits| outgoing.retain_in_flight(permits));
    }

    fn change_outgoing(&mut self, key: u32, out: &mut Outbox, change: impl FnOnce(&mut Outgoing, &dyn Fn(&Delivery) -> bool)) {
        if !self.has_acl {
            return;
        }
        let Some(identity) = self.identity_of(key) else { return };
        let Some(session) = self.sessions.get_mut(key) else { return };
        let mut outgoing = std::mem::take(&mut session.outgoing);
        let dropped = RefCell::new(Vec::new());
        change(&mut outgoing, &|delivery| {
            let permitted = self.permits(&identity, &delivery.message.topic, Access::Read);
            if !permitted {
                dropped.borrow_mut().push(delivery.number);
            }
            permitted
        });
        if let Some(session) = self.sessions.get_mut(key) {
            session.outgoing = outgoing;
            for number in dropped.into_inner() {
                session.record_done(number, out);
            }
        }
    }

    /// SIGUSR2.
    pub(super) fn dump_subscriptions(&self, out: &mut Outbox) {
        out.note(Notice::SubscriptionTree { version: MOSQUITTO_VERSION });
        let name = |key: u32| self.sessions.get(key).map(|session| Arc::clone(&session.identity));
        self.local.for_each(|filter, stand| {
            let groups = stand.groups.values().flat_map(|group| group.members.iter().map(|member| (Some(&*group.name), member)));
            for (share_name, subscriber) in stand.subscribers.iter().map(|subscriber| (None, subscriber)).chain(groups) {
                let Some(identity) = name(subscriber.session) else { continue };
                let share = share_name.map(|name| format!("$share/{name}/")).unwrap_or_default();
                out.note(Notice::SubscriptionTreeRow {
                    filter: format!("{share}{filter}"),
                    client_id: identity.client_id.to_string(),
                    qos: subscriber.options.qos as u8,
                });
            }
        });
    }
}
