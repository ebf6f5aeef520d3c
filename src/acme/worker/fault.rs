//! What went wrong, in words that say what to do.

use crate::acme::exchange::{Failure, Step};

/// Boxed: it is large, and rare.
pub(super) type Fault = Box<Failure>;

/// What to do about the CA's problem types (RFC 8555 6.7).
const ADVICE: &[(&str, &str)] = &[
    ("dns", "the CA finds no address for the name: make its DNS record point here"),
    (
        "connection",
        "the CA cannot connect: the name's A and AAAA records must lead to this machine, and the challenge's port must be open to everyone",
    ),
    ("unauthorized", "another server answered the CA, or none: look where the name's A and AAAA records and the challenge's port lead"),
    (
        "incorrectResponse",
        "another server answered the CA, or none: look where the name's A and AAAA records and the challenge's port lead",
    ),
    ("caa", "a CAA record of the domain forbids this CA: add it there, or choose another CA"),
    ("rejectedIdentifier", "this CA gives no certificate for that name: take the name out, or choose another CA"),
    ("unsupportedIdentifier", "this CA gives no certificate for such a name"),
    ("externalAccountRequired", "this CA wants external account binding: set the key id and HMAC that it gave you"),
    ("rateLimited", "the CA's rate limit is reached: wait; nothing is gained by restarting"),
    ("serverInternal", "nothing; the trouble is the CA's own, and the order goes on at the next try"),
    ("userActionRequired", "the CA waits for you: visit the address in its answer"),
];

pub(super) fn fault(step: Step, text: impl Into<String>) -> Fault {
    Box::new(Failure {
        step,
        problem: None,
        status: None,
        text: text.into(),
        retry_after_secs: None,
        identifiers: Vec::new(),
        is_clock_error: false,
        counted: !matches!(step, Step::Request | Step::Storage),
    })
}

/// The type of a problem without its URN.
pub(super) fn kind(problem: &instant_acme::Problem) -> &str {
    problem.r#type.as_deref().map(|urn| urn.rsplit(':').next().unwrap_or(urn)).unwrap_or_default()
}

pub(super) fn of_problem(step: Step, name: Option<&str>, problem: &instant_acme::Problem) -> Fault {
    let kind = kind(problem);
    let detail = problem.detail.as_deref().unwrap_or("no reason was given");
    let mut identifiers: Vec<String> = name.map(str::to_owned).into_iter().collect();
    let mut details = vec![detail.to_owned()];
    for part in &problem.subproblems {
        identifiers.extend(part.identifier.as_ref().map(|identifier| identifier.authorized(false).to_string()));
        details.extend(part.detail.clone());
    }
    let about = if identifiers.is_empty() { String::new() } else { format!("{}: ", identifiers.join(", ")) };
    let advice = ADVICE.iter().find(|(known, _)| *known == kind).map(|(_, advice)| format!(". What to do: {advice}")).unwrap_or_default();
    let text = format!("{about}{} ({kind}){advice}.", details.join("; ").replace(['\n', '\r'], " "));
    Box::new(Failure { problem: Some(kind.to_owned()), status: problem.status, identifiers, ..*fault(step, text) })
}

/// All causes of an error, outermost first.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text.replace(['\n', '\r'], " ")
}
