//! Tokens of internal services: the list, the form of a new one, its end. A token is on the page that follows the
//! form, and on no other.

use askama::Template;
use axum::{
    Form,
    extract::{Path, Query},
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use domain::ServiceTokenId;
use proto::{
    keys::{
        CreateServiceTokenRequest, ListServiceTokensRequest, ListServiceTokensResponse,
        RevokeServiceTokenRequest, ServiceToken,
    },
    resource::{parse_service_token_name, service_token_name, workspace_name},
};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};
use tonic::{Code, Status};

use super::{Shell, members::Yes, permission::require};
use crate::{
    format::{Moment, Show},
    problem::{Service, Stop, page},
    roles::Right,
    violations::{Violations, refusal},
    visit::Visit,
};

/// Tokens on one page of the list.
const PAGE_SIZE: i32 = 50;
/// Tokens on one page while a single one is looked for, and pages that are looked at.
const SEARCH_PAGE_SIZE: i32 = 1_000;
const SEARCH_PAGES_MAX: usize = 10;
const LIST: &str = "/settings/service-tokens";
const NAME: &str = "service_token.display_name";
const SCOPES: &str = "service_token.scopes";
const EXPIRY: &str = "service_token.expire_time";

/// What a token may do: the scope, and what it is for.
const SCOPE_TEXTS: [(&str, &str); 7] = [
    ("keys.read", "See keys"),
    ("keys.write", "Generate, change and delete keys"),
    ("keys.verify", "Ask whether a key is good"),
    ("usage.read", "See totals of usage"),
    ("logs.read", "See single calls"),
    ("audit.read", "Read the audit log"),
    ("members.read", "See members"),
];
/// How long a token may last: in the form, for people, in days.
const LIVES: [(&str, &str, Option<i64>); 4] = [
    ("30d", "30 days", Some(30)),
    ("90d", "90 days", Some(90)),
    ("1y", "1 year", Some(365)),
    ("never", "No end", None),
];
const DEFAULT_LIFE: &str = "90d";

/// The list's address.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    page_token: String,
    #[serde(default)]
    done: String,
}

/// The form of a new token, as it was filled in.
#[derive(Debug, Default)]
struct NewToken {
    workspace: String,
    display_name: String,
    scopes: Vec<String>,
    life: String,
}

/// One token.
struct TokenView {
    id: ServiceTokenId,
    display_name: String,
    start: String,
    scopes: Vec<String>,
    created: Option<Moment>,
    expires: Option<Moment>,
    last_used: Option<Moment>,
    is_revoked: bool,
    is_expired: bool,
}

#[derive(Template)]
#[template(path = "service_tokens.html")]
struct ListPage {
    shell: Shell,
    tokens: Vec<TokenView>,
    is_later: bool,
    next: Option<String>,
    is_revoked: bool,
}

#[derive(Template)]
#[template(path = "service_token_new.html")]
struct NewPage {
    shell: Shell,
    form: NewToken,
    errors: Violations,
}

#[derive(Template)]
#[template(path = "service_token_created.html")]
struct CreatedPage {
    shell: Shell,
    token: TokenView,
    secret: String,
}

#[derive(Template)]
#[template(path = "service_token_revoke.html")]
struct RevokePage {
    shell: Shell,
    token: TokenView,
}

/// `GET /settings/service-tokens`
pub(crate) async fn list(visit: Visit, Query(query): Query<ListQuery>) -> Result<Response, Stop> {
    require(&visit, Right::ManageServiceTokens).await?;
    let listed = match listed(&visit, PAGE_SIZE, &query.page_token).await {
        Ok(listed) => listed,
        Err(status) if status.code() == Code::InvalidArgument && !query.page_token.is_empty() => {
            return Ok(Redirect::to(LIST).into_response());
        }
        Err(status) => return Err(visit.stop(Service::Keys, &status)),
    };
    let now = OffsetDateTime::now_utc();
    let next = form_urlencoded::Serializer::new(String::new())
        .append_pair("page_token", &listed.next_page_token)
        .finish();
    Ok(page(&ListPage {
        shell: visit.shell(),
        tokens: listed.service_tokens.iter().filter_map(|token| TokenView::new(token, now)).collect(),
        is_later: !query.page_token.is_empty(),
        next: (!listed.next_page_token.is_empty()).then(|| format!("{LIST}?{next}")),
        is_revoked: query.done == "revoked",
    }))
}

/// `GET /settings/service-tokens/new`
pub(crate) async fn new(visit: Visit) -> Result<Response, Stop> {
    require(&visit, Right::ManageServiceTokens).await?;
    let form = NewToken { life: DEFAULT_LIFE.to_owned(), ..NewToken::default() };
    Ok(page(&NewPage { shell: visit.shell(), form, errors: Violations::default() }))
}

/// `POST /settings/service-tokens`: the page with the token.
pub(crate) async fn create(
    visit: Visit,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Stop> {
    let form = NewToken::read(fields);
    visit.opened_in(&form.workspace)?;
    let now = OffsetDateTime::now_utc();
    let message = match form.request(workspace_name(visit.access.workspace_id), now) {
        Ok(message) => message,
        Err(errors) => {
            let code = StatusCode::UNPROCESSABLE_ENTITY;
            return Ok((code, page(&NewPage { shell: visit.shell(), form, errors })).into_response());
        }
    };
    match visit.app.clients.service_tokens.clone().create_service_token(visit.call(message)).await {
        Ok(made) => {
            let made = made.into_inner();
            let token = made.service_token.as_ref().and_then(|token| TokenView::new(token, now));
            let unnamed = || visit.stop(Service::Keys, &Status::internal("a token without a name"));
            let token = token.ok_or_else(unnamed)?;
            Ok(page(&CreatedPage { shell: visit.shell(), token, secret: made.token }))
        }
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = Violations::of(&status, &[NAME, SCOPES, EXPIRY]);
            Ok((code, page(&NewPage { shell: visit.shell(), form, errors })).into_response())
        }
    }
}

/// `GET /settings/service-tokens/{service_token_id}/revoke`
pub(crate) async fn confirm_revoke(visit: Visit, Path(id): Path<String>) -> Result<Response, Stop> {
    require(&visit, Right::ManageServiceTokens).await?;
    let token = find(&visit, &id).await?;
    if token.is_revoked {
        return Ok(Redirect::to(LIST).into_response());
    }
    Ok(page(&RevokePage { shell: visit.shell(), token }))
}

/// `POST /settings/service-tokens/{service_token_id}/revoke`: sent twice it revokes once.
pub(crate) async fn revoke(
    visit: Visit,
    Path(id): Path<String>,
    Form(form): Form<Yes>,
) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    let id: ServiceTokenId = id.parse().map_err(|_| visit.not_found())?;
    let name = service_token_name(visit.access.workspace_id, id);
    let request = visit.call(RevokeServiceTokenRequest { name });
    let revoked = visit.app.clients.service_tokens.clone().revoke_service_token(request).await;
    revoked.map_err(|status| visit.stop(Service::Keys, &status))?;
    Ok(Redirect::to("/settings/service-tokens?done=revoked").into_response())
}

async fn listed(
    visit: &Visit,
    page_size: i32,
    page_token: &str,
) -> Result<ListServiceTokensResponse, Status> {
    let request = visit.call(ListServiceTokensRequest {
        parent: workspace_name(visit.access.workspace_id),
        page_size,
        page_token: page_token.to_owned(),
    });
    let listed = visit.app.clients.service_tokens.clone().list_service_tokens(request).await?;
    Ok(listed.into_inner())
}

/// One token by its id: keys lists them only.
async fn find(visit: &Visit, id: &str) -> Result<TokenView, Stop> {
    let id: ServiceTokenId = id.parse().map_err(|_| visit.not_found())?;
    let name = service_token_name(visit.access.workspace_id, id);
    let now = OffsetDateTime::now_utc();
    let mut page_token = String::new();
    for _ in 0..SEARCH_PAGES_MAX {
        let page = listed(visit, SEARCH_PAGE_SIZE, &page_token).await;
        let page = page.map_err(|status| visit.stop(Service::Keys, &status))?;
        let found = page.service_tokens.iter().find(|token| token.name == name);
        if let Some(found) = found.and_then(|token| TokenView::new(token, now)) {
            return Ok(found);
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Err(visit.not_found())
}

impl NewToken {
    fn read(fields: Vec<(String, String)>) -> Self {
        let mut form = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "workspace" => form.workspace = value,
                "display_name" => form.display_name = value,
                "scope" if form.scopes.len() < SCOPE_TEXTS.len() => form.scopes.push(value),
                "life" => form.life = value,
                _ => {}
            }
        }
        form
    }

    /// The call that the form asks for. Without a scope a token could do everything, also what is new later: that
    /// must not happen because a box was forgotten.
    fn request(&self, parent: String, now: OffsetDateTime) -> Result<CreateServiceTokenRequest, Violations> {
        let mut errors = Violations::default();
        if self.scopes.is_empty() {
            errors.add(SCOPES, "Choose at least one.");
        }
        let life = LIVES.iter().find(|(name, _, _)| *name == self.life);
        let Some((_, _, days)) = life.filter(|_| errors.is_empty()) else {
            if life.is_none() {
                errors.add(EXPIRY, "Choose how long the token lasts.");
            }
            return Err(errors);
        };
        let expire_time = days.map(|days| proto::timestamp::to_proto(now + Duration::days(days)));
        let service_token = Some(ServiceToken {
            display_name: self.display_name.trim().to_owned(),
            scopes: self.scopes.clone(),
            expire_time,
            ..ServiceToken::default()
        });
        Ok(CreateServiceTokenRequest { parent, service_token })
    }

    fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|chosen| chosen == scope)
    }
}

impl TokenView {
    fn new(token: &ServiceToken, now: OffsetDateTime) -> Option<Self> {
        let (_, id) = parse_service_token_name(&token.name).ok()?;
        let expires = token.expire_time.as_ref().and_then(proto::timestamp::from_proto);
        Some(Self {
            id,
            display_name: token.display_name.clone(),
            start: token.start.clone(),
            scopes: token.scopes.clone(),
            created: Moment::of(token.create_time.as_ref(), Show::Day, now),
            expires: Moment::of(token.expire_time.as_ref(), Show::Day, now),
            last_used: Moment::of(token.last_used_day.as_ref(), Show::Day, now),
            is_revoked: token.revoke_time.is_some(),
            is_expired: expires.is_some_and(|at| at <= now),
        })
    }

    fn is_over(&self) -> bool {
        self.is_revoked || self.is_expired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(fields: &[(&str, &str)]) -> NewToken {
        NewToken::read(fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn a_token_without_a_scope_is_not_asked_for() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let errors = form(&[("life", "30d")]).request(String::new(), now).unwrap_err();
        assert_eq!(errors.at(SCOPES), Some("Choose at least one."));
        let errors = form(&[("scope", "keys.read"), ("life", "9y")]).request(String::new(), now).unwrap_err();
        assert_eq!(errors.at(EXPIRY), Some("Choose how long the token lasts."));
        let asked = form(&[("scope", "keys.read"), ("scope", "usage.read"), ("life", "30d")]);
        let asked = asked.request(String::new(), now).unwrap().service_token.unwrap();
        assert_eq!(asked.scopes, ["keys.read", "usage.read"]);
        assert_eq!(asked.expire_time.unwrap().seconds, 30 * 86_400);
        let endless = form(&[("scope", "keys.read"), ("life", "never")]).request(String::new(), now).unwrap();
        assert_eq!(endless.service_token.unwrap().expire_time, None);
    }

    #[test]
    fn every_scope_is_offered() {
        let offered: Vec<_> = SCOPE_TEXTS.iter().map(|(scope, _)| *scope).collect();
        assert_eq!(offered, access::Scope::ALL.map(access::Scope::as_str));
    }
}
