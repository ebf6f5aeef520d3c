//! A power cut at each step between what the worker brought and its use.

use std::path::{Path, PathBuf};

use super::*;
use crate::acme::exchange::Mode;
use crate::acme::lineage::Store;
use crate::acme::settings::Settings;
use crate::acme::state::State;

const STAGING: &str = "https://acme-staging.test/directory";
const PRODUCTION: &str = "https://ca.test/directory";

struct Folder(PathBuf);

impl Folder {
    fn new(nth: usize) -> Self {
        let path = std::env::temp_dir().join(format!("darner-take-{}-{nth}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A pair with its chain, and its fingerprint.
fn pair() -> (Pair, String) {
    let above_key = rcgen::KeyPair::generate().expect("a key");
    let mut above = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    above.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let chain = above.self_signed(&above_key).expect("signed").pem();
    let issuer = rcgen::Issuer::new(above, above_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("parameters");
    let fullchain = params.signed_by(&key, &issuer).expect("signed").pem() + &chain;
    let pair = Pair { privkey: key.serialize_pem().into_bytes(), fullchain: fullchain.into_bytes() };
    let leaf = pair.leaf().expect("a pair").fingerprint();
    (pair, leaf)
}

/// PID 1 as it begins on this volume.
fn begin(root: &Path, directory: &str) -> Certificates {
    let mut certificates = Certificates::new();
    certificates.store = Store::new(root);
    certificates.name = "a.test".into();
    let rows = [("DOMAIN", "a.test"), ("EMAIL", "a@b.test"), ("ACME_DIRECTORY", directory)];
    let of = |name: &str| rows.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    certificates.settings = Settings::read(of).expect("right");
    certificates.store.open().expect("folders");
    certificates.store.mend("a.test").expect("mended");
    (certificates.state, _) = State::read(root, "a.test");
    certificates.state.turn_to(directory, "settings");
    certificates.look_at_held(&Voice::default());
    certificates
}

fn request(root: &Path, directory: &str) -> Request {
    let text =
        format!(r#"{{"lineage":"a.test","domains":["a.test"],"directory":"{directory}","work_dir":"{}"}}"#, root.join("work").display());
    let request: Request = serde_json::from_str(&text).expect("a request");
    assert_eq!(request.mode, Mode::Issue);
    request
}

/// As the worker leaves it.
fn brought(root: &Path, pair: &Pair) -> Issued {
    let folder = root.join("work/issued/a.test");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("privkey.pem"), &pair.privkey).expect("a file");
    std::fs::write(folder.join("fullchain.pem"), &pair.fullchain).expect("a file");
    Issued { privkey: folder.join("privkey.pem"), fullchain: folder.join("fullchain.pem"), chain: folder.join("chain.pem"), account: None }
}

/// What is held after this: its leaf, where it comes from, whether it is a test.
fn held(certificates: &Certificates) -> Option<(String, Option<String>, bool)> {
    certificates.held.as_ref().map(|held| (held.leaf.clone(), held.directory.clone(), held.is_test))
}

#[test]
fn a_crash_at_any_step_leaves_the_old_or_the_new_one_and_it_is_known_where_it_comes_from() {
    let now = 1_800_000_000;
    let mut nth = 0;
    loop {
        let folder = Folder::new(nth);
        let root = folder.0.as_path();
        let mut former = None;
        let mut crashed_at = Vec::new();
        // The first one ever is of a test server; a real one takes its place.
        for directory in [STAGING, PRODUCTION] {
            let (pair, leaf) = pair();
            let issued = brought(root, &pair);
            let new = Some((leaf, Some(directory.to_owned()), directory == STAGING));
            let mut certificates = begin(root, directory);
            let mut left = nth;
            let result = certificates.take(
                &request(root, directory),
                &issued,
                now,
                &mut |step| {
                    if left == 0 {
                        crashed_at.push(step.to_owned());
                        return Err(std::io::Error::other("a crash"));
                    }
                    left -= 1;
                    Ok(())
                },
                &Voice::default(),
            );
            let certificates = begin(root, directory);
            let found = held(&certificates);
            assert!(found == former || found == new, "{crashed_at:?}: {found:?}");
            if found == former {
                assert!(result.is_err() && issued.privkey.exists(), "it is brought again: {crashed_at:?}");
                let mut certificates = certificates;
                certificates.take(&request(root, directory), &issued, now, &mut |_| Ok(()), &Voice::default()).expect("taken");
                assert_eq!(held(&begin(root, directory)), new, "{crashed_at:?}");
            }
            former = new;
        }
        if crashed_at.is_empty() {
            break;
        }
        nth += 1;
    }
    assert!(nth >= 12, "{nth}");
}
