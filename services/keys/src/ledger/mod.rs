//! The record of what happened: every key event and audit entry of a workspace has its place in one chain of
//! hashes, whose end is signed (LEDGER.md). Pure but for [`Ledger`], which asks for keys of persons; the rows are
//! written by `store`.

mod backfill;
mod canonical;
mod check;
mod entry;
mod head;
mod person;

pub use backfill::backfill;
pub use check::{Checker, Finding, Flaw, PRUNE_ACTION, Pruned};
pub use entry::{Entry, Fact, Hash, Origin, Sealed, Stored};
pub use head::{Head, SignedHead};
pub use person::{Address, KeptPersonKey, Ledger, PersonKey};
