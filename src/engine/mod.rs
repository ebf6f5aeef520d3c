//! The second engine: the router of the rumqttd crate carries messages from publishers to the sessions of their subscribers.
//!
//! The machine in [`crate::broker`] does everything else, with either engine: it hands messages over and takes them back by the
//! orders and answers of [`crate::broker::outside`]. What is known of rumqttd 0.20, and what became of it here, is one table:
//! [`findings`].

pub mod findings;
#[cfg(feature = "rumqttd")]
mod link;
#[cfg(feature = "rumqttd")]
pub mod rumqttd;
#[cfg(feature = "rumqttd")]
mod translate;

#[cfg(feature = "rumqttd")]
pub use link::{LinkEnd, LinkId};
#[cfg(feature = "rumqttd")]
pub use rumqttd::{Joined, Progress, Router};
