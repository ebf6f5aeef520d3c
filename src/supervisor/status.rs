//! `darner status`.

use super::broker::Broker;
use super::run::State;
use crate::repair::Report;

pub(super) fn text(broker: &Broker, state: &State<'_>) -> String {
    let facts = broker.facts();
    let machine = state.machine;
    let pid = state.child.map_or("-".to_owned(), |pid| pid.to_string());
    let ready = machine.ready_since().map_or("no".to_owned(), |since| format!("for {}", duration(state.now.saturating_sub(since))));
    let who = facts.identity.map_or("unchanged".to_owned(), |identity| format!("{}:{}", identity.uid, identity.gid));
    let rows = [
        ("phase", machine.phase().name().to_owned()),
        ("broker", format!("pid {pid}, user {who}{}{}", if facts.status.is_empty() { "" } else { ", " }, facts.status)),
        ("ready", ready),
        ("uptime", duration(state.now)),
        ("restarts", machine.restarts().to_string()),
        ("listeners", facts.listeners.join(" ")),
        ("config", facts.config.map_or("built-in defaults".to_owned(), |path| path.display().to_string())),
        ("control", facts.control.unwrap_or("-").to_owned()),
        ("reload", facts.last_reload.unwrap_or("none yet").to_owned()),
        ("repair", repair(facts.repair)),
    ];
    rows.iter().map(|(name, value)| format!("{name:<10}{value}\n")).collect()
}

fn repair(report: Option<&Report>) -> String {
    let Some(report) = report else { return "none: there is no /mosquitto".to_owned() };
    let mut text = format!("{} changes", report.changes);
    if !report.complete {
        text.push_str(", not complete (darner repair --full)");
    }
    for problem in &report.problems {
        text.push_str("\n          ");
        text.push_str(problem);
    }
    text
}

/// `3d 4h 5m 6s`, without leading zeros.
fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    parts.iter().skip(first).map(|(count, unit)| format!("{count}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_start_with_the_largest_unit() {
        assert_eq!(duration(999), "0s");
        assert_eq!(duration(61_000), "1m 1s");
        assert_eq!(duration(90_000_000), "1d 1h 0m 0s");
    }
}
