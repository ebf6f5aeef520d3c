//! Lines into actions.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::words::hex;

pub struct Script {
    pub name: String,
    /// mosquitto.conf, with `{port}` and `{folder}` in it.
    pub conf: String,
    /// Name and content of files in `{folder}`.
    pub files: Vec<(String, String)>,
    pub steps: Vec<Step>,
    pub core_only: bool,
}

pub struct Step {
    pub line: usize,
    pub text: String,
    pub action: Action,
}

pub enum Action {
    Send {
        client: String,
        words: Vec<String>,
    },
    Close {
        client: String,
    },
    Expect {
        client: String,
        words: Vec<String>,
        any_order: bool,
    },
    /// `after_anything`: packets may have been sent before.
    ExpectClosed {
        client: String,
        after_anything: bool,
    },
    ExpectNothing {
        client: String,
    },
    Wait(Duration),
}

/// What a version is called, and what its CONNECT has behind the fixed header (of one byte of length).
const VERSIONS: &[(&str, &[u8])] = &[("v31", b"\0\x06MQIsdp\x03"), ("v311", b"\0\x04MQTT\x04"), ("v5", b"\0\x04MQTT\x05")];

/// The longest wait that is also done in real time.
const REAL_WAIT_MAX: Duration = Duration::from_secs(2);

impl Script {
    /// One script, or one for each version that its line `versions` names.
    pub fn read(root: &Path, path: &Path) -> Vec<Self> {
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let Some(versions) = text.lines().find_map(|line| line.strip_prefix("versions ")) else {
            return vec![Self::of(name, &text)];
        };
        let in_version = |version| Self::of(format!("{name} in {version}"), &text.replace("{version}", version));
        versions.split(' ').map(in_version).collect()
    }

    /// The protocol versions that its CONNECTs are of, also those that are bytes.
    pub fn versions(&self) -> BTreeSet<&'static str> {
        let said = |words: &[String]| VERSIONS.iter().find(|(name, _)| words.iter().any(|word| word == name));
        let in_bytes = |words: &[String]| {
            let bytes = hex(&words[1..]).ok()?;
            let after = bytes.first().filter(|first| **first >> 4 == 1).and_then(|_| bytes.get(2..))?;
            VERSIONS.iter().find(|(_, start)| after.starts_with(start))
        };
        let version = |step: &Step| match &step.action {
            Action::Send { words, .. } if words[0] == "connect" => said(words),
            Action::Send { words, .. } if words[0] == "hex" => in_bytes(words),
            _ => None,
        };
        self.steps.iter().filter_map(version).map(|(name, _)| *name).collect()
    }

    fn of(name: String, text: &str) -> Self {
        let conf = "listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 0\n".to_owned();
        let mut script = Self { name, conf, files: Vec::new(), steps: Vec::new(), core_only: false };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line.starts_with("versions ") {
                continue;
            }
            if let Err(problem) = script.take(index + 1, line) {
                panic!("{}:{}: {problem}: {line}", script.name, index + 1);
            }
        }
        script
    }

    fn take(&mut self, line: usize, text: &str) -> Result<(), &'static str> {
        if let Some(conf) = text.strip_prefix("conf ") {
            self.conf.push_str(conf);
            self.conf.push('\n');
            return Ok(());
        }
        if let Some(file) = text.strip_prefix("file ") {
            let (name, content) = file.split_once(' ').ok_or("file NAME LINE")?;
            self.add_to_file(name, content);
            return Ok(());
        }
        let action = action(text)?;
        if let Action::Wait(time) = action {
            self.core_only |= time > REAL_WAIT_MAX;
        }
        self.steps.push(Step { line, text: text.to_owned(), action });
        Ok(())
    }

    fn add_to_file(&mut self, name: &str, line: &str) {
        let index = self.files.iter().position(|file| file.0 == name).unwrap_or_else(|| {
            self.files.push((name.to_owned(), String::new()));
            self.files.len() - 1
        });
        self.files[index].1.push_str(line);
        self.files[index].1.push('\n');
    }
}

fn action(text: &str) -> Result<Action, &'static str> {
    if let Some(time) = text.strip_prefix("wait ") {
        return duration(time).map(Action::Wait);
    }
    let (client, rest) = text.split_once(": ").ok_or("neither an action nor a client")?;
    let client = client.to_owned();
    let (direction, rest) = rest.trim_start().split_once(' ').ok_or("no direction")?;
    let words = words(rest);
    let only = if words.len() == 1 { words[0].as_str() } else { "" };
    Ok(match (direction, only) {
        (">", "close") => Action::Close { client },
        (">", _) => Action::Send { client, words },
        ("<", "closed") => Action::ExpectClosed { client, after_anything: false },
        ("<", _) if words == ["closed", "..."] => Action::ExpectClosed { client, after_anything: true },
        ("<", "nothing") => Action::ExpectNothing { client },
        ("<", _) => Action::Expect { client, words, any_order: false },
        ("<~", _) => Action::Expect { client, words, any_order: true },
        _ => return Err("direction is >, < or <~"),
    })
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| "a time like 500ms or 60s");
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => number(digits).map(Duration::from_millis),
        (None, Some(digits)) => number(digits).map(Duration::from_secs),
        _ => Err("a time like 500ms or 60s"),
    }
}

/// Words between spaces; `"…"` keeps spaces together.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for letter in text.chars() {
        match letter {
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(letter),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
