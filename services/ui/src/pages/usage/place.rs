//! Which usage page somebody is on: one key's, or that of the whole workspace.

use axum::extract::RawPathParams;
use domain::KeyId;

use crate::{problem::Stop, visit::Visit};

/// A usage page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The key whose page it is; `None` on that of the workspace.
    pub(crate) own: Option<KeyId>,
}

impl Place {
    /// The page that an address names.
    ///
    /// # Errors
    /// The answer for an address with something that is no key's id.
    pub(crate) fn of(params: &RawPathParams, visit: &Visit) -> Result<Self, Stop> {
        let key_id = params.iter().find(|(name, _)| *name == "key_id").map(|(_, value)| value.parse());
        Ok(Self { own: key_id.transpose().map_err(|_| visit.not_found())? })
    }

    /// Its address, without a filter.
    #[must_use]
    pub(crate) fn path(&self) -> String {
        self.own.map_or_else(|| "/overview".to_owned(), |key_id| format!("/keys/{key_id}/usage"))
    }
}
