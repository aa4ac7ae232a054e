//! What the fakes know of a workspace's people, tokens, log and of the workspaces themselves. Holds the rules that
//! pages have words for, and no others.

use domain::{AccountId, WorkspaceId};
use proto::{keys as k, resource};
use time::Duration;
use tonic::{Code, Status};

use crate::fakes::{EMAIL, Fakes, ago};

/// All of it; tests change it at will.
pub(crate) struct Team {
    /// Of whoever is signed in.
    pub(crate) role: k::Role,
    pub(crate) members: Vec<k::Member>,
    pub(crate) invitations: Vec<k::Invitation>,
    pub(crate) service_tokens: Vec<k::ServiceToken>,
    pub(crate) entries: Vec<k::AuditEntry>,
    /// Those that the person who is signed in is in, the first one first.
    pub(crate) workspaces: Vec<k::Workspace>,
    /// The mask of the last change of a workspace.
    pub(crate) changed_paths: Vec<String>,
}

impl Team {
    pub(crate) fn new(workspace_id: WorkspaceId) -> Self {
        let owner = k::Member {
            name: resource::member_name(workspace_id, AccountId::generate()),
            email: EMAIL.to_owned(),
            role: k::Role::Owner.into(),
            create_time: Some(ago(Duration::HOUR)),
        };
        Self {
            role: k::Role::Owner,
            members: vec![owner],
            invitations: Vec::new(),
            service_tokens: Vec::new(),
            entries: Vec::new(),
            workspaces: vec![workspace(workspace_id, "Acme")],
            changed_paths: Vec::new(),
        }
    }

    /// The workspace of this name; the first one if it is empty.
    pub(crate) fn workspace(&self, name: &str) -> Result<String, Status> {
        let mut all = self.workspaces.iter();
        let found = all.find(|each| name.is_empty() || each.name == name).map(|each| each.name.clone());
        found.ok_or_else(|| {
            refused(Code::PermissionDenied, "NOT_A_MEMBER", "the account is not in that workspace")
        })
    }

    /// Id of the member with this address.
    pub(crate) fn id(&self, email: &str) -> String {
        let member = self.members.iter().find(|member| member.email == email).unwrap();
        member.name.rsplit('/').next().unwrap().to_owned()
    }
}

impl Fakes {
    /// Another member; its id.
    pub(crate) fn add_member(&self, email: &str, role: k::Role) -> AccountId {
        let id = AccountId::generate();
        self.change(|state| {
            state.team.members.push(k::Member {
                name: resource::member_name(state.workspace_id, id),
                email: email.to_owned(),
                role: role.into(),
                create_time: Some(ago(Duration::MINUTE)),
            });
        });
        id
    }

    /// Another workspace that the person is in.
    pub(crate) fn add_workspace(&self, display_name: &str) -> WorkspaceId {
        let id = WorkspaceId::generate();
        self.change(|state| state.team.workspaces.push(workspace(id, display_name)));
        id
    }

    /// What the person who is signed in may do from now on.
    pub(crate) fn set_role(&self, role: k::Role) {
        self.change(|state| state.team.role = role);
    }
}

pub(crate) fn workspace(workspace_id: WorkspaceId, display_name: &str) -> k::Workspace {
    k::Workspace {
        name: resource::workspace_name(workspace_id),
        display_name: display_name.to_owned(),
        create_time: Some(ago(Duration::DAY)),
        audit_retention_days: 400,
        request_retention_days: 90,
        keep_copies: true,
        address_storage: k::AddressStorage::Whole.into(),
        ..k::Workspace::default()
    }
}

pub(crate) fn refused(code: Code, reason: &str, message: &str) -> Status {
    proto::status::error(code, reason, message)
}

/// A page of a list whose token is the place where it goes on.
pub(crate) fn cut<T: Clone>(all: &[T], size: i32, token: &str) -> Result<(Vec<T>, String), Status> {
    let from: usize = match token {
        "" => 0,
        token => token.parse().map_err(|_| proto::status::invalid("page_token", "not one of ours"))?,
    };
    let size = if size == 0 { 50 } else { usize::try_from(size).unwrap() };
    let next = if from + size < all.len() { (from + size).to_string() } else { String::new() };
    Ok((all.iter().skip(from).take(size).cloned().collect(), next))
}
