//! The VMG–server protocol, version 1.0: messages, strict parsing, refusals.
//! Owns what the wire may say; leaves who may say it when to the server's conversation.
//!
//! A message comes in by [`ReceivedMessage::parse`] or [`ServerMessage::parse`] and goes out by
//! `to_json`. Past this crate there is no JSON and no unchecked string. `docs/protocol.md` explains the
//! protocol to people who write a gateway of their own.

mod answer;
mod check;
mod condition;
mod deadline;
mod decode;
mod digest;
mod envelope;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ids;
mod json;
mod message;
mod names;
mod parse;
mod placement;
mod refusal;
mod retry;
mod rules;
mod schema;
mod topics;

pub use check::*;
pub use condition::*;
pub use digest::*;
pub use envelope::*;
pub use ids::*;
pub use message::*;
pub use parse::*;
pub use placement::*;
pub use refusal::*;
pub use retry::*;
pub use schema::*;
pub use topics::*;
