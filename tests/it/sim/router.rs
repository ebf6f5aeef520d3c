//! A router outside of the machine, as slow and as out of step with itself as rumqttd's may be: every client is heard in its own time,
//! whatever number its session has, and so is every subscription.

use std::collections::{BTreeMap, VecDeque};

use darner::broker::{RouterAnswer, RouterOrder};
use darner::mqtt::topic_filter;

use crate::support::random::Random;

/// No client: the broker's own.
const OWN: u64 = 0;

#[derive(Default)]
pub struct Router {
    /// Session → client.
    joined: BTreeMap<u32, u64>,
    /// What each client has said and the router has not heard.
    said: BTreeMap<u64, VecDeque<RouterOrder>>,
    /// By number.
    subscriptions: BTreeMap<u32, Box<str>>,
    /// What each subscription is sent, by number; confirmations have a queue of their own, with the number 0.
    answers: BTreeMap<u32, VecDeque<RouterAnswer>>,
    /// Payloads of what has come back since the last commit: its publisher was not kept waiting for that.
    unkept: Vec<Box<[u8]>>,
}

impl Router {
    pub fn order(&mut self, order: RouterOrder) {
        let session = match &order {
            RouterOrder::Join { session, client } => {
                assert!(self.joined.insert(*session, *client).is_none(), "{session} joins twice");
                return;
            }
            RouterOrder::Leave { session } => {
                assert!(self.joined.remove(session).is_some(), "{session} leaves twice");
                return;
            }
            RouterOrder::Subscribe { session, .. } | RouterOrder::Unsubscribe { session, .. } => Some(*session),
            RouterOrder::Publish { from, .. } => *from,
        };
        let client = session.map_or(OWN, |session| *self.joined.get(&session).expect("a session that has joined"));
        self.said.entry(client).or_default().push_back(order);
    }

    pub fn committed(&mut self) {
        self.unkept.clear();
    }

    /// It dies with the process: payloads of what it had, or had not heard, or had given back to somebody who had not kept it yet.
    pub fn die(&mut self) -> Vec<Box<[u8]>> {
        let dead = std::mem::take(self);
        let said = dead.said.into_values().flatten().filter_map(|order| match order {
            RouterOrder::Publish { message, .. } => Some(message.payload.clone()),
            _ => None,
        });
        let answers = dead.answers.into_values().flatten().filter_map(|answer| match answer {
            RouterAnswer::Message { message, .. } => Some(message.payload.clone()),
            RouterAnswer::Subscribed { .. } => None,
        });
        said.chain(answers).chain(dead.unkept).collect()
    }

    fn hear(&mut self, order: RouterOrder) {
        match order {
            RouterOrder::Join { .. } | RouterOrder::Leave { .. } => {}
            RouterOrder::Subscribe { number, filter, .. } => {
                self.subscriptions.insert(number, filter);
                self.answers.entry(0).or_default().push_back(RouterAnswer::Subscribed { number });
            }
            RouterOrder::Unsubscribe { number, .. } => {
                self.subscriptions.remove(&number).expect("a subscription that was ordered");
            }
            RouterOrder::Publish { client, serial, message, .. } => {
                for (number, _) in self.subscriptions.iter().filter(|(_, filter)| topic_filter::matches(filter, &message.topic)) {
                    let answer = RouterAnswer::Message { number: *number, serial, client, message: message.clone() };
                    self.answers.entry(*number).or_default().push_back(answer);
                }
            }
        }
    }

    /// Does one thing, if there is one to do; gives what it has to say.
    pub fn turn(&mut self, random: &mut Random) -> Option<Option<RouterAnswer>> {
        self.said.retain(|_, said| !said.is_empty());
        self.answers.retain(|_, answers| !answers.is_empty());
        let count = self.said.len() + self.answers.len();
        if count == 0 {
            return None;
        }
        let at = random.below(count);
        if let Some(said) = self.said.values_mut().nth(at) {
            let order = said.pop_front()?;
            self.hear(order);
            return Some(None);
        }
        let answer = self.answers.values_mut().nth(at - self.said.len())?.pop_front();
        if let Some(RouterAnswer::Message { message, .. }) = &answer {
            self.unkept.push(message.payload.clone());
        }
        Some(answer)
    }
}
