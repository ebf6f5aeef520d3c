//! `$SYS`: one table of topics and what they show.

use std::sync::Arc;

use super::deadlines::Timer;
use super::interface::{Effect, Outbox, Settings, Time};
use super::message::{Message, Publication};
use super::{Broker, MOSQUITTO_VERSION};
use crate::conf::Durability;
use crate::mqtt::Qos;

/// What the machine counts since it began; `subscriptions` and `shared_subscriptions` are how many there are.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes_received: u64,
    pub(super) bytes_sent: u64,
    pub(super) packets_received: u64,
    pub(super) packets_sent: u64,
    pub(super) publish_received: u64,
    pub(super) publish_sent: u64,
    pub(super) publish_dropped: u64,
    pub(super) publish_bytes_received: u64,
    pub(super) publish_bytes_sent: u64,
    pub(super) sockets: u64,
    pub(super) connects: u64,
    pub(super) expired: u64,
    pub(super) subscriptions: u64,
    pub(super) shared_subscriptions: u64,
    clients_maximum: u64,
}

impl Counters {
    pub(super) fn publish_sent(&mut self, payload: usize) {
        self.publish_sent += 1;
        self.publish_bytes_sent += payload as u64;
    }

    /// Adds up what an outbox sends.
    pub(super) fn count_sends(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Send { start, end, .. } = effect {
                self.packets_sent += 1;
                self.bytes_sent += u64::from(end - start);
            }
        }
    }
}

/// What a row reads.
struct View<'a> {
    counters: &'a Counters,
    clients: u64,
    connected: u64,
    retained: u64,
    queued: u64,
    queued_bytes: u64,
    store_failing: bool,
}

type Read = fn(&View<'_>) -> u64;

/// 1 while the store keeps nothing, else 0. A name of our own, shown with `persistence true` only.
const STORE_FAILING: &str = "persistence/failing";

/// Topic after `$SYS/broker/`, and its value. mosquitto's names, but for [`STORE_FAILING`]; the two `heap` topics are absent, since nothing counts the heap.
const ROWS: &[(&str, Read)] = &[
    ("clients/total", |v| v.clients),
    ("clients/maximum", |v| v.counters.clients_maximum),
    ("clients/disconnected", |v| v.clients.saturating_sub(v.connected)),
    ("clients/inactive", |v| v.clients.saturating_sub(v.connected)),
    ("clients/connected", |v| v.connected),
    ("clients/active", |v| v.connected),
    ("clients/expired", |v| v.counters.expired),
    ("messages/stored", |v| v.retained + v.queued),
    ("store/messages/count", |v| v.retained + v.queued),
    ("store/messages/bytes", |v| v.queued_bytes),
    ("subscriptions/count", |v| v.counters.subscriptions),
    ("shared_subscriptions/count", |v| v.counters.shared_subscriptions),
    ("retained messages/count", |v| v.retained),
    ("messages/received", |v| v.counters.packets_received),
    ("messages/sent", |v| v.counters.packets_sent),
    ("bytes/received", |v| v.counters.bytes_received),
    ("bytes/sent", |v| v.counters.bytes_sent),
    ("publish/messages/received", |v| v.counters.publish_received),
    ("publish/messages/sent", |v| v.counters.publish_sent),
    ("publish/messages/dropped", |v| v.counters.publish_dropped),
    ("publish/bytes/received", |v| v.counters.publish_bytes_received),
    ("publish/bytes/sent", |v| v.counters.publish_bytes_sent),
    ("connections/socket/count", |v| v.counters.sockets),
    (STORE_FAILING, |v| u64::from(v.store_failing)),
];

/// Topic after `$SYS/broker/load/`; `/1min`, `/5min` and `/15min` follow.
const LOADS: &[(&str, Read)] = &[
    ("messages/received", |v| v.counters.packets_received),
    ("messages/sent", |v| v.counters.packets_sent),
    ("publish/dropped", |v| v.counters.publish_dropped),
    ("publish/received", |v| v.counters.publish_received),
    ("publish/sent", |v| v.counters.publish_sent),
    ("bytes/received", |v| v.counters.bytes_received),
    ("bytes/sent", |v| v.counters.bytes_sent),
    ("sockets", |v| v.counters.sockets),
    ("connections", |v| v.counters.connects),
];

/// Minutes over which a load is averaged.
const MINUTES: [u32; 3] = [1, 5, 15];

/// What was published last, so that only changes are.
#[derive(Debug, Default)]
pub(super) struct SysTopics {
    rows: Vec<Option<u64>>,
    /// Per load: value at the last update, and the three averages (per minute).
    loads: Vec<(u64, [f64; 3])>,
    last: Option<Time>,
    due: Option<Time>,
}

impl Broker {
    fn publish_sys(&mut self, topic: &str, text: String, now: Time, out: &mut Outbox) {
        let message =
            Arc::new(Message { retain: true, ..Message::new(format!("$SYS/broker/{topic}"), text.into_bytes(), Qos::ExactlyOnce) });
        self.route(&mut Publication::of(&message), None, now, out);
    }

    /// A log line for `$SYS/broker/log/…` (`log_dest topic`), not retained.
    pub(super) fn publish_log_line(&mut self, letter: char, line: &str, now: Time, out: &mut Outbox) {
        let topic = format!("$SYS/broker/log/{letter}");
        self.route(&mut Publication::new(&topic, line.as_bytes(), &[]), None, now, out);
    }

    pub(super) fn sys_topics_due(&mut self, now: Time, out: &mut Outbox) {
        let interval = u64::from(self.settings.conf.sys_interval_secs);
        self.sys_topics.due = None;
        // One shard speaks for all; with several it shows its own share.
        if interval == 0 || self.shard.0 != 0 {
            return;
        }
        if !self.started {
            self.started = true;
            self.publish_sys("version", format!("mosquitto version {MOSQUITTO_VERSION}"), now, out);
        }
        self.publish_sys("uptime", format!("{} seconds", now.0 / 1000), now, out);
        let (values, loads) = self.read_counters();
        self.publish_rows(&values, now, out);
        self.publish_loads(&loads, now, out);
        let due = now.plus_secs(interval);
        self.sys_topics.last = Some(now);
        self.sys_topics.due = Some(due);
        self.deadlines.set(due, Timer::SysTopics);
    }

    fn read_counters(&mut self) -> (Vec<u64>, Vec<u64>) {
        let mut view = View {
            counters: &self.counters,
            clients: 0,
            connected: 0,
            retained: self.retained.len() as u64,
            queued: 0,
            queued_bytes: 0,
            store_failing: self.store_failing,
        };
        for (_, session) in self.sessions.iter().filter(|(_, session)| !session.identity.trusted) {
            view.clients += 1;
            view.connected += u64::from(session.wire.is_some());
            view.queued += (session.outgoing.waiting() + session.outgoing.in_flight.len()) as u64;
            view.queued_bytes += session.outgoing.queued_bytes + session.outgoing.in_flight_bytes;
        }
        let clients = view.clients;
        let loads = LOADS.iter().map(|(_, read)| read(&view)).collect();
        let mut values: Vec<u64> = ROWS.iter().map(|(_, read)| read(&view)).collect();
        self.counters.clients_maximum = self.counters.clients_maximum.max(clients);
        if let Some(value) = values.get_mut(1) {
            *value = self.counters.clients_maximum;
        }
        (values, loads)
    }

    fn publish_rows(&mut self, values: &[u64], now: Time, out: &mut Outbox) {
        self.sys_topics.rows.resize(ROWS.len(), None);
        for (at, ((topic, _), value)) in ROWS.iter().zip(values).enumerate() {
            let Some(known) = self.sys_topics.rows.get_mut(at).filter(|_| self.persists || *topic != STORE_FAILING) else { continue };
            if *known != Some(*value) {
                *known = Some(*value);
                self.publish_sys(topic, value.to_string(), now, out);
            }
        }
    }

    /// Whoever watches `$SYS` hears of it at once.
    pub(super) fn store_is_failing(&mut self, failing: bool, now: Time, out: &mut Outbox) {
        self.store_failing = failing;
        self.refuses_to_keep = failing && self.settings.conf.persistence.durability != Durability::Snapshot;
        if self.settings.conf.sys_interval_secs > 0 && self.shard.0 == 0 {
            let (values, _) = self.read_counters();
            self.publish_rows(&values, now, out);
        }
    }

    /// Moving averages per minute, as mosquitto reckons them.
    fn publish_loads(&mut self, loads: &[u64], now: Time, out: &mut Outbox) {
        let elapsed = self.sys_topics.last.map(|last| (now.0 - last.0) as f64 / 1000.0);
        self.sys_topics.loads.resize(LOADS.len(), (0, [0.0; 3]));
        for (at, ((topic, _), value)) in LOADS.iter().zip(loads).enumerate() {
            for (which, minutes) in MINUTES.iter().enumerate() {
                let Some((before, averages)) = self.sys_topics.loads.get_mut(at) else { continue };
                let Some(average) = averages.get_mut(which) else { continue };
                let old = *average;
                if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0) {
                    let per_minute = (value - *before) as f64 * 60.0 / elapsed;
                    let weight = (-elapsed / (60.0 * f64::from(*minutes))).exp();
                    *average = per_minute + weight * (old - per_minute);
                }
                let new = *average;
                if elapsed.is_none() || (new - old).abs() >= 0.01 {
                    self.publish_sys(&format!("load/{topic}/{minutes}min"), format!("{new:.2}"), now, out);
                }
            }
            if let Some((before, _)) = self.sys_topics.loads.get_mut(at) {
                *before = *value;
            }
        }
    }

    /// A changed `sys_interval` counts from now.
    pub(super) fn sys_topics_reconfigured(&mut self, old: &Settings, now: Time) {
        if old.conf.sys_interval_secs == self.settings.conf.sys_interval_secs {
            return;
        }
        if let Some(due) = self.sys_topics.due.take() {
            self.deadlines.clear(due, Timer::SysTopics);
        }
        let due = now.plus_secs(self.settings.conf.sys_interval_secs.into());
        self.sys_topics.due = Some(due);
        self.deadlines.set(due, Timer::SysTopics);
    }
}
