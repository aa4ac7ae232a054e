//! What the tests share: the parts, an edge to play, questions to ClickHouse.

mod chance;
mod edge;
pub(crate) mod example;
mod stage;

pub(crate) use chance::Chance;
pub(crate) use edge::Edge;
pub(crate) use stage::{Stage, owns};
