//! What the record of an update rests on once messages are forgotten: what was kept at its decisive moments, what operators
//! stated of its campaign, and the register of RXSWINs. Rows are only ever added.

use farrier_protocol::{Text, UnixMillis};
use serde::{Deserialize, Serialize};

use super::tx::stored_json;
use super::updates::VehicleUpdate;
use super::{Row, StoreError, Tx};
use crate::evidence::{Ended, Exchanged, Go, RegisteredSoftware, Statement};
use crate::vehicle_fields::VehicleType;

/// Messages of one update that its record names.
const MOST_EXCHANGED: i64 = 200;
/// Octets of an answer that are worth keeping whole: reports and errors are shorter.
const MOST_KEPT_OCTETS: usize = 2_048;

/// A decisive moment of a vehicle update.
#[derive(Debug, Clone)]
pub(crate) enum Moment {
    /// The vehicle said that it is ready, and was told to begin.
    Go(Go),
    /// It was over, for good or until something else was learnt.
    Ended(Ended),
}

/// A moment with its time.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: UnixMillis,
    pub(crate) moment: Moment,
}

/// Keeps a moment of an update.
pub(crate) fn keep(tx: &Tx<'_>, update_id: &str, moment: &Moment, now: UnixMillis) -> Result<(), StoreError> {
    let (kind, content) = match moment {
        Moment::Go(go) => ("go", stored_json(go)?),
        Moment::Ended(ended) => ("ended", stored_json(ended)?),
    };
    tx.exec(
        "INSERT INTO evidence_event (id, vehicle_update_id, kind, at, content) VALUES ($1, $2, $3, $4, $5)",
        &[(&super::new_id()).into(), update_id.into(), kind.into(), now.into(), (&content).into()],
    )?;
    Ok(())
}

/// The moments of an update, oldest first.
pub(crate) fn of_update(tx: &Tx<'_>, update_id: &str) -> Result<Vec<Event>, StoreError> {
    tx.rows(
        "SELECT kind, at, content FROM evidence_event WHERE vehicle_update_id = $1 ORDER BY at, id",
        &[update_id.into()],
        |row| {
            let kind = row.text(0)?;
            let moment = match kind.as_str() {
                "go" => Moment::Go(row.json(2, "what was known when an update began")?),
                "ended" => Moment::Ended(row.json(2, "what was known when an update ended")?),
                _ => return Err(StoreError::Damaged { expected: "go or ended", found: kind }),
            };
            Ok(Event { at: row.time(1)?, moment })
        },
    )
}

/// The commands of an update and their answers that are still there, oldest first.
pub(crate) fn exchanged(tx: &Tx<'_>, update: &VehicleUpdate) -> Result<Vec<Exchanged>, StoreError> {
    let (vehicle_id, update_id) = (update.vehicle_id.as_str(), &update.id);
    let mut exchanged = tx.rows(
        "SELECT msg_id, message_type, queued_at, delivered_at FROM command \
         WHERE vehicle_id = $1 AND vehicle_update_id = $2 AND queued_at >= $3 ORDER BY queued_at, msg_id LIMIT $4",
        &[vehicle_id.into(), update_id.into(), update.created_at.into(), MOST_EXCHANGED.into()],
        |row| {
            Ok(Exchanged {
                at_ms: row.time(2)?,
                sent_by: "server".to_owned(),
                message: row.text(1)?,
                msg_id: row.text(0)?,
                delivered_at_ms: row.optional_time(3)?,
                answers: None,
                content_sha256: None,
                note: None,
                content: None,
            })
        },
    )?;
    // In an order that no index has: the database shall go by the vehicle, not through the messages of all by their time.
    let answers = tx.rows(
        "SELECT m.msg_id, m.message_type, m.received_at, m.correlation_id, m.content_sha256, m.note, m.payload \
         FROM inbound_message m JOIN command c ON c.msg_id = m.correlation_id \
         WHERE m.vehicle_id = $1 AND c.vehicle_id = $1 AND c.vehicle_update_id = $2 \
         ORDER BY m.received_at + 0, m.msg_id LIMIT $3",
        &[vehicle_id.into(), update_id.into(), MOST_EXCHANGED.into()],
        answer,
    )?;
    exchanged.extend(answers);
    exchanged.sort_by(|one, other| (one.at_ms.0, &one.sent_by).cmp(&(other.at_ms.0, &other.sent_by)));
    Ok(exchanged)
}

fn answer(row: &Row<'_>) -> Result<Exchanged, StoreError> {
    let message = row.text(1)?;
    // What a vehicle runs is told by its configurations.
    let is_kept = message != "SendVCI";
    let payload = row.optional_text(6)?.filter(|payload| is_kept && payload.len() <= MOST_KEPT_OCTETS);
    Ok(Exchanged {
        at_ms: row.time(2)?,
        sent_by: "vehicle".to_owned(),
        message,
        msg_id: row.text(0)?,
        answers: row.optional_text(3)?,
        content_sha256: row.optional_parsed(4, "a digest")?,
        note: row.optional_text(5)?,
        content: payload.and_then(|payload| serde_json::from_str(&payload).ok()),
        delivered_at_ms: None,
    })
}

/// Keeps what is stated of a campaign, once.
pub(crate) fn state(tx: &Tx<'_>, campaign: &Text, statement: &Statement) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO campaign_statement (campaign_name, statement) VALUES ($1, $2)",
        &[campaign.as_str().into(), (&stored_json(statement)?).into()],
    )?;
    Ok(())
}

/// What was stated of a campaign.
pub(crate) fn statement(tx: &Tx<'_>, campaign: &Text) -> Result<Option<Statement>, StoreError> {
    let sql = "SELECT statement FROM campaign_statement WHERE campaign_name = $1";
    tx.row(sql, &[campaign.as_str().into()], |row| row.json(0, "what is stated of a campaign"))
}

/// One revision of the register of a vehicle type and RXSWIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revision {
    pub(crate) vehicle_type: VehicleType,
    pub(crate) rxswin: Text,
    /// From 1.
    pub(crate) revision: u64,
    pub(crate) content: RevisionContent,
    pub(crate) recorded_at: UnixMillis,
    /// As the audit log names them.
    pub(crate) recorded_by: String,
}

/// What is registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevisionContent {
    pub(crate) software: Vec<RegisteredSoftware>,
    pub(crate) approval: Option<Text>,
    pub(crate) note: Option<Text>,
}

macro_rules! select_revision {
    ($rest:literal) => {
        concat!(
            "SELECT vehicle_type, rxswin, revision, content, recorded_at, recorded_by FROM rxswin_revision ",
            $rest
        )
    };
}

fn read_revision(row: &Row<'_>) -> Result<Revision, StoreError> {
    Ok(Revision {
        vehicle_type: row.parsed(0, "a vehicle type")?,
        rxswin: row.parsed(1, "an RXSWIN")?,
        revision: row.count(2)?,
        content: row.json(3, "the software of an RXSWIN")?,
        recorded_at: row.time(4)?,
        recorded_by: row.text(5)?,
    })
}

/// Adds a revision to the register.
pub(crate) fn register(tx: &Tx<'_>, revision: &Revision) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO rxswin_revision (vehicle_type, rxswin, revision, content, recorded_at, recorded_by) \
         VALUES ($1, $2, $3, $4, $5, $6)",
        &[
            revision.vehicle_type.as_str().into(),
            revision.rxswin.as_str().into(),
            i64::try_from(revision.revision).unwrap_or(i64::MAX).into(),
            (&stored_json(&revision.content)?).into(),
            revision.recorded_at.into(),
            (&revision.recorded_by).into(),
        ],
    )?;
    Ok(())
}

/// The newest revision that was recorded up to a time.
pub(crate) fn revision_at(
    tx: &Tx<'_>,
    vehicle_type: &VehicleType,
    rxswin: &Text,
    at: UnixMillis,
) -> Result<Option<Revision>, StoreError> {
    tx.row(
        select_revision!(
            "WHERE vehicle_type = $1 AND rxswin = $2 AND recorded_at <= $3 ORDER BY revision DESC LIMIT 1"
        ),
        &[vehicle_type.as_str().into(), rxswin.as_str().into(), at.into()],
        read_revision,
    )
}

/// Where a revision stands in the register: vehicle type, RXSWIN, revision.
pub(crate) type RevisionPlace = (String, String, i64);

/// The revisions after a place, in their order.
pub(crate) fn revisions(tx: &Tx<'_>, after: &RevisionPlace, limit: u32) -> Result<Vec<Revision>, StoreError> {
    tx.rows(
        select_revision!(
            "WHERE vehicle_type > $1 OR (vehicle_type = $1 AND (rxswin > $2 OR (rxswin = $2 AND revision > $3))) \
             ORDER BY vehicle_type, rxswin, revision LIMIT $4"
        ),
        &[(&after.0).into(), (&after.1).into(), after.2.into(), i64::from(limit).into()],
        read_revision,
    )
}

/// The revisions of one RXSWIN for all vehicle types after a place that were recorded up to a time, in their order.
pub(crate) fn revisions_of(
    tx: &Tx<'_>,
    rxswin: &Text,
    after: &(String, i64),
    until: UnixMillis,
    limit: u32,
) -> Result<Vec<Revision>, StoreError> {
    tx.rows(
        select_revision!(
            "WHERE rxswin = $1 AND recorded_at <= $5 AND (vehicle_type > $2 OR (vehicle_type = $2 AND revision > $3)) \
             ORDER BY vehicle_type, revision LIMIT $4"
        ),
        &[rxswin.as_str().into(), (&after.0).into(), after.1.into(), i64::from(limit).into(), until.into()],
        read_revision,
    )
}

/// The vehicle types with this RXSWIN, in their order.
pub(crate) fn types_with(tx: &Tx<'_>, rxswin: &Text, limit: u32) -> Result<Vec<VehicleType>, StoreError> {
    tx.rows(
        "SELECT DISTINCT vehicle_type FROM rxswin_revision WHERE rxswin = $1 ORDER BY vehicle_type LIMIT $2",
        &[rxswin.as_str().into(), i64::from(limit).into()],
        |row| row.parsed(0, "a vehicle type"),
    )
}

/// The number of the first entry of the audit log about an object, up to an entry.
pub(crate) fn first_audited(tx: &Tx<'_>, object: &str, up_to: u64) -> Result<Option<u64>, StoreError> {
    tx.row(
        "SELECT seq FROM audit_entry WHERE object = $1 AND seq <= $2 ORDER BY seq LIMIT 1",
        &[object.into(), i64::try_from(up_to).unwrap_or(i64::MAX).into()],
        |row| row.count(0),
    )
}
