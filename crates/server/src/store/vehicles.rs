//! Vehicles: binding, certificate, boots, quarantine, current VCI.

use farrier_campaign::RecentReboots;
use farrier_protocol::{Binding, GatewayId, SendVci, Sha256, Text, Thumbprint, UnixMillis, VehicleId};

use super::selection::SelectionSql;
use super::tx::stored_json;
use super::{EarlierBinding, Row, StoreError, Tx, inventories, nodes};
use crate::desk::Certificate;
use crate::vehicle_fields::{Tag, TimeZone, VehicleType, Vin};

/// An enrolled vehicle.
#[derive(Debug, Clone)]
pub(crate) struct Vehicle {
    pub(crate) binding: Binding,
    /// Of the certificate that it first woke up with.
    pub(crate) thumbprint: Option<Thumbprint>,
    pub(crate) enrolled_at: UnixMillis,
    pub(crate) enrolled_by: EnrolledBy,
    pub(crate) last_seen_at: Option<UnixMillis>,
    /// By how much its clock is behind the server's, at the last message.
    pub(crate) clock_skew_ms: Option<i64>,
    pub(crate) boot: Option<Boot>,
    pub(crate) recent_reboots: RecentReboots,
    pub(crate) quarantined_at: Option<UnixMillis>,
    pub(crate) vci_digest: Option<Sha256>,
    pub(crate) vci_received_at: Option<UnixMillis>,
    /// Through a broker: since when it has been there, as far as is known.
    pub(crate) there_since: Option<UnixMillis>,
    pub(crate) vin: Option<Vin>,
    /// As operators say.
    pub(crate) region: Option<Text>,
    /// As its VCI says.
    pub(crate) reported_region: Option<Text>,
    pub(crate) time_zone: Option<TimeZone>,
    /// The type that it is approved as.
    pub(crate) vehicle_type: Option<VehicleType>,
    /// Of the VCI whose ECUs can be searched.
    pub(crate) indexed_digest: Option<Sha256>,
    /// With which it last came; absent where this server has not seen it, as behind a broker.
    pub(crate) certificate: Option<Certificate>,
}

impl Vehicle {
    /// What the audit log takes the digest of.
    pub(crate) fn audited(&self) -> serde_json::Value {
        serde_json::json!({
            "vehicle_id": self.binding.vehicle_id, "gateway_id": self.binding.gateway_id,
            "thumbprint": self.thumbprint, "quarantined_at": self.quarantined_at,
            "vin": self.vin, "region": self.region, "time_zone": self.time_zone,
            "vehicle_type": self.vehicle_type,
        })
    }

    /// What an operator says comes before what the vehicle says.
    pub(crate) fn effective_region(&self) -> Option<&Text> {
        self.region.as_ref().or(self.reported_region.as_ref())
    }
}

/// The boot that a vehicle last reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    pub(crate) boot_id: Text,
    pub(crate) boot_seq: u64,
}

/// Who enrolled a vehicle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EnrolledBy {
    Operator,
    ItsWakeUp,
}

impl EnrolledBy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::ItsWakeUp => "wakeup",
        }
    }
}

impl std::str::FromStr for EnrolledBy {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        [Self::Operator, Self::ItsWakeUp].into_iter().find(|by| by.name() == name).ok_or(())
    }
}

/// What [`read`] reads, from the first column on.
macro_rules! vehicle_columns {
    () => {
        "vehicle_id, gateway_id, thumbprint, enrolled_at, enrolled_by, last_seen_at, clock_skew_ms, \
         boot_id, boot_seq, recent_reboots, quarantined_at, vci_digest, vci_received_at, there_since, \
         vin, region, reported_region, time_zone, indexed_digest, vehicle_type, certificate_ends_at, \
         certificate_serial"
    };
}
pub(super) use vehicle_columns;

macro_rules! select_vehicle {
    ($rest:literal) => {
        concat!("SELECT ", vehicle_columns!(), " FROM vehicle ", $rest)
    };
}

/// Reads the columns that [`read`] takes.
pub(super) const SELECT: &str = select_vehicle!("");

pub(super) fn read(row: &Row<'_>) -> Result<Vehicle, StoreError> {
    let boot_id: Option<Text> = row.optional_parsed(7, "a boot id")?;
    let boot_seq: Option<u64> = row.optional_parsed(8, "a boot counter")?;
    Ok(Vehicle {
        binding: binding(row, 0)?,
        thumbprint: row.optional_parsed(2, "a thumbprint")?,
        enrolled_at: row.time(3)?,
        enrolled_by: row.parsed(4, "who enrolled the vehicle")?,
        last_seen_at: row.optional_time(5)?,
        clock_skew_ms: row.optional_integer(6)?,
        boot: boot_id.zip(boot_seq).map(|(boot_id, boot_seq)| Boot { boot_id, boot_seq }),
        recent_reboots: row.json(9, "recent reboots")?,
        quarantined_at: row.optional_time(10)?,
        vci_digest: row.optional_parsed(11, "a VCI digest")?,
        vci_received_at: row.optional_time(12)?,
        there_since: row.optional_time(13)?,
        vin: row.optional_parsed(14, "a VIN")?,
        region: row.optional_parsed(15, "a region")?,
        reported_region: row.optional_parsed(16, "a region")?,
        time_zone: row.optional_parsed(17, "a time zone")?,
        indexed_digest: row.optional_parsed(18, "a VCI digest")?,
        vehicle_type: row.optional_parsed(19, "a vehicle type")?,
        certificate: row
            .optional_text(21)?
            .zip(row.optional_time(20)?)
            .map(|(serial, ends_at)| Certificate { serial, ends_at }),
    })
}

/// Notes which release a vehicle has: that of the newest of its updates that ended with it.
pub(super) fn note_release(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET release_name = (SELECT c.release_name FROM vehicle_update u \
         JOIN campaign c ON c.name = u.campaign_name \
         WHERE u.vehicle_id = vehicle.vehicle_id AND u.state IN ('succeeded', 'up_to_date') \
         ORDER BY u.ended_at DESC, u.id DESC LIMIT 1) WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into()],
    )?;
    Ok(())
}

/// Vehicles whose release is not that of their updates, each in a sentence.
pub(super) fn with_another_release(tx: &Tx<'_>) -> Result<Vec<String>, StoreError> {
    tx.rows(
        "SELECT vehicle_id, noted, found FROM (SELECT v.vehicle_id, COALESCE(v.release_name, 'none') AS noted, \
         COALESCE((SELECT c.release_name FROM vehicle_update u JOIN campaign c ON c.name = u.campaign_name \
         WHERE u.vehicle_id = v.vehicle_id AND u.state IN ('succeeded', 'up_to_date') \
         ORDER BY u.ended_at DESC, u.id DESC LIMIT 1), 'none') AS found FROM vehicle v) AS releases \
         WHERE noted <> found ORDER BY vehicle_id",
        &[],
        |row| {
            let (id, noted, found) = (row.text(0)?, row.text(1)?, row.text(2)?);
            Ok(format!("vehicle {id}: release {noted} noted, {found} by its updates"))
        },
    )
}

/// Those that are quarantined after an id, and since when.
pub(crate) fn page_of_quarantined(
    tx: &Tx<'_>,
    after: &str,
    limit: u32,
) -> Result<Vec<(VehicleId, UnixMillis)>, StoreError> {
    tx.rows(
        "SELECT vehicle_id, quarantined_at FROM vehicle WHERE quarantined_at IS NOT NULL AND vehicle_id > $1 \
         ORDER BY vehicle_id LIMIT $2",
        &[after.into(), i64::from(limit).into()],
        |row| Ok((row.parsed(0, "a vehicle id")?, row.time(1)?)),
    )
}

/// How many are at the broker, as far as is known.
pub(crate) fn number_there(tx: &Tx<'_>) -> Result<u64, StoreError> {
    let sql = "SELECT COUNT(*) FROM vehicle WHERE there_since IS NOT NULL";
    Ok(tx.row(sql, &[], |row| row.count(0))?.unwrap_or(0))
}

/// Holds a vehicle until this transaction ends, so that no other server changes anything of it meanwhile. A transaction
/// about several locks them in the order of their ids. SQLite has one writer, so there it is held already.
pub(crate) fn lock(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<(), StoreError> {
    if !tx.is_shared() || lock_row(tx, vehicle_id)? {
        return Ok(());
    }
    // Nobody knows it yet: of two servers that hear from it at once, the second finds it enrolled by the first.
    tx.lock(vehicle_id.as_str())?;
    lock_row(tx, vehicle_id)?;
    Ok(())
}

/// The lock leaves others free to refer to the vehicle.
fn lock_row(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM vehicle WHERE vehicle_id = $1 FOR NO KEY UPDATE";
    Ok(tx.row(sql, &[vehicle_id.as_str().into()], |_| Ok(()))?.is_some())
}

/// Reads a binding from two neighbouring columns.
pub(super) fn binding(row: &Row<'_>, first: usize) -> Result<Binding, StoreError> {
    let vehicle_id: VehicleId = row.parsed(first, "a vehicle id")?;
    let gateway_id: GatewayId = row.parsed(first.saturating_add(1), "a gateway id")?;
    Ok(Binding { vehicle_id, gateway_id })
}

pub(crate) fn by_id(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Option<Vehicle>, StoreError> {
    tx.row(select_vehicle!("WHERE vehicle_id = $1"), &[vehicle_id.as_str().into()], read)
}

pub(crate) fn by_client_id(tx: &Tx<'_>, client_id: &str) -> Result<Option<Vehicle>, StoreError> {
    tx.row(select_vehicle!("WHERE client_id = $1"), &[client_id.into()], read)
}

/// The vehicles after an id, by id.
pub(crate) fn page(tx: &Tx<'_>, after: &str, limit: u32) -> Result<Vec<Vehicle>, StoreError> {
    tx.rows(
        select_vehicle!("WHERE vehicle_id > $1 ORDER BY vehicle_id LIMIT $2"),
        &[after.into(), i64::from(limit).into()],
        read,
    )
}

/// The vehicles of a condition after an id, by id.
pub(super) fn page_of(
    tx: &Tx<'_>,
    condition: &SelectionSql,
    after: &str,
    limit: u32,
) -> Result<Vec<Vehicle>, StoreError> {
    let number = condition.next_number();
    let sql = format!(
        "{} {} AND v.vehicle_id > ${number} ORDER BY v.vehicle_id LIMIT ${}",
        select_vehicle!("v WHERE"),
        condition.sql,
        number.saturating_add(1)
    );
    tx.rows_of(&sql, &condition.with(&[after.into(), i64::from(limit).into()]), read)
}

/// The lock of whoever changes which vehicles there are, or goes through all of them.
pub(crate) const ENROLMENT: &str = "enrolment";

/// Enrols a vehicle that is not enrolled and whose client id is free.
pub(crate) fn enrol(
    tx: &Tx<'_>,
    binding: &Binding,
    by: EnrolledBy,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.lock(ENROLMENT)?;
    tx.exec(
        "INSERT INTO vehicle (vehicle_id, gateway_id, client_id, enrolled_at, enrolled_by, recent_reboots) \
         VALUES ($1, $2, $3, $4, $5, '[]')",
        &[
            binding.vehicle_id.as_str().into(),
            binding.gateway_id.as_str().into(),
            (&binding.client_id()).into(),
            now.into(),
            by.name().into(),
        ],
    )?;
    Ok(())
}

/// When a vehicle was last heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    pub(crate) at: UnixMillis,
    /// By how much its clock is behind the server's.
    pub(crate) clock_skew_ms: i64,
}

/// Records that an authenticated message came; written when all that came of it is.
pub(crate) fn heard(tx: &Tx<'_>, vehicle_id: &VehicleId, heard: Heard) -> Result<(), StoreError> {
    tx.heard(vehicle_id, heard)
}

pub(super) fn write_heard(tx: &Tx<'_>, vehicle_id: &VehicleId, heard: Heard) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET last_seen_at = $2, clock_skew_ms = $3 WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into(), heard.at.into(), heard.clock_skew_ms.into()],
    )?;
    Ok(())
}

/// Notes that a vehicle has come to its broker.
pub(crate) fn came_to_broker(tx: &Tx<'_>, vehicle_id: &VehicleId, now: UnixMillis) -> Result<(), StoreError> {
    let sql = "UPDATE vehicle SET there_since = $2 WHERE vehicle_id = $1";
    tx.exec(sql, &[vehicle_id.as_str().into(), now.into()])?;
    Ok(())
}

/// Notes that the broker had nobody to give a vehicle's command to, unless the vehicle has come since it was asked.
pub(crate) fn not_at_broker(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    asked_at: UnixMillis,
) -> Result<(), StoreError> {
    let sql = "UPDATE vehicle SET there_since = NULL WHERE vehicle_id = $1 AND there_since <= $2";
    tx.exec(sql, &[vehicle_id.as_str().into(), asked_at.into()])?;
    Ok(())
}

/// Ties the vehicle to a certificate, or lets its next WakeUp do so; until when that one is valid is known when the vehicle
/// comes with it.
pub(crate) fn set_thumbprint(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    thumbprint: Option<&Thumbprint>,
) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET thumbprint = $2, certificate_ends_at = NULL, certificate_serial = NULL \
         WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into(), thumbprint.map(Thumbprint::as_str).into()],
    )?;
    Ok(())
}

pub(crate) fn set_boot(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    boot: &Boot,
    recent_reboots: &RecentReboots,
) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET boot_id = $2, boot_seq = $3, recent_reboots = $4 WHERE vehicle_id = $1",
        &[
            vehicle_id.as_str().into(),
            boot.boot_id.as_str().into(),
            (&boot.boot_seq.to_string()).into(),
            (&stored_json(recent_reboots)?).into(),
        ],
    )?;
    Ok(())
}

/// Puts a vehicle in quarantine; `check_at` is when it may have been up long enough.
pub(crate) fn quarantine(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    since: UnixMillis,
    check_at: UnixMillis,
) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET quarantined_at = $2, quarantine_check_at = $3 WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into(), since.into(), check_at.into()],
    )?;
    tx.due_changed();
    Ok(())
}

/// Nothing is due for a quarantined vehicle until it wakes up again.
pub(crate) fn await_wake_up_in_quarantine(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET quarantine_check_at = NULL WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into()],
    )?;
    Ok(())
}

/// Ends a quarantine; the reboots that led to it are forgotten.
pub(crate) fn release(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET quarantined_at = NULL, quarantine_check_at = NULL, recent_reboots = '[]' \
         WHERE vehicle_id = $1",
        &[vehicle_id.as_str().into()],
    )?;
    Ok(())
}

/// Vehicles whose quarantine may be over, claimed: none that another transaction is at.
pub(crate) fn claim_quarantine_due(
    tx: &Tx<'_>,
    now: UnixMillis,
    limit: u32,
) -> Result<Vec<Vehicle>, StoreError> {
    let sql = tx.one_of(
        select_vehicle!("WHERE quarantine_check_at <= $1 ORDER BY quarantine_check_at, vehicle_id LIMIT $2"),
        select_vehicle!(
            "WHERE quarantine_check_at <= $1 ORDER BY quarantine_check_at, vehicle_id LIMIT $2 \
             FOR NO KEY UPDATE SKIP LOCKED"
        ),
    );
    tx.rows(sql, &[now.into(), i64::from(limit).into()], read)
}

pub(crate) fn next_quarantine_due(tx: &Tx<'_>) -> Result<Option<UnixMillis>, StoreError> {
    let sql = "SELECT quarantine_check_at FROM vehicle WHERE quarantine_check_at IS NOT NULL \
               ORDER BY quarantine_check_at LIMIT 1";
    tx.row(sql, &[], |row| row.time(0))
}

pub(crate) fn set_vci(
    tx: &Tx<'_>,
    vehicle: &Vehicle,
    vci: &SendVci,
    digest: Sha256,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (vehicle_id, stored) = (&vehicle.binding.vehicle_id, stored_json(vci)?);
    tx.exec(
        "INSERT INTO vehicle_inventory (vehicle_id, vci) VALUES ($1, $2) \
         ON CONFLICT (vehicle_id) DO UPDATE SET vci = $2",
        &[vehicle_id.as_str().into(), (&stored).into()],
    )?;
    tx.exec(
        "UPDATE vehicle SET vci_digest = $2, indexed_digest = $2, vci_received_at = $3, reported_region = $4 \
         WHERE vehicle_id = $1",
        &[
            vehicle_id.as_str().into(),
            (&digest.to_string()).into(),
            now.into(),
            vci.region.as_ref().map(Text::as_str).into(),
        ],
    )?;
    if vehicle.indexed_digest != Some(digest) {
        inventories::index(tx, vehicle_id, vci)?;
        inventories::append(tx, vehicle, digest, &stored, now)?;
    }
    Ok(())
}

/// What operators say of a vehicle apart from its tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) vin: Option<Vin>,
    pub(crate) region: Option<Text>,
    pub(crate) time_zone: Option<TimeZone>,
    pub(crate) vehicle_type: Option<VehicleType>,
}

/// Sets all of it; the VIN must be free.
pub(crate) fn set_said(tx: &Tx<'_>, vehicle_id: &VehicleId, said: &Said) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE vehicle SET vin = $2, region = $3, time_zone = $4, vehicle_type = $5 WHERE vehicle_id = $1",
        &[
            vehicle_id.as_str().into(),
            said.vin.as_ref().map(Vin::as_str).into(),
            said.region.as_ref().map(Text::as_str).into(),
            said.time_zone.as_ref().map(TimeZone::as_str).into(),
            said.vehicle_type.as_ref().map(VehicleType::as_str).into(),
        ],
    )?;
    Ok(())
}

pub(crate) fn by_vin(tx: &Tx<'_>, vin: &Vin) -> Result<Option<Vehicle>, StoreError> {
    tx.row(select_vehicle!("WHERE vin = $1"), &[vin.as_str().into()], read)
}

/// The tags of a vehicle, in their order.
pub(crate) fn tags(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Vec<Tag>, StoreError> {
    let sql = "SELECT tag FROM vehicle_tag WHERE vehicle_id = $1 ORDER BY tag";
    tx.rows(sql, &[vehicle_id.as_str().into()], |row| row.parsed(0, "a tag"))
}

pub(crate) fn add_tag(tx: &Tx<'_>, vehicle_id: &VehicleId, tag: &Tag) -> Result<(), StoreError> {
    let sql =
        "INSERT INTO vehicle_tag (vehicle_id, tag) VALUES ($1, $2) ON CONFLICT (vehicle_id, tag) DO NOTHING";
    tx.exec(sql, &[vehicle_id.as_str().into(), tag.as_str().into()])?;
    Ok(())
}

pub(crate) fn remove_tag(tx: &Tx<'_>, vehicle_id: &VehicleId, tag: &Tag) -> Result<(), StoreError> {
    let sql = "DELETE FROM vehicle_tag WHERE vehicle_id = $1 AND tag = $2";
    tx.exec(sql, &[vehicle_id.as_str().into(), tag.as_str().into()])?;
    Ok(())
}

/// Binds a vehicle to another gateway or certificate, and forgets what only the earlier one could know: its boots, and
/// that its inventory is told. The updates go on.
pub(crate) fn rebind(
    tx: &Tx<'_>,
    before: &Vehicle,
    binding: &Binding,
    thumbprint: Option<&Thumbprint>,
    reason: &Text,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let vehicle_id = binding.vehicle_id.as_str();
    let last = tx.row(
        "SELECT number, until FROM vehicle_binding WHERE vehicle_id = $1 ORDER BY number DESC LIMIT 1",
        &[vehicle_id.into()],
        |row| Ok((row.integer(0)?, row.time(1)?)),
    )?;
    let (number, since) = last.unwrap_or((0, before.enrolled_at));
    tx.exec(
        "INSERT INTO vehicle_binding (vehicle_id, number, gateway_id, thumbprint, since, until, reason) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            vehicle_id.into(),
            number.saturating_add(1).into(),
            before.binding.gateway_id.as_str().into(),
            before.thumbprint.as_ref().map(Thumbprint::as_str).into(),
            since.into(),
            now.into(),
            reason.as_str().into(),
        ],
    )?;
    tx.exec(
        "UPDATE vehicle SET gateway_id = $2, client_id = $3, thumbprint = $4, boot_id = NULL, boot_seq = NULL, \
         recent_reboots = '[]', vci_digest = NULL, there_since = NULL, certificate_ends_at = NULL, \
         certificate_serial = NULL WHERE vehicle_id = $1",
        &[
            vehicle_id.into(),
            binding.gateway_id.as_str().into(),
            (&binding.client_id()).into(),
            thumbprint.map(Thumbprint::as_str).into(),
        ],
    )?;
    // The earlier gateway fetches nothing more either.
    tx.grants_taken_away();
    let earlier = EarlierBinding { binding: before.binding.clone(), kept: thumbprint.cloned() };
    if tx.is_shared() {
        nodes::tell_to_cut(tx, &earlier)?;
    }
    tx.rebound(earlier);
    Ok(())
}

/// A binding that a vehicle had before the one that it has.
#[derive(Debug)]
pub(crate) struct FormerBinding {
    /// From 1.
    pub(crate) number: i64,
    pub(crate) gateway_id: GatewayId,
    /// Absent where no WakeUp came.
    pub(crate) thumbprint: Option<Thumbprint>,
    pub(crate) since: UnixMillis,
    pub(crate) until: UnixMillis,
    /// Why it was replaced.
    pub(crate) reason: Text,
}

/// The bindings that a vehicle had, before one, newest first.
pub(crate) fn former_bindings(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    before: i64,
    limit: u32,
) -> Result<Vec<FormerBinding>, StoreError> {
    tx.rows(
        "SELECT number, gateway_id, thumbprint, since, until, reason FROM vehicle_binding \
         WHERE vehicle_id = $1 AND number < $2 ORDER BY number DESC LIMIT $3",
        &[vehicle_id.as_str().into(), before.into(), i64::from(limit).into()],
        |row| {
            Ok(FormerBinding {
                number: row.integer(0)?,
                gateway_id: row.parsed(1, "a gateway id")?,
                thumbprint: row.optional_parsed(2, "a thumbprint")?,
                since: row.time(3)?,
                until: row.time(4)?,
                reason: row.parsed(5, "why a vehicle was bound anew")?,
            })
        },
    )
}

/// The current VCI, where the vehicle has sent one.
pub(crate) fn vci(tx: &Tx<'_>, vehicle_id: &VehicleId) -> Result<Option<SendVci>, StoreError> {
    let sql = "SELECT vci FROM vehicle_inventory WHERE vehicle_id = $1";
    tx.row(sql, &[vehicle_id.as_str().into()], |row| row.json(0, "a VCI"))
}
