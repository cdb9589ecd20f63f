//! Who is in a campaign and in which order: the query that it follows, whose vehicles it leaves alone, which of a vehicle's
//! updates goes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use farrier_campaign::{Selection, Starting, State};
use farrier_protocol::{Text, UnixMillis, VehicleId};

use super::campaigns::{Campaign, StateCounts};
use super::{Row, StoreError, Tx, locked, selection};

/// Vehicles of a selection that are read at a time.
const SELECTED_AT_A_TIME: u32 = 1_000;

/// Who is in a campaign, in which order it comes, and who must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Intake {
    /// The query that chose its vehicles, in its canonical form; `None` where they were named, or are all.
    pub(crate) query: Option<String>,
    /// Whether vehicles that the query comes to have later are taken in.
    pub(crate) follows: bool,
    /// The campaigns whose vehicles are not taken in.
    pub(crate) excludes: Vec<Text>,
    /// Of two campaigns that want a vehicle, the one with the higher number goes first.
    pub(crate) priority: u16,
    /// Whether a second person has to approve it before it starts.
    pub(crate) needs_approval: bool,
    /// Who planned it, as the audit log names them; not known of campaigns that earlier versions made.
    pub(crate) made_by: Option<String>,
    /// Who started it.
    pub(crate) started_by: Option<String>,
}

/// The priority of a campaign that says none.
pub(crate) const USUAL_PRIORITY: u16 = 500;
/// The highest priority.
pub(crate) const HIGHEST_PRIORITY: u16 = 1_000;

impl Default for Intake {
    fn default() -> Self {
        Self {
            query: None,
            follows: false,
            excludes: Vec::new(),
            priority: USUAL_PRIORITY,
            needs_approval: false,
            made_by: None,
            started_by: None,
        }
    }
}

/// Queries that were parsed, by their text: that of a campaign never changes.
#[derive(Default)]
pub(crate) struct KnownQueries(Mutex<BTreeMap<String, Arc<Selection>>>);

impl KnownQueries {
    /// More are forgotten all at once.
    const MOST: usize = 256;

    pub(crate) fn get(&self, query: &str) -> Result<Arc<Selection>, StoreError> {
        if let Some(known) = locked(&self.0).get(query) {
            return Ok(Arc::clone(known));
        }
        let selection = Arc::new(parsed(query)?);
        let mut known = locked(&self.0);
        if known.len() >= Self::MOST {
            known.clear();
        }
        known.insert(query.to_owned(), Arc::clone(&selection));
        Ok(selection)
    }
}

fn parsed(query: &str) -> Result<Selection, StoreError> {
    query.parse().map_err(|_| StoreError::Damaged { expected: "a query", found: query.to_owned() })
}

/// All vehicles that a selection has, by id.
pub(crate) fn all_of(tx: &Tx<'_>, selection: &Selection) -> Result<Vec<VehicleId>, StoreError> {
    let mut vehicles: Vec<VehicleId> = Vec::new();
    loop {
        let after = vehicles.last().map_or("", |last| last.as_str()).to_owned();
        let page = selection::ids(tx, selection, &after, SELECTED_AT_A_TIME)?;
        let is_last = page.len() < SELECTED_AT_A_TIME as usize;
        vehicles.extend(page);
        if is_last {
            return Ok(vehicles);
        }
    }
}

/// The vehicles that a campaign is for when it starts: those after an id, by id. Those that it leaves alone are among them.
pub(crate) fn vehicles_after(
    tx: &Tx<'_>,
    campaign: &Campaign,
    after: &str,
    limit: u32,
) -> Result<Vec<VehicleId>, StoreError> {
    let read = |row: &Row<'_>| row.parsed(0, "a vehicle id");
    if campaign.every_vehicle {
        let sql = "SELECT vehicle_id FROM vehicle WHERE vehicle_id > $1 ORDER BY vehicle_id LIMIT $2";
        return tx.rows(sql, &[after.into(), i64::from(limit).into()], read);
    }
    match &campaign.intake.query {
        Some(query) if campaign.intake.follows => selection::ids(tx, &parsed(query)?, after, limit),
        Some(_) | None => {
            let sql = "SELECT vehicle_id FROM campaign_vehicle WHERE campaign_name = $1 AND vehicle_id > $2 \
                       ORDER BY vehicle_id LIMIT $3";
            tx.rows(sql, &[campaign.name.as_str().into(), after.into(), i64::from(limit).into()], read)
        }
    }
}

/// How many vehicles those are, without those that it leaves alone.
pub(crate) fn vehicle_count(tx: &Tx<'_>, campaign: &Campaign) -> Result<u64, StoreError> {
    if !campaign.intake.excludes.is_empty() {
        let (theirs, mut count, mut after) = (all_excluded(tx, campaign)?, 0_u64, String::new());
        loop {
            let page = vehicles_after(tx, campaign, &after, SELECTED_AT_A_TIME)?;
            let own = page.iter().filter(|vehicle_id| !theirs.contains(*vehicle_id)).count() as u64;
            count = count.saturating_add(own);
            match page.last().filter(|_| page.len() >= SELECTED_AT_A_TIME as usize) {
                Some(last) => after = last.to_string(),
                None => return Ok(count),
            }
        }
    }
    let count = match &campaign.intake.query {
        _ if campaign.every_vehicle => tx.row("SELECT COUNT(*) FROM vehicle", &[], |row| row.count(0))?,
        Some(query) if campaign.intake.follows => Some(selection::count(tx, &parsed(query)?)?),
        Some(_) | None => {
            let sql = "SELECT COUNT(*) FROM campaign_vehicle WHERE campaign_name = $1";
            tx.row(sql, &[campaign.name.as_str().into()], |row| row.count(0))?
        }
    };
    Ok(count.unwrap_or(0))
}

/// How many vehicles a campaign has, or will have once it has taken in those that it starts with.
pub(crate) fn vehicles_in_all(
    tx: &Tx<'_>,
    campaign: &Campaign,
    counts: &StateCounts,
) -> Result<u64, StoreError> {
    match (campaign.started_at, &campaign.starting) {
        (Some(_), None) => Ok(counts.total),
        (Some(_), Some(Starting { shares: Some(shares), .. })) => Ok(counts.total.max(shares.all())),
        (Some(_), Some(Starting { shares: None, .. })) | (None, _) => vehicle_count(tx, campaign),
    }
}

/// The vehicles of the campaigns that this one leaves alone: those that they have taken in or name.
pub(crate) fn all_excluded(tx: &Tx<'_>, campaign: &Campaign) -> Result<BTreeSet<VehicleId>, StoreError> {
    let mut all = BTreeSet::new();
    for excluded in &campaign.intake.excludes {
        all.extend(tx.rows(
            "SELECT vehicle_id FROM vehicle_update WHERE campaign_name = $1 \
             UNION SELECT vehicle_id FROM campaign_vehicle WHERE campaign_name = $1",
            &[excluded.as_str().into()],
            |row| row.parsed::<VehicleId>(0, "a vehicle id"),
        )?);
    }
    Ok(all)
}

/// Whether a vehicle is one of a campaign that this one leaves alone.
pub(crate) fn is_excluded(
    tx: &Tx<'_>,
    campaign: &Campaign,
    vehicle_id: &VehicleId,
) -> Result<bool, StoreError> {
    for excluded in &campaign.intake.excludes {
        let found = tx.row(
            "SELECT 1 FROM vehicle_update WHERE campaign_name = $1 AND vehicle_id = $2 \
             UNION SELECT 1 FROM campaign_vehicle WHERE campaign_name = $1 AND vehicle_id = $2",
            &[excluded.as_str().into(), vehicle_id.as_str().into()],
            |_| Ok(()),
        )?;
        if found.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes who started a campaign.
pub(crate) fn set_started_by(tx: &Tx<'_>, name: &Text, who: &str) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET started_by = $2 WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), who.into()])?;
    Ok(())
}

/// An update of a vehicle that is not over, beside the one that asks.
#[derive(Debug)]
pub(crate) struct Rival {
    pub(crate) campaign: Text,
    pub(crate) priority: u16,
    started_at: Option<UnixMillis>,
    /// `None`: it is under way.
    waiting: Option<State>,
}

impl Rival {
    pub(crate) fn is_under_way(&self) -> bool {
        self.waiting.is_none()
    }

    /// Whether an update of this campaign waits for it: it comes first, and waits for nothing but the vehicle.
    pub(crate) fn goes_before(&self, campaign: &Campaign) -> bool {
        let rank = |priority, started_at: Option<UnixMillis>| (Reverse(priority), started_at);
        let own = (rank(campaign.intake.priority, campaign.started_at), &campaign.name);
        (rank(self.priority, self.started_at), &self.campaign) < own
            && self.waiting.as_ref().is_some_and(State::goes_before_others)
    }
}

/// The other updates of a vehicle that are not over, in the order in which they go.
pub(crate) fn rivals(tx: &Tx<'_>, vehicle_id: &VehicleId, except_id: &str) -> Result<Vec<Rival>, StoreError> {
    tx.rows(
        "SELECT c.name, c.priority, c.started_at, CASE WHEN u.phase = 'waiting' THEN u.data END \
         FROM vehicle_update u JOIN campaign c ON c.name = u.campaign_name \
         WHERE u.vehicle_id = $1 AND u.phase IN ('waiting', 'active') AND u.id <> $2 \
         ORDER BY c.priority DESC, c.started_at, c.name",
        &[vehicle_id.as_str().into(), except_id.into()],
        |row| {
            Ok(Rival {
                campaign: row.parsed(0, "a campaign name")?,
                priority: u16::try_from(row.integer(1)?).unwrap_or(u16::MAX),
                started_at: row.optional_time(2)?,
                waiting: row.optional_json(3, "the state of a vehicle update")?,
            })
        },
    )
}
