//! When the CA wants a certificate renewed (RFC 9773).

use http::Method;
use serde::Deserialize;

use super::Attempt;
use super::account;
use super::fault::{Fault, causes, fault};
use crate::acme::exchange::{RenewalInfo, Step, Window};

const HOURS_6: u64 = 6 * 3600;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    suggested_window: SuggestedWindow,
    #[serde(rename = "explanationURL", default)]
    explanation_url: Option<String>,
}

#[derive(Deserialize)]
struct SuggestedWindow {
    start: jiff::Timestamp,
    end: jiff::Timestamp,
}

impl Attempt {
    pub(super) async fn renewal_info(&self) -> Result<RenewalInfo, Fault> {
        let none = RenewalInfo { window: None, retry_after_secs: HOURS_6, explanation_url: None };
        let directory = account::directory(&self.client, &self.request).await?;
        let (Some(address), Some(id)) = (directory.renewal_info, &self.request.replaces) else { return Ok(none) };
        let address = format!("{}/{id}", address.trim_end_matches('/'));
        let answer = self.client.send(Method::GET, &address, &[], Vec::new()).await;
        let answer = answer.map_err(|error| fault(Step::RenewalInfo, causes(&*error)))?;
        let retry_after_secs = self.client.last().retry_after_secs.map_or(HOURS_6, |seconds| seconds.clamp(60, 86400));
        if answer.status().is_server_error() || answer.status().as_u16() == 429 {
            let mut fault = fault(Step::RenewalInfo, format!("{address} answered HTTP {}", answer.status()));
            fault.status = Some(answer.status().as_u16());
            fault.retry_after_secs = self.client.last().retry_after_secs;
            return Err(fault);
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(answer.body()) else { return Ok(none) };
        let window = Window { start: answer.suggested_window.start.as_second(), end: answer.suggested_window.end.as_second() };
        let window = (window.start < window.end).then_some(window);
        Ok(RenewalInfo { window, retry_after_secs, explanation_url: answer.explanation_url })
    }
}
