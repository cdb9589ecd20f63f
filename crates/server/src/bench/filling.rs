//! Fills a store with a fleet: one vehicle says who it is and what it has, and the others are copies of it.

use farrier_campaign::{Image, Release};
use farrier_protocol::{Sha256, Text};

use super::car::{Car, HARDWARE, VERSIONS};
use super::{Fleet, FleetError, text, unexpected};
use crate::store::releases::{self, StoredImage};
use crate::store::{StoreError, Tx};

/// The release that the campaign brings.
pub(super) const RELEASE: &str = "bench-2";
/// Vehicles that are made by one transaction.
const AT_A_TIME: u64 = 10_000;
/// Octets of an image that nobody fetches.
const IMAGE_BYTES: u64 = 1_000_000;

/// The id of a vehicle, counted from 0: their order is that of the numbers.
pub(super) fn vehicle_id(number: u64) -> String {
    format!("BENCH-{number:08}")
}

/// The numbers from $1 to before $2.
macro_rules! numbers {
    () => {
        "WITH RECURSIVE number (n) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT n + 1 FROM number WHERE n + 1 < $2) "
    };
}

/// What [`vehicle_id`] makes of such a number.
macro_rules! id {
    () => {
        "'BENCH-' || SUBSTR(CAST(100000000 + n AS TEXT), 2)"
    };
}

/// Makes the release and the vehicles.
pub(super) async fn fill(fleet: &Fleet) -> Result<(), FleetError> {
    let count = |tx: &Tx<'_>| tx.row("SELECT COUNT(*) FROM vehicle", &[], |row| row.count(0));
    let found = fleet.store.read::<_, StoreError>(count).await?.unwrap_or(0);
    if found > 0 {
        return Err(unexpected("a database without vehicles", format!("{found}; name another one")));
    }
    let now = (fleet.clock)();
    let [_, after] = VERSIONS;
    let release = move |tx: &Tx<'_>| {
        let sha256 = Sha256::of(after.as_bytes());
        releases::put_image(
            tx,
            &StoredImage { sha256, size_bytes: IMAGE_BYTES, signature: vec![0x30, 1] },
            now,
        )?;
        let image = Image::new(text(HARDWARE)?, text(after)?, sha256, IMAGE_BYTES);
        let release = Release::new(vec![image])
            .map_err(|error| StoreError::Damaged { expected: "a release", found: error.to_string() })?;
        releases::create(tx, &text(RELEASE)?, &release, now)
    };
    fleet.store.write(release).await?;
    let first: Text = text(&vehicle_id(0))?;
    let first = first.as_str().parse().map_err(|error| unexpected("a vehicle id", error))?;
    let (mut car, [before, _]) = (Car::new(first)?, VERSIONS);
    car.wake_up(&fleet.desk, &fleet.clock).await?;
    car.answer_vci(&fleet.desk, &fleet.clock, before).await?;
    let mut from = 1;
    while from < fleet.vehicles {
        let until = from.saturating_add(AT_A_TIME).min(fleet.vehicles);
        fleet.store.write(move |tx| copy(tx, from, until)).await?;
        from = until;
    }
    Ok(())
}

/// Copies the first vehicle to those from one number to before another.
fn copy(tx: &Tx<'_>, from: u64, until: u64) -> Result<(), StoreError> {
    let [from, until] = [from, until].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
    let first = vehicle_id(0);
    let parameters = [from.into(), until.into(), first.as_str().into()];
    tx.exec(
        concat!(
            "INSERT INTO vehicle (vehicle_id, gateway_id, client_id, thumbprint, enrolled_at, enrolled_by, last_seen_at, \
             clock_skew_ms, boot_id, boot_seq, recent_reboots, vci_digest, vci_received_at, reported_region, indexed_digest) ",
            numbers!(),
            "SELECT ", id!(), ", v.gateway_id, ", id!(), " || '_' || v.gateway_id, v.thumbprint, v.enrolled_at, \
             v.enrolled_by, v.last_seen_at, v.clock_skew_ms, v.boot_id, v.boot_seq, v.recent_reboots, v.vci_digest, \
             v.vci_received_at, v.reported_region, v.indexed_digest FROM number, vehicle v WHERE v.vehicle_id = $3"
        ),
        &parameters,
    )?;
    tx.exec(
        concat!(
            "INSERT INTO vehicle_inventory (vehicle_id, vci) ",
            numbers!(),
            "SELECT ",
            id!(),
            ", i.vci FROM number, vehicle_inventory i WHERE i.vehicle_id = $3"
        ),
        &parameters,
    )?;
    tx.exec(
        concat!(
            "INSERT INTO vehicle_configuration (vehicle_id, number, vci_digest, first_seen_at, vci) ",
            numbers!(),
            "SELECT ",
            id!(),
            ", c.number, c.vci_digest, c.first_seen_at, c.vci \
             FROM number, vehicle_configuration c WHERE c.vehicle_id = $3"
        ),
        &parameters,
    )?;
    tx.exec(
        concat!(
            "INSERT INTO vehicle_ecu (vehicle_id, ecu_id, supplier_code, hw_part_no, sw_part_no, sw_version, \
             sw_version_key, bootloader_ver, bootloader_ver_key, calibration_id, can_id, domain) ",
            numbers!(),
            "SELECT ",
            id!(),
            ", e.ecu_id, e.supplier_code, e.hw_part_no, e.sw_part_no, e.sw_version, \
             e.sw_version_key, e.bootloader_ver, e.bootloader_ver_key, e.calibration_id, e.can_id, e.domain \
             FROM number, vehicle_ecu e WHERE e.vehicle_id = $3"
        ),
        &parameters,
    )?;
    Ok(())
}
