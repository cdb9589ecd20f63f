//! What the fuzz targets of the server run: whatever a vehicle, or whoever is in its place, may send.

pub use crate::files::http_ranges;
pub use crate::mqtt::fuzzing::mqtt_input;

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_http_ranges_hold() {
        replay::replay("http_ranges", http_ranges);
    }

    #[test]
    fn the_inputs_of_mqtt_input_hold() {
        replay::replay("mqtt_input", mqtt_input);
    }
}
