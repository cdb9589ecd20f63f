//! To be written.

pub mod desk;
pub mod files;
pub mod mqtt;
pub mod pki;
pub mod tls;
