//! Who may change which key. Pure.

use access::Claims;

use crate::key::Key;

/// Whether a caller whose role lets them change keys may change this one.
#[must_use]
pub fn may_change(_claims: &Claims, _key: &Key) -> bool {
    true
}
