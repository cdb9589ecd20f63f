//! Diagnostics inside the vehicle: DoIP and ISO-TP frames, UDS requests and answers, the reprogramming sequence of
//! one ECU and what to do about each negative response.
//!
//! Everything here is values in, decisions out; sockets, files and clocks belong to the gateway and the
//! simulator. `now` is a `Duration` since any fixed moment of the caller's monotonic clock.

pub mod can;
pub mod doip;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identification;
pub mod isotp;
mod policy;
mod sequence;
mod settings;
pub mod uds;

pub use identification::{Identification, IdentificationField, NotAText, Running, Trial};
pub use policy::{Decision, decide};
pub use sequence::{Call, Failure, RestartCause, Routine, Sequence, Step, WriteJob};
pub use settings::{Identifiers, SecurityAlgorithm, Settings, Timers};
