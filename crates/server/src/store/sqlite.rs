//! The store in one SQLite file: one writer that commits many jobs at a time, readers beside it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::is_fatal;
use super::{Committed, OnCommit, StoreError, Tx, inventories, locked, migrations};
use crate::measurements;

/// Jobs that wait for the writer; whoever brings more waits.
const QUEUE: usize = 4096;
/// Jobs that share one commit.
const BATCH: usize = 1024;
/// Statements that stay prepared on a connection: more than the store has, since preparing one costs more than
/// running it.
const STATEMENTS: usize = 512;
/// Readers that are kept open; more are opened when needed and closed afterwards.
const READERS: usize = 8;

type Job = Box<dyn FnOnce(&Connection) -> Done + Send>;

/// A job that has run, and what follows if it is committed. Dropped otherwise: whoever waits is told by that.
struct Done {
    committed: Committed,
    reply: Box<dyn FnOnce() + Send>,
    /// The file cannot be relied on.
    is_fatal: bool,
}

pub(super) struct Sqlite {
    path: PathBuf,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
}

impl Sqlite {
    /// Opens or makes the file, and brings its schema up to date.
    pub(super) fn open(
        path: &Path,
        on_commit: OnCommit,
        failed: CancellationToken,
    ) -> Result<Self, StoreError> {
        let opened = |source| StoreError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(opened)?;
        // 64 MiB of pages stay in memory: SQLite's 2 MB hold the inventories of 50 vehicles, and are read again for each.
        // As much may stand in the write-ahead log: what is written again and again goes into the file once.
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA busy_timeout=10000; \
                 PRAGMA cache_size=-65536; PRAGMA wal_autocheckpoint=16384;",
            )
            .map_err(opened)?;
        migrations::run_on_sqlite(&mut connection, path)?;
        index_inventories(&mut connection)?;
        keep_plans(&connection).map_err(opened)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        let (sender, receiver) = mpsc::channel(QUEUE);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(connection, receiver, &on_commit, failed))
            .map_err(|_| StoreError::NotCommitted)?;
        Ok(Self {
            path: path.to_owned(),
            jobs: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            readers: Arc::default(),
        })
    }

    pub(super) async fn write<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let sender = locked(&self.jobs).clone().ok_or(StoreError::NotCommitted)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let InSavepoint { result, committed, is_fatal } = in_savepoint(connection, job);
            let reply = Box::new(move || drop(reply.send(result)));
            Done { committed, reply, is_fatal }
        });
        sender.send(job).await.map_err(|_| StoreError::NotCommitted)?;
        answer.await.map_err(|_| StoreError::NotCommitted)?
    }

    pub(super) async fn read<T, E>(
        &self,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (path, readers) = (self.path.clone(), Arc::clone(&self.readers));
        let read = tokio::task::spawn_blocking(move || {
            let kept = locked(&readers).pop();
            let mut reader = kept.map_or_else(|| open_reader(&path), Ok)?;
            let result = {
                let transaction = reader.transaction().map_err(StoreError::from)?;
                job(&Tx::on_sqlite(&transaction))
            };
            let mut readers = locked(&readers);
            if readers.len() < READERS {
                readers.push(reader);
            }
            result
        });
        read.await.map_err(|_| StoreError::NotCommitted)?
    }

    pub(super) async fn close(&self) {
        // The writer closes last: only it can fold the write-ahead log into the file.
        locked(&self.readers).clear();
        drop(locked(&self.jobs).take());
        let writer = locked(&self.writer).take();
        if let Some(writer) = writer
            && tokio::task::spawn_blocking(move || writer.join().is_err()).await.unwrap_or(true)
        {
            tracing::error!("The store's writer ended by a panic.");
        }
    }
}

/// Before anybody can ask, so that no selection misses a vehicle.
fn index_inventories(connection: &mut Connection) -> Result<(), StoreError> {
    loop {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let indexed = inventories::index_missing(&Tx::on_sqlite(&transaction))?;
        transaction.commit()?;
        if indexed == 0 {
            return Ok(());
        }
    }
}

/// Lets a prepared statement keep its plan whatever values are bound to it. Otherwise SQLite looks at them for each
/// partial index that they might allow, and so prepares the statement again each time.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// A connection that only reads, beside a server that may be writing.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    reader.busy_timeout(std::time::Duration::from_secs(10))?;
    keep_plans(&reader)?;
    reader.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(reader)
}

/// The writer's thread: takes what waits, commits it at once, and only then answers.
///
/// After a failed write or sync of the file nobody knows what the disk holds: the system may have thrown away the
/// very pages that it could not write, and say nothing the next time. Then no job is taken any more, and `failed` tells
/// the server to stop; what was committed before is found at the next start.
fn write_all(
    mut connection: Connection,
    mut jobs: mpsc::Receiver<Job>,
    on_commit: &OnCommit,
    failed: CancellationToken,
) {
    // However this thread ends while jobs can come, the server has to know.
    let ended = failed.clone().drop_guard();
    while let Some(first) = jobs.blocking_recv() {
        match write_batch(&mut connection, first, &mut jobs) {
            Ok(done) => {
                for Done { committed, reply, .. } in done {
                    on_commit(committed);
                    reply();
                }
            }
            // Whoever waits for one of these jobs learns it by its reply being dropped.
            Err(error) if is_fatal(&error) => {
                tracing::error!(%error, "The store's disk or file failed; nothing is taken until the server is started again.");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "The store could not commit; all changes of the batch are undone.")
            }
        }
    }
    ended.disarm();
}

fn write_batch(
    connection: &mut Connection,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
) -> Result<Vec<Done>, rusqlite::Error> {
    let begun = Instant::now();
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut done = Vec::new();
    let mut next = Some(first);
    while let Some(job) = next {
        let ran = job(&transaction);
        if ran.is_fatal {
            return Err(fatal());
        }
        // Some errors make SQLite undo the whole transaction, and with it the jobs before.
        if transaction.is_autocommit() {
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
                Some("SQLite undid the whole batch".to_owned()),
            ));
        }
        done.push(ran);
        next = if done.len() < BATCH { jobs.try_recv().ok() } else { None };
    }
    transaction.commit()?;
    measurements::commit(done.len(), begun.elapsed());
    Ok(done)
}

fn fatal() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR),
        Some("a statement could not read or write the file".to_owned()),
    )
}

struct InSavepoint<T, E> {
    result: Result<T, E>,
    committed: Committed,
    is_fatal: bool,
}

/// Runs statements that come with every job, prepared once.
fn run_cached(connection: &Connection, statements: &[&str]) -> rusqlite::Result<()> {
    statements.iter().try_for_each(|sql| connection.prepare_cached(sql)?.execute([]).map(drop))
}

/// Runs a job so that its failure undoes its own changes and no others.
fn in_savepoint<T, E: From<StoreError>>(
    connection: &Connection,
    job: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> InSavepoint<T, E> {
    let failed = |error: rusqlite::Error| {
        let error = StoreError::from(error);
        let is_fatal = error.is_fatal();
        InSavepoint { result: Err(error.into()), committed: Committed::default(), is_fatal }
    };
    if let Err(error) = run_cached(connection, &["SAVEPOINT job"]) {
        return failed(error);
    }
    let tx = Tx::on_sqlite(connection);
    let result = job(&tx).and_then(|value| Ok(tx.write_counters().map(|()| value)?));
    let end = if result.is_ok() { &["RELEASE job"][..] } else { &["ROLLBACK TO job", "RELEASE job"] };
    if let Err(error) = run_cached(connection, end) {
        return failed(error);
    }
    let (is_fatal, committed) = (tx.is_fatal(), tx.into_committed());
    let committed = if result.is_ok() { committed } else { Committed::default() };
    InSavepoint { result, committed, is_fatal }
}
