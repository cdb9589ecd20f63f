//! Brings the schema forward, one numbered step at a time; there is no way back.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::StoreError;

/// The steps, each named after what it brings.
const STEPS: [(&str, &str); 2] = [
    ("first_light", include_str!("../../migrations/0001_first_light.sql")),
    ("deltas", include_str!("../../migrations/0002_deltas.sql")),
];

/// Runs the steps that this store has not seen, each with its record in one transaction.
pub(super) fn run(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    connection
        .execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_step (number BIGINT PRIMARY KEY, name TEXT NOT NULL)",
        )
        .map_err(open)?;
    let count = |sql| connection.query_row(sql, (), |row| row.get::<_, i64>(0)).map_err(open);
    let found = count("SELECT COALESCE(MAX(number), 0) FROM schema_step")?;
    let expected = i64::try_from(STEPS.len()).unwrap_or(i64::MAX);
    if found > expected {
        return Err(StoreError::Newer { path: path.to_owned(), found, expected });
    }
    for (number, (name, sql)) in (1_i64..).zip(STEPS).filter(|(number, _)| *number > found) {
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
