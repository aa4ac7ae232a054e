//! Workspaces, as far as pages ask about them.

use proto::keys as k;
use tonic::{Request, Response, Status};

use crate::fakes::Fakes;

#[tonic::async_trait]
impl k::workspaces_service_server::WorkspacesService for Fakes {
    async fn create_workspace(
        &self,
        _: Request<k::CreateWorkspaceRequest>,
    ) -> Result<Response<k::Workspace>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn get_workspace(
        &self,
        request: Request<k::GetWorkspaceRequest>,
    ) -> Result<Response<k::Workspace>, Status> {
        let name = request.get_ref().name.clone();
        self.admit("GetWorkspace", &request, &name)?;
        Ok(Response::new(k::Workspace { name, display_name: "Acme".to_owned(), ..k::Workspace::default() }))
    }

    async fn list_workspaces(
        &self,
        _: Request<k::ListWorkspacesRequest>,
    ) -> Result<Response<k::ListWorkspacesResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn update_workspace(
        &self,
        _: Request<k::UpdateWorkspaceRequest>,
    ) -> Result<Response<k::Workspace>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn suspend_workspace(
        &self,
        _: Request<k::SuspendWorkspaceRequest>,
    ) -> Result<Response<k::Workspace>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn resume_workspace(
        &self,
        _: Request<k::ResumeWorkspaceRequest>,
    ) -> Result<Response<k::Workspace>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    type ExportWorkspaceStream = tokio_stream::Empty<Result<k::ExportWorkspaceResponse, Status>>;

    async fn export_workspace(
        &self,
        _: Request<k::ExportWorkspaceRequest>,
    ) -> Result<Response<Self::ExportWorkspaceStream>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }

    async fn delete_workspace(
        &self,
        _: Request<k::DeleteWorkspaceRequest>,
    ) -> Result<Response<k::DeleteWorkspaceResponse>, Status> {
        Err(Status::unimplemented("pages have no use for it"))
    }
}
