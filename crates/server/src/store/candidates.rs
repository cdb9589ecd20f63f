//! Vehicles as a campaign that does not exist yet would find them: read in pages, so that any number fits into memory.

use std::collections::BTreeMap;

use farrier_protocol::{SendVci, Sha256, Text, VehicleId};

use super::{Row, StoreError, Tx};

/// What decides whether a vehicle would get a release.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) vehicle_id: VehicleId,
    pub(crate) is_quarantined: bool,
    /// The campaign whose update is under way.
    pub(crate) active_campaign: Option<Text>,
    /// The current one, where the vehicle has sent one.
    pub(crate) vci: Option<SendVci>,
}

macro_rules! select_candidate {
    ($rest:literal) => {
        concat!(
            "SELECT v.vehicle_id, v.quarantined_at, i.vci, \
             (SELECT u.campaign_name FROM vehicle_update u \
              WHERE u.vehicle_id = v.vehicle_id AND u.phase = 'active' LIMIT 1) \
             FROM vehicle v LEFT JOIN vehicle_inventory i ON i.vehicle_id = v.vehicle_id ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<Candidate, StoreError> {
    let vci = match row.optional_text(2)? {
        Some(_) => Some(row.json(2, "a VCI")?),
        None => None,
    };
    Ok(Candidate {
        vehicle_id: row.parsed(0, "a vehicle id")?,
        is_quarantined: row.optional_time(1)?.is_some(),
        active_campaign: row.optional_parsed(3, "a campaign name")?,
        vci,
    })
}

/// The vehicles after an id, by id.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Candidate>, StoreError> {
    tx.rows(
        select_candidate!("WHERE v.vehicle_id > $1 ORDER BY v.vehicle_id LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

pub(crate) fn by_id(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Option<Candidate>, StoreError> {
    tx.row(select_candidate!("WHERE v.vehicle_id = $1"), &[vehicle_id.as_str().into()], read)
}

/// The deltas that are not offered again, of all vehicles from one to another.
pub(crate) fn avoided_deltas(
    tx: &Tx<'_>,
    first: &VehicleId,
    last: &VehicleId,
) -> Result<BTreeMap<VehicleId, Vec<Sha256>>, StoreError> {
    let avoided: Vec<(VehicleId, Sha256)> = tx.rows(
        "SELECT vehicle_id, sha256 FROM avoided_delta WHERE vehicle_id >= $1 AND vehicle_id <= $2",
        &[first.as_str().into(), last.as_str().into()],
        |row| Ok((row.parsed(0, "a vehicle id")?, row.parsed(1, "a digest")?)),
    )?;
    let mut of_vehicles: BTreeMap<VehicleId, Vec<Sha256>> = BTreeMap::new();
    for (vehicle_id, sha256) in avoided {
        of_vehicles.entry(vehicle_id).or_default().push(sha256);
    }
    Ok(of_vehicles)
}
