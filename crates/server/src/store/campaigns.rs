//! Campaigns: which release goes to which vehicles.

use std::collections::BTreeMap;

use farrier_campaign::{Attempts, GateRecord, Rollout, Starting, State, StopReason, WaveCounts};
use farrier_protocol::{Text, UnixMillis, VehicleId};

use super::intake::Intake;
use super::tx::{Counted, Counter, stored_json};
use super::{Row, StoreError, Tx};

/// A release on its way to vehicles.
#[derive(Debug, Clone)]
pub(crate) struct Campaign {
    pub(crate) name: Text,
    pub(crate) release: Text,
    /// Takes in every enrolled vehicle, later ones too; else those that were named, or that its query has.
    pub(crate) every_vehicle: bool,
    /// In place of the server's setting.
    pub(crate) update_deadline_s: Option<u64>,
    pub(crate) created_at: UnixMillis,
    pub(crate) started_at: Option<UnixMillis>,
    pub(crate) paused_at: Option<UnixMillis>,
    pub(crate) aborted: Option<Aborted>,
    pub(crate) rollout: Rollout,
    /// How far it has gone out.
    pub(crate) gate: GateRecord,
    pub(crate) stopped: Option<Stopped>,
    /// While it takes in the vehicles that it starts with.
    pub(crate) starting: Option<Starting>,
    pub(crate) intake: Intake,
}

/// A campaign has stopped by its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stopped {
    pub(crate) at: UnixMillis,
    pub(crate) reason: StopReason,
}

/// An operator has ended a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) at: UnixMillis,
    pub(crate) reason: Text,
}

impl Campaign {
    /// Whether vehicles may begin, as far as it depends on the campaign as a whole.
    pub(crate) fn goes_on(&self) -> bool {
        self.paused_at.is_none() && self.aborted.is_none() && self.stopped.is_none()
    }

    /// `draft`, `starting`, `running`, `paused`, `stopped`, `aborted` or `finished`.
    pub(crate) fn state_name(&self, counts: &StateCounts) -> &'static str {
        let takes_in_more = self.every_vehicle || self.intake.follows;
        match self.started_at {
            _ if self.aborted.is_some() => "aborted",
            None => "draft",
            // There may be later ones.
            Some(_) if !takes_in_more && self.starting.is_none() && counts.ended == counts.total => {
                "finished"
            }
            Some(_) if self.stopped.is_some() => "stopped",
            Some(_) if self.paused_at.is_some() => "paused",
            Some(_) if self.starting.is_some() => "starting",
            Some(_) => "running",
        }
    }

    /// What the audit log takes the digest of.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "name": self.name, "release": self.release, "every_vehicle": self.every_vehicle,
            "update_deadline_s": self.update_deadline_s, "started_at": self.started_at,
            "paused_at": self.paused_at, "aborted_at": self.aborted.as_ref().map(|aborted| aborted.at),
            "abort_reason": self.aborted.as_ref().map(|aborted| &aborted.reason),
            "rollout": self.rollout, "open_waves": self.gate.open,
            "stopped_at": self.stopped.as_ref().map(|stopped| stopped.at),
            "query": self.intake.query, "follows": self.intake.follows, "excludes": self.intake.excludes,
            "priority": self.intake.priority, "needs_approval": self.intake.needs_approval,
            "made_by": self.intake.made_by, "started_by": self.intake.started_by,
        })
    }
}

macro_rules! select_campaign {
    ($rest:literal) => {
        concat!(
            "SELECT name, release_name, every_vehicle, update_deadline_s, created_at, started_at, paused_at, aborted_at, \
             abort_reason, rollout, gate, stopped_at, stop_reason, starting, selection, follows, excludes, priority, \
             needs_approval, made_by, started_by FROM campaign ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<Campaign, StoreError> {
    let aborted = row.optional_time(7)?.zip(row.optional_parsed(8, "why a campaign was aborted")?);
    let stopped = row.optional_time(11)?.zip(row.optional_json(12, "why a campaign has stopped")?);
    Ok(Campaign {
        name: row.parsed(0, "a campaign name")?,
        release: row.parsed(1, "a release name")?,
        every_vehicle: row.integer(2)? != 0,
        update_deadline_s: row.optional_integer(3)?.and_then(|seconds| u64::try_from(seconds).ok()),
        created_at: row.time(4)?,
        started_at: row.optional_time(5)?,
        paused_at: row.optional_time(6)?,
        aborted: aborted.map(|(at, reason)| Aborted { at, reason }),
        rollout: row.optional_json(9, "a rollout")?.unwrap_or_default(),
        gate: row.optional_json(10, "the record of a gate")?.unwrap_or_default(),
        stopped: stopped.map(|(at, reason)| Stopped { at, reason }),
        starting: row.optional_json(13, "how far a campaign has started")?,
        intake: Intake {
            query: row.optional_text(14)?,
            follows: row.integer(15)? != 0,
            excludes: row.optional_json(16, "the campaigns that are excluded")?.unwrap_or_default(),
            priority: u16::try_from(row.integer(17)?).unwrap_or(u16::MAX),
            needs_approval: row.integer(18)? != 0,
            made_by: row.optional_text(19)?,
            started_by: row.optional_text(20)?,
        },
    })
}

/// Stores a campaign under a name that is free, with the vehicles that were named.
pub(crate) fn create(tx: &Tx<'_>, campaign: &Campaign, vehicles: &[VehicleId]) -> Result<(), StoreError> {
    let update_deadline_s =
        campaign.update_deadline_s.map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX));
    let rollout =
        (campaign.rollout != Rollout::default()).then(|| stored_json(&campaign.rollout)).transpose()?;
    let intake = &campaign.intake;
    let excludes = (!intake.excludes.is_empty()).then(|| stored_json(&intake.excludes)).transpose()?;
    tx.exec(
        "INSERT INTO campaign (name, release_name, every_vehicle, update_deadline_s, created_at, rollout, \
         selection, follows, excludes, priority, needs_approval, made_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            campaign.name.as_str().into(),
            campaign.release.as_str().into(),
            i64::from(campaign.every_vehicle).into(),
            update_deadline_s.into(),
            campaign.created_at.into(),
            rollout.as_ref().into(),
            intake.query.as_ref().into(),
            i64::from(intake.follows).into(),
            excludes.as_ref().into(),
            i64::from(intake.priority).into(),
            i64::from(intake.needs_approval).into(),
            intake.made_by.as_ref().into(),
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

/// Before which campaigns a page of them begins, in the order of when they were made, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) at: UnixMillis,
    pub(crate) name: String,
}

/// The campaigns that were made before one, newest first.
pub(crate) fn page_of_newest(tx: &Tx<'_>, before: &Made, limit: u32) -> Result<Vec<Campaign>, StoreError> {
    tx.rows(
        select_campaign!(
            "WHERE created_at <= $1 AND (created_at < $1 OR name < $2) ORDER BY created_at DESC, name DESC LIMIT $3"
        ),
        &[before.at.into(), (&before.name).into(), i64::from(limit).into()],
        read,
    )
}

/// Campaigns that may do something yet: drafts, those with updates that are not over, and those that take in later vehicles.
pub(crate) fn not_over(tx: &Tx<'_>, limit: u32) -> Result<Vec<Campaign>, StoreError> {
    tx.rows(
        select_campaign!(
            "WHERE aborted_at IS NULL AND (started_at IS NULL OR every_vehicle = 1 OR follows = 1 \
             OR starting IS NOT NULL OR name IN (SELECT campaign_name FROM campaign_counter WHERE standing IN \
             ('waiting', 'collecting_vci', 'checking_readiness', 'deferred', 'downloading', 'installing', \
             'committing', 'verifying', 'overdue', 'rolling_back') GROUP BY campaign_name HAVING SUM(vehicles) > 0)) \
             ORDER BY name LIMIT $1"
        ),
        &[i64::from(limit).into()],
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

/// Running campaigns that follow a query, oldest first.
pub(crate) fn following(tx: &Tx<'_>) -> Result<Vec<Campaign>, StoreError> {
    tx.rows(
        select_campaign!(
            "WHERE follows = 1 AND started_at IS NOT NULL AND aborted_at IS NULL ORDER BY started_at, name"
        ),
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

/// Pauses a campaign; its updates are looked at soon.
pub(crate) fn pause(tx: &Tx<'_>, name: &Text, since: UnixMillis) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET paused_at = $2, look_after = '' WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), since.into()])?;
    tx.due_changed();
    Ok(())
}

/// Stops a campaign by its rule; its updates are looked at soon, so that each says why it waits.
pub(crate) fn stop(tx: &Tx<'_>, name: &Text, stopped: &Stopped) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET stopped_at = $2, stop_reason = $3, look_after = '' WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), stopped.at.into(), (&stored_json(&stopped.reason)?).into()])?;
    tx.due_changed();
    Ok(())
}

/// Lets a campaign that was paused or has stopped go on; its updates are looked at soon. The failures that there are now stop
/// it no more.
pub(crate) fn resume(tx: &Tx<'_>, campaign: &Campaign) -> Result<(), StoreError> {
    if campaign.stopped.is_some() {
        let record = hold_gate(tx, &campaign.name)?;
        let forgiven = wave_counts(tx, campaign)?;
        set_gate(tx, &campaign.name, &GateRecord { forgiven, ..record })?;
    }
    let sql = "UPDATE campaign SET paused_at = NULL, stopped_at = NULL, stop_reason = NULL, look_after = '' \
               WHERE name = $1";
    tx.exec(sql, &[campaign.name.as_str().into()])?;
    tx.due_changed();
    tx.gate_changed(&campaign.name);
    Ok(())
}

/// The updates of a campaign are looked at soon.
pub(crate) fn look_again(tx: &Tx<'_>, name: &Text) -> Result<(), StoreError> {
    tx.exec("UPDATE campaign SET look_after = '' WHERE name = $1", &[name.as_str().into()])?;
    tx.due_changed();
    Ok(())
}

/// Notes how far a campaign has gone out.
pub(crate) fn set_gate(tx: &Tx<'_>, name: &Text, record: &GateRecord) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET gate = $2 WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), (&stored_json(record)?).into()])?;
    tx.gate_changed(name);
    Ok(())
}

/// A campaign that nobody else looks at meanwhile; `None` where another transaction has it.
pub(crate) fn claim(tx: &Tx<'_>, name: &Text) -> Result<Option<Campaign>, StoreError> {
    let sql = tx.one_of(
        select_campaign!("WHERE name = $1"),
        select_campaign!("WHERE name = $1 FOR NO KEY UPDATE SKIP LOCKED"),
    );
    tx.row(sql, &[name.as_str().into()], read)
}

/// How far a campaign has gone out, held until this transaction ends: of two vehicles that ask for the last place, the second
/// waits until the first has it.
pub(crate) fn hold_gate(tx: &Tx<'_>, name: &Text) -> Result<GateRecord, StoreError> {
    let sql = tx.one_of(
        "SELECT gate FROM campaign WHERE name = $1",
        "SELECT gate FROM campaign WHERE name = $1 FOR NO KEY UPDATE",
    );
    let record = tx.row(sql, &[name.as_str().into()], |row| row.optional_json(0, "the record of a gate"))?;
    Ok(record.flatten().unwrap_or_default())
}

/// The campaigns with updates that are not over.
pub(crate) fn under_way(tx: &Tx<'_>) -> Result<Vec<Text>, StoreError> {
    tx.rows(
        "SELECT campaign_name FROM campaign_counter WHERE standing IN ('waiting', 'collecting_vci', \
         'checking_readiness', 'deferred', 'downloading', 'installing', 'committing', 'verifying', 'overdue', \
         'rolling_back') GROUP BY campaign_name HAVING SUM(vehicles) > 0 ORDER BY campaign_name",
        &[],
        |row| row.parsed(0, "a campaign name"),
    )
}

/// Notes how far a campaign has taken in the vehicles that it starts with; `None` is its end.
pub(crate) fn set_starting(tx: &Tx<'_>, name: &Text, starting: Option<&Starting>) -> Result<(), StoreError> {
    let stored = starting.map(stored_json).transpose()?;
    let sql = "UPDATE campaign SET starting = $2 WHERE name = $1";
    tx.exec(sql, &[name.as_str().into(), stored.as_ref().into()])?;
    tx.due_changed();
    tx.gate_changed(name);
    Ok(())
}

/// A campaign that takes in the vehicles that it starts with.
pub(crate) fn starting(tx: &Tx<'_>) -> Result<Option<Campaign>, StoreError> {
    tx.row(select_campaign!("WHERE starting IS NOT NULL ORDER BY name LIMIT 1"), &[], read)
}

/// Ends a campaign, which takes in no further vehicle; its updates are looked at soon.
pub(crate) fn abort(tx: &Tx<'_>, name: &Text, aborted: &Aborted) -> Result<(), StoreError> {
    let sql = "UPDATE campaign SET aborted_at = $2, abort_reason = $3, look_after = '', starting = NULL \
               WHERE name = $1";
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

/// How many vehicle updates of a campaign are in which state, and how many of them are over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct StateCounts {
    pub(crate) by_state: BTreeMap<String, u64>,
    pub(crate) total: u64,
    pub(crate) ended: u64,
}

/// The campaigns that bring a release, newest first.
pub(crate) fn of_release(tx: &Tx<'_>, release: &Text, limit: u32) -> Result<Vec<Campaign>, StoreError> {
    tx.rows(
        select_campaign!("WHERE release_name = $1 ORDER BY created_at DESC, name DESC LIMIT $2"),
        &[release.as_str().into(), i64::from(limit).into()],
        read,
    )
}

/// From the counters that are kept.
pub(crate) fn counts(tx: &Tx<'_>, name: &Text) -> Result<StateCounts, StoreError> {
    let mut counts = StateCounts::default();
    for (_, counted, vehicles) in counters(tx, name)? {
        let Counted::At(standing) = counted else { continue };
        counts.total = counts.total.saturating_add(vehicles);
        if standing.is_final() {
            counts.ended = counts.ended.saturating_add(vehicles);
        }
        let of_state = counts.by_state.entry(standing.state_name().to_owned()).or_default();
        *of_state = of_state.saturating_add(vehicles);
    }
    Ok(counts)
}

/// How many vehicle updates of all campaigns are in which state.
pub(crate) fn counts_of_all(tx: &Tx<'_>) -> Result<BTreeMap<String, u64>, StoreError> {
    let standings = tx.rows(
        "SELECT standing, CAST(SUM(vehicles) AS BIGINT) FROM campaign_counter GROUP BY standing",
        &[],
        |row| Ok((row.parsed::<Counted>(0, "the standing of a vehicle update")?, row.count(1)?)),
    )?;
    let mut by_state = BTreeMap::new();
    for (counted, vehicles) in standings.into_iter().filter(|(_, vehicles)| *vehicles > 0) {
        let Counted::At(standing) = counted else { continue };
        let of_state: &mut u64 = by_state.entry(standing.state_name().to_owned()).or_default();
        *of_state = of_state.saturating_add(vehicles);
    }
    Ok(by_state)
}

/// How many vehicles of each wave of a campaign are where, from the counters that are kept.
pub(crate) fn wave_counts(tx: &Tx<'_>, campaign: &Campaign) -> Result<Vec<WaveCounts>, StoreError> {
    let waves = usize::try_from(campaign.rollout.wave_count()).unwrap_or(usize::MAX);
    let mut counts = vec![WaveCounts::default(); waves];
    for (wave, counted, vehicles) in counters(tx, &campaign.name)? {
        let index = usize::try_from(wave).unwrap_or(usize::MAX).saturating_sub(1);
        if let Some(counts) = counts.get_mut(index) {
            match counted {
                Counted::At(standing) => counts.add(standing, vehicles),
                Counted::FailedBefore => counts.add_failed_before(vehicles),
            }
        }
    }
    // Those that are still to come count as well: a share of the vehicles is one of all.
    let shares = campaign.starting.as_ref().and_then(|starting| starting.shares.as_ref());
    for (counts, to_come) in counts.iter_mut().zip(shares.iter().flat_map(|shares| &shares.vehicles)) {
        counts.vehicles = counts.vehicles.max(*to_come);
    }
    Ok(counts)
}

/// How many vehicles of each wave have which standing, and how many failed before; none of which there is none.
fn counters(tx: &Tx<'_>, name: &Text) -> Result<Vec<(u32, Counted, u64)>, StoreError> {
    let stored = tx.rows(
        "SELECT wave, standing, CAST(SUM(vehicles) AS BIGINT) FROM campaign_counter WHERE campaign_name = $1 \
         GROUP BY wave, standing",
        &[name.as_str().into()],
        |row| {
            let wave = u32::try_from(row.integer(0)?).unwrap_or(u32::MAX);
            Ok(((wave, row.parsed(1, "the standing of a vehicle update")?), row.integer(2)?))
        },
    )?;
    let mut counters: BTreeMap<(u32, Counted), i64> = stored.into_iter().collect();
    for (counter, vehicles) in tx.counted_in(name) {
        let number = counters.entry((counter.wave, counter.counted)).or_default();
        *number = number.saturating_add(vehicles);
    }
    let some = counters.into_iter().filter(|(_, vehicles)| *vehicles > 0);
    Ok(some.map(|((wave, counted), vehicles)| (wave, counted, vehicles.unsigned_abs())).collect())
}

pub(super) fn add_to_counter(tx: &Tx<'_>, counter: &Counter, vehicles: i64) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO campaign_counter (campaign_name, wave, standing, shard, vehicles) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (campaign_name, wave, standing, shard) \
         DO UPDATE SET vehicles = campaign_counter.vehicles + excluded.vehicles",
        &[
            counter.campaign.as_str().into(),
            i64::from(counter.wave).into(),
            counter.counted.name().into(),
            counter.shard.into(),
            vehicles.into(),
        ],
    )?;
    Ok(())
}

/// Counters that are not what a count finds, each in a sentence; looks at every vehicle update.
pub(crate) fn wrong_counters(tx: &Tx<'_>, name: &Text) -> Result<Vec<String>, StoreError> {
    let mut counted: BTreeMap<(u32, Counted), u64> = BTreeMap::new();
    let found = tx.rows(
        "SELECT wave, data, attempts FROM vehicle_update WHERE campaign_name = $1",
        &[name.as_str().into()],
        |row| {
            let state: State = row.json(1, "the state of a vehicle update")?;
            let attempts: Option<Attempts> = row.optional_json(2, "the attempts of a vehicle update")?;
            let failed_before = attempts.unwrap_or_default().count_as_failed(&state);
            let wave = u32::try_from(row.integer(0)?).unwrap_or(u32::MAX);
            Ok((wave, state.standing(), failed_before))
        },
    )?;
    for (wave, standing, failed_before) in found {
        let kinds = [Some(Counted::At(standing)), failed_before.then_some(Counted::FailedBefore)];
        for kind in kinds.into_iter().flatten() {
            let number = counted.entry((wave, kind)).or_default();
            *number = number.saturating_add(1);
        }
    }
    let kept: BTreeMap<_, _> =
        counters(tx, name)?.into_iter().map(|(wave, kind, vehicles)| ((wave, kind), vehicles)).collect();
    let keys: std::collections::BTreeSet<_> = counted.keys().chain(kept.keys()).collect();
    let number = |of: &BTreeMap<_, u64>, key| of.get(key).copied().unwrap_or(0);
    let wrong = keys.into_iter().filter(|key| number(&counted, *key) != number(&kept, *key)).map(|key| {
        let (wave, kind) = key;
        format!(
            "campaign {name}, wave {wave}, {}: {} counted, {} kept",
            kind.name(),
            number(&counted, key),
            number(&kept, key)
        )
    });
    Ok(wrong.collect())
}
