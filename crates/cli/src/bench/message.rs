//! A message that is encoded once and sent many times, each time under a new id: so cheap that the server is what is
//! measured.

use std::io::Write;

use farrier_protocol::{Binding, MessageType};
use serde_json::{Value, json};

use crate::output::now;

/// All of a message but what changes from one to the next.
#[derive(Debug, Clone)]
pub(super) struct PreparedMessage {
    /// The JSON after the ids, which stand first.
    rest: Vec<u8>,
}

impl PreparedMessage {
    /// A message of this vehicle; `body` is what comes besides the common fields.
    pub(super) fn new(binding: &Binding, message_type: MessageType, body: Value) -> Self {
        let mut message = json!({
            "proto_ver": "1.0", "type": message_type.name(), "vehicle_id": binding.vehicle_id,
            "gateway_id": binding.gateway_id, "ts": now().0,
        });
        if let (Value::Object(message), Value::Object(body)) = (&mut message, body) {
            message.extend(body);
        }
        let rest = message.to_string().into_bytes().split_off(1);
        Self { rest }
    }

    /// Makes `to` this message with these ids; gives its length.
    pub(super) fn write(&self, to: &mut Vec<u8>, msg_id: &str, correlation_id: Option<&str>) -> u64 {
        to.clear();
        // Ids need no escapes; writing to memory does not fail.
        let _ = match correlation_id {
            Some(correlation_id) => {
                write!(to, r#"{{"msg_id":"{msg_id}","correlation_id":"{correlation_id}","#)
            }
            None => write!(to, r#"{{"msg_id":"{msg_id}","#),
        };
        to.extend_from_slice(&self.rest);
        to.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_the_message_with_the_ids_of_this_time() {
        let binding = Binding { vehicle_id: "V1".parse().unwrap(), gateway_id: "G1".parse().unwrap() };
        let message = PreparedMessage::new(&binding, MessageType::SendVci, json!({"fw_sw_version": "1"}));
        let mut written = b"what was there before".to_vec();
        for msg_id in ["M1", "M2"] {
            message.write(&mut written, msg_id, Some("C1"));
            let read: Value = serde_json::from_slice(&written).unwrap();
            assert_eq!((&read["msg_id"], &read["correlation_id"]), (&json!(msg_id), &json!("C1")));
            assert_eq!((&read["type"], &read["fw_sw_version"]), (&json!("SendVCI"), &json!("1")));
        }
        message.write(&mut written, "M3", None);
        let read: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!((&read["msg_id"], read.get("correlation_id")), (&json!("M3"), None));
    }
}
