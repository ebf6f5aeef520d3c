//! One task for each listening socket.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use tokio::io::Interest;

use super::connections::register;
use super::crowd::{Crowd, Stranger};
use super::driver::{Driver, Shard};
use super::entrance::{self, Entered};
use super::listeners::{self, Listening};
use crate::broker::{ConnectionId, Origin};
use crate::logging::LogType;
use crate::notice::Notice;

/// Connections accepted in a row before those that are open have their turn.
const BURST: usize = 64;
/// Turns of the loop that a full listener waits for those who have closed.
const GOODBYE_TURNS: usize = 4;
/// How long to wait when the process is out of descriptors or memory; those who knock wait in the kernel's queue.
const BACK_OFF: Duration = Duration::from_millis(100);
/// One line is enough for as long as that lasts.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

pub(super) async fn accept_forever(shard: Shard, listening: Listening) {
    let Listening { socket, origin } = listening;
    let Ok(listener) = register(socket) else { return shard.fail() };
    let mut complained: Option<Instant> = None;
    loop {
        let Ok(ready) = listener.readable().await else { return };
        drop(ready);
        for _ in 0..BURST {
            match listener.try_io(Interest::READABLE, listeners::accept) {
                Ok(socket) => {
                    wait_for_goodbyes(&shard, &origin).await;
                    admit(&shard, socket, &origin);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_exhausted(&error) => {
                    if complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
                        complained = Some(Instant::now());
                        shard.log(LogType::Error, &format!("Error: Unable to accept new connections ({error}): raise the limit of open files (ulimit -n) or lower max_connections."));
                    }
                    shard.turn(|driver| driver.send_away_strangers(BURST));
                    tokio::time::sleep(BACK_OFF).await;
                    break;
                }
                // The peer went away before it was accepted (ECONNABORTED and the network errors of accept(2)).
                Err(_) => {}
            }
        }
        tokio::task::yield_now().await;
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}

/// Whoever closed before this one knocked no longer counts, but may not have been read yet: give that a turn before saying no.
async fn wait_for_goodbyes(shard: &Shard, origin: &Origin) {
    for _ in 0..GOODBYE_TURNS {
        if !shard.turn(|driver| driver.is_full(origin)).unwrap_or(false) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn admit(shard: &Shard, socket: OwnedFd, origin: &Origin) {
    let peer = shard.turn(|driver| driver.may_enter(&socket, origin)).flatten();
    if let Some(peer) = peer
        && let Ok(socket) = register(socket)
    {
        let way = shard.turn(|driver| driver.steps(origin).map(|steps| (steps, driver.entrance.number())));
        let Some((steps, number)) = way.flatten() else { return };
        let entered = Entered::new(socket, origin.clone(), peer, number);
        if steps.is_empty() { shard.accepted(entered) } else { entrance::begin(shard, entered, steps) }
    }
}

impl Driver {
    /// Without descriptors for those who knock, some who have not said who they are give theirs back, so that strangers who say nothing keep
    /// nobody out, neither here nor in the entrance.
    fn send_away_strangers(&mut self, count: usize) {
        enum Place {
            Entrance(u64),
            Here(ConnectionId),
        }
        let mut crowd = Crowd::default();
        for Stranger { number, address } in self.entrance.strangers() {
            crowd.enter(number, address, Place::Entrance(number));
        }
        for (id, Stranger { number, address }) in self.connections.strangers() {
            crowd.enter(*number, Arc::clone(address), Place::Here(id));
        }
        for (_, place) in crowd.send_away(count) {
            match place {
                Place::Entrance(number) => self.entrance.send_away(number),
                Place::Here(id) => self.lost(id, None),
            }
        }
    }

    /// The peer's name, or `None` where it is turned away.
    pub(super) fn may_enter(&mut self, socket: &OwnedFd, origin: &Origin) -> Option<String> {
        let conf = &self.settings.conf;
        let peer = listeners::peer_name(socket, conf, origin);
        match origin {
            Origin::Listener(_) if self.is_full(origin) => {
                let host = peer.rsplit_once(':').map_or(peer.as_str(), |(host, _)| host).to_owned();
                self.logger.notice(&Notice::MaxConnections { peer: host });
                return None;
            }
            Origin::Listener(_) => {}
            // Where the network is the host's, others can reach the abstract name; they have no pid here.
            Origin::Private if !getsockopt(socket, PeerCredentials).is_ok_and(|peer| peer.pid() != 0) => return None,
            Origin::Private => {}
        }
        Some(peer)
    }

    /// `max_connections` and `global_max_connections`.
    fn is_full(&self, origin: &Origin) -> bool {
        let conf = &self.settings.conf;
        let Origin::Listener(index) = origin else { return false };
        let most = conf.listeners.get(*index).and_then(|listener| listener.max_connections);
        most.is_some_and(|most| self.connections.open_on(*index) >= most)
            || conf.limits.global_connections.is_some_and(|most| self.connections.open() >= most)
    }
}
