//! Help for tests of teams: people in roles, and what they may ask.

use proto::keys::{
    AcceptInvitationRequest, CreateInvitationRequest, GetInvitationRequest, GetInvitationResponse,
    Invitation, ListMembersRequest, Member, RefreshRequest, Role, UpdateMemberRequest,
    audit_service_client::AuditServiceClient, members_service_client::MembersServiceClient,
    service_tokens_service_client::ServiceTokensServiceClient,
};
use tonic::{Code, Status, transport::Channel};

use crate::harness::{EMAIL, PASSWORD, Running, bearer, reason};

/// Somebody of the team.
pub(crate) struct Person {
    /// `workspaces/…/members/…`
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) session: String,
    pub(crate) token: String,
}

impl Running {
    pub(crate) fn members(&self) -> MembersServiceClient<Channel> {
        MembersServiceClient::new(self.service.channel.clone())
    }

    pub(crate) fn service_tokens(&self) -> ServiceTokensServiceClient<Channel> {
        ServiceTokensServiceClient::new(self.service.channel.clone())
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.service.channel.clone())
    }

    /// Invites a person: the invitation's name and token.
    pub(crate) async fn invite(
        &self,
        token: &str,
        email: &str,
        role: Role,
    ) -> Result<(String, String), Status> {
        let invitation = Invitation { email: email.into(), role: role.into(), ..Invitation::default() };
        let request =
            CreateInvitationRequest { parent: self.workspace.clone(), invitation: Some(invitation) };
        let made = self.members().create_invitation(bearer(token, request)).await?.into_inner();
        Ok((made.invitation.unwrap().name, made.token))
    }

    /// What an invitation is for.
    pub(crate) async fn look_at(&self, token: &str) -> Result<GetInvitationResponse, Status> {
        let request = GetInvitationRequest { token: token.into() };
        Ok(self.sessions().get_invitation(request).await?.into_inner())
    }

    pub(crate) async fn accept(&self, token: &str, password: &str) -> Result<(String, String), Status> {
        let request = AcceptInvitationRequest { token: token.into(), password: password.into() };
        let accepted = self.sessions().accept_invitation(request).await?.into_inner();
        Ok((accepted.session_token, accepted.access_token.unwrap().token))
    }

    /// Somebody who has come in with that role.
    pub(crate) async fn join(&self, email: &str, role: Role) -> Person {
        let (_, invitation) = self.invite(&self.admin, email, role).await.unwrap();
        let (session, token) = self.accept(&invitation, PASSWORD).await.unwrap();
        let name = self.member(email).await.name;
        Person { name, email: email.to_owned(), session, token }
    }

    /// The person whom the harness signs in: an owner.
    pub(crate) async fn owner(&self) -> Person {
        let session = crate::harness::sign_in(&mut self.sessions(), EMAIL).await.unwrap().session_token;
        let (name, token) = (self.member(EMAIL).await.name, self.admin.clone());
        Person { name, email: EMAIL.to_owned(), session, token }
    }

    pub(crate) async fn member(&self, email: &str) -> Member {
        let request = ListMembersRequest { parent: self.workspace.clone(), ..Default::default() };
        let members = self.members().list_members(self.ask(request)).await.unwrap().into_inner().members;
        members.into_iter().find(|member| member.email == email).expect("a member of that address")
    }

    /// Gives `who` another role, asked for by `by`.
    pub(crate) async fn set_role(&self, by: &Person, who: &Person, role: Role) -> Result<Member, Status> {
        let member = Member { name: who.name.clone(), role: role.into(), ..Member::default() };
        let request = UpdateMemberRequest { member: Some(member), update_mask: None };
        self.members().update_member(bearer(&by.token, request)).await.map(tonic::Response::into_inner)
    }

    /// A fresh access token of a person, as its session gives it now.
    pub(crate) async fn refresh(&self, person: &Person) -> Result<String, Status> {
        let request =
            RefreshRequest { session_token: person.session.clone(), workspace: self.workspace.clone() };
        Ok(self.sessions().refresh(request).await?.into_inner().access_token.unwrap().token)
    }
}

/// That a call was refused for that reason.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, why: &str) {
    let status = result.expect_err("refused");
    assert_eq!((status.code(), reason(&status).as_str()), (code, why), "{status:?}");
}
