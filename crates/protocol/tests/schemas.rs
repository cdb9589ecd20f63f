//! The schemas in `docs/schemas` are those of the types, and they agree with the vectors.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test states what it expects by unwrapping"
)]

use std::fs;
use std::path::{Path, PathBuf};

use farrier_protocol::{CheckTopic, MessageType, message_schema};
use jsonschema::Validator;
use serde_json::Value;

fn vectors(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
    let mut vectors: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect();
    vectors.sort();
    vectors
}

fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::options().should_validate_formats(true).build(schema).unwrap()
}

/// What `message_schema` tells a reader to do for messages of a later minor version.
fn without_closed_objects(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.remove("additionalProperties");
            members.values_mut().for_each(without_closed_objects);
        }
        Value::Array(items) => items.iter_mut().for_each(without_closed_objects),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn validator_for(message_type: MessageType, message: &Value) -> Validator {
    let mut schema = message_schema(message_type);
    if message["proto_ver"] != "1.0" {
        without_closed_objects(&mut schema);
    }
    validator(&schema)
}

#[test]
fn files_are_up_to_date() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas");
    let update = std::env::var_os("FARRIER_UPDATE_SCHEMAS").is_some();
    for message_type in MessageType::ALL {
        let file = folder.join(format!("{message_type}.schema.json"));
        let schema = message_schema(*message_type);
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&file, serde_json::to_string_pretty(&schema).unwrap() + "\n").unwrap();
        }
        let kept = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        assert!(
            kept.as_ref() == Some(&schema),
            "{} is not the schema of the types; write it anew with `FARRIER_UPDATE_SCHEMAS=1 cargo test -p farrier-protocol --test schemas` and commit it",
            file.display(),
        );
    }
    let files = fs::read_dir(folder).unwrap().count();
    assert_eq!(files, MessageType::ALL.len(), "docs/schemas holds a file that is no message's schema");
}

#[test]
fn every_schema_is_a_schema() {
    for message_type in MessageType::ALL {
        jsonschema::draft202012::meta::validate(&message_schema(*message_type)).unwrap();
    }
}

#[test]
fn accepted_vectors_satisfy_their_schema() {
    for (name, payload) in vectors("accepted") {
        let message: Value = serde_json::from_slice(&payload).unwrap();
        let message_type = message.get("type").map_or("WakeUp", |named| named.as_str().unwrap());
        let validator = validator_for(message_type.parse().unwrap(), &message);
        let errors: Vec<_> = validator.iter_errors(&message).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
    }
}

/// Shape is what one message must look like by itself; these faults of shape no schema can express.
const BEYOND_SCHEMAS: &[&str] = &[
    // A parser that keeps one of two equal keys shows none of them to a validator.
    "duplicate_key",
    "duplicate_unknown_key",
    "second_key_after_bad_value",
    // JSON Schema takes 8.0, 1e2 and -0 for the integers that they equal.
    "integer_with_fraction",
    "integer_with_exponent",
    "integer_minus_zero",
    "zone_with_fraction",
    // A schema compares no two fields of a message.
    "full_image_with_another",
    // Against the command.
    "error_code_of_another_command",
    "update_failed_not_asked_for",
    "cancelled_answers_start_download",
];

#[test]
fn vectors_refused_for_their_shape_break_their_schema() {
    let (mut judged, mut taken) = (0, Vec::new());
    for (name, text) in vectors("refused") {
        let vector: Value = serde_json::from_slice(&text).unwrap();
        let of_shape =
            ["MISSING_FIELD", "INVALID_FIELD", "UNKNOWN_FIELD", "UNSUPPORTED_VERSION", "VCI_EMPTY"];
        // `serde_json` takes no number beyond an f64 at all.
        let Ok(message) = serde_json::from_str::<Value>(vector["raw"].as_str().unwrap()) else { continue };
        let beyond = BEYOND_SCHEMAS.iter().any(|prefix| name.contains(prefix));
        if !of_shape.contains(&vector["expect"].as_str().unwrap()) || beyond {
            continue;
        }
        let message_type: MessageType = match vector["topic"].as_str().unwrap().parse().unwrap() {
            CheckTopic::Up(topic) => topic.message_type(),
            CheckTopic::Down => message["type"].as_str().unwrap().parse().unwrap(),
        };
        judged += 1;
        if validator_for(message_type, &message).is_valid(&message) {
            taken.push(name);
        }
    }
    assert!(taken.is_empty(), "their schema takes {taken:?}");
    assert!(judged >= 80, "only {judged} vectors were judged");
}
