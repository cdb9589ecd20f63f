//! The server's memory: one SQLite file, one writer that commits many jobs at a time, readers beside it.
//! Owns transactions and the tables' rows; leaves what they mean to the conversation, the runner and the API.

pub(crate) mod campaigns;
pub(crate) mod commands;
pub(crate) mod deltas;
pub(crate) mod messages;
mod migrations;
pub(crate) mod packages;
pub(crate) mod releases;
pub(crate) mod tokens;
mod tx;
pub(crate) mod updates;
pub(crate) mod vehicles;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use farrier_protocol::Binding;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

pub(crate) use tx::{Row, Tx};

/// Jobs that wait for the writer; whoever brings more waits.
const QUEUE: usize = 4096;
/// Jobs that share one commit.
const BATCH: usize = 512;
/// Readers that are kept open; more are opened when needed and closed afterwards.
const READERS: usize = 8;

/// Why the store could not do what was asked. Then nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error(
        "cannot open the store {path}: check that the folder exists, has room, and that this user may write there"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file was written by a newer version.
    #[error(
        "the store {path} has schema {found}, expected at most {expected}: run the newer version that wrote it"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest that this version knows.
        expected: i64,
    },
    /// A statement failed.
    #[error("the store refused a statement")]
    Statement(#[from] rusqlite::Error),
    /// A value in the store is not what this program writes.
    #[error("the store holds {found:?} where {expected} is expected; restore it from a backup")]
    Damaged {
        /// What should be there.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The job was not committed, or the store is closed.
    #[error("the store did not commit the change")]
    NotCommitted,
}

/// What has to be done once a job's changes are durable.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// Vehicles for which a command was queued.
    pub(crate) wake: BTreeSet<Binding>,
    /// Whether something may be due earlier than before.
    pub(crate) due_changed: bool,
    /// Whether another delta is wanted.
    pub(crate) delta_wanted: bool,
}

/// Told of every commit, on the writer's thread; must not block.
pub(crate) type OnCommit = Box<dyn Fn(Committed) + Send>;

type Job = Box<dyn FnOnce(&Connection) -> Done + Send>;

/// A job that has run, and what follows if it is committed. Dropped otherwise: whoever waits is told by that.
struct Done {
    committed: Committed,
    reply: Box<dyn FnOnce() + Send>,
}

/// The store; clones share it.
#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    path: PathBuf,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Mutex<Vec<Connection>>,
}

impl Store {
    /// Opens or makes the store, and brings its schema up to date.
    pub(crate) fn open(path: &Path, on_commit: OnCommit) -> Result<Self, StoreError> {
        let opened = |source| StoreError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(opened)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=10000;",
            )
            .map_err(opened)?;
        migrations::run(&mut connection, path)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(connection, receiver, &on_commit))
            .map_err(|_| StoreError::NotCommitted)?;
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            jobs: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            readers: Mutex::new(Vec::new()),
        })))
    }

    /// Runs a job in a transaction and resolves once it is durable, with its result.
    /// A job that gives an error changes nothing; others of the same commit are not touched by it.
    pub(crate) async fn write<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let sender = locked(&self.0.jobs).clone().ok_or(StoreError::NotCommitted)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let (result, committed) = in_savepoint(connection, job);
            let reply = Box::new(move || drop(reply.send(result)));
            Done { committed, reply }
        });
        sender.send(job).await.map_err(|_| StoreError::NotCommitted)?;
        answer.await.map_err(|_| StoreError::NotCommitted)?
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
        let inner = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || {
            let mut reader = inner.reader()?;
            let result = {
                let transaction = reader.transaction().map_err(StoreError::from)?;
                job(&Tx::new(&transaction))
            };
            let mut readers = locked(&inner.readers);
            if readers.len() < READERS {
                readers.push(reader);
            }
            result
        });
        read.await.map_err(|_| StoreError::NotCommitted)?
    }

    /// Takes no more jobs, does those that wait, and closes the file.
    pub(crate) async fn close(&self) {
        // The writer closes last: only it can fold the write-ahead log into the file.
        locked(&self.0.readers).clear();
        drop(locked(&self.0.jobs).take());
        let writer = locked(&self.0.writer).take();
        if let Some(writer) = writer
            && tokio::task::spawn_blocking(move || writer.join().is_err()).await.unwrap_or(true)
        {
            tracing::error!("The store's writer ended by a panic.");
        }
    }
}

impl Inner {
    fn reader(&self) -> Result<Connection, StoreError> {
        if let Some(reader) = locked(&self.readers).pop() {
            return Ok(reader);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(&self.path, flags)
            .map_err(|source| StoreError::Open { path: self.path.clone(), source })?;
        reader.busy_timeout(std::time::Duration::from_secs(10))?;
        Ok(reader)
    }
}

/// A new id that sorts after those that this process made before.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The writer's thread: takes what waits, commits it at once, and only then answers.
fn write_all(mut connection: Connection, mut jobs: mpsc::Receiver<Job>, on_commit: &OnCommit) {
    while let Some(first) = jobs.blocking_recv() {
        match write_batch(&mut connection, first, &mut jobs) {
            Ok(done) => {
                for Done { committed, reply } in done {
                    on_commit(committed);
                    reply();
                }
            }
            // Whoever waits for one of these jobs learns it by its reply being dropped.
            Err(error) => {
                tracing::error!(%error, "The store could not commit; all changes of the batch are undone.")
            }
        }
    }
}

fn write_batch(
    connection: &mut Connection,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
) -> Result<Vec<Done>, rusqlite::Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut done = vec![first(&transaction)];
    while done.len() < BATCH
        && let Ok(job) = jobs.try_recv()
    {
        done.push(job(&transaction));
    }
    transaction.commit()?;
    Ok(done)
}

/// Runs a job so that its failure undoes its own changes and no others.
fn in_savepoint<T, E: From<StoreError>>(
    connection: &Connection,
    job: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> (Result<T, E>, Committed) {
    let failed = |error: rusqlite::Error| (Err(StoreError::from(error).into()), Committed::default());
    if let Err(error) = connection.execute_batch("SAVEPOINT job") {
        return failed(error);
    }
    let tx = Tx::new(connection);
    let result = job(&tx);
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    if let Err(error) = connection.execute_batch(end) {
        return failed(error);
    }
    let committed = if result.is_ok() { tx.into_committed() } else { Committed::default() };
    (result, committed)
}

#[cfg(test)]
pub(crate) mod tests;
