//! Brings the schema forward, one numbered step at a time; there is no way back.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// The steps, each with its number and named after what it brings. They are run in this order; a number that is
/// missing is another step's, not yet here.
const STEPS: [(i64, &str, &str); 3] = [
    (1, "first_light", include_str!("../../migrations/0001_first_light.sql")),
    (2, "deltas", include_str!("../../migrations/0002_deltas.sql")),
    (7, "avoided_deltas", include_str!("../../migrations/0007_avoided_deltas.sql")),
];

/// Runs the steps that this store has not seen, each with its record in one transaction.
pub(super) fn run(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL)",
        )
        .map_err(open)?;
    let seen = seen(connection).map_err(open)?;
    let known = STEPS.map(|(number, _, _)| number);
    if let Some(found) = seen.iter().copied().filter(|number| !known.contains(number)).max() {
        let expected = known.into_iter().max().unwrap_or(0);
        return Err(StoreError::Newer { path: path.to_owned(), found, expected });
    }
    for (number, name, sql) in STEPS.into_iter().filter(|(number, _, _)| !seen.contains(number)) {
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(open)?;
        transaction.execute_batch(sql).map_err(open)?;
        transaction
            .execute("INSERT INTO schema_step (number, name) VALUES (?1, ?2)", (number, name))
            .map_err(open)?;
        transaction.commit().map_err(open)?;
    }
    Ok(())
}

/// The numbers of the steps that this store has seen.
fn seen(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare("SELECT number FROM schema_step ORDER BY number")?;
    let numbers = statement.query_map((), |row| row.get(0))?;
    numbers.collect()
}
