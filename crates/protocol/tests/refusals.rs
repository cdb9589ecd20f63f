//! Refusals that no vector file can show: too large to keep, not UTF-8, or against a connection.
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

fn bytes(message: &Value) -> Vec<u8> {
    serde_json::to_vec(message).unwrap()
}

fn refused(topic: CheckTopic, payload: &[u8]) -> Refusal {
    match check_message(topic, payload, None) {
        Verdict::Refused(refusal) => refusal,
        Verdict::Accepted { .. } => panic!("accepted"),
    }
}

fn binding(vehicle_id: &str, gateway_id: &str) -> Binding {
    Binding { vehicle_id: vehicle_id.parse().unwrap(), gateway_id: gateway_id.parse().unwrap() }
}

fn with_ecus(count: usize) -> Value {
    let mut message = vector("send_vci_seed_1");
    message["ecu_inventory"] = (0..count)
        .map(|n| json!({"ecu_id": format!("e{n}"), "functional_group": {"domain_zone_bit": 1, "zone": 1}}))
        .collect();
    message
}

const VCI: CheckTopic = CheckTopic::Up(UpTopic::Vci);
const RESULT: CheckTopic = CheckTopic::Up(UpTopic::Result);

#[test]
fn an_inventory_of_512_ecus_is_taken_and_one_of_513_is_not() {
    let verdict = check_message(VCI, &bytes(&with_ecus(512)), None);
    assert_eq!(verdict, Verdict::Accepted { message_type: MessageType::SendVci });
    let refusal = refused(VCI, &bytes(&with_ecus(513)));
    assert_eq!((refusal.code, refusal.pointer.as_str()), (RefusalCode::InvalidField, "/ecu_inventory"));
    assert_eq!(
        (refusal.expected.as_str(), refusal.found.as_str()),
        ("an array of 0 to 512", "an array of 513")
    );
}

#[test]
fn the_length_of_a_list_is_judged_before_its_items() {
    let mut message = with_ecus(513);
    message["ecu_inventory"][0] = json!("no ECU");
    assert_eq!(refused(VCI, &bytes(&message)).pointer, "/ecu_inventory");
}

#[test]
fn lists_of_errors_and_packages_end_at_512() {
    let mut message = vector("error_response");
    for key in ["failed_ecus", "pkg_ids"] {
        let ids = |count| -> Value { (0..count).map(|n| Value::from(format!("e{n}"))).collect() };
        message[key] = ids(512);
        assert!(matches!(
            check_message(CheckTopic::Up(UpTopic::Error), &bytes(&message), None),
            Verdict::Accepted { .. }
        ));
        message[key] = ids(513);
        assert_eq!(refused(CheckTopic::Up(UpTopic::Error), &bytes(&message)).pointer, format!("/{key}"));
        message.as_object_mut().unwrap().remove(key);
    }
    let mut command = vector("request_download_readiness");
    let package = command["packages"][1].clone();
    command["packages"] = vec![package.clone(); 512].into();
    assert!(ServerMessage::parse(&bytes(&command)).is_ok());
    command["packages"] = vec![package; 513].into();
    assert_eq!(ServerMessage::parse(&bytes(&command)).unwrap_err().refusal.pointer, "/packages");
}

#[test]
fn each_topic_takes_its_size_and_not_one_octet_more() {
    let small = [UpTopic::Wakeup, UpTopic::Readiness, UpTopic::Result, UpTopic::Error].map(CheckTopic::Up);
    for (topics, most) in [(small.as_slice(), 16_384), ([VCI, CheckTopic::Down].as_slice(), 262_144)] {
        for topic in topics {
            assert_eq!(refused(*topic, &vec![b' '; most]).code, RefusalCode::MalformedJson);
            let refusal = refused(*topic, &vec![b' '; most + 1]);
            assert_eq!((refusal.code, refusal.pointer.as_str()), (RefusalCode::TooLarge, ""));
            assert_eq!(refusal.found, format!("{} octets", most + 1));
        }
    }
}

#[test]
fn white_space_fills_a_message_up_to_the_limit() {
    let mut payload = bytes(&vector("update_success_result_seed_1"));
    payload.resize(16_384, b'\n');
    assert!(matches!(check_message(RESULT, &payload, None), Verdict::Accepted { .. }));
}

#[test]
fn octets_that_are_not_utf_8_are_malformed() {
    let mut payload = bytes(&vector("error_response"));
    let at = payload.iter().position(|octet| *octet == b'*').unwrap();
    payload[at] = 0xFF;
    let refusal = refused(CheckTopic::Up(UpTopic::Error), &payload);
    assert_eq!((refusal.code, refusal.pointer.as_str()), (RefusalCode::MalformedJson, ""));
}

#[test]
fn a_payload_with_anothers_ids_is_refused_at_the_one_that_stands_first() {
    let payload = br#"{"gateway_id":"CCU_002","vehicle_id":"VEH_002","proto_ver":"1.0","ecu_count":"bad"}"#;
    let refused = |payload: &[u8], sender: &Binding| {
        let refused = ReceivedMessage::parse(UpTopic::Wakeup, payload, Some(sender)).unwrap_err();
        (refused.refusal.code, refused.refusal.pointer)
    };
    let at = |pointer: &str| (RefusalCode::IdentityMismatch, pointer.to_owned());
    assert_eq!(refused(payload, &binding("VEH_001", "CCU_001")), at("/gateway_id"));
    assert_eq!(refused(payload, &binding("VEH_001", "CCU_002")), at("/vehicle_id"));
    // With the right ids, the fields are judged.
    let (code, pointer) = refused(payload, &binding("VEH_002", "CCU_002"));
    assert_eq!((code, pointer.as_str()), (RefusalCode::UnknownField, "/ecu_count"));
    // Type comes before identity, identity before fields; an absent id is an absent field.
    let unknown = br#"{"type":"No","vehicle_id":"VEH_002","proto_ver":"1.0"}"#;
    assert_eq!(refused(unknown, &binding("V", "G")).0, RefusalCode::UnknownType);
    let absent = br#"{"proto_ver":"1.0"}"#;
    assert_eq!(refused(absent, &binding("V", "G")), (RefusalCode::MissingField, "/msg_id".to_owned()));
    let number = br#"{"vehicle_id":7,"proto_ver":"1.0"}"#;
    assert_eq!(refused(number, &binding("V", "G")), (RefusalCode::InvalidField, "/vehicle_id".to_owned()));
}

#[test]
fn a_refusal_says_what_could_be_read() {
    let mut message = vector("update_success_result_seed_1");
    message["ecu_count"] = json!(-1);
    let refused =
        |message: &Value| ReceivedMessage::parse(UpTopic::Result, &bytes(message), None).unwrap_err();
    let one = refused(&message);
    assert_eq!(one.msg_id.as_ref().map(MsgId::as_str), Some("VMG_MSG_0301"));
    assert_eq!(one.message_type, Some(MessageType::UpdateSuccessResult));
    message["proto_ver"] = json!("2.0");
    message["msg_id"] = json!("a/b");
    let two = refused(&message);
    assert_eq!((two.msg_id, two.message_type), (None, None));
    assert_eq!(two.refusal.code, RefusalCode::UnsupportedVersion);
}

#[test]
fn a_refusal_never_carries_the_body_that_it_refuses() {
    let mut message = vector("error_response");
    let object = message.as_object_mut().unwrap();
    object.insert("k".repeat(10_000), json!(1));
    let unknown = refused(CheckTopic::Up(UpTopic::Error), &bytes(&message));
    assert_eq!(unknown.code, RefusalCode::UnknownField);
    let mut message = vector("error_response");
    message["code"] = json!("c".repeat(10_000));
    let invalid = refused(CheckTopic::Up(UpTopic::Error), &bytes(&message));
    for refusal in [unknown, invalid] {
        let line = serde_json::to_string(&Verdict::Refused(refusal.clone())).unwrap();
        assert!(line.len() < 1000, "{line}");
        assert!(refusal.detail().as_str().chars().count() <= 512);
    }
}

#[test]
fn verdicts_are_written_as_check_message_prints_them() {
    let accepted = check_message(RESULT, &bytes(&vector("update_success_result_seed_1")), None);
    let line = serde_json::to_string(&accepted).unwrap();
    assert_eq!(line, r#"{"accepted":true,"type":"UpdateSuccessResult"}"#);
    let line = serde_json::to_string(&check_message(RESULT, b"[1,2]", None)).unwrap();
    assert_eq!(
        line,
        r#"{"accepted":false,"code":"MALFORMED_JSON","pointer":"","expected":"one JSON object in UTF-8, nested at most 32 deep","found":"an array of 2"}"#
    );
}

#[test]
fn refusals_state_what_was_expected_and_what_was_found() {
    let cases = [
        ("ecu_count", json!("8"), "an integer from 0 to 18446744073709551615", r#"the string "8""#),
        ("operation", json!("undo"), "one of download, install, commit, rollback", r#""undo""#),
        ("rebooted", json!(1), "a boolean", "1"),
        (
            "correlation_id",
            json!("a b"),
            "an identifier of 1 to 64 characters [A-Za-z0-9._-] that begins with a letter or digit",
            r#""a b""#,
        ),
        ("duration_s", Value::Null, "an integer from 0 to 18446744073709551615", "null"),
        ("proto_ver", json!("one"), "a version \"1.x\", x an integer below 4294967296", r#""one""#),
    ];
    for (key, value, expected, found) in cases {
        let mut message = vector("update_success_result_seed_1");
        message[key] = value;
        let refusal = refused(RESULT, &bytes(&message));
        assert_eq!((refusal.expected.as_str(), refusal.found.as_str()), (expected, found), "{key}");
    }
}

#[test]
fn a_number_is_shown_as_it_differs_from_what_was_expected() {
    let mut message = vector("send_vci_can_only_integer_zone");
    message["ecu_inventory"][0]["functional_group"]["zone"] = json!(2.0);
    assert_eq!(refused(VCI, &bytes(&message)).found, "2.0");
    message["ecu_inventory"][0]["functional_group"]["zone"] = json!(70_000);
    let refusal = refused(VCI, &bytes(&message));
    assert_eq!(refusal.found, "70000");
    assert!(refusal.expected.ends_with("or an integer from 0 to 65535"), "{}", refusal.expected);
}

#[test]
fn a_wake_up_answers_nothing_so_that_no_command_can_contradict_it() {
    let command = ServerMessage::parse(&bytes(&vector("request_vci"))).unwrap();
    let wake_up = bytes(&vector("wake_up"));
    let verdict = check_message(CheckTopic::Up(UpTopic::Wakeup), &wake_up, Some(&command));
    assert_eq!(verdict, Verdict::Accepted { message_type: MessageType::WakeUp });
}

#[test]
fn a_value_that_a_sensor_could_not_give_is_left_out() {
    let mut received =
        ReceivedMessage::parse(UpTopic::Readiness, &bytes(&vector("readiness_report_seed_1")), None).unwrap();
    let VehicleBody::ReadinessReport(report) = &mut received.message.body else { panic!("not a report") };
    report.requested_fields.temp_ccu_c = Some(f64::NAN);
    report.requested_fields.bandwidth_mbps = Some(f64::INFINITY);
    assert!(!report.requested_fields.measured().contains(&Condition::TempCcu));
    let written: Value = serde_json::from_slice(&received.message.to_json()).unwrap();
    let mut reported: Vec<&String> = written["requested_fields"].as_object().unwrap().keys().collect();
    reported.sort();
    assert_eq!(
        reported,
        ["cpu.usage_percent", "memory.available_mb", "power.battery_12v_v", "vehicle.speed_kmh"]
    );
}

#[test]
fn header_fields_are_written_first() {
    for (name, start) in [
        (
            "wake_up_without_type",
            r#"{"msg_id":"VMG_MSG_0000","proto_ver":"1.0","type":"WakeUp","vehicle_id":"VEH_001","gateway_id":"CCU_001","ts":1761351119000,"boot_id""#,
        ),
        (
            "update_success_result_seed_1",
            r#"{"msg_id":"VMG_MSG_0301","proto_ver":"1.0","type":"UpdateSuccessResult","vehicle_id":"VEH_001","gateway_id":"CCU_001","ts":1761351800000,"correlation_id""#,
        ),
    ] {
        let payload = bytes(&vector(name));
        let topic = if name.starts_with("wake") { UpTopic::Wakeup } else { UpTopic::Result };
        let written = ReceivedMessage::parse(topic, &payload, None).unwrap().message.to_json();
        assert!(String::from_utf8(written).unwrap().starts_with(start), "{name}");
    }
}

#[test]
fn the_deepest_and_the_largest_message_are_read_on_a_small_stack() {
    let deep = format!(r#"{{"proto_ver":"1.1","later":{}{}}}"#, "[".repeat(31), "]".repeat(31));
    let largest = bytes(&with_ecus(512));
    let command = bytes(&vector("start_download"));
    let read = std::thread::Builder::new().stack_size(256 * 1024).spawn(move || {
        assert_eq!(refused(RESULT, deep.as_bytes()).pointer, "/type");
        assert!(matches!(check_message(VCI, &largest, None), Verdict::Accepted { .. }));
        assert!(ServerMessage::parse(&command).is_ok());
    });
    read.unwrap().join().unwrap();
}
