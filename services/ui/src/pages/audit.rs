//! The audit log: who did what to what, when and from where, with a filter, and as a file.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::Query,
    http::StatusCode,
    response::{IntoResponse as _, Redirect, Response},
};
use proto::{
    keys::{
        AuditFilter, ExportAuditEntriesRequest, ListAuditEntriesRequest, ListAuditEntriesResponse,
        ListMembersRequest, ListServiceTokensRequest,
    },
    resource::workspace_name,
};
use time::{OffsetDateTime, macros::format_description};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use super::{
    Shell,
    audit_filter::Fields,
    audit_view::{ACTIONS, EntryView},
    permission::require,
};
use crate::{
    download,
    problem::{Service, Stop, page},
    roles::Right,
    violations::{Violations, refusal},
    visit::Visit,
};

/// Entries on one page.
const PAGE_SIZE: i32 = 50;
/// Members and service tokens whose names are known; others are shown by their ids.
const NAMES_MAX: i32 = 1_000;
const FILTER_FIELDS: [&str; 5] =
    ["filter.actor", "filter.action", "filter.resource", "filter.from", "filter.to"];

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    shell: Shell,
    fields: Fields,
    errors: Violations,
    /// `None` if the filter is wrong.
    entries: Option<Vec<EntryView>>,
    newer: Option<String>,
    older: Option<String>,
    /// Addresses of members, to choose an actor by.
    people: Vec<String>,
}

/// Who and what entries may name.
#[derive(Default)]
struct Names {
    /// Addresses and names of display by ids.
    labels: HashMap<String, String>,
    /// Ids of accounts by addresses in small letters.
    accounts: HashMap<String, String>,
}

/// `GET /audit`
pub(crate) async fn list(visit: Visit, Query(fields): Query<Fields>) -> Result<Response, Stop> {
    require(&visit, Right::ReadAudit).await?;
    let names = names(&visit).await;
    let found = match fields.filter(visit.access.workspace_id, &names.accounts) {
        Ok(filter) => entries(&visit, filter, &fields.page_token).await,
        Err(errors) => return Ok(wrong(&visit, fields, errors, &names)),
    };
    let found = match found {
        Ok(found) => found,
        // A link to a later page from before the filter was changed: start over.
        Err(status) if status.code() == Code::InvalidArgument && !fields.page_token.is_empty() => {
            return Ok(Redirect::to(&address(&fields, "")).into_response());
        }
        Err(status) if refusal(&status) == Some(StatusCode::UNPROCESSABLE_ENTITY) => {
            let errors = Violations::of(&status, &FILTER_FIELDS);
            return Ok(wrong(&visit, fields, errors, &names));
        }
        Err(status) => return Err(visit.stop(Service::Keys, &status)),
    };
    let now = OffsetDateTime::now_utc();
    let seen = found.audit_entries.iter().map(|entry| EntryView::new(entry, &names.labels, now));
    let next = &found.next_page_token;
    Ok(page(&AuditPage {
        shell: visit.shell(),
        errors: Violations::default(),
        entries: Some(seen.collect()),
        newer: (!fields.page_token.is_empty()).then(|| address(&fields, "")),
        older: (!next.is_empty()).then(|| address(&fields, next)),
        people: names.people(),
        fields,
    }))
}

/// `GET /audit/export`: all that the filter lets through, not only a page of it.
pub(crate) async fn export(visit: Visit, Query(fields): Query<Fields>) -> Result<Response, Stop> {
    require(&visit, Right::ReadAudit).await?;
    let names = names(&visit).await;
    let filter = match fields.filter(visit.access.workspace_id, &names.accounts) {
        Ok(filter) => filter,
        Err(errors) => return Ok(wrong(&visit, fields, errors, &names)),
    };
    let request = visit.call(ExportAuditEntriesRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter),
    });
    let chunks = visit.app.clients.audit.clone().export_audit_entries(request).await;
    let chunks = chunks.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let name = format!("audit-{}-{}.ndjson", visit.access.workspace_id, today());
    let chunks = chunks.map(|chunk| chunk.map(|chunk| chunk.ndjson.into()));
    Ok(download::file(Service::Keys, (&name, download::NDJSON), chunks, visit.reference))
}

/// The day for the name of a file.
pub(super) fn today() -> String {
    let form = format_description!("[year]-[month]-[day]");
    OffsetDateTime::now_utc().format(form).unwrap_or_default()
}

async fn entries(
    visit: &Visit,
    filter: AuditFilter,
    page_token: &str,
) -> Result<ListAuditEntriesResponse, Status> {
    let request = visit.call(ListAuditEntriesRequest {
        parent: workspace_name(visit.access.workspace_id),
        filter: Some(filter),
        page_size: PAGE_SIZE,
        page_token: page_token.to_owned(),
    });
    Ok(visit.app.clients.audit.clone().list_audit_entries(request).await?.into_inner())
}

/// Without names the log is still readable, by ids.
async fn names(visit: &Visit) -> Names {
    let parent = workspace_name(visit.access.workspace_id);
    let members = ListMembersRequest { parent: parent.clone(), page_size: NAMES_MAX, ..Default::default() };
    let tokens = ListServiceTokensRequest { parent, page_size: NAMES_MAX, ..Default::default() };
    let (mut by_member, mut by_token) =
        (visit.app.clients.members.clone(), visit.app.clients.service_tokens.clone());
    let (members, tokens) = tokio::join!(
        by_member.list_members(visit.call(members)),
        by_token.list_service_tokens(visit.call(tokens)),
    );
    let mut names = Names::default();
    for member in members.map(|listed| listed.into_inner().members).unwrap_or_default() {
        if let Some((_, id)) = member.name.rsplit_once('/') {
            names.accounts.insert(member.email.to_lowercase(), id.to_owned());
            names.labels.insert(id.to_owned(), member.email);
        }
    }
    for token in tokens.map(|listed| listed.into_inner().service_tokens).unwrap_or_default() {
        if let Some((_, id)) = token.name.rsplit_once('/') {
            names.labels.insert(id.to_owned(), token.display_name);
        }
    }
    names.labels.insert(visit.access.workspace_id.to_string(), visit.access.workspace.clone());
    names
}

fn address(fields: &Fields, page_token: &str) -> String {
    let query = fields.query(page_token);
    if query.is_empty() { "/audit".to_owned() } else { format!("/audit?{query}") }
}

fn wrong(visit: &Visit, fields: Fields, errors: Violations, names: &Names) -> Response {
    let page = page(&AuditPage {
        shell: visit.shell(),
        fields,
        errors,
        entries: None,
        newer: None,
        older: None,
        people: names.people(),
    });
    (StatusCode::UNPROCESSABLE_ENTITY, page).into_response()
}

impl Names {
    fn people(&self) -> Vec<String> {
        let mut people: Vec<_> = self.accounts.keys().cloned().collect();
        people.sort_unstable();
        people
    }
}

impl AuditPage {
    /// What is wrong with a field, whether this page or keys has said it.
    fn at(&self, field: &str) -> Option<&str> {
        self.errors.at(field).or_else(|| self.errors.at(&format!("filter.{field}")))
    }

    /// Whether the chosen action is none of those that are listed.
    fn is_other_action(&self) -> bool {
        !self.fields.action.is_empty() && !ACTIONS.iter().any(|(action, _, _)| *action == self.fields.action)
    }
}
