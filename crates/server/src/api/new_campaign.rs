//! Planning a campaign: which release goes to which vehicles and in which way, checked before anything is stored.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{ApprovalRule, GateRecord, Rollout, Selection, WaveSize};
use farrier_protocol::{Text, UnixMillis, VehicleId};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::campaigns::{CampaignAnswer, found, shown};
use super::groups::Chosen;
use super::problem::Problem;
use super::request::{Caller, Document};
use super::{Api, dry_run, groups, name};
use crate::conversation::Rules;
use crate::evidence::Statement;
use crate::store::audit::{self, Actor, Change};
use crate::store::campaigns::{self, Campaign};
use crate::store::intake::{HIGHEST_PRIORITY, Intake, USUAL_PRIORITY};
use crate::store::{Tx, evidence, intake, releases, vehicles};

/// The body of a new campaign.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCampaign {
    /// 1 to 64 characters [A-Za-z0-9._-].
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) name: String,
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) release: String,
    /// Without it, `where` and `group`: every enrolled vehicle, later ones too.
    #[schemars(length(min = 1))]
    pub(crate) vehicles: Option<Vec<VehicleId>>,
    /// In place of `vehicles`: those that a query selects when the campaign is made, or, where it follows the query, starts.
    pub(crate) r#where: Option<String>,
    /// In place of `vehicles`: the same by the query that a fleet group has when the campaign is made.
    pub(crate) group: Option<String>,
    /// In place of the server's setting.
    #[schemars(range(min = 1, max = 31_536_000))]
    update_deadline_s: Option<u64>,
    /// Waves, the rule that stops the campaign, how many vehicles at once. Without it: all at once, until the first vehicle
    /// with a mix of software.
    #[serde(default)]
    rollout: Rollout,
    /// Whether vehicles that the query of `where` or `group` comes to have later are taken in; once in, they stay in.
    #[serde(default)]
    follows: bool,
    /// Of two campaigns that want a vehicle, the one with the higher number goes first, then the one that started earlier.
    #[serde(default = "usual_priority")]
    #[schemars(range(max = 1000))]
    priority: u16,
    /// Campaigns whose vehicles it leaves alone: those that they have taken in or name when this one starts, or when a
    /// vehicle comes later.
    #[serde(default)]
    #[schemars(length(max = 16))]
    excludes: Vec<String>,
    /// Whether a second person has to approve it before it starts; where the server's settings say so, all need it.
    #[serde(default)]
    needs_approval: bool,
    /// What is stated for the record of its updates (UN R156).
    #[serde(default)]
    statement: Option<Statement>,
}

fn usual_priority() -> u16 {
    USUAL_PRIORITY
}

/// Campaigns that one may exclude at most.
const MOST_EXCLUDED: usize = 16;

/// The longest deadline of an update: a year, in seconds.
const LONGEST_DEADLINE_S: u64 = 31_536_000;

/// A new campaign of which everything is looked up, and nothing stored.
pub(crate) struct Prepared {
    pub(crate) campaign: Campaign,
    /// Those that were named, or that its query has; none where it is for every vehicle, or follows its query.
    pub(crate) vehicles: Vec<VehicleId>,
}

/// `POST /campaigns`
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Caller,
    Document(new): Document<NewCampaign>,
) -> Result<(StatusCode, Json<CampaignAnswer>), Problem> {
    let (checked, actor) = (Checked::of(&new)?, caller.actor());
    let created = api.answer(move |tx, rules, now| {
        let statement = new.statement.clone();
        let Prepared { campaign, vehicles } = prepare(tx, rules, new, checked, &actor, now)?;
        campaigns::create(tx, &campaign, &vehicles)?;
        if let Some(statement) = &statement {
            evidence::state(tx, &campaign.name, statement)?;
        }
        let whom = match vehicles.len() {
            0 if campaign.intake.follows => "whatever the query has".to_owned(),
            0 => "every vehicle".to_owned(),
            number => format!("{number} vehicle(s)"),
        };
        let change = Change {
            action: "campaign.created",
            object: format!("campaign/{}", campaign.name),
            detail: Some(format!("release {}, {whom}", campaign.release)),
            before: None,
            after: Some(
                json!({"campaign": campaign.audited(), "vehicles": vehicles, "statement": statement}),
            ),
        };
        audit::record(tx, &actor, change, now)?;
        Ok((StatusCode::CREATED, shown(tx, rules, &campaign)?))
    });
    created.await
}

/// What would be created, or refused; nothing is stored.
pub(crate) async fn check(api: &Api, caller: &Caller, new: NewCampaign) -> Result<Prepared, Problem> {
    let (checked, actor) = (Checked::of(&new)?, caller.actor());
    let (rules, now) = (Arc::clone(&api.rules), api.now());
    api.read(move |tx| prepare(tx, &rules, new, checked, &actor, now)).await
}

/// What can be read from the document alone.
struct Checked {
    name: Text,
    release: Text,
    chosen: Option<Chosen>,
}

impl Checked {
    fn of(new: &NewCampaign) -> Result<Self, Problem> {
        let own_name = name(&new.name, "campaign").map_err(|problem| problem.at("/name"))?;
        let release = name(&new.release, "release").map_err(|problem| problem.at("/release"))?;
        if dry_run::PATH.ends_with(&format!("/{own_name}")) {
            let detail = format!("name: expected another name than {own_name}; choose one.");
            return Err(Problem::invalid(detail).at("/name"));
        }
        if new.vehicles.as_ref().is_some_and(Vec::is_empty) {
            let detail = "vehicles: expected at least one vehicle, or no such key for all of them.";
            return Err(Problem::invalid(detail).at("/vehicles"));
        }
        if let Some(found) = new.update_deadline_s.filter(|s| !(1..=LONGEST_DEADLINE_S).contains(s)) {
            let detail = format!("update_deadline_s: expected 1 to {LONGEST_DEADLINE_S}, found {found}.");
            return Err(Problem::invalid(detail).at("/update_deadline_s"));
        }
        check_intake(new)?;
        if let Err(error) = new.rollout.check() {
            let detail = format!("/rollout{error}.");
            return Err(Problem::invalid(detail).at(format!("/rollout{}", error.pointer)));
        }
        let chosen = Chosen::of(new.vehicles.is_some(), new.r#where.as_deref(), new.group.as_deref())?;
        Ok(Self { name: own_name, release, chosen })
    }
}

fn prepare(
    tx: &Tx<'_>,
    rules: &Rules,
    new: NewCampaign,
    Checked { name, release, chosen }: Checked,
    actor: &Actor,
    now: UnixMillis,
) -> Result<Prepared, Problem> {
    if releases::by_name(tx, &release)?.is_none() {
        return Err(Problem::not_found("release", release.as_str()).at("/release"));
    }
    if campaigns::by_name(tx, &name)?.is_some() {
        let detail = format!("Campaign {name} exists; choose another name.");
        return Err(Problem::conflict("CAMPAIGN_EXISTS", detail).at("/name"));
    }
    let selection = chosen.as_ref().map(|chosen| chosen.selection(tx)).transpose()?;
    let vehicles = match &selection {
        Some(_) if new.follows => Vec::new(),
        Some(selection) => selected_vehicles(tx, selection, chosen.as_ref())?,
        None => enrolled(tx, new.vehicles.clone().unwrap_or_default())?,
    };
    let mut rollout = new.rollout;
    choose_waves(tx, &mut rollout)?;
    let intake = Intake {
        query: selection.as_ref().map(Selection::to_string),
        follows: new.follows,
        excludes: excluded(tx, &name, &new.excludes).map_err(|problem| problem.at("/excludes"))?,
        priority: new.priority,
        needs_approval: new.needs_approval || rules.approval == ApprovalRule::SecondPerson,
        made_by: Some(actor.name().to_owned()),
        started_by: None,
    };
    let campaign = Campaign {
        name,
        release,
        every_vehicle: new.vehicles.is_none() && selection.is_none(),
        update_deadline_s: new.update_deadline_s,
        created_at: now,
        started_at: None,
        paused_at: None,
        aborted: None,
        rollout,
        gate: GateRecord::default(),
        stopped: None,
        starting: None,
        intake,
    };
    Ok(Prepared { campaign, vehicles })
}

/// These vehicles, all of which must be there.
fn enrolled(tx: &Tx<'_>, named: Vec<VehicleId>) -> Result<Vec<VehicleId>, Problem> {
    for vehicle_id in &named {
        if vehicles::by_id(tx, vehicle_id)?.is_none() {
            return Err(Problem::not_found("enrolled vehicle", vehicle_id.as_str()).at("/vehicles"));
        }
    }
    Ok(named)
}

fn selected_vehicles(
    tx: &Tx<'_>,
    selection: &Selection,
    chosen: Option<&Chosen>,
) -> Result<Vec<VehicleId>, Problem> {
    let vehicles = intake::all_of(tx, selection)?;
    if vehicles.is_empty() {
        let detail = "Expected a selection with at least one vehicle, found none; see what it has: farrier vehicle list --where QUERY.";
        return Err(Problem::invalid(detail).at(chosen.map_or("/where", Chosen::pointer)));
    }
    Ok(vehicles)
}

fn check_intake(new: &NewCampaign) -> Result<(), Problem> {
    if new.follows && new.r#where.is_none() && new.group.is_none() {
        let detail = "/follows: expected where or group beside it, found neither; without a selection every vehicle is taken in, later ones too.";
        return Err(Problem::invalid(detail).at("/follows"));
    }
    if new.priority > HIGHEST_PRIORITY {
        let detail = format!("/priority: expected 0 to {HIGHEST_PRIORITY}, found {}.", new.priority);
        return Err(Problem::invalid(detail).at("/priority"));
    }
    if new.excludes.len() > MOST_EXCLUDED {
        let detail =
            format!("/excludes: expected at most {MOST_EXCLUDED} campaigns, found {}.", new.excludes.len());
        return Err(Problem::invalid(detail).at("/excludes"));
    }
    Ok(())
}

/// The campaigns that are excluded, each once; they must be there.
fn excluded(tx: &Tx<'_>, own: &Text, names: &[String]) -> Result<Vec<Text>, Problem> {
    let mut excluded = Vec::new();
    for text in names {
        let other = name(text, "campaign")?;
        // That the campaign's own name is free was seen before.
        if other == *own {
            return Err(Problem::invalid("/excludes: expected other campaigns, found this one."));
        }
        found(tx, &other)?;
        if !excluded.contains(&other) {
            excluded.push(other);
        }
    }
    Ok(excluded)
}

/// Puts its query in the place of each fleet group: what the campaign does changes no more.
fn choose_waves(tx: &Tx<'_>, rollout: &mut Rollout) -> Result<(), Problem> {
    for (index, wave) in rollout.waves.iter_mut().enumerate() {
        if let WaveSize::Group(group) = &wave.size {
            let group = groups::group_name(group.as_str())?;
            let selection = groups::by_name(tx, &group)?.ok_or_else(|| {
                let pointer = format!("/rollout/waves/{index}/size/group");
                let detail = format!("{pointer}: expected the name of a fleet group, found {group}.");
                Problem::invalid_at("INVALID_REQUEST", pointer, detail)
            })?;
            wave.size = WaveSize::Where(selection);
        }
    }
    Ok(())
}
