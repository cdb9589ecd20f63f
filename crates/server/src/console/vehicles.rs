//! `/vehicles`: found by id, VIN, version, or a query, and by where they stand.

use askama::Template;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use farrier_campaign::Selection;
use serde::Deserialize;

use super::format::{Time, number, time_or_never};
use super::page::{Failed, Frame, shown};
use super::query::{self, Help, Mark};
use super::session::Visitor;
use super::texts::Texts;
use super::{Console, progress};
use crate::api::{self, Api, Problem};
use crate::store::vehicle_list::{self, Filter};
use crate::store::vehicles::Vehicle;
use crate::store::{Tx, groups, selection, updates, vehicles};
use crate::vehicle_fields::Vin;

/// Vehicles on a page.
const ON_A_PAGE: usize = 50;
/// Vehicles that are looked at for a page: who is connected is known in memory alone.
const LOOKED_AT: u32 = 2_000;
/// Groups that are offered.
const GROUPS: u32 = 100;

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
    asked: Asked,
    rows: Vec<Row>,
    /// How many the query selects.
    count: Option<String>,
    mark: Option<Mark>,
    next: Next,
    groups: Vec<(String, String)>,
    states: Vec<(&'static str, &'static str)>,
    help: Help,
}

/// What was asked for; an empty text is no wish.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asked {
    /// What was typed: an id, a VIN, a version, or a query.
    pub(super) q: String,
    after: String,
    state: String,
    connected: String,
    quarantined: String,
    set_aside: String,
    /// `desc`: the last id first.
    order: String,
}

impl Asked {
    pub(super) fn filter(&self) -> Filter {
        Filter {
            state: Some(self.state.clone()).filter(|state| !state.is_empty()),
            is_quarantined: !self.quarantined.is_empty(),
            is_set_aside: !self.set_aside.is_empty(),
        }
    }

    fn is_filtered(&self) -> bool {
        self.filter() != Filter::default() || !self.connected.is_empty()
    }

    fn is_backwards(&self) -> bool {
        self.order == "desc"
    }

    /// The same, from another vehicle on.
    fn page_after(&self, after: &str) -> String {
        let wishes = [
            ("q", self.q.as_str()),
            ("state", &self.state),
            ("connected", &self.connected),
            ("quarantined", &self.quarantined),
            ("set_aside", &self.set_aside),
            ("order", &self.order),
            ("after", after),
        ];
        let wishes = wishes.iter().filter(|(_, value)| !value.is_empty());
        let encoded = wishes.map(|(name, value)| format!("{name}={}", encoded(value)));
        format!("/vehicles?{}", encoded.collect::<Vec<_>>().join("&"))
    }
}

/// As the query of an address has it.
pub(super) fn encoded(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte))
            }
            byte => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What was typed as a query: a version alone asks for the vehicles with an ECU that runs it.
pub(super) fn read(t: &'static Texts, typed: &str) -> Result<Option<Selection>, Mark> {
    if typed.is_empty() {
        return Ok(None);
    }
    let is_version = typed.starts_with(|c: char| c.is_ascii_digit())
        && typed.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_'));
    if is_version {
        return query::read(t, &format!("ecu.sw_version = \"{typed}\"")).map(Some);
    }
    query::read(t, typed).map(Some)
}

/// `GET /vehicles`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
) -> Result<Response, Failed> {
    let (t, failed) = (visitor.guest.language.texts(), |problem| visitor.failed(problem));
    let asked = Asked { q: asked.q.trim().to_owned(), ..asked };
    if let Some(id) = exact(&console, &asked.q).await.map_err(failed)? {
        return Ok(Redirect::to(&format!("/vehicles/{id}")).into_response());
    }
    let (selected, mark) = match read(t, &asked.q) {
        Ok(selected) => (selected, None),
        Err(mark) => (None, Some(mark)),
    };
    let (is_wrong, wished, api) = (mark.is_some(), asked.clone(), console.api.clone());
    let seen = console.api.read(move |tx| {
        let (all, next) = match is_wrong {
            true => (Vec::new(), None),
            false => found(tx, &api, selected.as_ref().unwrap_or(&Selection::All), &wished)?,
        };
        let count = selected.as_ref().map(|selected| selection::count(tx, selected)).transpose()?;
        let mut rows = Vec::new();
        for vehicle in &all {
            rows.push(row(tx, &api, t, vehicle)?);
        }
        let groups = groups::page(tx, "", GROUPS)?;
        let groups =
            groups.iter().map(|group| (group.name.to_string(), group.selection.to_string())).collect();
        Ok((rows, next, count, groups))
    });
    let (rows, next, count, groups) = seen.await.map_err(failed)?;
    let states = progress::STATES.iter().map(|(state, _)| (*state, t.state(state))).collect();
    let (count, frame) = (count.map(number), visitor.frame());
    Ok(shown(&VehiclesPage { frame, asked, rows, count, mark, next, groups, states, help: Help }))
}

/// After which vehicle the next page begins, and whether it has any for certain.
type Next = Option<(String, bool)>;

/// A page of vehicles.
fn found(
    tx: &Tx<'_>,
    api: &Api,
    selection: &Selection,
    asked: &Asked,
) -> Result<(Vec<Vehicle>, Next), Problem> {
    let wants = match asked.connected.as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    let most =
        if wants.is_some() { LOOKED_AT } else { u32::try_from(ON_A_PAGE).unwrap_or(50).saturating_add(1) };
    let from = (asked.after.as_str(), asked.is_backwards());
    let all = vehicle_list::page(tx, selection, &asked.filter(), from, most)?;
    let were_all = all.len() < most as usize;
    let last_looked_at = all.last().map(|vehicle| vehicle.binding.vehicle_id.to_string());
    let mut found = Vec::new();
    for vehicle in all {
        if found.len() > ON_A_PAGE {
            break;
        }
        if wants.is_none_or(|wants| api.is_connected(tx, &vehicle.binding).is_ok_and(|is| is == wants)) {
            found.push(vehicle);
        }
    }
    let has_more = found.len() > ON_A_PAGE;
    found.truncate(ON_A_PAGE);
    let last_shown = found.last().map(|vehicle| vehicle.binding.vehicle_id.to_string());
    let next = match (has_more, were_all) {
        (true, _) => last_shown.map(|last| (last, true)),
        (false, true) => None,
        (false, false) => last_looked_at.map(|last| (last, false)),
    };
    Ok((found, next))
}

fn row(tx: &Tx<'_>, api: &Api, t: &'static Texts, vehicle: &Vehicle) -> Result<Row, Problem> {
    let id = &vehicle.binding.vehicle_id;
    let all = updates::of_vehicle(tx, id)?;
    let update = api::vehicles::spoken_of(&all);
    Ok(Row {
        vehicle_id: id.to_string(),
        is_connected: api.is_connected(tx, &vehicle.binding)?,
        is_quarantined: vehicle.quarantined_at.is_some(),
        vin: vehicle.vin.as_ref().map(ToString::to_string).unwrap_or_default(),
        region: vehicle.effective_region().map(ToString::to_string).unwrap_or_default(),
        tags: vehicles::tags(tx, id)?.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        last_seen: time_or_never(t, vehicle.last_seen_at, api.now()),
        update: update.map(|update| {
            let state = update.state.name();
            (update.campaign.to_string(), t.state(state), progress::class(state))
        }),
    })
}

/// The vehicle whose id or VIN was typed.
async fn exact(console: &Console, typed: &str) -> Result<Option<String>, Problem> {
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
