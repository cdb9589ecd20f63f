//! Asking a vehicle for its inventory because somebody wants to know.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::problem::Problem;
use super::request::{Caller, InPath};
use super::vehicles::{VehicleSummary, found, summary};
use super::{Api, vehicle_id};
use crate::conversation::{self, NotAsked};
use crate::store::audit::{self, Change};
use crate::store::vehicles;

/// `POST /vehicles/{vehicle_id}/ask-inventory`
pub(crate) async fn ask(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
) -> Result<Json<VehicleSummary>, Problem> {
    let (vehicle_id, actor, shown_by) = (vehicle_id(&text)?, caller.actor(), api.clone());
    let asked = api.answer(move |tx, rules, now| {
        vehicles::lock(tx, &vehicle_id)?;
        let vehicle = found(tx, &vehicle_id)?;
        if let Some(why) = conversation::ask_inventory(tx, rules, &vehicle, now)? {
            let why = match why {
                NotAsked::Quarantined => "it is quarantined; release it first",
                NotAsked::Away => {
                    "it is not connected; it is asked when it wakes up, if its inventory has changed"
                }
                NotAsked::BeingUpdated => "it is being updated; it is asked at the end of that",
                NotAsked::AskedAlready => "it has been asked already; wait for its answer",
            };
            let detail = format!("Vehicle {vehicle_id} was not asked for its inventory: {why}.");
            return Err(Problem::conflict("INVENTORY_NOT_ASKED", detail));
        }
        let change = Change {
            action: "vehicle.inventory_asked",
            object: format!("vehicle/{vehicle_id}"),
            detail: None,
            before: None,
            after: None,
        };
        audit::record(tx, &actor, change, now)?;
        Ok((StatusCode::OK, summary(tx, &shown_by, &vehicle, None)?))
    });
    Ok(asked.await?.1)
}
