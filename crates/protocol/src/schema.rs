//! JSON Schema (2020-12) of every message, from the types.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::envelope::{MessageType, ServerHeader, VehicleHeader};
use crate::message::{
    CancelUpdate, ErrorResponse, MessageRejected, ReadinessReport, RequestDownloadReadiness, RequestVci,
    SendVci, StartDownload, StartRollback, UpdateSuccessResult, WakeUp,
};

/// The schema of a message under version 1.0, in which no other field is allowed. Under a later minor
/// version fields may be added at every level: a reader of such messages drops each
/// `"additionalProperties": false`.
///
/// A schema says what one message looks like by itself. It cannot say that keys are unique, that an
/// integer is written without fraction and exponent, what the answered command asked for, or what a
/// topic allows.
pub fn message_schema(message_type: MessageType) -> Value {
    match message_type {
        MessageType::WakeUp => of::<VehicleHeader, WakeUp>(message_type),
        MessageType::RequestVci => of::<ServerHeader, RequestVci>(message_type),
        MessageType::SendVci => of::<VehicleHeader, SendVci>(message_type),
        MessageType::RequestDownloadReadiness => of::<ServerHeader, RequestDownloadReadiness>(message_type),
        MessageType::ReadinessReportForDownload => of::<VehicleHeader, ReadinessReport>(message_type),
        MessageType::UpdateSuccessResult => of::<VehicleHeader, UpdateSuccessResult>(message_type),
        MessageType::StartDownload => of::<ServerHeader, StartDownload>(message_type),
        MessageType::StartRollback => of::<ServerHeader, StartRollback>(message_type),
        MessageType::CancelUpdate => of::<ServerHeader, CancelUpdate>(message_type),
        MessageType::ErrorResponse => of::<VehicleHeader, ErrorResponse>(message_type),
        MessageType::MessageRejected => of::<ServerHeader, MessageRejected>(message_type),
    }
}

fn of<H: JsonSchema, B: JsonSchema>(message_type: MessageType) -> Value {
    let header = inline::<H>();
    let body = inline::<B>();
    let mut properties = members(&header, "properties");
    properties.extend(members(&body, "properties"));
    properties.insert("type".to_owned(), json!({"const": message_type.name()}));
    let mut required: Vec<Value> = [&header, &body].into_iter().flat_map(required).collect();
    // A WakeUp is known by its topic; every other message says what it is.
    if message_type != MessageType::WakeUp {
        required.push(json!("type"));
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": message_type.name(),
        "description": body.get("description"),
        "type": "object",
        "properties": properties,
        "required": required,
    });
    tighten(&mut schema);
    schema
}

fn inline<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>()
}

fn members(schema: &Schema, key: &str) -> Map<String, Value> {
    schema.get(key).and_then(Value::as_object).cloned().unwrap_or_default()
}

fn required(schema: &Schema) -> Vec<Value> {
    schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Closes every object, bounds every integer, and takes away the nulls that `schemars` allows for optional
/// fields: on this wire a field is left out or holds a value.
fn tighten(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            drop_null(members);
            if members.get("default") == Some(&Value::Null) {
                members.remove("default");
            }
            if members.get("type") == Some(&json!("object")) {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            if members.get("format") == Some(&json!("uint64")) {
                members.insert("maximum".to_owned(), json!(u64::MAX));
            }
            if members.get("format") == Some(&json!("int64")) {
                members.insert("minimum".to_owned(), json!(i64::MIN));
                members.insert("maximum".to_owned(), json!(i64::MAX));
            }
            members.values_mut().for_each(tighten);
        }
        Value::Array(items) => items.iter_mut().for_each(tighten),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn drop_null(members: &mut Map<String, Value>) {
    for (key, null) in [("type", json!("null")), ("anyOf", json!({"type": "null"})), ("enum", Value::Null)] {
        let Some(Value::Array(choices)) = members.get_mut(key) else { continue };
        choices.retain(|choice| *choice != null);
        let (1, "type" | "anyOf", Some(only)) = (choices.len(), key, choices.first().cloned()) else {
            continue;
        };
        members.remove(key);
        match only {
            Value::Object(only) => only.into_iter().for_each(|(key, value)| {
                members.entry(key).or_insert(value);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                members.insert(key.to_owned(), only);
            }
        }
    }
}
