//! What of a batch need not be written, because something later in it undoes it.

use std::collections::{HashMap, HashSet};

use crate::broker::Record;

/// The records of a batch whose outcome is the same without the others: the last value of each retained topic, and nothing of a message
/// that came and was done with.
pub(super) fn squeeze(records: &[Record]) -> Vec<&Record> {
    let mut last_of_topic: HashMap<&str, usize> = HashMap::new();
    let mut queued: HashSet<(&str, u64)> = HashSet::new();
    let mut passed: HashSet<(&str, u64)> = HashSet::new();
    for (at, record) in records.iter().enumerate() {
        match record {
            Record::Retained { message } => drop(last_of_topic.insert(&message.topic, at)),
            Record::RetainedCleared { topic } => drop(last_of_topic.insert(topic, at)),
            Record::Queued { client, delivery, .. } => drop(queued.insert((&client.client_id, delivery.number))),
            Record::Done { client, number } if queued.contains(&(&*client.client_id, *number)) => {
                passed.insert((&client.client_id, *number));
            }
            _ => {}
        }
    }
    let is_needed = |(at, record): &(usize, &Record)| match record {
        Record::Retained { message } => last_of_topic.get(&*message.topic) == Some(at),
        Record::RetainedCleared { topic } => last_of_topic.get(&**topic) == Some(at),
        Record::Queued { client, delivery, .. } => !passed.contains(&(&*client.client_id, delivery.number)),
        Record::Sent { client, number, .. } | Record::Released { client, number } | Record::Done { client, number } => {
            !passed.contains(&(&*client.client_id, *number))
        }
        _ => true,
    };
    records.iter().enumerate().filter(is_needed).map(|(_, record)| record).collect()
}
