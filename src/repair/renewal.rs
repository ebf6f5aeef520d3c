//! Certificates that we made ourselves, made anew before they end: by the same authority and for the same key, so that one file changes
//! and clients go on as they are. What anybody else made is never touched.

use std::net::IpAddr;

use super::apply::{Repair, absolute};
use super::certificates::{CERTIFICATE_MODE, SERVER_DAYS, TlsFiles, asked_names, names, now};
use super::{Named, Report, Request};
use crate::os::beneath::NewFile;
use crate::tls::leaf::{self, Leaf};
use crate::tls::self_made::{self, AUTHORITY, Pem, Period};

/// A certificate that is no better than the one that is there does not take its place.
const GAIN: i64 = 86_400;

/// Looks only at the certificates that we made, and renews those that are due.
pub fn renew(request: &Request, named: &Named) -> Report {
    let mut repair = Repair::new(request);
    for files in &named.tls {
        repair.renew(files);
    }
    repair.report()
}

/// Whether a certificate is one of ours that is to be renewed by now.
pub fn is_due(leaf: &Leaf) -> bool {
    leaf.issuer == AUTHORITY && self_made::is_due(leaf, now())
}

impl Repair<'_> {
    pub(super) fn renew(&mut self, files: &TlsFiles) {
        let (Ok(chain), Ok(key)) = (self.read(&files.certfile), self.read(&files.keyfile)) else { return };
        let Some((leaf, key)) = leaf::pair(&chain, &key).ok().zip(String::from_utf8(key).ok()) else { return };
        if leaf.issuer != AUTHORITY || leaf.others > 0 {
            return;
        }
        let Some(authority) = self.own_authority(files).filter(|authority| self_made::has_signed(authority, &leaf)) else {
            if self_made::is_due(&leaf, now()) {
                self.say(format!(
                    "listener {}: the SELF-MADE certificate '{}' ends soon, and without '{}' it cannot be renewed: take all files of the listener \
                     away to get new ones, and give its clients the new authority",
                    files.port,
                    files.certfile.display(),
                    files.authority_key().display()
                ));
            }
            return;
        };
        let asked = as_in_certificates(asked_names(files.host.as_deref()));
        let lacks = leaf.missing(&asked).len();
        if lacks == 0 && !self_made::is_due(&leaf, now()) {
            return;
        }
        self.put_anew(files, &leaf, lacks, (&authority, &key));
    }

    fn put_anew(&mut self, files: &TlsFiles, old: &Leaf, lacks: usize, (authority, key): (&Pem, &str)) {
        let (port, shown) = (files.port, files.certfile.display());
        let names = names(files.host.as_deref());
        let made = match self_made::server_of(&names, Period::around(now(), SERVER_DAYS), authority, key) {
            Ok(made) => made,
            Err(error) => return self.say(format!("listener {port}: {error}")),
        };
        let Ok(new) = Leaf::of_chain(made.certificate.as_bytes()) else { return };
        let gains_names = new.missing(&as_in_certificates(asked_names(files.host.as_deref()))).len() < lacks;
        let gains_time = self_made::is_due(old, now()) && (new.not_after > old.not_after + GAIN || new.not_before < old.not_before);
        if !gains_names && !gains_time {
            return;
        }
        let file = NewFile { bytes: made.certificate.as_bytes(), mode: CERTIFICATE_MODE, mtime: None, owner: self.request.owner };
        let replaced = if self.request.dry_run { Ok(true) } else { self.replace_file(&absolute(&files.certfile), &file) };
        match replaced {
            Ok(true) => self.did(format!(
                "renewed '{shown}' of listener {port}: self-made for {}, by the same authority as before, good for {SERVER_DAYS} days",
                names.join(", ")
            )),
            Ok(false) => {}
            Err(error) => self.say(format!("listener {port}: the SELF-MADE certificate '{shown}' cannot be renewed: {error}")),
        }
    }
}

/// Names as certificates write them.
fn as_in_certificates(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| name.parse::<IpAddr>().map_or_else(|_| name.to_ascii_lowercase(), |address| address.to_string())).collect()
}
