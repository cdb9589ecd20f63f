//! Every vector over a real MQTT connection to a real server, in both versions: the verdict is the one of
//! `farrier check-message`, the acknowledgement and MessageRejected are those of protocol.md §7.

use std::collections::BTreeSet;
use std::path::Path;

use farrier_protocol::{
    Direction, MessageType, MsgId, ReceivedMessage, Refusal, RefusalCode, ServerMessage, Topics, Verdict,
    check_message,
};
use serde_json::{Map, Value};

use super::real_server::{Heard, RealServer};
use super::*;
use crate::store::commands::{self, NewCommand};
use crate::store::vehicles::{self, EnrolledBy};
use crate::store::{messages, senders};

/// One message, and the command that it answers.
struct Vector {
    name: String,
    topic: Direction,
    payload: Vec<u8>,
    in_reply_to: Option<ServerMessage>,
}

/// The thumbprint that vectors speak of; over a connection it has to be the certificate's.
const THUMBPRINT_OF_VECTORS: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

fn folder(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/tests/vectors").join(name);
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

fn command(value: &Value) -> ServerMessage {
    ServerMessage::parse(&serde_json::to_vec(value).unwrap()).unwrap()
}

/// The question that an answer is about: it asks for the conditions or fields that the answer has, and no others.
fn asking_for_what_it_tells(asking: &ServerMessage, answer: &Value) -> ServerMessage {
    let names = |object: Option<&Value>| -> BTreeSet<String> {
        object.and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect()
    };
    let mut asked: Value = serde_json::from_slice(&asking.to_json()).unwrap();
    if let Some(asked) = asked.get_mut("readiness_requirements") {
        *asked = names(answer.get("requested_fields")).into_iter().collect();
    }
    if let Some(asked) = asked.get_mut("fields") {
        let ecus = answer.get("ecu_inventory").and_then(Value::as_array).into_iter().flatten();
        let mut told: BTreeSet<String> = ecus.flat_map(|ecu| names(Some(ecu))).collect();
        told.remove("functional_group");
        told.extend(names(answer.get("power")));
        *asked = told.into_iter().collect();
    }
    // Another kind of message that leaves nothing to ask for answers another command.
    ServerMessage::parse(asked.to_string().as_bytes()).unwrap_or_else(|_| asking.clone())
}

/// The commands among the vectors.
fn commands() -> Vec<ServerMessage> {
    folder("accepted").iter().filter_map(|(_, payload)| ServerMessage::parse(payload).ok()).collect()
}

fn accepted() -> Vec<Vector> {
    let files = folder("accepted");
    let commands = commands();
    let vector = |(name, payload): &(String, Vec<u8>)| {
        let value: Value = serde_json::from_slice(payload).unwrap();
        let named = value.get("type").map_or("WakeUp", |named| named.as_str().unwrap());
        let topic = named.parse::<MessageType>().unwrap().direction();
        let answered = |command: &ServerMessage| {
            let command = asking_for_what_it_tells(command, &value);
            let fits = value.get("correlation_id").is_some_and(|id| id == command.msg_id.as_str())
                && matches!(check_message(topic, payload, Some(&command)), Verdict::Accepted { .. });
            fits.then_some(command)
        };
        let in_reply_to = commands.iter().find_map(answered).filter(|_| topic != Direction::Down);
        Vector { name: name.clone(), topic, payload: payload.clone(), in_reply_to }
    };
    files.iter().map(vector).collect()
}

fn refused() -> Vec<Vector> {
    let commands = commands();
    // A server knows the command, whether the vector tells of it or not.
    let named = |raw: &str| {
        let answer: Value = serde_json::from_str(raw).ok()?;
        let correlation_id = answer.get("correlation_id")?;
        let command = commands.iter().find(|command| correlation_id == command.msg_id.as_str())?;
        Some(asking_for_what_it_tells(command, &answer))
    };
    let vector = |(name, file): (String, Vec<u8>)| {
        let value: Value = serde_json::from_slice(&file).unwrap();
        let raw = value["raw"].as_str().unwrap();
        Vector {
            name,
            topic: value["topic"].as_str().unwrap().parse().unwrap(),
            payload: raw.as_bytes().to_vec(),
            in_reply_to: value.get("in_reply_to").map(command).or_else(|| named(raw)),
        }
    };
    folder("refused").into_iter().map(vector).collect()
}

/// As if nobody had spoken yet: VEH_001 is enrolled, and the vector's command was sent to it.
async fn begin_anew(real: &RealServer, command: Option<ServerMessage>) {
    let thumbprint = real.thumbprint();
    real.write(move |tx| {
        for sql in [
            "DELETE FROM inbound_message",
            "DELETE FROM refused_message",
            "DELETE FROM security_event",
            "DELETE FROM command",
            "DELETE FROM vehicle_inventory",
            "DELETE FROM vehicle_ecu",
            "DELETE FROM vehicle_configuration",
            "DELETE FROM vehicle",
        ] {
            tx.exec(sql, &[])?;
        }
        vehicles::enrol(tx, &own(), EnrolledBy::Operator, now())?;
        vehicles::set_thumbprint(tx, &own().vehicle_id, Some(&thumbprint))?;
        let Some(message) = command else { return Ok(()) };
        // The vectors' own deadlines are long over.
        let expires_at = now().plus_seconds(600);
        let command =
            NewCommand { message: &message, update_id: None, try_number: 0, send_at: now(), expires_at };
        commands::queue(tx, &command, now())
    })
    .await;
}

/// protocol.md §7: 0x99 for what cannot be parsed, 0x87 for identity, else success.
fn reason_code(code: RefusalCode) -> Option<u8> {
    match code.name() {
        "MALFORMED_JSON"
        | "TOO_LARGE"
        | "UNSUPPORTED_VERSION"
        | "UNKNOWN_TYPE"
        | "MISSING_FIELD"
        | "INVALID_FIELD"
        | "UNKNOWN_FIELD" => Some(0x99),
        "IDENTITY_MISMATCH" | "BINDING_MISMATCH" => Some(0x87),
        _ => None,
    }
}

/// What `check-message` says, but for the connection: there the identity is judged against the certificate's, before
/// the fields are.
fn expected(vector: &Vector) -> Verdict {
    let judged = check_message(vector.topic, &vector.payload, vector.in_reply_to.as_ref());
    let Direction::Up(topic) = vector.topic else { return judged };
    match ReceivedMessage::parse(topic, &vector.payload, Some(&own())) {
        Err(refused) => Verdict::Refused(refused.into_refusal()),
        Ok(_) => judged,
    }
}

async fn plays_as_check_message_says(real: &RealServer, vector: &Vector, version: Version) {
    let Direction::Up(topic) = vector.topic else {
        return commands_are_the_servers(real, vector, version).await;
    };
    let name = &vector.name;
    begin_anew(real, vector.in_reply_to.clone()).await;
    let mut vehicle = real.vehicle(version).await;
    vehicle.subscribe(&[(DOWN, 1)]).await;
    vehicle.expect_suback().await;
    if let Some(command) = &vector.in_reply_to {
        let sent: Value = serde_json::from_slice(&command.to_json()).unwrap();
        assert_eq!(vehicle.hear().await, Heard::Message(sent), "{name}");
    }
    let payload = String::from_utf8_lossy(&vector.payload)
        .replace(THUMBPRINT_OF_VECTORS, real.thumbprint().as_str())
        .into_bytes();
    vehicle.publish(&Topics::default().up(&own(), topic), Some(7), &payload).await;
    let mut rejected = None;
    let reason = loop {
        match vehicle.hear().await {
            Heard::Puback { packet_id, reason } => {
                assert_eq!(packet_id, 7, "{name}");
                break reason;
            }
            Heard::Message(message) if message["type"] == "MessageRejected" => rejected = Some(message),
            // What follows from the message is not the question here.
            Heard::Message(_) => {}
            Heard::Closed { reason } => panic!("{name}: closed, {reason:?}"),
        }
    };
    let stored = real.read(|tx| messages::refused_of(tx, &own().vehicle_id, 10)).await;
    match expected(vector) {
        Verdict::Accepted { .. } => {
            assert_eq!(reason, None, "{name}");
            assert!(stored.is_empty() && rejected.is_none(), "{name}: {stored:?} {rejected:?}");
            let value: Value = serde_json::from_slice(&payload).unwrap();
            let msg_id: MsgId = value["msg_id"].as_str().unwrap().parse().unwrap();
            let taken = real.read(move |tx| senders::of_message(tx, &own(), Some(&msg_id))).await;
            let content = taken.and_then(|sender| sender.content_before);
            assert!(content.is_some(), "{name} is not stored");
        }
        Verdict::Refused(refusal) => {
            let expected = reason_code(refusal.code).filter(|_| version == Version::V5_0);
            assert_eq!(reason, expected, "{name}");
            let [stored] = stored.as_slice() else { panic!("{name}: {stored:?}") };
            assert_eq!(
                (stored.refusal.code, &stored.refusal.pointer),
                (refusal.code, &refusal.pointer),
                "{name}"
            );
            let is_told = refusal.code != RefusalCode::IdentityMismatch;
            while is_told && rejected.is_none() {
                match vehicle.hear().await {
                    Heard::Message(message) if message["type"] == "MessageRejected" => {
                        rejected = Some(message)
                    }
                    Heard::Message(_) => {}
                    other @ (Heard::Puback { .. } | Heard::Closed { .. }) => panic!("{name}: {other:?}"),
                }
            }
            check_rejection(name, rejected.as_ref(), &refusal, stored.msg_id.as_deref(), is_told);
        }
    }
    // The next vector's command may have the same id, which a late acknowledgement of this one would mark as delivered.
    vehicle.leave().await;
}

fn check_rejection(
    name: &str,
    rejected: Option<&Value>,
    refusal: &Refusal,
    msg_id: Option<&str>,
    is_told: bool,
) {
    let Some(rejected) = rejected else { return assert!(!is_told, "{name}") };
    assert!(is_told, "{name}: {rejected}");
    assert_eq!(rejected["code"], refusal.code.name(), "{name}");
    assert!(
        rejected["detail"].as_str().unwrap().starts_with(&format!("{:?}: expected ", refusal.pointer)),
        "{name}: {rejected}"
    );
    assert_eq!(rejected.get("correlation_id").and_then(Value::as_str), msg_id, "{name}");
}

/// A vehicle publishes no commands, whatever is in them.
async fn commands_are_the_servers(real: &RealServer, vector: &Vector, version: Version) {
    begin_anew(real, ServerMessage::parse(&vector.payload).ok()).await;
    let mut vehicle = real.vehicle(version).await;
    if let Ok(command) = ServerMessage::parse(&vector.payload) {
        vehicle.subscribe(&[(DOWN, 1)]).await;
        vehicle.expect_suback().await;
        let sent: Value = serde_json::from_slice(&command.to_json()).unwrap();
        assert_eq!(vehicle.hear().await, Heard::Message(sent), "{}", vector.name);
    }
    vehicle.publish(DOWN, Some(7), &vector.payload).await;
    let answer = vehicle.hear().await;
    let expected = match version {
        Version::V5_0 => Heard::Puback { packet_id: 7, reason: Some(0x87) },
        Version::V3_1_1 => Heard::Closed { reason: None },
    };
    assert_eq!(answer, expected, "{}", vector.name);
    assert!(
        real.read(|tx| messages::refused_of(tx, &own().vehicle_id, 10)).await.is_empty(),
        "{}",
        vector.name
    );
    match version {
        Version::V5_0 => vehicle.leave().await,
        Version::V3_1_1 => {}
    }
}

async fn every_vector(version: Version) {
    let limits = MqttLimits { connects_per_minute: 60_000, message_burst: 60_000, ..MqttLimits::default() };
    let real = RealServer::start(limits).await;
    let vectors: Vec<_> = accepted().into_iter().chain(refused()).collect();
    assert!(vectors.len() >= 190, "{} vectors", vectors.len());
    for vector in &vectors {
        plays_as_check_message_says(&real, vector, version).await;
    }
    println!("{} vectors over {version:?}", vectors.len());
    real.server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_over_mqtt_5_is_judged_as_check_message_judges_it() {
    every_vector(Version::V5_0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vector_over_mqtt_3_1_1_is_judged_as_check_message_judges_it() {
    every_vector(Version::V3_1_1).await;
}
