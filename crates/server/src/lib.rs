//! To be written.

pub mod desk;
pub mod mqtt;
