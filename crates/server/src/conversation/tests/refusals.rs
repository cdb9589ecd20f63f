//! Every refusal: nothing changes, operators see why, the vehicle is told once.

use super::*;
use serde_json::Value;

/// Sends a message that must be refused, twice, and checks all that a refusal means.
async fn refused(world: &World, car: &Car, topic: UpTopic, message: &Value, code: RefusalCode) -> Receipt {
    car.commands(world).await;
    let (state, vehicle) = (car.state(world).await, format!("{:?}", car.vehicle(world).await));
    let receipt = car.send(world, topic, message).await;
    assert_eq!(car.send(world, topic, message).await, receipt);
    let stored = &car.refused(world).await[0];
    assert_eq!((stored.refusal.code, stored.times), (code, 2), "{stored:?}");
    assert_eq!(car.state(world).await, state);
    assert_eq!(format!("{:?}", car.vehicle(world).await), vehicle);

    let told = car.commands(world).await;
    if receipt == Receipt::RefusedIdentity {
        assert!(told.is_empty(), "{code}: {told:?}");
    } else {
        let rejected: Vec<_> = told
            .iter()
            .filter_map(|command| {
                let ServerBody::MessageRejected(rejected) = &command.body else { return None };
                Some(rejected)
            })
            .collect();
        assert_eq!(rejected.len(), 1, "{code}: {told:?}");
        assert_eq!(rejected[0].code, code);
        let named = rejected[0].correlation_id.as_ref().map(farrier_protocol::MsgId::as_str);
        // What is too large is not read, not even for its id.
        let readable = message["msg_id"].as_str().filter(|_| code != RefusalCode::TooLarge);
        assert_eq!(named, readable);
    }
    receipt
}

fn changed(mut message: Value, key: &str, value: Value) -> Value {
    message[key] = value;
    message
}

fn without(mut message: Value, key: &str) -> Value {
    message.as_object_mut().unwrap().remove(key);
    message
}

async fn counted_security_events(world: &World, car: &Car) -> u64 {
    car.security_events(world).await.iter().map(|event| event.times).sum()
}

#[tokio::test]
async fn messages_that_cannot_be_read() {
    use RefusalCode as C;
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let wake_up = || car.wake_up_message(1);
    let cases = [
        (json!([1]), C::MalformedJson),
        (changed(wake_up(), "boot_id", json!("x".repeat(20_000))), C::TooLarge),
        (changed(wake_up(), "proto_ver", json!("2.0")), C::UnsupportedVersion),
        (changed(wake_up(), "type", json!("Hello")), C::UnknownType),
        (without(wake_up(), "boot_seq"), C::MissingField),
        (changed(wake_up(), "boot_seq", json!(-1)), C::InvalidField),
        (changed(wake_up(), "colour", json!("red")), C::UnknownField),
    ];
    for (message, code) in cases {
        let receipt = refused(&world, &car, UpTopic::Wakeup, &message, code).await;
        assert_eq!(receipt, Receipt::RefusedUnparsable, "{code}");
    }
    let receipt = refused(&world, &car, UpTopic::Vci, &wake_up(), C::WrongTopic).await;
    assert_eq!(receipt, Receipt::Refused);
}

#[tokio::test]
async fn identities_that_do_not_fit() {
    use RefusalCode as C;
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let other = changed(car.wake_up_message(1), "vehicle_id", json!("V2"));
    refused(&world, &car, UpTopic::Wakeup, &other, C::IdentityMismatch).await;
    let thumbprint = changed(car.wake_up_message(1), "client_cert_thumbprint", json!("0".repeat(64)));
    let receipt = refused(&world, &car, UpTopic::Wakeup, &thumbprint, C::IdentityMismatch).await;
    assert_eq!(receipt, Receipt::RefusedIdentity);
    assert_eq!(car.refused(&world).await[0].refusal.pointer, "/client_cert_thumbprint");

    let mut reissued = Car::new("V1");
    reissued.peer.thumbprint = "1".repeat(64).parse().unwrap();
    refused(&world, &reissued, UpTopic::Wakeup, &reissued.wake_up_message(2), C::IdentityMismatch).await;
    let mut replaced = Car::new("V1");
    replaced.binding.gateway_id = "CCU2".parse().unwrap();
    refused(&world, &replaced, UpTopic::Wakeup, &replaced.wake_up_message(3), C::BindingMismatch).await;
    // The binding is judged before the fields, and after the identity.
    let bad = without(replaced.wake_up_message(4), "boot_seq");
    refused(&world, &replaced, UpTopic::Wakeup, &bad, C::BindingMismatch).await;
    assert_eq!(counted_security_events(&world, &car).await, 10);
}

#[tokio::test]
async fn a_boot_counter_that_goes_back() {
    let world = World::new();
    let mut car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.reboot(&world, 100_000).await;
    let back = changed(car.wake_up_message(1), "boot_seq", json!(1));
    refused(&world, &car, UpTopic::Wakeup, &back, RefusalCode::BootSeqRegression).await;
    let twin = changed(car.wake_up_message(1), "boot_id", json!("twin"));
    refused(&world, &car, UpTopic::Wakeup, &twin, RefusalCode::BootSeqRegression).await;
    assert_eq!(counted_security_events(&world, &car).await, 4);
    // Each came twice, was counted twice, and was stored and answered once. A third time is counted as well.
    assert_eq!(car.send(&world, UpTopic::Wakeup, &twin).await, Receipt::Refused);
    assert_eq!(counted_security_events(&world, &car).await, 5);
    car.wake_up(&world).await;
}

#[tokio::test]
async fn one_msg_id_with_two_contents() {
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let first = car.wake_up_message(1);
    assert_eq!(car.send(&world, UpTopic::Wakeup, &first).await, Receipt::Accepted);
    let other = changed(first, "uptime_ms", json!(2));
    refused(&world, &car, UpTopic::Wakeup, &other, RefusalCode::DuplicateConflict).await;
    assert_eq!(car.security_events(&world).await[0].kind, "DUPLICATE_CONFLICT");
}

#[tokio::test]
async fn answers_that_fit_no_command() {
    use RefusalCode as C;
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    let other = Car::known(&world, "V2").await;
    world.campaign_for_all().await;
    let request = car.command(&world, MessageType::RequestVci).await;
    let others = other.command(&world, MessageType::RequestVci).await;
    refused(&world, &car, UpTopic::Vci, &car.vci("SRV-NONE"), C::UnknownCorrelation).await;
    refused(&world, &car, UpTopic::Vci, &car.vci(others.msg_id.as_str()), C::UnknownCorrelation).await;
    let result = car.result(request.msg_id.as_str(), "commit");
    refused(&world, &car, UpTopic::Result, &result, C::CorrelationTypeMismatch).await;

    let vci = car.vci(request.msg_id.as_str());
    assert_eq!(car.send(&world, UpTopic::Vci, &vci).await, Receipt::Accepted);
    let again = car.vci(request.msg_id.as_str());
    refused(&world, &car, UpTopic::Vci, &again, C::CorrelationClosed).await;

    world.now = world.now.plus_seconds(30);
    let late = other.vci(others.msg_id.as_str());
    refused(&world, &other, UpTopic::Vci, &late, C::CorrelationExpired).await;
}

#[tokio::test]
async fn inventories_that_do_not_answer_the_question() {
    use RefusalCode as C;
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    let request = car.command(&world, MessageType::RequestVci).await;
    let vci = || car.vci(request.msg_id.as_str());
    refused(&world, &car, UpTopic::Vci, &changed(vci(), "ecu_inventory", json!([])), C::VciEmpty).await;
    let mut twice = vci();
    twice["ecu_inventory"][1]["ecu_id"] = json!("e0");
    refused(&world, &car, UpTopic::Vci, &twice, C::VciDuplicateEcu).await;
    let mut missing = vci();
    missing["ecu_inventory"][0].as_object_mut().unwrap().remove("sw_version");
    refused(&world, &car, UpTopic::Vci, &missing, C::VciFieldMissing).await;
    let unasked = changed(vci(), "power", json!({"power.battery_12v_v": 12.0}));
    refused(&world, &car, UpTopic::Vci, &unasked, C::VciFieldNotRequested).await;
    // The question is still open.
    assert_eq!(car.send(&world, UpTopic::Vci, &vci()).await, Receipt::Accepted);
}

#[tokio::test]
async fn readiness_reports_and_results_that_do_not_answer_the_command() {
    use RefusalCode as C;
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.answer_vci(&world).await;
    let request = car.command(&world, MessageType::RequestDownloadReadiness).await;
    let report = |body: Value| {
        let report = car.message("ReadinessReportForDownload", json!({"correlation_id": request.msg_id}));
        let (Value::Object(mut to), Value::Object(from)) = (report, body) else { panic!("no object") };
        to.extend(from);
        Value::Object(to)
    };
    let unasked = report(json!({"ready": true, "requested_fields": {"vehicle.gear_position": "P"}}));
    refused(&world, &car, UpTopic::Readiness, &unasked, C::ReadinessFieldNotRequested).await;
    let inconsistent = report(json!({"ready": false, "requested_fields": {}}));
    refused(&world, &car, UpTopic::Readiness, &inconsistent, C::ReadinessInconsistent).await;
    let ready = report(json!({"ready": true, "requested_fields": {}}));
    assert_eq!(car.send(&world, UpTopic::Readiness, &ready).await, Receipt::Accepted);

    let command = car.command(&world, MessageType::StartDownload).await.msg_id.to_string();
    let miscounted = changed(car.result(&command, "commit"), "ecu_count", json!(3));
    refused(&world, &car, UpTopic::Result, &miscounted, C::EcuCountMismatch).await;
    let unverified = changed(car.result(&command, "commit"), "verified_integrity", json!(false));
    refused(&world, &car, UpTopic::Result, &unverified, C::IntegrityNotVerified).await;
    assert_eq!(car.state(&world).await, "downloading");
}
