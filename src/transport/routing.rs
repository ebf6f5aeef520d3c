//! Performs the machine's orders to a router outside of it (`engine = "rumqttd"`), and ends the process when that router is gone:
//! open ports with nobody behind them are worse than a restart.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::driver::{Driver, Shard};
use crate::broker::{Input, RouterOrder};
pub(super) use crate::engine::Joined;
use crate::engine::{LinkEnd, LinkId, Progress, Router};

/// Between two looks at a router that has something to do.
const NUDGE: Duration = Duration::from_millis(20);
/// A router that owes something and gives nothing back at so many looks in turn, 10 seconds, is gone. They are counted, so that a process
/// that was stopped itself does not take the time for the router's.
const SILENT_LOOKS_MAX: u32 = 500;

/// For tests that expect what came through the router in its place among the rest: nobody is read from before the router has done
/// everything. A release has no such variable.
#[cfg(debug_assertions)]
static IS_AWAITED: std::sync::LazyLock<bool> = std::sync::LazyLock::new(|| std::env::var_os("DARNER_TEST_ROUTER_AWAITED").is_some());

/// The router as the driver knows it.
pub(super) struct Outside {
    router: Router,
    /// It has something to do.
    busy: Rc<tokio::sync::Notify>,
    /// Some of what was outstanding came back: publishers that wait may be read from again.
    pub(super) came_back: Rc<tokio::sync::Notify>,
    pub(super) is_gone: bool,
}

impl Outside {
    pub(super) fn spawn() -> std::io::Result<(Self, UnboundedReceiver<Joined>)> {
        let (sender, joined) = unbounded_channel();
        let router = Router::spawn(move |joined| drop(sender.send(joined)))?;
        Ok((Self { router, busy: Rc::default(), came_back: Rc::default(), is_gone: false }, joined))
    }
}

impl Driver {
    pub(super) fn route(&mut self, order: RouterOrder) {
        if let Some(outside) = &mut self.outside {
            outside.router.order(order);
            outside.busy.notify_one();
        }
    }

    fn hear_link(&mut self, id: LinkId, heard: &mut Vec<rumqttd::Notification>) -> bool {
        let mut answers = Vec::new();
        let Some(outside) = &mut self.outside else { return false };
        let stopped = outside.router.hear(id, heard, &mut answers);
        for answer in answers {
            self.input(Input::FromRouter { answer });
        }
        self.let_publishers_go_on();
        stopped
    }

    /// Nothing new may be read from clients until some of what is out there has come back.
    pub(super) fn waits_for_router(&self) -> bool {
        #[cfg(debug_assertions)]
        if *IS_AWAITED && !self.broker.router_is_idle() {
            return true;
        }
        self.broker.router_is_behind()
    }

    fn let_publishers_go_on(&self) {
        if !self.waits_for_router()
            && let Some(outside) = &self.outside
        {
            outside.came_back.notify_waiters();
        }
    }

    /// What it has done so far, as far as that counts; `None` when it has nothing to do.
    fn nudge(&mut self) -> Option<Progress> {
        // Sessions may have left with what they were owed.
        self.let_publishers_go_on();
        let owes = self.broker.router_outstanding() > 0;
        let outside = self.outside.as_mut()?;
        let is_busy = outside.router.nudge();
        let progress = outside.router.progress();
        // Whatever else it does, what was lost in it does not come back.
        (owes || is_busy).then_some(if owes { Progress { others: 0, ..progress } } else { progress })
    }
}

/// Until the shard ends.
pub(super) async fn serve(shard: Shard, mut joined: UnboundedReceiver<Joined>) {
    tokio::task::spawn_local(keep_going(shard.clone()));
    while let Some(joined) = joined.recv().await {
        let end = shard.turn(|driver| driver.outside.as_mut().and_then(|outside| outside.router.joined(joined)));
        match end.flatten() {
            Some(end) => drop(tokio::task::spawn_local(hear(shard.clone(), end))),
            None => return gone(&shard),
        }
    }
}

fn gone(shard: &Shard) {
    shard.turn(|driver| driver.outside.as_mut().map(|outside| outside.is_gone = true));
    shard.fail();
}

async fn hear(shard: Shard, mut end: LinkEnd) {
    let id = end.id();
    let mut heard = Vec::new();
    while end.hear(&mut heard).await {
        match shard.turn(|driver| driver.hear_link(id, &mut heard)) {
            Some(true) => {
                end.ready().await;
                shard.turn(|driver| driver.outside.as_mut().map(|outside| outside.router.readied(id)));
            }
            Some(false) => {}
            None => return,
        }
    }
    let left = shard.turn(|driver| driver.outside.as_mut().is_some_and(|outside| outside.router.closed(id)));
    if left == Some(false) {
        gone(&shard);
    }
}

/// Looks after a router that has something to do.
async fn keep_going(shard: Shard) {
    let Some(Some(busy)) = shard.turn(|driver| driver.outside.as_ref().map(|outside| Rc::clone(&outside.busy))) else { return };
    loop {
        busy.notified().await;
        let (mut last, mut silent_looks) = (None, 0);
        loop {
            tokio::time::sleep(NUDGE).await;
            let progress = shard.turn(Driver::nudge).flatten();
            if progress.is_none() {
                break;
            }
            silent_looks = if progress == last { silent_looks + 1 } else { 0 };
            last = progress;
            if silent_looks > SILENT_LOOKS_MAX {
                return gone(&shard);
            }
        }
    }
}
