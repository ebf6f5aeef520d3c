//! One order, from its making to its certificate. It and its key are on the disk first, so that the next attempt goes on with it.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{
    AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};
use serde::{Deserialize, Serialize};

use super::account::{self, Directory, Registration};
use super::fault::{Fault, causes, fault, kind, of_problem};
use super::{Attempt, certificate_key, dns_01, jws, say, storage, tls_alpn_01};
use crate::acme::exchange::{Challenge, Issued, KeyType, Level, Report, Step};
use crate::tls::leaf::Leaf;

/// Tries of one call when the CA refuses its nonce; instant-acme makes three of each.
const NONCES_MAX: u32 = 12;
const POLLING: RetryPolicy = RetryPolicy::new().initial_delay(Duration::from_millis(250)).backoff(1.5).timeout(Duration::from_secs(120));

/// What is known of an order that is under way.
#[derive(Serialize, Deserialize)]
struct Pending {
    url: String,
    directory: String,
    domains: Vec<String>,
    key_type: KeyType,
    #[serde(default)]
    account: Option<String>,
}

macro_rules! with_nonces {
    ($call:expr) => {{
        let mut tries = NONCES_MAX;
        loop {
            tries -= 1;
            match $call.await {
                Err(Error::Api(problem)) if kind(&problem) == "badNonce" && tries > 0 => {}
                result => break result,
            }
        }
    }};
}

impl Attempt {
    fn place(&self, what: &str) -> PathBuf {
        let end = if self.request.dry_run { ".dry-run" } else { "" };
        self.request.work_dir.join(what).join(format!("{}{end}", self.request.lineage))
    }

    fn domains(&self) -> Vec<String> {
        let mut domains = self.request.domains.clone();
        domains.sort();
        domains.dedup();
        domains
    }

    pub(super) fn wrong(&self, step: Step, error: &Error) -> Fault {
        let last = self.client.last();
        let mut fault = match error {
            Error::Api(problem) => of_problem(step, None, problem),
            Error::Other(reason) => fault(step, format!("{}. What to do: nothing; the order goes on at the next try", causes(&**reason))),
            other => fault(step, format!("the CA's answer cannot be used: {}", causes(other))),
        };
        fault.retry_after_secs = last.back_off();
        fault.status = fault.status.or(last.status);
        fault.is_clock_error = last.is_clock_error;
        fault.counted = !last.is_clock_error;
        fault
    }

    /// What an earlier worker got and PID 1 has not seen.
    pub(super) fn waiting(&self) -> Option<Issued> {
        let folder = self.place("issued");
        let pending: Pending = serde_json::from_slice(&std::fs::read(folder.join("order.json")).ok()?).ok()?;
        let issued = Issued { account: pending.account.clone(), ..self.issued() };
        let whole = issued.privkey.exists() && issued.fullchain.exists() && issued.chain.exists();
        if whole && self.is_in_use(&issued) {
            let _ = std::fs::remove_dir_all(folder);
            return None;
        }
        (whole && self.is_same(&pending)).then_some(issued)
    }

    /// A crash came between its use and its removal.
    fn is_in_use(&self, issued: &Issued) -> bool {
        let leaf = std::fs::read(&issued.fullchain).ok().and_then(|pem| Leaf::of_chain(&pem).ok());
        leaf.is_some_and(|leaf| self.request.held.as_ref() == Some(&leaf.fingerprint()))
    }

    fn issued(&self) -> Issued {
        let folder = self.place("issued");
        Issued {
            privkey: folder.join("privkey.pem"),
            fullchain: folder.join("fullchain.pem"),
            chain: folder.join("chain.pem"),
            account: None,
        }
    }

    fn is_same(&self, pending: &Pending) -> bool {
        pending.directory == self.request.directory && pending.domains == self.domains() && pending.key_type == self.request.key_type
    }

    fn drop_pending(&self) {
        let _ = std::fs::remove_dir_all(self.place("pending"));
    }

    pub(super) async fn issue(&self, directory: &Directory) -> Result<Issued, Fault> {
        let mut registration = account::open(&self.client, &self.request, directory).await?;
        let (mut order, key) = match self.begin(&registration, directory).await {
            Err(fault) if fault.problem.as_deref() == Some("accountDoesNotExist") => {
                say_warning("The CA does not know our account any more; its key is registered again.");
                account::forget(&self.client, &self.request);
                self.drop_pending();
                registration = account::open(&self.client, &self.request, directory).await?;
                self.begin(&registration, directory).await?
            }
            result => result?,
        };
        let result = self.finish(&mut order, &key, &registration, directory).await;
        if order.state().status == OrderStatus::Invalid {
            self.drop_pending();
        }
        result
    }

    /// The order that is under way, or a new one.
    async fn begin(&self, registration: &Registration, directory: &Directory) -> Result<(Order, String), Fault> {
        let folder = self.place("pending");
        let pending = std::fs::read(folder.join("order.json")).ok().and_then(|bytes| serde_json::from_slice::<Pending>(&bytes).ok());
        let key =
            std::fs::read_to_string(folder.join("privkey.pem")).ok().filter(|key| certificate_key::request(key, &self.domains()).is_ok());
        if let (Some(pending), Some(key)) = (pending.filter(|pending| self.is_same(pending)), key) {
            match with_nonces!(registration.account.order(pending.url.clone())) {
                Ok(mut order) => {
                    if order.state().status != OrderStatus::Invalid {
                        return Ok((order, key));
                    }
                }
                Err(Error::Api(problem))
                    if kind(&problem) != "accountDoesNotExist" && problem.status.is_some_and(|status| status < 429) => {}
                Err(error) => return Err(self.wrong(Step::Order, &error)),
            }
        }
        self.drop_pending();
        if self.request.challenge == Challenge::Http01 {
            self.check_ourselves().await?;
        }
        let key = certificate_key::generate(self.request.key_type).map_err(|reason| fault(Step::Request, reason))?;
        write(&folder.join("privkey.pem"), key.as_bytes())?;
        let order = self.ask(registration, directory).await?;
        let pending = Pending {
            url: order.url().to_owned(),
            directory: self.request.directory.clone(),
            domains: self.domains(),
            key_type: self.request.key_type,
            account: Some(registration.account.id().to_owned()),
        };
        let text = serde_json::to_vec(&pending).map_err(|error| fault(Step::Storage, error.to_string()))?;
        write(&folder.join("order.json"), &text)?;
        say(&Report::Ordered { url: pending.url });
        Ok((order, key))
    }

    async fn ask(&self, registration: &Registration, directory: &Directory) -> Result<Order, Fault> {
        let identifiers: Vec<_> =
            self.domains().into_iter().map(|name| name.parse().map_or(Identifier::Dns(name), Identifier::Ip)).collect();
        let mut wanted = NewOrder::new(&identifiers);
        if let Some(profile) = &self.request.profile {
            wanted = wanted.profile(profile);
        }
        let replaces = self.request.replaces.as_deref().filter(|_| directory.renewal_info.is_some()).and_then(|id| id.split_once('.'));
        if let Some((authority, serial)) = replaces {
            let id = CertificateIdentifier { authority_key_identifier: authority.into(), serial: serial.into() };
            let mut with = NewOrder::new(&identifiers).replaces(id);
            if let Some(profile) = &self.request.profile {
                with = with.profile(profile);
            }
            match with_nonces!(registration.account.new_order(&with)) {
                Err(Error::Api(problem)) if kind(&problem) != "rateLimited" && kind(&problem) != "accountDoesNotExist" => {
                    say_warning("The CA refuses to count this as a replacement of the certificate; it is asked for a new one.");
                }
                result => return result.map_err(|error| self.wrong(Step::Order, &error)),
            }
        }
        with_nonces!(registration.account.new_order(&wanted)).map_err(|error| self.wrong(Step::Order, &error))
    }

    async fn finish(&self, order: &mut Order, key: &str, registration: &Registration, directory: &Directory) -> Result<Issued, Fault> {
        if order.state().status == OrderStatus::Pending {
            let result = self.prove(order).await;
            self.tidy().await;
            result?;
        }
        if order.state().status == OrderStatus::Ready {
            let request = certificate_key::request(key, &self.domains()).map_err(|reason| fault(Step::Finalize, reason))?;
            with_nonces!(order.finalize_csr(&request)).map_err(|error| self.wrong(Step::Finalize, &error))?;
        }
        let chain = with_nonces!(order.poll_certificate(&POLLING)).map_err(|error| self.wrong(Step::Certificate, &error))?;
        let chain = self.preferred(chain, registration, directory).await;
        self.keep(&chain, key)
    }

    fn keep(&self, fullchain: &str, key: &str) -> Result<Issued, Fault> {
        const END: &str = "-----END CERTIFICATE-----";
        let at = fullchain.find(END).map(|at| at + END.len());
        let chain =
            at.and_then(|at| fullchain.get(at..)).ok_or_else(|| fault(Step::Certificate, "the CA's answer holds no certificate"))?;
        let order = std::fs::read(self.place("pending").join("order.json")).unwrap_or_default();
        let account = serde_json::from_slice::<Pending>(&order).ok().and_then(|pending| pending.account);
        let issued = Issued { account, ..self.issued() };
        write(&issued.privkey, key.as_bytes())?;
        write(&issued.fullchain, fullchain.as_bytes())?;
        write(&issued.chain, chain.trim_start().as_bytes())?;
        write(&self.place("issued").join("order.json"), &order)?;
        self.drop_pending();
        Ok(issued)
    }

    /// Makes the CA check every name that it has not checked.
    async fn prove(&self, order: &mut Order) -> Result<(), Fault> {
        let wanted = match self.request.challenge {
            Challenge::Http01 => ChallengeType::Http01,
            Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Challenge::Dns01 => ChallengeType::Dns01,
        };
        fetch(order).await;
        let mut authorizations = order.authorizations();
        while let Some(result) = authorizations.next().await {
            let mut authorization = result.map_err(|error| self.wrong(Step::Challenge, &error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = authorization.identifier().to_string();
            let Some(mut challenge) = authorization.challenge(wanted.clone()) else {
                return Err(fault(Step::Challenge, format!("{name}: the CA offers no {wanted:?} for it. Wildcards need dns-01.")));
            };
            let answer = match self.client.given_account() {
                Some(given) => format!("{}.{}", challenge.token, given.thumbprint),
                None => challenge.key_authorization().as_str().to_owned(),
            };
            let shown = self.show(&name, &challenge.token, &answer).await;
            shown.map_err(|reason| fault(Step::Challenge, format!("{name}: {reason}")))?;
            with_nonces!(challenge.set_ready()).map_err(|error| self.wrong(Step::Challenge, &error))?;
        }
        match with_nonces!(order.poll_ready(&POLLING)) {
            Ok(OrderStatus::Ready) => Ok(()),
            Ok(_) => {
                Err(self.reason(order).await.unwrap_or_else(|| fault(Step::Challenge, "the CA found the order invalid and says not why")))
            }
            Err(error) => match self.reason(order).await {
                Some(fault) => Err(fault),
                None => Err(self.wrong(Step::Challenge, &error)),
            },
        }
    }

    /// Puts what proves a name where the CA will look for it.
    async fn show(&self, name: &str, token: &str, answer: &str) -> Result<(), String> {
        let digest = ring::digest::digest(&ring::digest::SHA256, answer.as_bytes());
        match (self.request.challenge, &self.request.dns_hook) {
            (Challenge::Dns01, Some(hook)) => {
                let record = dns_01::Record { domain: name.trim_start_matches("*.").to_owned(), value: URL_SAFE_NO_PAD.encode(digest) };
                {
                    let mut traces = self.traces();
                    traces.records.push(record.clone());
                    traces.waits_for = Some("the DNS hook");
                }
                dns_01::run(hook, "add", &record).await?;
                self.traces().waits_for = None;
            }
            (Challenge::TlsAlpn01, _) => {
                let file = tls_alpn_01::show(&self.request, name, digest.as_ref())?;
                self.traces().files.push(file);
            }
            _ => self.offer(token, answer),
        }
        Ok(())
    }

    /// Why the names were not accepted: the challenges know, also where the order does not say.
    async fn reason(&self, order: &mut Order) -> Option<Fault> {
        let mut found: Option<Fault> = None;
        let mut authorizations = order.authorizations();
        while let Some(Ok(mut authorization)) = authorizations.next().await {
            if with_nonces!(authorization.refresh()).is_err() {
                continue;
            }
            let name = authorization.identifier().to_string();
            for problem in authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
                let one = of_problem(Step::Challenge, Some(&name), problem);
                match &mut found {
                    None => found = Some(one),
                    Some(all) => {
                        all.text = format!("{} {}", all.text, one.text);
                        all.identifiers.extend(one.identifiers);
                    }
                }
            }
        }
        found
    }

    /// The chain whose topmost issuer is the one that was asked for, if the CA offers it.
    async fn preferred(&self, first: String, registration: &Registration, directory: &Directory) -> String {
        let Some(wanted) = &self.request.preferred_chain else { return first };
        let alternates = self.client.last().alternates;
        if is_issued_by(&first, wanted) {
            return first;
        }
        for address in alternates {
            let answer =
                jws::post(&self.client, &registration.pkcs8, Some(registration.account.id()), &directory.new_nonce, &address, None).await;
            let Ok(answer) = answer else { continue };
            match String::from_utf8(answer.body().to_vec()) {
                Ok(chain) if answer.status().is_success() && is_issued_by(&chain, wanted) => return chain,
                _ => {}
            }
        }
        say_warning(&format!("The CA offers no chain up to \"{wanted}\"; its default one is used."));
        first
    }
}

/// Reads every authorization once: one whose nonce was refused is passed over by instant-acme, so that all are looked at again.
async fn fetch(order: &mut Order) {
    for _ in 0..NONCES_MAX {
        let mut refused = false;
        let mut authorizations = order.authorizations();
        while let Some(result) = authorizations.next().await {
            refused |= matches!(result, Err(Error::Api(problem)) if kind(&problem) == "badNonce");
        }
        if !refused {
            return;
        }
    }
}

/// Whether the last certificate of a chain was signed by the one with this common name.
fn is_issued_by(chain: &str, wanted: &str) -> bool {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use x509_parser::prelude::FromDer as _;
    let last = CertificateDer::pem_slice_iter(chain.as_bytes()).filter_map(Result::ok).last();
    last.is_some_and(|last| {
        let Ok((_, last)) = x509_parser::certificate::X509Certificate::from_der(&last) else { return false };
        last.issuer().iter_common_name().any(|name| name.as_str() == Ok(wanted))
    })
}

fn write(path: &std::path::Path, bytes: &[u8]) -> Result<(), Fault> {
    storage::write(path, bytes).map_err(|error| fault(Step::Storage, format!("{} cannot be written: {error}", path.display())))
}

fn say_warning(text: &str) {
    say(&Report::Event { level: Level::Warning, text: text.to_owned() });
}
