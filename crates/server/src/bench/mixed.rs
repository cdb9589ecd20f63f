//! A fleet as its operators see it in the middle of things: a campaign with vehicles in every state, others beside it, and a
//! month of samples. What is measured are the console's pages over it.

use farrier_campaign::{DeferredBy, IneligibleReason, State, VerifyCause};
use farrier_protocol::{ErrorCode, NotReadyReason, UnixMillis, VehicleId};

use super::{Fleet, FleetError, campaign, campaign_name, filling, text, unexpected};
use crate::conversation::start;
use crate::store::campaigns::{self, Campaign};
use crate::store::intake::Intake;
use crate::store::updates::{self, VehicleUpdate};
use crate::store::{StoreError, Tx};

/// Updates that are changed by one transaction.
const AT_A_TIME: u32 = 500;
/// Campaigns beside the large one, and the vehicles of each.
const OTHERS: u64 = 12;
const VEHICLES_OF_OTHERS: u64 = 200;
const DAY_MS: i64 = 86_400_000;

/// Samples of a day by the minute, and of a month by the hour before it, $1 of each other's distance in ms back from $2.
macro_rules! sample_times {
    () => {
        "WITH RECURSIVE back (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM back WHERE n < $1), \
         sample (at, n) AS (SELECT $2 - n * $3, n FROM back), \
         stepped (at, n, step_s) AS (SELECT at, n, CASE WHEN at % 86400000 = 0 THEN 86400 WHEN at % 3600000 = 0 THEN 3600 \
         WHEN at % 900000 = 0 THEN 900 ELSE 60 END FROM sample) "
    };
}

impl Fleet {
    /// Makes it so; the fleet has no campaign before.
    ///
    /// # Errors
    /// A store that fails, or a vehicle whose update does not go on as it has to.
    pub async fn mix(&self) -> Result<(), FleetError> {
        self.start_campaign((self.vehicles / 100).max(1)).await?;
        self.open_wave().await?;
        self.update_vehicles(self.choose_vehicles(1).await?).await?;
        let done = self
            .store
            .read::<_, StoreError>(|tx| updates::page_in_state(tx, &campaign_name()?, "succeeded", "", 1));
        let done = done.await?.into_iter().next();
        let done = done.ok_or_else(|| unexpected("an update that succeeded", "none"))?;
        let mut after = String::new();
        loop {
            let (now, done, from) = ((self.clock)(), done.clone(), after.clone());
            let changed = self.store.write(move |tx| spread(tx, &done, &from, now)).await?;
            match changed {
                Some(last) => after = last.to_string(),
                None => break,
            }
        }
        let now = (self.clock)();
        for number in 0..OTHERS {
            let first = number * VEHICLES_OF_OTHERS % self.vehicles;
            let named =
                (first..first.saturating_add(VEHICLES_OF_OTHERS)).take_while(|of| *of < self.vehicles);
            let named =
                named.map(|of| filling::vehicle_id(of).parse()).collect::<Result<Vec<VehicleId>, _>>();
            let named = named.map_err(|error| unexpected("a vehicle id", error))?;
            self.store
                .write::<_, StoreError>(move |tx| {
                    let other = Campaign {
                        name: text(&format!("other-{number:02}"))?,
                        every_vehicle: false,
                        intake: Intake { needs_approval: number % 3 == 0, ..Intake::default() },
                        ..campaign(10, now)?
                    };
                    campaigns::create(tx, &other, &named)?;
                    if number % 2 == 1 {
                        start(tx, &other, now)?;
                    }
                    Ok(())
                })
                .await?;
        }
        let midnight = now.0 - now.0.rem_euclid(DAY_MS);
        for (number, from, distance_ms) in
            [(1_440, now.0 - now.0.rem_euclid(60_000), 60_000), (720, midnight - DAY_MS, 3_600_000)]
        {
            self.store.write(move |tx| samples(tx, number, from, distance_ms)).await?;
        }
        Ok(())
    }
}

/// Brings the next updates that wait into states of all kinds, without too many failures for the campaign's rule; gives the last
/// vehicle, or nothing at the end.
fn spread(
    tx: &Tx<'_>,
    done: &VehicleUpdate,
    after: &str,
    now: UnixMillis,
) -> Result<Option<VehicleId>, StoreError> {
    let page = updates::page_in_state(tx, &campaign_name()?, "waiting", after, AT_A_TIME)?;
    let Some(plan) = done.state.plan() else { return Ok(None) };
    for before in &page {
        let number: u64 = before.vehicle_id.as_str().trim_start_matches("BENCH-").parse().unwrap_or(0);
        let rolled_back = |cause| State::RolledBack { plan: plan.clone(), cause };
        let ecus = || plan.packages.iter().map(|package| package.ecu_id.clone()).take(1).collect();
        let state = match number % 100 {
            0..55 => State::Succeeded { plan: plan.clone(), late: false },
            55 => rolled_back(VerifyCause::UpdateFailed { failed_ecus: ecus() }),
            56 => rolled_back(VerifyCause::ErrorReported { code: ErrorCode::DeltaBaseMismatch }),
            57 => State::Unknown { plan: plan.clone(), cause: VerifyCause::DeadlinePassed },
            58..62 => State::Ineligible { reasons: vec![IneligibleReason::NoMatchingHardware] },
            62..65 => State::Cancelled { reason: text("wrong fleet")?, plan: None },
            65..80 => State::Deferred {
                plan: plan.clone(),
                why: DeferredBy::NotReady {
                    reasons: vec![match number % 2 {
                        0 => NotReadyReason::VehicleMoving,
                        _ => NotReadyReason::PowerLow,
                    }],
                },
                retry_at: now.plus_seconds(super::FAR_S),
                replans: 0,
            },
            _ => continue,
        };
        let ended_at = state.is_final().then_some(now);
        let update = VehicleUpdate { state, ended_at, ..before.clone() };
        updates::save(tx, before, &update, now)?;
    }
    Ok(page.last().map(|last| last.vehicle_id.clone()))
}

/// A fleet whose vehicles came to the release little by little.
fn samples(tx: &Tx<'_>, number: i64, from: i64, distance_ms: i64) -> Result<(), StoreError> {
    let parameters = [number.into(), from.into(), distance_ms.into()];
    tx.exec(
        concat!(
            "INSERT INTO fleet_sample (at, step_s, vehicles, connected) ",
            sample_times!(),
            "SELECT at, step_s, 100000, 40000 + n % 997 FROM stepped"
        ),
        &parameters,
    )?;
    tx.exec(
        concat!(
            "INSERT INTO release_sample (at, release_name, step_s, vehicles) ",
            sample_times!(),
            ", release (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM release WHERE number < 8) \
             SELECT at, 'bench-' || CAST(number AS TEXT), step_s, 5000 * number + n % 997 FROM stepped, release"
        ),
        &parameters,
    )?;
    let name = campaign_name()?;
    tx.exec(
        concat!(
            "INSERT INTO campaign_sample (campaign_name, at, step_s, at_release, under_way, failed, waiting, ended, \
             sent_bytes, whole_bytes) ",
            sample_times!(),
            "SELECT $4, at, step_s, 55000 - n * 25, 100 + n % 97, n % 997, n * 25, 55000 - n * 25, \
             (55000 - n * 25) * 100000, (55000 - n * 25) * 1000000 FROM stepped"
        ),
        &[number.into(), from.into(), distance_ms.into(), name.as_str().into()],
    )?;
    Ok(())
}
