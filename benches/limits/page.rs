//! docs/limits.md: everything between its two markers is written here.

use std::path::Path;

use crate::hostile::Case;
use crate::{Figures, RATIO_MAX};

const BEGIN: &str = "<!-- measured: make limits -->\n";
const END: &str = "<!-- end -->";

pub fn render(rows: &[(&Case, Vec<(&str, Figures)>)]) -> String {
    let mut text = format!("Measured on a machine with {}, the broker on one core and its clients on another.\n\n", machine());
    text += "Memory (RSS in MiB): before → at its peak → after the attackers have gone. The bound is what it may grow by.\n\n";
    text += "| case | bound | darner | grown by | mosquitto | grown by |\n|---|---|---|---|---|---|\n";
    for (case, figures) in rows {
        text += &format!("| {} | {} |", case.name, case.bound_mib);
        for (_, figures) in figures {
            let [before, peak, after] = [figures.before, figures.peak, figures.after].map(|kib| kib / 1024.0);
            text += &format!(" {before:.1} → {peak:.1} → {after:.1} | {:.1} |", figures.grown_mib());
        }
        text += "\n";
    }
    text += &format!("\nRound trip of another client's message in µs, before → during. The limit is {RATIO_MAX:.0} times the p99.\n\n");
    text += "| case | darner p50 | darner p99 | ratio | mosquitto p50 | mosquitto p99 | ratio |\n|---|---|---|---|---|---|---|\n";
    for (case, figures) in rows {
        text += &format!("| {} |", case.name);
        for (_, Figures { calm, attacked, .. }) in figures {
            text += &format!(" {:.0} → {:.0} | {:.0} → {:.0} |", calm.p50, attacked.p50, calm.p99, attacked.p99);
            text += &format!(" {:.1}× |", attacked.p99 / calm.p99);
        }
        text += "\n";
    }
    text +=
        "\nHow long a client takes to come in at the attacked port, from another address, in µs (p50), before → during, and how often.\n\n";
    text += "| case | darner | came in | did not | mosquitto | came in | did not |\n|---|---|---|---|---|---|---|\n";
    for (case, figures) in rows {
        text += &format!("| {} |", case.name);
        for (_, Figures { entries: [calm, attacked], .. }) in figures {
            text += &format!(" {:.0} → {:.0} | {} | {} |", calm.latency.p50, attacked.latency.p50, attacked.times, attacked.failures);
        }
        text += "\n";
    }
    text
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).max(online());
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.split_whitespace().nth(1).and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0);
    format!("{cores} cores and {:.0} GiB", kib / 1_048_576.0)
}

/// This process is pinned to one of them.
fn online() -> usize {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    info.lines().filter(|line| line.starts_with("processor")).count()
}

pub fn write(measured: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/limits.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (head, rest) = page.split_once(BEGIN).expect("the first marker");
    let (_, tail) = rest.split_once(END).expect("the second marker");
    std::fs::write(&path, format!("{head}{BEGIN}\n{measured}\n{END}{tail}")).expect("the page is ours");
}
