//! Draft → [`Conf`]: the default listener, defaults that depend on other options, rules between listeners.

use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Severity};
use super::draft::{Draft, ListenerDraft, SecurityDraft};
use super::value::LOG_TYPES;
use super::{CommandLine, Conf, Listener, LogDestination, Protocol, ProxyVersion, SocketDomain, TlsIdentity};

fn found(severity: Severity, at: Option<(&Path, usize)>, message: String, hint: Option<String>) -> Diagnostic {
    Diagnostic { severity, file: at.map(|(file, _)| file.to_owned()), line: at.map(|(_, line)| line), message, hint }
}

/// Applies what stands between the lines. Findings are added to `diagnostics`.
pub(super) fn finish(mut draft: Draft, source: Option<&Path>, command_line: &CommandLine, diagnostics: &mut Vec<Diagnostic>) -> Conf {
    let mut conf = std::mem::take(&mut draft.conf);
    conf.source = source.map(Path::to_owned);
    conf.local_only = draft.listeners.is_empty() && !draft.default_is_open;
    if let Some(types) = draft.log_types.take() {
        conf.log.types = types;
    }
    if let Some(destinations) = draft.log_destinations.take() {
        conf.log.destinations = destinations;
    }
    if command_line.verbose {
        conf.log.types = LOG_TYPES.iter().map(|(_, log_type)| *log_type).collect();
    }
    if command_line.quiet {
        conf.log.destinations = vec![LogDestination::None];
    }
    if command_line.ports.len() > CommandLine::PORTS_MAX {
        let message = format!("Only {} ports can be specified on the command line.", CommandLine::PORTS_MAX);
        diagnostics.push(found(Severity::Error, None, message, None));
    }
    let listeners = listeners(&mut draft, conf.local_only, command_line, diagnostics);
    security(&mut conf, &draft.security, listeners);
    conf
}

fn listeners(draft: &mut Draft, local_only: bool, command_line: &CommandLine, diagnostics: &mut Vec<Diagnostic>) -> Vec<ListenerDraft> {
    let default = std::mem::take(&mut draft.default_listener);
    let mut listeners = std::mem::take(&mut draft.listeners);
    if local_only {
        let ports = if command_line.ports.is_empty() { vec![default.listener.port] } else { command_line.ports.clone() };
        for port in ports {
            listeners.push(ListenerDraft { listener: Listener { port, ..default.listener.clone() }, ..default.clone() });
        }
        return listeners;
    }
    if !command_line.ports.is_empty() {
        let message = "-p is ignored: the configuration file has a listener.";
        diagnostics.push(found(Severity::Notice, None, message.into(), None));
    }
    let opened_by = draft.default_opened_by.take();
    if draft.default_is_open || opened_by.is_some() {
        if let (false, Some((name, file, line))) = (draft.default_is_open, &opened_by) {
            diagnostics.push(found(
                Severity::Warning,
                Some((file, *line)),
                format!("{name} stands before the first `listener`, and so opens the default listener on port 1883, as in mosquitto."),
                Some("Move it below the listener that it is meant for.".into()),
            ));
        }
        let at = default.at.clone().or(opened_by.map(|(_, file, line)| (file, line)));
        listeners.push(ListenerDraft { at, ..default });
    } else {
        for (name, file, line) in &draft.default_security {
            diagnostics.push(found(
                Severity::Warning,
                Some((file, *line)),
                format!("{name} stands before the first `listener` under per_listener_settings, so it applies to no listener."),
                Some("Move it below the listener that it is meant for.".into()),
            ));
        }
    }
    same_address(&listeners, diagnostics);
    for draft in &listeners {
        tls(draft, diagnostics);
        websockets(draft, diagnostics);
        proxy(draft, diagnostics);
    }
    listeners
}

/// Half of what TLS needs is a listener that its clients take for a safe one.
fn tls(draft: &ListenerDraft, diagnostics: &mut Vec<Diagnostic>) {
    let tls = &draft.listener.tls;
    let at = draft.at.as_ref().map(|(file, line)| (file.as_path(), *line));
    let name = draft.listener.unix_path.as_ref().map_or_else(|| format!("port {}", draft.listener.port), |path| path.display().to_string());
    let half = match (&tls.certfile, &tls.keyfile) {
        (Some(_), None) => Some("certfile without keyfile"),
        (None, Some(_)) => Some("keyfile without certfile"),
        _ => None,
    };
    let asks_for_certificates = tls.require_certificate || tls.identity != TlsIdentity::Client;
    if let (Some(half), None) = (half, &draft.listener.unix_path) {
        let message = format!("The listener on {name} has {half}, and would not speak TLS.");
        diagnostics.push(found(Severity::Error, at, message, Some("Give both, or neither.".into())));
    } else if asks_for_certificates && !draft.listener.knows_certificates() {
        let message = format!("The listener on {name} has no certfile and keyfile, so nobody is asked for a certificate, as in mosquitto.");
        diagnostics.push(found(Severity::Warning, at, message, None));
    }
    if tls.version.as_deref() == Some("tlsv1.1") {
        let message = format!("tls_version tlsv1.1 is taken as tlsv1.2 on {name}: TLS 1.1 is broken, and is not offered.");
        diagnostics.push(found(Severity::Warning, at, message, None));
    }
}

fn websockets(draft: &ListenerDraft, diagnostics: &mut Vec<Diagnostic>) {
    let listener = &draft.listener;
    if !listener.websockets_origins.is_empty() && listener.protocol != Protocol::Websockets {
        let at = draft.at.as_ref().map(|(file, line)| (file.as_path(), *line));
        let message =
            format!("websockets_origin has no effect on the listener of port {}: it has no `protocol websockets`.", listener.port);
        diagnostics.push(found(Severity::Warning, at, message, None));
    }
}

/// Where the proxy does TLS, it is the proxy that knows the certificates.
fn proxy(draft: &ListenerDraft, diagnostics: &mut Vec<Diagnostic>) {
    let listener = &draft.listener;
    let at = draft.at.as_ref().map(|(file, line)| (file.as_path(), *line));
    let mut refuse = |what: &str, hint: &str| {
        let message = format!("{what} cannot be used with `enable_proxy_protocol 2`.");
        diagnostics.push(found(Severity::Error, at, message, Some(hint.into())));
    };
    if listener.proxy == Some(ProxyVersion::V2) {
        if listener.tls.identity == TlsIdentity::Subject {
            refuse("use_subject_as_username", "The proxy tells only the common name: see use_identity_as_username.");
        }
        if listener.tls.certfile.is_some() || listener.tls.keyfile.is_some() {
            refuse("certfile and keyfile", "The proxy does TLS, and tells about it.");
        }
    } else if listener.proxy_requires_tls {
        let message = format!(
            "proxy_protocol_v2_require_tls has no effect on the listener of port {}: it has no `enable_proxy_protocol 2`.",
            listener.port
        );
        diagnostics.push(found(Severity::Error, at, message, Some("Give both, or neither.".into())));
    }
}

/// Two listeners of one address: mosquitto fails when it binds the second.
fn same_address(listeners: &[ListenerDraft], diagnostics: &mut Vec<Diagnostic>) {
    fn families(listener: &Listener) -> [bool; 2] {
        [listener.socket_domain != SocketDomain::Ipv6, listener.socket_domain != SocketDomain::Ipv4]
    }
    let same = |a: &Listener, b: &Listener| {
        let overlap = families(a).iter().zip(families(b)).any(|(a, b)| *a && b);
        match (&a.unix_path, &b.unix_path) {
            (Some(a), Some(b)) => a == b,
            (None, None) => a.port == b.port && a.host == b.host && a.bind_interface == b.bind_interface && overlap,
            _ => false,
        }
    };
    for (index, second) in listeners.iter().enumerate() {
        let Some(at) = &second.at else { continue };
        let earlier = listeners.iter().take(index).filter(|first| first.at.is_some()).find(|first| same(&first.listener, &second.listener));
        if let Some(first) = earlier {
            let place = |at: &(PathBuf, usize)| format!("{}:{}", at.0.display(), at.1);
            let what = match &second.listener.unix_path {
                Some(path) => path.display().to_string(),
                None => format!("port {}", second.listener.port),
            };
            let other = first.at.as_ref().map(place).unwrap_or_default();
            diagnostics.push(found(
                Severity::Error,
                Some((&at.0, at.1)),
                format!("Two listeners use {what}; the other one is opened at {other}."),
                Some("Give one of them another port or address, or remove it.".into()),
            ));
        }
    }
}

/// One entry for each listener.
fn security(conf: &mut Conf, global: &SecurityDraft, listeners: Vec<ListenerDraft>) {
    let anonymous = conf.local_only;
    // Under `per_listener_settings` only a `global_plugin` line still reaches every listener.
    let plugins =
        SecurityDraft { password_file: global.password_file.clone(), acl_file: global.acl_file.clone(), ..SecurityDraft::default() };
    for draft in listeners {
        let shared = if conf.per_listener_settings { draft.security.over(&plugins) } else { global.clone() };
        conf.listeners.push(Listener { security: conf.security.len(), ..draft.listener });
        conf.security.push(draft.own.over(&shared).resolve(anonymous));
    }
}
