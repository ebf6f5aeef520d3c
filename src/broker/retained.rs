//! Retained Messages, ordered by Topic Name.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::interface::Time;
use super::message::Message;
use crate::mqtt::topic_filter;

/// A message that is found by its topic, without a second copy of the topic.
#[derive(Debug, Clone)]
struct ByTopic(Arc<Message>);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        &self.0.topic
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic.cmp(&other.0.topic)
    }
}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic == other.0.topic
    }
}

impl Eq for ByTopic {}

/// The retained messages of the whole broker, as this shard sees them.
#[derive(Debug, Default)]
pub(super) struct Retained {
    messages: BTreeSet<ByTopic>,
    /// Of topics and payloads.
    bytes: u64,
}

fn weight(message: &Message) -> u64 {
    (message.topic.len() + message.payload.len()) as u64
}

impl Retained {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Replaces the retained message of its topic `[MQTT-3.3.1-5]`; an empty payload removes it `[MQTT-3.3.1-6]`, `[MQTT-3.3.1-7]`.
    pub(super) fn store(&mut self, message: Arc<Message>) {
        let replaced = if message.payload.is_empty() {
            self.messages.take(&*message.topic)
        } else {
            self.bytes += weight(&message);
            self.messages.replace(ByTopic(message))
        };
        self.bytes -= replaced.map_or(0, |entry| weight(&entry.0));
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Those that match `filter` and have not expired at `now`; `looks` counts how many had to be looked at.
    pub(super) fn matching(&self, filter: &str, now: Time, looks: &mut usize) -> Vec<Arc<Message>> {
        let Some(wildcard) = filter.find(['+', '#']) else {
            *looks += 1;
            return self
                .messages
                .get(filter)
                .map(|entry| &entry.0)
                .filter(|message| !message.is_expired(now))
                .cloned()
                .into_iter()
                .collect();
        };
        // Everything before the first wildcard is a prefix of each matching topic; `a/#` also matches `a`.
        let prefix = filter.get(..wildcard).unwrap_or_default();
        let start = prefix.strip_suffix('/').unwrap_or(prefix);
        self.messages
            .range::<str, _>((Bound::Included(start), Bound::Unbounded))
            .map(|entry| &entry.0)
            .take_while(|message| message.topic.starts_with(start))
            .inspect(|_| *looks += 1)
            .filter(|message| topic_filter::matches(filter, &message.topic) && !message.is_expired(now))
            .cloned()
            .collect()
    }

    pub(super) fn remove_expired(&mut self, now: Time) {
        self.messages.retain(|entry| !entry.0.is_expired(now));
        self.bytes = self.messages.iter().map(|entry| weight(&entry.0)).sum();
    }
}
