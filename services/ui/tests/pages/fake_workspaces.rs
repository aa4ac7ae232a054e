//! Workspaces, as far as pages ask about them.

use domain::WorkspaceId;
use proto::keys as k;
use time::Duration;
use tonic::{Request, Response, Status};

use crate::{
    fake_team::workspace,
    fakes::{Fakes, ago},
};

type Answer<T> = Result<Response<T>, Status>;

impl Fakes {
    /// Changes a workspace; gives it as it is then.
    fn change_workspace(&self, name: &str, change: impl FnOnce(&mut k::Workspace)) -> Answer<k::Workspace> {
        let changed = self.change(|state| {
            let found = state.team.workspaces.iter_mut().find(|each| each.name == name)?;
            change(found);
            Some(found.clone())
        });
        Ok(Response::new(changed.ok_or_else(|| proto::status::not_found("workspace", name))?))
    }
}

#[tonic::async_trait]
impl k::workspaces_service_server::WorkspacesService for Fakes {
    async fn create_workspace(&self, request: Request<k::CreateWorkspaceRequest>) -> Answer<k::Workspace> {
        self.enter("CreateWorkspace")?;
        let display_name = request.into_inner().workspace.unwrap_or_default().display_name;
        if display_name.is_empty() {
            return Err(proto::status::invalid("workspace.display_name", "must not be empty"));
        }
        let made = workspace(WorkspaceId::generate(), &display_name);
        self.change(|state| state.team.workspaces.push(made.clone()));
        Ok(Response::new(made))
    }

    async fn get_workspace(&self, request: Request<k::GetWorkspaceRequest>) -> Answer<k::Workspace> {
        let name = request.get_ref().name.clone();
        self.admit("GetWorkspace", &request, &name)?;
        self.change_workspace(&name, |_| {})
    }

    async fn list_workspaces(
        &self,
        _: Request<k::ListWorkspacesRequest>,
    ) -> Answer<k::ListWorkspacesResponse> {
        self.enter("ListWorkspaces")?;
        let workspaces = self.change(|state| state.team.workspaces.clone());
        Ok(Response::new(k::ListWorkspacesResponse { workspaces, next_page_token: String::new() }))
    }

    async fn update_workspace(&self, request: Request<k::UpdateWorkspaceRequest>) -> Answer<k::Workspace> {
        let asked = request.get_ref().workspace.clone().unwrap_or_default();
        self.admit("UpdateWorkspace", &request, &asked.name)?;
        if asked.audit_retention_days < 30 {
            return Err(proto::status::invalid("workspace.audit_retention_days", "must be 30 to 3,650"));
        }
        let paths = request.into_inner().update_mask.unwrap_or_default().paths;
        self.change(|state| state.team.changed_paths.clone_from(&paths));
        let has = |path: &str| paths.iter().any(|changed| changed == path);
        self.change_workspace(&asked.name, |is| {
            if has("display_name") {
                is.display_name.clone_from(&asked.display_name);
            }
            if has("keep_copies") {
                is.keep_copies = asked.keep_copies;
            }
            if has("audit_retention_days") {
                is.audit_retention_days = asked.audit_retention_days;
            }
        })
    }

    async fn suspend_workspace(&self, request: Request<k::SuspendWorkspaceRequest>) -> Answer<k::Workspace> {
        let name = request.get_ref().name.clone();
        self.admit("SuspendWorkspace", &request, &name)?;
        self.change_workspace(&name, |is| is.suspend_time = Some(ago(Duration::ZERO)))
    }

    async fn resume_workspace(&self, request: Request<k::ResumeWorkspaceRequest>) -> Answer<k::Workspace> {
        let name = request.get_ref().name.clone();
        self.admit("ResumeWorkspace", &request, &name)?;
        self.change_workspace(&name, |is| is.suspend_time = None)
    }

    type ExportWorkspaceStream =
        tokio_stream::Iter<std::vec::IntoIter<Result<k::ExportWorkspaceResponse, Status>>>;

    async fn export_workspace(
        &self,
        request: Request<k::ExportWorkspaceRequest>,
    ) -> Answer<Self::ExportWorkspaceStream> {
        self.admit("ExportWorkspace", &request, &request.get_ref().name)?;
        let lines = ["{\"type\":\"workspace\"}\n", "{\"type\":\"member\"}\n"];
        let chunks = lines.map(|line| Ok(k::ExportWorkspaceResponse { ndjson: line.as_bytes().to_vec() }));
        Ok(Response::new(tokio_stream::iter(chunks.to_vec())))
    }

    async fn delete_workspace(
        &self,
        request: Request<k::DeleteWorkspaceRequest>,
    ) -> Answer<k::DeleteWorkspaceResponse> {
        self.admit("DeleteWorkspace", &request, &request.get_ref().name)?;
        let request = request.into_inner();
        self.change(|state| {
            let all = &mut state.team.workspaces;
            let at = all
                .iter()
                .position(|each| each.name == request.name && each.display_name == request.display_name);
            let wrong =
                || proto::status::invalid("display_name", "must be the workspace's own; nothing was deleted");
            all.remove(at.ok_or_else(wrong)?);
            Ok(Response::new(k::DeleteWorkspaceResponse { delete_time: Some(ago(Duration::ZERO)) }))
        })
    }
}
