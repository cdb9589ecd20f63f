//! Which answers a command takes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test states what it expects by unwrapping"
)]

use farrier_protocol::*;
use serde_json::{Value, json};

fn vector(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/accepted");
    serde_json::from_slice(&std::fs::read(format!("{folder}/{name}.json")).unwrap()).unwrap()
}

fn command(message: &Value) -> ServerMessage {
    ServerMessage::parse(&serde_json::to_vec(message).unwrap()).unwrap()
}

fn judge(answer: &Value, command: &ServerMessage) -> Verdict {
    let message_type: MessageType = answer["type"].as_str().unwrap().parse().unwrap();
    check_message(message_type.direction(), &serde_json::to_vec(answer).unwrap(), Some(command))
}

fn is_taken(answer: &Value, command: &ServerMessage) -> bool {
    matches!(judge(answer, command), Verdict::Accepted { .. })
}

#[test]
fn answers_of_the_source_documents_and_their_variants_fit_their_commands() {
    for (answer, to) in [
        ("send_vci_seed_1", "request_vci"),
        ("send_vci_can_only_integer_zone", "request_vci"),
        ("error_response", "request_vci"),
        ("error_response_busy", "request_vci"),
        ("readiness_report_seed_1", "request_download_readiness"),
        ("readiness_report_seed_2", "request_download_readiness"),
        ("readiness_report_condition_not_measured", "request_download_readiness"),
        ("readiness_report_newer_minor_version", "request_download_readiness"),
        ("readiness_report_retry_below_minimum", "request_download_readiness"),
        ("update_success_result_seed_1", "start_download"),
        ("update_success_result_minimal", "start_download"),
    ] {
        let verdict = judge(&vector(answer), &command(&vector(to)));
        assert!(matches!(verdict, Verdict::Accepted { .. }), "{answer}: {verdict:?}");
    }
}

#[test]
fn a_requested_power_snapshot_is_taken() {
    let mut request = vector("request_vci");
    request["fields"] = json!(["sw_version", "power.battery_12v_v", "power.charging_status"]);
    assert!(is_taken(&vector("send_vci_with_power"), &command(&request)));
}

#[test]
fn a_rollback_is_reported_to_its_command_whatever_it_counts() {
    let mut result = vector("update_success_result_seed_1");
    result["operation"] = json!("rollback");
    result["correlation_id"] = json!("SRV_MSG_0301");
    assert!(is_taken(&result, &command(&vector("start_rollback"))));
}

#[test]
fn ecus_with_several_packages_count_once() {
    let mut start = vector("start_download");
    let mut second = start["packages"][7].clone();
    second["pkg_id"] = json!("PKG-ecu_008-calibration");
    start["packages"].as_array_mut().unwrap().push(second);
    assert!(is_taken(&vector("update_success_result_seed_1"), &command(&start)));
}

#[test]
fn each_error_code_answers_the_commands_of_its_row() {
    let mut silent = vector("start_download");
    silent["failure_report"] = json!(false);
    // Columns: messages 2, 4, 7 with failure reports, 7 without, 8, 9.
    let commands = [
        vector("request_vci"),
        vector("request_download_readiness"),
        vector("start_download"),
        silent,
        vector("start_rollback"),
        vector("cancel_update"),
    ];
    let rows = [
        (ErrorCode::Expired, [true, true, true, true, true, true]),
        (ErrorCode::Unsupported, [true, true, true, true, true, true]),
        (ErrorCode::Busy, [true, true, true, true, false, false]),
        (ErrorCode::VciIncomplete, [true, false, false, false, false, false]),
        (ErrorCode::DeltaBaseMismatch, [false, true, true, true, false, false]),
        (ErrorCode::ConsentDenied, [false, false, true, true, false, false]),
        (ErrorCode::UpdateFailed, [false, false, true, false, false, false]),
        (ErrorCode::ServiceRequired, [false, false, true, true, true, false]),
        (ErrorCode::Cancelled, [false, false, false, false, false, true]),
        (ErrorCode::CancelRefused, [false, false, false, false, false, true]),
        (ErrorCode::RollbackUnavailable, [false, false, false, false, true, false]),
    ];
    assert_eq!(rows.map(|(code, _)| code).as_slice(), ErrorCode::ALL);
    for (code, taken) in rows {
        let mut answer = vector("error_response");
        answer["code"] = json!(code.name());
        let found = commands.each_ref().map(|message| {
            answer["correlation_id"] = message["msg_id"].clone();
            is_taken(&answer, &command(message))
        });
        assert_eq!(found, taken, "{code}");
    }
}

#[test]
fn each_answer_belongs_to_one_kind_of_command() {
    let commands = [
        "request_vci",
        "request_download_readiness",
        "start_download",
        "start_rollback",
        "cancel_update",
        "message_rejected",
    ]
    .map(vector);
    for (answer, belongs_to) in
        [("send_vci_seed_1", 0), ("readiness_report_seed_1", 1), ("update_success_result_seed_1", 2)]
    {
        for (index, message) in commands.iter().enumerate() {
            let mut answer = vector(answer);
            answer["correlation_id"] = message["msg_id"].clone();
            match judge(&answer, &command(message)) {
                Verdict::Accepted { .. } => assert_eq!(index, belongs_to),
                Verdict::Refused(refusal) => {
                    assert_ne!(index, belongs_to);
                    assert_eq!(refusal.code, RefusalCode::CorrelationTypeMismatch);
                    assert_eq!(refusal.pointer, "/correlation_id");
                }
            }
        }
    }
}
