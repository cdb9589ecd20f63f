//! What vehicles sent: accepted messages (to know duplicates), refused ones with their reason.

use farrier_protocol::{
    Binding, MessageType, MsgId, Refusal, RefusalCode, Sha256, UnixMillis, VehicleId, VehicleMessage,
};

use super::vehicles::binding;
use super::{Row, StoreError, Tx};

/// Octets of a refused message that are kept for people.
const KEPT_PAYLOAD: usize = 16 * 1024;
/// Octets of an accepted message that are kept for people.
const KEPT_ACCEPTED_PAYLOAD: usize = 4 * 1024;

/// How an accepted message came.
pub(crate) struct Seen<'a> {
    /// The digest of its content, as text.
    pub(crate) content: &'a str,
    pub(crate) size_bytes: usize,
    /// As much of it as is kept.
    pub(crate) kept: &'a str,
    pub(crate) now: UnixMillis,
    /// By how much the vehicle's clock is behind the server's.
    pub(crate) behind_ms: i64,
    /// What is worth knowing.
    pub(crate) note: Option<&'a str>,
}

/// As much of a message as is kept, as text that any database takes.
fn beginning(payload: &[u8], octets: usize) -> String {
    let kept = payload.get(..octets).unwrap_or(payload);
    match std::str::from_utf8(kept) {
        Ok(text) if !text.contains('\0') => text.to_owned(),
        Ok(_) | Err(_) => String::from_utf8_lossy(kept).replace('\0', "\u{fffd}"),
    }
}

/// What is kept for people of a message that is accepted.
pub(crate) fn kept_of(payload: &[u8]) -> String {
    beginning(payload, KEPT_ACCEPTED_PAYLOAD)
}

/// Remembers an accepted message.
pub(crate) fn record_accepted(
    tx: &Tx<'_>,
    message: &VehicleMessage,
    seen: &Seen<'_>,
) -> Result<(), StoreError> {
    tx.exec(
        "INSERT INTO inbound_message (vehicle_id, gateway_id, msg_id, content_sha256, message_type, correlation_id, \
         received_at, note, size_bytes, clock_skew_ms, payload) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            message.vehicle_id.as_str().into(),
            message.gateway_id.as_str().into(),
            message.msg_id.as_str().into(),
            seen.content.into(),
            message.message_type().name().into(),
            message.correlation_id().map(MsgId::as_str).into(),
            seen.now.into(),
            seen.note.into(),
            i64::try_from(seen.size_bytes).unwrap_or(i64::MAX).into(),
            seen.behind_ms.into(),
            seen.kept.into(),
        ],
    )?;
    Ok(())
}

/// The newest message of a type that a vehicle sent: when it came, and what of it was kept.
pub(crate) fn newest(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    message_type: MessageType,
) -> Result<Option<(UnixMillis, String)>, StoreError> {
    let found = tx.row(
        "SELECT received_at, payload FROM inbound_message WHERE vehicle_id = $1 AND message_type = $2 \
         ORDER BY received_at DESC LIMIT 1",
        &[vehicle_id.as_str().into(), message_type.name().into()],
        |row| Ok((row.time(0)?, row.optional_text(1)?)),
    )?;
    Ok(found.and_then(|(at, payload)| Some((at, payload?))))
}

/// Forgets messages that came before `before`, unless their command is still open; at most 1,000 at a time.
pub(crate) fn forget_accepted(tx: &Tx<'_>, before: UnixMillis, now: UnixMillis) -> Result<usize, StoreError> {
    tx.exec(
        "DELETE FROM inbound_message WHERE (vehicle_id, gateway_id, msg_id) IN \
         (SELECT vehicle_id, gateway_id, msg_id FROM inbound_message m WHERE received_at < $1 AND NOT EXISTS \
          (SELECT 1 FROM command c WHERE c.msg_id = m.correlation_id AND c.closed_at IS NULL AND c.expires_at > $2) \
          ORDER BY received_at LIMIT 1000)",
        &[before.into(), now.into()],
    )
}

/// A message that was refused, with its reason.
#[derive(Debug, Clone)]
pub(crate) struct RefusedMessage {
    pub(crate) id: String,
    pub(crate) binding: Binding,
    pub(crate) topic: String,
    pub(crate) refusal: Refusal,
    pub(crate) msg_id: Option<String>,
    pub(crate) payload: String,
    pub(crate) first_at: UnixMillis,
    pub(crate) last_at: UnixMillis,
    pub(crate) times: u64,
}

/// What is known of a message that is being refused.
pub(crate) struct Refused<'a> {
    pub(crate) binding: &'a Binding,
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) refusal: &'a Refusal,
    pub(crate) msg_id: Option<&'a MsgId>,
}

/// Stores a refused message, or counts it where the same came before; says whether it is new.
pub(crate) fn record_refused(
    tx: &Tx<'_>,
    refused: &Refused<'_>,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let digest = Sha256::of(refused.payload).to_string();
    let key = [
        refused.binding.vehicle_id.as_str().into(),
        refused.binding.gateway_id.as_str().into(),
        refused.topic.into(),
        (&digest).into(),
        refused.refusal.code.name().into(),
        now.into(),
    ];
    let counted = tx.exec(
        "UPDATE refused_message SET last_at = $6, times = times + 1 \
         WHERE vehicle_id = $1 AND gateway_id = $2 AND topic = $3 AND payload_sha256 = $4 AND code = $5",
        &key,
    )?;
    if counted > 0 {
        return Ok(false);
    }
    let [vehicle_id, gateway_id, topic, digest, code, at] = key;
    tx.exec(
        "INSERT INTO refused_message (id, vehicle_id, gateway_id, topic, payload_sha256, code, first_at, last_at, \
         pointer, expected, found, msg_id, payload, times) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $11, $12, 1)",
        &[
            (&super::new_id()).into(),
            vehicle_id,
            gateway_id,
            topic,
            digest,
            code,
            at,
            (&refused.refusal.pointer).into(),
            (&refused.refusal.expected).into(),
            (&refused.refusal.found).into(),
            refused.msg_id.map(MsgId::as_str).into(),
            (&beginning(refused.payload, KEPT_PAYLOAD)).into(),
        ],
    )?;
    Ok(true)
}

macro_rules! select_refused {
    ($rest:literal) => {
        concat!(
            "SELECT vehicle_id, gateway_id, topic, code, pointer, expected, found, msg_id, payload, first_at, \
             last_at, times, id FROM refused_message ",
            $rest
        )
    };
}

fn read_refused(row: &Row<'_>) -> Result<RefusedMessage, StoreError> {
    let code: RefusalCode = row.parsed(3, "a refusal code")?;
    Ok(RefusedMessage {
        id: row.text(12)?,
        binding: binding(row, 0)?,
        topic: row.text(2)?,
        refusal: Refusal::new(code, row.text(4)?, row.text(5)?, row.text(6)?),
        msg_id: row.optional_text(7)?,
        payload: row.text(8)?,
        first_at: row.time(9)?,
        last_at: row.time(10)?,
        times: row.count(11)?,
    })
}

/// The newest refused messages before a place in the list.
pub(crate) fn refused(
    tx: &Tx<'_>,
    before: &(UnixMillis, String),
    limit: u32,
) -> Result<Vec<RefusedMessage>, StoreError> {
    tx.rows(
        select_refused!(
            "WHERE last_at < $1 OR (last_at = $1 AND id < $2) ORDER BY last_at DESC, id DESC LIMIT $3"
        ),
        &[before.0.into(), (&before.1).into(), i64::from(limit).into()],
        read_refused,
    )
}

/// The newest refused messages with a code, of a vehicle, or both, before a place in the list.
pub(crate) fn refused_with(
    tx: &Tx<'_>,
    code: Option<RefusalCode>,
    vehicle_id: Option<&VehicleId>,
    before: &(UnixMillis, String),
    limit: u32,
) -> Result<Vec<RefusedMessage>, StoreError> {
    let place = [before.0.into(), (&before.1).into(), i64::from(limit).into()];
    match (code.map(RefusalCode::name), vehicle_id.map(VehicleId::as_str)) {
        (None, None) => refused(tx, before, limit),
        (Some(code), None) => tx.rows(
            select_refused!(
                "WHERE code = $4 AND last_at <= $1 AND (last_at < $1 OR id < $2) \
                 ORDER BY last_at DESC, id DESC LIMIT $3"
            ),
            &[place.as_slice(), &[code.into()]].concat(),
            read_refused,
        ),
        (None, Some(vehicle_id)) => tx.rows(
            select_refused!(
                "WHERE vehicle_id = $4 AND last_at <= $1 AND (last_at < $1 OR id < $2) \
                 ORDER BY last_at DESC, id DESC LIMIT $3"
            ),
            &[place.as_slice(), &[vehicle_id.into()]].concat(),
            read_refused,
        ),
        (Some(code), Some(vehicle_id)) => tx.rows(
            select_refused!(
                "WHERE vehicle_id = $4 AND code = $5 AND last_at <= $1 AND (last_at < $1 OR id < $2) \
                 ORDER BY last_at DESC, id DESC LIMIT $3"
            ),
            &[place.as_slice(), &[vehicle_id.into(), code.into()]].concat(),
            read_refused,
        ),
    }
}

/// The newest refused messages of one vehicle.
pub(crate) fn refused_of(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    limit: u32,
) -> Result<Vec<RefusedMessage>, StoreError> {
    tx.rows(
        select_refused!("WHERE vehicle_id = $1 ORDER BY last_at DESC, id DESC LIMIT $2"),
        &[vehicle_id.as_str().into(), i64::from(limit).into()],
        read_refused,
    )
}
