//! What a message is judged by before anything follows from it: its sender, and what there is of it. Read by one statement,
//! since most messages change little.

use farrier_protocol::{Binding, MsgId, Sha256};

use super::vehicles::{self, Vehicle, vehicle_columns};
use super::{Row, StoreError, Tx};

/// The vehicle that a message says it is of.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) vehicle: Vehicle,
    /// The digest of the content that came under the message's id before.
    pub(crate) content_before: Option<Sha256>,
    /// Whether it has updates that its WakeUp concerns.
    pub(crate) has_open_updates: bool,
    /// Whether there is a running campaign for every vehicle that does not have it.
    pub(crate) is_wanted: bool,
}

/// The sender of a message, if it is enrolled.
pub(crate) fn of_message(
    tx: &Tx<'_>,
    binding: &Binding,
    msg_id: Option<&MsgId>,
) -> Result<Option<Sender>, StoreError> {
    let is_there = |row: &Row<'_>, column| Ok::<_, StoreError>(row.optional_integer(column)?.is_some());
    tx.row(
        concat!(
            "SELECT ",
            vehicle_columns!(),
            ", (SELECT m.content_sha256 FROM inbound_message m \
             WHERE m.vehicle_id = $1 AND m.gateway_id = $2 AND m.msg_id = $3), \
             (SELECT CAST(1 AS BIGINT) FROM vehicle_update u \
             WHERE u.vehicle_id = $1 AND (u.phase IN ('waiting', 'active') OR u.state = 'unknown') LIMIT 1), \
             (SELECT CAST(1 AS BIGINT) FROM campaign c \
             WHERE c.every_vehicle = 1 AND c.started_at IS NOT NULL AND c.aborted_at IS NULL AND NOT EXISTS \
             (SELECT 1 FROM vehicle_update u WHERE u.campaign_name = c.name AND u.vehicle_id = $1) LIMIT 1) \
             FROM vehicle WHERE vehicle_id = $1"
        ),
        &[
            binding.vehicle_id.as_str().into(),
            binding.gateway_id.as_str().into(),
            msg_id.map(MsgId::as_str).into(),
        ],
        |row| {
            Ok(Sender {
                vehicle: vehicles::read(row)?,
                content_before: row.optional_parsed(22, "a digest")?,
                has_open_updates: is_there(row, 23)?,
                is_wanted: is_there(row, 24)?,
            })
        },
    )
}
