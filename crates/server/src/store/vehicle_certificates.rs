//! The certificates that vehicles came with, and until when each is valid: whose has ended does not come back.

use farrier_protocol::{UnixMillis, VehicleId};

use super::{StoreError, Tx, vehicles};
use crate::desk::Certificate;
use crate::mqtt::bindings_of;

/// A certificate that ends within this time needs somebody, in ms: 30 days.
pub(crate) const ENDS_SOON_MS: i64 = 30 * 86_400_000;

/// By when a certificate has to end at `now` to need somebody.
pub(crate) fn soon(now: UnixMillis) -> UnixMillis {
    UnixMillis(now.0.saturating_add(ENDS_SOON_MS))
}

/// Notes the certificate that a vehicle has come with.
pub(crate) fn note(tx: &Tx<'_>, vehicle_id: &VehicleId, certificate: &Certificate) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET certificate_ends_at = $2, certificate_serial = $3 WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into(), certificate.ends_at.into(), (&certificate.serial).into()],
    )?;
    Ok(())
}

/// How many vehicles have one that ends before a time.
pub(crate) fn count_ending(tx: &Tx<'_>, before: UnixMillis) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM vehicle WHERE certificate_ends_at < $1";
    Ok(tx.row(sql, &[before.into()], |row| row.count(0))?.unwrap_or(0))
}

/// These vehicles after a place, the first to end first, and when each does.
pub(crate) fn page_of_ending(
    tx: &Tx<'_>,
    before: UnixMillis,
    (ends_at, vehicle_id): (UnixMillis, &str),
    limit: u32,
) -> Result<Vec<(VehicleId, UnixMillis)>, StoreError> {
    tx.rows(
        "SELECT vehicle_id, certificate_ends_at FROM vehicle WHERE certificate_ends_at < $1 \
         AND certificate_ends_at >= $2 AND (certificate_ends_at > $2 OR vehicle_id > $3) \
         ORDER BY certificate_ends_at, vehicle_id LIMIT $4",
        &[before.into(), ends_at.into(), vehicle_id.into(), i64::from(limit).into()],
        |row| Ok((row.parsed(0, "a vehicle id")?, row.time(1)?)),
    )
}

/// The vehicle that has a certificate's common name as its client id, or had it before it was bound anew.
pub(crate) fn holder(tx: &Tx<'_>, common_name: &str) -> Result<Option<VehicleId>, StoreError> {
    if let Some(vehicle) = vehicles::by_client_id(tx, common_name)? {
        return Ok(Some(vehicle.binding.vehicle_id));
    }
    for binding in bindings_of(common_name) {
        let sql = "SELECT 1 FROM vehicle_binding WHERE vehicle_id = $1 AND gateway_id = $2 LIMIT 1";
        let former = [binding.vehicle_id.as_str().into(), binding.gateway_id.as_str().into()];
        if tx.row(sql, &former, |_| Ok(()))?.is_some() {
            return Ok(Some(binding.vehicle_id));
        }
    }
    Ok(None)
}
