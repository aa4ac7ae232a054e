//! The pages: handlers that call, view models that are pure, templates that hold no logic.

use domain::WorkspaceId;
use proto::keys::Role;

use crate::roles::{self, Right};

pub(crate) mod audit;
mod audit_filter;
mod audit_view;
pub(crate) mod columns;
pub(crate) mod invitations;
pub(crate) mod keys;
mod keys_view;
pub(crate) mod members;
mod members_view;
mod permission;
pub(crate) mod provider;
mod receipt_view;
pub(crate) mod service_tokens;
pub(crate) mod settings;
pub(crate) mod sign_in;
pub(crate) mod theme;
pub(crate) mod usage;
pub(crate) mod views;
pub(crate) mod workspace_end;
pub(crate) mod workspaces;

/// What surrounds every page of somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    /// Who is signed in.
    pub(crate) email: String,
    /// The workspace's name.
    pub(crate) workspace: String,
    /// Which workspace: forms carry it, so that none changes another one.
    pub(crate) workspace_id: WorkspaceId,
    /// The workspaces to switch between.
    pub(crate) workspaces: Vec<(WorkspaceId, String)>,
    /// What the person may do here.
    pub(crate) role: Role,
    /// Whether the person signed in at the provider, and so has to prove there once more who they are.
    pub(crate) by_provider: bool,
    /// This page's address, to come back to.
    pub(crate) here: String,
}

impl Shell {
    /// Whether the person may invite, change and remove members.
    #[must_use]
    pub(crate) fn may_manage_members(&self) -> bool {
        Right::ManageMembers.is_of(self.role)
    }

    /// Whether the person may read the audit log.
    #[must_use]
    pub(crate) fn may_read_audit(&self) -> bool {
        Right::ReadAudit.is_of(self.role)
    }

    /// Whether the person may see and change the settings.
    #[must_use]
    pub(crate) fn may_change_workspace(&self) -> bool {
        Right::ChangeWorkspace.is_of(self.role)
    }

    /// Whether the person may suspend, export and delete the workspace.
    #[must_use]
    pub(crate) fn may_end_workspace(&self) -> bool {
        Right::EndWorkspace.is_of(self.role)
    }

    /// The link to prove at the provider once more who one is.
    #[must_use]
    pub(crate) fn prove_again(&self) -> String {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs([("again", "1"), ("next", &self.here)])
            .finish();
        format!("/sign-in/oidc?{query}")
    }

    /// The person's role here.
    #[must_use]
    pub(crate) fn role_title(&self) -> &'static str {
        roles::title(self.role)
    }

    /// Whether there is more than one workspace.
    #[must_use]
    pub(crate) fn may_switch(&self) -> bool {
        self.workspaces.len() > 1
    }
}
