//! Which vehicle may fetch which package until when, and how far it got.

use farrier_campaign::{Plan, Rollout};
use farrier_protocol::{PkgId, Sha256, Text, UnixMillis, VehicleId};

use super::traffic::{self, Traffic};
use super::{StoreError, Tx};
use crate::desk::{CampaignLimit, Download, PeerIdentity};

/// What a vehicle may do with a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grant {
    /// Fetch it.
    Open {
        /// Its length.
        size_bytes: u64,
        /// Until when, exclusive.
        until: UnixMillis,
        /// How quickly, where its campaign says so.
        limit: Option<CampaignLimit>,
    },
    /// It could, until the update ended or expired.
    Over,
    /// Only other vehicles have it.
    OfOthers,
    /// Nobody has it.
    Unknown,
}

/// Lets a vehicle fetch the packages of its plan until the deadline.
pub(crate) fn open(
    tx: &Tx<'_>,
    update_id: &str,
    vehicle_id: &VehicleId,
    plan: &Plan,
    until: UnixMillis,
) -> Result<(), StoreError> {
    for package in &plan.packages {
        tx.exec(
            "INSERT INTO package_grant \
             (vehicle_update_id, vehicle_id, pkg_id, sha256, size_bytes, open_until, image_bytes, served_bytes) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, 0) ON CONFLICT (vehicle_update_id, pkg_id) DO UPDATE SET \
             sha256 = excluded.sha256, size_bytes = excluded.size_bytes, open_until = excluded.open_until, \
             image_bytes = excluded.image_bytes, served_bytes = 0",
            &[
                update_id.into(),
                vehicle_id.as_str().into(),
                package.pkg_id.as_str().into(),
                (&package.sha256.to_string()).into(),
                i64::try_from(package.size_bytes).unwrap_or(i64::MAX).into(),
                until.into(),
                i64::try_from(package.image_size_bytes).unwrap_or(i64::MAX).into(),
            ],
        )?;
    }
    Ok(())
}

/// Ends what a vehicle may fetch for an update.
pub(crate) fn close(tx: &Tx<'_>, update_id: &str, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE package_grant SET open_until = $2 WHERE vehicle_update_id = $1 AND open_until > $2",
        &[update_id.into(), now.into()],
    )?;
    tx.grants_taken_away();
    Ok(())
}

/// The vehicle whose binding this certificate is.
pub(crate) fn bound_vehicle(tx: &Tx<'_>, peer: &PeerIdentity) -> Result<Option<VehicleId>, StoreError> {
    tx.row(
        "SELECT vehicle_id FROM vehicle WHERE client_id = $1 AND thumbprint = $2",
        &[peer.common_name.as_str().into(), peer.thumbprint.as_str().into()],
        |row| row.parsed(0, "a vehicle id"),
    )
}

pub(crate) fn grant(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    pkg_id: &PkgId,
    sha256: &Sha256,
    now: UnixMillis,
) -> Result<Grant, StoreError> {
    let digest = sha256.to_string();
    let own = tx.row(
        "SELECT g.open_until, g.size_bytes, c.name, c.rollout FROM package_grant g \
         JOIN vehicle_update u ON u.id = g.vehicle_update_id JOIN campaign c ON c.name = u.campaign_name \
         WHERE g.vehicle_id = $1 AND g.pkg_id = $2 AND g.sha256 = $3 ORDER BY g.open_until DESC LIMIT 1",
        &[vehicle_id.as_str().into(), pkg_id.as_str().into(), (&digest).into()],
        |row| {
            let campaign: Text = row.parsed(2, "a campaign name")?;
            let rollout: Option<Rollout> = row.optional_json(3, "a rollout")?;
            let limit = rollout.and_then(|rollout| rollout.bytes_per_second);
            let limit = limit.map(|bytes_per_second| CampaignLimit { campaign, bytes_per_second });
            Ok((row.time(0)?, row.count(1)?, limit))
        },
    )?;
    if let Some((open_until, size_bytes, limit)) = own {
        return Ok(if open_until > now {
            Grant::Open { size_bytes, until: open_until, limit }
        } else {
            Grant::Over
        });
    }
    let of_others = tx.row(
        "SELECT 1 FROM package_grant WHERE pkg_id = $1 AND sha256 = $2 LIMIT 1",
        &[pkg_id.as_str().into(), (&digest).into()],
        |row| row.integer(0),
    )?;
    Ok(if of_others.is_some() { Grant::OfOthers } else { Grant::Unknown })
}

/// Notes how far a vehicle has fetched a package, where that is farther than before; says whether it may still
/// fetch it. What was served before the end counts also after it.
pub(crate) fn served(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    download: &Download,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let digest = download.hash.to_string();
    let newest = tx.row(
        "SELECT vehicle_update_id, open_until, served_bytes, size_bytes, image_bytes FROM package_grant \
         WHERE vehicle_id = $1 AND pkg_id = $2 AND sha256 = $3 ORDER BY open_until DESC LIMIT 1",
        &[vehicle_id.as_str().into(), download.pkg_id.as_str().into(), (&digest).into()],
        |row| {
            let size = row.count(3)?;
            let image = row.optional_integer(4)?.map_or(size, |image| image.max(0).unsigned_abs());
            Ok((row.text(0)?, row.time(1)?, row.count(2)?, (size, image)))
        },
    )?;
    let Some((update_id, open_until, served_before, sizes)) = newest else { return Ok(false) };
    if served_before < download.up_to_byte {
        tx.exec(
            "UPDATE package_grant SET served_bytes = $3 WHERE vehicle_update_id = $1 AND pkg_id = $2",
            &[
                (&update_id).into(),
                download.pkg_id.as_str().into(),
                i64::try_from(download.up_to_byte).unwrap_or(i64::MAX).into(),
            ],
        )?;
        let more = Traffic::between(served_before, download.up_to_byte, sizes);
        traffic::add(tx, &update_id, vehicle_id, more)?;
    }
    Ok(open_until > now)
}

/// Bytes of all packages of an update that the vehicle has fetched.
pub(crate) fn served_bytes(tx: &Tx<'_>, update_id: &str) -> Result<u64, StoreError> {
    let sum = tx.row(
        "SELECT CAST(COALESCE(SUM(served_bytes), 0) AS BIGINT) FROM package_grant WHERE vehicle_update_id = $1",
        &[update_id.into()],
        |row| row.count(0),
    )?;
    Ok(sum.unwrap_or(0))
}
