//! What differs between two configurations, and when each difference takes effect.

use std::fmt::Display;
use std::path::Path;

use super::options::{self, Effect};
use super::{Conf, Listener, Persistence, Security, TlsIdentity};

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub option: &'static str,
    pub effect: Effect,
    /// "user: mosquitto → root", "listener 1884 is new".
    pub what: String,
}

type Value<T> = (&'static str, fn(&T) -> String);

fn shown<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "none".into(), |value| value.to_string())
}

fn file(value: Option<&Path>) -> String {
    shown(value.map(Path::display))
}

const GLOBAL: &[Value<Conf>] = &[
    ("allow_duplicate_messages", |c| c.allow_duplicate_messages.to_string()),
    ("autosave_interval", |c| c.persistence.autosave_interval_secs.to_string()),
    ("autosave_on_changes", |c| c.persistence.autosave_on_changes.to_string()),
    ("check_retain_source", |c| c.check_retain_source.to_string()),
    ("clientid_prefixes", |c| shown(c.clientid_prefixes.as_ref())),
    ("connection_messages", |c| c.connection_messages.to_string()),
    ("durability", |c| c.persistence.durability.word().to_owned()),
    ("engine", |c| c.engine.word().to_owned()),
    ("enable_control_api", |c| c.control_api.to_string()),
    ("global_max_clients", |c| shown(c.limits.global_clients)),
    ("global_max_connections", |c| shown(c.limits.global_connections)),
    ("log_dest", |c| format!("{:?}", c.log.destinations)),
    ("log_facility", |c| shown(c.log.facility)),
    ("log_timestamp", |c| c.log.timestamp.to_string()),
    ("log_timestamp_format", |c| shown(c.log.timestamp_format.as_ref())),
    ("log_type", |c| format!("{:?}", c.log.types)),
    ("max_inflight_bytes", |c| shown(c.limits.inflight_bytes)),
    ("max_inflight_messages", |c| shown(c.limits.inflight_messages)),
    ("max_keepalive", |c| shown(c.limits.keepalive_secs)),
    ("max_packet_size", |c| shown(c.limits.packet_size)),
    ("max_queued_bytes", |c| shown(c.limits.queued_bytes)),
    ("max_queued_messages", |c| shown(c.limits.queued_messages)),
    ("memory_limit", |c| shown(c.limits.memory_bytes)),
    ("message_size_limit", |c| shown(c.limits.payload_size)),
    ("per_listener_settings", |c| c.per_listener_settings.to_string()),
    ("persistence", |c| c.persistence.enabled.to_string()),
    ("persistence_file", |c| c.persistence.file.clone()),
    ("persistence_location", |c| file(c.persistence.location.as_deref())),
    ("persistent_client_expiration", |c| shown(c.persistence.client_expiration_secs)),
    ("pid_file", |c| file(c.pid_file.as_deref())),
    ("queue_qos0_messages", |c| c.queue_qos0_messages.to_string()),
    ("retain_available", |c| c.retain_available.to_string()),
    ("set_tcp_nodelay", |c| c.set_tcp_nodelay.to_string()),
    ("sys_interval", |c| c.sys_interval_secs.to_string()),
    ("upgrade_outgoing_qos", |c| c.upgrade_outgoing_qos.to_string()),
    ("user", |c| c.user.clone()),
    ("websockets_headers_size", |c| c.limits.websockets_headers.to_string()),
];

const LISTENER: &[Value<Listener>] = &[
    ("accept_protocol_versions", |l| format!("{:?}", l.accept_protocol_versions)),
    ("bind_interface", |l| shown(l.bind_interface.as_ref())),
    ("cafile", |l| file(l.tls.cafile.as_deref())),
    ("capath", |l| file(l.tls.capath.as_deref())),
    ("certfile", |l| file(l.tls.certfile.as_deref())),
    ("ciphers", |l| shown(l.tls.ciphers.as_ref())),
    ("ciphers_tls1.3", |l| shown(l.tls.ciphers_tls13.as_ref())),
    ("crlfile", |l| file(l.tls.crlfile.as_deref())),
    ("disable_client_cert_date_checks", |l| l.tls.without_dates.to_string()),
    ("enable_proxy_protocol", |l| shown(l.proxy.map(|version| version as u8 + 1))),
    ("keyfile", |l| file(l.tls.keyfile.as_deref())),
    ("max_connections", |l| shown(l.max_connections)),
    ("max_qos", |l| (l.max_qos as u8).to_string()),
    ("max_topic_alias", |l| l.max_topic_alias.to_string()),
    ("max_topic_alias_broker", |l| l.max_topic_alias_broker.to_string()),
    ("mount_point", |l| shown(l.mount_point.as_ref())),
    ("protocol", |l| format!("{:?}", l.protocol).to_ascii_lowercase()),
    ("proxy_protocol_v2_require_tls", |l| l.proxy_requires_tls.to_string()),
    ("require_certificate", |l| l.tls.require_certificate.to_string()),
    ("socket_domain", |l| format!("{:?}", l.socket_domain).to_ascii_lowercase()),
    ("tls_version", |l| shown(l.tls.version.as_ref())),
    ("use_identity_as_username", |l| (l.tls.identity == TlsIdentity::CommonName).to_string()),
    ("use_subject_as_username", |l| (l.tls.identity == TlsIdentity::Subject).to_string()),
    ("use_username_as_clientid", |l| l.use_username_as_clientid.to_string()),
    ("websockets_origin", |l| l.websockets_origins.join(", ")),
];

const SECURITY: &[Value<Security>] = &[
    ("acl_file", |s| file(s.acl_file.as_deref())),
    ("allow_anonymous", |s| s.allow_anonymous.to_string()),
    ("allow_zero_length_clientid", |s| s.allow_zero_length_clientid.to_string()),
    ("auto_id_prefix", |s| s.auto_id_prefix.clone()),
    ("password_file", |s| file(s.password_file.as_deref())),
];

fn compare<T>(values: &[Value<T>], place: &str, old: &T, new: &T, changes: &mut Vec<Change>) {
    for (option, value) in values {
        let (before, after) = (value(old), value(new));
        if before != after {
            let effect = options::find(option).map_or(Effect::OnRestart, |row| row.effect);
            changes.push(Change { option, effect, what: format!("{place}{option}: {before} → {after}") });
        }
    }
}

/// What people call a listener.
fn name(listener: &Listener) -> String {
    match (&listener.unix_path, &listener.host) {
        (Some(path), _) => format!("listener 0 {}", path.display()),
        (None, Some(host)) => format!("listener {} {host}", listener.port),
        (None, None) => format!("listener {}", listener.port),
    }
}

fn same_place(a: &Listener, b: &Listener) -> bool {
    (a.port, &a.host, &a.unix_path, &a.bind_interface, a.socket_domain)
        == (b.port, &b.host, &b.unix_path, &b.bind_interface, b.socket_domain)
}

/// Every difference of meaning, in the order of the options' names, then listener by listener.
pub fn diff(old: &Conf, new: &Conf) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(GLOBAL, "", old, new, &mut changes);
    let opened = |what: String| Change { option: "listener", effect: Effect::OnRestart, what };
    if old.local_only != new.local_only {
        let what = if new.local_only {
            "only this machine may connect: no listener is left"
        } else {
            "other machines may connect: a listener is set"
        };
        changes.push(opened(what.into()));
    }
    for listener in &new.listeners {
        let place = name(listener);
        let Some(before) = old.listeners.iter().find(|before| same_place(before, listener)) else {
            changes.push(opened(format!("{place} is new")));
            continue;
        };
        compare(LISTENER, &format!("{place}: "), before, listener, &mut changes);
        if let (Some(a), Some(b)) = (old.security.get(before.security), new.security.get(listener.security)) {
            let place = if new.listeners.len() > 1 { format!("{place}: ") } else { String::new() };
            compare(SECURITY, &place, a, b, &mut changes);
        }
    }
    for listener in &old.listeners {
        if !new.listeners.iter().any(|after| same_place(listener, after)) {
            changes.push(opened(format!("{} is gone", name(listener))));
        }
    }
    changes
}

/// The differences that a reload does not bring about, a line each.
pub fn restart_only(old: &Conf, new: &Conf) -> Vec<String> {
    diff(old, new)
        .into_iter()
        .filter(|change| change.effect == Effect::OnRestart)
        .map(|change| format!("{} (takes effect at the next restart)", change.what))
        .collect()
}

/// What a running broker goes on with when `new` takes over from `old` on the same sockets: the values that take effect only at a
/// restart stay the old ones. Says a line for each of them.
pub fn keep_until_restart(old: &Conf, new: &mut Conf) -> Vec<String> {
    let lines = restart_only(old, new);
    new.user.clone_from(&old.user);
    new.pid_file.clone_from(&old.pid_file);
    // The store that was opened goes on.
    let client_expiration_secs = new.persistence.client_expiration_secs;
    new.persistence = Persistence { client_expiration_secs, ..old.persistence.clone() };
    new.engine = old.engine;
    for listener in &mut new.listeners {
        // Sessions carry the prefix of their topics: one listener must not have two.
        if let Some(before) = old.listeners.iter().find(|before| same_place(before, listener)) {
            listener.mount_point.clone_from(&before.mount_point);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Durability;
    use crate::conf::options::{OPTIONS, Scope, Support};

    #[test]
    fn every_honoured_option_is_compared() {
        let compared: Vec<_> = GLOBAL.iter().map(|v| v.0).chain(LISTENER.iter().map(|v| v.0)).chain(SECURITY.iter().map(|v| v.0)).collect();
        // These are seen in what they lead to: listeners, and the fields of the options above.
        let seen_elsewhere = [
            "bind_address",
            "include_dir",
            "listener",
            "listener_allow_anonymous",
            "listener_auto_id_prefix",
            "port",
            // darner sweeps by itself.
            "retain_expiry_interval",
        ];
        for row in OPTIONS {
            let read =
                matches!(row.support, Support::Honoured | Support::Obsolete(_)) && !matches!(row.scope, Scope::Plugin | Scope::Bridge);
            if read && !row.name.starts_with("plugin") && !seen_elsewhere.contains(&row.name) {
                assert!(compared.contains(&row.name), "{}", row.name);
            }
        }
    }

    #[test]
    fn a_listener_waits_for_a_restart_and_a_password_file_does_not() {
        let old = Conf::default();
        let mut new = old.clone();
        assert_eq!(diff(&old, &new), []);
        new.security[0].password_file = Some("/p".into());
        new.limits.queued_messages = None;
        assert_eq!(diff(&old, &new).len(), 2);
        assert_eq!(restart_only(&old, &new), Vec::<String>::new());
        new.listeners.push(Listener { port: 1884, max_connections: Some(1), ..Listener::default() });
        new.user = "root".into();
        let lines = restart_only(&old, &new);
        assert_eq!(
            lines,
            ["user: mosquitto → root (takes effect at the next restart)", "listener 1884 is new (takes effect at the next restart)"]
        );
        let mut kept = Conf { user: "root".into(), ..old.clone() };
        assert_eq!(keep_until_restart(&old, &mut kept).len(), 1);
        assert_eq!(kept, old);
        let mut kept = old.clone();
        (kept.persistence.enabled, kept.persistence.durability) = (true, Durability::Power);
        kept.persistence.client_expiration_secs = Some(60);
        let lines = keep_until_restart(&old, &mut kept);
        assert_eq!(lines[0], "durability: process → power (takes effect at the next restart)");
        assert_eq!(lines.len(), 2);
        assert_eq!((kept.persistence.enabled, kept.persistence.durability), (false, Durability::Process));
        assert_eq!(kept.persistence.client_expiration_secs, Some(60));
        assert_eq!(restart_only(&new, &old).last().map(String::as_str), Some("listener 1884 is gone (takes effect at the next restart)"));
    }
}
