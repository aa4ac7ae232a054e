//! What a browser brought back from the provider, as it comes over the wire.

use http::Uri;
use proto::keys::ProviderAnswer;

use super::sessions::given;
use crate::{
    error::Error,
    oidc::{Answer, FLOW_BYTES_MAX},
};

const ADDRESS_BYTES_MAX: usize = 2_048;
const STATE_BYTES_MAX: usize = 512;
const CODE_BYTES_MAX: usize = 4_096;
const ERROR_BYTES_MAX: usize = 512;

/// Checks where the provider is to send the browser back. Whether it may, only the provider knows.
pub(super) fn redirect_uri(field: &'static str, text: &str) -> Result<(), Error> {
    let uri: Option<Uri> = text.parse().ok();
    let web =
        uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if web && text.len() <= ADDRESS_BYTES_MAX && !text.contains('#') {
        Ok(())
    } else {
        Err(Error::invalid(field, "must be an http or https address of at most 2,048 bytes without #"))
    }
}

/// The answer, with fields that are no longer than anything that can be good.
pub(super) fn answer(told: Option<ProviderAnswer>) -> Result<Answer, Error> {
    let told = told.ok_or_else(|| Error::invalid("answer", "must be given"))?;
    for (field, text, bytes_max) in [
        ("answer.flow", &told.flow, FLOW_BYTES_MAX),
        ("answer.state", &told.state, STATE_BYTES_MAX),
        ("answer.code", &told.code, CODE_BYTES_MAX),
        ("answer.error", &told.error, ERROR_BYTES_MAX),
    ] {
        if text.len() > bytes_max {
            return Err(Error::invalid(field, format!("must have at most {bytes_max} bytes")));
        }
    }
    given("answer.flow", &told.flow)?;
    given("answer.state", &told.state)?;
    redirect_uri("answer.redirect_uri", &told.redirect_uri)?;
    Ok(Answer {
        flow: told.flow.into(),
        state: told.state,
        code: told.code.into(),
        error: told.error,
        redirect_uri: told.redirect_uri,
    })
}
