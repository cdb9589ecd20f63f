//! To be written.

pub mod ecu_link;
pub mod topology;
