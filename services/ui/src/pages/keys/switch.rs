//! Switching a key off with a receipt, and on again. Asks first; changes nothing else of the key.

use askama::Template;
use axum::{extract::Path, response::Response};
use proto::keys::{DisableKeyRequest, EnableKeyRequest};
use time::OffsetDateTime;

use super::{DonePage, Next, get_living, name_of, receipt_timeout, view};
use crate::{
    pages::{Shell, keys_view::KeyView, receipt_view::ReceiptView},
    problem::{Service, Stop, page},
    visit::Visit,
};

#[derive(Template)]
#[template(path = "key_switch.html")]
struct SwitchPage {
    shell: Shell,
    key: KeyView,
    is_on: bool,
}

/// `GET /keys/{key_id}/disable`
pub(crate) async fn confirm_disable(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let (_, key) = get_living(&visit, &key_id).await?;
    Ok(page(&SwitchPage { shell: visit.shell(), key, is_on: true }))
}

/// `GET /keys/{key_id}/enable`
pub(crate) async fn confirm_enable(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let (_, key) = get_living(&visit, &key_id).await?;
    Ok(page(&SwitchPage { shell: visit.shell(), key, is_on: false }))
}

/// `POST /keys/{key_id}/disable`: the receipt. Sent twice it changes once.
pub(crate) async fn disable(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let request = visit.call(DisableKeyRequest {
        name: name_of(&visit, &key_id)?,
        receipt_timeout: receipt_timeout(),
        ..DisableKeyRequest::default()
    });
    let disabled = visit.app.clients.keys.clone().disable_key(request).await;
    let disabled = disabled.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let now = OffsetDateTime::now_utc();
    let key = view(&visit, disabled.key.as_ref(), now)?;
    Ok(page(&DonePage {
        shell: visit.shell(),
        what: "is switched off",
        start: key.start.clone(),
        receipt: Some(ReceiptView::new(disabled.receipt.as_ref(), now)),
        text: "Calls with it are refused until it is enabled again. Its secrets and its past usage stay.",
        next: Next::Usage,
        key,
    }))
}

/// `POST /keys/{key_id}/enable`
pub(crate) async fn enable(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let name = name_of(&visit, &key_id)?;
    let request = visit.call(EnableKeyRequest { name, ..EnableKeyRequest::default() });
    let enabled = visit.app.clients.keys.clone().enable_key(request).await;
    let enabled = enabled.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let key = view(&visit, enabled.key.as_ref(), OffsetDateTime::now_utc())?;
    Ok(page(&DonePage {
        shell: visit.shell(),
        what: "is switched on",
        start: key.start.clone(),
        receipt: None,
        text: "Edges take calls with it again as soon as they hear of it, usually well under a second.",
        next: Next::Usage,
        key,
    }))
}
