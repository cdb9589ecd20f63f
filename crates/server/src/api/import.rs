//! The import of many vehicles: JSON lines, all of a request or none.

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Api;
use super::problem::{LineFault, Problem};
use super::request::{Caller, InQuery, Lines};
use super::vehicle_changes::{Enrolment, Fault, NewVehicle, Unfit, enrol_one};
use crate::store::{StoreError, vehicles};
use crate::vehicle_files::VEHICLES_AT_A_TIME;

/// Vehicles that one request may bring.
const MOST_LINES: usize = VEHICLES_AT_A_TIME;

/// How an import is done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImportQuery {
    /// Whether it is only tried: then nothing is changed.
    #[serde(default)]
    pub(crate) dry_run: bool,
}

/// What an import did, or would have done.
#[derive(Debug, Default, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct Imported {
    pub(crate) enrolled: u64,
    pub(crate) changed: u64,
    /// Were there already, and just so.
    pub(crate) unchanged: u64,
    dry_run: bool,
}

impl Imported {
    fn count(&mut self, enrolment: Enrolment) {
        let counter = match enrolment {
            Enrolment::New => &mut self.enrolled,
            Enrolment::Changed => &mut self.changed,
            Enrolment::AsItWas => &mut self.unchanged,
        };
        *counter = counter.saturating_add(1);
    }
}

/// Why the transaction of an import is undone.
enum Undone {
    Refused(Problem),
    OnlyTried(Imported),
}

impl From<Problem> for Undone {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem)
    }
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// `POST /vehicles/import`
pub(crate) async fn import(
    State(api): State<Api>,
    caller: Caller,
    InQuery(ImportQuery { dry_run }): InQuery<ImportQuery>,
    Lines(body): Lines,
) -> Result<Json<Imported>, Problem> {
    let vehicles = read(&body)?;
    let actor = caller.actor();
    let imported = api.write_as(move |tx, rules, now| {
        let (mut imported, mut faults) = (Imported { dry_run, ..Imported::default() }, Vec::new());
        // In the order of their ids, as everybody locks them.
        for (_, vehicle) in &vehicles {
            vehicles::lock(tx, &vehicle.vehicle_id)?;
        }
        for (line, vehicle) in &vehicles {
            match enrol_one(tx, rules, &actor, vehicle, now) {
                Ok(enrolment) => imported.count(enrolment),
                Err(unfit) => faults.push(fault(*line, unfit).map_err(Undone::Refused)?),
            }
        }
        if !faults.is_empty() {
            faults.sort_by_key(|fault| fault.line);
            return Err(Undone::Refused(Problem::lines(faults)));
        }
        if dry_run { Err(Undone::OnlyTried(imported)) } else { Ok(imported) }
    });
    match imported.await {
        Ok(imported) | Err(Undone::OnlyTried(imported)) => Ok(Json(imported)),
        Err(Undone::Refused(problem)) => Err(problem),
    }
}

/// What is wrong with a line; a store that fails is the whole request's problem.
fn fault(line: usize, unfit: Unfit) -> Result<LineFault, Problem> {
    let (field, expected, found) = match unfit {
        Unfit::Taken { field, what, by } => {
            (field, format!("a {what} that no other vehicle has"), format!("that of {}", by.binding))
        }
        Unfit::Field { field, expected, found } => (field, expected, found),
        Unfit::Problem(problem) => return Err(problem),
    };
    Ok(LineFault { line, field: Some(field.to_owned()), expected, found })
}

/// The vehicles with their lines, by id. Empty lines are skipped.
fn read(body: &[u8]) -> Result<Vec<(usize, NewVehicle)>, Problem> {
    let lines = || (1_usize..).zip(body.split(|byte| *byte == b'\n'));
    let is_empty = |line: &[u8]| line.iter().all(u8::is_ascii_whitespace);
    let number = lines().filter(|(_, line)| !is_empty(line)).count();
    if !(1..=MOST_LINES).contains(&number) {
        return Err(Problem::invalid(format!("Expected 1 to {MOST_LINES} lines of JSON, found {number}.")));
    }
    let (mut vehicles, mut faults) = (BTreeMap::new(), Vec::new());
    for (line, text) in lines().filter(|(_, line)| !is_empty(line)) {
        let mut reading = Reading { line, faults: &mut faults };
        let Some(vehicle) = reading.vehicle(text) else { continue };
        let id = vehicle.vehicle_id.clone();
        if let Some((first, _)) = vehicles.insert(id, (line, vehicle)) {
            let expected = "each vehicle once".to_owned();
            let found = format!("the vehicle of line {first}");
            faults.push(LineFault { line, field: Some("vehicle_id".to_owned()), expected, found });
        }
    }
    if faults.is_empty() { Ok(vehicles.into_values().collect()) } else { Err(Problem::lines(faults)) }
}

/// Reads one line, and notes everything that is wrong in it.
struct Reading<'f> {
    line: usize,
    faults: &'f mut Vec<LineFault>,
}

impl Reading<'_> {
    fn fault(&mut self, field: Option<&str>, expected: impl Into<String>, found: impl Into<String>) {
        let field = field.map(str::to_owned);
        self.faults.push(LineFault {
            line: self.line,
            field,
            expected: expected.into(),
            found: found.into(),
        });
    }

    fn vehicle(&mut self, text: &[u8]) -> Option<NewVehicle> {
        let mut fields = match serde_json::from_slice::<Map<String, Value>>(text) {
            Ok(fields) => fields,
            Err(error) => {
                self.fault(None, "one JSON object", error.to_string());
                return None;
            }
        };
        let faults_before = self.faults.len();
        let vehicle_id = self.needed(&mut fields, "vehicle_id");
        let gateway_id = self.needed(&mut fields, "gateway_id");
        let thumbprint = self.field(&mut fields, "thumbprint");
        let vin = self.field(&mut fields, "vin");
        let region = self.field(&mut fields, "region");
        let time_zone = self.field(&mut fields, "time_zone");
        let vehicle_type = self.field(&mut fields, "vehicle_type");
        let tags = match fields.remove("tags") {
            None | Some(Value::Null) => None,
            Some(Value::Array(tags)) => {
                Some(tags.into_iter().filter_map(|tag| self.value(tag, "tags")).collect())
            }
            Some(found) => {
                self.fault(Some("tags"), "a list of tags", found.to_string());
                None
            }
        };
        for unknown in fields.keys() {
            let expected =
                "one of vehicle_id, gateway_id, thumbprint, vin, region, time_zone, vehicle_type, tags"
                    .to_owned();
            self.fault(Some(unknown), expected, "another name");
        }
        if self.faults.len() > faults_before {
            return None;
        }
        Some(NewVehicle {
            vehicle_id: vehicle_id?,
            gateway_id: gateway_id?,
            thumbprint,
            vin,
            region,
            time_zone,
            vehicle_type,
            tags,
        })
    }

    fn needed<T>(&mut self, fields: &mut Map<String, Value>, name: &str) -> Option<T>
    where
        T: FromStr,
        Fault: From<T::Err>,
    {
        if fields.get(name).is_none_or(Value::is_null) {
            self.fault(Some(name), "a value", "none");
        }
        self.field(fields, name)
    }

    fn field<T>(&mut self, fields: &mut Map<String, Value>, name: &str) -> Option<T>
    where
        T: FromStr,
        Fault: From<T::Err>,
    {
        match fields.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.value(value, name),
        }
    }

    fn value<T>(&mut self, value: Value, name: &str) -> Option<T>
    where
        T: FromStr,
        Fault: From<T::Err>,
    {
        let Value::String(text) = value else {
            self.fault(Some(name), "a text", value.to_string());
            return None;
        };
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let Fault { expected, found } = Fault::from(error);
                self.fault(Some(name), expected, found);
                None
            }
        }
    }
}
