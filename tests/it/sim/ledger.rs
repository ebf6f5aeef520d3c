//! The naive model: what was published, what was acknowledged, who had to get it, who got it. It knows nothing of queues,
//! windows, Packet Identifiers or shards.

use std::collections::BTreeMap;

/// Number of a message; its payload says it.
pub type Number = usize;

/// What became of a will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Not a will.
    Published,
    /// Nobody may have seen it yet.
    Armed,
    Cancelled,
    /// Due since this many crashes.
    Due {
        crashes: usize,
    },
    /// The broker crashed meanwhile.
    Unknown,
}

#[derive(Debug, Clone)]
pub struct Published {
    pub by: usize,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub expiry_secs: Option<u32>,
    /// Removes the retained message.
    pub empty: bool,
    /// Step at which the client made it.
    pub made: u64,
    /// Steps and times (ms) at which the broker read it, retransmissions included.
    pub read: Vec<(u64, u64)>,
    /// It was read last while the store failed.
    pub is_unsure: bool,
    /// Step at which the last acknowledgement left the broker.
    pub acknowledged: Option<u64>,
    pub fate: Fate,
    /// The broker's half of its QoS 2 flow ended with the session, and the client could not know.
    pub is_void: bool,
}

/// A client's subscription, as the client knows it.
#[derive(Debug, Clone, Copy)]
pub struct Subscription {
    pub qos: u8,
    /// Step at which SUBACK arrived.
    pub since: Option<u64>,
}

/// What one client has been given.
#[derive(Debug, Default)]
pub struct Received {
    /// Handed to the application, with RETAIN 0: (message, QoS) → times.
    pub times: BTreeMap<(Number, u8), usize>,
    /// (publisher, topic, published QoS, QoS) → newest message, in this session.
    pub newest: BTreeMap<(usize, String, u8, u8), Number>,
}

#[derive(Default)]
pub struct Ledger {
    pub messages: Vec<Published>,
    /// Retained topics, each of one publisher: what it published there, in order.
    pub retained: BTreeMap<String, Vec<Number>>,
    /// Counts everything that happens.
    pub step: u64,
    pub crashes: usize,
    /// Step of the newest one.
    pub crashed: u64,
    /// The store has failed at some time: what would have to be kept may be refused.
    pub has_failed: bool,
    /// Crashes while it did: what was not promised may be undone, the steps of a delivery at QoS 2 included.
    pub crashes_failing: usize,
    /// Wills that were cancelled since the last commit.
    pub cancelled: Vec<Number>,
    violation: Option<String>,
}

impl Ledger {
    /// Remembers the first violation.
    pub fn blame(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert_with(|| what.into());
    }

    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    pub fn publish(&mut self, published: Published) -> Number {
        let number = self.messages.len();
        if published.retain {
            self.retained.entry(published.topic.clone()).or_default().push(number);
        }
        self.messages.push(published);
        number
    }

    /// Order per publisher and topic: a message that comes for the first time after a newer one must have been sent again meanwhile.
    pub fn check_order(&mut self, received: &mut Received, number: Number, qos: u8, client: &str) {
        let message = &self.messages[number];
        let key = (message.by, message.topic.clone(), message.qos, qos);
        let newest = received.newest.entry(key).or_insert(number);
        if *newest <= number {
            *newest = number;
            return;
        }
        let first_time = !received.times.contains_key(&(number, qos));
        let last_read = message.read.last().map(|(step, _)| *step);
        let newest_read = self.messages[*newest].read.first().map(|(step, _)| *step);
        if first_time && last_read < newest_read {
            let newest = *newest;
            self.blame(format!("order: {client} got message {number} of {} after message {newest}", self.messages[number].topic));
        }
    }

    /// When the broker began to send `number` at `now` ms. `remaining_secs` is the Message Expiry Interval that it said.
    pub fn check_expiry(&mut self, number: Number, now: u64, remaining_secs: Option<u32>, v5: bool) {
        let Some(message) = self.messages.get(number) else { return };
        let Some(secs) = message.expiry_secs else {
            if remaining_secs.is_some() {
                self.blame(format!("expiry: message {number} has none, and is sent with one"));
            }
            return;
        };
        let Some((_, read)) = message.read.last() else { return };
        let ends = read + u64::from(secs) * 1000;
        if now >= ends {
            return self.blame(format!("expiry: message {number} is sent {} ms after its end", now - ends));
        }
        let left = ends.saturating_sub(now).div_ceil(1000) as u32;
        if v5 && remaining_secs.is_none_or(|said| said == 0 || said > left) {
            self.blame(format!("expiry: message {number} has {left} s left and is sent with {remaining_secs:?}"));
        }
    }

    /// Somebody got it: was it due?
    pub fn check_will(&mut self, number: Number, client: &str) {
        let fate = self.messages[number].fate;
        if matches!(fate, Fate::Armed | Fate::Cancelled) {
            self.blame(format!("will: {client} got message {number}, a will that is {fate:?}"));
        }
    }

    /// Position of the newest acknowledged value among what was published to a retained topic.
    pub fn retained_floor(&self, topic: &str) -> Option<usize> {
        let history = self.retained.get(topic)?;
        history.iter().rposition(|number| self.messages[*number].acknowledged.is_some())
    }

    /// `value`: what a new subscriber got at last; `floor`: the position that was acknowledged before it asked.
    pub fn check_retained(&mut self, topic: &str, value: Option<Number>, floor: Option<usize>, now: u64) {
        let Some(history) = self.retained.get(topic) else {
            return self.blame(format!("retained: {topic} has a value that nobody published"));
        };
        let from = floor.unwrap_or(0);
        // A publisher that never got the acknowledgement sends an older message again, and is right to: at QoS 1 it counts once more.
        let came_again = |number: &Number| {
            let (message, newer) = (&self.messages[*number], floor.and_then(|floor| self.messages[history[floor]].acknowledged));
            message.qos == 1 && message.read.last().map(|(step, _)| *step) > newer
        };
        let verdict = if let Some(number) = value {
            match history.iter().position(|known| *known == number) {
                None => Some(format!("message {number} was never published there")),
                Some(at) if at < from && !came_again(&number) => {
                    Some(format!("message {number} is older than message {}, which was acknowledged", history[from]))
                }
                Some(_) => None,
            }
        } else {
            let may_be_absent = |number: &Number| {
                let message = &self.messages[*number];
                let read = message.read.first().map_or(0, |(_, at)| *at);
                message.empty || message.expiry_secs.is_some_and(|secs| read + u64::from(secs) * 1000 <= now)
            };
            let again = history[..from].iter().any(|number| may_be_absent(number) && came_again(number));
            let excused = floor.is_none() || again || history[from..].iter().any(may_be_absent);
            (!excused).then(|| format!("message {} was acknowledged, and there is none", history[from]))
        };
        if let Some(verdict) = verdict {
            self.blame(format!("retained: {topic}: {verdict}"));
        }
    }
}

/// Does `filter` (without `$share/NAME/`) match? Written for the handful of filters of the simulation.
pub fn matches(filter: &str, topic: &str) -> bool {
    let filter = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, filter)| filter);
    let (mut levels, mut names) = (filter.split('/'), topic.split('/'));
    loop {
        match (levels.next(), names.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}
