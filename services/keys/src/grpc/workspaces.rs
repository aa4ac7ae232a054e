//! `keymeter.keys.v1.WorkspacesService`.

use access::Verifier;
use proto::{
    keys::{
        CreateWorkspaceRequest, GetWorkspaceRequest, ListWorkspacesRequest, ListWorkspacesResponse,
        Workspace, workspaces_service_server::WorkspacesService,
    },
    resource::parse_workspace_name,
};
use tonic::{Request, Response, Status};

use super::{answer, identify, now, required, wire};
use crate::{error::Error, fields, page, workspaces::Workspaces};

/// The service.
pub(super) struct Rpc {
    pub(super) workspaces: Workspaces,
    pub(super) verifier: Verifier,
}

#[tonic::async_trait]
impl WorkspacesService for Rpc {
    async fn create_workspace(
        &self,
        request: Request<CreateWorkspaceRequest>,
    ) -> Result<Response<Workspace>, Status> {
        let (claims, caller) = identify(&self.verifier, &request)?;
        answer(async {
            let workspace = required("workspace", request.into_inner().workspace)?;
            let display_name = fields::display_name("workspace.display_name", &workspace.display_name)?;
            Ok(wire::workspace(self.workspaces.create(display_name, &claims, &caller, now()).await?))
        })
        .await
    }

    async fn get_workspace(
        &self,
        request: Request<GetWorkspaceRequest>,
    ) -> Result<Response<Workspace>, Status> {
        let (claims, _) = identify(&self.verifier, &request)?;
        answer(async {
            let workspace_id = parse_workspace_name(&request.get_ref().name)
                .map_err(|error| Error::invalid("name", error.to_string()))?;
            Ok(wire::workspace(self.workspaces.get(workspace_id, &claims).await?))
        })
        .await
    }

    async fn list_workspaces(
        &self,
        request: Request<ListWorkspacesRequest>,
    ) -> Result<Response<ListWorkspacesResponse>, Status> {
        let (claims, _) = identify(&self.verifier, &request)?;
        let request = request.into_inner();
        answer(async {
            let size = page::size(request.page_size)?;
            let list = format!("workspaces of {}", claims.subject);
            let after = page::position::<(String, String)>(&list, &request.page_token)?
                .map(|(name, id)| Ok::<_, Error>((name, id.parse().map_err(|_| damaged())?)))
                .transpose()?;
            let (found, last) = self.workspaces.list(&claims, after, size).await?;
            let next_page_token =
                last.map(|(name, id)| page::token(&list, &(name, id.to_string()))).unwrap_or_default();
            let workspaces = found.into_iter().map(wire::workspace).collect();
            Ok(ListWorkspacesResponse { workspaces, next_page_token })
        })
        .await
    }
}

fn damaged() -> Error {
    Error::invalid("page_token", "is damaged; start again without it")
}
