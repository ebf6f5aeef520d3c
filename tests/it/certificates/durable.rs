//! In which order a new certificate reaches the disk.

use super::Running;
use crate::acme_worker::pebble::Pebble;

/// A call that touched a path, in the order of the trace.
fn calls(trace: &str) -> Vec<(String, String)> {
    let call = |line: &str| {
        let line = line.split_once(' ').map_or(line, |(_, rest)| rest.trim_start());
        let (name, rest) = line.split_once('(')?;
        // The last path is where it leads; `-y` shows those of descriptors.
        let rest = rest.rsplit_once(')')?.0;
        let path = if name == "fsync" {
            rest.split_once('<')?.1.trim_end_matches('>').to_owned()
        } else {
            rest.split('"').rev().nth(1)?.to_owned()
        };
        Some((name.to_owned(), path))
    };
    trace.lines().filter_map(call).collect()
}

#[test]
fn each_file_is_on_the_disk_before_a_link_leads_to_it_and_what_was_brought_goes_last() {
    let ca = Pebble::start(&serde_json::json!({}), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.push(("RENEWAL", "reload"));
    let mut running = Running::of_domain(&more);
    let trace = running.folder.path().join("trace");
    let words = ["strace", "-D", "-f", "-y", "-e", "trace=fsync,rename,renameat,renameat2,unlinkat", "-o"];
    running.within = words.iter().map(|word| (*word).to_owned()).chain([trace.display().to_string()]).collect();
    running.start();
    running.wait_for("the certificate's use", |running| running.log().contains("Reload done"));
    running.stop();
    // Its tracer is nobody's child here.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let calls = calls(&std::fs::read_to_string(&trace).expect("a trace"));
    let at = |name: &str, end: &str, from: usize| {
        let found = calls.iter().skip(from).position(|(call, path)| call.starts_with(name) && path.ends_with(end));
        from + found.unwrap_or_else(|| panic!("{name} … {end} after {from}: {calls:#?}"))
    };
    let brought = at("rename", "issued/mqtt.test/order.json", 0);
    let origin = at("rename", "darner/mqtt.test.json", at("fsync", "darner/mqtt.test.json.darner-new", brought));
    let first_link = calls.iter().position(|(call, path)| call.starts_with("rename") && path.ends_with("live/mqtt.test/privkey.pem"));
    let first_link = first_link.expect("a link");
    for kind in ["privkey", "cert", "chain", "fullchain"] {
        let synced = at("fsync", &format!("archive/mqtt.test/{kind}1.pem.darner-new"), 0);
        let named = at("rename", &format!("archive/mqtt.test/{kind}1.pem"), synced);
        let folder = at("fsync", "archive/mqtt.test", named);
        assert!(folder < first_link, "{kind}: {calls:#?}");
        assert!(at("rename", &format!("live/mqtt.test/{kind}.pem"), first_link) >= first_link);
    }
    // Where it comes from is known before.
    assert!(origin < first_link && at("fsync", "letsencrypt/darner", origin) < first_link);
    let last_link = at("rename", "live/mqtt.test/fullchain.pem", first_link);
    let switched = at("fsync", "live/mqtt.test", last_link);
    let conf = at("rename", "renewal/mqtt.test.conf", switched);
    let state = at("rename", "darner/mqtt.test.json", conf);
    assert!(at("unlinkat", "mqtt.test", state) > state, "{calls:#?}");
}

#[test]
fn pid_1_killed_before_any_of_its_renames_costs_no_second_certificate() {
    let ca = Pebble::start(&serde_json::json!({}), &[]);
    let environment = ca.environment();
    let mut more: Vec<(&'static str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    more.push(("RENEWAL", "reload"));
    let mut killed = 0;
    for nth in 1.. {
        let mut running = Running::of_domain(&more);
        let inject = format!("inject=rename,renameat,renameat2:signal=KILL:when={nth}");
        let words = ["strace", "-D", "-o", "/dev/null", "-e", "trace=rename,renameat,renameat2", "-e", &inject];
        running.within = words.iter().map(|word| (*word).to_owned()).collect();
        let issued = ca.count("Issued certificate serial");
        running.spawn();
        let mut child = running.child.take().expect("PID 1");
        let is_killed = loop {
            if child.try_wait().expect("a child").is_some() {
                break true;
            }
            if running.log().contains("Reload done") {
                break false;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        };
        running.within.clear();
        if !is_killed {
            running.child = Some(child);
            break;
        }
        killed += 1;
        running.wait_for("the broker's end", |running| std::net::TcpStream::connect(("127.0.0.1", running.port)).is_err());
        running.start();
        // An attempt that was cut short counts as failed, and is waited for.
        if running.darner(&["cert", "renew"]).2.contains("--force tries now") {
            let (code, stdout, stderr) = running.darner(&["cert", "renew", "--force"]);
            assert_eq!(code, 0, "{nth}: {stdout}{stderr}{}", running.log());
        }
        running.wait_for("the certificate", |running| {
            let chain = std::fs::read(running.live("fullchain.pem")).unwrap_or_default();
            !chain.is_empty() && running.serves(&darner::acme::lineage::Pair { privkey: Vec::new(), fullchain: chain })
        });
        assert_eq!(ca.count("Issued certificate serial") - issued, 1, "{nth}: {}", running.log());
    }
    assert!(killed >= 14, "{killed}");
}
