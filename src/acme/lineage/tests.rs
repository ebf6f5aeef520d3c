//! The lineage on a real disk: certbot's layout, and a crash at every step.

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("darner-lineage-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn store(&self) -> Store {
        let store = Store::new(&self.0.join("letsencrypt"));
        store.open().expect("folders");
        store
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(super) fn pair(name: &str) -> Pair {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_cert = authority.self_signed(&authority_key).expect("signed");
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let cert = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters").signed_by(&key, &issuer).expect("signed");
    Pair { privkey: key.serialize_pem().into_bytes(), fullchain: format!("{}{}", cert.pem(), authority_cert.pem()).into_bytes() }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}

#[test]
fn the_layout_is_certbot_s() {
    let folder = Folder::new("layout");
    let store = folder.store();
    for (nth, name) in [(1, "one"), (2, "two")] {
        let new = pair(name);
        assert_eq!(store.install("a.test", &new, &mut |_| Ok(())).expect("installed"), nth);
        assert_eq!(store.current("a.test").expect("read").expect("there").leaf().expect("a pair").names, [name]);
    }
    let root = store.root();
    for (path, expected) in [
        ("", 0o755),
        ("accounts", 0o700),
        ("archive", 0o700),
        ("live", 0o700),
        ("renewal", 0o700),
        ("renewal-hooks/deploy", 0o755),
        ("live/a.test", 0o700),
        ("live/README", 0o644),
        ("live/a.test/README", 0o644),
        ("archive/a.test/privkey1.pem", 0o600),
        ("archive/a.test/privkey2.pem", 0o600),
        ("archive/a.test/fullchain2.pem", 0o644),
    ] {
        assert_eq!(mode(&root.join(path)), expected, "{path}");
    }
    for kind in KINDS {
        let target = root.join(format!("live/a.test/{kind}.pem")).read_link().expect("a link");
        assert_eq!(target, PathBuf::from(format!("../../archive/a.test/{kind}2.pem")));
    }
    let file = |kind: &str| std::fs::read(root.join(format!("live/a.test/{kind}.pem"))).expect("a file");
    assert_eq!([file("cert"), file("chain")].concat(), file("fullchain"));
}

#[test]
fn only_so_many_versions_are_kept() {
    let folder = Folder::new("versions");
    let store = folder.store();
    let pair = pair("a.test");
    for _ in 0..8 {
        store.install("a.test", &pair, &mut |_| Ok(())).expect("installed");
    }
    assert_eq!(store.versions("a.test"), [8, 7, 6, 5, 4]);
}

/// A crash before each step, on a first and on a second version: what is live afterwards is one whole pair, the old or the new.
#[test]
fn a_crash_at_any_step_leaves_one_whole_pair() {
    let folder = Folder::new("crash");
    let (old, new) = (pair("old"), pair("new"));
    let mut steps = 0;
    for crash_at in 0..100 {
        let store = Store::new(&folder.0.join(crash_at.to_string()));
        store.open().expect("folders");
        store.install("a.test", &old, &mut |_| Ok(())).expect("installed");
        let mut step = 0;
        let result = store.install("a.test", &new, &mut |_| {
            step += 1;
            if step > crash_at { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        });
        // As a write that was cut short leaves it.
        std::fs::write(store.archive("a.test").join("cert9.pem.darner-new"), b"half").expect("a file");
        store.mend("a.test").expect("mended");
        let live = store.current("a.test").expect("read").expect("there");
        assert!(live == old || live == new, "crash before step {crash_at}: a mixed pair");
        let linked = store.linked("a.test");
        assert!(linked.iter().all(|version| version.is_some() && *version == linked[0]), "{crash_at}: {linked:?}");
        // And the next renewal works.
        let newest = pair("newest");
        store.install("a.test", &newest, &mut |_| Ok(())).expect("installed");
        assert!(store.current("a.test").expect("read").expect("there") == newest);
        if result.is_ok() {
            steps = step;
            break;
        }
    }
    assert_eq!(steps, 10, "every step was crashed at");
}

#[test]
fn a_crash_in_the_first_version_leaves_none_or_a_whole_one() {
    let folder = Folder::new("first");
    for crash_at in 0..10 {
        let store = Store::new(&folder.0.join(crash_at.to_string()));
        store.open().expect("folders");
        let mut step = 0;
        let _ = store.install("a.test", &pair("a.test"), &mut |_| {
            step += 1;
            if step > crash_at { Err(io::ErrorKind::Other.into()) } else { Ok(()) }
        });
        store.mend("a.test").expect("mended");
        if let Ok(Some(live)) = store.current("a.test") {
            assert!(live.leaf().is_ok(), "{crash_at}");
        }
        store.install("a.test", &pair("a.test"), &mut |_| Ok(())).expect("installed");
        assert!(store.current("a.test").expect("read").expect("there").leaf().is_ok());
    }
}

#[test]
fn a_damaged_version_is_moved_aside_and_the_last_good_one_serves() {
    let folder = Folder::new("damaged");
    let store = folder.store();
    let old = pair("old");
    store.install("a.test", &old, &mut |_| Ok(())).expect("installed");
    store.install("a.test", &pair("new"), &mut |_| Ok(())).expect("installed");
    std::fs::write(store.file("a.test", "privkey", 2), pair("other").privkey).expect("a key of another certificate");
    let said = store.mend("a.test").expect("mended");
    assert_eq!(said.len(), 5, "{said:?}");
    assert!(store.current("a.test").expect("read").expect("there") == old);
    assert!(store.archive("a.test").join("privkey2.pem.broken").exists());
    assert_eq!(store.mend("a.test").expect("mended"), Vec::<String>::new());
}

#[test]
fn what_is_not_a_lineage_is_left_alone() {
    let folder = Folder::new("foreign");
    let store = folder.store();
    let own = pair("own");
    std::fs::create_dir(store.live("own.test")).expect("a folder");
    std::fs::write(store.live("own.test").join("privkey.pem"), &own.privkey).expect("a file");
    std::fs::write(store.live("own.test").join("fullchain.pem"), b"damaged").expect("a file");
    assert_eq!(store.mend("own.test").expect("nothing to do"), Vec::<String>::new());
    assert_eq!(std::fs::read(store.live("own.test").join("fullchain.pem")).expect("still there"), b"damaged");
    assert!(store.current("missing").expect("read").is_none());
    assert!(Store::new(Path::new("/proc/nowhere")).probe().is_err());
}

#[test]
fn the_group_that_a_key_was_shared_with_keeps_it_and_others_never_get_it() {
    let folder = Folder::new("group");
    let store = folder.store();
    store.install("a.test", &pair("a"), &mut |_| Ok(())).expect("installed");
    let key = store.file("a.test", "privkey", 1);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("shared");
    store.install("a.test", &pair("b"), &mut |_| Ok(())).expect("installed");
    assert_eq!(mode(&store.file("a.test", "privkey", 2)), 0o640);
}

#[test]
fn a_lineage_is_called_after_the_first_domain_or_certbot_s_number() {
    let folder = Folder::new("names");
    let store = folder.store();
    assert_eq!(store.name_for("*.A.test"), "a.test");
    for name in ["a.test-0001", "a.test-0002", "a.test-x"] {
        std::fs::create_dir(store.live(name)).expect("a folder");
    }
    assert_eq!(store.name_for("a.test"), "a.test-0002");
    std::fs::create_dir(store.live("a.test")).expect("a folder");
    assert_eq!(store.name_for("a.test"), "a.test");
}

#[test]
fn a_chain_without_its_issuer_is_refused() {
    let folder = Folder::new("alone");
    let mut alone = pair("a.test");
    let length = alone.split().expect("a chain").0.len();
    alone.fullchain.truncate(length);
    assert!(folder.store().install("a.test", &alone, &mut |_| Ok(())).is_err());
}
