//! What a campaign would do, from what the server knows by now: nothing is sent or written.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use farrier_campaign::{
    Delta, DeltaSettings, Deltas, Evaluation, IneligibleReason, Plan, Release, Selection, evaluate,
};
use farrier_protocol::{Sha256, Text, VehicleId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::groups::Chosen;
use super::page::{Page, cursor, limit, page};
use super::problem::Problem;
use super::request::Document;
use super::{Api, name};
use crate::store::candidates::{self, Candidate};
use crate::store::selection as selections;
use crate::store::{Tx, deltas, releases, set_aside};

/// No campaign is called as its end: what is asked of it would have no address.
pub(super) const PATH: &str = "/campaigns/dry-run";

/// Vehicles that are looked at in one transaction: others get their turn between, and few inventories are in memory.
const AT_A_TIME: u32 = 256;

/// What would be brought to whom, and which vehicles are to be listed.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DryRun {
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"))]
    pub(crate) release: String,
    /// Without it, `where` and `group`: every enrolled vehicle.
    #[schemars(length(min = 1))]
    pub(crate) vehicles: Option<Vec<VehicleId>>,
    /// In place of `vehicles`: those that a query selects.
    pub(crate) r#where: Option<String>,
    /// In place of `vehicles`: those of a fleet group.
    pub(crate) group: Option<String>,
    /// Lists only the vehicles with this verdict.
    pub(crate) verdict: Option<DryRunVerdict>,
    /// How many are listed at most; 100 where it is absent.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) limit: Option<u32>,
    /// The `next` of the page before; the first page where it is absent.
    pub(crate) after: Option<String>,
}

/// What would become of a vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DryRunVerdict {
    WouldUpdate,
    UpToDate,
    Ineligible,
    /// It has not said what it runs; a campaign asks it.
    InventoryUnknown,
    Quarantined,
    /// An update of another campaign is under way.
    InAnotherUpdate,
}

/// What a campaign would do.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DryRunAnswer {
    pub(crate) release: Text,
    /// Of the whole selection; absent after the first page.
    pub(crate) outcome: Option<DryRunOutcome>,
    #[serde(flatten)]
    pub(crate) page: Page<DryRunVehicle>,
}

/// How many vehicles would get what.
#[derive(Default, Serialize, JsonSchema)]
pub(crate) struct DryRunOutcome {
    /// All of the selection.
    pub(crate) vehicles: u64,
    pub(crate) would_update: u64,
    pub(crate) up_to_date: u64,
    pub(crate) ineligible: u64,
    pub(crate) inventory_unknown: u64,
    pub(crate) quarantined: u64,
    pub(crate) in_another_update: u64,
    /// Most vehicles first; a vehicle with several reasons counts for each.
    pub(crate) reasons: Vec<DryRunReason>,
    /// To be updated.
    pub(crate) ecus: u64,
    /// That would travel, as deltas where they are ready.
    pub(crate) bytes: u64,
    pub(crate) bytes_without_deltas: u64,
}

/// How many vehicles cannot get the release for one reason.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DryRunReason {
    /// Stable; for programs.
    pub(crate) code: &'static str,
    pub(crate) vehicles: u64,
    /// One of them.
    pub(crate) example: VehicleId,
    /// Its reason for people.
    pub(crate) sentence: String,
    /// The same as data, for the console.
    #[serde(skip)]
    pub(crate) reason: IneligibleReason,
}

/// What would become of one vehicle.
#[derive(Serialize, JsonSchema)]
pub(crate) struct DryRunVehicle {
    pub(crate) vehicle_id: VehicleId,
    pub(crate) verdict: DryRunVerdict,
    /// For people.
    pub(crate) sentence: String,
    /// The codes of the reasons why it cannot get the release.
    pub(crate) reasons: Vec<&'static str>,
    pub(crate) ecus: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_without_deltas: u64,
    /// What the sentence says as data, for the console.
    #[serde(skip)]
    pub(crate) outlook: Outlook,
}

/// What is the same for all vehicles.
struct Offer {
    name: Text,
    release: Release,
    ready: Vec<Delta>,
    settings: DeltaSettings,
}

/// A vehicle and what came of looking at it.
struct Looked {
    vehicle_id: VehicleId,
    outlook: Outlook,
}

/// What would become of a vehicle, and why.
#[derive(Clone)]
pub(crate) enum Outlook {
    /// Of this campaign.
    InAnotherUpdate(Text),
    Quarantined,
    InventoryUnknown,
    Evaluated(Evaluation),
}

/// `POST /campaigns/dry-run`
pub(crate) async fn dry_run(
    State(api): State<Api>,
    Document(asked): Document<DryRun>,
) -> Result<Json<DryRunAnswer>, Problem> {
    let (name, limit) = (name(&asked.release, "release")?, limit(asked.limit)?);
    let after: Option<String> = asked.after.map(|text| cursor(&text, "after")).transpose()?;
    let chosen = Chosen::of(asked.vehicles.is_some(), asked.r#where.as_deref(), asked.group.as_deref())?;
    let named = asked.vehicles.map(in_order).transpose()?;
    let settings = api.rules.deltas.clone();
    let release = name.clone();
    let read = api.read(move |tx| {
        let selection = chosen.map(|chosen| chosen.selection(tx)).transpose()?;
        let whom = match (named, selection) {
            (Some(named), _) => Whom::Named(named),
            (None, Some(selection)) => Whom::Selected(selection),
            (None, None) => Whom::All,
        };
        Ok((Arc::new(offer(tx, &release, settings)?), Arc::new(whom)))
    });
    let (offer, whom) = read.await?;
    let mut outcome = after.is_none().then(DryRunOutcome::default);
    let mut listed = Vec::new();
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut seen = after.unwrap_or_default();
    // Once the page is full, only the outcome wants to know about the others.
    while outcome.is_some() || listed.len() <= most {
        let (offer, whom, after) = (Arc::clone(&offer), Arc::clone(&whom), seen.clone());
        let looked = api.read(move |tx| offer.look(tx, whom.next_candidates(tx, &after)?)).await?;
        let Some(last) = looked.last() else { break };
        seen = last.vehicle_id.to_string();
        for looked in looked {
            if let Some(outcome) = &mut outcome {
                outcome.count(&looked);
            }
            if listed.len() <= most && asked.verdict.is_none_or(|verdict| verdict == looked.verdict()) {
                listed.push(looked);
            }
        }
    }
    let page = page(listed, limit, |looked| looked.vehicle_id.clone(), |looked| Ok(looked.shown()))?;
    if let Some(outcome) = &mut outcome {
        outcome.reasons.sort_by_key(|reason| (Reverse(reason.vehicles), reason.code));
    }
    Ok(Json(DryRunAnswer { release: name, outcome, page }))
}

fn in_order(mut named: Vec<VehicleId>) -> Result<Vec<VehicleId>, Problem> {
    if named.is_empty() {
        return Err(Problem::invalid(
            "vehicles: expected at least one vehicle, or no such key for all of them.",
        ));
    }
    named.sort();
    named.dedup();
    Ok(named)
}

/// Which vehicles are looked at.
enum Whom {
    All,
    /// In their order.
    Named(Vec<VehicleId>),
    Selected(Selection),
}

impl Whom {
    /// Those that come next.
    fn next_candidates(&self, tx: &Tx<'_>, after: &str) -> Result<Vec<Candidate>, Problem> {
        let found = |vehicle_id: &VehicleId| -> Result<Candidate, Problem> {
            let missing = || Problem::not_found("enrolled vehicle", vehicle_id.as_str());
            candidates::by_id(tx, vehicle_id)?.ok_or_else(missing)
        };
        match self {
            Self::All => Ok(candidates::page(tx, after, AT_A_TIME)?),
            Self::Named(named) => {
                let at_a_time = usize::try_from(AT_A_TIME).unwrap_or(usize::MAX);
                let rest = named.iter().filter(|vehicle_id| vehicle_id.as_str() > after);
                rest.take(at_a_time).map(found).collect()
            }
            Self::Selected(selection) => {
                selections::ids(tx, selection, after, AT_A_TIME)?.iter().map(found).collect()
            }
        }
    }
}

/// Not from the known releases: those are of campaigns, and never deleted.
fn offer(tx: &Tx<'_>, name: &Text, settings: DeltaSettings) -> Result<Offer, Problem> {
    let found = releases::by_name(tx, name)?.ok_or_else(|| Problem::not_found("release", name.as_str()))?;
    Ok(Offer {
        name: name.clone(),
        release: found.release,
        ready: deltas::ready_of_release(tx, name)?,
        settings,
    })
}

impl Offer {
    fn look(&self, tx: &Tx<'_>, candidates: Vec<Candidate>) -> Result<Vec<Looked>, Problem> {
        let (Some(first), Some(last)) = (candidates.first(), candidates.last()) else {
            return Ok(Vec::new());
        };
        let avoided = if self.ready.is_empty() {
            BTreeMap::new()
        } else {
            candidates::avoided_deltas(tx, &first.vehicle_id, &last.vehicle_id)?
        };
        let set_aside = set_aside::between(tx, &self.name, &first.vehicle_id, &last.vehicle_id)?;
        let look = |candidate: Candidate| {
            let avoided = avoided.get(&candidate.vehicle_id).map_or(&[][..], Vec::as_slice);
            let outlook = match set_aside.get(&candidate.vehicle_id) {
                Some(failures) => self.outlook_set_aside(&candidate, *failures),
                None => self.outlook(&candidate, avoided),
            };
            Looked { outlook, vehicle_id: candidate.vehicle_id }
        };
        Ok(candidates.into_iter().map(look).collect())
    }

    /// A vehicle that is set aside waits for what others wait for, and is not even asked what it runs.
    fn outlook_set_aside(&self, candidate: &Candidate, failures: u32) -> Outlook {
        match self.outlook(candidate, &[]) {
            waits @ (Outlook::InAnotherUpdate(_) | Outlook::Quarantined) => waits,
            Outlook::InventoryUnknown | Outlook::Evaluated(_) => {
                Outlook::Evaluated(Evaluation::Ineligible(vec![IneligibleReason::SetAside { failures }]))
            }
        }
    }

    /// What would keep an update waiting comes in the order in which it would.
    fn outlook(&self, candidate: &Candidate, avoided: &[Sha256]) -> Outlook {
        if let Some(campaign) = &candidate.active_campaign {
            return Outlook::InAnotherUpdate(campaign.clone());
        }
        if candidate.is_quarantined {
            return Outlook::Quarantined;
        }
        let Some(vci) = &candidate.vci else { return Outlook::InventoryUnknown };
        let evaluated = |ready: &[Delta]| {
            let deltas = Deltas { ready, settings: &self.settings };
            Outlook::Evaluated(evaluate(vci, &self.release, deltas))
        };
        if avoided.is_empty() {
            return evaluated(&self.ready);
        }
        let mut ready = self.ready.clone();
        ready.retain(|delta| !avoided.contains(&delta.sha256));
        evaluated(&ready)
    }
}

impl Looked {
    fn verdict(&self) -> DryRunVerdict {
        match &self.outlook {
            Outlook::InAnotherUpdate(_) => DryRunVerdict::InAnotherUpdate,
            Outlook::Quarantined => DryRunVerdict::Quarantined,
            Outlook::InventoryUnknown => DryRunVerdict::InventoryUnknown,
            Outlook::Evaluated(Evaluation::Eligible(_)) => DryRunVerdict::WouldUpdate,
            Outlook::Evaluated(Evaluation::UpToDate) => DryRunVerdict::UpToDate,
            Outlook::Evaluated(Evaluation::Ineligible(_)) => DryRunVerdict::Ineligible,
        }
    }

    fn sentence(&self) -> String {
        match &self.outlook {
            Outlook::InAnotherUpdate(campaign) => format!("An update of campaign {campaign} is under way."),
            Outlook::Quarantined => "It is quarantined.".to_owned(),
            Outlook::InventoryUnknown => "It has not said what it runs; a campaign would ask it.".to_owned(),
            Outlook::Evaluated(Evaluation::Eligible(plan)) => {
                format!("{} ECU(s) would be updated by {} bytes.", plan.ecu_count(), plan.size_bytes())
            }
            Outlook::Evaluated(Evaluation::UpToDate) => "It runs the release already.".to_owned(),
            Outlook::Evaluated(Evaluation::Ineligible(reasons)) => {
                let reasons: Vec<_> = reasons.iter().map(IneligibleReason::phrase).collect();
                format!("It cannot get the release: {}.", reasons.join("; "))
            }
        }
    }

    fn plan(&self) -> Option<&Plan> {
        match &self.outlook {
            Outlook::Evaluated(Evaluation::Eligible(plan)) => Some(plan),
            Outlook::Evaluated(Evaluation::UpToDate | Evaluation::Ineligible(_))
            | Outlook::InAnotherUpdate(_)
            | Outlook::Quarantined
            | Outlook::InventoryUnknown => None,
        }
    }

    /// The first of each kind.
    fn reasons(&self) -> BTreeMap<&'static str, &IneligibleReason> {
        let all = match &self.outlook {
            Outlook::Evaluated(Evaluation::Ineligible(reasons)) => reasons.as_slice(),
            Outlook::Evaluated(Evaluation::Eligible(_) | Evaluation::UpToDate)
            | Outlook::InAnotherUpdate(_)
            | Outlook::Quarantined
            | Outlook::InventoryUnknown => &[],
        };
        all.iter().rev().map(|reason| (reason.code(), reason)).collect()
    }

    fn ecus(&self) -> u64 {
        self.plan().map_or(0, |plan| u64::try_from(plan.ecu_count()).unwrap_or(u64::MAX))
    }

    fn bytes_without_deltas(&self) -> u64 {
        let packages = self.plan().into_iter().flat_map(|plan| &plan.packages);
        packages.fold(0, |sum, package| sum.saturating_add(package.image_size_bytes))
    }

    fn shown(&self) -> DryRunVehicle {
        DryRunVehicle {
            vehicle_id: self.vehicle_id.clone(),
            verdict: self.verdict(),
            sentence: self.sentence(),
            reasons: self.reasons().into_keys().collect(),
            ecus: self.ecus(),
            bytes: self.plan().map_or(0, Plan::size_bytes),
            bytes_without_deltas: self.bytes_without_deltas(),
            outlook: self.outlook.clone(),
        }
    }
}

impl DryRunOutcome {
    fn count(&mut self, looked: &Looked) {
        let counted = match looked.verdict() {
            DryRunVerdict::WouldUpdate => &mut self.would_update,
            DryRunVerdict::UpToDate => &mut self.up_to_date,
            DryRunVerdict::Ineligible => &mut self.ineligible,
            DryRunVerdict::InventoryUnknown => &mut self.inventory_unknown,
            DryRunVerdict::Quarantined => &mut self.quarantined,
            DryRunVerdict::InAnotherUpdate => &mut self.in_another_update,
        };
        *counted = counted.saturating_add(1);
        self.vehicles = self.vehicles.saturating_add(1);
        self.ecus = self.ecus.saturating_add(looked.ecus());
        self.bytes = self.bytes.saturating_add(looked.plan().map_or(0, Plan::size_bytes));
        self.bytes_without_deltas = self.bytes_without_deltas.saturating_add(looked.bytes_without_deltas());
        for (code, reason) in looked.reasons() {
            match self.reasons.iter_mut().find(|other| other.code == code) {
                Some(known) => known.vehicles = known.vehicles.saturating_add(1),
                None => self.reasons.push(DryRunReason {
                    code,
                    vehicles: 1,
                    example: looked.vehicle_id.clone(),
                    sentence: reason.phrase(),
                    reason: reason.clone(),
                }),
            }
        }
    }
}
