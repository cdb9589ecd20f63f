//! Everything that passed between the server and one vehicle, in one order: when it connected and went, what came, what was
//! refused, what was sent and acknowledged, what its updates did, what was suspicious.

use farrier_protocol::{UnixMillis, VehicleId};
use serde::{Deserialize, Serialize};

use super::{Row, StoreError, Tx};

/// A place in a vehicle's time line: the time, the source, and the id within the source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place(pub(crate) UnixMillis, pub(crate) i64, pub(crate) String);

impl Place {
    /// Before everything.
    pub(crate) fn beginning() -> Self {
        Self(UnixMillis(i64::MIN), 0, String::new())
    }

    /// After everything.
    pub(crate) fn end() -> Self {
        Self(UnixMillis(i64::MAX), i64::MAX, String::new())
    }
}

/// What an entry of the time line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message of the vehicle that was taken.
    Received,
    /// A message of the vehicle that was refused.
    Refused,
    /// A command that was put into the outbox.
    Command,
    /// A command that the vehicle has acknowledged.
    Acknowledged,
    /// A step of one of its updates.
    Step,
    SecurityEvent,
    /// It connected.
    Connected,
    /// Its connection ended.
    Disconnected,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Received,
        Self::Refused,
        Self::Command,
        Self::Acknowledged,
        Self::Step,
        Self::SecurityEvent,
        Self::Connected,
        Self::Disconnected,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Refused => "refused",
            Self::Command => "command",
            Self::Acknowledged => "acknowledged",
            Self::Step => "step",
            Self::SecurityEvent => "security_event",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())
    }
}

/// One entry; what its kind does not have is absent.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
    /// Of a message: its type; of a refused one the topic.
    pub(crate) message: Option<String>,
    pub(crate) msg_id: Option<String>,
    pub(crate) correlation_id: Option<String>,
    /// A refusal's code, a security event's kind, or why a connection ended.
    pub(crate) code: Option<String>,
    /// What is worth knowing, in words.
    pub(crate) detail: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) clock_skew_ms: Option<i64>,
    /// How often, where it came more than once.
    pub(crate) times: Option<u64>,
    /// When a command expires.
    pub(crate) expires_at: Option<UnixMillis>,
    pub(crate) campaign: Option<String>,
    pub(crate) from_state: Option<String>,
    pub(crate) to_state: Option<String>,
    /// The beginning of the message.
    pub(crate) payload: Option<String>,
}

/// The client ids that a vehicle has and had (protocol.md §2).
macro_rules! of_its_clients {
    () => {
        "(SELECT client_id FROM vehicle WHERE vehicle_id = $1 \
         UNION ALL SELECT vehicle_id || '_' || gateway_id FROM vehicle_binding WHERE vehicle_id = $1)"
    };
}

/// All sources in one; the columns are those of [`read`].
macro_rules! timeline {
    ($rest:literal) => {
        concat!(
            "SELECT at, source, id, kind, message, msg_id, correlation_id, code, detail, size_bytes, clock_skew_ms, \
             times, expires_at, campaign, from_state, to_state, payload FROM (\
             SELECT received_at AS at, CAST(1 AS BIGINT) AS source, msg_id AS id, 'received' AS kind, \
             message_type AS message, msg_id, correlation_id, CAST(NULL AS TEXT) AS code, note AS detail, size_bytes, \
             clock_skew_ms, CAST(NULL AS BIGINT) AS times, CAST(NULL AS BIGINT) AS expires_at, \
             CAST(NULL AS TEXT) AS campaign, CAST(NULL AS TEXT) AS from_state, CAST(NULL AS TEXT) AS to_state, payload \
             FROM inbound_message WHERE vehicle_id = $1 \
             UNION ALL SELECT last_at, CAST(2 AS BIGINT), id, 'refused', topic, msg_id, NULL, code, \
             pointer || ': expected ' || expected || ', found ' || found, NULL, NULL, times, NULL, NULL, NULL, NULL, \
             payload FROM refused_message WHERE vehicle_id = $1 \
             UNION ALL SELECT queued_at, CAST(3 AS BIGINT), msg_id, 'command', message_type, msg_id, NULL, NULL, NULL, \
             NULL, NULL, NULL, expires_at, NULL, NULL, NULL, payload FROM command WHERE vehicle_id = $1 \
             UNION ALL SELECT delivered_at, CAST(4 AS BIGINT), msg_id, 'acknowledged', message_type, msg_id, NULL, NULL, \
             NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL \
             FROM command WHERE vehicle_id = $1 AND delivered_at IS NOT NULL \
             UNION ALL SELECT s.at, CAST(5 AS BIGINT), s.id, 'step', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
             NULL, u.campaign_name, s.from_state, s.to_state, NULL \
             FROM vehicle_update u JOIN vehicle_update_step s ON s.vehicle_update_id = u.id WHERE u.vehicle_id = $1 \
             UNION ALL SELECT last_at, CAST(6 AS BIGINT), id, 'security_event', NULL, NULL, NULL, kind, detail, NULL, \
             NULL, times, NULL, NULL, NULL, NULL, NULL FROM security_event WHERE vehicle_id = $1 \
             UNION ALL SELECT came_at, CAST(0 AS BIGINT), id, 'connected', NULL, NULL, NULL, NULL, NULL, NULL, \
             NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM vehicle_session WHERE client_id IN ",
            of_its_clients!(),
            " UNION ALL SELECT gone_at, CAST(7 AS BIGINT), id, 'disconnected', NULL, NULL, NULL, why, detail, NULL, \
             NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM vehicle_session WHERE gone_at IS NOT NULL AND client_id IN ",
            of_its_clients!(),
            ") AS entry ",
            $rest
        )
    };
}

fn read(row: &Row<'_>) -> Result<Entry, StoreError> {
    let count = |column| Ok::<_, StoreError>(row.optional_integer(column)?.map(|n| n.max(0).unsigned_abs()));
    Ok(Entry {
        place: Place(row.time(0)?, row.integer(1)?, row.text(2)?),
        kind: row.parsed(3, "a kind of entry")?,
        message: row.optional_text(4)?,
        msg_id: row.optional_text(5)?,
        correlation_id: row.optional_text(6)?,
        code: row.optional_text(7)?,
        detail: row.optional_text(8)?,
        size_bytes: count(9)?,
        clock_skew_ms: row.optional_integer(10)?,
        times: count(11)?,
        expires_at: row.optional_time(12)?,
        campaign: row.optional_text(13)?,
        from_state: row.optional_text(14)?,
        to_state: row.optional_text(15)?,
        payload: row.optional_text(16)?,
    })
}

/// The entries after a place and not after a time, oldest first.
pub(crate) fn after(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    place: &Place,
    until: UnixMillis,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    tx.rows(
        timeline!(
            "WHERE at <= $5 AND (at > $2 OR (at = $2 AND (source > $3 OR (source = $3 AND id > $4)))) \
             ORDER BY at, source, id LIMIT $6"
        ),
        &[
            vehicle_id.as_str().into(),
            place.0.into(),
            place.1.into(),
            (&place.2).into(),
            until.into(),
            i64::from(limit).into(),
        ],
        read,
    )
}

/// The entries before a place, newest first.
pub(crate) fn before(
    tx: &Tx<'_>,
    vehicle_id: &VehicleId,
    place: &Place,
    limit: u32,
) -> Result<Vec<Entry>, StoreError> {
    tx.rows(
        timeline!(
            "WHERE at < $2 OR (at = $2 AND (source < $3 OR (source = $3 AND id < $4))) \
             ORDER BY at DESC, source DESC, id DESC LIMIT $5"
        ),
        &[
            vehicle_id.as_str().into(),
            place.0.into(),
            place.1.into(),
            (&place.2).into(),
            i64::from(limit).into(),
        ],
        read,
    )
}
