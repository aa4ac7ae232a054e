//! The API behind the edge: where it is, which of its addresses works, and connections to it.

pub(crate) mod address;
pub(crate) mod connect;
pub(crate) mod health;
pub(crate) mod pool;
pub(crate) mod probe;

pub use self::{
    address::{Address, Protocol},
    connect::Trust,
    probe::Probing,
};
