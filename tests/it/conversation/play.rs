//! Plays a script to either runner.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use darner::mqtt::codec::{Decoded, decode, encode};
use darner::mqtt::{Packet, ProtocolVersion};

use super::script::{Action, Script, Step};
use super::words;

/// A broker to talk to. Clients have names; each has one connection at a time.
pub trait Runner {
    fn open(&mut self, client: &str);
    /// `settle`: what the bytes cause must have happened before the next action (a PINGREQ may be sent to find out).
    fn send(&mut self, client: &str, bytes: &[u8], settle: bool);
    /// The peer breaks the connection; returns when the broker has noticed.
    fn close(&mut self, client: &str);
    /// More of what was sent to the client, waiting for it if need be; `None` when the connection is closed (or nothing comes).
    fn receive(&mut self, client: &str) -> Received;
    /// Everything that the broker has sent until now.
    fn receive_rest(&mut self, client: &str) -> Vec<u8>;
    fn wait(&mut self, time: Duration);
    /// What the broker logged, for the report of a failure.
    fn log(&self) -> String;
}

pub enum Received {
    Bytes(Vec<u8>),
    Closed,
    Nothing,
}

struct Client {
    version: ProtocolVersion,
    open: bool,
    bytes: Vec<u8>,
    /// Whole packets in words, not yet expected.
    packets: VecDeque<Vec<String>>,
}

struct Play<'a, R> {
    runner: &'a mut R,
    clients: HashMap<String, Client>,
    captured: HashMap<String, String>,
    transcript: Vec<String>,
}

pub fn play<R: Runner>(script: &Script, runner: &mut R) -> Result<(), String> {
    let mut play = Play { runner, clients: HashMap::new(), captured: HashMap::new(), transcript: Vec::new() };
    for step in &script.steps {
        if let Err(problem) = play.step(step) {
            let last = |lines: &[String]| lines[lines.len().saturating_sub(12)..].join("\n    ");
            let log: Vec<String> = play.runner.log().lines().map(str::to_owned).collect();
            let (before, log) = (last(&play.transcript), last(&log));
            return Err(format!("{}:{}: {}\n  {problem}\n    {before}\n  log:\n    {log}\n", script.name, step.line, step.text));
        }
        play.transcript.push(step.text.clone());
    }
    Ok(())
}

impl<R: Runner> Play<'_, R> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        match &step.action {
            Action::Send { client, words } => self.send(client, words),
            Action::Close { client } => {
                self.runner.close(client);
                self.client(client)?.open = false;
                Ok(())
            }
            Action::Expect { client, words, any_order } => self.expect(client, words, *any_order),
            Action::ExpectClosed { client, after_anything } => self.expect_closed(client, *after_anything),
            Action::ExpectNothing { client } => self.expect_nothing(client),
            Action::Wait(time) => {
                self.runner.wait(*time);
                Ok(())
            }
        }
    }

    fn client(&mut self, name: &str) -> Result<&mut Client, String> {
        self.clients.get_mut(name).ok_or_else(|| format!("client {name} never connected"))
    }

    fn send(&mut self, name: &str, words: &[String]) -> Result<(), String> {
        let words: Vec<String> = words.iter().map(|word| self.resolve(word)).collect();
        let version = self.clients.get(name).map_or(ProtocolVersion::V311, |client| client.version);
        let (bytes, settle, ends) = if words[0] == "hex" {
            (words::hex(&words[1..])?, false, false)
        } else {
            let packet = words::parse(&words)?;
            let mut bytes = Vec::new();
            encode(&packet.as_packet(), version, &mut bytes);
            let first = bytes[0] >> 4;
            (bytes, matches!(first, 3..=11), first == 14)
        };
        let version = match decode(&bytes, version, u32::MAX) {
            Ok(Decoded::Packet { packet: Packet::Connect(connect), .. }) => connect.version,
            _ => version,
        };
        let open = self.clients.get(name).is_some_and(|client| client.open);
        if !open {
            if !bytes.starts_with(&[0x10]) && words[0] != "hex" && self.clients.contains_key(name) {
                return Err(format!("{name} is not connected"));
            }
            self.clients.insert(name.to_owned(), Client { version, open: true, bytes: Vec::new(), packets: VecDeque::new() });
            self.runner.open(name);
        }
        self.client(name)?.version = version;
        self.runner.send(name, &bytes, settle);
        if ends {
            // What had been sent before the end can still be expected.
            self.read_until_closed(name)?;
        }
        Ok(())
    }

    /// `key=$name` with what was captured.
    fn resolve(&self, word: &str) -> String {
        let (head, name) = match word.rsplit_once("=$") {
            Some((key, name)) => (format!("{key}="), name),
            None => match word.strip_prefix('$') {
                Some(name) if !word.contains('/') => (String::new(), name),
                _ => return word.to_owned(),
            },
        };
        self.captured.get(name).map_or_else(|| word.to_owned(), |value| format!("{head}{value}"))
    }

    /// Reads until there is a packet; `false` when there will be none.
    fn fill(&mut self, name: &str) -> Result<bool, String> {
        loop {
            self.split(name)?;
            let client = self.client(name)?;
            if !client.packets.is_empty() {
                return Ok(true);
            }
            if !client.open {
                return Ok(false);
            }
            match self.runner.receive(name) {
                Received::Bytes(bytes) => self.client(name)?.bytes.extend(bytes),
                Received::Closed => self.client(name)?.open = false,
                Received::Nothing => return Ok(false),
            }
        }
    }

    /// Bytes into packets.
    fn split(&mut self, name: &str) -> Result<(), String> {
        let client = self.client(name)?;
        loop {
            let (words, len) = match decode(&client.bytes, client.version, u32::MAX) {
                Ok(Decoded::Packet { packet, len }) => (words::describe(&packet, client.version), len),
                Ok(Decoded::Incomplete { .. }) => return Ok(()),
                Err(error) => return Err(format!("{name} was sent bytes that are no packet ({error}): {:02x?}", client.bytes)),
            };
            client.bytes.drain(..len);
            client.packets.push_back(words);
        }
    }

    /// Exactly these bytes come next.
    fn expect_bytes(&mut self, name: &str, expected: &[u8]) -> Result<(), String> {
        loop {
            let client = self.client(name)?;
            if client.bytes.len() >= expected.len() || !client.open {
                break;
            }
            match self.runner.receive(name) {
                Received::Bytes(bytes) => self.client(name)?.bytes.extend(bytes),
                Received::Closed => self.client(name)?.open = false,
                Received::Nothing => break,
            }
        }
        let client = self.client(name)?;
        if !client.packets.is_empty() || !client.bytes.starts_with(expected) {
            return Err(format!("got: {:02x?}", client.bytes));
        }
        client.bytes.drain(..expected.len());
        Ok(())
    }

    fn expect(&mut self, name: &str, expected: &[String], any_order: bool) -> Result<(), String> {
        if expected.first().is_some_and(|word| word == "hex") {
            return self.expect_bytes(name, &words::hex(&expected[1..])?);
        }
        let expected: Vec<String> = expected.iter().map(|word| self.resolve(word)).collect();
        let mut skipped = VecDeque::new();
        loop {
            if !self.fill(name)? {
                let state = if self.client(name)?.open { "nothing was sent" } else { "the connection was closed" };
                let skipped: Vec<_> = skipped.iter().map(|words: &Vec<String>| words.join(" ")).collect();
                return Err(if skipped.is_empty() { state.to_owned() } else { format!("{state} but: {}", skipped.join(" | ")) });
            }
            let Some(got) = self.client(name)?.packets.pop_front() else { continue };
            match words::matches(&expected, &got, &mut self.captured) {
                Ok(()) => {
                    let client = self.client(name)?;
                    skipped.append(&mut client.packets);
                    client.packets = skipped;
                    return Ok(());
                }
                Err(_) if any_order => skipped.push_back(got),
                Err(why) => return Err(format!("got: {} ({why})", got.join(" "))),
            }
        }
    }

    fn read_until_closed(&mut self, name: &str) -> Result<(), String> {
        while self.client(name)?.open {
            match self.runner.receive(name) {
                Received::Bytes(bytes) => self.client(name)?.bytes.extend(bytes),
                Received::Closed => self.client(name)?.open = false,
                Received::Nothing => return Err("the connection stays open".to_owned()),
            }
        }
        self.split(name)
    }

    fn expect_closed(&mut self, name: &str, after_anything: bool) -> Result<(), String> {
        self.read_until_closed(name)?;
        let client = self.client(name)?;
        match client.packets.pop_front() {
            Some(got) if !after_anything => Err(format!("was sent before it closed: {}", got.join(" "))),
            _ => Ok(()),
        }
    }

    fn expect_nothing(&mut self, name: &str) -> Result<(), String> {
        let bytes = if self.client(name)?.open { self.runner.receive_rest(name) } else { Vec::new() };
        self.client(name)?.bytes.extend(bytes);
        self.split(name)?;
        match self.client(name)?.packets.pop_front() {
            Some(got) => Err(format!("got: {}", got.join(" "))),
            None => Ok(()),
        }
    }
}
