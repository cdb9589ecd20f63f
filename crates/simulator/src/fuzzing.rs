//! What the fuzz targets of the simulators run: whatever a tester, or whoever is in its place, may send.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

pub use crate::doip_entity::fuzzing::doip_entity;
pub use crate::ecu::fuzzing::uds_requests;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_doip_entity_hold() {
        replay::replay("doip_entity", doip_entity);
    }

    #[test]
    fn the_inputs_of_uds_requests_hold() {
        replay::replay("uds_requests", uds_requests);
    }
}
