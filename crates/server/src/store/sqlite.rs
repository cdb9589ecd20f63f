//! The store in one SQLite file: one writer that commits many jobs at a time, readers beside it.

mod batch;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::is_fatal;
use super::statements::Statements;
use super::{OnCommit, StoreError, Tx, inventories, locked, migrations};
use batch::{Done, Job, write_batch};

/// Jobs that wait for the writer; whoever brings more waits.
const QUEUE: usize = 4096;
/// Statements that stay prepared on a connection: more than the store has, since preparing one costs more than
/// running it.
const STATEMENTS: usize = 512;
/// Readers that are kept open; more are opened when needed and closed afterwards.
const READERS: usize = 8;

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
        let answers = Answers::start(&on_commit);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(connection, receiver, &on_commit, &answers, failed))
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
        let (reply, answer) = oneshot::channel();
        self.send(Job::once(job, reply)).await?;
        answer.await.map_err(|_| StoreError::NotCommitted)?
    }

    /// The same for a job that may be run again: it costs less, since many share a savepoint or need none.
    pub(super) async fn write_again<T, E>(
        &self,
        job: impl Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Job::again(job, reply)).await?;
        let (result, _job) = answer.await.map_err(|_| StoreError::NotCommitted)?;
        result.unwrap_or_else(|| Err(StoreError::NotCommitted.into()))
    }

    async fn send(&self, job: Job) -> Result<(), StoreError> {
        let sender = locked(&self.jobs).clone().ok_or(StoreError::NotCommitted)?;
        sender.send(job).await.map_err(|_| StoreError::NotCommitted)
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
                job(&Tx::on_sqlite(&Statements::on(&transaction)))
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
        let indexed = inventories::index_missing(&Tx::on_sqlite(&Statements::on(&transaction)))?;
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
    connection: Connection,
    mut jobs: mpsc::Receiver<Job>,
    on_commit: &OnCommit,
    answers: &Answers,
    failed: CancellationToken,
) {
    // However this thread ends while jobs can come, the server has to know.
    let ended = failed.clone().drop_guard();
    let statements = Statements::on(&connection);
    while let Some(first) = jobs.blocking_recv() {
        match write_batch(&statements, first, &mut jobs) {
            Ok(done) => answers.give(on_commit, done),
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

/// Gives the answers of a commit. Where there is a runtime, on one of its threads: to wake a thousand tasks from the writer's
/// takes as long as to write for a tenth of them, and wakes each before the next of its answers is there.
struct Answers(Option<mpsc::Sender<Vec<Done>>>);

/// Commits whose answers may wait to be given.
const UNANSWERED: usize = 4;

impl Answers {
    fn start(on_commit: &OnCommit) -> Self {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Self(None) };
        let (sender, mut commits) = mpsc::channel(UNANSWERED);
        let on_commit = Arc::clone(on_commit);
        runtime.spawn(async move {
            while let Some(done) = commits.recv().await {
                answer(&on_commit, done);
            }
        });
        Self(Some(sender))
    }

    fn give(&self, on_commit: &OnCommit, done: Vec<Done>) {
        match &self.0 {
            // If the runtime is gone, so is whoever waits.
            Some(commits) => drop(commits.blocking_send(done)),
            None => answer(on_commit, done),
        }
    }
}

fn answer(on_commit: &OnCommit, done: Vec<Done>) {
    for Done { committed, reply, .. } in done {
        on_commit(committed);
        reply.send();
    }
}
