//! Giving a key a new secret while the old ones go on for a while. Shows the new one once, and never an old one.

use askama::Template;
use axum::{
    extract::Path,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use proto::keys::{Key, RotateKeyRequest};
use time::OffsetDateTime;
use tonic::Code;

use super::{Overlap, SecretPage, errors::FormErrors, get_living, mint_idempotency_key, name_of, secret_of};
use crate::{
    filters::field,
    format::{Moment, Show},
    pages::{Shell, keys_view::KeyView},
    problem::{Service, Stop, page},
    visit::Visit,
};

/// How long old secrets may go on: name, label, seconds.
static OVERLAPS: [(&str, &str, i64); 5] = [
    ("0", "Not at all", 0),
    ("1h", "1 hour", 3_600),
    ("24h", "24 hours", 86_400),
    ("7d", "7 days", 604_800),
    ("30d", "30 days", 2_592_000),
];
/// Long enough to change a system's settings on the next working day.
const OVERLAP_DEFAULT: &str = "24h";

#[derive(Template)]
#[template(path = "key_rotate.html")]
struct RotatePage {
    shell: Shell,
    key: KeyView,
    overlap: String,
    idempotency_key: String,
    etag: String,
    errors: FormErrors,
}

/// `GET /keys/{key_id}/rotate`
pub(crate) async fn form(visit: Visit, Path(key_id): Path<String>) -> Result<Response, Stop> {
    let (key, shown) = get_living(&visit, &key_id).await?;
    Ok(page(&RotatePage::new(&visit, key, shown, OVERLAP_DEFAULT.to_owned())))
}

/// `POST /keys/{key_id}/rotate`: the page with the new secret. Sent twice it rotates once.
pub(crate) async fn submit(visit: Visit, Path(key_id): Path<String>, form: String) -> Result<Response, Stop> {
    let overlap = field(&form, "overlap").into_owned();
    let Some((_, _, seconds)) = OVERLAPS.iter().find(|(name, _, _)| *name == overlap) else {
        let mut errors = FormErrors::default();
        errors.note("overlap", "Choose how long the old secret goes on.");
        return refuse(&visit, &key_id, overlap, errors, StatusCode::UNPROCESSABLE_ENTITY).await;
    };
    let request = visit.call(RotateKeyRequest {
        name: name_of(&visit, &key_id)?,
        overlap: Some(prost_types::Duration { seconds: *seconds, nanos: 0 }),
        etag: field(&form, "etag").into_owned(),
        idempotency_key: field(&form, "idempotency_key").into_owned(),
    });
    match visit.app.clients.keys.clone().rotate_key(request).await {
        Ok(rotated) => {
            let rotated = rotated.into_inner();
            let key = rotated.key.unwrap_or_default();
            let overlap = Overlap::of(&key, &rotated.retired_secrets, OffsetDateTime::now_utc());
            SecretPage::respond(&visit, Some(&key), rotated.secret, "Key rotated", overlap)
        }
        Err(status) => match status.code() {
            Code::InvalidArgument | Code::AlreadyExists => {
                let errors = FormErrors::of(&status);
                refuse(&visit, &key_id, overlap, errors, StatusCode::UNPROCESSABLE_ENTITY).await
            }
            Code::FailedPrecondition => {
                refuse(&visit, &key_id, overlap, FormErrors::of(&status), StatusCode::CONFLICT).await
            }
            Code::Aborted => {
                let text = "Somebody changed this key after you opened this page. Look at it, then send the form again.";
                let errors = FormErrors::general(text);
                refuse(&visit, &key_id, overlap, errors, StatusCode::CONFLICT).await
            }
            _ => Err(visit.stop(Service::Keys, &status)),
        },
    }
}

async fn refuse(
    visit: &Visit,
    key_id: &str,
    overlap: String,
    errors: FormErrors,
    code: StatusCode,
) -> Result<Response, Stop> {
    let (key, shown) = get_living(visit, key_id).await?;
    let rotate = RotatePage { errors, ..RotatePage::new(visit, key, shown, overlap) };
    Ok((code, page(&rotate)).into_response())
}

impl RotatePage {
    fn new(visit: &Visit, key: Key, shown: KeyView, overlap: String) -> Self {
        Self {
            shell: visit.shell(),
            key: shown,
            overlap,
            idempotency_key: mint_idempotency_key(),
            etag: key.etag,
            errors: FormErrors::default(),
        }
    }
}

impl Overlap {
    /// Until when the secrets that were told to retire go on; the last of them counts.
    fn of(key: &Key, retired: &[String], now: OffsetDateTime) -> Option<Self> {
        let ids = retired.iter().filter_map(|name| name.rsplit('/').next());
        let ends =
            ids.filter_map(|id| proto::timestamp::from_proto(secret_of(key, id)?.retire_time.as_ref()?));
        match ends.max()? {
            end if end > now => Some(Self::Until(Moment::new(end, Show::Full, now))),
            _ => Some(Self::Over),
        }
    }
}
