//! The running broker: one shard, its tasks, and what signals make of it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use super::accept::accept_forever;
use super::connections::register;
use super::driver::{Driver, Shard};
use super::listeners::Listening;
use super::login::CHECK_THREADS;
use super::reload::reload;
use super::routing::{self, Joined, Outside};
use super::secure::handshakes_at_once;
use super::settings::Source;
use super::supervision::{Control, Notify};
use crate::broker::{Broker, Input, Outbox, Settings, ShardId, Time};
use crate::conf::Engine;
use crate::conf::files::Disk;
use crate::exit_code::ExitCode;
use crate::logging::Logger;
use crate::notice::Notice;
use crate::os::signals::{self, Signals};
use crate::store::{self, Journal, Store};
use crate::tls::Servers;

/// At the end, sockets have this long to take the last bytes.
const FLUSH: Duration = Duration::from_millis(500);

pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) tls: Servers,
    pub(super) source: Source,
    pub(super) logger: Arc<Logger>,
    pub(super) listening: Vec<Listening>,
    pub(super) notify: Notify,
    pub(super) control: Option<Control>,
}

/// Runs until a signal ends it.
pub(super) fn run(parts: Parts) -> std::io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(CHECK_THREADS + handshakes_at_once())
        .build_local(LocalOptions::default())?;
    let mut seed = [0; 40];
    getrandom::fill(&mut seed).map_err(std::io::Error::other)?;
    let (key, seed) = seed.split_at(32);
    let seed = seed.try_into().map(u64::from_le_bytes).unwrap_or_default();
    let progress = Arc::new(tokio::sync::Notify::new());
    let mut restored = Outbox::default();
    let (broker, store) = open_store(&parts, seed, &progress, &mut restored);
    let mut driver = Driver::new(
        (broker, store),
        (parts.settings.clone(), parts.tls.clone()),
        Arc::clone(&parts.logger),
        key.try_into().unwrap_or_default(),
    );
    driver.outbox = restored;
    let joined = if parts.settings.conf.engine == Engine::Rumqttd {
        let (outside, joined) = Outside::spawn()?;
        driver.outside = Some(outside);
        Some(joined)
    } else {
        None
    };
    let code = runtime.block_on(serve(Shard::new(driver), parts, progress, joined))?;
    // A password check may still run; nobody waits for it.
    runtime.shutdown_background();
    Ok(code)
}

/// The machine, with what was kept.
fn open_store(parts: &Parts, seed: u64, progress: &Arc<tokio::sync::Notify>, out: &mut Outbox) -> (Broker, Option<Box<dyn Store>>) {
    let conf = &parts.settings.conf.persistence;
    if !conf.enabled {
        return (Broker::new(ShardId(0), 1, parts.settings.clone(), seed), None);
    }
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let zero = since_1970.as_millis() as i64;
    let options = store::Options {
        path: store::path(conf),
        level: conf.durability,
        autosave_interval_secs: conf.autosave_interval_secs,
        autosave_on_changes: conf.autosave_on_changes,
        zero,
        import: store::Source::of(&parts.settings.conf, zero),
    };
    let (logger, progress) = (Arc::clone(&parts.logger), Arc::clone(progress));
    let notify = parts.notify.try_clone();
    let say = Box::new(move |notice: &Notice| {
        logger.notice(notice);
        match notice {
            Notice::StoreFailing { .. } | Notice::SaveFailing { .. } => notify.ill(notice.to_string().trim_start_matches("Error: ")),
            Notice::StoreRecovered { .. } => notify.ill(""),
            // A sign of life amid what may take its time.
            Notice::Imported { .. } => notify.say("WATCHDOG=1"),
            _ => {}
        }
    });
    let (journal, state) = Journal::open(options, say, Box::new(move || progress.notify_one()));
    let broker = Broker::restore((ShardId(0), 1), parts.settings.clone(), seed, state, Time(0), out);
    (broker, Some(Box::new(journal)))
}

async fn serve(
    shard: Shard,
    parts: Parts,
    progress: Arc<tokio::sync::Notify>,
    joined: Option<UnboundedReceiver<Joined>>,
) -> std::io::Result<ExitCode> {
    let Parts { source, logger, listening, notify, control, .. } = parts;
    let (source, notify) = (Rc::new(source), Rc::new(notify));
    let signals = Signals::new()?;
    tokio::task::spawn_local(shard.clone().flush_forever());
    tokio::task::spawn_local(shard.clone().keep_time());
    tokio::task::spawn_local(shard.clone().heed_store(progress));
    if let Some(joined) = joined {
        tokio::task::spawn_local(routing::serve(shard.clone(), joined));
    }
    shard.turn(|_| ());
    let supervised = control.is_some();
    let doors: Vec<_> = listening.into_iter().map(|listening| tokio::task::spawn_local(accept_forever(shard.clone(), listening))).collect();
    if let Some(interval) = notify.watchdog_interval() {
        tokio::task::spawn_local(watchdog(Rc::clone(&notify), interval));
    }
    if let Some(control) = control {
        let (shard, source, notify) = (shard.clone(), Rc::clone(&source), Rc::clone(&notify));
        tokio::task::spawn_local(control.obey_forever(move |order| {
            if order.word != "RELOAD" {
                return Err(format!("unknown order {:?}", order.word));
            }
            notify.say("RELOADING=1");
            let verdict = reload(&shard, &source, &order.files);
            notify.say("READY=1");
            verdict
        }));
    }
    logger.notice(&Notice::Running { version: crate::broker::MOSQUITTO_VERSION });
    notify.say("READY=1");
    let code = until_the_end(&shard, signals, &source, &notify, supervised).await?;
    notify.say("STOPPING=1");
    if code == ExitCode::Ok {
        close_doors(&shard, doors).await;
        shut_down(&shard).await;
    }
    Ok(code)
}

async fn watchdog(notify: Rc<Notify>, interval: Duration) {
    // On the shard's own loop, so that a shard that is stuck falls silent.
    loop {
        notify.say("WATCHDOG=1");
        tokio::time::sleep(interval).await;
    }
}

/// Signals until one of them, or a panic, ends the broker.
async fn until_the_end(
    shard: &Shard,
    mut signals: Signals,
    source: &Source,
    notify: &Notify,
    supervised: bool,
) -> std::io::Result<ExitCode> {
    let waiting = register(std::os::fd::AsFd::as_fd(&signals).try_clone_to_owned()?)?;
    let mut failure = std::pin::pin!(shard.failure());
    loop {
        let mut readable = std::pin::pin!(waiting.readable());
        let ready = std::future::poll_fn(|task| {
            if failure.as_mut().poll(task).is_ready() {
                return std::task::Poll::Ready(None);
            }
            readable.as_mut().poll(task).map(Some)
        });
        let Some(ready) = ready.await else {
            let code = shard
                .turn(|driver| driver.outside.as_ref().is_some_and(|outside| outside.is_gone))
                .map_or(ExitCode::Internal, |is_gone| if is_gone { ExitCode::RouterGone } else { ExitCode::Internal });
            shard.notice(&if code == ExitCode::RouterGone { Notice::RouterGone {} } else { Notice::InternalError {} });
            return Ok(code);
        };
        ready?.clear_ready();
        while let Some(number) = signals.read() {
            if signal(shard, number, source, notify, supervised) {
                return Ok(ExitCode::Ok);
            }
        }
    }
}

/// True when the signal ends the broker.
fn signal(shard: &Shard, number: i32, source: &Source, notify: &Notify, supervised: bool) -> bool {
    match Signal::try_from(number) {
        Ok(Signal::SIGTERM | Signal::SIGINT) => return true,
        // A supervisor sends its files with the order to reload.
        Ok(Signal::SIGHUP) if supervised => {}
        Ok(Signal::SIGHUP) => {
            notify.say("RELOADING=1");
            let _ = reload(shard, source, &Disk);
            shard.reopen_log();
            notify.say("READY=1");
        }
        Ok(Signal::SIGUSR1) => drop(shard.turn(|driver| {
            if driver.settings.conf.persistence.enabled {
                driver.save();
            } else {
                driver.logger.notice(&Notice::NothingToSave {});
            }
        })),
        Ok(Signal::SIGUSR2) => drop(shard.turn(|driver| driver.input(Input::DumpSubscriptions))),
        Err(_) if number == signals::rtmin() => shard.reopen_log(),
        _ => {}
    }
    false
}

/// Nobody comes in any more: whoever comes back meets the next broker, which PID 1's sockets wait for, and is not sent away twice.
async fn close_doors(shard: &Shard, doors: Vec<JoinHandle<()>>) {
    for door in doors {
        door.abort();
        let _ = door.await;
    }
    shard.turn(|driver| driver.entrance.strangers().iter().for_each(|stranger| driver.entrance.send_away(stranger.number)));
}

/// The machine says goodbye to every client; what it says gets a moment to leave.
async fn shut_down(shard: &Shard) {
    let end = Instant::now() + FLUSH;
    // What a router outside still has belongs to sessions that may last.
    while Instant::now() < end && shard.turn(|driver| driver.broker.router_outstanding()).is_some_and(|bytes| bytes > 0) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shard.turn(|driver| driver.input(Input::Shutdown));
    while Instant::now() < end && !shard.turn(Driver::is_flushed).unwrap_or(true) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    shard.turn(Driver::close_store);
}
