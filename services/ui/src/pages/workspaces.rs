//! Switching between workspaces, and making one.

use askama::Template;
use axum::{
    Form,
    response::{IntoResponse as _, Redirect, Response},
};
use axum_extra::extract::CookieJar;
use proto::{
    keys::{CreateWorkspaceRequest, Workspace},
    resource::parse_workspace_name,
};
use serde::Deserialize;
use tonic::Status;

use super::Shell;
use crate::{
    problem::{Service, Stop, page},
    violations::{Violations, refusal},
    visit::{HOME, Visit},
};

const NAME: &str = "workspace.display_name";

/// The workspace to show from now on.
#[derive(Deserialize)]
pub(crate) struct Choice {
    #[serde(default)]
    workspace: String,
}

/// The form of a new workspace.
#[derive(Default, Deserialize)]
pub(crate) struct NewWorkspace {
    #[serde(default)]
    display_name: String,
}

#[derive(Template)]
#[template(path = "workspace_new.html")]
struct NewPage {
    shell: Shell,
    form: NewWorkspace,
    errors: Violations,
}

/// `POST /workspace`: leads home, since what the page before showed is another workspace's.
pub(crate) async fn switch(
    visit: Visit,
    jar: CookieJar,
    Form(choice): Form<Choice>,
) -> Result<Response, Stop> {
    let workspace_id = choice.workspace.parse().map_err(|_| visit.not_found())?;
    let cookie = visit.app.sessions.workspace_cookie(workspace_id);
    // Whether the person is in it is looked at by keys, on the next page.
    visit.renew();
    Ok((jar.add(cookie), Redirect::to(HOME)).into_response())
}

/// `GET /workspaces/new`
pub(crate) async fn new(visit: Visit) -> Response {
    page(&NewPage { shell: visit.shell(), form: NewWorkspace::default(), errors: Violations::default() })
}

/// `POST /workspaces`: makes one and shows it.
pub(crate) async fn create(
    visit: Visit,
    jar: CookieJar,
    Form(form): Form<NewWorkspace>,
) -> Result<Response, Stop> {
    let display_name = form.display_name.trim().to_owned();
    let workspace = Some(Workspace { display_name, ..Workspace::default() });
    let request = visit.call(CreateWorkspaceRequest { workspace });
    match visit.app.clients.workspaces.clone().create_workspace(request).await {
        Ok(made) => {
            let made = parse_workspace_name(&made.into_inner().name);
            let made =
                made.map_err(|error| visit.stop(Service::Keys, &Status::internal(error.to_string())))?;
            visit.renew();
            Ok((jar.add(visit.app.sessions.workspace_cookie(made)), Redirect::to(HOME)).into_response())
        }
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = Violations::of(&status, &[NAME]);
            Ok((code, page(&NewPage { shell: visit.shell(), form, errors })).into_response())
        }
    }
}
