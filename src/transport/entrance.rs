//! What a connection goes through before its first packet: the header of a proxy, the handshake of TLS, the upgrade to a WebSocket. Each has a
//! deadline, and there are only so many in here at once.

use std::cell::RefCell;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use rustls::ServerConfig;
use tokio::io::Interest;
use tokio::task::AbortHandle;

use super::challenges;
use super::connection::read;
use super::connections::Socket;
use super::crowd::{self, Crowd, Stranger};
use super::driver::{Driver, Shard, shutdown};
use super::outgoing::send_some;
use super::secure::Tls;
use crate::broker::Origin;
use crate::conf::{Protocol, ProxyVersion, TlsIdentity};
use crate::notice::Notice;
use crate::proxy::{self, ProxyTls, Said};
use crate::tls;
use crate::websocket::frames::Frames;
use crate::websocket::upgrade::{self, Rules, Upgrade};

/// A proxy sends its header at once.
const PROXY: Duration = Duration::from_secs(5);
const HANDSHAKE: Duration = Duration::from_secs(10);
const UPGRADE: Duration = Duration::from_secs(10);
/// A client that was refused has this long to read why.
const GOODBYE: Duration = Duration::from_secs(1);
/// Connections in here at once: each costs a descriptor and some 20 KiB of a stranger's choosing. One of the address that has most of them
/// gives way to a new one, the oldest first, so that strangers who stop midway keep nobody out.
const INSIDE_MAX: usize = 1000;
/// One line is enough for as long as that lasts.
const COMPLAINT_INTERVAL: Duration = Duration::from_mins(1);

/// Those in the entrance.
#[derive(Default)]
pub(super) struct Entrance {
    /// How many ever knocked.
    knocked: u64,
    inside: Rc<RefCell<Crowd<AbortHandle>>>,
    complained: Option<Instant>,
}

/// Given back when the task ends.
struct Place {
    number: u64,
    inside: Rc<RefCell<Crowd<AbortHandle>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inside.borrow_mut().leave(self.number);
    }
}

/// What connections of a listener go through; in this order.
pub(super) struct Steps {
    proxy: Option<ProxyVersion>,
    tls: Option<Arc<ServerConfig>>,
    websocket: bool,
}

/// Who has come in.
pub(super) struct Entered {
    pub(super) socket: Socket,
    pub(super) origin: Origin,
    pub(super) peer: String,
    pub(super) stranger: Stranger,
    pub(super) tls: Option<Box<Tls>>,
    pub(super) websocket: Option<Box<Frames>>,
    /// The name in the client's verified certificate.
    pub(super) certificate_user: Option<String>,
    /// What was read behind the upgrade.
    pub(super) early: Vec<u8>,
}

impl Entered {
    /// `number`: how many knocked before it.
    pub(super) fn new(socket: Socket, origin: Origin, peer: String, number: u64) -> Self {
        let stranger = Stranger { number, address: crowd::address(&peer) };
        Self { socket, origin, peer, stranger, tls: None, websocket: None, certificate_user: None, early: Vec::new() }
    }
}

/// Why a connection does not come in. `None`: there is nothing to say.
struct Refused(Option<Notice>);

impl Entrance {
    /// Of somebody who knocks.
    pub(super) fn number(&mut self) -> u64 {
        self.knocked += 1;
        self.knocked
    }

    /// Who is inside, by number and address.
    pub(super) fn strangers(&self) -> Vec<Stranger> {
        self.inside.borrow().iter().map(|(number, address)| Stranger { number, address: Arc::clone(address) }).collect()
    }

    pub(super) fn send_away(&self, number: u64) {
        if let Some((_, task)) = self.inside.borrow_mut().leave(number) {
            task.abort();
        }
    }
}

impl Driver {
    /// What comes before the first packet. `None`: nobody comes in here.
    pub(super) fn steps(&self, origin: &Origin) -> Option<Steps> {
        let Origin::Listener(index) = *origin else { return Some(Steps { proxy: None, tls: None, websocket: false }) };
        let listener = self.settings.conf.listeners.get(index)?;
        Some(Steps { proxy: listener.proxy, tls: self.tls.get(index)?.clone(), websocket: listener.protocol == Protocol::Websockets })
    }

    fn place(&mut self, number: u64) -> Place {
        let Entrance { inside, complained, .. } = &mut self.entrance;
        let place = Place { number, inside: Rc::clone(inside) };
        let mut inside = inside.borrow_mut();
        if inside.len() >= INSIDE_MAX
            && let Some((address, oldest)) = inside.send_away(1).pop()
        {
            oldest.abort();
            if complained.is_none_or(|last| last.elapsed() > COMPLAINT_INTERVAL) {
                *complained = Some(Instant::now());
                self.logger.notice(&Notice::EntranceFull { most: INSIDE_MAX, address: address.to_string() });
            }
        }
        place
    }
}

impl Steps {
    pub(super) fn is_empty(&self) -> bool {
        self.proxy.is_none() && self.tls.is_none() && !self.websocket
    }
}

/// Takes a new socket through the steps, in a task of its own.
pub(super) fn begin(shard: &Shard, entered: Entered, steps: Steps) {
    let Stranger { number, address } = &entered.stranger;
    let (number, address) = (*number, Arc::clone(address));
    let Some(place) = shard.turn(|driver| driver.place(number)) else { return };
    let inside = Rc::clone(&place.inside);
    let task = tokio::task::spawn_local(enter(shard.clone(), entered, steps, place));
    inside.borrow_mut().enter(number, address, task.abort_handle());
}

async fn enter(shard: Shard, mut entered: Entered, steps: Steps, place: Place) {
    match entered.take(&shard, steps).await {
        Ok(()) => {
            drop(place);
            // The listener may have filled up meanwhile.
            if shard.turn(|driver| driver.may_enter(entered.socket.get_ref(), &entered.origin)).flatten().is_some() {
                shard.accepted(entered);
            }
        }
        Err(Refused(Some(notice))) => shard.notice(&notice),
        Err(Refused(None)) => {}
    }
}

impl Entered {
    async fn take(&mut self, shard: &Shard, steps: Steps) -> Result<(), Refused> {
        if let Some(version) = steps.proxy {
            let said = tokio::time::timeout(PROXY, header(&self.socket, version)).await;
            self.believe(shard, said.map_err(|_| Refused(Some(Notice::ProxyCorrupt {})))??)?;
        }
        if let Some(config) = steps.tls {
            let failed = |reason: String| Refused(Some(Notice::HandshakeFailed { peer: self.peer.clone(), reason }));
            let knock = tokio::time::timeout(HANDSHAKE, challenges::asked(&self.socket)).await;
            if let Some(shown) = knock.map_or(Ok(None), |asked| asked.map_err(|error| failed(error.to_string())))? {
                return Err(show(&self.socket, shown).await);
            }
            let tls = tokio::time::timeout(HANDSHAKE, secured(&self.socket, config))
                .await
                .map_err(|_| failed(format!("it took longer than {} seconds", HANDSHAKE.as_secs())))?
                .map_err(|error| failed(error.to_string()))?;
            let origin = self.origin.clone();
            let user = shard.turn(move |driver| {
                let Origin::Listener(index) = origin else { return None };
                let listener = driver.settings.conf.listeners.get(index)?;
                Some((tls::certificate_user(&listener.tls, tls.certificates()), tls))
            });
            let (user, tls) = user.flatten().ok_or(Refused(None))?;
            (self.certificate_user, self.tls) = (user, Some(tls));
        }
        if steps.websocket {
            let result = tokio::time::timeout(UPGRADE, self.upgrade(shard)).await;
            let failure = result.unwrap_or_else(|_| Err(format!("it took longer than {} seconds", UPGRADE.as_secs()))).err();
            if let Some(reason) = failure {
                return Err(Refused(Some(Notice::UpgradeFailed { peer: self.peer.clone(), reason })));
            }
            self.websocket = Some(Box::default());
        }
        Ok(())
    }

    /// What the proxy says about the client, where the listener permits it.
    fn believe(&mut self, shard: &Shard, said: Said) -> Result<(), Refused> {
        let Said::Client { peer, tls } = said else { return if said == Said::Local { Err(Refused(None)) } else { Ok(()) } };
        self.peer.clone_from(&peer);
        // What the proxy is for: it has all of them at one address.
        self.stranger.address = crowd::address(&peer);
        let origin = self.origin.clone();
        let wanted = shard.turn(|driver| {
            driver.entrance.inside.borrow_mut().rename(self.stranger.number, &self.stranger.address);
            let Origin::Listener(index) = origin else { return None };
            let listener = driver.settings.conf.listeners.get(index)?;
            let version_2 = listener.proxy == Some(ProxyVersion::V2);
            let by_name = listener.tls.identity == TlsIdentity::CommonName;
            Some((listener.proxy_requires_tls, version_2 && listener.tls.require_certificate, version_2 && by_name))
        });
        let (needs_tls, needs_certificate, by_name) = wanted.flatten().ok_or(Refused(None))?;
        if needs_tls && tls.is_none() {
            return Err(Refused(Some(Notice::ProxyRefused { peer, why: "client did not connect using TLS" })));
        }
        let ProxyTls { certified, version, cipher, common_name } = tls.unwrap_or_default();
        if needs_certificate && !certified {
            return Err(Refused(Some(Notice::ProxyRefused { peer, why: "client did not provide a certificate" })));
        }
        if let (Some(version), Some(cipher)) = (version, cipher) {
            shard.notice(&Notice::ProxyNegotiated { peer, version, cipher });
        }
        self.certificate_user = common_name.filter(|name| by_name && certified && tls::is_user_name(name));
        Ok(())
    }

    /// The request of a WebSocket, and its answer.
    async fn upgrade(&mut self, shard: &Shard) -> Result<(), String> {
        let mut request = Vec::new();
        let mut judged = 0;
        loop {
            let count = self.read_some(&mut request).await.map_err(|error| error.to_string())?;
            if count == 0 {
                return Err("the client closed the connection".into());
            }
            let origin = self.origin.clone();
            let verdict = shard.turn(|driver| {
                let Origin::Listener(index) = origin else { return None };
                let conf = &driver.settings.conf;
                let origins = &conf.listeners.get(index)?.websockets_origins;
                Some(upgrade::judge(&request, judged, Rules { origins, bytes_max: conf.limits.websockets_headers as usize }))
            });
            match verdict.flatten().ok_or("the listener is gone")? {
                Upgrade::Incomplete => judged = request.len(),
                Upgrade::Accepted { answer, len } => {
                    self.write(answer.as_bytes()).await.map_err(|error| error.to_string())?;
                    self.early = request.split_off(len.min(request.len()));
                    return Ok(());
                }
                Upgrade::Refused { answer, reason } => {
                    let _ = tokio::time::timeout(GOODBYE, self.turn_away(answer.as_bytes())).await;
                    return Err(reason);
                }
            }
        }
    }

    /// Reads some bytes to the end of `bytes`.
    async fn read_some(&mut self, bytes: &mut Vec<u8>) -> io::Result<usize> {
        let mut buffer = [0; 1024];
        loop {
            let result = match &mut self.tls {
                None => read(&self.socket, &mut buffer),
                Some(tls) => tls.read(&self.socket, &mut buffer),
            };
            match result {
                Ok(count) => {
                    bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    return Ok(count);
                }
                Err(error) if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return Err(error),
                Err(_) if self.tls.as_ref().is_some_and(|tls| tls.pending) => tokio::task::yield_now().await,
                Err(_) => drop(self.socket.readable().await?),
            }
        }
    }

    async fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            while !bytes.is_empty() {
                match send_some(&self.socket, bytes) {
                    Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(self.socket.writable().await?),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        };
        while !bytes.is_empty() {
            let count = tls.encrypt(bytes)?;
            bytes = bytes.get(count..).unwrap_or_default();
            while !tls.write_out(&self.socket)? {
                drop(self.socket.writable().await?);
            }
        }
        Ok(())
    }

    /// Says why, and waits until the client has read it: a socket that is closed with bytes unread takes the answer with it.
    async fn turn_away(&mut self, answer: &[u8]) -> io::Result<()> {
        self.write(answer).await?;
        if let Some(tls) = &mut self.tls {
            tls.say_goodbye();
            tls.write_out(&self.socket)?;
        }
        shutdown(&self.socket, Shutdown::Write)?;
        let mut ignored = Vec::new();
        while self.read_some(&mut ignored).await? > 0 {
            ignored.clear();
        }
        Ok(())
    }
}

/// Who says nothing costs nothing yet.
async fn secured(socket: &Socket, config: Arc<ServerConfig>) -> io::Result<Box<Tls>> {
    drop(socket.readable().await?);
    Box::new(Tls::new(config).map_err(io::Error::other)?).handshake(socket).await
}

/// The CA sees its certificate in the handshake, and wants no more.
async fn show(socket: &Socket, config: Arc<ServerConfig>) -> Refused {
    if let Ok(Ok(mut tls)) = tokio::time::timeout(HANDSHAKE, secured(socket, config)).await {
        tls.say_goodbye();
        let _ = tls.write_out(socket);
    }
    Refused(None)
}

/// Reads a proxy's header, and not a byte more.
async fn header(socket: &Socket, version: ProxyVersion) -> Result<Said, Refused> {
    let mut held = Vec::new();
    loop {
        match proxy::parse(version, &held) {
            Ok(Some(said)) => return Ok(said),
            Ok(None) => {}
            Err(proxy::Corrupt { peer: None }) => {
                return Err(Refused(Some(match version {
                    ProxyVersion::V1 => Notice::ProxyCorrupt {},
                    ProxyVersion::V2 => Notice::ProxyCorruptBinary {},
                })));
            }
            Err(proxy::Corrupt { peer: Some(peer) }) => {
                return Err(Refused(Some(Notice::ProxyRefused { peer, why: "corrupt PROXY header" })));
            }
        }
        let mut buffer = [0; 512];
        match take(socket, &mut buffer, |next| proxy::share(version, &held, next)) {
            Ok(0) => return Err(Refused(None)),
            Ok(count) => held.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                drop(socket.readable().await.map_err(|_| Refused(None))?);
            }
            Err(_) => return Err(Refused(None)),
        }
    }
}

/// Looks at what the socket holds and takes as much of it as `share` says.
fn take(socket: &Socket, buffer: &mut [u8], share: impl Fn(&[u8]) -> usize) -> io::Result<usize> {
    socket.try_io(Interest::READABLE, |fd| {
        let seen = recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK)?;
        let count = share(buffer.get(..seen).unwrap_or_default()).min(seen);
        Ok(recv(fd.as_raw_fd(), buffer.get_mut(..count).unwrap_or_default(), MsgFlags::MSG_DONTWAIT)?)
    })
}
