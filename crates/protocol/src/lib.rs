//! The VMG–server protocol, version 1.0: messages, strict parsing, refusals.
//! Owns what the wire may say; leaves who may say it when to the server's conversation.

mod condition;
mod ids;
mod message;
mod refusal;

pub use condition::*;
pub use ids::*;
pub use message::*;
pub use refusal::*;
