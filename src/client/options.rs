//! The option table of `mosquitto_pub` and `mosquitto_sub`: parser, `--help` and tests read it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::str::FromStr;
use std::time::Duration;

use super::format::Format;
use super::property_arguments;
use super::proxy::Proxy;
use super::settings::{Settings, Source, Stop, Tool, refused, refused_spaced};
use crate::mqtt::{ProtocolVersion, Qos, RetainHandling, topic_filter, topic_name};

/// Why options for pre-shared keys are not taken.
const PSK: &str = "for pre-shared keys, which this TLS library does not know. Use certificates: --cafile, --cert and --key.";
/// Why options for OpenSSL's engines are not taken.
const ENGINE: &str = "for OpenSSL's engines, and there is no OpenSSL here. Give a key in PEM form with --key.";
/// Why brokers are not looked up by service.
const SRV: &str = "for brokers that DNS names in SRV records, which Debian's and Docker's builds of mosquitto do not look up either. Name the broker with -h.";

/// Which tools know an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    Pub,
    Sub,
    Both,
}

/// What follows an option.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Flag(fn(&mut Settings) -> Result<(), Stop>),
    /// One value: what it is called, and what it does.
    Value(&'static str, fn(&mut Settings, &OsStr) -> Result<(), Stop>),
    /// `command property value`, or `command user-property name value`.
    Property,
    /// Known to mosquitto's tools, with or without a value, and refused here: why.
    Refused(&'static str),
}

/// One option: its names (the one that messages use first), the tools that know it, what follows, and what it does.
pub(super) type Choice = (&'static [&'static str], For, Takes, &'static str);

#[rustfmt::skip]
pub(super) const OPTIONS: &[Choice] = &[
    // The connection.
    (&["-h", "--host"], For::Both, Takes::Value("host", |s, v| { s.host = Some(text("-h", v)?); Ok(()) }), "broker's host name or address (localhost)"),
    (&["-p", "--port"], For::Both, Takes::Value("port", port), "broker's port (1883, 8883 with TLS); 0 makes -h the path of a unix socket"),
    (&["--unix"], For::Both, Takes::Value("socket path", |s, v| { s.host = Some(text("--unix", v)?); s.port = Some(0); Ok(()) }), "connect through the unix socket at this path"),
    (&["-L", "--url"], For::Both, Takes::Value("URL", url), "mqtt://[user[:password]@]host[:port]/topic, all at once; mqtts:// with TLS"),
    (&["-A"], For::Both, Takes::Value("address", |s, v| { s.bind = Some(text("-A", v)?); Ok(()) }), "local address to connect from"),
    (&["--proxy"], For::Both, Takes::Value("proxy url", proxy), "socks5h://[user[:password]@]host[:port]: go through this proxy"),
    (&["--nodelay"], For::Both, Takes::Flag(|s| { s.no_delay = true; Ok(()) }), "send small packets at once"),
    (&["-V", "--protocol-version"], For::Both, Takes::Value("version", version), "mqttv5, mqttv311 or mqttv31 (mqttv311)"),
    (&["-k", "--keepalive"], For::Both, Takes::Value("keepalive", keep_alive), "keep alive in seconds, 5 to 65535 (60)"),
    // Who connects.
    (&["-i", "--id"], For::Both, Takes::Value("id", client_id), "client id (the broker chooses one)"),
    (&["-I", "--id-prefix"], For::Both, Takes::Value("id prefix", client_id_prefix), "client id is this and the process id"),
    (&["-u", "--username"], For::Both, Takes::Value("username", |s, v| { s.username = Some(text("-u", v)?); Ok(()) }), "user name"),
    (&["-P", "--pw"], For::Both, Takes::Value("password", |s, v| { s.password = Some(v.as_bytes().to_vec()); Ok(()) }), "password"),
    (&["-c", "--disable-clean-session"], For::Both, Takes::Flag(|s| { s.clean = false; Ok(()) }), "keep the session after leaving; needs -i"),
    (&["-x"], For::Both, Takes::Value("session expiry interval", session_expiry), "seconds that the session outlives the connection; -1 or ∞ for ever (version 5)"),
    // The message.
    (&["-t", "--topic"], For::Both, Takes::Value("topic", |s, v| topic(s, "-t", v)), "topic; mosquitto_sub takes several, with wildcards"),
    (&["-q", "--qos"], For::Both, Takes::Value("QoS", |s, v| { s.qos = qos(v, |v| refused(format!("Error: Invalid QoS given: {v}")))?; Ok(()) }), "quality of service 0, 1 or 2 (0)"),
    (&["-m", "--message"], For::Pub, Takes::Value("message", |s, v| source(s, Source::Argument(v.as_bytes().to_vec()))), "the message"),
    (&["-f", "--file"], For::Pub, Takes::Value("file", |s, v| source(s, Source::File(v.into()))), "send the content of this file as the message"),
    (&["-l", "--stdin-line"], For::Pub, Takes::Flag(|s| source(s, Source::StdinLines)), "send each line of stdin as a message"),
    (&["-s", "--stdin-file"], For::Pub, Takes::Flag(|s| source(s, Source::Stdin)), "send all of stdin as one message"),
    (&["-n", "--null-message"], For::Pub, Takes::Flag(|s| source(s, Source::Nothing)), "send an empty message"),
    (&["-r", "--retain"], For::Pub, Takes::Flag(|s| { s.retain = true; Ok(()) }), "the broker keeps the message for later subscribers"),
    (&["--repeat"], For::Pub, Takes::Value("count", repeat), "publish so many times (1)"),
    (&["--repeat-delay"], For::Pub, Takes::Value("time", repeat_delay), "seconds between repetitions (0)"),
    (&["-M"], For::Both, Takes::Value("max_inflight", in_flight_max), "messages of QoS 1 and 2 under way at a time (20)"),
    (&["-D", "--property"], For::Both, Takes::Property, "COMMAND PROPERTY VALUE: a property of version 5 for connect, publish, subscribe, unsubscribe, disconnect or will"),
    // What is printed.
    (&["-v", "--verbose"], For::Sub, Takes::Flag(|s| { s.verbose = true; Ok(()) }), "print the topic before the payload"),
    (&["-F"], For::Sub, Takes::Value("format", format), "print each message so: %t topic, %p payload, %q QoS, %r retained, %l length, %m packet id, %x %X hex, %I %U time, %j %J JSON, %A %C %D %E %F %P %R %S properties, @Y and so on as in strftime"),
    (&["--pretty"], For::Sub, Takes::Flag(|s| { s.pretty = true; Ok(()) }), "JSON of %j and %J on several lines"),
    (&["-N"], For::Sub, Takes::Flag(|s| { s.end_of_line = false; Ok(()) }), "no line end after each message"),
    (&["-R"], For::Sub, Takes::Flag(|s| { s.no_retained = true; s.retain_handling = RetainHandling::DoNotSend; Ok(()) }), "leave out retained messages"),
    (&["--retained-only"], For::Sub, Takes::Flag(|s| { s.retained_only = true; Ok(()) }), "print retained messages and leave at the first other one"),
    (&["--remove-retained"], For::Sub, Takes::Flag(|s| { s.remove_retained = true; Ok(()) }), "have the broker forget each retained message that comes"),
    (&["--retain-as-published"], For::Sub, Takes::Flag(|s| { s.retain_as_published = true; Ok(()) }), "the retain flag as the publisher set it (version 5)"),
    (&["--retain-handling"], For::Sub, Takes::Value("option", retain_handling), "when the broker sends retained messages: always, new or never (version 5, as in 2.1)"),
    (&["-T", "--filter-out"], For::Sub, Takes::Value("topic filter", filter_out), "do not print messages of these topics; several are taken"),
    (&["--random-filter"], For::Sub, Takes::Value("chance", random_filter), "print so many percent of the messages"),
    // When to leave.
    (&["-C"], For::Sub, Takes::Value("count", count), "leave after so many messages"),
    (&["-W"], For::Sub, Takes::Value("timeout", timeout), "leave after so many seconds, with exit code 27"),
    (&["-E"], For::Sub, Takes::Flag(|s| { s.exit_after_subscribing = true; Ok(()) }), "leave once subscribed"),
    (&["-U", "--unsubscribe"], For::Sub, Takes::Value("unsubscribe topic", unsubscribe), "unsubscribe from this topic; several are taken"),
    // The will.
    (&["--will-topic"], For::Both, Takes::Value("will topic", will_topic), "topic of the will, sent by the broker when this client vanishes"),
    (&["--will-payload"], For::Both, Takes::Value("will payload", |s, v| { s.will_payload = Some(v.as_bytes().to_vec()); Ok(()) }), "payload of the will"),
    (&["--will-qos"], For::Both, Takes::Value("will QoS", |s, v| { s.will_qos = qos(v, |v| refused_spaced(format!("Error: Invalid will QoS {v}.")))?; Ok(()) }), "QoS of the will (0)"),
    (&["--will-retain"], For::Both, Takes::Flag(|s| { s.will_retain = true; Ok(()) }), "the will is retained"),
    // The tool itself.
    (&["-o"], For::Both, Takes::Value("options file", |_, _| Ok(())), "read options from this file, one a line, and not from the user's own (as in 2.1)"),
    (&["-d", "--debug"], For::Both, Takes::Flag(|s| { s.debug = true; Ok(()) }), "print what is sent and received"),
    (&["--quiet"], For::Both, Takes::Flag(|s| { s.quiet = true; Ok(()) }), "no error messages"),
    (&["--help"], For::Both, Takes::Flag(|_| Err(Stop::Help)), "this text"),
    (&["--version"], For::Both, Takes::Flag(|_| Err(Stop::Version)), "the version"),
    // TLS.
    (&["--cafile"], For::Both, Takes::Value("file", |s, v| { s.tls.cafile = Some(v.into()); Ok(()) }), "TLS: trust the authorities of this file in PEM form"),
    (&["--capath"], For::Both, Takes::Value("directory", |s, v| { s.tls.capath = Some(v.into()); Ok(()) }), "TLS: trust the authorities of the files in this directory"),
    (&["--cert"], For::Both, Takes::Value("file", |s, v| { s.tls.cert = Some(v.into()); Ok(()) }), "TLS: this client's own certificate in PEM form"),
    (&["--key"], For::Both, Takes::Value("file", |s, v| { s.tls.key = Some(v.into()); Ok(()) }), "TLS: its private key in PEM form, without a pass phrase"),
    (&["--keyform"], For::Both, Takes::Value("keyform", key_form), "TLS: the form of the key; pem"),
    (&["--ciphers"], For::Both, Takes::Value("ciphers", |s, v| { s.tls.ciphers = Some(text("--ciphers", v)?); Ok(()) }), "TLS: ciphers to offer, OpenSSL's names with colons"),
    (&["--tls-version"], For::Both, Takes::Value("version", tls_version), "TLS: the lowest version, tlsv1.2 (default) or tlsv1.3"),
    (&["--tls-alpn"], For::Both, Takes::Value("protocol", |s, v| { s.tls.alpn = Some(text("--tls-alpn", v)?); Ok(()) }), "TLS: the application protocol to ask for"),
    (&["--tls-use-os-certs"], For::Both, Takes::Flag(|s| { s.tls.system_authorities = true; Ok(()) }), "TLS: trust the authorities of the system"),
    (&["--insecure"], For::Both, Takes::Flag(|s| { s.tls.insecure = true; Ok(()) }), "TLS: the name in the broker's certificate may be another; for trials"),
    (&["--no-tls"], For::Both, Takes::Flag(|s| { s.no_tls = true; Ok(()) }), "no TLS, whatever the port and the other options, like those of the user's own file, say (as in 2.1)"),
    // Known to mosquitto's tools, refused here.
    (&["--psk"], For::Both, Takes::Refused(PSK), ""), (&["--psk-identity"], For::Both, Takes::Refused(PSK), ""),
    (&["-S"], For::Both, Takes::Refused(SRV), ""),
    (&["--tls-engine"], For::Both, Takes::Refused(ENGINE), ""), (&["--tls-engine-kpass-sha1"], For::Both, Takes::Refused(ENGINE), ""),
];

fn find(tool: Tool, name: &OsStr) -> Option<&'static Choice> {
    let knows = |choice: For| match tool {
        Tool::Pub => choice != For::Sub,
        Tool::Sub => choice != For::Pub,
    };
    OPTIONS.iter().find(|(names, choice, ..)| knows(*choice) && names.iter().any(|known| name == *known))
}

/// Applies a command line.
pub(super) fn apply(settings: &mut Settings, arguments: &[OsString]) -> Result<(), Stop> {
    let mut rest = arguments;
    while let [name, following @ ..] = rest {
        let Some((names, _, takes, _)) = find(settings.tool, name) else {
            return Err(refused(format!("Error: Unknown option '{}'.", name.to_string_lossy())));
        };
        let shown = names.first().copied().unwrap_or_default();
        rest = match takes {
            Takes::Flag(set) => {
                set(settings)?;
                following
            }
            Takes::Value(noun, set) => {
                let [value, after @ ..] = following else {
                    return Err(refused_spaced(format!("Error: {shown} argument given but no {noun} specified.")));
                };
                set(settings, value)?;
                after
            }
            Takes::Property => property(settings, following)?,
            Takes::Refused(reason) => return Err(refused(format!("Error: {shown} is {reason}"))),
        };
    }
    Ok(())
}

/// What was given for `-o`, each time.
pub(super) fn options_files(tool: Tool, arguments: &[OsString]) -> Vec<&OsStr> {
    let mut files = Vec::new();
    let mut rest = arguments;
    while let [name, following @ ..] = rest {
        let count = match find(tool, name) {
            Some((_, _, Takes::Value(..), _)) => 1,
            Some((_, _, Takes::Property, _)) => property_arguments::argument_count(following.get(1).and_then(|name| name.to_str())),
            _ => 0,
        };
        if name == "-o" {
            files.extend(following.first().map(OsString::as_os_str));
        }
        rest = following.get(count..).unwrap_or_default();
    }
    files
}

/// Applies a line of the user's defaults: an option, a space, its value.
pub(super) fn apply_line(settings: &mut Settings, line: &str) -> Result<(), Stop> {
    let line = line.trim_end_matches('\r').trim_start_matches(' ');
    let (name, value) = line.split_once(' ').map_or((line, None), |(name, value)| (name, Some(value)));
    if name.is_empty() {
        return Ok(());
    }
    let mut arguments = vec![OsString::from(name)];
    if let Some((_, _, Takes::Property, _)) = find(settings.tool, OsStr::new(name)) {
        let words = property_arguments::argument_count(value.and_then(|value| value.split(' ').nth(1)));
        arguments.extend(value.unwrap_or_default().splitn(words, ' ').map(OsString::from));
    } else {
        arguments.extend(value.map(OsString::from));
    }
    apply(settings, &arguments)
}

fn property<'a>(settings: &mut Settings, following: &'a [OsString]) -> Result<&'a [OsString], Stop> {
    let count = property_arguments::argument_count(following.get(1).and_then(|name| name.to_str()));
    let (words, rest) = following.split_at_checked(count).unwrap_or((following, &[]));
    let words = words.iter().map(|word| word.to_str()).collect::<Option<Vec<_>>>();
    settings.properties.add(&words.ok_or_else(|| malformed("-D"))?)?;
    settings.version = ProtocolVersion::V5;
    Ok(rest)
}

fn malformed(option: &str) -> Stop {
    refused_spaced(format!("Error: Malformed UTF-8 in {option} argument."))
}

fn text(option: &str, value: &OsStr) -> Result<String, Stop> {
    value.to_str().map(str::to_owned).ok_or_else(|| malformed(option))
}

fn parse<N: FromStr>(value: &OsStr) -> Option<N> {
    value.to_str().and_then(|value| value.trim().parse().ok())
}

fn port(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let port = parse(value).ok_or_else(|| refused(format!("Error: Invalid port given: {}", value.to_string_lossy())))?;
    settings.port = Some(port);
    Ok(())
}

fn key_form(_: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    match value.to_str() {
        Some("pem") => Ok(()),
        Some("engine") => Err(refused(format!("Error: --keyform engine is {ENGINE}"))),
        _ => Err(refused_spaced("Error: If keyform is set, it must be pem.")),
    }
}

fn tls_version(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    match value.to_str() {
        // 1.1 as the lowest version allows what is newer.
        Some(version @ ("tlsv1.3" | "tlsv1.2" | "tlsv1.1")) => settings.tls.version = Some(version.to_owned()),
        _ => return Err(refused(format!("Error: Invalid TLS version '{}', write tlsv1.2 or tlsv1.3.", value.to_string_lossy()))),
    }
    Ok(())
}

fn proxy(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.proxy = Some(Proxy::parse(&text("--proxy", value)?).map_err(refused)?);
    Ok(())
}

fn version(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.version = match value.to_str() {
        Some("mqttv31" | "31") => ProtocolVersion::V31,
        Some("mqttv311" | "311") => ProtocolVersion::V311,
        Some("mqttv5" | "5") => ProtocolVersion::V5,
        _ => return Err(refused_spaced("Error: Invalid protocol version argument given.")),
    };
    Ok(())
}

fn keep_alive(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let secs = parse(value).filter(|secs| *secs >= 5);
    let text = "Error: Invalid keepalive given, it must be between 5 and 65535 inclusive.";
    settings.keep_alive_secs = secs.ok_or_else(|| refused_spaced(text))?;
    Ok(())
}

fn client_id(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    if settings.client_id_prefix.is_some() {
        return Err(refused_spaced("Error: -i and -I argument cannot be used together."));
    }
    settings.client_id = Some(text("-i", value)?);
    Ok(())
}

fn client_id_prefix(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    if settings.client_id.is_some() {
        return Err(refused_spaced("Error: -i and -I argument cannot be used together."));
    }
    settings.client_id_prefix = Some(text("-I", value)?);
    Ok(())
}

fn session_expiry(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let text = value.to_string_lossy();
    let secs =
        if text == "∞" { -1 } else { text.parse::<i64>().map_err(|_| refused_spaced("Error: session-expiry-interval not a number."))? };
    let secs = if secs == -1 { Ok(u32::MAX) } else { u32::try_from(secs) };
    settings.session_expiry = Some(secs.map_err(|_| refused_spaced("Error: session-expiry-interval out of range."))?);
    Ok(())
}

fn qos(value: &OsStr, refusal: fn(&str) -> Stop) -> Result<Qos, Stop> {
    parse(value).and_then(Qos::from_u8).ok_or_else(|| refusal(&value.to_string_lossy()))
}

fn topic(settings: &mut Settings, option: &str, value: &OsStr) -> Result<(), Stop> {
    let topic = text(option, value)?;
    match settings.tool {
        Tool::Pub => {
            // An empty topic may be stood for by a Topic Alias.
            if !topic.is_empty() && !topic_name::is_valid(&topic) {
                return Err(refused(format!("Error: Invalid publish topic '{topic}', does it contain '+' or '#'?")));
            }
            settings.topics = vec![topic];
        }
        Tool::Sub => {
            if topic_filter::parse(&topic).is_none() {
                return Err(refused(format!("Error: Invalid subscription topic '{topic}', are all '+' and '#' wildcards correct?")));
            }
            settings.topics.push(topic);
        }
    }
    Ok(())
}

fn filter(option: &str, kind: &str, value: &OsStr) -> Result<String, Stop> {
    let filter = text(option, value)?;
    if topic_filter::parse(&filter).is_none() {
        return Err(refused(format!("Error: Invalid {kind} topic '{filter}', are all '+' and '#' wildcards correct?")));
    }
    Ok(filter)
}

fn filter_out(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.filter_outs.push(filter("-T", "filter", value)?);
    Ok(())
}

fn unsubscribe(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.unsubscribe.push(filter("-U", "unsubscribe", value)?);
    Ok(())
}

fn will_topic(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let topic = text("--will-topic", value)?;
    if !topic_name::is_valid(&topic) {
        return Err(refused(format!("Error: Invalid will topic '{topic}', does it contain '+' or '#'?")));
    }
    settings.will_topic = Some(topic);
    Ok(())
}

fn url(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let url = text("-L", value)?;
    let scheme = |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let (start, default_port) = if scheme("mqtts://") {
        settings.tls.system_authorities = settings.tls.cafile.is_none() && settings.tls.capath.is_none();
        ("mqtts://", "8883")
    } else if scheme("mqtt://") {
        ("mqtt://", "1883")
    } else {
        return Err(refused_spaced("Error: unsupported URL scheme."));
    };
    let rest = url.get(start.len()..).unwrap_or_default();
    let Some((authority, topic_part)) = rest.split_once('/') else {
        return Err(refused("Error: Invalid URL for -L argument specified - topic missing."));
    };
    topic(settings, "-L topic", OsStr::new(topic_part))?;
    let (user, place) = authority.split_once('@').map_or((None, authority), |(user, place)| (Some(user), place));
    if let Some(user) = user {
        let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
        settings.username = Some(name.to_owned());
        settings.password = password.map(|password| password.as_bytes().to_vec()).or(settings.password.take());
    }
    let (host, port_part) = match place.rsplit_once(':') {
        // An IPv6 address stands in brackets: [::1]:1883.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    settings.host = Some(host.trim_start_matches('[').trim_end_matches(']').to_owned());
    port(settings, OsStr::new(port_part.unwrap_or(default_port)))
}

fn source(settings: &mut Settings, source: Source) -> Result<(), Stop> {
    if settings.source.is_some() {
        return Err(refused_spaced("Error: Only one type of message can be sent at once."));
    }
    settings.source = Some(source);
    Ok(())
}

fn repeat(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.repeat = parse(value).filter(|count| *count > 0).ok_or_else(|| refused_spaced("Error: --repeat argument must be >0."))?;
    Ok(())
}

fn repeat_delay(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let delay = parse::<f64>(value).and_then(|secs| Duration::try_from_secs_f64(secs).ok());
    settings.repeat_delay = delay.ok_or_else(|| refused_spaced("Error: --repeat-delay argument must be >=0.0."))?;
    Ok(())
}

fn in_flight_max(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let max = parse::<u32>(value).filter(|max| *max > 0);
    let max = max.ok_or_else(|| refused_spaced("Error: Maximum inflight messages must be greater than 0."))?;
    settings.in_flight_max = u16::try_from(max).unwrap_or(u16::MAX);
    Ok(())
}

fn format(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.format = Some(Format::parse(&text("-F", value)?).map_err(refused)?);
    Ok(())
}

fn retain_handling(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    settings.retain_handling = match value.to_str() {
        Some("always") => RetainHandling::SendAtSubscribe,
        Some("new") => RetainHandling::SendIfNew,
        Some("never") => RetainHandling::DoNotSend,
        _ => return Err(refused_spaced(format!("Error: Unknown value '{}' for --retain-handling.", value.to_string_lossy()))),
    };
    Ok(())
}

fn random_filter(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let chance = parse::<f64>(value).filter(|percent| (0.1..=100.0).contains(percent));
    let chance = chance.ok_or_else(|| refused_spaced("Error: --random-filter chance must be between 0.1-100.0"))?;
    settings.random_filter = (chance * 100.0) as u32;
    Ok(())
}

fn count(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let count = parse(value).filter(|count| *count > 0);
    settings.count = Some(count.ok_or_else(|| refused_spaced(format!("Error: Invalid message count \"{}\".", value.to_string_lossy())))?);
    Ok(())
}

fn timeout(settings: &mut Settings, value: &OsStr) -> Result<(), Stop> {
    let secs = parse::<u32>(value).filter(|secs| *secs > 0);
    let secs = secs.ok_or_else(|| refused_spaced(format!("Error: Invalid timeout \"{}\".", value.to_string_lossy())))?;
    settings.timeout = Some(Duration::from_secs(secs.into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_for_two_options_of_a_tool_and_each_is_explained() {
        for (index, (names, tools, takes, doc)) in OPTIONS.iter().enumerate() {
            assert_eq!(doc.is_empty(), matches!(takes, Takes::Refused(_)), "{names:?}");
            for (others, other_tools, ..) in OPTIONS.iter().skip(index + 1) {
                let shared = names.iter().any(|name| others.contains(name));
                assert!(!shared || (tools != other_tools && *tools != For::Both && *other_tools != For::Both), "{names:?} {others:?}");
            }
        }
    }

    #[test]
    fn help_lists_every_option_of_its_tool_and_no_other() {
        for tool in [Tool::Pub, Tool::Sub] {
            let help = super::super::help::text(tool);
            for (names, ..) in OPTIONS.iter().filter(|(.., takes, _)| !matches!(takes, Takes::Refused(_))) {
                let line = format!("\n {}", names.join(", "));
                let known = names.iter().all(|name| find(tool, OsStr::new(name)).is_some());
                assert_eq!(help.contains(&line), known, "{names:?}");
            }
        }
    }
}
