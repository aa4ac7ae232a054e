//! People of every role and services of every scope in one workspace, and a foreign workspace with one of everything.

use access::{Role, Scope};
use domain::WorkspaceId;
use proto::keys::{
    self as pb, keys_service_client::KeysServiceClient, members_service_client::MembersServiceClient,
    service_tokens_service_client::ServiceTokensServiceClient,
    sessions_service_client::SessionsServiceClient, workspaces_service_client::WorkspacesServiceClient,
};
use tonic::{Request, transport::Channel};

use crate::stack::{ADMIN_EMAIL, ADMIN_PASSWORD, Stack};

const PASSWORD: &str = "correct horse battery";

/// Somebody who calls.
pub(crate) struct Caller {
    pub(crate) role: Role,
    pub(crate) scopes: Vec<String>,
    pub(crate) token: String,
}

/// One of everything in a workspace that none of the callers is in.
pub(crate) struct Things {
    pub(crate) workspace_id: WorkspaceId,
    key: String,
    secret: String,
    request: String,
    member: String,
    invitation: String,
    service_token: String,
}

impl Things {
    /// The name of the thing of that noun.
    pub(crate) fn name(&self, noun: &str) -> String {
        match noun {
            "Workspace" => format!("workspaces/{}", self.workspace_id),
            "Key" => self.key.clone(),
            "Secret" => self.secret.clone(),
            "Request" => self.request.clone(),
            "Member" => self.member.clone(),
            "Invitation" => self.invitation.clone(),
            "ServiceToken" => self.service_token.clone(),
            _ => String::new(),
        }
    }
}

/// All of them.
pub(crate) struct Team {
    pub(crate) callers: Vec<Caller>,
    pub(crate) foreign: Things,
}

fn bearer<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

impl Team {
    /// Every role, and a service with each scope alone beside the one with all.
    pub(crate) fn kinds() -> Vec<(Role, Vec<String>)> {
        let roles = Role::ALL.into_iter().map(|role| (role, vec![]));
        let scopes = Scope::ALL.into_iter().map(|scope| (Role::Service, vec![scope.as_str().to_owned()]));
        roles.chain(scopes).collect()
    }

    /// Lets them come in.
    pub(crate) async fn gather(stack: &Stack) -> Self {
        let channel = stack.keys_channel().await;
        let sign_in = pb::SignInRequest { email: ADMIN_EMAIL.into(), password: ADMIN_PASSWORD.into() };
        let signed_in = SessionsServiceClient::new(channel.clone()).sign_in(sign_in).await.unwrap();
        let owner = signed_in.into_inner().access_token.unwrap().token;
        let mut callers = Vec::new();
        for (role, scopes) in Self::kinds() {
            let token = match role {
                Role::Owner => owner.clone(),
                Role::Service => service(&channel, &owner, &stack.workspace, &scopes).await.1,
                _ => {
                    let email = format!("{role}@example.org");
                    join(&channel, &owner, &stack.workspace, &email, role).await.1
                }
            };
            callers.push(Caller { role, scopes, token });
        }
        let foreign = foreign(stack, &channel, &owner).await;
        Self { callers, foreign }
    }
}

/// Invites a person and lets it come in: the session and the access token.
async fn join(channel: &Channel, owner: &str, parent: &str, email: &str, role: Role) -> (String, String) {
    let role = match role {
        Role::Owner => pb::Role::Owner,
        Role::Admin => pb::Role::Admin,
        Role::Member => pb::Role::Member,
        Role::Viewer => pb::Role::Viewer,
        Role::LogViewer | Role::Service => pb::Role::LogViewer,
    };
    let (_, token) = invite(channel, owner, parent, email, role).await;
    let accept = pb::AcceptInvitationRequest { token, password: PASSWORD.into() };
    let accepted = SessionsServiceClient::new(channel.clone()).accept_invitation(accept).await.unwrap();
    let accepted = accepted.into_inner();
    (accepted.session_token, accepted.access_token.unwrap().token)
}

async fn invite(channel: &Channel, by: &str, parent: &str, email: &str, role: pb::Role) -> (String, String) {
    let invitation = pb::Invitation { email: email.into(), role: role.into(), ..Default::default() };
    let request = pb::CreateInvitationRequest { parent: parent.into(), invitation: Some(invitation) };
    let made =
        MembersServiceClient::new(channel.clone()).create_invitation(bearer(by, request)).await.unwrap();
    let made = made.into_inner();
    (made.invitation.unwrap().name, made.token)
}

/// Makes a service token: its name, and an access token.
async fn service(channel: &Channel, by: &str, parent: &str, scopes: &[String]) -> (String, String) {
    let asked = pb::ServiceToken {
        display_name: "matrix".into(),
        scopes: scopes.to_vec(),
        ..pb::ServiceToken::default()
    };
    let request = pb::CreateServiceTokenRequest { parent: parent.into(), service_token: Some(asked) };
    let mut client = ServiceTokensServiceClient::new(channel.clone());
    let made = client.create_service_token(bearer(by, request)).await.unwrap().into_inner();
    let exchange = pb::ExchangeTokenRequest { service_token: made.token };
    let token = SessionsServiceClient::new(channel.clone()).exchange_token(exchange).await.unwrap();
    (made.service_token.unwrap().name, token.into_inner().access_token.unwrap().token)
}

/// A stranger with a workspace of their own, and one of everything in it.
async fn foreign(stack: &Stack, channel: &Channel, owner: &str) -> Things {
    let (session_token, token) =
        join(channel, owner, &stack.workspace, "stranger@example.org", Role::Viewer).await;
    let workspace = Some(pb::Workspace { display_name: "Elsewhere".into(), ..Default::default() });
    let create = bearer(&token, pb::CreateWorkspaceRequest { workspace });
    let made = WorkspacesServiceClient::new(channel.clone()).create_workspace(create).await.unwrap();
    let parent = made.into_inner().name;
    let refresh = pb::RefreshRequest { session_token, workspace: parent.clone() };
    let refreshed = SessionsServiceClient::new(channel.clone()).refresh(refresh).await.unwrap();
    let token = refreshed.into_inner().access_token.unwrap().token;

    let key = Some(pb::Key { display_name: "theirs".into(), ..Default::default() });
    let create = pb::CreateKeyRequest { parent: parent.clone(), key, ..Default::default() };
    let mut keys = KeysServiceClient::new(channel.clone());
    let made = keys.create_key(bearer(&token, create)).await.unwrap().into_inner();
    let key = made.key.unwrap().name;
    let client = stack.client(&made.secret);
    let request_id = parts::eventually("the edge takes the key", async || {
        let answer = client.get("/v1/orders").await;
        (answer.status == 200).then(|| answer.request_id())
    })
    .await;
    let secret_id = domain::SecretId::generate();
    let mut members = MembersServiceClient::new(channel.clone());
    let list = pb::ListMembersRequest { parent: parent.clone(), ..Default::default() };
    let member =
        members.list_members(bearer(&token, list)).await.unwrap().into_inner().members.remove(0).name;
    let (invitation, _) = invite(channel, &token, &parent, "friend@example.org", pb::Role::Viewer).await;
    let (service_token, _) = service(channel, &token, &parent, &[]).await;
    stack.complete().await;
    Things {
        workspace_id: parent.strip_prefix("workspaces/").unwrap().parse().unwrap(),
        secret: format!("{key}/secrets/{secret_id}"),
        key,
        request: format!("{parent}/requests/{request_id}"),
        member,
        invitation,
        service_token,
    }
}
