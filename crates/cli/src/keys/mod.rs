//! Keys from birth to deletion. Secrets go to standard output alone, and nowhere else.

mod change;
mod fields;
mod look;
mod secret;

pub(crate) use change::{delete, disable, edit, enable};
pub(crate) use look::{list, names, show};
pub(crate) use secret::{create, reveal, rotate};
