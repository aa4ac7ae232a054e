//! What somebody sees who asks for a page that the role does not allow: what is missing, and whom to ask. Guards
//! nothing by itself; the services do.

use askama::Template;
use axum::{http::StatusCode, response::IntoResponse as _};
use proto::{keys::ListMembersRequest, resource::workspace_name};

use super::Shell;
use crate::{
    problem::{Stop, page},
    roles::{self, Right},
    visit::Visit,
};

/// Members among whom somebody to ask is looked for: the longest in the workspace come first.
const LOOKED_AT: i32 = 200;
/// People who are named.
const NAMED_MAX: usize = 5;

#[derive(Template)]
#[template(path = "no_permission.html")]
struct NoPermission {
    shell: Shell,
    right: Right,
    /// Who has it: `owner or admin`.
    holders: String,
    /// Addresses of people who have it.
    ask: Vec<String>,
}

/// That the person may do this here.
///
/// # Errors
/// The page that says who may.
pub(super) async fn require(visit: &Visit, right: Right) -> Result<(), Stop> {
    if right.is_of(visit.access.role) {
        return Ok(());
    }
    let request = visit.call(ListMembersRequest {
        parent: workspace_name(visit.access.workspace_id),
        page_size: LOOKED_AT,
        ..ListMembersRequest::default()
    });
    // Without the list the page still says which roles to ask.
    let members = match visit.app.clients.members.clone().list_members(request).await {
        Ok(members) => members.into_inner().members,
        Err(_) => Vec::new(),
    };
    let ask = members.into_iter().filter(|member| right.is_of(member.role()));
    let ask = ask.map(|member| member.email).take(NAMED_MAX).collect();
    let titles: Vec<_> = right.roles().iter().map(|role| roles::title(*role).to_lowercase()).collect();
    let page = page(&NoPermission { shell: visit.shell(), right, holders: titles.join(" or "), ask });
    Err(Stop::new((StatusCode::FORBIDDEN, page).into_response()))
}
