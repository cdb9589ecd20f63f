//! When a command expires (protocol.md §3, deadlines).

use crate::ids::UnixMillis;
use crate::message::{ServerBody, ServerMessage};

/// Seconds after which a RequestVCI expires that says nothing about it (message 2).
const REQUEST_VCI_DEADLINE_S: u64 = 30;

impl ServerMessage {
    /// When the command expires; `None`: never.
    ///
    /// `expires_at_ms` counts before `deadline_s`, which counts from `ts`, or from `received_at` where
    /// there is no `ts`.
    pub fn expires_at(&self, received_at: UnixMillis) -> Option<UnixMillis> {
        let (expires_at, deadline_s) = match &self.body {
            ServerBody::RequestVci(body) => {
                (body.expires_at_ms, Some(body.deadline_s.unwrap_or(REQUEST_VCI_DEADLINE_S)))
            }
            ServerBody::RequestDownloadReadiness(body) => (body.expires_at_ms, body.deadline_s),
            ServerBody::StartDownload(body) => (Some(body.expires_at_ms), body.deadline_s),
            ServerBody::StartRollback(body) => (Some(body.expires_at_ms), body.deadline_s),
            ServerBody::CancelUpdate(body) => (body.expires_at_ms, body.deadline_s),
            ServerBody::MessageRejected(_) => (None, None),
        };
        expires_at.or_else(|| Some(self.ts.unwrap_or(received_at).plus_seconds(deadline_s?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expires_at(fields: &str) -> Option<UnixMillis> {
        let text =
            format!(r#"{{"msg_id":"S","proto_ver":"1.0","vehicle_id":"V","gateway_id":"G",{fields}}}"#);
        ServerMessage::parse(text.as_bytes()).unwrap().expires_at(UnixMillis(1_000_000))
    }

    const CANCEL: &str = r#""type":"CancelUpdate","update_id":"U","reason":"operator""#;

    #[test]
    fn the_absolute_time_counts_before_the_relative_one() {
        let fields = format!(r#"{CANCEL},"ts":5000,"deadline_s":1,"expires_at_ms":7000"#);
        assert_eq!(expires_at(&fields), Some(UnixMillis(7000)));
    }

    #[test]
    fn the_relative_time_counts_from_ts_or_from_reception() {
        assert_eq!(expires_at(&format!(r#"{CANCEL},"ts":5000,"deadline_s":2"#)), Some(UnixMillis(7000)));
        assert_eq!(expires_at(&format!(r#"{CANCEL},"deadline_s":2"#)), Some(UnixMillis(1_002_000)));
    }

    #[test]
    fn without_either_there_is_no_limit_except_for_a_request_of_the_vci() {
        assert_eq!(expires_at(CANCEL), None);
        let request = r#""type":"RequestVCI","fields":["ecu_id"],"ts":5000"#;
        assert_eq!(expires_at(request), Some(UnixMillis(35_000)));
    }

    #[test]
    fn a_deadline_beyond_the_end_of_time_is_the_end_of_time() {
        let fields = format!(r#"{CANCEL},"deadline_s":18446744073709551615"#);
        assert_eq!(expires_at(&fields), Some(UnixMillis(i64::MAX)));
    }
}
