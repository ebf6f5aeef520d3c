//! Publishers and subscribers in a closed loop: a publisher sends on as its messages arrive, so that no broker has to drop any.

use std::time::{Duration, Instant};

use darner::mqtt::Qos;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd as _;

use crate::broker::Broker;
use crate::client::{Client, Event};

pub struct Scenario {
    pub name: &'static str,
    publishers: usize,
    subscribers: usize,
    qos: Qos,
    /// Messages under way for each publisher.
    window: u64,
    kept: Option<Kept>,
}

/// Subscribers whose sessions outlive their connections, at a broker with `persistence true`.
struct Kept {
    /// Further ones that are away: their messages wait.
    away: usize,
}

impl Scenario {
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }
}

/// What a scenario came to.
pub struct Figures {
    /// Deliveries per second of the broker's CPU.
    pub per_cpu_second: f64,
    /// Deliveries per second of the clock.
    pub per_second: f64,
}

const PAYLOAD_BYTES: usize = 64;
const WARM_UP: Duration = Duration::from_millis(500);
const DRAIN: Duration = Duration::from_secs(20);

pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "1→1 QoS 0", publishers: 1, subscribers: 1, qos: Qos::AtMostOnce, window: 1000, kept: None },
    Scenario { name: "1→1 QoS 1", publishers: 1, subscribers: 1, qos: Qos::AtLeastOnce, window: 1000, kept: None },
    Scenario { name: "50→1 QoS 0", publishers: 50, subscribers: 1, qos: Qos::AtMostOnce, window: 20, kept: None },
    Scenario { name: "50→1 QoS 1", publishers: 50, subscribers: 1, qos: Qos::AtLeastOnce, window: 20, kept: None },
    Scenario { name: "1→100 QoS 0", publishers: 1, subscribers: 100, qos: Qos::AtMostOnce, window: 200, kept: None },
    Scenario { name: "1→100 QoS 1", publishers: 1, subscribers: 100, qos: Qos::AtLeastOnce, window: 200, kept: None },
];

/// At QoS 2 no more is under way than mosquitto's `max_inflight_messages`: with more, mosquitto 2.0.11 pauses for seconds.
pub const KEPT_SCENARIOS: &[Scenario] = &[
    kept("1→1 QoS 1, kept", (1, 1, 0), Qos::AtLeastOnce, 1000),
    kept("1→1 QoS 2, kept", (1, 1, 0), Qos::ExactlyOnce, 20),
    kept("50→10 QoS 1, kept", (50, 10, 0), Qos::AtLeastOnce, 20),
    kept("10→10 QoS 2, kept", (10, 10, 0), Qos::ExactlyOnce, 2),
    kept("10→1 QoS 1, kept, 2 away", (10, 1, 2), Qos::AtLeastOnce, 100),
    kept("10→5 QoS 2, kept, 2 away", (10, 5, 2), Qos::ExactlyOnce, 2),
    kept("1→100 QoS 1, kept", (1, 100, 0), Qos::AtLeastOnce, 200),
];

const fn kept(name: &'static str, (publishers, subscribers, away): (usize, usize, usize), qos: Qos, window: u64) -> Scenario {
    Scenario { name, publishers, subscribers, qos, window, kept: Some(Kept { away }) }
}

struct Load<'a> {
    scenario: &'a Scenario,
    publishers: Vec<Client>,
    subscribers: Vec<Client>,
    /// Messages sent by each publisher.
    sent: Vec<u64>,
    acknowledged: u64,
    /// By subscriber and publisher: how many messages arrived, which is also the number that the next one must carry.
    arrived: Vec<Vec<u64>>,
    deliveries: u64,
    scratch: Vec<u8>,
}

pub fn run(broker: &Broker, scenario: &Scenario, seconds: f64) -> Figures {
    let mut load = Load::new(broker.port, scenario);
    load.turn_until(Instant::now() + WARM_UP);
    let (cpu, deliveries, began) = (broker.cpu_seconds(), load.deliveries, Instant::now());
    load.turn_until(began + Duration::from_secs_f64(seconds));
    let count = (load.deliveries - deliveries) as f64;
    let figures = Figures { per_cpu_second: count / (broker.cpu_seconds() - cpu), per_second: count / began.elapsed().as_secs_f64() };
    load.drain();
    figures
}

impl<'a> Load<'a> {
    fn new(port: u16, scenario: &'a Scenario) -> Self {
        let subscriber = |number| {
            let mut client = Client::connect_with(port, &format!("subscriber-{number}"), !scenario.is_kept());
            client.subscribe("bench/#", scenario.qos);
            client
        };
        let away = scenario.kept.as_ref().map_or(0, |kept| kept.away);
        (0..away).for_each(|number| drop(subscriber(scenario.subscribers + number)));
        let subscribers: Vec<_> = (0..scenario.subscribers).map(subscriber).collect();
        let publishers: Vec<_> = (0..scenario.publishers).map(|number| Client::connect(port, &format!("publisher-{number}"))).collect();
        for client in subscribers.iter().chain(&publishers) {
            client.socket.set_nonblocking(true).expect("a socket");
        }
        Self {
            scenario,
            sent: vec![0; publishers.len()],
            arrived: vec![vec![0; publishers.len()]; subscribers.len()],
            publishers,
            subscribers,
            acknowledged: 0,
            deliveries: 0,
            scratch: vec![0; 256 << 10],
        }
    }

    fn turn_until(&mut self, end: Instant) {
        while Instant::now() < end {
            self.send();
            self.turn();
        }
    }

    /// Everything that was sent must arrive.
    fn drain(&mut self) {
        let end = Instant::now() + DRAIN;
        let total: u64 = self.sent.iter().sum();
        let wants_acks = self.scenario.qos != Qos::AtMostOnce;
        while self.deliveries < total * self.subscribers.len() as u64 || (wants_acks && self.acknowledged < total) {
            assert!(Instant::now() < end, "{}: {} of {total} messages × subscribers arrived", self.scenario.name, self.deliveries);
            self.turn();
        }
    }

    fn send(&mut self) {
        for (number, publisher) in self.publishers.iter_mut().enumerate() {
            let slowest = self.arrived.iter().map(|by_publisher| by_publisher[number]).min().unwrap_or(0);
            let topic = format!("bench/{number}/temperature");
            let mut payload = [b'x'; PAYLOAD_BYTES];
            payload[8..16].copy_from_slice(&(number as u64).to_be_bytes());
            while self.sent[number] < slowest + self.scenario.window {
                payload[..8].copy_from_slice(&self.sent[number].to_be_bytes());
                publisher.publish(&topic, self.scenario.qos, &payload);
                self.sent[number] += 1;
            }
            publisher.write();
        }
    }

    fn turn(&mut self) {
        let clients = self.publishers.iter().chain(&self.subscribers);
        let mut watched: Vec<_> = clients
            .map(|client| {
                let out = if client.has_outgoing() { PollFlags::POLLOUT } else { PollFlags::empty() };
                PollFd::new(client.socket.as_fd(), PollFlags::POLLIN | out)
            })
            .collect();
        poll(&mut watched, PollTimeout::from(100_u8)).expect("poll");
        let ready: Vec<_> = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        for (number, events) in ready.into_iter().enumerate().filter(|(_, events)| !events.is_empty()) {
            let subscriber = number.checked_sub(self.publishers.len());
            let client = match subscriber {
                Some(subscriber) => &mut self.subscribers[subscriber],
                None => &mut self.publishers[number],
            };
            if events.contains(PollFlags::POLLOUT) {
                client.write();
            }
            let (arrived, deliveries, acknowledged) = (&mut self.arrived, &mut self.deliveries, &mut self.acknowledged);
            client.read(&mut self.scratch, |event| match event {
                Event::Message(payload) => {
                    let word = |at: usize| u64::from_be_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
                    let next = &mut arrived[subscriber.expect("only subscribers get messages")][word(8) as usize];
                    assert_eq!(word(0), *next, "a message is lost, repeated or out of order");
                    *next += 1;
                    *deliveries += 1;
                }
                Event::Acknowledged => *acknowledged += 1,
                Event::Other => {}
            });
        }
    }
}
