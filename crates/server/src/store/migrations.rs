//! Brings the schema forward, one numbered step at a time; there is no way back.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;
use super::postgres::{Session, integer};

/// The steps, each with its number and named after what it brings; the SQL is the same for both databases. They are
/// run in this order; a number that is missing is another step's, not yet here.
pub(super) const STEPS: [(i64, &str, &str); 23] = [
    (1, "first_light", include_str!("../../migrations/0001_first_light.sql")),
    (2, "deltas", include_str!("../../migrations/0002_deltas.sql")),
    (3, "nodes", include_str!("../../migrations/0003_nodes.sql")),
    (5, "operators", include_str!("../../migrations/0005_operators.sql")),
    (6, "timeline", include_str!("../../migrations/0006_timeline.sql")),
    (7, "avoided_deltas", include_str!("../../migrations/0007_avoided_deltas.sql")),
    (8, "broker", include_str!("../../migrations/0008_broker.sql")),
    (9, "inventories", include_str!("../../migrations/0009_inventories.sql")),
    (10, "campaign_control", include_str!("../../migrations/0010_campaign_control.sql")),
    (11, "fleet", include_str!("../../migrations/0011_fleet.sql")),
    (12, "release_rules", include_str!("../../migrations/0012_release_rules.sql")),
    (13, "rollout", include_str!("../../migrations/0013_rollout.sql")),
    (15, "intake", include_str!("../../migrations/0015_intake.sql")),
    (16, "retries", include_str!("../../migrations/0016_retries.sql")),
    (17, "evidence", include_str!("../../migrations/0017_evidence.sql")),
    (18, "changes", include_str!("../../migrations/0018_changes.sql")),
    (19, "requests", include_str!("../../migrations/0019_requests.sql")),
    (20, "starting", include_str!("../../migrations/0020_starting.sql")),
    (21, "console", include_str!("../../migrations/0021_console.sql")),
    (22, "history", include_str!("../../migrations/0022_history.sql")),
    (24, "records", include_str!("../../migrations/0024_records.sql")),
    (25, "single_sign_on", include_str!("../../migrations/0025_single_sign_on.sql")),
    (26, "certificates", include_str!("../../migrations/0026_certificates.sql")),
];

const RECORD: &str = "CREATE TABLE IF NOT EXISTS schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL)";
const SEEN: &str = "SELECT number FROM schema_step ORDER BY number";
const NOTE: &str = "INSERT INTO schema_step (number, name) VALUES ($1, $2)";

/// The steps that a store has not seen; an error if it has seen one that this version does not know.
fn missing(
    seen: &[i64],
    store: impl FnOnce() -> String,
) -> Result<impl Iterator<Item = (i64, &'static str, &'static str)>, StoreError> {
    let known = STEPS.map(|(number, _, _)| number);
    if let Some(found) = seen.iter().copied().filter(|number| !known.contains(number)).max() {
        let expected = known.into_iter().max().unwrap_or(0);
        return Err(StoreError::Newer { path: store(), found, expected });
    }
    Ok(STEPS.into_iter().filter(move |(number, _, _)| !seen.contains(number)))
}

/// Runs the steps that this file has not seen, each with its record in one transaction.
pub(super) fn run_on_sqlite(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    connection.execute_batch(RECORD).map_err(open)?;
    let seen = seen(connection).map_err(open)?;
    for (number, name, sql) in missing(&seen, || path.display().to_string())? {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(open)?;
        transaction.execute_batch(sql).map_err(open)?;
        transaction.execute(NOTE, (number, name)).map_err(open)?;
        transaction.commit().map_err(open)?;
    }
    Ok(())
}

/// The numbers of the steps that this file has seen.
fn seen(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare(SEEN)?;
    let numbers = statement.query_map((), |row| row.get(0))?;
    numbers.collect()
}

/// Runs the steps that this database has not seen, in one transaction: of several servers that start at once, one
/// does it, and the others wait and find it done.
pub(super) fn run_on_postgres(session: &mut Session, store: &str) -> Result<(), StoreError> {
    // The lock's number is nobody else's: it spells "farrier".
    session.batch(
        "BEGIN; SET LOCAL lock_timeout = '120s'; SET LOCAL statement_timeout = 0; \
         SELECT pg_advisory_xact_lock(x'0066617272696572'::bigint)",
    )?;
    session.batch(RECORD)?;
    let numbers = session.rows(SEEN, &[])?;
    let seen = numbers.iter().filter_map(|row| integer(row, 0).transpose()).collect::<Result<Vec<_>, _>>()?;
    for (number, name, sql) in missing(&seen, || store.to_owned())? {
        // The one word that the databases do not share.
        session.batch(&sql.replace("COLLATE BINARY", "COLLATE \"C\""))?;
        session.exec(NOTE, &[number.into(), name.into()])?;
    }
    session.batch("COMMIT")
}
