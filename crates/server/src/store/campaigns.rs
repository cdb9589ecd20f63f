//! Campaigns: which release goes to which vehicles.

use farrier_protocol::{Text, UnixMillis, VehicleId};

use super::{Row, StoreError, Tx};

/// A release on its way to vehicles.
#[derive(Debug, Clone)]
pub(crate) struct Campaign {
    pub(crate) name: Text,
    pub(crate) release: Text,
    /// Takes in every enrolled vehicle, later ones too; else those that were named.
    pub(crate) every_vehicle: bool,
    /// In place of the server's setting.
    pub(crate) update_deadline_s: Option<u64>,
    pub(crate) created_at: UnixMillis,
    pub(crate) started_at: Option<UnixMillis>,
    pub(crate) paused_at: Option<UnixMillis>,
    pub(crate) aborted: Option<Aborted>,
}

/// An operator has ended a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) at: UnixMillis,
    pub(crate) reason: Text,
}

impl Campaign {
    /// What the audit log takes the digest of.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "release": self.release, "every_vehicle": self.every_vehicle,
            "update_deadline_s": self.update_deadline_s, "started_at": self.started_at,
            "paused_at": self.paused_at, "aborted_at": self.aborted.as_ref().map(|aborted| aborted.at),
            "abort_reason": self.aborted.as_ref().map(|aborted| &aborted.reason),
        })
    }
}

macro_rules! select_campaign {
    ($rest:literal) => {
        concat!(
            "SELECT name, release_name, every_vehicle, update_deadline_s, created_at, started_at, paused_at, aborted_at, \
             abort_reason FROM campaign ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<Campaign, StoreError> {
    let aborted = row.optional_time(7)?.zip(row.optional_parsed(8, "why a campaign was aborted")?);
    Ok(Campaign {
        name: row.parsed(0, "a campaign name")?,
        release: row.parsed(1, "a release name")?,
        every_vehicle: row.integer(2)? != 0,
        update_deadline_s: row.optional_integer(3)?.and_then(|seconds| u64::try_from(seconds).ok()),
        created_at: row.time(4)?,
        started_at: row.optional_time(5)?,
        paused_at: row.optional_time(6)?,
        aborted: aborted.map(|(at, reason)| Aborted { at, reason }),
    })
}

/// Stores a campaign under a name that is free, with the vehicles that were named.
pub(crate) fn create(tx: &Tx<'_>, campaign: &Campaign, vehicles: &[VehicleId]) -> Result<(), StoreError> {
    let update_deadline_s =
        campaign.update_deadline_s.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    tx.exec(
        "INSERT INTO campaign (name, release_name, every_vehicle, update_deadline_s, created_at) \
         VALUES ($1, $2, $3, $4, $5)",
        &[
            campaign.name.as_str().into(),
            campaign.release.as_str().into(),
            i64::from(campaign.every_vehicle).into(),
            update_deadline_s.into(),
            campaign.created_at.into(),
        ],
    )?;
    for vehicle_id in vehicles {
        tx.exec(
            "INSERT INTO campaign_vehicle (campaign_name, vehicle_id) VALUES ($1, $2) \
             ON CONFLICT (campaign_name, vehicle_id) DO NOTHING",
            &[campaign.name.as_str().into(), vehicle_id.as_str().into()],
        )?;
    }
    Ok(())
}

pub(crate) fn by_name(tx: &Tx<'_>, name: &Text) -> Result<Option<Campaign>, StoreError> {
    tx.row(select_campaign!("WHERE name = $1"), &[name.as_str().into()], read)
}

/// The campaigns after a name, by name.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Campaign>, StoreError> {
    tx.rows(
        select_campaign!("WHERE name > $1 ORDER BY name LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// Running campaigns that take in every vehicle, oldest first.
pub(crate) fn open_to_all(tx: &Tx<'_>) -> Result<Vec<Campaign>, StoreError> {
    tx.rows(
        select_campaign!("WHERE every_vehicle = 1 AND started_at IS NOT NULL AND aborted_at IS NULL ORDER BY started_at, name"),
        &[],
        read,
    )
}

/// Starts a campaign; says whether it was not running before. Until this transaction ends no vehicle is enrolled: it would
/// not be taken in, neither by the start nor by its enrolment.
pub(crate) fn start(tx: &Tx<'_>, name: &Text, now: UnixMillis) -> Result<bool, StoreError> {
    tx.lock(super::vehicles::ENROLMENT)?;
    let started = tx.exec(
        "UPDATE campaign SET started_at = $2 WHERE name = $1 AND started_at IS NULL",
        &[name.as_str().into(), now.into()],
    )?;
    Ok(started > 0)
}

/// Pauses a campaign or lets it go on; its updates are looked at soon.
pub(crate) fn set_paused(tx: &Tx<'_>, name: &Text, since: Option<UnixMillis>) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET paused_at = $2, look_after = '' WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), since.into()])?;
    tx.due_changed();
    Ok(())
}

/// Ends a campaign; its updates are looked at soon.
pub(crate) fn abort(tx: &Tx<'_>, name: &Text, aborted: &Aborted) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET aborted_at = $2, abort_reason = $3, look_after = '' WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), aborted.at.into(), aborted.reason.as_str().into()])?;
    tx.due_changed();
    Ok(())
}

/// A campaign whose updates are to be looked at, and after which vehicle; claimed, none that another transaction is at.
/// The claim leaves others free to refer to the campaign: a vehicle that it takes in meanwhile would wait for it, and it for
/// the vehicle.
pub(crate) fn claim_look(tx: &Tx<'_>) -> Result<Option<(Campaign, String)>, StoreError> {
    let sql = tx.one_of(
        "SELECT name, look_after FROM campaign WHERE look_after IS NOT NULL ORDER BY name LIMIT 1",
        "SELECT name, look_after FROM campaign WHERE look_after IS NOT NULL ORDER BY name LIMIT 1 \
         FOR NO KEY UPDATE SKIP LOCKED",
    );
    let found = tx.row(sql, &[], |row| Ok((row.parsed(0, "a campaign name")?, row.text(1)?)))?;
    let Some((name, after)) = found else { return Ok(None) };
    Ok(by_name(tx, &name)?.map(|campaign| (campaign, after)))
}

/// Whether the updates of any campaign are to be looked at.
pub(crate) fn is_look_due(tx: &Tx<'_>) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM campaign WHERE look_after IS NOT NULL LIMIT 1";
    Ok(tx.row(sql, &[], |_| Ok(()))?.is_some())
}

/// How far the look at a campaign has got; `None` is its end.
pub(crate) fn set_look(tx: &Tx<'_>, name: &Text, after: Option<&str>) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET look_after = $2 WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), after.into()])?;
    Ok(())
}

/// The vehicles that a campaign takes in when it starts.
pub(crate) fn vehicles(tx: &Tx<'_>, campaign: &Campaign) -> Result<Vec<VehicleId>, StoreError> {
    if campaign.every_vehicle {
        tx.rows("SELECT vehicle_id FROM vehicle ORDER BY vehicle_id", &[], |row| {
            row.parsed(0, "a vehicle id")
        })
    } else {
        tx.rows(
            "SELECT vehicle_id FROM campaign_vehicle WHERE campaign_name = $1 ORDER BY vehicle_id",
            &[campaign.name.as_str().into()],
            |row| row.parsed(0, "a vehicle id"),
        )
    }
}

/// How many vehicle updates of a campaign are in which state, and how many of them are over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StateCounts {
    pub(crate) by_state: std::collections::BTreeMap<String, u64>,
    pub(crate) total: u64,
    pub(crate) ended: u64,
}

pub(crate) fn counts(tx: &Tx<'_>, name: &Text) -> Result<StateCounts, StoreError> {
    let rows = tx.rows(
        "SELECT state, phase, COUNT(*) FROM vehicle_update WHERE campaign_name = $1 GROUP BY state, phase",
        &[name.as_str().into()],
        |row| Ok((row.text(0)?, row.text(1)?, row.count(2)?)),
    )?;
    let mut counts = StateCounts::default();
    for (state, phase, number) in rows {
        counts.total = counts.total.saturating_add(number);
        if phase == "ended" {
            counts.ended = counts.ended.saturating_add(number);
        }
        counts.by_state.insert(state, number);
    }
    Ok(counts)
}
