//! The same command line given to our tool and to Debian's 2.0.11: same stdout, stderr and exit code.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::peer::{Peer, debian};
use crate::support::process::{Broker, Folder, darner, free_port, run};

/// Words separated by spaces; `_` in a word stands for a space. `{port}` accepts everybody, `{auth}` needs a password, `{none}` has
/// no listener. A broker on `{port}` holds the retained messages of [`brokers`].
const COMMAND_LINES: &[&str] = &[
    // Publishing.
    "mosquitto_pub -p {port} -t a -m hi",
    "mosquitto_pub -p {port} -t a -m hi -d",
    "mosquitto_pub -p {port} -t a -m hi -d -q 1 -i me1 -r",
    "mosquitto_pub -p {port} -t a -m hi -d -q 2 -V mqttv31 -i me2",
    "mosquitto_pub -p {port} -t a -m hi -d -q 2 -V 5 -D publish user-property a b --repeat 2 --repeat-delay 0.1",
    "mosquitto_pub -p {port} -t a -m hi -d --repeat 3",
    "mosquitto_pub -p {port} -t a -m hi -d -V 5 -D publish topic-alias 10 --repeat 2",
    "mosquitto_pub -p {port} -t a -m x -t b -d",
    "mosquitto_pub -p {port} -t a -n -d",
    "mosquitto_pub -L mqtt://127.0.0.1:{port}/a/b -m x -d",
    "mosquitto_pub -L mqtt://u:p@127.0.0.1:{auth}/a/b -m x -d",
    "mosquitto_pub -p {port} -h 127.0.0.1 -A 127.0.0.9 -t a -m x",
    "mosquitto_pub -p {port} -h 127.0.0.1 -A 203.0.113.1 -t a -m x",
    "mosquitto_pub -p {port} -t a -m x -I pre --will-topic w --will-payload gone --will-qos 1 --will-retain",
    "mosquitto_pub -p {port} -t a -m x -V 5 -P p",
    "mosquitto_pub -p {port} -t a -m x -V 5 -x 10 --nodelay -k 10 -M 3 --quiet",
    "mosquitto_pub -p {auth} -t a -m x -u u -P p",
    "mosquitto_pub -h 127.0.0.1 -p {port} -t a -m x --proxy socks5h://127.0.0.1:{none}",
    "mosquitto_pub -t a -m x --proxy http://127.0.0.1",
    "mosquitto_pub -p {port} -t a -s",
    "mosquitto_pub -p {port} -t a -l",
    "mosquitto_pub -p {port} -t a -f /nonexistent",
    // Refused by the broker, or no broker.
    "mosquitto_pub -h 127.0.0.1 -p {none} -t a -m x",
    "mosquitto_sub -h 127.0.0.1 -p {none} -t a",
    "mosquitto_pub -h 127.0.0.1 -p {none} -t a -m x --quiet",
    "mosquitto_pub -h host.invalid -t a -m x",
    "mosquitto_pub --unix /nonexistent -t a -m x",
    "mosquitto_pub -p 0 -t a -m x",
    "mosquitto_pub -p {auth} -t a -m x",
    "mosquitto_pub -p {auth} -t a -m x -d",
    "mosquitto_pub -p {auth} -t a -m x -V 5",
    "mosquitto_pub -p {auth} -t a -m x -V 31 -i me3",
    "mosquitto_pub -p {auth} -t a -m x -u u -P wrong",
    "mosquitto_pub -p {auth} -t a -l",
    "mosquitto_sub -p {auth} -t a",
    "mosquitto_sub -p {auth} -t a -V 5",
    "mosquitto_sub -p {auth} -t a --quiet",
    // Subscribing.
    "mosquitto_sub -p {port} -t r/a -C 1",
    "mosquitto_sub -p {port} -t r/a -t r/b -t r/empty -C 2 -v",
    "mosquitto_sub -p {port} -t r/a -C 1 -d",
    "mosquitto_sub -p {port} -t r/a -C 1 -d -q 1",
    "mosquitto_sub -p {port} -t r/a -C 1 -d -q 2",
    "mosquitto_sub -p {port} -t r/a -C 1 -d -q 2 -V 5",
    "mosquitto_sub -p {port} -t r/a -C 1 -d -q 2 -V 5 -D subscribe subscription-identifier 3 -F %S",
    "mosquitto_sub -p {port} -t r/a -C 1 -N",
    "mosquitto_sub -p {port} -t r/a -C 1 -V 5 -D connect topic-alias-maximum 5 -v",
    "mosquitto_sub -p {port} -t r/a -E",
    "mosquitto_sub -p {port} -t r/a -t r/b -E -d",
    "mosquitto_sub -p {port} -t r/a -E -d -V 5 --retain-as-published",
    "mosquitto_sub -p {port} -t r/a -W 1 -d -U x",
    "mosquitto_sub -p {port} -t r/a -W 1 -R",
    "mosquitto_sub -p {port} -t r/# -T r/b -T r/json -W 1 -v",
    "mosquitto_sub -p {port} -t r/a --retained-only -W 1",
    "mosquitto_sub -p {port} -t r/a -R --retained-only",
    "mosquitto_sub -p {port} -t r/a -c -i keeper -C 1",
    // Formats.
    "mosquitto_sub -p {port} -t r/a -C 1 -F %t|%10t|%-10t|%.1t|%5.2t|%p|%5p|%-5p|%05p|%1p",
    "mosquitto_sub -p {port} -t r/a -C 1 -F %x|%06x|%X|%3x|%l|%03l|%-3l|%q|%r|%m|%3m|%S|%5S|%05S|%%",
    "mosquitto_sub -p {port} -t r/a -C 1 -F \\t|\\n|\\\\|\\a|\\e|\\r|\\v|\\0|@@|@Y|@%",
    "mosquitto_sub -p {port} -t r/a -C 1 -F %5t|%.3p|%-10t|%.0t|%3.9t|%-3.1t|%010t|%.2p|%.3x|%9.2l|%2q|%3r",
    "mosquitto_sub -p {port} -t r/a -C 1 -V 5 -F %5A|%-5A|%05A|%9C|%4D|%5E|%9P|%9R|%.2R|%4%",
    "mosquitto_sub -p {port} -t r/props -C 1 -V 5 -F %.2C|%-7.2C|%9R|%-9R|%.2R|%9D|%9P|%9E|%4%|%H",
    "mosquitto_sub -p {port} -t r/empty -t r/a -C 1 -F %p|%5p|%-5p|%x|%4x|%04X|%l",
    "mosquitto_sub -p {port} -t r/a -C 1 -F %d",
    "mosquitto_sub -p {port} -t r/a -C 1 -F %f",
    "mosquitto_sub -p {port} -t r/a -C 1 -F %u",
    "mosquitto_sub -p {port} -t r/a -C 1 -F @Y-@m-@d_@H@z|@x|@j|@A|@B|@D|@F|@Z",
    "mosquitto_sub -p {port} -t r/props -C 1 -V 5 -F %A|%C|%10C|%D|%E|%F|%P|%R|%S|%2F|%-4F|%04F",
    "mosquitto_sub -p {port} -t r/json -C 1 -F %J",
    "mosquitto_sub -p {port} -t r/json -C 1 -F %J --pretty",
    "mosquitto_sub -p {port} -t r/a -C 1 -q 1 -F %j",
    "mosquitto_sub -p {port} -t r/a -C 1 -F %J",
    "mosquitto_sub -p {port} -t r/props -C 1 -V 5 -F %j",
    "mosquitto_sub -p {port} -t r/props -C 1 -V 5 -F %j --pretty",
    "mosquitto_sub -p {port} -t r/odd -C 1 -F %j",
    "mosquitto_sub -p {port} -t r/a -F %z",
    "mosquitto_sub -p {port} -t r/a -F %",
    "mosquitto_sub -p {port} -t r/a -F %-",
    "mosquitto_sub -p {port} -t r/a -F %10",
    "mosquitto_sub -p {port} -t r/a -F a@",
    "mosquitto_sub -p {port} -t r/a -F a\\",
    "mosquitto_sub -p {port} -t r/a -F a\\q",
    // Command lines that are off.
    "mosquitto_pub --foo",
    "mosquitto_sub --foo",
    "mosquitto_sub -m x",
    "mosquitto_pub -W 1",
    "mosquitto_pub -t a -m",
    "mosquitto_pub -t",
    "mosquitto_pub -t a -m x -m y",
    "mosquitto_pub -t a -m x -n",
    "mosquitto_pub -t a/# -m x",
    "mosquitto_pub -t a -m x --will-payload x",
    "mosquitto_pub -t a -m x --will-retain",
    "mosquitto_pub -t a -m x --will-topic a/+",
    "mosquitto_pub -t a -m x --will-topic a --will-qos 3",
    "mosquitto_pub -t a -m x -q 3",
    "mosquitto_pub -t a -m x -k 4",
    "mosquitto_pub -t a -m x -p 70000",
    "mosquitto_pub -t a -m x -c",
    "mosquitto_pub -t a -m x -c -V 5",
    "mosquitto_pub -t a -m x -x abc",
    "mosquitto_pub -t a -m x -x 4294967296",
    "mosquitto_pub -t a -m x -i a -I b",
    "mosquitto_pub -t a -m x -V 6",
    "mosquitto_pub -t a -m x -M 0",
    "mosquitto_pub -t a -m x --repeat 0",
    "mosquitto_pub -t a -m x --repeat-delay -1",
    "mosquitto_pub -t a -m x -L foo://x/y",
    "mosquitto_pub -m x -L mqtt://x",
    "mosquitto_pub -m x -t a -P p",
    "mosquitto_pub -t a -m x -D",
    "mosquitto_pub -t a -m x -D publish content-type",
    "mosquitto_pub -t a -m x -D publish user-property a",
    "mosquitto_pub -t a -m x -D nowhere content-type a",
    "mosquitto_pub -t a -m x -D publish nothing a",
    "mosquitto_pub -t a -m x -D publish receive-maximum 10",
    "mosquitto_pub -t a -m x -D connect receive-maximum 0",
    "mosquitto_pub -t a -m x -D connect receive-maximum 70000",
    "mosquitto_pub -t a -m x -D publish content-type a -D publish content-type b",
    "mosquitto_sub",
    "mosquitto_sub -t a/#/b",
    "mosquitto_sub -t a -T a/#/b",
    "mosquitto_sub -t a -U a/#/b",
    "mosquitto_sub -t a -C 0",
    "mosquitto_sub -t a -W 0",
    "mosquitto_sub -t a --random-filter 0",
];

struct Brokers {
    open: u16,
    closed: u16,
    nobody: u16,
    _running: [Box<dyn std::any::Any + Sync>; 2],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Debians,
}

fn start(whose: Whose, folder: Folder, conf: &str) -> (u16, Box<dyn std::any::Any + Sync>) {
    match whose {
        Whose::Ours => {
            let broker = Broker::start_in(folder, conf);
            (broker.port, Box::new(broker))
        }
        Whose::Debians => {
            let peer = Peer::start_in(folder, conf);
            (peer.port, Box::new(peer))
        }
    }
}

fn brokers(whose: Whose) -> Brokers {
    let (open, open_runs) = start(whose, Folder::new("open"), "listener {port} 127.0.0.1\nallow_anonymous true\n");
    let folder = Folder::new("peer");
    let password_file = folder.path().join("passwords");
    let status = debian("mosquitto_passwd").args(["-c", "-b"]).arg(&password_file).args(["u", "p"]).status();
    assert!(status.expect("mosquitto_passwd").success());
    let (closed, closed_runs) =
        start(whose, folder, "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {folder}/passwords\n");
    let retained: &[&[&str]] = &[
        &["-t", "r/a", "-m", "hello world", "-q", "2"],
        &["-t", "r/b", "-m", "b"],
        &["-t", "r/json", "-m", r#" {"a": [1, 2, {"b": "x, \" y"}], "c": null} "#],
        &["-t", "r/odd", "-m", "quote \" back \\ line \n tab \t bell \x07 ü"],
    ];
    let with_properties: &[&str] = &[
        "-t",
        "r/props",
        "-m",
        "x",
        "-D",
        "publish",
        "content-type",
        "text",
        "-D",
        "publish",
        "user-property",
        "k",
        "v",
        "-D",
        "publish",
        "user-property",
        "l",
        "w",
        "-D",
        "publish",
        "response-topic",
        "back",
        "-D",
        "publish",
        "correlation-data",
        "77",
        "-D",
        "publish",
        "payload-format-indicator",
        "1",
    ];
    for arguments in retained.iter().chain([&with_properties]) {
        let port = open.to_string();
        let (code, _, stderr) = run(debian("mosquitto_pub").args(["-r", "-p", &port]).args(*arguments));
        assert_eq!(code, 0, "{stderr}");
    }
    Brokers { open, closed, nobody: free_port(), _running: [open_runs, closed_runs] }
}

impl Brokers {
    fn words(&self, line: &str) -> Vec<String> {
        let fill = |word: &str| {
            word.replace("{port}", &self.open.to_string())
                .replace("{auth}", &self.closed.to_string())
                .replace("{none}", &self.nobody.to_string())
        };
        line.split(' ').map(|word| fill(&word.replace('_', if word.starts_with("mosquitto") { "_" } else { " " }))).collect()
    }
}

/// What differs from run to run: identifiers that the broker assigns, and the time.
fn masked(text: &str) -> String {
    let mask = |line: &str| match (line.split_once("auto-"), line.split_once("\"tst\":")) {
        (Some((before, after)), _) => format!("{before}auto-{}", after.get(36..).unwrap_or_default()),
        (_, Some((before, after))) => format!("{before}\"tst\":{}", after.split_once(',').map_or("", |(_, rest)| rest)),
        _ => line.to_owned(),
    };
    text.split_inclusive('\n').map(mask).collect()
}

#[test]
fn our_tools_and_our_broker_do_what_debians_do() {
    let (ours, debians) = (brokers(Whose::Ours), brokers(Whose::Debians));
    let home = Folder::new("home");
    let differences = std::sync::Mutex::new(Vec::new());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let compare = || {
        while let Some(line) = COMMAND_LINES.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
            let expected = result(&debians, line, Whose::Debians, home.path());
            for (who, got) in [
                ("our tool, Debian's broker", result(&debians, line, Whose::Ours, home.path())),
                ("Debian's tool, our broker", result(&ours, line, Whose::Debians, home.path())),
                ("our tool, our broker", result(&ours, line, Whose::Ours, home.path())),
            ] {
                if got != expected {
                    differences.lock().expect("a lock").push(format!("{line}\n  {who}: {got:?}\n  expected: {expected:?}"));
                }
            }
        }
    };
    // Several at a time, as each waits more than it works.
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(compare))));
    let differences = differences.into_inner().expect("a lock");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n"));
}

/// Exit code, stdout and stderr of a command line.
fn result(brokers: &Brokers, line: &str, whose: Whose, home: &std::path::Path) -> (i32, String, String) {
    let words = brokers.words(line);
    let (tool, arguments) = words.split_first().expect("a tool");
    let mut command = match whose {
        Whose::Ours => Command::new(darner()),
        Whose::Debians => debian(tool),
    };
    if whose == Whose::Ours {
        command.arg(tool);
    }
    command.args(arguments).env("HOME", home).env("TZ", "UTC").env_remove("XDG_CONFIG_HOME");
    let (code, stdout, stderr) = run(&mut command);
    (code, masked(&stdout), masked(&stderr))
}

#[test]
fn every_option_in_debians_help_is_known() {
    for tool in ["mosquitto_pub", "mosquitto_sub"] {
        let (_, help, _) = run(debian(tool).arg("--help"));
        let options: Vec<_> = help.lines().filter_map(|line| line.strip_prefix(" -")?.split_once(" :")).map(|(name, _)| name).collect();
        assert!(options.len() > 30, "{help}");
        for option in options {
            let (_, _, stderr) = run(Command::new(darner()).args([tool, &format!("-{option}")]));
            assert!(!stderr.contains("Unknown option"), "{tool} -{option}: {stderr}");
        }
    }
}

/// Of mosquitto_pub(1) and mosquitto_sub(1) of 2.0.
const OF_BOTH_MAN_PAGES: &str = "-A -c --disable-clean-session --cafile --capath --cert --ciphers -d --debug -D --property --help -h --host -i \
    --id -I --id-prefix --insecure -k --keepalive --key --keyform -L --url --nodelay -p --port -P --pw --proxy --psk --psk-identity -q --qos \
    --quiet -S -t --topic --tls-alpn --tls-engine --tls-engine-kpass-sha1 --tls-use-os-certs --tls-version -u --username --unix -V \
    --protocol-version --will-payload --will-qos --will-retain --will-topic -x";
const OF_PUBS: &str = "-f --file -l --stdin-line -m --message -n --null-message -r --retain --repeat --repeat-delay -s --stdin-file";
const OF_SUBS: &str = "-C -E -F -N --pretty -R --random-filter --remove-retained --retained-only --retain-as-published -T --filter-out -U \
    --unsubscribe -v --verbose -W";
/// Of 2.1 alone, and not here.
const OF_NEITHER: &str = "--ws -w --watch --message-rate --tls-keylog --latency";

#[test]
fn every_option_of_the_man_pages_is_known_to_its_tool_and_no_other() {
    for (tool, own, others) in [("mosquitto_pub", OF_PUBS, OF_SUBS), ("mosquitto_sub", OF_SUBS, OF_PUBS)] {
        let knows = |option: &str| {
            let (code, _, stderr) = run(Command::new(darner()).args([tool, option]));
            assert_eq!(code, 1, "{tool} {option}: {stderr}");
            !stderr.starts_with(&format!("Error: Unknown option '{option}'.\n"))
        };
        for option in OF_BOTH_MAN_PAGES.split_whitespace().chain(own.split_whitespace()) {
            assert!(knows(option), "{tool} {option}");
        }
        for option in others.split_whitespace().chain(OF_NEITHER.split_whitespace()) {
            assert!(!knows(option), "{tool} {option}");
        }
    }
}

#[test]
fn help_and_version_go_to_stdout_and_end_with_1_as_debians() {
    for tool in ["mosquitto_pub", "mosquitto_sub"] {
        for option in ["--help", "--version"] {
            let (ours, debians) = (run(Command::new(darner()).args([tool, option])), run(debian(tool).arg(option)));
            assert_eq!((ours.0, ours.2.as_str()), (debians.0, debians.2.as_str()), "{tool} {option}");
            let start = if option == "--help" { tool.to_owned() } else { format!("{tool} version ") };
            assert!(ours.1.starts_with(&start) && debians.1.starts_with(&start), "{tool} {option}: {}", ours.1);
        }
    }
}

#[test]
fn defaults_are_read_from_the_users_own_file() {
    let brokers = brokers(Whose::Debians);
    let home = Folder::new("home");
    let port = brokers.open;
    home.write(".config/mosquitto_pub", format!("# mine\n-p {port}\n-t from file\n-d\n"));
    home.write(".config/mosquitto_sub", format!("-p {port}\n-C 1\n-t r/a\n-F got %p\n"));
    for (tool, arguments) in [("mosquitto_pub", vec!["-m", "x"]), ("mosquitto_sub", vec![])] {
        let [ours, theirs] = [Command::new(darner()), debian(tool)].map(|mut command| {
            if command.get_program() == darner().as_os_str() {
                command.arg(tool);
            }
            run(command.args(&arguments).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME"))
        });
        assert_eq!(ours, theirs);
        assert_eq!(ours.0, 0);
    }
}

/// Of 2.1; Debian's 2.0.11 does not know it.
#[test]
fn options_are_read_from_the_file_that_is_named() {
    let brokers = brokers(Whose::Debians);
    let home = Folder::new("home");
    home.write(".config/mosquitto_sub", "-t nothing\n-F not %p\n");
    let options = home.write("options", format!("-p {}\n-C 1\n-t r/a\n-F got %p\n-W 20\n", brokers.open)).display().to_string();
    let tool = |arguments: &[&str]| {
        run(Command::new(darner()).arg("mosquitto_sub").args(arguments).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME"))
    };
    assert_eq!(tool(&["-o", &options]), (0, "got hello world\n".into(), String::new()));
    assert_eq!(tool(&["-F", "%t", "-o", &options]), (0, "r/a\n".into(), String::new()), "the command line is read after it");
    for (arguments, said) in [
        (&["-o"][..], "Error: -o argument given but no options file specified."),
        (&["-o", "/nonexistent"], "Error: Unable to read options file \"/nonexistent\": No such file"),
        (&["-o", &options, "-o", &options], "Error: Duplicate -o argument given."),
        (&["--will-payload", "-o", "-t", "a"], "Error: Will payload given, but no will topic given."),
    ] {
        let (code, stdout, stderr) = tool(arguments);
        assert_eq!((code, stdout.as_str()), (1, ""));
        assert!(stderr.starts_with(said), "{stderr}");
    }
}

#[test]
fn each_line_of_stdin_is_a_message() {
    let brokers = brokers(Whose::Debians);
    let port = brokers.open.to_string();
    let mut outputs = Vec::new();
    for mut command in [Command::new(darner()), debian("mosquitto_pub")] {
        if outputs.is_empty() {
            command.arg("mosquitto_pub");
        }
        let topic = format!("lines/{}", outputs.len());
        // Ours, as Debian's keeps its lines to itself when stdout is a pipe.
        let mut subscriber = Command::new(darner())
            .arg("mosquitto_sub")
            .args(["-p", &port, "-t", &topic, "-C", "4", "-F", "[%p]", "-q", "1", "-W", "20", "-d"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a subscriber");
        let mut subscriber_lines = std::io::BufRead::lines(std::io::BufReader::new(subscriber.stdout.take().expect("stdout")));
        let subscribed = subscriber_lines.by_ref().any(|line| line.is_ok_and(|line| line.starts_with("Subscribed")));
        assert!(subscribed);
        let mut publisher = command.args(["-p", &port, "-t", &topic, "-l", "-q", "1"]).stdin(Stdio::piped()).spawn().expect("a publisher");
        publisher.stdin.take().expect("stdin").write_all(b"one\n\ntwo\nlast").expect("written");
        assert!(publisher.wait().expect("ended").success());
        let printed: Vec<_> = subscriber_lines.map_while(Result::ok).filter(|line| line.starts_with('[')).collect();
        assert!(subscriber.wait().expect("ended").success());
        outputs.push(printed);
    }
    assert_eq!(outputs[0], ["[one]", "[]", "[two]", "[last]"]);
    assert_eq!(outputs[0], outputs[1]);
}
