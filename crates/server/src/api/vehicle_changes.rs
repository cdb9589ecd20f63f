//! What operators change of vehicles: enrolled, described, bound to another gateway.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_protocol::{Binding, GatewayId, InvalidValue, Text, Thumbprint, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::problem::Problem;
use super::request::{Caller, Document, InPath};
use super::vehicles::{VehicleSummary, found, summary};
use super::{Api, vehicle_id};
use crate::conversation::{Rules, look_at_waiting, take_into_following_campaigns, take_into_open_campaigns};
use crate::store::audit::{self, Actor, Change};
use crate::store::vehicles::{self, EnrolledBy, Said, Vehicle};
use crate::store::{Tx, commands};
use crate::vehicle_fields::{InvalidField, Tag, TimeZone, VehicleType, Vin};

/// Tags that a vehicle may have.
const MOST_TAGS: usize = 64;

/// The body of an enrolment. What is absent is left as it is.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewVehicle {
    pub(super) vehicle_id: VehicleId,
    pub(super) gateway_id: GatewayId,
    /// Of the certificate that the vehicle must use; a vehicle that never had one is bound to that of its next WakeUp.
    pub(super) thumbprint: Option<Thumbprint>,
    pub(super) vin: Option<Vin>,
    /// In place of what the vehicle reports.
    pub(super) region: Option<Text>,
    pub(super) time_zone: Option<TimeZone>,
    pub(super) vehicle_type: Option<VehicleType>,
    /// All that it has from now on.
    #[schemars(length(max = 64))]
    pub(super) tags: Option<Vec<Tag>>,
}

/// What is changed of a vehicle: what is absent stays, `null` is forgotten.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct VehicleChange {
    #[serde(deserialize_with = "given")]
    vin: Option<Option<Vin>>,
    #[serde(deserialize_with = "given")]
    region: Option<Option<Text>>,
    #[serde(deserialize_with = "given")]
    time_zone: Option<Option<TimeZone>>,
    #[serde(deserialize_with = "given")]
    vehicle_type: Option<Option<VehicleType>>,
    /// All that it has from now on; not together with the other two.
    #[schemars(length(max = 64))]
    tags: Option<Vec<Tag>>,
    #[schemars(length(max = 64))]
    add_tags: Option<Vec<Tag>>,
    #[schemars(length(max = 64))]
    remove_tags: Option<Vec<Tag>>,
}

/// The body of a re-binding.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rebinding {
    /// The gateway that the vehicle has now; absent where it has the same id.
    pub(crate) gateway_id: Option<GatewayId>,
    /// Of the certificate that it must use; without it, that of its next WakeUp counts.
    pub(crate) thumbprint: Option<Thumbprint>,
    /// Why, for the audit log.
    pub(crate) reason: Text,
}

fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// Why a vehicle cannot be as it is said to be.
pub(super) enum Unfit {
    /// Something else has it.
    Taken { field: &'static str, what: &'static str, by: Box<Vehicle> },
    /// Against a rule of one field.
    Field { field: &'static str, expected: String, found: String },
    /// The store failed.
    Problem(Problem),
}

impl<E: Into<Problem>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl Unfit {
    fn into_problem(self) -> Problem {
        match self {
            Self::Taken { field: "vin", by, .. } => {
                let detail = format!("The VIN belongs to {} already; correct one of the two.", by.binding);
                Problem::conflict("VIN_TAKEN", detail)
            }
            Self::Taken { what, by, .. } => {
                let detail = format!("The {what} belongs to {} already; choose other ids.", by.binding);
                Problem::conflict("VEHICLE_EXISTS", detail)
            }
            Self::Field { field, expected, found } => {
                Problem::invalid(format!("{field}: expected {expected}, found {found}."))
            }
            Self::Problem(problem) => problem,
        }
    }
}

/// A rule and the value that breaks it.
pub(super) struct Fault {
    pub(super) expected: String,
    pub(super) found: String,
}

impl From<InvalidValue> for Fault {
    fn from(error: InvalidValue) -> Self {
        Self { expected: error.expected.to_owned(), found: error.found }
    }
}

impl From<InvalidField> for Fault {
    fn from(error: InvalidField) -> Self {
        Self { expected: error.expected.to_owned(), found: format!("{:?}", error.found) }
    }
}

/// What an enrolment did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Enrolment {
    New,
    Changed,
    AsItWas,
}

/// Enrols a vehicle, or changes what is said of one that is enrolled; the vehicle is locked.
pub(super) fn enrol_one(
    tx: &Tx<'_>,
    rules: &Rules,
    actor: &Actor,
    new: &NewVehicle,
    now: UnixMillis,
) -> Result<Enrolment, Unfit> {
    let binding = Binding { vehicle_id: new.vehicle_id.clone(), gateway_id: new.gateway_id.clone() };
    let before = vehicles::by_id(tx, &binding.vehicle_id)?;
    match &before {
        Some(vehicle) if vehicle.binding == binding => {}
        Some(vehicle) => {
            let by = Box::new(vehicle.clone());
            return Err(Unfit::Taken { field: "vehicle_id", what: "vehicle", by });
        }
        None => {
            if let Some(other) = vehicles::by_client_id(tx, &binding.client_id())? {
                let by = Box::new(other);
                return Err(Unfit::Taken { field: "vehicle_id", what: "client id", by });
            }
            vehicles::enrol(tx, &binding, EnrolledBy::Operator, now)?;
        }
    }
    let is_rebound =
        before.as_ref().is_none_or(|before| new.thumbprint.is_some() && before.thumbprint != new.thumbprint);
    if let (true, Some(thumbprint)) = (is_rebound, &new.thumbprint) {
        vehicles::set_thumbprint(tx, &binding.vehicle_id, Some(thumbprint))?;
    }
    let vehicle = found(tx, &binding.vehicle_id)?;
    let change = VehicleChange {
        vin: new.vin.clone().map(Some),
        region: new.region.clone().map(Some),
        time_zone: new.time_zone.clone().map(Some),
        vehicle_type: new.vehicle_type.clone().map(Some),
        tags: new.tags.clone(),
        ..VehicleChange::default()
    };
    let described = describe(tx, &vehicle, &change)?;
    let certificate = match &new.thumbprint {
        Some(thumbprint) => format!("certificate {thumbprint}"),
        None => "certificate of the next WakeUp".to_owned(),
    };
    let (enrolment, action, detail) = match (&before, is_rebound, described) {
        (None, ..) => {
            (Enrolment::New, "vehicle.enrolled", Some(format!("gateway {}, {certificate}", new.gateway_id)))
        }
        (Some(_), true, _) => {
            let detail = Some(format!("gateway {}, {certificate}", new.gateway_id));
            (Enrolment::Changed, "vehicle.certificate_allowed", detail)
        }
        (Some(_), false, Some(words)) => (Enrolment::Changed, "vehicle.changed", Some(words)),
        (Some(_), false, None) => return Ok(Enrolment::AsItWas),
    };
    let vehicle = found(tx, &binding.vehicle_id)?;
    take_into_open_campaigns(tx, &vehicle, now)?;
    take_into_following_campaigns(tx, rules, &binding.vehicle_id, now)?;
    look_at_waiting(tx, rules, &binding, now)?;
    record(tx, actor, action, before.as_ref(), &vehicle, detail, now)?;
    Ok(enrolment)
}

fn record(
    tx: &Tx<'_>,
    actor: &Actor,
    action: &'static str,
    before: Option<&Vehicle>,
    after: &Vehicle,
    detail: Option<String>,
    now: UnixMillis,
) -> Result<(), Problem> {
    let change = Change {
        action,
        object: format!("vehicle/{}", after.binding.vehicle_id),
        detail,
        before: before.map(Vehicle::audited),
        after: Some(after.audited()),
    };
    Ok(audit::record(tx, actor, change, now)?)
}

/// Changes what is said of a vehicle; gives the change in words, if there is one.
fn describe(tx: &Tx<'_>, vehicle: &Vehicle, change: &VehicleChange) -> Result<Option<String>, Unfit> {
    let vehicle_id = &vehicle.binding.vehicle_id;
    let mut words = Vec::new();
    let before = Said {
        vin: vehicle.vin.clone(),
        region: vehicle.region.clone(),
        time_zone: vehicle.time_zone.clone(),
        vehicle_type: vehicle.vehicle_type.clone(),
    };
    let after = Said {
        vin: change.vin.clone().unwrap_or_else(|| before.vin.clone()),
        region: change.region.clone().unwrap_or_else(|| before.region.clone()),
        time_zone: change.time_zone.clone().unwrap_or_else(|| before.time_zone.clone()),
        vehicle_type: change.vehicle_type.clone().unwrap_or_else(|| before.vehicle_type.clone()),
    };
    if before != after {
        if let Some(vin) = after.vin.as_ref().filter(|_| before.vin != after.vin) {
            // Two vehicles that get the same one at once, on two servers, come one after the other.
            tx.lock(vin.as_str())?;
            if let Some(other) = vehicles::by_vin(tx, vin)? {
                return Err(Unfit::Taken { field: "vin", what: "VIN", by: Box::new(other) });
            }
        }
        vehicles::set_said(tx, vehicle_id, &after)?;
        let mut note = |name: &str, before: Option<String>, after: Option<String>| {
            if before != after {
                words.push(format!("{name} {}", after.unwrap_or_else(|| "forgotten".to_owned())));
            }
        };
        note("VIN", before.vin.map(|vin| vin.to_string()), after.vin.map(|vin| vin.to_string()));
        note("region", before.region.map(String::from), after.region.map(String::from));
        let zone = |zone: Option<TimeZone>| zone.map(|zone| zone.to_string());
        note("time zone", zone(before.time_zone), zone(after.time_zone));
        let kind = |kind: Option<VehicleType>| kind.map(|kind| kind.to_string());
        note("vehicle type", kind(before.vehicle_type), kind(after.vehicle_type));
    }
    words.extend(change_tags(tx, vehicle_id, change)?);
    Ok((!words.is_empty()).then(|| words.join(", ")))
}

fn change_tags(tx: &Tx<'_>, vehicle_id: &VehicleId, change: &VehicleChange) -> Result<Vec<String>, Unfit> {
    let field =
        |field, expected: &str, found: String| Unfit::Field { field, expected: expected.to_owned(), found };
    if change.tags.is_some() && (change.add_tags.is_some() || change.remove_tags.is_some()) {
        return Err(field("tags", "all tags, or some to add and to remove", "both".to_owned()));
    }
    let given =
        [("tags", &change.tags), ("add_tags", &change.add_tags), ("remove_tags", &change.remove_tags)];
    for (name, tags) in given {
        if let Some(tags) = tags.as_ref().filter(|tags| tags.len() > MOST_TAGS) {
            return Err(field(name, "at most 64 tags", tags.len().to_string()));
        }
    }
    if given.iter().all(|(_, tags)| tags.is_none()) {
        return Ok(Vec::new());
    }
    let before = vehicles::tags(tx, vehicle_id)?;
    let is_removed = |tag: &Tag| change.remove_tags.iter().flatten().any(|removed| removed == tag);
    let mut after: Vec<Tag> = match &change.tags {
        Some(tags) => tags.clone(),
        None => {
            let kept = before.iter().filter(|tag| !is_removed(tag));
            kept.chain(change.add_tags.iter().flatten()).cloned().collect()
        }
    };
    after.sort();
    after.dedup();
    if after.len() > MOST_TAGS {
        return Err(field("tags", "at most 64 tags on a vehicle", after.len().to_string()));
    }
    let mut words = Vec::new();
    for tag in before.iter().filter(|tag| !after.contains(tag)) {
        vehicles::remove_tag(tx, vehicle_id, tag)?;
        words.push(format!("without tag {tag}"));
    }
    for tag in after.iter().filter(|tag| !before.contains(tag)) {
        vehicles::add_tag(tx, vehicle_id, tag)?;
        words.push(format!("tag {tag}"));
    }
    Ok(words)
}

/// `POST /vehicles`: enrols a vehicle; one that is enrolled may come with a new certificate from now on.
pub(super) async fn enrol(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewVehicle>,
) -> Result<(StatusCode, Json<VehicleSummary>), Problem> {
    let (actor, shown_by) = (caller.actor(), api.clone());
    let enrolled = api.answer(move |tx, rules, now| {
        vehicles::lock(tx, &new.vehicle_id)?;
        let enrolment = enrol_one(tx, rules, &actor, &new, now).map_err(Unfit::into_problem)?;
        let status = match enrolment {
            Enrolment::New => StatusCode::CREATED,
            Enrolment::Changed | Enrolment::AsItWas => StatusCode::OK,
        };
        Ok((status, summary(tx, &shown_by, &found(tx, &new.vehicle_id)?, None)?))
    });
    enrolled.await
}

/// `PATCH /vehicles/{vehicle_id}`
pub(super) async fn change(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(change): Document<VehicleChange>,
) -> Result<Json<VehicleSummary>, Problem> {
    let (vehicle_id, actor, shown_by) = (vehicle_id(&text)?, caller.actor(), api.clone());
    let changed = api.write(move |tx, rules, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let before = found(tx, &vehicle_id)?;
        let words = describe(tx, &before, &change).map_err(Unfit::into_problem)?;
        let after = found(tx, &vehicle_id)?;
        if words.is_some() {
            take_into_following_campaigns(tx, rules, &vehicle_id, now)?;
            // Where it has another time zone now, its windows may be open.
            look_at_waiting(tx, rules, &after.binding, now)?;
            record(tx, &actor, "vehicle.changed", Some(&before), &after, words, now)?;
        }
        summary(tx, &shown_by, &after, None)
    });
    Ok(Json(changed.await?))
}

/// `POST /vehicles/{vehicle_id}/rebind`: the vehicle has another gateway, or the same with another certificate. What
/// the earlier one sends is refused from now on.
pub(crate) async fn rebind(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(new): Document<Rebinding>,
) -> Result<Json<VehicleSummary>, Problem> {
    let (vehicle_id, actor, shown_by) = (vehicle_id(&text)?, caller.actor(), api.clone());
    let rebound = api.answer(move |tx, rules, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let before = found(tx, &vehicle_id)?;
        let gateway_id = new.gateway_id.unwrap_or_else(|| before.binding.gateway_id.clone());
        let binding = Binding { vehicle_id: vehicle_id.clone(), gateway_id };
        if let Some(other) = vehicles::by_client_id(tx, &binding.client_id())?
            && other.binding.vehicle_id != vehicle_id
        {
            let by = Box::new(other);
            let problem = Unfit::Taken { field: "gateway_id", what: "client id", by }.into_problem();
            return Err(problem.at("/gateway_id"));
        }
        vehicles::rebind(tx, &before, &binding, new.thumbprint.as_ref(), &new.reason, now)?;
        commands::close_of_binding(tx, &before.binding, now)?;
        let after = found(tx, &vehicle_id)?;
        let certificate = match &new.thumbprint {
            Some(thumbprint) => format!("certificate {thumbprint}"),
            None => "certificate of the next WakeUp".to_owned(),
        };
        let detail = format!("gateway {}, {certificate}: {}", binding.gateway_id, new.reason);
        take_into_following_campaigns(tx, rules, &vehicle_id, now)?;
        record(tx, &actor, "vehicle.rebound", Some(&before), &after, Some(detail), now)?;
        Ok((StatusCode::OK, summary(tx, &shown_by, &after, None)?))
    });
    Ok(rebound.await?.1)
}
