//! Every way a connection ends, and what becomes of its session.

use super::super::connection::State;
use super::super::deadlines::Timer;
use super::super::interface::{ConnectionId, Origin, Outbox, Time};
use super::super::record::Record;
use super::super::session::NEVER;
use super::super::{Broker, reply};
use crate::mqtt::codec::DecodeError;
use crate::mqtt::{Disconnect, Property, ProtocolVersion, ReasonCode};
use crate::notice::Notice;

impl Broker {
    /// DISCONNECT from the client (3.14).
    pub(super) fn disconnect(&mut self, id: ConnectionId, key: u32, disconnect: &Disconnect, now: Time, out: &mut Outbox) {
        let was_zero = self.connection(id).is_some_and(|connection| connection.session_expiry_was_zero);
        for property in &disconnect.properties {
            if let Property::SessionExpiryInterval(secs) = property {
                if was_zero && *secs > 0 {
                    return self.abort(id, ReasonCode::ProtocolError, now, out); // 3.14.2.2.2
                }
                if let Some(session) = self.sessions.get_mut(key) {
                    session.expiry_secs = *secs;
                }
                self.record_session(key, out);
            }
        }
        if disconnect.reason != ReasonCode::DisconnectWithWillMessage
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.will = None; // [MQTT-3.1.2-10]
        }
        self.note_ended(id, "disconnected", out);
        self.lose_connection(id, now, out);
        out.close(id);
    }

    /// The peer closed, or its socket failed.
    pub(in super::super) fn closed(&mut self, id: ConnectionId, error: Option<String>, now: Time, out: &mut Outbox) {
        match error {
            None => self.note_ended(id, "closed its connection", out),
            Some(error) => self.note_ended(id, &format!("disconnected: {error}"), out),
        }
        self.lose_connection(id, now, out);
    }

    pub(in super::super) fn malformed(&mut self, id: ConnectionId, error: DecodeError, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connection(id) else { return };
        let (version, awaits_connect) = (connection.version, matches!(connection.state, State::AwaitingConnect { .. }));
        self.note_ended(id, &format!("disconnected: {}", error.detail), out);
        if error.is_unanswered {
            // closed without a word
        } else if awaits_connect {
            if error.in_connect_v5 {
                reply::refuse(id, ProtocolVersion::V5, error.reason, out); // 4.13.1
            } else if error.reason == ReasonCode::UnsupportedProtocolVersion {
                // [MQTT-3.1.2-2]: return code 1 is what a client of any version understands.
                reply::refuse(id, ProtocolVersion::V311, error.reason, out);
            }
        } else if version == ProtocolVersion::V5
            && let Some(connection) = self.connection(id)
        {
            reply::disconnect(connection, error.reason, out); // 4.13.1
        }
        self.lose_connection(id, now, out);
        out.close(id);
    }

    /// The client broke a rule: tell it if it can be told, close, and keep its session if that lasts.
    pub(in super::super) fn abort(&mut self, id: ConnectionId, reason: ReasonCode, now: Time, out: &mut Outbox) {
        let why = match reason {
            ReasonCode::NotAuthorized => "disconnected, not authorised".to_owned(),
            ReasonCode::ProtocolError => "disconnected due to protocol error".to_owned(),
            ReasonCode::KeepAliveTimeout => "has exceeded timeout, disconnecting".to_owned(),
            other => format!("disconnected: {}", other.text()),
        };
        self.note_ended(id, &why, out);
        if let Some(connection) = self.connection(id)
            && matches!(connection.state, State::Established { .. })
        {
            reply::disconnect(connection, reason, out);
        }
        self.lose_connection(id, now, out);
        out.close(id);
    }

    fn note_ended(&self, id: ConnectionId, how: &str, out: &mut Outbox) {
        let Some(connection) = self.connection(id) else { return };
        if !self.settings.conf.connection_messages || connection.origin == Origin::Private {
            return;
        }
        let client_id = match &connection.state {
            State::Established { session } => self.sessions.get(*session).map(|session| session.identity.client_id.to_string()),
            State::Authenticating { connect, .. } => Some(connect.client_id.clone()),
            State::AwaitingConnect { .. } => None,
        };
        out.note(Notice::ClientEnded { client_id: client_id.unwrap_or_else(|| "<unknown>".into()), how: how.into() });
    }

    /// Takes the connection out of the tables; its session, if any, is not touched.
    pub(in super::super) fn forget_connection(&mut self, id: ConnectionId) {
        if self.connection(id).is_none() {
            return;
        }
        let Some(connection) = self.connections.take(id.slot()) else { return };
        if let Some(at) = connection.keep_alive_at {
            self.deadlines.clear(at, Timer::KeepAlive(id));
        }
        if let State::AwaitingConnect { until } = connection.state {
            self.deadlines.clear(until, Timer::ConnectTimeout(id));
        }
    }

    /// The connection is gone: its session waits, or ends; its will is published, now or later.
    pub(in super::super) fn lose_connection(&mut self, id: ConnectionId, now: Time, out: &mut Outbox) {
        let key = self.session_key(id);
        self.forget_connection(id);
        let Some(session) = key.and_then(|key| self.sessions.get_mut(key)) else { return };
        let Some(key) = key else { return };
        session.wire = None;
        session.outgoing.disconnected();
        session.replays.clear();
        if session.expiry_secs == 0 {
            self.publish_will(key, now, out);
            self.end_session(key, out);
            return;
        }
        if let Some(at) = self.session_end(key, now)
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.expires_at = Some(at);
            self.deadlines.set(at, Timer::SessionExpiry(key));
        }
        let Some(session) = self.sessions.get_mut(key) else { return };
        match session.will.as_ref().map(|will| will.delay_secs) {
            None => {}
            Some(0) => self.publish_will(key, now, out),
            Some(secs) => {
                // The session's end publishes it if that comes first [MQTT-3.1.3-9].
                let at = now.plus_secs(secs.into());
                session.will_at = Some(at);
                self.deadlines.set(at, Timer::WillDelay(key));
            }
        }
        if let Some(session) = self.sessions.get(key) {
            let (expires_at, will_at) = (session.expires_at, session.will_at);
            session.record(out, |client| Record::Left { client, expires_at, will_at });
        }
    }

    /// When a session left at `now` ends by itself.
    pub(in super::super) fn session_end(&self, key: u32, now: Time) -> Option<Time> {
        let session = self.sessions.get(key)?;
        let own = (session.expiry_secs != NEVER).then(|| u64::from(session.expiry_secs));
        let most = self.settings.conf.persistence.client_expiration_secs;
        let secs = match (own, most) {
            (Some(own), Some(most)) => own.min(most),
            (own, most) => own.or(most)?,
        };
        Some(now.plus_secs(secs))
    }

    pub(in super::super) fn session_expired(&mut self, key: u32, now: Time, out: &mut Outbox) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.wire.is_some() {
            return;
        }
        session.expires_at = None;
        self.counters.expired += 1;
        let client_id = session.identity.client_id.to_string();
        out.note(Notice::SessionExpired { client_id });
        self.publish_will(key, now, out);
        self.end_session(key, out);
    }

    pub(in super::super) fn clear_session_deadlines(&mut self, key: u32) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if let Some(at) = session.expires_at.take() {
            self.deadlines.clear(at, Timer::SessionExpiry(key));
        }
        if let Some(at) = session.will_at.take() {
            self.deadlines.clear(at, Timer::WillDelay(key));
        }
    }

    /// Removes a session and its subscriptions.
    pub(in super::super) fn end_session(&mut self, key: u32, out: &mut Outbox) {
        self.clear_session_deadlines(key);
        let Some(session) = self.sessions.remove(key) else { return };
        self.by_client_id.remove(&*session.identity.client_id);
        for filter in session.subscriptions.keys() {
            self.remove_subscription(key, filter, out);
        }
        self.leave_router(key, out);
        session.record(out, |client| Record::SessionEnded { client });
    }

    pub(in super::super) fn connect_timed_out(&mut self, id: ConnectionId, out: &mut Outbox) {
        if self.connection(id).is_some_and(|connection| matches!(connection.state, State::AwaitingConnect { .. })) {
            self.note_ended(id, "disconnected: no CONNECT in time", out);
            self.forget_connection(id);
            out.close(id);
        }
    }

    /// Due is not yet over: the connection may have spoken since.
    pub(in super::super) fn keep_alive_due(&mut self, id: ConnectionId, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        let over_at = Time(connection.last_packet.0 + connection.silence_max_ms);
        if over_at <= now {
            connection.keep_alive_at = None;
            return self.abort(id, ReasonCode::KeepAliveTimeout, now, out);
        }
        connection.keep_alive_at = Some(over_at);
        self.deadlines.set(over_at, Timer::KeepAlive(id));
    }

    /// Everybody is told where they can be told, and closed.
    pub(in super::super) fn shutdown(&mut self, out: &mut Outbox) {
        let open: Vec<ConnectionId> = self.connections.iter().map(|(_, connection)| connection.id).collect();
        for id in open {
            if let Some(connection) = self.connection(id)
                && matches!(connection.state, State::Established { .. })
            {
                reply::disconnect(connection, ReasonCode::ServerShuttingDown, out);
            }
            out.close(id);
        }
    }
}
