//! The outbox: every command to a vehicle, from before it is sent until its answer can no longer come.

use farrier_protocol::{Binding, MessageType, MsgId, ServerMessage, UnixMillis, VehicleId};

use super::vehicles::binding;
use super::{StoreError, Tx};

/// A command that is put into the outbox.
pub(crate) struct NewCommand<'a> {
    pub(crate) message: &'a ServerMessage,
    /// The vehicle update that an answer belongs to.
    pub(crate) update_id: Option<&'a str>,
    /// Which try this is, for questions outside a vehicle update.
    pub(crate) try_number: u64,
    /// Not before.
    pub(crate) send_at: UnixMillis,
    pub(crate) expires_at: UnixMillis,
}

/// A command that an answer names.
#[derive(Debug, Clone)]
pub(crate) struct SentCommand {
    pub(crate) message: ServerMessage,
    pub(crate) update_id: Option<String>,
    pub(crate) try_number: u64,
    pub(crate) send_at: UnixMillis,
    pub(crate) expires_at: UnixMillis,
    pub(crate) is_closed: bool,
}

/// A command that is due to go out.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) msg_id: MsgId,
    pub(crate) payload: String,
    pub(crate) expires_at: UnixMillis,
}

/// Queues a command; the vehicle's connection is woken once it is durable.
pub(crate) fn queue(tx: &Tx<'_>, command: &NewCommand<'_>, now: UnixMillis) -> Result<(), StoreError> {
    let message = command.message;
    let payload = String::from_utf8_lossy(&message.to_json()).into_owned();
    tx.exec(
        "INSERT INTO command (msg_id, vehicle_id, gateway_id, message_type, payload, vehicle_update_id, try_number, \
         queued_at, send_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            message.msg_id.as_str().into(),
            message.vehicle_id.as_str().into(),
            message.gateway_id.as_str().into(),
            message.message_type().name().into(),
            (&payload).into(),
            command.update_id.into(),
            i64::try_from(command.try_number).unwrap_or(i64::MAX).into(),
            now.into(),
            command.send_at.into(),
            command.expires_at.into(),
        ],
    )?;
    if command.send_at <= now {
        tx.wake(&message.binding());
    } else {
        tx.due_changed();
    }
    Ok(())
}

/// The command that was sent to this binding under this id.
pub(crate) fn sent(
    tx: &Tx<'_>,
    binding: &Binding,
    msg_id: &MsgId,
) -> Result<Option<SentCommand>, StoreError> {
    tx.row(
        "SELECT payload, vehicle_update_id, try_number, send_at, expires_at, closed_at FROM command \
         WHERE msg_id = $1 AND vehicle_id = $2 AND gateway_id = $3",
        &[msg_id.as_str().into(), binding.vehicle_id.as_str().into(), binding.gateway_id.as_str().into()],
        |row| {
            let payload = row.text(0)?;
            let message = ServerMessage::parse(payload.as_bytes())
                .map_err(|_| StoreError::Damaged { expected: "a command", found: payload })?;
            Ok(SentCommand {
                message,
                update_id: row.optional_text(1)?,
                try_number: row.count(2)?,
                send_at: row.time(3)?,
                expires_at: row.time(4)?,
                is_closed: row.optional_integer(5)?.is_some(),
            })
        },
    )
}

/// What is to be sent to a vehicle now, oldest first. One in quarantine gets no update command (protocol.md §4.1).
pub(crate) fn pending(
    tx: &Tx<'_>,
    binding: &Binding,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<Pending>, StoreError> {
    tx.rows(
        "SELECT msg_id, payload, expires_at FROM command \
         WHERE vehicle_id = $1 AND gateway_id = $2 AND delivered_at IS NULL AND closed_at IS NULL \
         AND send_at <= $3 AND expires_at > $3 \
         AND (message_type NOT IN ('RequestDownloadReadiness', 'StartDownload', 'StartRollback') OR NOT EXISTS \
          (SELECT 1 FROM vehicle v WHERE v.vehicle_id = $1 AND v.quarantined_at IS NOT NULL)) ORDER BY send_at, msg_id LIMIT $4",
        &[
            binding.vehicle_id.as_str().into(),
            binding.gateway_id.as_str().into(),
            now.into(),
            i64::try_from(limit).unwrap_or(i64::MAX).into(),
        ],
        |row| {
            let msg_id = row.parsed(0, "a message id")?;
            Ok(Pending { msg_id, payload: row.text(1)?, expires_at: row.time(2)? })
        },
    )
}

/// The same for one server that hands them to a broker: until `until` the others leave them to it.
pub(crate) fn take_pending(
    tx: &Tx<'_>,
    binding: &Binding,
    now: UnixMillis,
    until: UnixMillis,
    limit: usize,
) -> Result<Vec<Pending>, StoreError> {
    let pending = pending(tx, binding, now, limit)?;
    let mut taken = Vec::with_capacity(pending.len());
    for command in pending {
        let sql = "UPDATE command SET taken_until = $2 WHERE msg_id = $1 AND (taken_until IS NULL OR taken_until <= $3)";
        if tx.exec(sql, &[command.msg_id.as_str().into(), until.into(), now.into()])? > 0 {
            taken.push(command);
        }
    }
    Ok(taken)
}

/// Vehicles that are there according to the broker, for whom a command became due after one time and up to another
/// that no server has handed over, nor is about to; in the order of their ids, after one of them.
pub(crate) fn owed(
    tx: &Tx<'_>,
    due: (UnixMillis, UnixMillis),
    now: UnixMillis,
    after: &str,
    limit: usize,
) -> Result<Vec<Binding>, StoreError> {
    tx.rows(
        "SELECT DISTINCT v.vehicle_id, v.gateway_id FROM command c \
         JOIN vehicle v ON v.vehicle_id = c.vehicle_id AND v.gateway_id = c.gateway_id \
         WHERE c.send_at > $1 AND c.send_at <= $2 AND c.delivered_at IS NULL AND c.closed_at IS NULL \
         AND c.expires_at > $3 AND (c.taken_until IS NULL OR c.taken_until <= $3) \
         AND v.there_since IS NOT NULL AND v.vehicle_id > $4 ORDER BY v.vehicle_id LIMIT $5",
        &[
            due.0.into(),
            due.1.into(),
            now.into(),
            after.into(),
            i64::try_from(limit).unwrap_or(i64::MAX).into(),
        ],
        |row| binding(row, 0),
    )
}

/// What the vehicle was sent and has not answered is to go out again.
pub(crate) fn send_again(tx: &Tx<'_>, binding: &Binding, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE command SET delivered_at = NULL, taken_until = NULL \
         WHERE vehicle_id = $1 AND gateway_id = $2 AND closed_at IS NULL AND expires_at > $3 \
         AND (delivered_at IS NOT NULL OR taken_until IS NOT NULL)",
        &[binding.vehicle_id.as_str().into(), binding.gateway_id.as_str().into(), now.into()],
    )?;
    Ok(())
}

/// The vehicle has acknowledged the command.
pub(crate) fn delivered(
    tx: &Tx<'_>,
    binding: &Binding,
    msg_id: &MsgId,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE command SET delivered_at = $4 \
         WHERE msg_id = $1 AND vehicle_id = $2 AND gateway_id = $3 AND delivered_at IS NULL",
        &[
            msg_id.as_str().into(),
            binding.vehicle_id.as_str().into(),
            binding.gateway_id.as_str().into(),
            now.into(),
        ],
    )?;
    Ok(())
}

/// No further answer to this command is taken.
pub(crate) fn close(tx: &Tx<'_>, msg_id: &MsgId, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE command SET closed_at = $2 WHERE msg_id = $1 AND closed_at IS NULL",
        &[msg_id.as_str().into(), now.into()],
    )?;
    Ok(())
}

/// Closes what a vehicle update has asked of this type and what has not expired: an expired command stays
/// as it is, so that a late answer is told so.
pub(crate) fn close_of_update(
    tx: &Tx<'_>,
    update_id: &str,
    message_type: MessageType,
    now: UnixMillis,
) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE command SET closed_at = $3 WHERE vehicle_update_id = $1 AND message_type = $2 \
         AND closed_at IS NULL AND expires_at > $3",
        &[update_id.into(), message_type.name().into(), now.into()],
    )?;
    Ok(())
}

/// Closes whatever a gateway has been asked and has not answered: nobody else can.
pub(crate) fn close_of_binding(tx: &Tx<'_>, binding: &Binding, now: UnixMillis) -> Result<(), StoreError> {
    tx.exec(
        "UPDATE command SET closed_at = $3 WHERE vehicle_id = $1 AND gateway_id = $2 AND closed_at IS NULL",
        &[binding.vehicle_id.as_str().into(), binding.gateway_id.as_str().into(), now.into()],
    )?;
    Ok(())
}

/// Whether an answer of this type is still expected from the vehicle.
pub(crate) fn is_open(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    message_type: MessageType,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let open = tx.row(
        "SELECT 1 FROM command WHERE vehicle_id = $1 AND message_type = $2 AND closed_at IS NULL \
         AND expires_at > $3 LIMIT 1",
        &[vehicle_id.as_str().into(), message_type.name().into(), now.into()],
        |row| row.integer(0),
    )?;
    Ok(open.is_some())
}

/// Vehicles for which a command became due after one time and up to another.
pub(crate) fn scheduled(
    tx: &Tx<'_>,
    after: UnixMillis,
    until: UnixMillis,
) -> Result<Vec<Binding>, StoreError> {
    tx.rows(
        "SELECT vehicle_id, gateway_id FROM command \
         WHERE send_at > $1 AND send_at <= $2 AND delivered_at IS NULL AND closed_at IS NULL",
        &[after.into(), until.into()],
        |row| binding(row, 0),
    )
}

/// When the next command becomes due after a time.
pub(crate) fn next_scheduled(tx: &Tx<'_>, after: UnixMillis) -> Result<Option<UnixMillis>, StoreError> {
    let sql = "SELECT send_at FROM command WHERE send_at > $1 AND delivered_at IS NULL AND closed_at IS NULL \
               ORDER BY send_at LIMIT 1";
    tx.row(sql, &[after.into()], |row| row.time(0))
}

/// Forgets commands that expired before `before`; at most 1,000 at a time.
pub(crate) fn forget_expired(tx: &Tx<'_>, before: UnixMillis) -> Result<usize, StoreError> {
    tx.exec(
        "DELETE FROM command WHERE msg_id IN \
         (SELECT msg_id FROM command WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000)",
        &[before.into()],
    )
}
