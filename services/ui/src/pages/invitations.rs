//! Inviting a person, withdrawing that, and coming in by an invitation. The link is on the page that follows the
//! form, and on no other.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension, Form,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::CookieJar;
use domain::InvitationId;
use proto::{
    keys::{
        AcceptInvitationRequest, CreateInvitationRequest, DeleteInvitationRequest, GetInvitationRequest,
        Invitation, Role,
    },
    resource::{invitation_name, workspace_name},
};
use serde::Deserialize;
use time::OffsetDateTime;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    Shell,
    members::Yes,
    members_view::{Choice, InvitationView, Reader, choices},
    permission::require,
    sign_in,
};
use crate::{
    App, clients,
    format::{Moment, Show},
    problem::{Problem, Service, Stop, page, retry_seconds},
    roles::{self, Right},
    violations::{Violations, refusal},
    visit::{HOME, Reference, Visit},
};

const EMAIL: &str = "invitation.email";
const ROLE: &str = "invitation.role";
const PASSWORD: &str = "password";
/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 128;

/// The form of a new invitation.
#[derive(Default, Deserialize)]
pub(crate) struct NewInvitation {
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    role: String,
}

/// What lets somebody in.
#[derive(Deserialize)]
pub(crate) struct Acceptance {
    #[serde(default)]
    password: String,
}

#[derive(Template)]
#[template(path = "invite.html")]
struct InvitePage {
    shell: Shell,
    form: NewInvitation,
    choices: Vec<Choice>,
    errors: Violations,
}

#[derive(Template)]
#[template(path = "invited.html")]
struct InvitedPage {
    shell: Shell,
    invitation: InvitationView,
    link: String,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct AcceptPage<'a> {
    token: &'a str,
    invited: Invited,
    /// Who is signed in meanwhile.
    email: Option<String>,
    errors: Violations,
    /// Where one may sign in as well.
    provider: Option<String>,
}

/// What an invitation is for.
enum Invited {
    To(Box<Place>),
    /// Accepted, withdrawn or ended.
    Gone,
    /// Keys does not say.
    Unknown,
}

/// Where somebody is invited to.
struct Place {
    workspace: String,
    email: String,
    role: Role,
    expires: Option<Moment>,
}

impl Place {
    /// Whether somebody else than the invited person is signed in.
    fn is_for_another(&self, email: &str) -> bool {
        !self.email.eq_ignore_ascii_case(email)
    }
}

impl<'a> AcceptPage<'a> {
    async fn new(
        app: &App,
        jar: &CookieJar,
        token: &'a str,
        errors: Violations,
        reference: &Reference,
    ) -> Self {
        let (invited, email, provider) = tokio::join!(
            invited(app, token, reference),
            signed_in(app, jar, reference),
            app.sessions.provider(reference)
        );
        Self { token, invited, email, errors, provider }
    }

    const fn is_gone(&self) -> bool {
        matches!(self.invited, Invited::Gone)
    }

    fn into_response(self, code: StatusCode) -> Response {
        let code = if self.is_gone() { StatusCode::NOT_FOUND } else { code };
        (code, page(&self)).into_response()
    }
}

/// `GET /members/invite`
pub(crate) async fn new(visit: Visit) -> Result<Response, Stop> {
    require(&visit, Right::ManageMembers).await?;
    let choices = choices(visit.access.role, Role::Member);
    let (form, errors) = (NewInvitation::default(), Violations::default());
    Ok(page(&InvitePage { shell: visit.shell(), form, choices, errors }))
}

/// `POST /members/invite`: the page with the link.
pub(crate) async fn create(visit: Visit, Form(form): Form<NewInvitation>) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    let role = roles::named(&form.role);
    let invitation =
        Invitation { email: form.email.trim().to_owned(), role: role.into(), ..Invitation::default() };
    let request = visit.call(CreateInvitationRequest {
        parent: workspace_name(visit.access.workspace_id),
        invitation: Some(invitation),
    });
    match visit.app.clients.members.clone().create_invitation(request).await {
        Ok(made) => {
            let made = made.into_inner();
            let reader = Reader { email: &visit.access.email, role: visit.access.role };
            let view = made.invitation.as_ref();
            let view = view.and_then(|view| InvitationView::new(view, reader, OffsetDateTime::now_utc()));
            let unnamed = || visit.stop(Service::Keys, &Status::internal("an invitation without a name"));
            let invitation = view.ok_or_else(unnamed)?;
            let link = format!("{}/invitations/{}", visit.app.config.public_url.origin(), made.token);
            Ok(page(&InvitedPage { shell: visit.shell(), invitation, link }))
        }
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = match status.get_details_error_info().map(|info| info.reason).as_deref() {
                Some("ALREADY_MEMBER") => Violations::one(EMAIL, "This person is a member already."),
                Some("ALREADY_INVITED") => {
                    Violations::one(EMAIL, "This person has an open invitation. Withdraw that one first.")
                }
                _ => Violations::of(&status, &[EMAIL, ROLE]),
            };
            let choices = choices(visit.access.role, role);
            Ok((code, page(&InvitePage { shell: visit.shell(), form, choices, errors })).into_response())
        }
    }
}

/// `POST /members/invitations/{invitation_id}/withdraw`
pub(crate) async fn withdraw(
    visit: Visit,
    Path(invitation_id): Path<String>,
    Form(form): Form<Yes>,
) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    let invitation_id: InvitationId = invitation_id.parse().map_err(|_| visit.not_found())?;
    let name = invitation_name(visit.access.workspace_id, invitation_id);
    let request = visit.call(DeleteInvitationRequest { name });
    match visit.app.clients.members.clone().delete_invitation(request).await {
        Ok(_) => {}
        // Sent twice, or accepted meanwhile: the list says which.
        Err(status) if status.code() == Code::NotFound => {
            return Ok(Redirect::to(super::members::LIST).into_response());
        }
        Err(status) => return Err(visit.stop(Service::Keys, &status)),
    }
    Ok(Redirect::to("/members?done=withdrawn").into_response())
}

/// `GET /invitations/{token}`, for everybody who has the link.
pub(crate) async fn open(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    jar: CookieJar,
    Path(token): Path<String>,
) -> Response {
    if !is_plausible(&token) {
        return Problem::not_found(&reference).into_response_as(false, None);
    }
    let form = AcceptPage::new(&app, &jar, &token, Violations::default(), &reference).await;
    form.into_response(StatusCode::OK)
}

/// `POST /invitations/{token}`: starts a session in the workspace; the one that the browser came with ends.
pub(crate) async fn accept(
    State(app): State<Arc<App>>,
    Extension(reference): Extension<Reference>,
    jar: CookieJar,
    Path(token): Path<String>,
    Form(form): Form<Acceptance>,
) -> Response {
    if !is_plausible(&token) {
        return Problem::not_found(&reference).into_response_as(false, None);
    }
    let message = AcceptInvitationRequest { token: token.clone(), password: form.password };
    match app.clients.sessions.clone().accept_invitation(clients::open(message, &reference)).await {
        Ok(accepted) => {
            let accepted = accepted.into_inner();
            let workspace = Some(accepted.workspace.as_str());
            sign_in::come_in(&app, jar, accepted.session_token, workspace, HOME, &reference).await
        }
        Err(status) => {
            let form = AcceptPage::new(&app, &jar, &token, Violations::default(), &reference).await;
            refused(form, &status, &reference)
        }
    }
}

/// The page after nobody came in by the provider, which `error` is about.
pub(crate) async fn refused_at_provider(
    app: &App,
    jar: &CookieJar,
    token: &str,
    error: &str,
    reference: &Reference,
) -> Response {
    AcceptPage::new(app, jar, token, Violations::whole(error), reference).await.into_response(StatusCode::OK)
}

fn refused(form: AcceptPage<'_>, status: &Status, reference: &Reference) -> Response {
    let (code, errors) = match status.code() {
        Code::Unauthenticated => {
            (StatusCode::UNAUTHORIZED, Violations::one(PASSWORD, "The password is wrong."))
        }
        Code::InvalidArgument => (StatusCode::UNPROCESSABLE_ENTITY, Violations::of(status, &[PASSWORD])),
        Code::ResourceExhausted => {
            let wait =
                retry_seconds(status).map_or("a moment".to_owned(), |seconds| format!("{seconds} seconds"));
            let text = format!("Too many attempts. Try again in {wait}.");
            (StatusCode::TOO_MANY_REQUESTS, Violations::whole(text))
        }
        _ => {
            let problem = Problem::of(Service::Keys, status, reference);
            let text = format!("{} Reference: {}", problem.text, problem.reference);
            (problem.status, Violations::whole(text))
        }
    };
    let mut response = AcceptPage { errors, ..form }.into_response(code);
    if let Some(seconds) = retry_seconds(status) {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

async fn invited(app: &App, token: &str, reference: &Reference) -> Invited {
    let request = clients::open(GetInvitationRequest { token: token.to_owned() }, reference);
    match app.clients.sessions.clone().get_invitation(request).await.map(tonic::Response::into_inner) {
        Ok(answer) => {
            let invitation = answer.invitation.unwrap_or_default();
            let expires = invitation.expire_time.as_ref();
            Invited::To(Box::new(Place {
                workspace: answer.workspace_display_name,
                role: invitation.role(),
                expires: Moment::of(expires, Show::Full, OffsetDateTime::now_utc()),
                email: invitation.email,
            }))
        }
        Err(status) if status.code() == Code::Unauthenticated => Invited::Gone,
        Err(_) => Invited::Unknown,
    }
}

/// Who is signed in; an ended session is nobody.
async fn signed_in(app: &App, jar: &CookieJar, reference: &Reference) -> Option<String> {
    let token = app.sessions.token(jar)?;
    let access = app.sessions.access(&token, crate::session::wanted(jar), reference).await.ok()?;
    Some(access.email.clone())
}

pub(super) fn is_plausible(token: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    token.starts_with("kminv_") && token.len() <= TOKEN_BYTES_MAX && token.bytes().all(known)
}
