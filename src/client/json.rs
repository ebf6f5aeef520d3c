//! `%j` and `%J`: a message as one JSON object.

use std::io::Write as _;

use jiff::ZonedDateTime;

use super::flows::Message;
use super::property_arguments::publish_property_name;
use crate::mqtt::Property;

/// The payload of `%J` is not JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotJson;

/// Appends the object; nothing where the payload is to be JSON and is not.
pub(super) fn write(message: &Message, now: &ZonedDateTime, payload_is_json: bool, pretty: bool, out: &mut Vec<u8>) -> Result<(), NotJson> {
    let mut object = Vec::new();
    let _ = write!(object, "{{\"tst\":\"{}\",\"topic\":", now.strftime("%Y-%m-%dT%H:%M:%S.%6f%z"));
    write_string(message.topic.as_bytes(), &mut object);
    let (qos, retain, len) = (message.qos as u8, u8::from(message.retain), message.payload.len());
    let _ = write!(object, ",\"qos\":{qos},\"retain\":{retain},\"payloadlen\":{len},");
    if let Some(packet_id) = message.packet_id {
        let _ = write!(object, "\"mid\":{packet_id},");
    }
    write_properties(&message.properties, &mut object);
    object.extend_from_slice(b"\"payload\":");
    if message.payload.is_empty() {
        object.extend_from_slice(b"null");
    } else if payload_is_json {
        serde_json::from_slice::<serde::de::IgnoredAny>(&message.payload).map_err(|_| NotJson)?;
        minify(&message.payload, &mut object);
    } else {
        write_string(&message.payload, &mut object);
    }
    object.push(b'}');
    if pretty {
        write_pretty(&object, out);
    } else {
        out.append(&mut object);
    }
    Ok(())
}

fn write_properties(properties: &[Property], out: &mut Vec<u8>) {
    let mut fields = Vec::new();
    for property in properties {
        let Some(name) = publish_property_name(property) else { continue };
        let mut field = format!("\"{name}\":").into_bytes();
        match property {
            // One object for all of them, where the first stands.
            Property::UserProperty(..) if fields.iter().any(|earlier: &Vec<u8>| earlier.starts_with(&field)) => continue,
            Property::UserProperty(..) => write_user_properties(properties, &mut field),
            Property::PayloadFormatIndicator(number) => field.extend_from_slice(number.to_string().as_bytes()),
            Property::TopicAlias(number) => field.extend_from_slice(number.to_string().as_bytes()),
            Property::MessageExpiryInterval(number) | Property::SubscriptionIdentifier(number) => {
                field.extend_from_slice(number.to_string().as_bytes());
            }
            Property::ContentType(text) | Property::ResponseTopic(text) => write_string(text.as_bytes(), &mut field),
            Property::CorrelationData(data) => write_string(data, &mut field),
            _ => continue,
        }
        fields.push(field);
    }
    if !fields.is_empty() {
        out.extend_from_slice(b"\"properties\":{");
        out.append(&mut fields.join(&b','));
        out.extend_from_slice(b"},");
    }
}

fn write_user_properties(properties: &[Property], out: &mut Vec<u8>) {
    out.push(b'{');
    let mut separator = None;
    for property in properties {
        if let Property::UserProperty(name, text) = property {
            out.extend(separator);
            separator = Some(b',');
            write_string(name.as_bytes(), out);
            out.push(b':');
            write_string(text.as_bytes(), out);
        }
    }
    out.push(b'}');
}

/// A quoted string. Bytes that are not UTF-8 pass as they are: a payload may be anything.
fn write_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in bytes {
        let _ = match byte {
            b'"' => out.write_all(b"\\\""),
            b'\\' => out.write_all(b"\\\\"),
            8 => out.write_all(b"\\b"),
            12 => out.write_all(b"\\f"),
            b'\n' => out.write_all(b"\\n"),
            b'\r' => out.write_all(b"\\r"),
            b'\t' => out.write_all(b"\\t"),
            0..32 => write!(out, "\\u{byte:04x}"),
            _ => out.write_all(&[*byte]),
        };
    }
    out.push(b'"');
}

/// Walks valid JSON and says of each byte whether it stands outside of a string.
fn walk(json: &[u8], mut each: impl FnMut(u8, bool)) {
    let (mut in_string, mut escaped) = (false, false);
    for byte in json {
        let outside = !in_string && *byte != b'"';
        if *byte == b'"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && *byte == b'\\' && !escaped;
        each(*byte, outside);
    }
}

fn minify(json: &[u8], out: &mut Vec<u8>) {
    walk(json, |byte, outside| {
        if !(outside && byte.is_ascii_whitespace()) {
            out.push(byte);
        }
    });
}

/// Lays minified JSON out as cJSON does: tabs, a field a line, arrays on one line.
fn write_pretty(json: &[u8], out: &mut Vec<u8>) {
    // What encloses the current place: `{` or `[`.
    let mut open = Vec::new();
    let new_line = |depth: usize, out: &mut Vec<u8>| {
        out.push(b'\n');
        out.resize(out.len() + depth, b'\t');
    };
    walk(json, |byte, outside| match byte {
        b'{' if outside => {
            open.push(byte);
            out.push(byte);
            new_line(open.len(), out);
        }
        b'[' if outside => {
            open.push(byte);
            out.push(byte);
        }
        b'}' if outside => {
            open.pop();
            new_line(open.len(), out);
            out.push(byte);
        }
        b']' if outside => {
            open.pop();
            out.push(byte);
        }
        b',' if outside => {
            out.push(byte);
            if open.last() == Some(&b'[') { out.push(b' ') } else { new_line(open.len(), out) }
        }
        b':' if outside => out.extend_from_slice(b":\t"),
        other => out.push(other),
    });
}
