//! The account at one CA: its key is on the disk before the CA hears of it, so that a crash never loses an account.

use std::path::PathBuf;

use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, Response};
use instant_acme::{Account, Key, Problem};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, causes, fault, of_problem};
use super::http_client::Client;
use super::{jws, storage};
use crate::acme::exchange::{Request, Step, account_folder};

/// What of a directory is needed here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: String,
    new_account: String,
    #[serde(default)]
    pub(super) renewal_info: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Registered {
    id: String,
}

pub(super) struct Registration {
    pub(super) account: Account,
    pub(super) pkcs8: Vec<u8>,
}

fn folder(request: &Request) -> PathBuf {
    account_folder(&request.work_dir, &request.directory)
}

pub(super) async fn directory(client: &Client, request: &Request) -> Result<Directory, Fault> {
    let bad = |reason: String| {
        let last = client.last();
        let advice = if last.is_clock_error {
            "this machine's clock seems wrong: set it"
        } else if reason.contains("invalid peer certificate") {
            "somebody else may be answering in the CA's place; a CA of your own needs its root in ACME_CA_FILE"
        } else {
            "the CA is down or cannot be reached from here: look at the network, the name server and ACME_DIRECTORY"
        };
        // The same words at each try: seconds that pass are no news.
        let reason =
            if last.is_clock_error { "by this machine's clock its certificate is not valid yet, or no more".to_owned() } else { reason };
        let mut fault = fault(Step::Directory, format!("{}: {reason}. What to do: {advice}.", request.directory));
        fault.is_clock_error = last.is_clock_error;
        fault.counted = !last.is_clock_error;
        fault.status = last.status;
        fault.retry_after_secs = last.back_off();
        fault
    };
    let answer = client.send(Method::GET, &request.directory, &[], Vec::new()).await.map_err(|error| bad(causes(&*error)))?;
    if !answer.status().is_success() {
        return Err(bad(format!("it answered HTTP {}", answer.status())));
    }
    serde_json::from_slice(answer.body()).map_err(|error| bad(format!("this is no directory of an ACME server ({error})")))
}

/// Our account, registered where it is not yet.
pub(super) async fn open(client: &Client, request: &Request, directory: &Directory) -> Result<Registration, Fault> {
    if let Some(given) = client.given_account() {
        // What is signed with this is signed anew by the client.
        let (_, der) = Key::generate_pkcs8().map_err(|error| fault(Step::Account, causes(&error)))?;
        return registration(client, request, given.uri.clone(), der.secret_pkcs8_der().to_vec()).await;
    }
    let pkcs8 = key(request)?;
    let path = folder(request).join("account.json");
    let known = std::fs::read(&path).ok().and_then(|bytes| {
        let parsed = serde_json::from_slice::<Registered>(&bytes).ok();
        if parsed.is_none() {
            storage::set_aside(&path);
        }
        parsed
    });
    let id = match known {
        Some(known) => known.id,
        None => register(client, request, directory, &pkcs8).await?,
    };
    registration(client, request, id, pkcs8).await
}

async fn registration(client: &Client, request: &Request, id: String, pkcs8: Vec<u8>) -> Result<Registration, Fault> {
    let bad = |error: instant_acme::Error| fault(Step::Account, causes(&error));
    let builder = Account::builder_with_http(Box::new(client.clone()));
    let der = PrivatePkcs8KeyDer::from(pkcs8.as_slice());
    let account = builder.from_parts(id, der, request.directory.clone()).await.map_err(bad)?;
    Ok(Registration { account, pkcs8 })
}

/// The CA does not know the account (any more): the next [`open`] registers the same key again.
pub(super) fn forget(client: &Client, request: &Request) {
    if !client.forget_account() {
        forget_own(request);
    }
}

fn forget_own(request: &Request) {
    let _ = std::fs::remove_file(folder(request).join("account.json"));
}

fn key(request: &Request) -> Result<Vec<u8>, Fault> {
    let path = folder(request).join("key.der");
    if let Ok(bytes) = std::fs::read(&path) {
        if Key::from_pkcs8_der(PrivatePkcs8KeyDer::from(bytes.as_slice())).is_ok() {
            return Ok(bytes);
        }
        storage::set_aside(&path);
        forget_own(request);
    }
    let (_, der) = Key::generate_pkcs8().map_err(|error| fault(Step::Account, causes(&error)))?;
    let bytes = der.secret_pkcs8_der().to_vec();
    storage::write(&path, &bytes).map_err(|error| fault(Step::Storage, format!("{} cannot be written: {error}", path.display())))?;
    Ok(bytes)
}

async fn register(client: &Client, request: &Request, directory: &Directory, pkcs8: &[u8]) -> Result<String, Fault> {
    let address = &directory.new_account;
    let mut email = request.email.as_deref();
    loop {
        let payload = jws::new_account(pkcs8, email, request.eab.as_ref(), address).map_err(|reason| fault(Step::Account, reason))?;
        let answer = jws::post(client, pkcs8, None, &directory.new_nonce, address, Some(&payload)).await;
        let answer = answer.map_err(|reason| fault(Step::Account, reason))?;
        if answer.status().is_success() {
            let id = answer.headers().get(LOCATION).and_then(|id| id.to_str().ok()).map(str::to_owned);
            let id = id.ok_or_else(|| fault(Step::Account, "the CA gave the account no address"))?;
            let path = folder(request).join("account.json");
            let text = serde_json::json!({ "id": id }).to_string();
            storage::write(&path, text.as_bytes())
                .map_err(|error| fault(Step::Storage, format!("{} cannot be written: {error}", path.display())))?;
            return Ok(id);
        }
        let refusal = refusal(client, &answer);
        // An address that this CA dislikes is no reason to go without a certificate.
        if email.is_some() && matches!(refusal.problem.as_deref(), Some("invalidContact" | "unsupportedContact")) {
            email = None;
            continue;
        }
        return Err(refusal);
    }
}

fn refusal(client: &Client, answer: &Response<Bytes>) -> Fault {
    let last = client.last();
    let mut fault = match serde_json::from_slice::<Problem>(answer.body()) {
        Ok(problem) => of_problem(Step::Account, None, &problem),
        Err(_) => fault(Step::Account, format!("the CA answered HTTP {}", answer.status())),
    };
    fault.status = last.status;
    fault.retry_after_secs = last.back_off();
    fault
}
