//! `keymeter.keys.v1.WorkspacesService`.

use access::Claims;
use domain::{AddressStorage, WorkspaceId};
use prost_types::FieldMask;
use proto::{
    keys::{
        AddressStorage as PbAddressStorage, CreateWorkspaceRequest, DeleteWorkspaceRequest,
        DeleteWorkspaceResponse, ExportWorkspaceRequest, ExportWorkspaceResponse, GetWorkspaceRequest,
        ListWorkspacesRequest, ListWorkspacesResponse, ResumeWorkspaceRequest, SuspendWorkspaceRequest,
        UpdateWorkspaceRequest, Workspace, workspaces_service_server::WorkspacesService,
    },
    resource::parse_workspace_name,
    timestamp::to_proto,
};
use tonic::{Request, Response, Status};

use super::{Messages, answer, identify, messages, now, required, wire};
use crate::{
    erasure,
    error::Error,
    export, fields, page,
    store::Store,
    workspaces::{Changes, Workspaces},
};

/// Days that an audit trail may be kept.
const AUDIT_RETENTION_DAYS: std::ops::RangeInclusive<i32> = 30..=3_650;
/// Days that single calls may be kept: longer than ingest takes to archive them.
const REQUEST_RETENTION_DAYS: std::ops::RangeInclusive<i32> = 37..=400;

/// The service.
pub(super) struct Rpc {
    pub(super) workspaces: Workspaces,
    pub(super) store: Store,
}

#[tonic::async_trait]
impl WorkspacesService for Rpc {
    async fn create_workspace(
        &self,
        request: Request<CreateWorkspaceRequest>,
    ) -> Result<Response<Workspace>, Status> {
        let (claims, caller) = identify(&request)?;
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
        let (claims, _) = identify(&request)?;
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
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        answer(async {
            let size = page::size(request.page_size)?;
            let list = format!("workspaces of {}", claims.subject);
            let after = page::position::<(String, String)>(&list, &request.page_token)?
                .map(|(name, id)| Ok::<_, Error>((name, id.parse().map_err(|_| page::damaged())?)))
                .transpose()?;
            let (found, last) = self.workspaces.list(&claims, after, size).await?;
            let next_page_token =
                last.map(|(name, id)| page::token(&list, &(name, id.to_string()))).unwrap_or_default();
            let workspaces = found.into_iter().map(wire::workspace).collect();
            Ok(ListWorkspacesResponse { workspaces, next_page_token })
        })
        .await
    }

    async fn update_workspace(
        &self,
        request: Request<UpdateWorkspaceRequest>,
    ) -> Result<Response<Workspace>, Status> {
        let (claims, caller) = identify(&request)?;
        let UpdateWorkspaceRequest { workspace, update_mask } = request.into_inner();
        let workspace = workspace.unwrap_or_default();
        let workspace_id = own("workspace.name", &workspace.name, &claims)?;
        answer(async {
            let masked = [
                ("display_name", !workspace.display_name.is_empty()),
                ("audit_retention_days", workspace.audit_retention_days != 0),
                ("disable_exposed_keys", false),
                ("keep_copies", false),
                ("address_storage", workspace.address_storage != 0),
                ("request_retention_days", workspace.request_retention_days != 0),
            ];
            let [name, retention, exposed, copies, addresses, requests] =
                fields::masked(update_mask.as_ref(), masked)?;
            if retention && !AUDIT_RETENTION_DAYS.contains(&workspace.audit_retention_days) {
                return Err(Error::invalid("workspace.audit_retention_days", "must be 30 to 3,650"));
            }
            let field = "workspace.display_name";
            let display_name =
                name.then(|| fields::display_name(field, &workspace.display_name)).transpose()?;
            let changes = Changes {
                display_name,
                audit_retention_days: retention.then_some(workspace.audit_retention_days),
                disable_exposed_keys: exposed.then_some(workspace.disable_exposed_keys),
                keep_copies: copies.then_some(workspace.keep_copies),
                address_storage: if addresses {
                    address_storage(&workspace, update_mask.as_ref())?
                } else {
                    None
                },
                request_retention_days: if requests {
                    request_retention(&workspace, update_mask.as_ref())?
                } else {
                    None
                },
            };
            Ok(wire::workspace(self.workspaces.update(workspace_id, changes, &caller, now()).await?))
        })
        .await
    }

    async fn suspend_workspace(
        &self,
        request: Request<SuspendWorkspaceRequest>,
    ) -> Result<Response<Workspace>, Status> {
        let (claims, caller) = identify(&request)?;
        let workspace_id = own("name", &request.get_ref().name, &claims)?;
        answer(async {
            Ok(wire::workspace(self.workspaces.suspend(workspace_id, true, &caller, now()).await?))
        })
        .await
    }

    async fn resume_workspace(
        &self,
        request: Request<ResumeWorkspaceRequest>,
    ) -> Result<Response<Workspace>, Status> {
        let (claims, caller) = identify(&request)?;
        let workspace_id = own("name", &request.get_ref().name, &claims)?;
        answer(async {
            Ok(wire::workspace(self.workspaces.suspend(workspace_id, false, &caller, now()).await?))
        })
        .await
    }

    type ExportWorkspaceStream = Messages<ExportWorkspaceResponse>;

    async fn export_workspace(
        &self,
        request: Request<ExportWorkspaceRequest>,
    ) -> Result<Response<Self::ExportWorkspaceStream>, Status> {
        let (claims, caller) = identify(&request)?;
        let workspace_id = own("name", &request.get_ref().name, &claims)?;
        answer(async {
            let chunks = export::export(self.store.clone(), workspace_id, &caller, now()).await?;
            Ok(messages(chunks, |ndjson| ExportWorkspaceResponse { ndjson }))
        })
        .await
    }

    async fn delete_workspace(
        &self,
        request: Request<DeleteWorkspaceRequest>,
    ) -> Result<Response<DeleteWorkspaceResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = own("name", &request.name, &claims)?;
        answer(async {
            let now = now();
            erasure::erase(&self.store, workspace_id, &request.display_name, &caller, now).await?;
            Ok(DeleteWorkspaceResponse { delete_time: Some(to_proto(now)) })
        })
        .await
    }
}

/// What an update asks to keep of addresses. `*` of a caller that does not know the field leaves it as it is, rather
/// than to keep more than was wished.
fn address_storage(workspace: &Workspace, mask: Option<&FieldMask>) -> Result<Option<AddressStorage>, Error> {
    match PbAddressStorage::try_from(workspace.address_storage) {
        Ok(PbAddressStorage::Whole) => Ok(Some(AddressStorage::Whole)),
        Ok(PbAddressStorage::Truncated) => Ok(Some(AddressStorage::Truncated)),
        Ok(PbAddressStorage::None) => Ok(Some(AddressStorage::None)),
        Ok(PbAddressStorage::Unspecified) if !is_named(mask, "address_storage") => Ok(None),
        Ok(PbAddressStorage::Unspecified) | Err(_) => {
            Err(Error::invalid("workspace.address_storage", "must be WHOLE, TRUNCATED or NONE"))
        }
    }
}

/// For how long an update asks to keep single calls; `*` of a caller that does not know the field leaves it as it is.
fn request_retention(workspace: &Workspace, mask: Option<&FieldMask>) -> Result<Option<i32>, Error> {
    match workspace.request_retention_days {
        0 if !is_named(mask, "request_retention_days") => Ok(None),
        days if REQUEST_RETENTION_DAYS.contains(&days) => Ok(Some(days)),
        _ => Err(Error::invalid("workspace.request_retention_days", "must be 37 to 400")),
    }
}

fn is_named(mask: Option<&FieldMask>, path: &str) -> bool {
    mask.is_some_and(|mask| mask.paths.iter().any(|named| named == path))
}

/// The caller's workspace by its name. Another one is not found.
fn own(field: &str, name: &str, claims: &Claims) -> Result<WorkspaceId, Status> {
    let parse = |name: &str| parse_workspace_name(name).map(|workspace_id| (workspace_id, ()));
    Ok(claims.own(field, "workspace", name, parse)?.0)
}
