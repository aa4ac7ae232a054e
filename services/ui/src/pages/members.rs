//! The people of a workspace: the list, the change of a role, the removal of a member.

use askama::Template;
use axum::{
    Form,
    extract::{Path, Query},
    response::{IntoResponse as _, Redirect, Response},
};
use domain::AccountId;
use proto::{
    keys::{
        GetMemberRequest, ListInvitationsRequest, ListMembersRequest, Member, RemoveMemberRequest,
        UpdateMemberRequest,
    },
    resource::{member_name, workspace_name},
};
use serde::Deserialize;
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::{
    Shell,
    members_view::{Choice, InvitationView, MemberView, Reader, choices},
    permission::require,
};
use crate::{
    problem::{Problem, Service, Stop, page},
    roles::{self, Right},
    violations::{Violations, refusal},
    visit::{HOME, Visit},
};

/// Members on one page of the list, and invitations.
const PAGE_SIZE: i32 = 50;
/// The list's address.
pub(super) const LIST: &str = "/members";

/// Which pages of both lists, and what was done just before.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    page_token: String,
    #[serde(default)]
    invitations_token: String,
    #[serde(default)]
    done: String,
}

/// A form that asks for nothing but a yes.
#[derive(Deserialize)]
pub(crate) struct Yes {
    /// The workspace that the form was opened in.
    #[serde(default)]
    pub(super) workspace: String,
}

/// The form of another role.
#[derive(Deserialize)]
pub(crate) struct NewRole {
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    role: String,
}

#[derive(Template)]
#[template(path = "members.html")]
struct ListPage {
    shell: Shell,
    done: Option<&'static str>,
    members: Vec<MemberView>,
    /// Whether this is a later page.
    is_later: bool,
    next: Option<String>,
    invitations: Option<Result<Invitations, Problem>>,
}

/// The open invitations, for those who may see them.
struct Invitations {
    list: Vec<InvitationView>,
    next: Option<String>,
}

#[derive(Template)]
#[template(path = "member_role.html")]
struct RolePage {
    shell: Shell,
    member: MemberView,
    choices: Vec<Choice>,
    errors: Violations,
}

#[derive(Template)]
#[template(path = "member_remove.html")]
struct RemovePage {
    shell: Shell,
    member: MemberView,
    errors: Violations,
}

/// `GET /members`
pub(crate) async fn list(visit: Visit, Query(query): Query<ListQuery>) -> Result<Response, Stop> {
    let request = visit.call(ListMembersRequest {
        parent: workspace_name(visit.access.workspace_id),
        page_size: PAGE_SIZE,
        page_token: query.page_token.clone(),
    });
    let mut client = visit.app.clients.members.clone();
    let (listed, invitations) =
        tokio::join!(client.list_members(request), invitations(&visit, &query.invitations_token));
    let listed = match listed {
        Ok(listed) => listed.into_inner(),
        Err(status) if status.code() == Code::InvalidArgument && !query.page_token.is_empty() => {
            return Ok(Redirect::to(LIST).into_response());
        }
        Err(status) => return Err(visit.stop(Service::Keys, &status)),
    };
    let now = OffsetDateTime::now_utc();
    Ok(page(&ListPage {
        shell: visit.shell(),
        done: said(&query.done),
        members: listed.members.iter().filter_map(|member| view(&visit, member, now)).collect(),
        is_later: !query.page_token.is_empty(),
        next: link("page_token", &listed.next_page_token),
        invitations,
    }))
}

async fn invitations(visit: &Visit, page_token: &str) -> Option<Result<Invitations, Problem>> {
    if !Right::ManageMembers.is_of(visit.access.role) {
        return None;
    }
    let request = visit.call(ListInvitationsRequest {
        parent: workspace_name(visit.access.workspace_id),
        page_size: PAGE_SIZE,
        page_token: page_token.to_owned(),
    });
    let now = OffsetDateTime::now_utc();
    Some(match visit.app.clients.members.clone().list_invitations(request).await {
        Ok(listed) => {
            let listed = listed.into_inner();
            let seen = listed.invitations.iter();
            let list = seen.filter_map(|each| InvitationView::new(each, reader(visit), now)).collect();
            Ok(Invitations { list, next: link("invitations_token", &listed.next_page_token) })
        }
        Err(status) => Err(visit.problem(Service::Keys, &status)),
    })
}

/// `GET /members/{account_id}`
pub(crate) async fn role(visit: Visit, Path(account_id): Path<String>) -> Result<Response, Stop> {
    require(&visit, Right::ManageMembers).await?;
    let member = get(&visit, &account_id).await?;
    Ok(page(&RolePage {
        choices: choices(visit.access.role, member.role),
        shell: visit.shell(),
        member,
        errors: Violations::default(),
    }))
}

/// `POST /members/{account_id}`
pub(crate) async fn change_role(
    visit: Visit,
    Path(account_id): Path<String>,
    Form(form): Form<NewRole>,
) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    let name = name(&visit, &account_id)?;
    let role = roles::named(&form.role);
    let member = Member { name, role: role.into(), ..Member::default() };
    let request = visit.call(UpdateMemberRequest { member: Some(member), update_mask: None });
    match visit.app.clients.members.clone().update_member(request).await {
        Ok(_) => Ok(Redirect::to("/members?done=role").into_response()),
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = Violations::of(&status, &["member.role"]);
            let member = get(&visit, &account_id).await?;
            let choices = choices(visit.access.role, role);
            Ok((code, page(&RolePage { shell: visit.shell(), member, choices, errors })).into_response())
        }
    }
}

/// `GET /members/{account_id}/remove`
pub(crate) async fn confirm_remove(visit: Visit, Path(account_id): Path<String>) -> Result<Response, Stop> {
    let member = get_removable(&visit, &account_id).await?;
    Ok(page(&RemovePage { shell: visit.shell(), member, errors: Violations::default() }))
}

/// `POST /members/{account_id}/remove`: also for leaving oneself.
pub(crate) async fn remove(
    visit: Visit,
    Path(account_id): Path<String>,
    Form(form): Form<Yes>,
) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    let member = get_removable(&visit, &account_id).await?;
    let request = visit.call(RemoveMemberRequest { name: name(&visit, &account_id)? });
    match visit.app.clients.members.clone().remove_member(request).await {
        Ok(_) if member.is_self => {
            visit.renew();
            Ok(Redirect::to(HOME).into_response())
        }
        Ok(_) => Ok(Redirect::to("/members?done=removed").into_response()),
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = Violations::of(&status, &[]);
            Ok((code, page(&RemovePage { shell: visit.shell(), member, errors })).into_response())
        }
    }
}

/// Who looks at the lists.
fn reader(visit: &Visit) -> Reader<'_> {
    Reader { email: &visit.access.email, role: visit.access.role }
}

fn view(visit: &Visit, member: &Member, now: OffsetDateTime) -> Option<MemberView> {
    MemberView::new(member, reader(visit), now)
}

fn name(visit: &Visit, account_id: &str) -> Result<String, Stop> {
    let account_id: AccountId = account_id.parse().map_err(|_| visit.not_found())?;
    Ok(member_name(visit.access.workspace_id, account_id))
}

async fn get(visit: &Visit, account_id: &str) -> Result<MemberView, Stop> {
    let request = visit.call(GetMemberRequest { name: name(visit, account_id)? });
    let member = visit.app.clients.members.clone().get_member(request).await;
    let member = member.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let member = view(visit, &member, OffsetDateTime::now_utc());
    member.ok_or_else(|| visit.stop(Service::Keys, &Status::internal("a member without a name")))
}

/// Somebody whom the reader may remove: everybody may go.
async fn get_removable(visit: &Visit, account_id: &str) -> Result<MemberView, Stop> {
    let member = get(visit, account_id).await?;
    if !member.is_self {
        require(visit, Right::ManageMembers).await?;
    }
    Ok(member)
}

/// The address of a later page.
fn link(field: &str, token: &str) -> Option<String> {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair(field, token).finish();
    (!token.is_empty()).then(|| format!("{LIST}?{query}"))
}

/// What was done, in fixed words: the address can not put others on the page.
fn said(done: &str) -> Option<&'static str> {
    match done {
        "role" => Some("The role was changed. It holds within 5 minutes."),
        "removed" => Some("The member was removed. Pages that are open end within 5 minutes."),
        "withdrawn" => Some("The invitation was withdrawn. Its link lets nobody in any more."),
        _ => None,
    }
}
