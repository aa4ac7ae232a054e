//! The secrets of a key, which of them its calls come with, and the end of an overlap. Never shows a secret.

use askama::Template;
use axum::{
    extract::{Path, RawQuery},
    response::{IntoResponse as _, Redirect, Response},
};
use proto::{
    keys::{Key, RetireSecretRequest, Secret},
    timestamp::{from_proto, to_proto},
    usage::{Breakdown, Dimension, UsageFilter},
};
use time::OffsetDateTime;
use tonic::Status;

use super::{
    DonePage, Next, get, get_living, receipt_timeout, secret_of,
    split::{Known, Split},
    view,
};
use crate::{
    filters::field,
    format::{Moment, Show},
    pages::{Shell, keys_view::KeyView, receipt_view::ReceiptView, usage::get_breakdown},
    problem::{Problem, Service, Stop, page},
    visit::Visit,
};

/// Rows of the split; a key has a few secrets only.
const SPLIT_ROWS: i32 = 50;
/// Periods of the split: name, label, hours; the first is the default.
static PERIODS: [(&str, &str, i64); 2] = [("1h", "Last hour", 1), ("24h", "Last 24 hours", 24)];

/// One secret.
struct SecretView {
    /// `sec_…`
    id: String,
    start: String,
    made: Option<Moment>,
    last_used: Option<Moment>,
    retires: Option<Moment>,
    standing: Standing,
}

/// Whether a secret works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It does, and nothing ends it.
    Current,
    /// Until its end.
    Overlapping,
    /// No more.
    Retired,
}

#[derive(Template)]
#[template(path = "key_secrets.html")]
struct SecretsPage {
    shell: Shell,
    key: KeyView,
    secrets: Vec<SecretView>,
    split: Result<Split, Problem>,
    period: &'static str,
    period_label: &'static str,
}

#[derive(Template)]
#[template(path = "secret_retire.html")]
struct RetirePage {
    shell: Shell,
    key: KeyView,
    etag: String,
    secret: SecretView,
}

/// `GET /keys/{key_id}/secrets`, also of a deleted key.
pub(crate) async fn show(
    visit: Visit,
    Path(key_id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Stop> {
    let key = get(&visit, &key_id).await?;
    let now = OffsetDateTime::now_utc();
    let shown = view(&visit, Some(&key), now)?;
    let asked = field(query.as_deref().unwrap_or_default(), "range").into_owned();
    let period = PERIODS.iter().find(|(name, ..)| *name == asked).unwrap_or(&PERIODS[0]);
    let secrets: Vec<_> = key.secrets.iter().map(|secret| SecretView::new(secret, now)).collect();
    let known: Vec<_> = secrets.iter().map(|secret| secret.known(&shown)).collect();
    let split = match get_split(&visit, &shown, period.2, now).await {
        Ok(breakdown) => Ok(Split::new(&known, &breakdown)),
        Err(status) => Err(visit.problem(Service::Query, &status)),
    };
    Ok(page(&SecretsPage {
        shell: visit.shell(),
        key: shown,
        secrets,
        split,
        period: period.0,
        period_label: period.1,
    }))
}

/// `GET /keys/{key_id}/secrets/{secret_id}/retire`
pub(crate) async fn confirm_retire(
    visit: Visit,
    Path((key_id, secret_id)): Path<(String, String)>,
) -> Result<Response, Stop> {
    let (key, shown) = get_living(&visit, &key_id).await?;
    let secret = overlapping(&visit, &key, &secret_id)?;
    Ok(match secret {
        None => Redirect::to(&format!("/keys/{key_id}/secrets")).into_response(),
        Some(secret) => page(&RetirePage { shell: visit.shell(), key: shown, etag: key.etag, secret }),
    })
}

/// `POST /keys/{key_id}/secrets/{secret_id}/retire`: the receipt. Sent twice it retires once.
pub(crate) async fn retire(
    visit: Visit,
    Path((key_id, secret_id)): Path<(String, String)>,
    form: String,
) -> Result<Response, Stop> {
    let key = get(&visit, &key_id).await?;
    let secret = secret_of(&key, &secret_id).ok_or_else(|| visit.not_found())?;
    let request = visit.call(RetireSecretRequest {
        name: secret.name.clone(),
        etag: field(&form, "etag").into_owned(),
        receipt_timeout: receipt_timeout(),
    });
    let retired = visit.app.clients.keys.clone().retire_secret(request).await;
    let retired = retired.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let now = OffsetDateTime::now_utc();
    Ok(page(&DonePage {
        shell: visit.shell(),
        key: view(&visit, retired.key.as_ref(), now)?,
        what: "no longer takes this secret",
        start: secret.start.clone(),
        receipt: Some(ReceiptView::new(retired.receipt.as_ref(), now)),
        text: "Only this secret is refused. The key goes on with its others.",
        next: Next::Secrets,
    }))
}

/// The secret that can be retired now; `None` if it is retired already.
fn overlapping(visit: &Visit, key: &Key, secret_id: &str) -> Result<Option<SecretView>, Stop> {
    let secret = secret_of(key, secret_id).ok_or_else(|| visit.not_found())?;
    let shown = SecretView::new(secret, OffsetDateTime::now_utc());
    Ok((shown.standing == Standing::Overlapping).then_some(shown))
}

async fn get_split(
    visit: &Visit,
    key: &KeyView,
    hours: i64,
    now: OffsetDateTime,
) -> Result<Breakdown, Status> {
    let filter = UsageFilter {
        from: Some(to_proto(now - time::Duration::hours(hours))),
        to: Some(to_proto(now)),
        key_ids: vec![key.id.to_string()],
        ..UsageFilter::default()
    };
    get_breakdown(visit, &filter, Dimension::Secret, SPLIT_ROWS, false).await
}

impl SecretView {
    fn new(secret: &Secret, now: OffsetDateTime) -> Self {
        let end = secret.retire_time.as_ref().and_then(from_proto);
        let moment = |at: &Option<_>, show| Moment::of(at.as_ref(), show, now);
        Self {
            id: secret.name.rsplit('/').next().unwrap_or_default().to_owned(),
            start: secret.start.clone(),
            made: moment(&secret.create_time, Show::Full),
            last_used: moment(&secret.last_used_time, Show::Relative),
            retires: moment(&secret.retire_time, Show::Full),
            standing: match end {
                None => Standing::Current,
                Some(end) if end > now => Standing::Overlapping,
                Some(_) => Standing::Retired,
            },
        }
    }

    fn known(&self, key: &KeyView) -> Known {
        let is_live = self.standing != Standing::Retired && !key.is_deleted();
        Known { secret_id: self.id.clone(), start: self.start.clone(), is_live }
    }
}

impl SecretsPage {
    /// Whether somebody can still change the key.
    fn is_living(&self) -> bool {
        !self.key.is_deleted()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_secret_stands_by_its_end() {
        let now = datetime!(2026-11-22 12:00 UTC);
        let standing = |end: Option<OffsetDateTime>| {
            SecretView::new(&Secret { retire_time: end.map(to_proto), ..Secret::default() }, now).standing
        };
        assert_eq!(standing(None), Standing::Current);
        assert_eq!(standing(Some(now + time::Duration::SECOND)), Standing::Overlapping);
        assert_eq!(standing(Some(now)), Standing::Retired);
    }
}
