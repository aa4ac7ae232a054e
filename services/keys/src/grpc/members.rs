//! `keymeter.keys.v1.MembersService`.

use domain::WorkspaceId;
use proto::{
    keys as pb,
    keys::members_service_server::MembersService,
    resource::{member_name, parse_invitation_name, parse_member_name},
    timestamp::to_proto,
};
use secrecy::ExposeSecret as _;
use tonic::{Request, Response, Status};

use super::{answer, identify, now, required, wire};
use crate::{
    fields,
    invitations::Invitations,
    members::Members,
    page::{self, Place},
    store::members::Member,
};

/// The service.
pub(super) struct Rpc {
    pub(super) members: Members,
    pub(super) invitations: Invitations,
}

#[tonic::async_trait]
impl MembersService for Rpc {
    async fn list_members(
        &self,
        request: Request<pb::ListMembersRequest>,
    ) -> Result<Response<pb::ListMembersResponse>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let size = page::size(request.page_size)?;
            let list = format!("members of {workspace_id}");
            let after = page::position::<Place>(&list, &request.page_token)?;
            let after = after.map(page::read_place).transpose()?;
            let (members, last) = self.members.list(workspace_id, after, size).await?;
            Ok(pb::ListMembersResponse {
                members: members.into_iter().map(|member| to_member(workspace_id, member)).collect(),
                next_page_token: last.map(|last| page::token(&list, &page::place(last))).unwrap_or_default(),
            })
        })
        .await
    }

    async fn get_member(
        &self,
        request: Request<pb::GetMemberRequest>,
    ) -> Result<Response<pb::Member>, Status> {
        let (claims, _) = identify(&request)?;
        let name = &request.get_ref().name;
        let (workspace_id, account_id) = claims.own("name", "member", name, parse_member_name)?;
        answer(async { Ok(to_member(workspace_id, self.members.get(workspace_id, account_id).await?)) }).await
    }

    async fn update_member(
        &self,
        request: Request<pb::UpdateMemberRequest>,
    ) -> Result<Response<pb::Member>, Status> {
        let (claims, caller) = identify(&request)?;
        let pb::UpdateMemberRequest { member, update_mask } = request.into_inner();
        let member = member.unwrap_or_default();
        let name = claims.own("member.name", "member", &member.name, parse_member_name)?;
        answer(async {
            fields::masked(update_mask.as_ref(), [("role", true)])?;
            let role = wire::read_role("member.role", member.role)?;
            let changed = self.members.update(name, role, (&claims, &caller), now()).await?;
            Ok(to_member(name.0, changed))
        })
        .await
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Result<Response<pb::RemoveMemberResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let name = claims.own("name", "member", &request.get_ref().name, parse_member_name)?;
        answer(async {
            self.members.remove(name, (&claims, &caller), now()).await?;
            Ok(pb::RemoveMemberResponse {})
        })
        .await
    }

    async fn create_invitation(
        &self,
        request: Request<pb::CreateInvitationRequest>,
    ) -> Result<Response<pb::CreateInvitationResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let invitation = required("invitation", request.invitation)?;
            let email = fields::email("invitation.email", &invitation.email)?;
            let role = wire::read_role("invitation.role", invitation.role)?;
            let made =
                self.invitations.create(workspace_id, (email, role), (&claims, &caller), now()).await?;
            let token = made.1.expose_secret().to_owned();
            Ok(pb::CreateInvitationResponse { invitation: Some(wire::invitation(made.0)), token })
        })
        .await
    }

    async fn list_invitations(
        &self,
        request: Request<pb::ListInvitationsRequest>,
    ) -> Result<Response<pb::ListInvitationsResponse>, Status> {
        let (claims, _) = identify(&request)?;
        let request = request.into_inner();
        let workspace_id = claims.workspace(&request.parent)?;
        answer(async {
            let size = page::size(request.page_size)?;
            let list = format!("invitations of {workspace_id}");
            let after = page::position::<Place>(&list, &request.page_token)?;
            let after = after.map(page::read_place).transpose()?;
            let (found, last) = self.invitations.list(workspace_id, after, size, now()).await?;
            Ok(pb::ListInvitationsResponse {
                invitations: found.into_iter().map(wire::invitation).collect(),
                next_page_token: last.map(|last| page::token(&list, &page::place(last))).unwrap_or_default(),
            })
        })
        .await
    }

    async fn delete_invitation(
        &self,
        request: Request<pb::DeleteInvitationRequest>,
    ) -> Result<Response<pb::DeleteInvitationResponse>, Status> {
        let (claims, caller) = identify(&request)?;
        let name = claims.own("name", "invitation", &request.get_ref().name, parse_invitation_name)?;
        answer(async {
            self.invitations.delete(name, (&claims, &caller), now()).await?;
            Ok(pb::DeleteInvitationResponse {})
        })
        .await
    }
}

fn to_member(workspace_id: WorkspaceId, member: Member) -> pb::Member {
    pb::Member {
        name: member_name(workspace_id, member.account_id),
        email: member.email,
        role: wire::role(member.role).into(),
        create_time: Some(to_proto(member.create_time)),
    }
}
