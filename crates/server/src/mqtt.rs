//! The MQTT endpoint for vehicles: 5.0 and 3.1.1 over mutual TLS.

mod connections;

pub use connections::Connections;
