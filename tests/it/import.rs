//! What mosquitto kept is there after the swap, and can be given back.

mod commands;
mod format;
mod reading;
mod swap;
mod trouble;
