//! What the worker brought: judged, stored, put in use.

use super::{Certificates, report, worker};
use crate::acme::exchange::{Issued, KeyType, Request};
use crate::acme::lineage::renewal_conf::{Facts, RenewalConf};
use crate::acme::lineage::{Pair, durable};
use crate::acme::state::Seconds;
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
    pub(super) fn take(&mut self, request: &Request, issued: &Issued, now: Seconds) -> Result<String, String> {
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
        let version = self.store.install(&self.name, &pair, &mut |_| Ok(())).map_err(|error| {
            if error.kind() == std::io::ErrorKind::InvalidData {
                worker::clear(request);
            }
            format!("it cannot be stored: {error}")
        })?;
        self.record(request).map_err(|error| format!("how it was obtained cannot be stored: {error}"))?;
        worker::clear(request);
        self.state.installed(self.settings.as_ref().is_some_and(|settings| settings.is_test));
        let until = report::time(leaf.not_after);
        Ok(format!("Obtained a certificate for {names} from {}, valid until {until} (version {version}).", leaf.issuer))
    }

    fn record(&self, request: &Request) -> std::io::Result<()> {
        let path = self.store.renewal_conf(&self.name);
        let mut conf = RenewalConf::parse(&std::fs::read_to_string(&path).unwrap_or_default());
        let is_other_ca = conf.server().is_some_and(|server| server != request.directory);
        let account = if is_other_ca { None } else { conf.get(Some("renewalparams"), "account").map(str::to_owned) };
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
