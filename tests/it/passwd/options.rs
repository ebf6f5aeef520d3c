//! Each option, each sentence.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::{entry, is_root, mode, passwords, succeed, text, tool};
use crate::support::process::{Folder, darner, run};

#[test]
fn a_user_is_added_changed_and_deleted() {
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    let pw = path.to_str().expect("text");
    succeed(&["-c", "-b", pw, "hello", "world"]);
    assert_eq!(mode(&path), 0o600);
    succeed(&["-b", pw, "second", "pass word:#$"]);
    succeed(&["-b", pw, "hello", "changed"]);
    assert!(text(&path).starts_with("hello:$7$1000$") && text(&path).lines().count() == 2, "{}", text(&path));
    let users = passwords(&path);
    assert!(users.verify("hello", b"changed") && !users.verify("hello", b"world") && users.verify("second", b"pass word:#$"));
    succeed(&["-D", pw, "hello"]);
    assert!(!passwords(&path).contains("hello") && passwords(&path).contains("second"));
    assert_eq!(tool(&["-D", pw, "hello"]), (1, String::new(), "Warning: User hello not found in password file.\n".into()));
}

#[test]
fn the_tool_answers_to_its_own_name() {
    let folder = Folder::new("passwd");
    let name = folder.path().join("mosquitto_passwd");
    std::os::unix::fs::symlink(darner(), &name).expect("a link");
    let path = folder.path().join("pw");
    assert_eq!(run(Command::new(&name).arg("-c").arg("-b").arg(&path).args(["u", "p"])).0, 0);
    assert!(passwords(&path).verify("u", b"p"));
}

#[test]
fn every_hash_is_written_in_its_format() {
    let folder = Folder::new("passwd");
    let path = folder.path().join("pw");
    let pw = path.to_str().expect("text");
    for (options, head, salt_chars) in [
        (&["-H", "sha512"][..], "u:$6$", 16),
        (&["-H", "sha512-pbkdf2"], "u:$7$1000$", 16),
        (&["-I", "101"], "u:$7$101$", 16),
        (&["-H", "argon2id"], "u:$argon2id$v=19$m=47104,t=1,p=1$", 22),
    ] {
        succeed(&[options, &["-c", "-b", pw, "u", "secret"]].concat());
        let line = text(&path);
        let (salt, hash) = line.strip_prefix(head).and_then(|rest| rest.split_once('$')).expect(&line);
        assert_eq!((salt.len(), hash.trim_end().len()), (salt_chars, if options.contains(&"argon2id") { 86 } else { 88 }), "{line}");
        assert!(passwords(&path).verify("u", b"secret") && !passwords(&path).verify("u", b"Secret"));
    }
}

#[test]
fn create_replaces_an_existing_file_and_keeps_its_mode() {
    let folder = Folder::new("passwd");
    let path = folder.write("pw", "old:x\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    succeed(&["-c", "-b", path.to_str().expect("text"), "new", "p"]);
    assert!(text(&path).starts_with("new:$7$") && text(&path).lines().count() == 1 && mode(&path) == 0o640);
}

#[test]
fn create_with_a_dash_writes_to_stdout() {
    for name in ["-", "/dev/stdout"] {
        let (code, out, err) = tool(&["-c", "-b", name, "u", "p"]);
        assert!((code, err.as_str()) == (0, "") && out.starts_with("u:$7$1000$") && out.ends_with("==\n"), "{out}{err}");
    }
}

#[test]
fn update_hashes_plain_text_and_nothing_else() {
    let folder = Folder::new("passwd");
    let hashed = entry("pub", "kept");
    let path = folder.write("pw", format!("# users\n{hashed}\n\npubclient1:tiguitto\ncolon:a:b c\ndamaged:$7$101$AAAA\nnonsense"));
    let (code, out, err) = tool(&["-U", path.to_str().expect("text")]);
    assert!(code == 0 && out.is_empty(), "{out}{err}");
    assert!(err.contains("The hash of user damaged is damaged"), "{err}");
    let after = text(&path);
    let lines: Vec<&str> = after.split('\n').collect();
    assert_eq!((lines[0], lines[1], lines[2], lines[5], lines[6]), ("# users", hashed.as_str(), "", "damaged:$7$101$AAAA", "nonsense"));
    let users = passwords(&path);
    assert!(users.verify("pub", b"kept") && users.verify("pubclient1", b"tiguitto") && users.verify("colon", b"a:b c"));
    let err = tool(&["-U", path.to_str().expect("text")]).2;
    assert_eq!(text(&path), after, "a second run changes nothing: {err}");
}

#[test]
fn wrong_command_lines_say_what_is_wrong() {
    let usage = "mosquitto_passwd is a tool for managing password files for mosquitto.\n";
    let c = "Error: -c argument given but password file or username missing.\n";
    for (arguments, message) in [
        (&[][..], usage),
        (&["--help"], usage),
        (&["f", "u", "extra"], usage),
        (&["-b", "f", "u"], usage),
        (&["-b", "f", "u", "p", "extra"], usage),
        (&["-x", "f", "u"], usage),
        (&["-c"], c),
        (&["-c", "f"], c),
        (&["-c", "-b", "f", "u"], "Error: -c argument given but password file, username, or password missing.\n"),
        (&["-D", "f"], "Error: -D argument given but password file or username missing.\n"),
        (&["-U"], "Error: -U argument given but password file missing.\n"),
        (&["-c", "-D", "f", "u"], "Error: -c and -D cannot be used together.\n"),
        (&["-c", "-U", "f"], "Error: -c and -U cannot be used together.\n"),
        (&["-D", "-U", "f"], "Error: -D and -U cannot be used together.\n"),
        (&["-b", "-D", "f", "u"], "Error: -b and -D cannot be used together.\n"),
        (&["-H"], "Error: -H argument given but not enough other arguments.\n"),
        (&["-H", "md5", "f", "u"], "Error: Unknown hash type 'md5'\n"),
        (&["-I"], "Error: -I argument given but not enough other arguments.\n"),
        (&["-I", "0", "f", "u"], "Error: Number of iterations must be > 0.\n"),
        (&["-I", "many", "f", "u"], "Error: Number of iterations must be > 0.\n"),
        (&["-I", "4000000000", "f", "u"], "Error: Number of iterations must be <= 10000000.\n"),
        (&["-b", "f", "a:b", "p"], "Error: Username must not contain the ':' character.\n"),
        (&["-b", "f", "a\nb", "p"], "Error: Username must not contain control characters.\n"),
        (&["-b", "f", "", "p"], "Error: Username must not be empty.\n"),
        (&["-b", "f", "#a", "p"], "Error: Username must not begin with '#': the line would be a comment.\n"),
        (&["-b", "/no-such-folder/f", "u", "p"], "Error: Unable to open password file /no-such-folder/f. No such file or directory.\n"),
        (&["-U", "/no-such-file"], "Error: Unable to open password file /no-such-file. No such file or directory.\n"),
        (&["/no-such-file", "u"], "Error: Unable to open password file /no-such-file. No such file or directory.\n"),
        (
            &["-c", "-b", "/no-such-folder/f", "u", "p"],
            "Error: Unable to open file /no-such-folder/f for writing. No such file or directory.\n",
        ),
        (&["-b", "/", "u", "p"], "Error: Unable to open password file /. Is a directory.\n"),
        (&["-b", "/tmp", "u", "p"], "Error: Unable to open password file /tmp. Is a directory.\n"),
    ] {
        let (code, out, err) = tool(arguments);
        assert!(code == 1 && out.is_empty() && err.starts_with(message), "{arguments:?}: {code} {out}{err}");
    }
    let long = "x".repeat(65536);
    assert_eq!(tool(&["-b", "f", &long, "p"]).2, "Error: Username must be less than 65536 characters long.\n");
    assert_eq!(tool(&["-b", "f", "u", &long]).2, "Error: Password must be less than 65536 characters long.\n");
}

#[test]
fn one_warning_about_permissions_and_only_when_others_may_read() {
    let folder = Folder::new("passwd");
    let path = folder.write("pw", "");
    let pw = path.to_str().expect("text");
    for (bits, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bits)).expect("a mode");
        let err = tool(&["-b", pw, "u", "p"]).2;
        let expected = format!("Warning: File {pw} has world readable permissions. To fix this, use `chmod 0600 {pw}`.\n");
        assert_eq!(err, if warned { expected } else { String::new() });
        assert_eq!(mode(&path), bits);
    }
}

#[test]
fn a_file_keeps_its_owner_and_a_new_one_gets_that_of_its_folder() {
    use std::os::unix::fs::MetadataExt as _;
    if !is_root() {
        return;
    }
    let folder = Folder::new("passwd");
    let (old, new) = (folder.write("old", "a:x\n"), folder.path().join("new"));
    std::os::unix::fs::chown(&old, Some(1234), Some(1235)).expect("an owner");
    std::os::unix::fs::chown(folder.path(), Some(1883), Some(1884)).expect("an owner");
    std::fs::set_permissions(&old, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    succeed(&["-b", old.to_str().expect("text"), "u", "p"]);
    succeed(&["-c", "-b", new.to_str().expect("text"), "u", "p"]);
    let owner = |path: &std::path::Path| path.metadata().map(|facts| (facts.uid(), facts.gid())).expect("facts");
    assert_eq!((owner(&old), owner(&new)), ((1234, 1235), (1883, 1884)));
}

#[test]
fn a_symbolic_link_is_followed_and_stays() {
    let folder = Folder::new("passwd");
    let target = folder.write("real/pw", "a:x\n");
    let (link, dangling) = (folder.path().join("link"), folder.path().join("dangling"));
    std::os::unix::fs::symlink("real/pw", &link).expect("a link");
    std::os::unix::fs::symlink("real/new", &dangling).expect("a link");
    tool(&["-b", link.to_str().expect("text"), "u", "p"]);
    succeed(&["-c", "-b", dangling.to_str().expect("text"), "u", "p"]);
    assert!(text(&target).starts_with("a:x\nu:$7$") && link.is_symlink());
    assert!(passwords(&folder.path().join("real/new")).contains("u") && dangling.is_symlink());
}
