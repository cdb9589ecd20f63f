//! A store for simulations: SQLite in memory, one job after another, no threads. All that was written since it was
//! made, or since `forget`, is one outer transaction, so that forgetting is quick.

use rusqlite::Connection;

use super::statements::Statements;
use super::{Committed, StoreError, Tx, migrations};

pub(crate) struct InMemory {
    connection: Connection,
}

impl InMemory {
    pub(crate) fn new() -> Self {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA foreign_keys=ON;").unwrap();
        migrations::run_on_sqlite(&mut connection, std::path::Path::new("memory")).unwrap();
        connection.set_prepared_statement_cache_capacity(256);
        connection.execute_batch("BEGIN").unwrap();
        Self { connection }
    }

    /// Empties it.
    pub(crate) fn forget(&mut self) {
        self.connection.execute_batch("ROLLBACK; BEGIN").unwrap();
    }

    /// Runs a job as one transaction and keeps what it changed, or undoes it where the server dies before the commit.
    pub(crate) fn job<T>(
        &self,
        keep: bool,
        job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> (T, Committed) {
        self.connection.execute_batch("SAVEPOINT job").unwrap();
        let statements = Statements::on(&self.connection);
        let tx = Tx::on_sqlite(&statements);
        let value = job(&tx).unwrap();
        tx.write_rest().unwrap();
        let end = if keep { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
        self.connection.execute_batch(end).unwrap();
        (value, tx.into_committed())
    }
}
