//! `engine = "rumqttd"`: the same broker with the router of that crate in it. What scripts can say is said by
//! `conversation::conversations_with_the_rumqttd_engine`.

use std::process::Command;

use crate::support::process::{Engine, Folder, darner, run};

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
