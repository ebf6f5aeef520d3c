//! Self-repair, black box: `darner repair` on folders in the states that ended mosquitto's containers. Situations are lettered as in
//! the table of facts: A/B read-only, C directory for a file, D file for a directory, F full disk, H/I any uid, J/K few capabilities,
//! L read-only root, M link out of the volume, N bad configuration, O empty configuration, P immutable folder.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::process::{Folder, darner, run};

mod admin;
mod self_made;

const OWNER: (u32, u32) = (1883, 1883);

/// A volume's root inside a folder of its own; the rest of the folder plays the host.
struct Volume {
    host: Folder,
    root: PathBuf,
}

impl Volume {
    fn new() -> Self {
        let host = Folder::new("repair");
        // Other accounts have to get in.
        std::fs::set_permissions(host.path(), std::fs::Permissions::from_mode(0o755)).expect("a mode");
        let root = host.path().join("mosquitto");
        std::fs::create_dir(&root).expect("a root");
        Self { host, root }
    }

    /// With a configuration; `{root}` and `{host}` in it are replaced.
    fn with_conf(text: &str) -> Self {
        let volume = Self::new();
        let text = text.replace("{root}", volume.shown()).replace("{host}", &volume.host.path().display().to_string());
        volume.put("config/mosquitto.conf", &text);
        volume
    }

    fn shown(&self) -> &str {
        self.root.to_str().expect("a plain path")
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.at(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("folders");
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(darner());
        command.arg("repair").arg("--root").arg(&self.root);
        command
    }

    /// Repairs with the image's owner (as root), and gives exit code and lines.
    fn repair(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = self.command();
        if is_root() {
            command.args(["--owner", "1883:1883"]);
        }
        framed(command.args(arguments))
    }

    /// Runs a shell script in a mount namespace of its own; `$root`, `$host` and `$repair` are set.
    fn repair_in_namespace(&self, script: &str) -> (i32, String) {
        let repair = format!("{} repair --root {} --owner 1883:1883", darner().display(), self.root.display());
        framed(
            Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-ec", script])
                .env("root", &self.root)
                .env("host", self.host.path())
                .env("repair", repair),
        )
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// For tests that need root: says so when there is none.
fn without_root(what: &str) -> bool {
    if !is_root() {
        eprintln!("skipped: {what} needs root");
    }
    !is_root()
}

/// Whatever happens, a repair ends by itself and within its frame.
fn framed(command: &mut Command) -> (i32, String) {
    let (code, out, err) = run(command);
    assert!(code == 0 || code == 1, "exit code {code}\n{out}\n{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.first(), Some(&"[IOTstack] begin self-repair"), "{out}{err}");
    assert_eq!(lines.last(), Some(&"[IOTstack] end self-repair"), "{out}{err}");
    (code, out)
}

#[track_caller]
fn has(out: &str, text: &str) {
    assert!(out.contains(text), "no {text:?} in:\n{out}");
}

fn owner_of(path: &Path) -> (u32, u32) {
    let metadata = path.symlink_metadata().expect("it exists");
    (metadata.uid(), metadata.gid())
}

fn mode_of(path: &Path) -> u32 {
    path.symlink_metadata().expect("it exists").mode() & 0o7777
}

type Snapshot = BTreeMap<PathBuf, (u32, u32, u32, u64, (i64, i64), (i64, i64))>;

/// Everything about every file, including the time of its last change of any kind.
fn snapshot(root: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    let mut folders = vec![root.to_owned()];
    while let Some(path) = folders.pop() {
        let m = path.symlink_metadata().expect("it exists");
        if m.is_dir() {
            folders.extend(std::fs::read_dir(&path).expect("lists").map(|entry| entry.expect("an entry").path()));
        }
        all.insert(path, (m.mode(), m.uid(), m.gid(), m.size(), (m.mtime(), m.mtime_nsec()), (m.ctime(), m.ctime_nsec())));
    }
    all
}

#[test]
fn an_empty_volume_gets_the_defaults_with_their_modes_and_times() {
    let volume = Volume::new();
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 0, "{out}");
    let files = [("config/mosquitto.conf", 0o644), ("config/filter.acl", 0o644), ("pwfile/pwfile", 0o600)];
    for (name, mode) in files {
        let path = volume.at(name);
        has(&out, &format!("created '{}' (mode {mode:04o})", path.display()));
        assert_eq!(mode_of(&path), mode, "{name}");
        assert_eq!(path.metadata().expect("it exists").mtime(), 1_795_392_000, "{name}");
    }
    assert!(volume.at("data").is_dir() && volume.at("log").is_dir());
    assert_eq!(volume.at("pwfile/pwfile").metadata().expect("it exists").len(), 0);
    let conf = std::fs::read_to_string(volume.at("config/mosquitto.conf")).expect("text");
    has(&conf, &format!("\npersistence_location {}/data\n", volume.root.display()));
    if is_root() {
        assert!(snapshot(&volume.root).values().all(|entry| (entry.1, entry.2) == OWNER));
    }
}

#[test]
fn a_second_repair_writes_nothing_at_all() {
    let volume = Volume::new();
    volume.repair(&[]);
    let before = snapshot(&volume.root);
    let (code, out) = volume.repair(&["--full"]);
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert_eq!(snapshot(&volume.root), before);
}

#[test]
fn existing_files_and_folders_stay_as_they_are_even_empty_ones() {
    let volume = Volume::new();
    volume.put("config/filter.acl", "");
    let conf = volume.put("config/mosquitto.conf", "listener 1999\n");
    std::fs::set_permissions(volume.at("config"), std::fs::Permissions::from_mode(0o700)).expect("a mode");
    std::fs::set_permissions(&conf, std::fs::Permissions::from_mode(0o640)).expect("a mode");
    let modified = conf.metadata().expect("it exists").modified().expect("a time");
    let (_, out) = volume.repair(&[]);
    assert_eq!(volume.at("config/filter.acl").metadata().expect("it exists").len(), 0, "{out}");
    assert_eq!(std::fs::read_to_string(&conf).expect("text"), "listener 1999\n");
    assert_eq!((mode_of(&volume.at("config")), mode_of(&conf)), (0o700, 0o640));
    assert_eq!(conf.metadata().expect("it exists").modified().expect("a time"), modified);
}

#[test]
fn a_dry_run_tells_the_same_actions_and_touches_nothing() {
    let volume = Volume::new();
    volume.put("pwfile/pwfile", "a:b\n");
    let before = snapshot(&volume.root);
    let (_, told) = volume.repair(&["--dry-run"]);
    assert_eq!(snapshot(&volume.root), before);
    let (_, done) = volume.repair(&[]);
    for line in done.lines().filter(|line| line.starts_with("created")) {
        has(&told, &format!("dry run: {line}"));
    }
    has(&told, "mode of");
}

#[test]
fn a_password_file_that_others_can_read_becomes_private() {
    let volume = Volume::new();
    let passwords = volume.put("pwfile/pwfile", "a:b\n");
    let (_, out) = volume.repair(&[]);
    has(&out, &format!("mode of '{}' changed to 0600 (rw-------)", passwords.display()));
    assert_eq!(mode_of(&passwords), 0o600);
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o400)).expect("a mode");
    volume.repair(&[]);
    assert_eq!(mode_of(&passwords), 0o400, "tighter than needed is not our matter");
}

#[test]
fn only_wrong_owners_are_corrected() {
    if without_root("a change of owner") {
        return;
    }
    let volume = Volume::new();
    volume.repair(&[]);
    let db = volume.put("data/mosquitto.db", "x");
    let acl = snapshot(&volume.at("config/filter.acl"));
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 0, "{out}");
    has(&out, &format!("changed ownership of '{}' to 1883:1883", db.display()));
    assert_eq!(out.lines().count(), 3, "{out}");
    assert_eq!(owner_of(&db), OWNER);
    assert_eq!(snapshot(&volume.at("config/filter.acl")), acl);
}

#[test]
fn many_changes_are_fifty_lines_and_a_number() {
    if without_root("a change of owner") {
        return;
    }
    let volume = Volume::new();
    volume.repair(&[]);
    for number in 0..100 {
        volume.put(&format!("data/{number}"), "");
    }
    let (_, out) = volume.repair(&[]);
    assert_eq!(out.lines().filter(|line| line.starts_with("changed ownership of")).count(), 50, "{out}");
    has(&out, "… and 50 more changes");
    assert!((0..100).all(|number| owner_of(&volume.at(&format!("data/{number}"))) == OWNER));
}

#[test]
fn links_are_never_followed_to_another_owner_mode_or_content() {
    let volume = Volume::new();
    let outside = volume.host.write("outside/secret", "root:secret\n");
    std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    std::fs::create_dir_all(volume.at("pwfile")).expect("a folder");
    std::fs::create_dir_all(volume.at("data")).expect("a folder");
    symlink(&outside, volume.at("pwfile/pwfile")).expect("a link");
    symlink(volume.host.path().join("outside"), volume.at("data/link")).expect("a link");
    symlink(volume.host.path().join("outside"), volume.at("config")).expect("a link");
    let before = snapshot(&volume.host.path().join("outside"));
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, &format!("'{}' is a symbolic link out of the volume", volume.at("pwfile/pwfile").display()));
    has(&out, &format!("'{}' is a symbolic link to nothing that can be used as configuration: refused", volume.at("config").display()));
    assert_eq!(snapshot(&volume.host.path().join("outside")), before);
    assert!(volume.at("pwfile/pwfile").is_symlink());
}

#[test]
fn a_link_to_a_file_that_the_broker_may_not_read_is_refused() {
    if without_root("a file of root") {
        return;
    }
    let volume = Volume::new();
    let shadow = volume.host.write("shadow", "root:x\n");
    std::fs::set_permissions(&shadow, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    std::fs::create_dir_all(volume.at("pwfile")).expect("a folder");
    symlink(&shadow, volume.at("pwfile/pwfile")).expect("a link");
    let (_, out) = volume.repair(&[]);
    has(&out, "is a symbolic link to a file that the broker may not read: refused");
    assert_eq!((owner_of(&shadow), mode_of(&shadow)), ((0, 0), 0o600));
}

#[test]
fn a_link_within_the_volume_is_in_order() {
    let volume = Volume::with_conf("listener 1883\npassword_file {root}/config/passwd\n");
    volume.put("config/..data/passwd", "a:b\n");
    symlink("..data/passwd", volume.at("config/passwd")).expect("a link");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 0, "{out}");
    assert!(volume.at("config/passwd").is_symlink());
    assert_eq!(mode_of(&volume.at("config/..data/passwd")), 0o644, "not through a link");
}

#[test]
fn a_hard_link_to_a_file_of_somebody_else_is_told_and_left_alone() {
    if without_root("a file of root") {
        return;
    }
    let volume = Volume::new();
    let outside = volume.host.write("secret", "x");
    std::fs::create_dir_all(volume.at("pwfile")).expect("a folder");
    std::fs::hard_link(&outside, volume.at("pwfile/pwfile")).expect("a hard link");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, "1 item with another owner and other hard links left alone (pwfile/pwfile)");
    assert_eq!((owner_of(&outside), mode_of(&outside)), ((0, 0), 0o644));
}

#[test]
fn what_a_configuration_names_is_created_wherever_it_is() {
    let volume = Volume::with_conf(
        "listener 1883\npassword_file {host}/elsewhere/passwd\npersistence true\npersistence_location {root}/store/db/\n\
         log_dest file {root}/logs/mosquitto.log\npid_file {host}/run/mosquitto.pid\n",
    );
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 0, "{out}");
    let passwords = volume.host.path().join("elsewhere/passwd");
    assert_eq!((passwords.metadata().expect("it exists").len(), mode_of(&passwords)), (0, 0o600));
    has(&out, "every login fails until mosquitto_passwd adds somebody");
    for folder in [volume.at("store/db"), volume.at("logs"), volume.host.path().join("run")] {
        assert!(folder.is_dir(), "{}", folder.display());
        assert_eq!(owner_of(&folder), owner_of(&passwords));
    }
    if is_root() {
        assert_eq!(owner_of(&passwords), OWNER);
    }
    let (code, out) = volume.repair(&[]);
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
}

#[test]
fn a_missing_acl_file_is_told_but_permissions_are_not_invented() {
    let volume = Volume::with_conf("listener 1883\nacl_file {root}/config/mine.acl\n");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, &format!("acl_file '{}' does not exist, and permissions are not invented", volume.at("config/mine.acl").display()));
    assert!(!volume.at("config/mine.acl").exists());
}

#[test]
fn a_link_elsewhere_that_a_stranger_could_have_made_is_not_followed() {
    let volume = Volume::with_conf("listener 1883\npassword_file {host}/shared/link/passwd\n");
    std::fs::create_dir_all(volume.host.path().join("target")).expect("a folder");
    std::fs::create_dir_all(volume.host.path().join("shared")).expect("a folder");
    std::fs::set_permissions(volume.host.path().join("shared"), std::fs::Permissions::from_mode(0o777)).expect("a mode");
    symlink(volume.host.path().join("target"), volume.host.path().join("shared/link")).expect("a link");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    assert!(!volume.host.path().join("target/passwd").exists());
    // In a folder of our own the same link is the administrator's.
    std::fs::set_permissions(volume.host.path().join("shared"), std::fs::Permissions::from_mode(0o755)).expect("a mode");
    volume.repair(&[]);
    assert!(volume.host.path().join("target/passwd").is_file());
}

#[test]
fn a_mistyped_configuration_path_does_not_become_an_open_broker() {
    let volume = Volume::new();
    let typo = volume.at("confg/mosquitto.conf");
    let (code, out) = volume.repair(&["-c", typo.to_str().expect("a plain path")]);
    assert_eq!(code, 1, "{out}");
    has(&out, &format!("the configuration '{}' does not exist", typo.display()));
    assert!(!typo.exists());
    std::fs::create_dir(volume.at("confg")).expect("a folder");
    volume.repair(&["-c", typo.to_str().expect("a plain path")]);
    assert!(typo.is_file(), "a mounted folder gets its configuration, as images that use /mosquitto/conf do");
}

#[test]
fn a_b_missing_defaults_on_a_read_only_mount_are_one_line() {
    if without_root("a mount") {
        return;
    }
    let volume = Volume::new();
    volume.put("config/mosquitto.conf", "listener 1883\n");
    let before = snapshot(&volume.at("config"));
    let (_, out) = volume.repair_in_namespace("mount --bind $root/config $root/config; mount -o remount,bind,ro $root/config; $repair");
    let config = volume.at("config").display().to_string();
    has(&out, &format!("repair: note: {config} read-only: 1 item could not be restored (filter.acl): using built-in defaults"));
    has(&out, &format!("created '{}'", volume.at("pwfile/pwfile").display()));
    assert_eq!(snapshot(&volume.at("config")), before);
}

#[test]
fn c_a_directory_where_docker_found_no_file_is_explained() {
    let volume = Volume::new();
    std::fs::create_dir_all(volume.at("config/mosquitto.conf")).expect("a folder");
    std::fs::create_dir_all(volume.at("pwfile/pwfile")).expect("a folder");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    let why = "is a directory: Docker made it because the file to be mounted did not exist on the host";
    has(&out, &format!("'{}' (configuration) {why}", volume.at("config/mosquitto.conf").display()));
    has(&out, "until then the built-in default configuration is used");
    has(&out, &format!("'{}' (password_file) {why}", volume.at("pwfile/pwfile").display()));
}

#[test]
fn d_a_file_where_a_folder_is_due_is_told_once() {
    let volume = Volume::new();
    let config = volume.put("config", "not a folder");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    assert_eq!(out.matches("is a file where a folder is due").count(), 1, "{out}");
    assert_eq!(std::fs::read_to_string(config).expect("text"), "not a folder");
    assert!(volume.at("pwfile/pwfile").is_file(), "the rest is mended");
}

#[test]
fn f_a_full_disk_leaves_no_half_files() {
    if without_root("a mount") {
        return;
    }
    let volume = Volume::new();
    let (code, out) = volume.repair_in_namespace(
        "mkdir $root/config; mount -t tmpfs -o size=16k tmpfs $root/config; head -c 1000000 /dev/zero > $root/config/full || true; \
         $repair || code=$?; ls -A $root/config > $host/names; exit ${code:-0}",
    );
    assert_eq!(code, 1, "{out}");
    has(&out, "/config full: 1 item could not be restored (mosquitto.conf): using built-in defaults");
    has(&out, "/config full: 1 item could not be restored (filter.acl): using built-in defaults");
    assert_eq!(std::fs::read_to_string(volume.host.path().join("names")).expect("names"), "full\n");
}

#[test]
fn h_an_account_of_its_own_repairs_its_own_volume() {
    if without_root("becoming another user") {
        return;
    }
    let volume = Volume::new();
    std::os::unix::fs::chown(&volume.root, Some(1883), Some(1883)).expect("an owner");
    let (code, out) = framed(volume.command().uid(1883).gid(1883));
    assert_eq!(code, 0, "{out}");
    assert_eq!((owner_of(&volume.at("pwfile/pwfile")), mode_of(&volume.at("pwfile/pwfile"))), (OWNER, 0o600));
}

#[test]
fn i_another_account_mends_what_it_can_and_names_what_it_may_not_write() {
    if without_root("becoming another user") {
        return;
    }
    let volume = Volume::with_conf("listener 1883\npersistence true\npersistence_location {root}/data\n");
    std::fs::create_dir(volume.at("data")).expect("a folder");
    std::fs::create_dir(volume.at("pwfile")).expect("a folder");
    std::os::unix::fs::chown(volume.at("pwfile"), Some(1000), Some(1000)).expect("an owner");
    let (code, out) = framed(volume.command().uid(1000).gid(1000));
    assert_eq!(code, 1, "{out}");
    assert_eq!(owner_of(&volume.at("pwfile/pwfile")), (1000, 1000));
    has(
        &out,
        &format!("'{}' (persistence_location) belongs to 0:0 (mode 0755) and the broker runs as 1000:1000", volume.at("data").display()),
    );
    assert_eq!(owner_of(&volume.at("data")), (0, 0));
    has(&out, "not permitted: 1 item could not be restored (filter.acl): using built-in defaults");
}

#[test]
fn a_password_file_that_an_unprivileged_broker_may_not_read_is_named() {
    if without_root("becoming another user") {
        return;
    }
    let volume = Volume::with_conf("listener 1883\npassword_file {root}/pwfile/pwfile\n");
    let passwords = volume.put("pwfile/pwfile", "a:b\n");
    std::fs::set_permissions(&passwords, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let (code, out) = framed(volume.command().uid(1000).gid(1000));
    assert_eq!(code, 1, "{out}");
    has(
        &out,
        &format!(
            "'{}' (password_file) belongs to 0:0 (mode 0600) and the broker runs as 1000:1000, which may not read it",
            passwords.display()
        ),
    );
}

fn with_capabilities(volume: &Volume, set: &str) -> (i32, String) {
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={set}")).arg(darner()).args(["repair", "--owner", "1883:1883", "--root"]).arg(&volume.root);
    framed(&mut command)
}

#[test]
fn j_root_without_capabilities_creates_and_keeps_owners() {
    if without_root("capabilities") {
        return;
    }
    let volume = Volume::new();
    let (_, out) = with_capabilities(&volume, "-all");
    assert!(volume.at("config/mosquitto.conf").is_file(), "{out}");
    assert_eq!(owner_of(&volume.at("config/mosquitto.conf")), (0, 0));
    assert_eq!(out.matches("not permitted: owner of").count(), 1, "{out}");
}

#[test]
fn k_root_without_dac_override_works_in_folders_of_the_broker() {
    if without_root("capabilities") {
        return;
    }
    let volume = Volume::new();
    for name in ["config", "pwfile"] {
        std::fs::create_dir(volume.at(name)).expect("a folder");
        std::fs::set_permissions(volume.at(name), std::fs::Permissions::from_mode(0o700)).expect("a mode");
        std::os::unix::fs::chown(volume.at(name), Some(1883), Some(1883)).expect("an owner");
    }
    let passwords = volume.put("pwfile/pwfile", "a:b\n");
    std::os::unix::fs::chown(&passwords, Some(1883), Some(1883)).expect("an owner");
    let (code, out) = with_capabilities(&volume, "-all,+chown,+setuid,+setgid");
    assert_eq!(code, 0, "{out}");
    assert_eq!((owner_of(&volume.at("config/mosquitto.conf")), mode_of(&volume.at("config/mosquitto.conf"))), (OWNER, 0o644));
    assert_eq!(mode_of(&passwords), 0o600, "{out}");
    assert_eq!(owner_of(&volume.at("data")), OWNER);
}

#[test]
fn l_a_read_only_root_with_writable_mounts_is_mended_below_the_mounts() {
    if without_root("a mount") {
        return;
    }
    let volume = Volume::new();
    let (code, out) = volume.repair_in_namespace(
        "for name in config pwfile data log; do mkdir $root/$name $host/$name; done; mount --bind $root $root; \
         for name in config pwfile data log; do mount --bind $host/$name $root/$name; done; mount -o remount,bind,ro $root; $repair",
    );
    assert_eq!(code, 0, "{out}");
    for name in ["config", "pwfile", "data", "log"] {
        assert_eq!(owner_of(&volume.host.path().join(name)), OWNER, "{name}");
    }
    assert!(volume.host.path().join("config/mosquitto.conf").is_file());
    assert_eq!(owner_of(&volume.root), (0, 0));
}

#[test]
fn a_single_file_mounted_from_another_filesystem_gets_its_owner() {
    if without_root("a mount") {
        return;
    }
    let volume = Volume::new();
    volume.put("config/passwd", "");
    let (_, out) = volume.repair_in_namespace(
        "mkdir $host/other; mount -t tmpfs tmpfs $host/other; echo a:b > $host/other/passwd; mkdir $host/other/certs $root/config/certs; \
         mount --bind $host/other/passwd $root/config/passwd; mount --bind $host/other/certs $root/config/certs; $repair",
    );
    has(&out, &format!("changed ownership of '{}' to 1883:1883", volume.at("config/passwd").display()));
    has(&out, "1 item on another filesystem with another owner left alone (config/certs)");
}

#[test]
fn n_a_configuration_with_errors_is_left_to_the_broker() {
    let volume = Volume::with_conf("listener 1883\nno_such_option true\n");
    let (_, out) = volume.repair(&[]);
    assert!(volume.at("pwfile/pwfile").is_file(), "{out}");
    has(&std::fs::read_to_string(volume.at("config/mosquitto.conf")).expect("text"), "no_such_option");
}

#[test]
fn o_an_empty_configuration_is_told() {
    let volume = Volume::with_conf("");
    let (code, out) = volume.repair(&[]);
    assert_eq!(code, 1, "{out}");
    has(&out, "is empty: without a listener line only programs on this machine can connect");
}

#[test]
fn p_an_immutable_folder_is_told_and_does_not_stop_the_rest() {
    if without_root("chattr") {
        return;
    }
    let volume = Volume::with_conf("listener 1883\nlog_dest file {root}/log/mosquitto.log\n");
    std::fs::create_dir(volume.at("log")).expect("a folder");
    let log = volume.at("log");
    let chattr = |flag: &str| Command::new("chattr").arg(flag).arg(&log).output().is_ok_and(|output| output.status.success());
    if !chattr("+i") {
        return eprintln!("skipped: no chattr on this filesystem");
    }
    let (code, out) = volume.repair(&[]);
    assert!(chattr("-i"));
    assert_eq!(code, 1, "{out}");
    has(&out, "(log_dest file) is immutable, nothing can be written there: chattr -i it on the host");
    has(&out, "not permitted: owner of 1 item not changed (log)");
    assert!(volume.at("pwfile/pwfile").is_file());
}

#[test]
fn a_wrong_command_line_is_told_with_64() {
    let (code, _, err) = run(Command::new(darner()).args(["repair", "--owner", "somebody"]));
    assert_eq!(code, 64, "{err}");
    has(&err, "1883:1883");
}
