//! Every vector under `tests/vectors` is judged as it says: `accepted` holds messages as they travel,
//! `refused` holds descriptions of messages that no receiver may take.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test states what it expects by unwrapping"
)]

use std::fs;
use std::path::{Path, PathBuf};

use farrier_protocol::{CheckTopic, MessageType, ReceivedMessage, ServerMessage, Verdict, check_message};
use serde_json::Value;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap().to_string_lossy().into_owned()
}

fn judge(topic: CheckTopic, payload: &[u8], in_reply_to: Option<&Value>) -> Value {
    let command =
        in_reply_to.map(|command| ServerMessage::parse(&serde_json::to_vec(command).unwrap()).unwrap());
    serde_json::to_value(check_message(topic, payload, command.as_ref())).unwrap()
}

#[test]
fn every_accepted_vector_is_accepted() {
    let files = files("accepted");
    assert!(files.len() >= 14, "{} vectors", files.len());
    for file in files {
        let payload = fs::read(&file).unwrap();
        let named = serde_json::from_slice::<Value>(&payload)
            .unwrap()
            .get("type")
            .map(|named| named.as_str().unwrap().to_owned());
        let message_type: MessageType = named.as_deref().unwrap_or("WakeUp").parse().unwrap();
        let verdict = check_message(message_type.direction(), &payload, None);
        assert_eq!(verdict, Verdict::Accepted { message_type }, "{}", name(&file));
        // What was read is written as something that is read as the same.
        match message_type.direction() {
            CheckTopic::Up(topic) => {
                let message = ReceivedMessage::parse(topic, &payload, None).unwrap().message;
                let again = ReceivedMessage::parse(topic, &message.to_json(), None).unwrap().message;
                assert_eq!(again, message, "{}", name(&file));
            }
            CheckTopic::Down => {
                let message = ServerMessage::parse(&payload).unwrap();
                assert_eq!(ServerMessage::parse(&message.to_json()).unwrap(), message, "{}", name(&file));
            }
        }
    }
}

#[test]
fn every_refused_vector_is_refused_with_its_code_and_pointer() {
    let files = files("refused");
    assert!(files.len() >= 87, "{} vectors", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let vector: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let topic: CheckTopic = vector["topic"].as_str().unwrap().parse().unwrap();
        let verdict = judge(topic, vector["raw"].as_str().unwrap().as_bytes(), vector.get("in_reply_to"));
        let pointer_is_right = vector.get("pointer").is_none_or(|pointer| verdict["pointer"] == *pointer);
        if verdict["code"] != vector["expect"] || !pointer_is_right {
            let expected = (&vector["expect"], vector.get("pointer"));
            wrong.push(format!("{}: expected {expected:?}, got {verdict}", name(&file)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_example_of_the_documentation_is_accepted() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol.md")).unwrap();
    let mut shown = Vec::new();
    for example in page.split("```json\n").skip(1) {
        let example = example.split("```").next().unwrap();
        let named: Value = serde_json::from_str(example).unwrap();
        let message_type: MessageType = named["type"].as_str().unwrap().parse().unwrap();
        let verdict = check_message(message_type.direction(), example.as_bytes(), None);
        assert_eq!(verdict, Verdict::Accepted { message_type }, "{example}");
        shown.push(message_type);
    }
    assert_eq!(shown, MessageType::ALL.to_vec());
}
