//! `log_dest topic`: lines on their way from the logger, on whatever thread it is, to the machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::logging::Logger;

/// Lines that wait for the machine; more are dropped, the other destinations have them.
const LINES_MAX: usize = 256;

#[derive(Default)]
pub(super) struct LogLines {
    any: AtomicBool,
    lines: Mutex<Vec<(char, String)>>,
}

impl LogLines {
    /// Those of a logger from now on.
    pub(super) fn of(logger: &Logger) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        let sink = Arc::clone(&lines);
        logger.set_topic_sink(Box::new(move |topic, line| sink.put(topic, line)));
        lines
    }

    fn put(&self, topic: &str, line: &str) {
        let level = topic.strip_prefix("$SYS/broker/log/").unwrap_or_default();
        let (Some(letter), 1) = (level.chars().next(), level.len()) else { return };
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < LINES_MAX {
            lines.push((letter, line.to_owned()));
            self.any.store(true, Ordering::Release);
        }
    }

    pub(super) fn take(&self) -> Vec<(char, String)> {
        if !self.any.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
