//! What the worker brought: judged, stored, put in use.

use super::{Certificates, report, worker};
use crate::acme::exchange::{self, Issued, KeyType, KnownAccount, Request};
use crate::acme::lineage::renewal_conf::{Facts, RenewalConf};
use crate::acme::lineage::{BeforeStep, Pair, account, durable};
use crate::acme::state::{Origin, Seconds};
use crate::logging::LogType;
use crate::supervisor::voice::Voice;
use crate::tls::leaf::Leaf;

fn judge(request: &Request, issued: &Issued, now: Seconds) -> Result<(Pair, Leaf), String> {
    let pair = worker::bring(&request.work_dir, issued)?;
    let leaf = pair.leaf()?;
    let missing = leaf.missing(&request.domains);
    if !missing.is_empty() {
        return Err(format!("it is not for {}", missing.join(", ")));
    }
    if leaf.not_after <= now {
        return Err("it has already expired: is the clock right?".into());
    }
    Ok((pair, leaf))
}

impl Certificates {
    /// Looks at what the worker brought, and stores it unless it was a rehearsal.
    ///
    /// Each step leaves what a later start can go on with: how it was obtained is known before it is in use, and what was brought stays
    /// until it is. `before`: as of [`crate::acme::lineage::Store::install`].
    pub(super) fn take(
        &mut self,
        request: &Request,
        issued: &Issued,
        now: Seconds,
        before: BeforeStep<'_>,
        voice: &Voice,
    ) -> Result<String, String> {
        // What is no good would be brought again and again.
        let (pair, leaf) = judge(request, issued, now).inspect_err(|_| worker::clear(request))?;
        // Once the clock is set this may be what is wanted.
        if leaf.not_before > now + 86_400 {
            return Err("it is not valid yet: is the clock right?".into());
        }
        let names = leaf.names.join(", ");
        if request.dry_run {
            worker::clear(request);
            return Ok(format!("The dry run for {names} succeeded: {} would have issued the certificate.", leaf.issuer));
        }
        let is_test = self.settings.as_ref().is_some_and(|settings| settings.is_test);
        self.keep_origin(request, &leaf, is_test, before).map_err(|error| format!("how it was obtained cannot be stored: {error}"))?;
        let version = self.store.install(&self.name, &pair, before).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidData {
                worker::clear(request);
            }
            format!("it cannot be stored: {error}")
        })?;
        // It is in use: what cannot be written from here on is said, and no failure.
        let crashed = |error: std::io::Error| error.to_string();
        before("record").map_err(crashed)?;
        if let Err(error) = self.record(request, issued, now) {
            let text = format!("Warning: {} cannot be written: {error}.", self.store.renewal_conf(&self.name).display());
            voice.say(LogType::Warning, &text);
        }
        before("state").map_err(crashed)?;
        self.state.installed(now, leaf.lifetime(), is_test);
        self.keep_state(voice);
        before("clear").map_err(crashed)?;
        worker::clear(request);
        let until = report::time(leaf.not_after);
        Ok(format!("Obtained a certificate for {names} from {}, valid until {until} (version {version}).", leaf.issuer))
    }

    fn keep_origin(&mut self, request: &Request, leaf: &Leaf, is_test: bool, before: BeforeStep<'_>) -> std::io::Result<()> {
        let mut names = request.domains.clone();
        names.sort();
        self.state.will_use(Origin { leaf: leaf.fingerprint(), directory: request.directory.clone(), is_test, names });
        before("origin")?;
        self.state.write(self.store.root(), &self.name)
    }

    /// The account that certbot registered at this CA.
    pub(super) fn account(&self, directory: &str) -> Option<KnownAccount> {
        let conf = RenewalConf::parse(&std::fs::read_to_string(self.store.renewal_conf(&self.name)).unwrap_or_default());
        let id = conf.get(Some("renewalparams"), "account").filter(|_| conf.server() == Some(directory))?;
        account::read(self.store.root(), directory, id).filter(|known| known.key.get("kty").is_some_and(|kind| kind == "RSA"))
    }

    /// The worker's own account in certbot's form, and what certbot calls it.
    fn hand_over(&self, request: &Request, uri: &str, now: Seconds) -> Option<String> {
        let folder = exchange::account_folder(&request.work_dir, &request.directory);
        let key = worker::read(&request.work_dir, &folder.join("key.der")).ok()?;
        account::write(self.store.root(), &request.directory, uri, &key, &report::time(now)).ok()
    }

    fn record(&self, request: &Request, issued: &Issued, now: Seconds) -> std::io::Result<()> {
        let path = self.store.renewal_conf(&self.name);
        let mut conf = RenewalConf::parse(&std::fs::read_to_string(&path).unwrap_or_default());
        let is_other_ca = conf.server().is_some_and(|server| server != request.directory);
        let before = if is_other_ca { None } else { conf.get(Some("renewalparams"), "account").map(str::to_owned) };
        let account = match &issued.account {
            Some(uri) if request.account.as_ref().is_none_or(|known| known.uri != *uri) => self.hand_over(request, uri, now).or(before),
            _ => before,
        };
        let key_type = match request.key_type {
            KeyType::P256 => ("ecdsa", Some("secp256r1")),
            KeyType::P384 => ("ecdsa", Some("secp384r1")),
            _ => ("rsa", None),
        };
        let facts = Facts { name: &self.name, root: self.store.root(), server: &request.directory, account: account.as_deref(), key_type };
        conf.record(&facts);
        durable::write(&path, conf.text().as_bytes(), 0o644)
    }
}

#[cfg(test)]
#[path = "take_tests.rs"]
mod tests;
