//! CONNECT (3.1): may this client come in, and what does it find.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hashbrown::HashMap;

use super::super::connection::{Connection, State};
use super::super::control::CONTROL;
use super::super::deadlines::Timer;
use super::super::interface::{ConnectionId, Effect, Origin, Outbox, Time};
use super::super::message::Identity;
use super::super::record::{Record, SessionRecord};
use super::super::session::{NEVER, Session};
use super::super::will::Will;
use super::super::wire::Wire;
use super::super::{Broker, CONNECT_TIMEOUT_MS, reply};
use crate::conf::{Listener, ProxyVersion, TlsIdentity};
use crate::mqtt::{Connack, Connect, Packet, Properties, Property, ProtocolVersion, Qos, ReasonCode, topic_name};
use crate::notice::Notice;

/// What the client's CONNECT properties ask for (3.1.2.11), with the specification's defaults.
struct Asked {
    session_expiry_secs: u32,
    receive_maximum: u16,
    packet_size_max: u32,
    topic_alias_max: u16,
    wants_reasons: bool,
    has_authentication_method: bool,
}

impl Asked {
    fn of(connect: &Connect) -> Self {
        let v5 = connect.version == ProtocolVersion::V5;
        let mut asked = Self {
            // In version 3 a session that is not clean lasts until `persistent_client_expiration`.
            session_expiry_secs: if v5 || connect.clean_start { 0 } else { NEVER },
            receive_maximum: u16::MAX,
            packet_size_max: u32::MAX,
            topic_alias_max: 0,
            wants_reasons: true,
            has_authentication_method: false,
        };
        for property in &connect.properties {
            match property {
                Property::SessionExpiryInterval(secs) => asked.session_expiry_secs = *secs,
                Property::ReceiveMaximum(count) => asked.receive_maximum = *count,
                Property::MaximumPacketSize(bytes) => asked.packet_size_max = *bytes,
                Property::TopicAliasMaximum(count) => asked.topic_alias_max = *count,
                Property::RequestProblemInformation(wanted) => asked.wants_reasons = *wanted != 0,
                Property::AuthenticationMethod(_) => asked.has_authentication_method = true,
                _ => {}
            }
        }
        asked
    }
}

impl Broker {
    pub(in super::super) fn opened(
        &mut self,
        id: ConnectionId,
        origin: Origin,
        (peer, certificate_user): (String, Option<String>),
        now: Time,
        out: &mut Outbox,
    ) {
        self.counters.sockets += 1;
        if let (true, Some(listener)) = (self.settings.conf.connection_messages, self.listener(&origin)) {
            out.note(Notice::NewConnection { peer: peer.clone(), port: listener.port });
        }
        let until = Time(now.0 + CONNECT_TIMEOUT_MS);
        self.deadlines.set(until, Timer::ConnectTimeout(id));
        let connection = Connection {
            id,
            origin,
            peer: peer.into(),
            certificate_user: certificate_user.map(Into::into),
            state: State::AwaitingConnect { until },
            version: ProtocolVersion::V5,
            last_packet: now,
            silence_max_ms: 0,
            keep_alive_at: None,
            aliases: Vec::new(),
            packet_size_max: u32::MAX,
            unreleased: BTreeSet::new(),
            repeated: BTreeSet::new(),
            session_expiry_was_zero: false,
            wants_reasons: true,
        };
        self.connections.put(id.slot(), connection);
    }

    /// `None` for the private socket.
    pub(in super::super) fn listener(&self, origin: &Origin) -> Option<&Listener> {
        match origin {
            Origin::Listener(index) => self.settings.conf.listeners.get(*index),
            Origin::Private => None,
        }
    }

    pub(super) fn connect(&mut self, id: ConnectionId, mut connect: Box<Connect>, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        let State::AwaitingConnect { until } = connection.state else { return };
        connection.version = connect.version;
        self.deadlines.clear(until, Timer::ConnectTimeout(id));
        self.counters.connects += 1;
        let is_certified = match self.take_certificate_user(id, &mut connect) {
            Ok(is_certified) => is_certified,
            Err(reason) => return self.refuse(id, &connect, reason, out),
        };
        if let Err(reason) = self.check_connect(id, &mut connect) {
            return self.refuse(id, &connect, reason, out);
        }
        let Some((security, trusted)) = self.security_of(id) else { return };
        let Some(security_conf) = self.settings.conf.security.get(security) else {
            return self.refuse(id, &connect, ReasonCode::NotAuthorized, out);
        };
        let has_passwords = self.settings.security.get(security).is_some_and(|tables| tables.passwords.is_some());
        let permitted = match (&connect.username, &connect.password) {
            _ if trusted || is_certified => true,
            (None, _) => security_conf.allow_anonymous,
            // Without a password file any credentials pass where anonymous clients do, and none where they do not.
            (Some(_), _) if !has_passwords => security_conf.allow_anonymous,
            (Some(username), Some(password)) if !password.is_empty() => {
                let effect = Effect::Authenticate { connection: id, security, username: username.clone(), password: password.clone() };
                out.effects.push(effect);
                if let Some(connection) = self.connection_mut(id) {
                    connection.state = State::Authenticating { connect, early: Vec::new() };
                }
                return;
            }
            // No password, or an empty one, is nobody's.
            (Some(_), _) => false,
        };
        if permitted {
            self.accept(id, &connect, now, out);
        } else {
            self.refuse(id, &connect, ReasonCode::NotAuthorized, out);
        }
    }

    /// `use_identity_as_username` and `use_subject_as_username`: the certificate says who the client is, and no password is asked for.
    fn take_certificate_user(&self, id: ConnectionId, connect: &mut Connect) -> Result<bool, ReasonCode> {
        let Some(connection) = self.connection(id) else { return Ok(false) };
        let listener = self.listener(&connection.origin);
        if !listener.is_some_and(|listener| listener.knows_certificates() && listener.tls.identity != TlsIdentity::Client) {
            return Ok(false);
        }
        connect.username = Some(connection.certificate_user.as_deref().ok_or(ReasonCode::BadUserNameOrPassword)?.into());
        connect.password = None;
        Ok(true)
    }

    /// Whether it is the proxy that says who the client is.
    fn is_named_by_proxy(&self, connection: &Connection) -> bool {
        let listener = self.listener(&connection.origin);
        listener.is_some_and(|listener| listener.proxy == Some(ProxyVersion::V2) && listener.tls.identity != TlsIdentity::Client)
    }

    /// (index of the security settings, trusted)
    fn security_of(&self, id: ConnectionId) -> Option<(usize, bool)> {
        let origin = &self.connection(id)?.origin;
        Some(self.listener(origin).map_or((0, true), |listener| (listener.security, false)))
    }

    pub(in super::super) fn authenticated(&mut self, id: ConnectionId, permitted: bool, now: Time, out: &mut Outbox) {
        let Some(connection) = self.connection_mut(id) else { return };
        let State::Authenticating { connect, early } = &mut connection.state else { return };
        let (connect, early) = (connect.clone(), std::mem::take(early));
        if permitted {
            self.accept(id, &connect, now, out);
            self.handle_early(id, &early, now, out);
        } else {
            self.refuse(id, &connect, ReasonCode::NotAuthorized, out);
        }
    }

    /// The rules that need no password; fills in a made-up Client Identifier.
    fn check_connect(&mut self, id: ConnectionId, connect: &mut Connect) -> Result<(), ReasonCode> {
        let Some(origin) = self.connection(id).map(|connection| connection.origin.clone()) else { return Ok(()) };
        let (accepts, max_qos, username_is_id, security) = match self.listener(&origin) {
            Some(listener) => (
                listener.accept_protocol_versions.is_empty() || listener.accept_protocol_versions.contains(&connect.version),
                listener.max_qos,
                listener.use_username_as_clientid,
                listener.security,
            ),
            None => (true, Qos::ExactlyOnce, false, 0),
        };
        if !accepts {
            return Err(ReasonCode::UnsupportedProtocolVersion);
        }
        if Asked::of(connect).has_authentication_method {
            return Err(ReasonCode::BadAuthenticationMethod); // 4.12
        }
        if let Some(will) = &connect.will {
            if will.qos > max_qos {
                return Err(ReasonCode::QosNotSupported); // [MQTT-3.2.2-12]
            }
            if will.retain && !self.settings.conf.retain_available {
                return Err(ReasonCode::RetainNotSupported); // [MQTT-3.2.2-13]
            }
            if will.topic.starts_with(CONTROL) {
                return Err(ReasonCode::NotAuthorized); // as mosquitto
            }
            if !topic_name::is_valid(&will.topic) {
                return Err(ReasonCode::TopicNameInvalid);
            }
            if self.settings.conf.limits.payload_size.is_some_and(|max| will.payload.len() > max as usize) {
                // Version 3 has no code for it; mosquitto says 5.
                let v5 = connect.version == ProtocolVersion::V5;
                return Err(if v5 { ReasonCode::PacketTooLarge } else { ReasonCode::NotAuthorized });
            }
        }
        if connect.client_id.is_empty() {
            self.make_up_client_id(connect, security)?;
        } else if let Some(prefixes) = &self.settings.conf.clientid_prefixes
            && !connect.client_id.starts_with(prefixes.as_str())
        {
            return Err(ReasonCode::NotAuthorized);
        }
        if connect.version != ProtocolVersion::V5 && self.keep_alive_secs(connect.keep_alive) != connect.keep_alive {
            // Version 3 cannot be told another Keep Alive; mosquitto refuses with code 2.
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if username_is_id {
            connect.client_id = connect.username.clone().ok_or(ReasonCode::NotAuthorized)?;
        }
        Ok(())
    }

    /// For a zero-length Client Identifier `[MQTT-3.1.3-6]`; in version 3 only with Clean Session `[MQTT-3.1.3-8]`.
    fn make_up_client_id(&mut self, connect: &mut Connect, security: usize) -> Result<(), ReasonCode> {
        let security = self.settings.conf.security.get(security);
        let allowed = security.is_none_or(|security| security.allow_zero_length_clientid);
        let possible = connect.version == ProtocolVersion::V5 || (connect.version == ProtocolVersion::V311 && connect.clean_start);
        if !allowed || !possible {
            // mosquitto's codes: 0x80 and 2.
            let v5 = connect.version == ProtocolVersion::V5;
            return Err(if v5 { ReasonCode::UnspecifiedError } else { ReasonCode::ClientIdentifierNotValid });
        }
        let prefix = security.map_or_else(String::new, |security| security.auto_id_prefix.clone());
        let (high, low) = (self.random(), self.random());
        connect.client_id = format!(
            "{prefix}{:08X}-{:04X}-{:04X}-{:04X}-{:012X}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        );
        connect.properties.push(Property::AssignedClientIdentifier(connect.client_id.as_str().into()));
        Ok(())
    }

    fn refuse(&mut self, id: ConnectionId, connect: &Connect, reason: ReasonCode, out: &mut Outbox) {
        reply::refuse(id, connect.version, reason, out);
        if self.settings.conf.connection_messages && self.connection(id).is_some_and(|connection| connection.origin != Origin::Private) {
            let why = if reason == ReasonCode::NotAuthorized { "not authorised" } else { reason.text() };
            let client_id = connect.client_id.clone();
            // Only mosquitto 2.1 knows proxies, and names the client so.
            out.note(match self.connection(id).filter(|connection| self.is_named_by_proxy(connection)) {
                Some(connection) => Notice::ProxiedRefused { client_id, peer: connection.peer.to_string() },
                None => Notice::ClientRefused { client_id, why },
            });
        }
        self.forget_connection(id);
        out.close(id);
    }

    /// Everything is permitted: find or make the session, answer, and send what waited.
    fn accept(&mut self, id: ConnectionId, connect: &Connect, now: Time, out: &mut Outbox) {
        let Some((security, trusted)) = self.security_of(id) else { return };
        let known = self.by_client_id.get(connect.client_id.as_str()).copied();
        let full = |max: Option<u32>| max.is_some_and(|max| self.by_client_id.len() >= max as usize);
        if known.is_none() && !trusted && (self.memory_full || full(self.settings.conf.limits.global_clients)) {
            return self.refuse(id, connect, ReasonCode::ServerBusy, out);
        }
        let asked = Asked::of(connect);
        if self.refuses_to_keep && self.persists && known.is_none() && asked.session_expiry_secs > 0 {
            let v5 = connect.version == ProtocolVersion::V5;
            return self.refuse(id, connect, if v5 { ReasonCode::QuotaExceeded } else { ReasonCode::ServerUnavailable }, out);
        }
        let identity = Arc::new(Identity {
            client_id: connect.client_id.as_str().into(),
            username: connect.username.as_deref().map(Into::into),
            security,
            trusted,
        });
        let resumed = known.and_then(|key| self.take_over(key, connect.clean_start, now, out));
        let session_present = resumed.is_some();
        let session = self.session_for(id, connect, &asked, identity, resumed);
        let key = self.place_session(session, known.filter(|_| session_present));
        self.join_router(key, out);
        self.establish(id, key, connect, &asked, now);
        self.note_connected(id, connect, out);
        self.record_session(key, out);
        if !self.send_connack(id, connect, session_present, out) {
            // Even this packet is larger than the client takes.
            self.lose_connection(id, now, out);
            return out.close(id);
        }
        self.drop_what_is_denied(key, out);
        self.drop_denied_in_flight(key, out);
        if let Some(session) = self.sessions.get_mut(key) {
            session.resend(now, out);
        }
        self.pump(key, now, out);
    }

    /// Ends the connection of a session that is there `[MQTT-3.1.4-3]`; gives the session back if it goes on.
    fn take_over(&mut self, key: u32, clean_start: bool, now: Time, out: &mut Outbox) -> Option<Session> {
        if let Some(old) = self.sessions.get(key).and_then(|session| session.wire.as_ref()).map(|wire| wire.connection) {
            if let Some(connection) = self.connection(old) {
                reply::disconnect(connection, ReasonCode::SessionTakenOver, out);
                if self.settings.conf.connection_messages && connection.origin != Origin::Private {
                    let client_id = self.sessions.get(key).map(|session| session.identity.client_id.to_string()).unwrap_or_default();
                    out.note(Notice::TakenOver { client_id });
                }
            }
            self.forget_connection(old);
            out.close(old);
        }
        let session = self.sessions.get_mut(key)?;
        session.wire = None;
        let ends = clean_start || session.expiry_secs == 0;
        // As mosquitto: a session that goes on has lost nothing, so its will is not published; one that ends has.
        if ends {
            self.publish_will(key, now, out);
        }
        let session = self.sessions.get_mut(key)?;
        session.will = None;
        self.clear_session_deadlines(key);
        if ends {
            self.end_session(key, out);
            return None;
        }
        self.sessions.remove(key)
    }

    fn session_for(
        &self,
        id: ConnectionId,
        connect: &Connect,
        asked: &Asked,
        identity: Arc<Identity>,
        resumed: Option<Session>,
    ) -> Session {
        let listener = self.connection(id).and_then(|connection| self.listener(&connection.origin));
        let mount_point = listener.and_then(|listener| listener.mount_point.as_deref());
        let will = connect.will.as_ref().map(|will| Arc::new(Will::new(will, mount_point, &identity)));
        let (is_recorded, last_record) = resumed.as_ref().map_or((false, 0), |session| (session.is_recorded, session.last_record));
        let (subscriptions, mut outgoing, incoming) = match resumed {
            Some(session) => (session.subscriptions, session.outgoing, session.incoming),
            None => Default::default(),
        };
        outgoing.window = asked.receive_maximum.min(self.settings.conf.limits.inflight_messages.unwrap_or(u16::MAX));
        Session {
            identity,
            version: connect.version,
            wire: Some(Wire {
                connection: id,
                v5: connect.version == ProtocolVersion::V5,
                congested: false,
                packet_size_max: asked.packet_size_max,
                topic_alias_max: asked.topic_alias_max.min(listener.map_or(0, |listener| listener.max_topic_alias_broker)),
                topic_aliases: HashMap::new(),
            }),
            expiry_secs: asked.session_expiry_secs,
            expires_at: None,
            subscriptions,
            replays: VecDeque::new(),
            outgoing,
            incoming,
            will,
            will_at: None,
            mount_point: mount_point.map(Into::into),
            max_qos: listener.map_or(Qos::ExactlyOnce, |listener| listener.max_qos),
            is_dropping: false,
            is_recorded,
            last_record,
        }
    }

    /// A resumed session keeps its number, by which its subscriptions know it.
    fn place_session(&mut self, session: Session, key: Option<u32>) -> u32 {
        let client_id = session.identity.client_id.clone();
        // `Slots` gives the number that was freed last first, which is the resumed session's own.
        let at = self.sessions.insert(session);
        debug_assert!(key.is_none_or(|key| key == at), "a resumed session keeps its number");
        self.by_client_id.insert(client_id, at);
        at
    }

    fn establish(&mut self, id: ConnectionId, key: u32, connect: &Connect, asked: &Asked, now: Time) {
        let keep_alive = self.keep_alive_secs(connect.keep_alive);
        let Some(connection) = self.connection_mut(id) else { return };
        connection.state = State::Established { session: key };
        connection.session_expiry_was_zero = asked.session_expiry_secs == 0;
        connection.wants_reasons = asked.wants_reasons;
        connection.packet_size_max = asked.packet_size_max;
        connection.silence_max_ms = u64::from(keep_alive) * 1500; // [MQTT-3.1.2-22]
        if keep_alive > 0 {
            let at = Time(now.0 + connection.silence_max_ms);
            connection.keep_alive_at = Some(at);
            self.deadlines.set(at, Timer::KeepAlive(id));
        }
    }

    /// Keep Alive in seconds after `max_keepalive`.
    fn keep_alive_secs(&self, asked: u16) -> u16 {
        match self.settings.conf.limits.keepalive_secs {
            Some(max) if max > 0 && (asked == 0 || asked > max) => max,
            _ => asked,
        }
    }

    fn note_connected(&self, id: ConnectionId, connect: &Connect, out: &mut Outbox) {
        let Some(connection) = self.connection(id) else { return };
        if self.settings.conf.connection_messages && connection.origin != Origin::Private {
            let version = if connect.version == ProtocolVersion::V5 { 5 } else { connect.version as u8 - 2 };
            let username = connect.username.as_ref().map(|name| format!(", u'{name}'")).unwrap_or_default();
            out.note(Notice::ClientConnected {
                peer: connection.peer.to_string(),
                client_id: connect.client_id.clone(),
                version,
                clean: u8::from(connect.clean_start),
                keep_alive_secs: connect.keep_alive,
                username,
            });
        }
    }

    fn send_connack(&mut self, id: ConnectionId, connect: &Connect, session_present: bool, out: &mut Outbox) -> bool {
        let mut properties = Properties::new();
        if connect.version == ProtocolVersion::V5 {
            let limits = &self.settings.conf.limits;
            let keep_alive = self.keep_alive_secs(connect.keep_alive);
            if keep_alive != connect.keep_alive {
                properties.push(Property::ServerKeepAlive(keep_alive)); // [MQTT-3.2.2-21]
            }
            let listener = self.connection(id).and_then(|connection| self.listener(&connection.origin));
            if let Some(listener) = listener.filter(|listener| listener.max_topic_alias > 0) {
                properties.push(Property::TopicAliasMaximum(listener.max_topic_alias));
            }
            properties.extend(connect.properties.iter().filter(|p| matches!(p, Property::AssignedClientIdentifier(_))).cloned());
            if !self.settings.conf.retain_available {
                properties.push(Property::RetainAvailable(0));
            }
            if let Some(bytes) = limits.packet_size {
                properties.push(Property::MaximumPacketSize(bytes));
            }
            if let Some(count) = limits.inflight_messages {
                properties.push(Property::ReceiveMaximum(count));
            }
            if let Some(listener) = listener.filter(|listener| listener.max_qos != Qos::ExactlyOnce) {
                properties.push(Property::MaximumQos(listener.max_qos as u8));
            }
        }
        // Version 3.1 has no Session Present flag.
        let session_present = session_present && connect.version != ProtocolVersion::V31;
        self.reply(id, &Packet::Connack(Connack { session_present, reason: ReasonCode::Success, properties }), out)
    }

    /// A durable session is recorded from its first connection on; one that becomes transient is forgotten.
    pub(in super::super) fn record_session(&mut self, key: u32, out: &mut Outbox) {
        let persists = self.persists;
        let Some(session) = self.sessions.get_mut(key) else { return };
        if persists && session.is_durable() {
            session.is_recorded = true;
            let (version, expiry_secs, max_qos) = (session.version, session.expiry_secs, session.max_qos);
            let (mount_point, will) = (session.mount_point.clone(), session.will.clone());
            let last_packet_id = session.outgoing.recorded_packet_id;
            session.record(out, |client| {
                Record::Session(Box::new(SessionRecord { client, version, expiry_secs, mount_point, max_qos, will, last_packet_id }))
            });
        } else {
            session.record(out, |client| Record::SessionEnded { client });
            session.is_recorded = false;
        }
    }
}
