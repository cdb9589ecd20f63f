//! Topics (protocol.md §2): their names, what they carry, and how large it may be.

use crate::envelope::MessageType;
use crate::ids::{Binding, InvalidValue};
use crate::names::wire_names;

wire_names! {
    /// The last level of a topic on which vehicles publish.
    UpTopic, "wakeup, vci, readiness, result or error" {
        /// WakeUp.
        Wakeup = "wakeup",
        /// SendVCI.
        Vci = "vci",
        /// ReadinessReportForDownload.
        Readiness = "readiness",
        /// UpdateSuccessResult.
        Result = "result",
        /// ErrorResponse.
        Error = "error",
    }
}

impl UpTopic {
    /// The largest payload, in octets.
    pub fn max_payload_bytes(self) -> usize {
        match self {
            Self::Vci => MAX_LARGE_PAYLOAD_BYTES,
            Self::Wakeup | Self::Readiness | Self::Result | Self::Error => MAX_SMALL_PAYLOAD_BYTES,
        }
    }

    /// The one type of message that the topic carries.
    pub fn message_type(self) -> MessageType {
        match self {
            Self::Wakeup => MessageType::WakeUp,
            Self::Vci => MessageType::SendVci,
            Self::Readiness => MessageType::ReadinessReportForDownload,
            Self::Result => MessageType::UpdateSuccessResult,
            Self::Error => MessageType::ErrorResponse,
        }
    }
}

/// The largest payload on `vci` and `down`, in octets.
const MAX_LARGE_PAYLOAD_BYTES: usize = 256 * 1024;
/// The largest payload elsewhere, in octets.
const MAX_SMALL_PAYLOAD_BYTES: usize = 16 * 1024;

/// Which way a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a vehicle to the server, on this topic.
    Up(UpTopic),
    /// From the server to a vehicle, on `down`.
    Down,
}

impl Direction {
    /// The largest payload, in octets.
    pub fn max_payload_bytes(self) -> usize {
        match self {
            Self::Up(topic) => topic.max_payload_bytes(),
            Self::Down => MAX_LARGE_PAYLOAD_BYTES,
        }
    }

    /// The last level of the topic.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up(topic) => topic.name(),
            Self::Down => "down",
        }
    }
}

impl std::str::FromStr for Direction {
    type Err = InvalidValue;

    fn from_str(name: &str) -> Result<Self, InvalidValue> {
        match (name, name.parse()) {
            ("down", _) => Ok(Self::Down),
            (_, Ok(topic)) => Ok(Self::Up(topic)),
            (other, Err(_)) => Err(InvalidValue::new("wakeup, vci, readiness, result, error or down", other)),
        }
    }
}

/// Builds and reads topic names below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Default for Topics {
    /// Below `ota`.
    fn default() -> Self {
        Self { prefix: "ota".to_owned() }
    }
}

impl Topics {
    /// Topics below `prefix`: one or more levels, none empty, without wildcards and control characters.
    ///
    /// # Errors
    /// Where the prefix is no such name, or begins with `$`, which brokers keep to themselves.
    pub fn new(prefix: &str) -> Result<Self, InvalidValue> {
        let level_is_valid = |level: &str| {
            !level.is_empty() && !level.contains(|c: char| matches!(c, '+' | '#') || c.is_control())
        };
        if prefix.len() <= 128 && !prefix.starts_with('$') && prefix.split('/').all(level_is_valid) {
            return Ok(Self { prefix: prefix.to_owned() });
        }
        let expected = "a topic prefix of at most 128 octets, such as \"ota\": no empty level, no '+', '#', '$' in front or control character";
        Err(InvalidValue::new(expected, prefix))
    }

    /// The topic on which a vehicle publishes messages of this kind.
    pub fn up(&self, binding: &Binding, topic: UpTopic) -> String {
        format!("{}/{binding}/up/{topic}", self.prefix)
    }

    /// The topic on which the server publishes for a vehicle.
    pub fn down(&self, binding: &Binding) -> String {
        format!("{}/{binding}/down", self.prefix)
    }

    /// The filter for what a vehicle publishes, as a broker's access rules need it.
    pub fn all_up_of(&self, binding: &Binding) -> String {
        format!("{}/{binding}/up/#", self.prefix)
    }

    /// The filter for what all vehicles publish: what a server subscribes to at a broker.
    pub fn all_up(&self) -> String {
        format!("{}/+/+/up/#", self.prefix)
    }

    /// The filter for what is published for all vehicles.
    pub fn all_down(&self) -> String {
        format!("{}/+/+/down", self.prefix)
    }

    /// Whose topic this is and which, where it is one that vehicles publish on.
    pub fn parse_up(&self, topic: &str) -> Option<(Binding, UpTopic)> {
        let (vehicle_id, gateway_id, up) = self.up_levels(topic)?;
        Some((Binding { vehicle_id: vehicle_id.parse().ok()?, gateway_id: gateway_id.parse().ok()? }, up))
    }

    /// Which of the topics of this vehicle it is, where it is one that the vehicle publishes on.
    pub fn parse_up_of(&self, binding: &Binding, topic: &str) -> Option<UpTopic> {
        let (vehicle_id, gateway_id, up) = self.up_levels(topic)?;
        let is_own = vehicle_id == binding.vehicle_id.as_str() && gateway_id == binding.gateway_id.as_str();
        is_own.then_some(up)
    }

    fn up_levels<'t>(&self, topic: &'t str) -> Option<(&'t str, &'t str, UpTopic)> {
        let mut levels = topic.strip_prefix(self.prefix.as_str())?.strip_prefix('/')?.split('/');
        let (vehicle_id, gateway_id) = (levels.next()?, levels.next()?);
        let (up, name, end) = (levels.next()?, levels.next()?, levels.next());
        if up != "up" || end.is_some() {
            return None;
        }
        Some((vehicle_id, gateway_id, name.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Binding {
        Binding { vehicle_id: "VEH_001".parse().unwrap(), gateway_id: "CCU_001".parse().unwrap() }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let topics = Topics::default();
        assert_eq!(topics.up(&binding(), UpTopic::Vci), "ota/VEH_001/CCU_001/up/vci");
        assert_eq!(topics.down(&binding()), "ota/VEH_001/CCU_001/down");
        assert_eq!(Topics::new("fleet/eu").unwrap().down(&binding()), "fleet/eu/VEH_001/CCU_001/down");
    }

    #[test]
    fn every_up_topic_is_read_back() {
        for prefix in ["ota", "fleet/eu"] {
            let topics = Topics::new(prefix).unwrap();
            for topic in UpTopic::ALL {
                let name = topics.up(&binding(), *topic);
                assert_eq!(topics.parse_up(&name), Some((binding(), *topic)));
                assert_eq!(topics.parse_up_of(&binding(), &name), Some(*topic));
            }
        }
    }

    #[test]
    fn other_topics_are_nobodys() {
        for topic in [
            "ota/VEH_001/CCU_001/down",
            "ota/VEH_001/CCU_001/up",
            "ota/VEH_001/CCU_001/up/vci/x",
            "ota/VEH_001/CCU_001/up/VCI",
            "otaVEH_001/CCU_001/up/vci",
            "ota//CCU_001/up/vci",
            "ota/+/CCU_001/up/vci",
            "other/VEH_001/CCU_001/up/vci",
            "ota/VEH_001/up/vci",
            "",
        ] {
            assert_eq!(Topics::default().parse_up(topic), None, "{topic}");
            assert_eq!(Topics::default().parse_up_of(&binding(), topic), None, "{topic}");
        }
    }

    #[test]
    fn the_topic_of_another_is_not_this_vehicles() {
        for topic in ["ota/VEH_002/CCU_001/up/vci", "ota/VEH_001/CCU_002/up/vci"] {
            assert_eq!(Topics::default().parse_up_of(&binding(), topic), None, "{topic}");
        }
    }

    #[test]
    fn a_prefix_that_mqtt_or_a_broker_would_misread_is_refused() {
        for prefix in ["", "/", "ota/", "/ota", "a//b", "a/+", "#", "$SYS", "a\0b"] {
            assert!(Topics::new(prefix).is_err(), "{prefix:?}");
        }
    }
}
