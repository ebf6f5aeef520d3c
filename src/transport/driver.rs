//! Where the machine and the sockets meet: inputs go in one at a time, effects are performed in their order.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

use super::connection::{self, Incoming};
use super::connections::{Connections, Socket};
use super::entrance::{Entered, Entrance};
use super::keeping::Keeping;
use super::log_lines::LogLines;
use super::login::Logins;
use super::outgoing::Spares;
use super::password_check;
use super::routing::Outside;
use crate::broker::{Broker, ConnectionId, Effect, Input, Outbox, Settings, Time};
use crate::logging::{LogType, Logger};
use crate::mqtt::PacketId;
use crate::notice::Notice;
use crate::store::Store;
use crate::tls::Servers;
use crate::websocket::frames;

/// Bytes read at once, and the most that one connection may bring before others have their turn.
pub(super) const SCRATCH_BYTES: usize = 64 << 10;
/// A connection's bytes go to its socket at once when there are this many, and at the end of the turn otherwise.
const WRITE_AT_BYTES: usize = 64 << 10;
/// The machine stops delivering to a connection with this much waiting: more would be memory spent on a reader that is not there.
const CONGESTED_BYTES: usize = 256 << 10;
const DRAINED_BYTES: usize = 64 << 10;
/// A connection with this much waiting is not read from. Only acknowledgements get it here, so it takes a client that sends some
/// 200,000 packets without reading one answer.
pub(super) const HOLD_BYTES: usize = 1 << 20;
/// A closed connection has this long to take its last bytes and to close its side.
const CLOSE_MILLIS: u64 = 5_000;
/// Effects are performed at the latest when this many bytes wait in the outbox.
const PERFORM_AT_BYTES: usize = 64 << 10;
const PERFORM_AT_EFFECTS: usize = 1024;

/// Work that a turn leaves for a task of its own.
pub(super) enum Job {
    /// Flush when the socket takes bytes again.
    Flush(ConnectionId, Rc<Socket>),
    Check(password_check::Check),
}

/// Inputs that come of performing effects.
pub(super) enum Answer {
    Congested(ConnectionId),
    Drained(ConnectionId),
    Authenticated(ConnectionId, bool),
    Closed(ConnectionId, Option<String>),
    NotStored(ConnectionId),
}

pub(super) struct Driver {
    pub(super) broker: Broker,
    pub(super) settings: Settings,
    /// For each listener.
    pub(super) tls: Servers,
    pub(super) entrance: Entrance,
    pub(super) logger: Arc<Logger>,
    pub(super) connections: Connections,
    pub(super) logins: Logins,
    pub(super) scratch: Vec<u8>,
    pub(super) outbox: Outbox,
    pub(super) keeping: Keeping,
    /// The router of the second engine.
    pub(super) outside: Option<Outside>,
    pub(super) spares: Spares,
    pub(super) dirty: Vec<ConnectionId>,
    flusher: Option<Waker>,
    flusher_woken: bool,
    /// Closed connections in the order of their deadlines.
    closing: VecDeque<(Time, ConnectionId)>,
    /// What the machine must hear once the effects at hand are performed.
    pub(super) answers: Vec<Answer>,
    /// Lines of `log_dest topic`.
    log_lines: Arc<LogLines>,
    pub(super) jobs: Vec<Job>,
    armed: Option<Time>,
    now: Time,
}

impl Driver {
    /// Without a store nothing is kept.
    pub(super) fn new(
        (broker, store): (Broker, Option<Box<dyn Store>>),
        (settings, tls): (Settings, Servers),
        logger: Arc<Logger>,
        key: [u8; 32],
    ) -> Self {
        Self {
            broker,
            settings,
            tls,
            entrance: Entrance::default(),
            connections: Connections::default(),
            logins: Logins::new(key),
            scratch: vec![0; SCRATCH_BYTES],
            outbox: Outbox::default(),
            keeping: Keeping::new(store),
            outside: None,
            spares: Spares::default(),
            dirty: Vec::new(),
            flusher: None,
            flusher_woken: false,
            closing: VecDeque::new(),
            answers: Vec::new(),
            log_lines: LogLines::of(&logger),
            jobs: Vec::new(),
            armed: None,
            now: Time::default(),
            logger,
        }
    }

    /// One input. Its effects are performed at the end of the turn, or earlier when there are many.
    pub(super) fn input(&mut self, input: Input<'_>) {
        self.broker.handle(self.now, input, &mut self.outbox);
        if self.outbox.arena.len() >= PERFORM_AT_BYTES || self.outbox.effects.len() >= PERFORM_AT_EFFECTS {
            self.perform();
        }
    }

    /// Performs effects until there are none.
    pub(super) fn perform(&mut self) {
        while !self.outbox.effects.is_empty() || !self.answers.is_empty() {
            let mut outbox = std::mem::take(&mut self.outbox);
            let Outbox { arena, effects } = &mut outbox;
            for effect in effects.drain(..) {
                self.perform_one(effect, arena);
            }
            outbox.clear();
            if outbox.arena.capacity() > 4 * PERFORM_AT_BYTES {
                outbox.arena = Vec::new();
            }
            self.outbox = outbox;
            let mut answers = std::mem::take(&mut self.answers).into_iter();
            while self.outbox.arena.len() < PERFORM_AT_BYTES
                && let Some(answer) = answers.next()
            {
                let input = match answer {
                    Answer::Congested(connection) => Input::Congested { connection },
                    Answer::Drained(connection) => Input::Drained { connection },
                    Answer::Authenticated(connection, permitted) => Input::Authenticated { connection, permitted },
                    Answer::Closed(connection, error) => Input::Closed { connection, error },
                    Answer::NotStored(connection) => {
                        self.take_back(connection);
                        Input::NotStored { connection }
                    }
                };
                self.broker.handle(self.now, input, &mut self.outbox);
            }
            self.answers = answers.collect();
            for (letter, line) in self.log_lines.take() {
                let before = self.outbox.effects.len();
                self.broker.handle(self.now, Input::Log { letter, line: &line }, &mut self.outbox);
                // A line about the publication of a line would go round for ever.
                let mut position = 0;
                self.outbox.effects.retain(|effect| {
                    position += 1;
                    position <= before || !matches!(effect, Effect::Note(_))
                });
            }
        }
    }

    fn perform_one(&mut self, effect: Effect, arena: &[u8]) {
        match effect {
            Effect::Send { connection, start, end, packet_id } => {
                let packet = arena.get(start as usize..end as usize).unwrap_or_default();
                self.send(connection, packet, packet_id);
            }
            Effect::WhenDrained { connection } => self.when_drained(connection),
            Effect::Close { connection } => self.close(connection),
            Effect::Authenticate { connection, security, username, password } => {
                self.authenticate(connection, security, username, password);
            }
            Effect::Hold { connection, until } => self.hold(connection, until),
            Effect::Persist(record) => self.keeping.append(record),
            // There is one shard.
            Effect::ToShard { .. } => {}
            Effect::Route(order) => self.route(order),
            Effect::Note(notice) => self.logger.notice(&notice),
        }
    }

    fn send(&mut self, id: ConnectionId, packet: &[u8], packet_id: Option<(u32, PacketId)>) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.closing) else { return };
        connection.stranger = None;
        let patch = packet_id.map(|(offset, id)| (offset, id.get().to_be_bytes()));
        if connection.websocket.is_some() {
            connection.outgoing.append(&mut self.spares, |bytes| frames::message(packet.len(), bytes));
        }
        connection.outgoing.push(packet, patch, &mut self.spares);
        let waiting = connection.outgoing.len();
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.dirty.push(id);
        }
        if waiting >= WRITE_AT_BYTES && !connection.blocked {
            self.flush(id);
        } else if waiting >= CONGESTED_BYTES && !connection.congested {
            connection.congested = true;
            self.answers.push(Answer::Congested(id));
        }
    }

    /// What TLS itself has to say after a read.
    pub(super) fn answer_tls(&mut self, id: ConnectionId) {
        let wants = self.connections.get_mut(id).and_then(|connection| connection.tls.as_ref()).is_some_and(|tls| tls.wants_write());
        if wants {
            self.flush_soon(id);
        }
    }

    pub(super) fn flush_soon(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.dirty && !connection.blocked {
            connection.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Like congestion, at the machine's own wish.
    fn when_drained(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id).filter(|connection| !connection.closing) else { return };
        connection.congested = true;
        self.flush_soon(id);
    }

    /// Writes what the socket takes, and arranges for the rest.
    pub(super) fn flush(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        let socket = Rc::clone(&connection.socket);
        let flushed = match &mut connection.tls {
            None => connection.outgoing.flush(&socket, &mut self.spares),
            Some(tls) => connection.outgoing.flush_secure(tls, &socket, connection.closing, &mut self.spares),
        };
        match flushed {
            Ok(true) if connection.closing && connection.outgoing.len() == 0 => {
                let _ = shutdown(&socket, Shutdown::Write);
            }
            Ok(true) => {}
            Ok(false) => {
                if !connection.blocked {
                    connection.blocked = true;
                    self.jobs.push(Job::Flush(id, socket));
                }
            }
            Err(error) => return self.lost(id, Some(error.to_string())),
        }
        if connection.congested && connection.outgoing.len() <= DRAINED_BYTES && !connection.closing {
            connection.congested = false;
            self.answers.push(Answer::Drained(id));
        }
    }

    /// The socket takes bytes again. True when it is full once more.
    fn unblocked(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        connection.blocked = false;
        let jobs = self.jobs.len();
        self.flush(id);
        // The task that asks goes on waiting itself.
        let again = self.jobs.len() > jobs;
        self.jobs.truncate(jobs);
        again
    }

    pub(super) fn flush_dirty(&mut self) {
        for id in std::mem::take(&mut self.dirty) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.dirty = false;
                if !connection.blocked {
                    self.flush(id);
                }
            }
        }
    }

    /// The machine is done with it.
    fn close(&mut self, id: ConnectionId) {
        let deadline = Time(self.now.0 + CLOSE_MILLIS);
        let Some(connection) = self.connections.close(id) else { return };
        if let Some(waiting) = connection.authenticating.take() {
            waiting.notify_one();
        }
        if connection.websocket.is_some() {
            connection.outgoing.append(&mut self.spares, |bytes| frames::goodbye(frames::NORMAL, bytes));
        }
        self.closing.push_back((deadline, id));
        let blocked = connection.blocked;
        if !blocked {
            self.flush(id);
        }
    }

    /// The peer or the socket ended it.
    pub(super) fn lost(&mut self, id: ConnectionId, error: Option<String>) {
        let Some(connection) = self.connections.remove(id) else { return };
        if let Some(waiting) = connection.authenticating.as_ref() {
            waiting.notify_one();
        }
        let _ = shutdown(&connection.socket, Shutdown::Both);
        if !connection.closing {
            self.answers.push(Answer::Closed(id, error));
        }
    }

    fn deadlines(&mut self) {
        while let Some((deadline, id)) = self.closing.front().copied() {
            if deadline > self.now {
                break;
            }
            self.closing.pop_front();
            self.lost(id, None);
        }
        if self.broker.next_deadline().is_some_and(|deadline| deadline <= self.now) {
            self.input(Input::DeadlineReached);
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        let closing = self.closing.front().map(|(deadline, _)| *deadline);
        self.broker.next_deadline().into_iter().chain(closing).min()
    }

    /// True when nothing waits for a socket any more.
    pub(super) fn is_flushed(&mut self) -> bool {
        let ids = self.connections.ids();
        ids.into_iter().all(|id| {
            self.connections
                .get_mut(id)
                .is_none_or(|connection| connection.outgoing.len() == 0 && !connection.tls.as_ref().is_some_and(|tls| tls.wants_write()))
        })
    }
}

pub(super) fn shutdown(socket: &Socket, how: Shutdown) -> std::io::Result<()> {
    socket2::SockRef::from(socket).shutdown(how)
}

/// The driver as its tasks share it. It is borrowed for a turn, never across an await.
#[derive(Clone)]
pub(super) struct Shard(Rc<Shared>);

struct Shared {
    driver: RefCell<Driver>,
    started: Instant,
    timer: Notify,
    failed: Notify,
}

impl Shard {
    pub(super) fn new(driver: Driver) -> Self {
        let shared = Shared { driver: RefCell::new(driver), started: Instant::now(), timer: Notify::new(), failed: Notify::new() };
        Self(Rc::new(shared))
    }

    /// Lets `change` at the driver, then performs what the machine asked for. `None` after a panic: the process ends then.
    pub(super) fn turn<R>(&self, change: impl FnOnce(&mut Driver) -> R) -> Option<R> {
        let now = Time(self.0.started.elapsed().as_millis() as u64);
        let turn = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let mut driver = self.0.driver.borrow_mut();
            driver.now = now;
            let result = change(&mut driver);
            driver.perform();
            let next = driver.next_deadline();
            if next.is_some_and(|next| driver.armed.is_none_or(|armed| next < armed)) {
                self.0.timer.notify_one();
            }
            if (!driver.dirty.is_empty() || driver.keeping.uncommitted || driver.keeping.awaited) && !driver.flusher_woken {
                driver.flusher_woken = true;
                if let Some(flusher) = &driver.flusher {
                    flusher.wake_by_ref();
                }
            }
            (result, std::mem::take(&mut driver.jobs))
        }));
        if let Ok((result, jobs)) = turn {
            for job in jobs {
                self.start(job);
            }
            Some(result)
        } else {
            self.fail();
            None
        }
    }

    fn start(&self, job: Job) {
        let shard = self.clone();
        match job {
            Job::Flush(id, socket) => drop(tokio::task::spawn_local(async move {
                while let Ok(ready) = socket.writable().await {
                    drop(ready);
                    if !shard.turn(|driver| driver.unblocked(id)).unwrap_or(false) {
                        break;
                    }
                }
            })),
            Job::Check(check) => drop(tokio::task::spawn_local(check.run(shard))),
        }
    }

    /// A connection whose packets come next.
    pub(super) fn accepted(&self, entered: Entered) {
        let Entered { socket, origin, peer, stranger, tls, websocket, certificate_user, early } = entered;
        let socket = Rc::new(socket);
        let kept = Rc::clone(&socket);
        let incoming = Incoming::new(tls.is_some(), websocket.is_some());
        let id = self.turn(move |driver| {
            let connection = driver.connections.insert(kept, (origin.clone(), stranger), tls, websocket);
            driver.input(Input::Opened { connection, origin, peer, certificate_user });
            connection
        });
        if let Some(id) = id {
            tokio::task::spawn_local(connection::serve(self.clone(), id, socket, incoming, early));
        }
    }

    /// Runs after every task that was ready in this turn of the loop, so that each connection is written to once.
    pub(super) async fn flush_forever(self) {
        std::future::poll_fn(|task| {
            self.turn(|driver| {
                if !driver.flusher.as_ref().is_some_and(|known| known.will_wake(task.waker())) {
                    driver.flusher = Some(task.waker().clone());
                }
                driver.flusher_woken = false;
                driver.commit();
                driver.perform();
                driver.flush_dirty();
            });
            std::task::Poll::<()>::Pending
        })
        .await;
    }

    /// Tells the machine when its deadlines are reached.
    pub(super) async fn keep_time(self) {
        loop {
            let armed = {
                let mut driver = self.0.driver.borrow_mut();
                driver.armed = driver.next_deadline();
                driver.armed
            };
            match armed {
                None => self.0.timer.notified().await,
                Some(deadline) => {
                    let at = self.0.started + std::time::Duration::from_millis(deadline.0);
                    if tokio::time::timeout_at(at.into(), self.0.timer.notified()).await.is_err() {
                        self.turn(Driver::deadlines);
                    }
                }
            }
        }
    }

    pub(super) fn fail(&self) {
        self.0.failed.notify_one();
    }

    /// Returns when a turn panicked.
    pub(super) async fn failure(&self) {
        self.0.failed.notified().await;
    }

    pub(super) fn notice(&self, notice: &Notice) {
        let logger = Arc::clone(&self.0.driver.borrow().logger);
        logger.notice(notice);
    }

    pub(super) fn reopen_log(&self) {
        let logger = Arc::clone(&self.0.driver.borrow().logger);
        logger.reopen();
    }

    pub(super) fn log(&self, log_type: LogType, line: &str) {
        let logger = Arc::clone(&self.0.driver.borrow().logger);
        logger.log(log_type, line);
    }
}
