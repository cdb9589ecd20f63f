//! Farrier's server: it speaks to vehicles by MQTT and HTTPS, to operators by an HTTP API, and remembers
//! everything in one store. A shell: what is decided, the pure crates `protocol` and `campaign` decide.

mod access;
mod api;
mod artifacts;
pub mod audit;
mod audit_heads;
pub mod backup;
pub mod bench;
pub mod broker;
mod change_feed;
mod change_types;
mod config;
mod console;
mod conversation;
mod delta_maker;
pub mod desk;
#[cfg(test)]
mod every_order;
pub mod evidence;
pub mod files;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod gatekeeper;
mod lingering;
mod measurements;
pub mod mqtt;
mod new_token;
mod nodes;
mod operator_listener;
mod own_certificate;
pub mod pki;
mod private_file;
mod release_signature;
mod runner;
mod sampler;
#[cfg(test)]
mod scenarios;
mod sessions;
mod stall;
mod start;
mod store;
#[cfg(test)]
mod testbed;
pub mod tls;
mod vehicle_fields;
pub mod vehicle_files;
pub mod webhooks;

/// What spans are about that tell of every message, command, request and batch of due work: a target of its own, so that
/// logs do not carry them and a collector can ask for them.
pub const SPANS: &str = "farrier_server::spans";

pub use config::{ConfigError, Enroll, OperatorTlsPaths, ServerConfig, TlsPaths};
pub use console::{OidcError, OidcSettings};
pub use release_signature::ReleaseKeyError;
pub use start::{RunningServer, Server, StartError};
pub use store::{AddressError, PostgresAddress, StoreError};
