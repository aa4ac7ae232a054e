//! The pages: handlers that call, view models that are pure, templates that hold no logic.

pub(crate) mod columns;
pub(crate) mod keys;
mod keys_view;
mod receipt_view;
pub(crate) mod sign_in;
pub(crate) mod usage;
mod usage_view;

/// What surrounds every page of somebody who is signed in.
#[derive(Debug, Clone)]
pub(crate) struct Shell {
    /// Who is signed in.
    pub(crate) email: String,
    /// The workspace's name.
    pub(crate) workspace: String,
}
