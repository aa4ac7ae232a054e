//! Deleting a key for good: a person types its name first. Never deletes without it, whatever the browser sent.

use askama::Template;
use axum::{
    extract::Path,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use proto::keys::DeleteKeyRequest;
use time::OffsetDateTime;

use super::{DonePage, Next, get, get_living, receipt_timeout, view};
use crate::{
    filters::field,
    pages::{Shell, keys_view::KeyView, receipt_view::ReceiptView},
    problem::{Service, Stop, page},
    visit::Visit,
};

#[derive(Template)]
#[template(path = "key_delete.html")]
struct DeletePage {
    shell: Shell,
    key: KeyView,
    /// What was typed was not the key's name.
    is_wrong: bool,
}

/// `GET /keys/{key_id}/delete`
pub(crate) async fn confirm(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let (_, key) = get_living(&visit, &key_id).await?;
    Ok(page(&DeletePage { shell: visit.shell(), key, is_wrong: false }))
}

/// `POST /keys/{key_id}/delete`: the receipt. Sent twice it deletes once.
pub(crate) async fn submit(visit: Visit, Path(key_id): Path<String>, form: String) -> Result<Response, Stop> {
    let key = get(&visit, &key_id).await?;
    let now = OffsetDateTime::now_utc();
    if !is_name(&key.display_name, &field(&form, "confirm")) {
        let key = view(&visit, Some(&key), now)?;
        let asked = page(&DeletePage { shell: visit.shell(), key, is_wrong: true });
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, asked).into_response());
    }
    // With the etag, a key that got another name meanwhile stays.
    let request =
        visit.call(DeleteKeyRequest { name: key.name, etag: key.etag, receipt_timeout: receipt_timeout() });
    let deleted = visit.app.clients.keys.clone().delete_key(request).await;
    let deleted = deleted.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let key = view(&visit, deleted.key.as_ref(), now)?;
    Ok(page(&DonePage {
        shell: visit.shell(),
        what: "was deleted",
        start: key.start.clone(),
        receipt: Some(ReceiptView::new(deleted.receipt.as_ref(), now)),
        text: "Its past usage stays readable, and calls that still come with it are shown there.",
        next: Next::Usage,
        key,
    }))
}

/// Whether somebody typed a name. Browsers show white space as one space, so any does for any.
fn is_name(name: &str, typed: &str) -> bool {
    name.split_whitespace().eq(typed.split_whitespace())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Billing", "Billing", true)]
    #[case("Billing  run", " Billing run\n", true)]
    #[case("مفتاح الفواتير", "مفتاح الفواتير", true)]
    #[case("Billing", "billing", false)]
    #[case("Billing", "Billin", false)]
    #[case("Billing", "", false)]
    fn a_name_is_typed_as_it_is_read(#[case] name: &str, #[case] typed: &str, #[case] same: bool) {
        assert_eq!(is_name(name, typed), same);
    }
}
