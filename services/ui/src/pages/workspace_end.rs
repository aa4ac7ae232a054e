//! What only owners do to a workspace: suspend and resume it, take all of it away as a file, delete it.

use askama::Template;
use axum::{
    Form,
    response::{IntoResponse as _, Redirect, Response},
};
use proto::{
    keys::{DeleteWorkspaceRequest, ExportWorkspaceRequest, ResumeWorkspaceRequest, SuspendWorkspaceRequest},
    resource::workspace_name,
};
use serde::Deserialize;
use tokio_stream::StreamExt as _;

use super::{Shell, audit::today, members::Yes, permission::require, settings};
use crate::{
    download,
    problem::{Service, Stop, page},
    roles::Right,
    violations::{Violations, refusal},
    visit::Visit,
};

/// Whether keys are refused from now on, or taken again.
#[derive(Deserialize)]
pub(crate) struct Suspension {
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    resume: String,
}

/// The name that says that it is the right workspace.
#[derive(Deserialize)]
pub(crate) struct Deletion {
    #[serde(default)]
    workspace: String,
    #[serde(default)]
    display_name: String,
}

#[derive(Template)]
#[template(path = "workspace_suspend.html")]
struct SuspendPage {
    shell: Shell,
    is_suspended: bool,
}

#[derive(Template)]
#[template(path = "workspace_delete.html")]
struct DeletePage {
    shell: Shell,
    typed: String,
    errors: Violations,
}

#[derive(Template)]
#[template(path = "workspace_deleted.html")]
struct DeletedPage {
    display_name: String,
}

/// `GET /settings/suspend`
pub(crate) async fn confirm_suspend(visit: Visit) -> Result<Response, Stop> {
    require(&visit, Right::EndWorkspace).await?;
    let is_suspended = settings::get(&visit).await?.suspend_time.is_some();
    Ok(page(&SuspendPage { shell: visit.shell(), is_suspended }))
}

/// `POST /settings/suspend`
pub(crate) async fn suspend(visit: Visit, Form(form): Form<Suspension>) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    require(&visit, Right::EndWorkspace).await?;
    let name = workspace_name(visit.access.workspace_id);
    let mut client = visit.app.clients.workspaces.clone();
    let done = if form.resume.is_empty() {
        client.suspend_workspace(visit.call(SuspendWorkspaceRequest { name })).await
    } else {
        client.resume_workspace(visit.call(ResumeWorkspaceRequest { name })).await
    };
    done.map_err(|status| visit.stop(Service::Keys, &status))?;
    Ok(Redirect::to("/settings").into_response())
}

/// `POST /settings/export`: a form and no link, since the audit log notes each of them.
pub(crate) async fn export(visit: Visit, Form(form): Form<Yes>) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    require(&visit, Right::EndWorkspace).await?;
    let request = visit.call(ExportWorkspaceRequest { name: workspace_name(visit.access.workspace_id) });
    let chunks = visit.app.clients.workspaces.clone().export_workspace(request).await;
    let chunks = chunks.map_err(|status| visit.stop(Service::Keys, &status))?.into_inner();
    let name = format!("workspace-{}-{}.ndjson", visit.access.workspace_id, today());
    let chunks = chunks.map(|chunk| chunk.map(|chunk| chunk.ndjson.into()));
    Ok(download::file(Service::Keys, (&name, download::NDJSON), chunks, visit.reference))
}

/// `GET /settings/delete`
pub(crate) async fn confirm_delete(visit: Visit) -> Result<Response, Stop> {
    require(&visit, Right::EndWorkspace).await?;
    Ok(page(&DeletePage { shell: visit.shell(), typed: String::new(), errors: Violations::default() }))
}

/// `POST /settings/delete`: keys compares the name.
pub(crate) async fn delete(visit: Visit, Form(form): Form<Deletion>) -> Result<Response, Stop> {
    visit.opened_in(&form.workspace)?;
    require(&visit, Right::EndWorkspace).await?;
    let (name, display_name) = (workspace_name(visit.access.workspace_id), form.display_name.clone());
    let request = visit.call(DeleteWorkspaceRequest { name, display_name });
    match visit.app.clients.workspaces.clone().delete_workspace(request).await {
        Ok(_) => {
            visit.renew();
            Ok(page(&DeletedPage { display_name: form.display_name }))
        }
        Err(status) => {
            let code = refusal(&status).ok_or_else(|| visit.stop(Service::Keys, &status))?;
            let errors = Violations::of(&status, &["display_name"]);
            let page = page(&DeletePage { shell: visit.shell(), typed: form.display_name, errors });
            Ok((code, page).into_response())
        }
    }
}
