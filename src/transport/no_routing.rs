//! In the place of `routing`, where darner was built without the rumqttd engine.
// The shape is that of `routing`.
#![allow(clippy::unused_self, clippy::unused_async)]

use std::convert::Infallible;
use std::rc::Rc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::driver::{Driver, Shard};
use crate::broker::RouterOrder;

pub(super) type Joined = Infallible;

pub(super) struct Outside {
    pub(super) came_back: Rc<tokio::sync::Notify>,
    pub(super) is_gone: bool,
}

impl Outside {
    pub(super) fn spawn() -> std::io::Result<(Self, UnboundedReceiver<Joined>)> {
        Err(std::io::Error::other("this darner was built without the rumqttd engine"))
    }
}

impl Driver {
    pub(super) fn route(&mut self, _: RouterOrder) {}

    pub(super) fn waits_for_router(&self) -> bool {
        false
    }
}

pub(super) async fn serve(_: Shard, _: UnboundedReceiver<Joined>) {}
