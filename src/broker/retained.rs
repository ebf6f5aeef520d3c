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
#[derive(Debug, Clone, Default)]
pub struct Retained {
    messages: BTreeSet<ByTopic>,
    /// Of topics and payloads.
    bytes: u64,
}

fn weight(message: &Message) -> u64 {
    (message.topic.len() + message.payload.len()) as u64
}

impl PartialEq for Retained {
    fn eq(&self, other: &Self) -> bool {
        self.messages.len() == other.messages.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Retained {}

impl Retained {
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// In the order of their topics.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Message>> {
        self.messages.iter().map(|entry| &entry.0)
    }

    /// Those behind this topic; `None`: all.
    pub(super) fn behind(&self, topic: Option<&str>) -> impl Iterator<Item = &Arc<Message>> {
        let from = topic.map_or(Bound::Unbounded, Bound::Excluded);
        self.messages.range::<str, _>((from, Bound::Unbounded)).map(|entry| &entry.0)
    }

    /// Those that a restart does not end: all but the broker's own.
    pub(super) fn durable(&self) -> Self {
        self.iter().filter(|message| !message.topic.starts_with('$')).cloned().collect()
    }

    pub(super) fn contains(&self, topic: &str) -> bool {
        self.messages.contains(topic)
    }

    pub(super) fn remove(&mut self, topic: &str) -> bool {
        let removed = self.messages.take(topic);
        self.bytes -= removed.as_ref().map_or(0, |entry| weight(&entry.0));
        removed.is_some()
    }

    /// Removes what has expired at `at` under this topic.
    pub(super) fn expire(&mut self, topic: &str, at: Time) {
        if self.messages.get(topic).is_some_and(|entry| entry.0.is_expired(at)) {
            self.remove(topic);
        }
    }

    /// Replaces the retained message of its topic `[MQTT-3.3.1-5]`; an empty payload removes it `[MQTT-3.3.1-6]`, `[MQTT-3.3.1-7]`.
    pub fn store(&mut self, message: Arc<Message>) {
        if message.payload.is_empty() {
            self.remove(&message.topic);
            return;
        }
        self.bytes += weight(&message);
        let replaced = self.messages.replace(ByTopic(message));
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

    /// Gives their topics.
    pub(super) fn remove_expired(&mut self, now: Time) -> Vec<Box<str>> {
        let expired: Vec<Box<str>> = self.iter().filter(|message| message.is_expired(now)).map(|message| message.topic.clone()).collect();
        for topic in &expired {
            self.remove(topic);
        }
        expired
    }
}

impl FromIterator<Arc<Message>> for Retained {
    fn from_iter<T: IntoIterator<Item = Arc<Message>>>(messages: T) -> Self {
        let mut bytes = 0;
        let kept = messages.into_iter().inspect(|message| bytes += weight(message)).map(ByTopic).collect();
        Self { messages: kept, bytes }
    }
}
