//! `/vehicles`: found by id, VIN, or a query.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use farrier_campaign::Selection;
use serde::Deserialize;

use super::format::{Time, number, time_or_never};
use super::page::{Failed, Frame, shown};
use super::session::Visitor;
use super::{Console, progress};
use crate::api;
use crate::store::{groups, selection, updates, vehicles};
use crate::vehicle_fields::Vin;

/// Vehicles on a page.
const ON_A_PAGE: u32 = 50;

struct Row {
    vehicle_id: String,
    is_connected: bool,
    is_quarantined: bool,
    vin: String,
    region: String,
    tags: String,
    last_seen: Time,
    /// Of the update that is under way or was last: its campaign, its state.
    update: Option<(String, &'static str, &'static str)>,
}

#[derive(Template)]
#[template(path = "vehicles.html")]
struct VehiclesPage {
    frame: Frame,
    query: String,
    rows: Vec<Row>,
    /// How many the query selects.
    count: Option<String>,
    error: Option<String>,
    next: Option<String>,
    groups: Vec<(String, String)>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    /// What was typed: an id, a VIN, or a query.
    #[serde(default)]
    q: String,
    #[serde(default)]
    after: String,
}

/// `GET /vehicles`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { q, after }): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let typed = q.trim().to_owned();
    if let Some(id) = exact(&console, &typed).await.map_err(|problem| visitor.failed(problem))? {
        return Ok(Redirect::to(&format!("/vehicles/{id}")).into_response());
    }
    let selected = (!typed.is_empty()).then(|| typed.parse::<Selection>());
    let (selected, error) = match selected {
        Some(Ok(selected)) => (Some(selected), None),
        Some(Err(error)) => (None, Some(format!("{error}."))),
        None => (None, None),
    };
    let (is_wrong, asked) = (error.is_some(), console.api.clone());
    let seen = console.api.read(move |tx| {
        let all = match (&selected, is_wrong) {
            (_, true) => Vec::new(),
            (Some(selected), _) => selection::page(tx, selected, &after, ON_A_PAGE + 1)?,
            (None, _) => vehicles::page(tx, &after, ON_A_PAGE + 1)?,
        };
        let count = selected.as_ref().map(|selected| selection::count(tx, selected)).transpose()?;
        let mut rows = Vec::new();
        for vehicle in &all {
            let id = &vehicle.binding.vehicle_id;
            let all = updates::of_vehicle(tx, id)?;
            let shown = api::vehicles::spoken_of(&all);
            rows.push(Row {
                vehicle_id: id.to_string(),
                is_connected: asked.is_connected(tx, &vehicle.binding)?,
                is_quarantined: vehicle.quarantined_at.is_some(),
                vin: vehicle.vin.as_ref().map(ToString::to_string).unwrap_or_default(),
                region: vehicle.effective_region().map(ToString::to_string).unwrap_or_default(),
                tags: vehicles::tags(tx, id)?.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                last_seen: time_or_never(t, vehicle.last_seen_at, now),
                update: shown.map(|update| {
                    let state = update.state.name();
                    (update.campaign.to_string(), t.state(state), progress::class(state))
                }),
            });
        }
        let groups = groups::page(tx, "", 100)?;
        let groups =
            groups.iter().map(|group| (group.name.to_string(), group.selection.to_string())).collect();
        Ok((rows, count, groups))
    });
    let (mut rows, count, groups): (Vec<Row>, _, _) =
        seen.await.map_err(|problem| visitor.failed(problem))?;
    let has_more = rows.len() > ON_A_PAGE as usize;
    rows.truncate(ON_A_PAGE as usize);
    let next = rows.last().filter(|_| has_more).map(|row| row.vehicle_id.clone());
    let (query, count) = (typed, count.map(number));
    Ok(shown(&VehiclesPage { frame: visitor.frame(), query, rows, count, error, next, groups }))
}

/// The vehicle whose id or VIN was typed.
async fn exact(console: &Console, typed: &str) -> Result<Option<String>, api::Problem> {
    let (id, vin) = (typed.parse().ok(), typed.parse::<Vin>().ok());
    if id.is_none() && vin.is_none() {
        return Ok(None);
    }
    let found = console.api.read(move |tx| {
        let by_id = id.as_ref().map(|id| vehicles::by_id(tx, id)).transpose()?.flatten();
        let by_vin = vin.as_ref().map(|vin| vehicles::by_vin(tx, vin)).transpose()?.flatten();
        Ok(by_id.or(by_vin).map(|vehicle| vehicle.binding.vehicle_id.to_string()))
    });
    found.await
}
