//! `mosquitto_pub` and `mosquitto_sub`: side by side with Debian's, against Debian's broker and against ours.

mod compared;
mod flows;
mod mqtt_js;
pub mod paho;
mod tls;
mod wire;
