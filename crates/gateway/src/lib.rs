//! The agent on a vehicle's gateway (VMG): keeps the link to the server, asks the ECUs what they are, and
//! carries out what `farrier_vehicle_update` decides. It decides nothing of an update itself.

mod agent;
pub mod arguments;
mod backoff;
mod check;
mod clock;
mod config;
mod consent;
mod disk;
mod download;
pub mod ecu_link;
mod error_text;
#[cfg(test)]
mod every_instant;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod identity;
mod image_store;
mod inventory;
mod journal;
mod readiness;
mod release_signature;
#[cfg(test)]
#[path = "../tests/conversation/scripted_server.rs"]
#[allow(dead_code, reason = "the tests of conversations use more of it")]
mod scripted_server;
mod server_link;
mod service_manager;
mod status;
mod status_socket;
mod tls;
pub mod topology;
#[cfg(test)]
mod watch;

pub use agent::{Gateway, GatewayFailure, Pulse, RunningGateway, StartError};
pub use check::{Finding, check};
pub use config::{ConfigError, Consent, ConsentSettings, DownloadLimits, GatewayConfig};
pub use download::SetUpError;
pub use error_text::with_causes;
pub use farrier_vehicle_update::{Bounds, Ending, Phase, ReadinessPolicy, VehicleSignals};
pub use journal::JournalError;
pub use readiness::{ReadinessSource, SignalsFile, SignalsUnavailable};
pub use release_signature::ReleaseKeyError;
pub use service_manager::ServiceManager;
pub use status::{EcuProgress, Status};
pub use status_socket::{StatusReport, WrittenReport};
pub use tls::TlsError;
