//! What of a batch need not be written, because something later in it undoes it.

use std::collections::{HashMap, HashSet};

use crate::broker::Record;

/// The records of a batch whose outcome is the same without the others: the last value of each retained topic, and nothing of a message
/// that came and was done with.
pub(super) fn squeeze(records: &[Record]) -> Vec<&Record> {
    let mut needless: HashSet<usize> = HashSet::new();
    let mut of_topic: HashMap<&str, usize> = HashMap::new();
    // A delivery's number may be given again after its end, when the session began anew: what counts is where it stands in the batch.
    let mut of_delivery: HashMap<(&str, u64), Vec<usize>> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        match record {
            Record::Retained { message } => needless.extend(of_topic.insert(&message.topic, at)),
            Record::RetainedCleared { topic } => needless.extend(of_topic.insert(topic, at)),
            Record::Queued { client, delivery, .. } => drop(of_delivery.insert((&client.client_id, delivery.number), vec![at])),
            Record::Sent { client, number, .. } | Record::Released { client, number } => {
                if let Some(steps) = of_delivery.get_mut(&(&*client.client_id, *number)) {
                    steps.push(at);
                }
            }
            Record::Done { client, number } => {
                if let Some(steps) = of_delivery.remove(&(&*client.client_id, *number)) {
                    needless.extend(steps);
                    needless.insert(at);
                }
            }
            _ => {}
        }
    }
    records.iter().enumerate().filter(|(at, _)| !needless.contains(at)).map(|(_, record)| record).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::broker::message::{Delivery, Identity, Message};
    use crate::mqtt::{PacketId, Properties, Qos};

    fn client() -> Arc<Identity> {
        Arc::new(Identity { client_id: "c".into(), username: None, security: 0, trusted: false })
    }

    fn message(topic: &str, payload: &str) -> Arc<Message> {
        Arc::new(Message {
            topic: topic.into(),
            payload: payload.as_bytes().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            properties: Properties::default(),
            expires_at: None,
            publisher: None,
        })
    }

    fn queued(number: u64, payload: &str) -> Record {
        let message = message("t", payload);
        let delivery = Delivery { message, qos: Qos::AtLeastOnce, retain: false, subscription_identifier: 0, packet_id: None, number };
        Record::Queued { client: client(), delivery, packet_id: None }
    }

    fn sent(number: u64) -> Record {
        Record::Sent { client: client(), number, packet_id: PacketId::MIN }
    }

    fn done(number: u64) -> Record {
        Record::Done { client: client(), number }
    }

    fn kept(records: &[Record], expected: &[usize]) {
        let expected: Vec<&Record> = expected.iter().map(|at| &records[*at]).collect();
        assert_eq!(squeeze(records), expected);
    }

    #[test]
    fn of_the_values_of_a_retained_topic_the_last_is_written() {
        let value = |topic, payload| Record::Retained { message: message(topic, payload) };
        let cleared = Record::RetainedCleared { topic: "a".into() };
        kept(&[value("a", "1"), value("b", "1"), value("a", "2")], &[1, 2]);
        kept(&[value("a", "1"), cleared.clone()], &[1]);
        kept(&[cleared, value("a", "2")], &[1]);
    }

    #[test]
    fn a_message_that_came_and_was_done_with_is_not_written() {
        kept(&[queued(1, "x"), queued(2, "y"), sent(1), done(1)], &[1]);
    }

    #[test]
    fn what_an_earlier_batch_began_is_ended() {
        kept(&[sent(1), done(1), queued(2, "y")], &[0, 1, 2]);
    }

    #[test]
    fn a_number_that_a_new_session_gives_again_is_another_message() {
        let ended = Record::SessionEnded { client: client() };
        kept(&[queued(1, "old"), done(1), ended.clone(), queued(1, "new")], &[2, 3]);
        kept(&[queued(1, "old"), ended, queued(1, "new"), sent(1), done(1)], &[0, 1]);
    }
}
