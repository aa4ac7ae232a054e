//! Who may change which key. Pure.

use access::Claims;

use crate::key::Key;

/// Whether a caller whose role lets them change keys may change this one.
#[must_use]
pub fn may_change(claims: &Claims, key: &Key) -> bool {
    let owner = key.owner.map(|owner| owner.to_string()).unwrap_or_default();
    claims.may_change_key_of(&owner)
}
