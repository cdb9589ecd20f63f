//! What the fuzz targets of the diagnostics run: whatever an ECU, or whoever is in its place, may send.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

mod isotp;
mod socketcand;
mod uds_answers;

pub use isotp::isotp;
pub use socketcand::socketcand;
pub use uds_answers::uds_answers;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_isotp_hold() {
        replay::replay("isotp", isotp);
    }

    #[test]
    fn the_inputs_of_socketcand_hold() {
        replay::replay("socketcand", socketcand);
    }

    #[test]
    fn the_inputs_of_uds_answers_hold() {
        replay::replay("uds_answers", uds_answers);
    }
}
