//! The server's memory: SQLite in a file, or PostgreSQL shared by several servers; the same statements for both.
//! Owns transactions and the tables' rows; leaves what they mean to the conversation, the runner and the API.

pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod audit_search;
pub(crate) mod campaigns;
pub(crate) mod candidates;
pub(crate) mod changes;
pub(crate) mod commands;
pub(crate) mod console_users;
pub(crate) mod deltas;
mod error;
pub(crate) mod evidence;
pub(crate) mod fleet;
pub(crate) mod groups;
pub(crate) mod idempotency;
#[cfg(test)]
pub(crate) mod in_memory;
pub(crate) mod intake;
pub(crate) mod inventories;
pub(crate) mod messages;
mod migrations;
pub(crate) mod nodes;
pub(crate) mod packages;
mod postgres;
pub(crate) mod releases;
pub(crate) mod samples;
pub(crate) mod security_events;
pub(crate) mod selection;
pub(crate) mod senders;
pub(crate) mod sessions;
pub(crate) mod set_aside;
pub(crate) mod silent;
mod sqlite;
mod statements;
#[cfg(test)]
pub(crate) mod test_database;
pub(crate) mod timeline;
pub(crate) mod tokens;
pub(crate) mod told_expiry;
pub(crate) mod traffic;
mod tx;
pub(crate) mod updates;
pub(crate) mod uploads;
pub(crate) mod vehicle_certificates;
pub(crate) mod vehicle_list;
pub(crate) mod vehicles;
pub(crate) mod verify;
pub(crate) mod webhooks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use farrier_protocol::{Binding, Sha256, Text, VehicleId};
use tokio_util::sync::CancellationToken;

pub use error::StoreError;
pub(crate) use nodes::{EarlierBinding, Notice};
pub use postgres::address::{AddressError, PostgresAddress};
pub(crate) use tx::{Row, Tx};

use postgres::Postgres;
use sqlite::Sqlite;
use statements::Statements;

/// Rows of a kind that are forgotten in one transaction, so that messages do not wait for it; stands in the statements.
pub(crate) const FORGOTTEN_AT_A_TIME: usize = 1_000;

/// Where a store is.
#[derive(Clone)]
pub(crate) enum StoreAddress {
    /// In this file, of this server alone.
    Sqlite(PathBuf),
    /// In a database that other servers may share.
    Postgres(Box<PostgresAddress>),
}

/// What has to be done once a job's changes are durable.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Vehicles for which a command was queued.
    pub(crate) wake: BTreeSet<Binding>,
    /// Whether something may be due earlier than before.
    pub(crate) due_changed: bool,
    /// Whether a vehicle may not fetch any more what it could before.
    pub(crate) grants_taken_away: bool,
    /// Whether another delta is wanted.
    pub(crate) delta_wanted: bool,
    /// Campaigns whose counters are not what they were.
    pub(crate) gates: BTreeSet<Text>,
    /// Bindings that are vehicles' no more: their connections end.
    pub(crate) rebound: Vec<EarlierBinding>,
    /// Whether something was written for those who follow changes.
    pub(crate) told: bool,
}

/// Told of every commit before whoever waits for it; must not block.
pub(crate) type OnCommit = Arc<dyn Fn(Committed) + Send + Sync>;

/// The store; clones share it.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    database: Database,
    failed: CancellationToken,
}

enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Store {
    /// Opens or makes the store, and brings its schema up to date.
    pub(crate) fn open(address: &StoreAddress, on_commit: OnCommit) -> Result<Self, StoreError> {
        let failed = CancellationToken::new();
        let database = match address {
            StoreAddress::Sqlite(path) => Database::Sqlite(Sqlite::open(path, on_commit, failed.clone())?),
            StoreAddress::Postgres(address) => {
                Database::Postgres(Postgres::open(address, on_commit, &failed)?)
            }
        };
        Ok(Self(Arc::new(Inner { database, failed })))
    }

    /// Whether other servers may work on the same store.
    pub(crate) fn is_shared(&self) -> bool {
        match self.0.database {
            Database::Sqlite(_) => false,
            Database::Postgres(_) => true,
        }
    }

    /// Hears from now on what other servers want done about connections; on SQLite there are none.
    pub(crate) fn on_notice(&self, notice: impl Fn(Notice) + Send + 'static) -> Result<(), StoreError> {
        match &self.0.database {
            Database::Sqlite(_) => Ok(()),
            Database::Postgres(postgres) => {
                postgres.listen(Box::new(move |payload| nodes::notices_of(payload).for_each(&notice)))
            }
        }
    }

    /// Cancelled when the store cannot be relied on any more: the server has to be started again.
    pub(crate) fn failed(&self) -> &CancellationToken {
        &self.0.failed
    }

    /// Runs a job in a transaction and resolves once it is durable, with its result.
    /// A job that gives an error changes nothing; others of the same commit are not touched by it.
    /// A job that changes rows of vehicles locks these first ([`vehicles::lock`]).
    pub(crate) async fn write<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.0.database {
            Database::Sqlite(sqlite) => sqlite.write(job).await,
            Database::Postgres(postgres) => postgres.write(None, job).await,
        }
    }

    /// The same for a job about one vehicle, which it has to itself. Such jobs of one server are done in the
    /// order in which they came.
    pub(crate) async fn write_about<T, E>(
        &self,
        vehicle_id: &VehicleId,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.0.database {
            Database::Sqlite(sqlite) => sqlite.write(job).await,
            Database::Postgres(postgres) => {
                let locked_id = vehicle_id.clone();
                let job = move |tx: &Tx<'_>| {
                    vehicles::lock(tx, &locked_id)?;
                    job(tx)
                };
                postgres.write(Some(vehicle_id.as_str()), job).await
            }
        }
    }

    /// The same for a job that may be run again after its changes were undone, which costs less where many come at a
    /// time. It is dropped by whoever waits for it, not by the writer.
    pub(crate) async fn write_again_about<T, E>(
        &self,
        vehicle_id: &VehicleId,
        job: impl Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.0.database {
            Database::Sqlite(sqlite) => sqlite.write_again(job).await,
            Database::Postgres(_) => self.write_about(vehicle_id, job).await,
        }
    }

    /// Reads one consistent state of the store.
    pub(crate) async fn read<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.0.database {
            Database::Sqlite(sqlite) => sqlite.read(job).await,
            Database::Postgres(postgres) => postgres.read(job).await,
        }
    }

    /// Takes no more jobs, does those that wait, and closes the store.
    pub(crate) async fn close(&self) {
        match &self.0.database {
            Database::Sqlite(sqlite) => sqlite.close().await,
            Database::Postgres(postgres) => postgres.close().await,
        }
    }
}

/// Reads one consistent state of a store in a file, whether or not a server has it open.
pub(crate) fn read_file<T>(
    path: &Path,
    job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut reader = sqlite::open_reader(path)?;
    let transaction = reader.transaction()?;
    job(&Tx::on_sqlite(&Statements::on(&transaction)))
}

/// Reads one consistent state of a store, beside servers that may have it open.
pub(crate) fn read_once<T: Send>(
    address: &StoreAddress,
    job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    match address {
        StoreAddress::Sqlite(path) => read_file(path, job),
        StoreAddress::Postgres(address) => postgres::read_once(address, job),
    }
}

/// Writes one consistent state of a store in a file to another file, which must not exist, while a server may be
/// writing to the first.
pub(crate) fn snapshot(from: &Path, to: &Path) -> Result<(), StoreError> {
    let reader = sqlite::open_reader(from)?;
    let to = to.to_string_lossy();
    reader.execute("VACUUM INTO ?1", [to.as_ref()])?;
    Ok(())
}

/// The digests and lengths of all files that belong to a store: images, and deltas that are ready.
pub(crate) fn images(tx: &Tx<'_>) -> Result<BTreeMap<Sha256, u64>, StoreError> {
    let read = |row: &Row<'_>| Ok((row.parsed(0, "a digest")?, row.count(1)?));
    let images = tx.rows("SELECT sha256, size_bytes FROM image", &[], read)?;
    let deltas = tx.rows("SELECT sha256, size_bytes FROM delta WHERE state = 'ready'", &[], read)?;
    Ok(images.into_iter().chain(deltas).collect())
}

/// A new id that sorts after those that this process made before, and that no other server makes.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A panic while such a lock was held leaves nothing half changed, so poisoning is ignored.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod shared_tests;
#[cfg(test)]
pub(crate) mod tests;
