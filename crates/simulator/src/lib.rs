//! Simulated vehicles: ECUs with two banks behind DoIP entities, and faults on request.

pub mod can_bus;
pub mod doip_entity;
pub mod ecu;
pub mod vehicle;
