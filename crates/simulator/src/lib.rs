//! Simulated vehicles: ECUs with two banks behind DoIP entities, and faults on request.

pub mod can_bus;
pub mod doip_entity;
pub mod ecu;
#[doc(hidden)]
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod vehicle;
