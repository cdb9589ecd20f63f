//! How much SQLite can commit a second on this disk, many messages to a commit: no server that stores a row for each
//! message on it can take in more.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

/// The most messages to a commit, as the server's own store has it.
const MOST_TO_A_COMMIT: usize = 1024;

/// What is stored for one exchange at the least.
#[derive(Debug, Clone, Copy)]
pub(super) struct LimitShape {
    /// Messages, each a row in a savepoint of its own.
    pub(super) messages: usize,
    /// Octets of an inventory that takes the place of the vehicle's earlier one.
    pub(super) inventory_octets: usize,
    /// Vehicles that take turns.
    pub(super) vehicles: usize,
    /// Messages that are on their way at a time.
    pub(super) on_their_way: usize,
}

/// Commits exchanges for so long; gives how many a second.
pub(super) fn exchanges_per_second(
    folder: &Path,
    shape: LimitShape,
    during: Duration,
) -> rusqlite::Result<f64> {
    let folder = tempfile::tempdir_in(folder).map_err(|_| rusqlite::Error::InvalidPath(folder.to_owned()))?;
    let connection = Connection::open(folder.path().join("limit.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint=16384;
         CREATE TABLE message (vehicle_id TEXT NOT NULL, gateway_id TEXT NOT NULL, msg_id TEXT NOT NULL,
           content_sha256 TEXT NOT NULL, message_type TEXT NOT NULL, received_at BIGINT NOT NULL,
           PRIMARY KEY (vehicle_id, gateway_id, msg_id));
         CREATE INDEX message_age ON message (received_at);
         CREATE TABLE vehicle (vehicle_id TEXT PRIMARY KEY, inventory TEXT NOT NULL);",
    )?;
    let inventory = "x".repeat(shape.inventory_octets);
    let to_a_commit = (shape.on_their_way / shape.messages).clamp(1, MOST_TO_A_COMMIT / shape.messages);
    let begun = Instant::now();
    let mut exchanges = 0;
    while begun.elapsed() < during {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        for _ in 0..to_a_commit {
            exchanges += 1;
            let vehicle = format!("BENCH-00000000-{:04}", exchanges % shape.vehicles);
            for message in 0..shape.messages {
                insert(&connection, &vehicle, exchanges * shape.messages + message)?;
            }
            if shape.inventory_octets > 0 {
                connection
                    .prepare_cached("INSERT OR REPLACE INTO vehicle (vehicle_id, inventory) VALUES (?1, ?2)")?
                    .execute((&vehicle, &inventory))?;
            }
        }
        connection.execute_batch("COMMIT")?;
    }
    #[allow(clippy::cast_precision_loss, reason = "a count, for people to read")]
    Ok(exchanges as f64 / begun.elapsed().as_secs_f64())
}

fn insert(connection: &Connection, vehicle: &str, number: usize) -> rusqlite::Result<()> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let msg_id = format!("VMG-{vehicle}-{number:08}");
    connection.prepare_cached("INSERT INTO message VALUES (?1, 'CCU', ?2, ?3, 'WakeUp', ?4)")?.execute((
        vehicle,
        &msg_id,
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        i64::try_from(number).unwrap_or(i64::MAX),
    ))?;
    connection.prepare_cached("RELEASE job")?.execute([])?;
    Ok(())
}
