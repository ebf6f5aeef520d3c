//! `engine = "rumqttd"`: the same broker with the router of that crate in it. What scripts can say is said by
//! `conversation::conversations_with_the_rumqttd_engine`.

mod churn;
mod endings;
mod freezes;
mod wills;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use darner::engine::findings;
use darner::mqtt::{
    Disconnect, Packet, PacketId, ProtocolVersion, Publish, Qos, ReasonCode, Subscribe, SubscriptionOptions, SubscriptionRequest,
    Unsubscribe,
};
pub use endings::stop_router;

use crate::broker::client::Client;
use crate::support::process::{Broker, Engine, Folder, darner, run, wait_until};
use crate::support::random::Random;

fn check(conf: &str, toml: &str) -> (i32, String) {
    let folder = Folder::new("engine");
    folder.write("darner.toml", toml);
    let path = folder.write("mosquitto.conf", conf);
    let (code, stdout, stderr) = run(Command::new(darner()).arg("check").arg(path));
    (code, stdout + &stderr)
}

#[test]
fn the_check_lists_what_the_engine_cannot_honour() {
    let (code, said) = check("listener 1883\nmemory_limit 1000000\nmax_packet_size 1000\n", "engine = \"rumqttd\"\n");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Warning: The rumqttd engine cannot honour memory_limit: "), "{said}");
    assert!(said.contains("Warning: The rumqttd engine cannot honour order: "), "{said}");
    assert!(!said.contains("honour max_packet_size"), "{said}");
    let (code, said) = check("listener 1883\nmemory_limit 1000000\n", Engine::Core.toml());
    assert_eq!((code, said.as_str()), (0, "Configuration file is OK.\n"));
}

#[test]
fn persistence_is_refused_unless_its_limits_are_accepted() {
    let conf = "listener 1883\npersistence true\npersistence_location /tmp/\n";
    let (code, said) = check(conf, "engine = \"rumqttd\"\n");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("Error: The rumqttd engine cannot honour persistence: "), "{said}");
    assert!(said.contains("accept_limits = true"), "{said}");
    let (code, said) = check(conf, Engine::Rumqttd.toml());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("Warning: The rumqttd engine cannot honour persistence: "), "{said}");
    let (code, said) = check(conf, "engine = \"rumqttd\"\n[rumqttd]\naccept_limit = true\n");
    assert_eq!(code, 3, "{said}");
}

#[test]
fn what_is_saved_at_intervals_only_is_not_promised_and_so_not_refused() {
    let conf = "listener 1883\npersistence true\npersistence_location /tmp/\n";
    let (code, said) = check(conf, "engine = \"rumqttd\"\ndurability = \"snapshot\"\n");
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains("honour persistence"), "{said}");
    let (code, said) = check(conf, "engine = \"rumqttd\"\ndurability = \"power\"\n");
    assert_eq!(code, 3, "{said}");
}

/// The engine that a broker says it has, with this darner.toml and this `DARNER_ENGINE`.
fn chosen(toml: &str, variable: Option<&str>) -> Engine {
    let folder = Folder::new("engine");
    folder.write("darner.toml", toml);
    let mut command = Command::new(darner());
    if let Some(word) = variable {
        command.env("DARNER_ENGINE", word);
    }
    let broker = Broker::start_with(command, folder, PLAIN);
    let mut client = Client::connect(broker.port, "c");
    client.subscribe("a");
    client.publish("a", b"1");
    assert_eq!(client.receive_payload(), b"1");
    let says_so = broker.log().contains("The rumqttd engine cannot honour");
    let has_router = || {
        std::fs::read_dir(format!("/proc/{}/task", broker.pid()))
            .expect("its threads")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
            .any(|name| name.trim() == "router-0")
    };
    // A thread takes its name when it begins to run.
    wait_until("a router exactly where the log says so", || has_router() == says_so);
    if says_so { Engine::Rumqttd } else { Engine::Core }
}

#[test]
fn the_engine_is_chosen_by_the_file_or_the_variable_which_goes_before_it() {
    for (toml, variable, engine) in [
        ("", None, Engine::Core),
        ("engine = \"core\"\n", None, Engine::Core),
        ("engine = \"rumqttd\"\n", None, Engine::Rumqttd),
        ("", Some("rumqttd"), Engine::Rumqttd),
        ("engine = \"core\"\n", Some("rumqttd"), Engine::Rumqttd),
        ("engine = \"rumqttd\"\n", Some("core"), Engine::Core),
    ] {
        assert_eq!(chosen(toml, variable), engine, "{toml}{variable:?}");
    }
    let (code, said) = check("listener 1883\n", "engine = \"rumqtt\"\n");
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("This darner has: core, rumqttd."), "{said}");
}

/// A broker with this engine.
fn broker(engine: Engine, conf: &str) -> Broker {
    let folder = Folder::new("engine");
    engine.choose(&folder);
    Broker::start_in(folder, conf)
}

const PLAIN: &str = "listener {port}\nallow_anonymous true\n";

#[test]
fn the_page_is_what_the_tables_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/engines.md");
    let page = std::fs::read_to_string(&path).expect("docs/engines.md");
    let (_, measured) = page.split_once("\n## Measured").expect("what was measured stands at the end");
    let made = format!("{}\n## Measured{measured}", findings::markdown());
    if std::env::var_os("DARNER_BLESS").is_some() {
        std::fs::write(path, made).expect("docs/engines.md");
    } else {
        assert!(page == made, "docs/engines.md differs from its tables; DARNER_BLESS=1 rewrites it");
    }
}

#[test]
fn every_finding_is_shown_by_a_test_that_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let holds = |file: String, function: &str| {
        std::fs::read_to_string(root.join(file)).is_ok_and(|text| {
            text.contains(&format!("#[test]\n    fn {function}()")) || text.contains(&format!("#[test]\nfn {function}()"))
        })
    };
    for finding in findings::FINDINGS {
        let shown = match finding.shown_by.rsplit_once("::") {
            Some((module, function)) => {
                let path = module.replace("::", "/");
                holds(format!("tests/it/{path}.rs"), function) || holds(format!("src/{path}.rs"), function)
            }
            None => root.join(format!("tests/conversations/{}.txt", finding.shown_by)).is_file(),
        };
        assert!(shown, "{:?} is shown by {}, which is not there", finding.alone, finding.shown_by);
    }
}

#[test]
fn of_the_crate_only_the_router_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut named = BTreeSet::new();
    for file in walkdir::WalkDir::new(root)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|file| file.path().extension().is_some_and(|ending| ending == "rs"))
    {
        let text = std::fs::read_to_string(file.path()).expect("a source");
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in lines {
            for (at, _) in line.match_indices("rumqttd::") {
                named.insert(line[at..].trim_end_matches([';', ',', ')']).to_owned());
            }
        }
    }
    let forbidden = ["Broker", "Server", "Console", "Bridge", "protocol::v4", "protocol::v5", "Config::"];
    assert!(!named.is_empty());
    for name in named {
        assert!(!forbidden.iter().any(|word| name.replace("RouterConfig", "").contains(word)), "{name}");
    }
}

#[test]
fn nothing_is_lost_on_the_way_through_the_router() {
    const COUNT: usize = 20_000;
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}max_queued_messages 0\nmax_inflight_messages 10\n"));
    let port = broker.port;
    let subscribers = ["#", "a/+"].map(|filter| {
        let mut subscriber = Client::connect(port, &format!("s {filter}"));
        subscriber.subscribe(filter);
        std::thread::spawn(move || {
            for expected in 0..COUNT {
                assert_eq!(subscriber.receive_payload(), format!("{expected:0100}").into_bytes());
            }
        })
    });
    let mut publisher = Client::connect(port, "p");
    for number in 0..COUNT {
        publisher.publish("a/b", format!("{number:0100}").as_bytes());
    }
    publisher.ping();
    for subscriber in subscribers {
        subscriber.join().expect("everything came, in order");
    }
}

#[test]
fn all_retained_messages_come() {
    let broker = broker(Engine::Rumqttd, PLAIN);
    let mut publisher = Client::connect(broker.port, "p");
    for number in 0..600 {
        publisher.send(&Packet::Publish(Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: true,
            topic: &format!("r/{number}"),
            packet_id: None,
            properties: Vec::new(),
            payload: b"1",
        }));
    }
    publisher.ping();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
        let mut subscriber = Client::connect(broker.port, "s");
        subscriber.subscribe_at("r/#", qos);
        for _ in 0..600 {
            subscriber.receive_payload();
        }
    }
}

#[test]
fn subscribers_leave_amid_a_backlog_and_others_take_their_places() {
    let broker = broker(Engine::Rumqttd, PLAIN);
    let port = broker.port;
    let running = Arc::new(AtomicBool::new(true));
    let publisher = {
        let running = Arc::clone(&running);
        std::thread::spawn(move || {
            let mut publisher = Client::connect(port, "p");
            while running.load(Ordering::Relaxed) {
                for _ in 0..500 {
                    publisher.publish("a", &[b'x'; 200]);
                }
                publisher.ping();
            }
        })
    };
    for round in 0..100 {
        let mut subscribers: Vec<_> = (0..3).map(|number| Client::connect(port, &format!("s{}-{number}", round % 2))).collect();
        for subscriber in &mut subscribers {
            subscriber.subscribe("#");
            subscriber.receive_payload();
        }
        for mut subscriber in subscribers {
            subscriber.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Vec::new() }));
        }
    }
    running.store(false, Ordering::Relaxed);
    publisher.join().expect("the publisher was served all the time");
    let mut last = Client::connect(port, "last");
    last.subscribe("b");
    last.publish("b", b"still here");
    assert_eq!(last.receive_payload(), b"still here");
}

fn tool(name: &str, broker: &Broker, arguments: &[&str]) -> (i32, String) {
    let (code, out, error) = run(Command::new(darner()).args([name, "-p", &broker.port.to_string()]).args(arguments));
    (code, out + &error)
}

/// Clients that come, subscribe, unsubscribe, publish and go at random, while two others must get everything of a third, in order.
#[test]
fn others_may_do_what_they_like() {
    const COUNT: usize = 3000;
    let broker = broker(Engine::Rumqttd, &format!("{PLAIN}max_queued_messages 0\n"));
    let port = broker.port;
    let running = Arc::new(AtomicBool::new(true));
    let others: Vec<_> = (0..4)
        .map(|seed| {
            let running = Arc::clone(&running);
            std::thread::spawn(move || {
                let mut random = Random::new(seed);
                while running.load(Ordering::Relaxed) {
                    let version = if random.one_in(2) { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
                    let (mut client, code) = Client::log_in(port, &format!("other/{seed}+{}", random.below(3)), None, version);
                    assert_eq!(code, Some(0));
                    for _ in 0..random.below(30) {
                        let topic = *random.pick(&["a", "a/b", "\u{fc}", "/", "kept/1"]);
                        let filter = *random.pick(&["#", "a/#", "+/b", "a", "$share/g/#", "$share/h/a/+"]);
                        match random.below(4) {
                            0 => client.send(&subscribe(filter)),
                            1 => client.send(&Packet::Unsubscribe(Unsubscribe {
                                packet_id: PacketId::MIN,
                                properties: Vec::new(),
                                filters: vec![filter.to_owned()],
                            })),
                            _ => client.publish(topic, &vec![b'x'; random.below(3000)]),
                        }
                    }
                    if random.one_in(2) {
                        client.send(&Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties: Vec::new() }));
                    }
                }
            })
        })
        .collect();
    let readers = ["kept/own", "kept/+"].map(|filter| {
        let mut reader = Client::connect(port, filter);
        reader.subscribe_at(filter, Qos::AtLeastOnce);
        std::thread::spawn(move || {
            let mut expected = 0;
            while expected < COUNT {
                let payload = reader.receive_payload();
                if payload.starts_with(b"x") || payload.is_empty() {
                    continue; // of the others
                }
                assert_eq!(payload, expected.to_string().into_bytes(), "in order, and each once");
                expected += 1;
            }
        })
    });
    let mut publisher = Client::connect(port, "publisher");
    for number in 0..COUNT {
        publisher.publish("kept/own", number.to_string().as_bytes());
        if number % 50 == 0 {
            publisher.ping();
        }
    }
    for reader in readers {
        reader.join().expect("everything came");
    }
    running.store(false, Ordering::Relaxed);
    for other in others {
        other.join().expect("the others were served, too");
    }
    assert_eq!(broker.stop(), 0);
}

fn subscribe(filter: &str) -> Packet<'static> {
    let subscriptions = vec![SubscriptionRequest { filter: filter.to_owned(), options: SubscriptionOptions::default() }];
    Packet::Subscribe(Subscribe { packet_id: PacketId::MIN, properties: Vec::new(), subscriptions })
}

#[test]
fn sessions_and_retained_messages_survive_the_broker() {
    let place = Folder::new("engine-store");
    // The broker's own user may write to it.
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o777)).expect("ours");
    let conf = format!("{PLAIN}persistence true\npersistence_location {}/\n", place.path().display());
    let first = broker(Engine::Rumqttd, &conf);
    assert_eq!(tool("mosquitto_sub", &first, &["-i", "reader", "-c", "-q", "1", "-t", "q/#", "-E"]).0, 0);
    assert_eq!(tool("mosquitto_pub", &first, &["-q", "1", "-t", "r", "-m", "stays", "-r"]).0, 0);
    for number in ["1", "2", "3"] {
        assert_eq!(tool("mosquitto_pub", &first, &["-q", "1", "-t", "q/a", "-m", number]).0, 0);
    }
    // Also what has just been handed to the router: the end waits for it.
    assert_eq!(first.stop(), 0);
    let second = broker(Engine::Rumqttd, &conf);
    assert_eq!(tool("mosquitto_pub", &second, &["-q", "1", "-t", "q/a", "-m", "4"]).0, 0);
    let came = tool("mosquitto_sub", &second, &["-i", "reader", "-c", "-q", "1", "-t", "q/#", "-C", "4", "-W", "10"]);
    assert_eq!(came, (0, "1\n2\n3\n4\n".to_owned()));
    assert_eq!(tool("mosquitto_sub", &second, &["-t", "r", "-C", "1", "-W", "10"]), (0, "stays\n".to_owned()));
}

#[test]
fn the_end_is_told_and_is_0() {
    let broker = broker(Engine::Rumqttd, PLAIN);
    let (mut client, code) = Client::log_in(broker.port, "c", None, ProtocolVersion::V5);
    assert_eq!(code, Some(0));
    client.subscribe("#");
    assert_eq!(broker.stop(), 0);
    assert_eq!(client.receive_bytes().map(|bytes| bytes[..3].to_vec()), Ok(vec![0xe0, 1, 0x8b]));
}
