//! Members and invitations, as far as pages ask about them.

use domain::InvitationId;
use proto::{keys as k, resource};
use time::Duration;
use tonic::{Code, Request, Response, Status};

use crate::{
    fake_team::{cut, refused},
    fakes::{Fakes, PASSWORD, ago},
};

/// The token of every invitation.
pub(crate) const INVITATION: &str = "kminv_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg";
/// What a new account chooses.
pub(crate) const NEW_PASSWORD: &str = "battery staple";

type Answer<T> = Result<Response<T>, Status>;

impl Fakes {
    pub(crate) fn invitation(&self, token: &str) -> Answer<k::GetInvitationResponse> {
        self.enter("GetInvitation")?;
        let open = self.change(|state| {
            let invitation = state.team.invitations.last().filter(|_| token == INVITATION).cloned();
            Some((invitation?, state.team.workspaces[0].display_name.clone()))
        });
        let (invitation, workspace_display_name) =
            open.ok_or_else(|| Status::unauthenticated("the invitation is not open"))?;
        Ok(Response::new(k::GetInvitationResponse { invitation: Some(invitation), workspace_display_name }))
    }

    /// Whoever accepts is signed in as the person of the fakes.
    pub(crate) fn accept(&self, request: &k::AcceptInvitationRequest) -> Answer<k::AcceptInvitationResponse> {
        self.enter("AcceptInvitation")?;
        if request.password.chars().count() < 8 {
            return Err(proto::status::invalid("password", "must have 8 characters to 1,024 bytes"));
        }
        let is_good = [PASSWORD, NEW_PASSWORD].contains(&request.password.as_str());
        let is_good = is_good && request.token == INVITATION;
        let open = self.change(|state| if is_good { state.team.invitations.pop() } else { None });
        let Some(invitation) = open else {
            return Err(Status::unauthenticated("the invitation is not open, or the password is wrong"));
        };
        let session_token = self.change(|state| {
            state.sessions.push(format!("session-{}", state.calls.len()));
            state.sessions.last().unwrap().clone()
        });
        let workspace = invitation.name.split("/invitations/").next().unwrap().to_owned();
        let (access_token, workspace) = self.access_of(&workspace);
        Ok(Response::new(k::AcceptInvitationResponse { session_token, access_token, workspace }))
    }

    fn member(&self, name: &str) -> Result<k::Member, Status> {
        let found = self.change(|state| state.team.members.iter().find(|each| each.name == name).cloned());
        found.ok_or_else(|| proto::status::not_found("member", name))
    }

    fn check_not_last_owner(&self, member: &k::Member) -> Result<(), Status> {
        let owners = self.change(|state| {
            state.team.members.iter().filter(|member| member.role() == k::Role::Owner).count()
        });
        if member.role() == k::Role::Owner && owners <= 1 {
            let message = "a workspace always has an owner; make another member one first";
            return Err(refused(Code::FailedPrecondition, "LAST_OWNER", message));
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl k::members_service_server::MembersService for Fakes {
    async fn list_members(&self, request: Request<k::ListMembersRequest>) -> Answer<k::ListMembersResponse> {
        self.admit("ListMembers", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let all = self.change(|state| state.team.members.clone());
        let (members, next_page_token) = cut(&all, request.page_size, &request.page_token)?;
        Ok(Response::new(k::ListMembersResponse { members, next_page_token }))
    }

    async fn get_member(&self, request: Request<k::GetMemberRequest>) -> Answer<k::Member> {
        self.admit("GetMember", &request, &request.get_ref().name)?;
        Ok(Response::new(self.member(&request.get_ref().name)?))
    }

    async fn update_member(&self, request: Request<k::UpdateMemberRequest>) -> Answer<k::Member> {
        let asked = request.get_ref().member.clone().unwrap_or_default();
        self.admit("UpdateMember", &request, &asked.name)?;
        if asked.role() == k::Role::Unspecified {
            return Err(proto::status::invalid("member.role", "must be ROLE_OWNER or another"));
        }
        let member = self.member(&asked.name)?;
        self.check_not_last_owner(&member)?;
        self.change(|state| {
            let mut members = state.team.members.iter_mut();
            members.find(|member| member.name == asked.name).unwrap().role = asked.role;
        });
        Ok(Response::new(self.member(&asked.name)?))
    }

    async fn remove_member(
        &self,
        request: Request<k::RemoveMemberRequest>,
    ) -> Answer<k::RemoveMemberResponse> {
        let name = request.get_ref().name.clone();
        self.admit("RemoveMember", &request, &name)?;
        let member = self.member(&name)?;
        self.check_not_last_owner(&member)?;
        self.change(|state| state.team.members.retain(|member| member.name != name));
        Ok(Response::new(k::RemoveMemberResponse {}))
    }

    async fn create_invitation(
        &self,
        request: Request<k::CreateInvitationRequest>,
    ) -> Answer<k::CreateInvitationResponse> {
        self.admit("CreateInvitation", &request, &request.get_ref().parent)?;
        let asked = request.into_inner().invitation.unwrap_or_default();
        if !asked.email.contains('@') {
            return Err(proto::status::invalid("invitation.email", "must be an e-mail address"));
        }
        if asked.role() == k::Role::Unspecified {
            return Err(proto::status::invalid("invitation.role", "must be ROLE_OWNER or another"));
        }
        let invitation = self.change(|state| {
            if state.team.members.iter().any(|member| member.email == asked.email) {
                return Err(refused(Code::AlreadyExists, "ALREADY_MEMBER", "use UpdateMember"));
            }
            if state.team.invitations.iter().any(|open| open.email == asked.email) {
                return Err(refused(Code::AlreadyExists, "ALREADY_INVITED", "use DeleteInvitation"));
            }
            let invitation = k::Invitation {
                name: resource::invitation_name(state.workspace_id, InvitationId::generate()),
                create_time: Some(ago(Duration::ZERO)),
                expire_time: Some(ago(-Duration::WEEK)),
                ..asked
            };
            state.team.invitations.push(invitation.clone());
            Ok(invitation)
        })?;
        let (invitation, token) = (Some(invitation), INVITATION.to_owned());
        Ok(Response::new(k::CreateInvitationResponse { invitation, token }))
    }

    async fn list_invitations(
        &self,
        request: Request<k::ListInvitationsRequest>,
    ) -> Answer<k::ListInvitationsResponse> {
        self.admit("ListInvitations", &request, &request.get_ref().parent)?;
        let request = request.into_inner();
        let all = self.change(|state| state.team.invitations.clone());
        let (invitations, next_page_token) = cut(&all, request.page_size, &request.page_token)?;
        Ok(Response::new(k::ListInvitationsResponse { invitations, next_page_token }))
    }

    async fn delete_invitation(
        &self,
        request: Request<k::DeleteInvitationRequest>,
    ) -> Answer<k::DeleteInvitationResponse> {
        let name = request.get_ref().name.clone();
        self.admit("DeleteInvitation", &request, &name)?;
        let was = self.change(|state| state.team.invitations.len());
        let is = self.change(|state| {
            state.team.invitations.retain(|open| open.name != name);
            state.team.invitations.len()
        });
        if was == is {
            return Err(proto::status::not_found("invitation", &name));
        }
        Ok(Response::new(k::DeleteInvitationResponse {}))
    }
}
