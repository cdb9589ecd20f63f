//! The store in one SQLite file: one writer that commits many jobs at a time, readers beside it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::is_fatal;
use super::{Committed, OnCommit, StoreError, Tx, inventories, locked, migrations};
use crate::measurements;

/// Jobs that wait for the writer; whoever brings more waits.
const QUEUE: usize = 4096;
/// Jobs that share one commit.
const BATCH: usize = 1024;
/// Jobs that share a savepoint: SQLite copies each page that a savepoint changes, so many to one save much.
const NEIGHBOURS: usize = 64;
/// Statements that stay prepared on a connection: more than the store has, since preparing one costs more than
/// running it.
const STATEMENTS: usize = 512;
/// Readers that are kept open; more are opened when needed and closed afterwards.
const READERS: usize = 8;

/// What the writer does in its turn.
enum Job {
    /// Has a savepoint of its own, by which its failure undoes its own changes and no others.
    Once(Box<dyn FnOnce(&Connection) -> Done + Send>),
    /// Shares a savepoint, or the transaction, with its neighbours: if one of them fails, all are undone and run again, each
    /// in a savepoint of its own.
    Again(Box<dyn Repeatable>),
}

/// A job that has run, and what follows if it is committed. Dropped otherwise: whoever waits is told by that.
struct Done {
    committed: Committed,
    reply: Box<dyn Reply>,
    /// The file cannot be relied on.
    is_fatal: bool,
}

/// Tells whoever waits for a job how it ended.
trait Reply: Send {
    fn send(self: Box<Self>);
}

impl<F: FnOnce() + Send> Reply for F {
    fn send(self: Box<Self>) {
        self();
    }
}

/// How a run of a job ended.
struct Ran {
    committed: Committed,
    has_failed: bool,
    is_fatal: bool,
}

/// A job that may be run again after its changes were undone; its result is that of the last time.
trait Repeatable: Send {
    fn run(&mut self, connection: &Connection) -> Ran;
    fn into_reply(self: Box<Self>) -> Box<dyn Reply>;
}

/// The result goes back with the job, so that whoever waits drops what was in it, and not the writer.
struct RepeatableJob<J, T, E> {
    job: J,
    result: Option<Result<T, E>>,
    reply: oneshot::Sender<(Option<Result<T, E>>, J)>,
}

impl<J, T, E> Repeatable for RepeatableJob<J, T, E>
where
    J: Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    fn run(&mut self, connection: &Connection) -> Ran {
        let tx = Tx::on_sqlite(connection);
        let result = (self.job)(&tx).and_then(|value| Ok(tx.write_counters().map(|()| value)?));
        let (has_failed, is_fatal) = (result.is_err(), tx.is_fatal());
        self.result = Some(result);
        let committed = if has_failed { Committed::default() } else { tx.into_committed() };
        Ran { committed, has_failed, is_fatal }
    }

    fn into_reply(self: Box<Self>) -> Box<dyn Reply> {
        self
    }
}

impl<J: Send, T: Send, E: Send> Reply for RepeatableJob<J, T, E> {
    fn send(self: Box<Self>) {
        drop(self.reply.send((self.result, self.job)));
    }
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
        let job = Box::new(move |connection: &Connection| {
            let InSavepoint { result, committed, is_fatal } = in_savepoint(connection, job);
            let reply = Box::new(move || drop(reply.send(result)));
            Done { committed, reply, is_fatal }
        });
        self.send(Job::Once(job)).await?;
        answer.await.map_err(|_| StoreError::NotCommitted)?
    }

    /// The same for a job that may be run again: it costs less, since many share one savepoint.
    pub(super) async fn write_again<T, E>(
        &self,
        job: impl Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Again(Box::new(RepeatableJob { job, result: None, reply }))).await?;
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
    connection: Connection,
    mut jobs: mpsc::Receiver<Job>,
    on_commit: &OnCommit,
    answers: &Answers,
    failed: CancellationToken,
) {
    // However this thread ends while jobs can come, the server has to know.
    let ended = failed.clone().drop_guard();
    while let Some(first) = jobs.blocking_recv() {
        match write_batch(&connection, first, &mut jobs) {
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

fn write_batch(
    connection: &Connection,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
) -> Result<Vec<Done>, rusqlite::Error> {
    let begun = Instant::now();
    let mut batch = Batch::begin(connection)?;
    let mut next = Some(first);
    while let Some(job) = next {
        batch.run(job)?;
        // Some errors make SQLite undo the whole transaction, and with it the jobs before.
        if connection.is_autocommit() {
            return Err(undone());
        }
        next = if batch.len() < BATCH { jobs.try_recv().ok() } else { None };
    }
    let done = batch.commit()?;
    measurements::commit(done.len(), begun.elapsed());
    Ok(done)
}

/// Jobs that share a transaction.
struct Batch<'c> {
    transaction: Transaction<'c>,
    done: Vec<Done>,
    /// Those of the jobs that share what they are undone by.
    neighbours: Vec<(Box<dyn Repeatable>, Committed)>,
}

impl<'c> Batch<'c> {
    fn begin(connection: &'c Connection) -> rusqlite::Result<Self> {
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        Ok(Self { transaction, done: Vec::new(), neighbours: Vec::new() })
    }

    fn len(&self) -> usize {
        self.done.len() + self.neighbours.len()
    }

    /// Whether the neighbours can be undone with the transaction, since there is nothing else in it. A savepoint would
    /// make SQLite keep each page that they change as it was, in a file where these are many.
    fn is_of_neighbours(&self) -> bool {
        self.done.is_empty()
    }

    fn run(&mut self, job: Job) -> rusqlite::Result<()> {
        match job {
            Job::Once(job) => {
                self.keep_neighbours()?;
                let ran = job(&self.transaction);
                if ran.is_fatal {
                    return Err(fatal());
                }
                self.done.push(ran);
                Ok(())
            }
            Job::Again(job) => self.run_neighbour(job),
        }
    }

    /// Runs one more of those that can be run again; if it fails, all neighbours are run again by themselves.
    fn run_neighbour(&mut self, mut job: Box<dyn Repeatable>) -> rusqlite::Result<()> {
        if self.neighbours.is_empty() && !self.is_of_neighbours() {
            run_cached(&self.transaction, &["SAVEPOINT job"])?;
        }
        let ran = job.run(&self.transaction);
        if ran.is_fatal {
            return Err(fatal());
        }
        self.neighbours.push((job, ran.committed));
        if ran.has_failed {
            return self.run_again();
        }
        let is_full = self.neighbours.len() >= NEIGHBOURS && !self.is_of_neighbours();
        if is_full { self.keep_neighbours() } else { Ok(()) }
    }

    fn run_again(&mut self) -> rusqlite::Result<()> {
        if self.transaction.is_autocommit() {
            return Err(undone());
        }
        if self.is_of_neighbours() {
            self.transaction.execute_batch("ROLLBACK; BEGIN IMMEDIATE")?;
        } else {
            run_cached(&self.transaction, UNDO)?;
        }
        for (mut job, _) in std::mem::take(&mut self.neighbours) {
            run_cached(&self.transaction, &["SAVEPOINT job"])?;
            let ran = job.run(&self.transaction);
            if ran.is_fatal {
                return Err(fatal());
            }
            run_cached(&self.transaction, if ran.has_failed { UNDO } else { KEEP })?;
            self.done.push(Done { committed: ran.committed, reply: job.into_reply(), is_fatal: false });
        }
        Ok(())
    }

    /// Keeps what the neighbours have changed.
    fn keep_neighbours(&mut self) -> rusqlite::Result<()> {
        if self.neighbours.is_empty() {
            return Ok(());
        }
        let has_savepoint = !self.is_of_neighbours();
        let ran = self.neighbours.drain(..);
        self.done.extend(ran.map(|(job, committed)| Done {
            committed,
            reply: job.into_reply(),
            is_fatal: false,
        }));
        if has_savepoint { run_cached(&self.transaction, KEEP) } else { Ok(()) }
    }

    fn commit(mut self) -> rusqlite::Result<Vec<Done>> {
        self.keep_neighbours()?;
        self.transaction.commit()?;
        Ok(self.done)
    }
}

fn undone() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
        Some("SQLite undid the whole batch".to_owned()),
    )
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

/// What ends a job's savepoint.
const KEEP: &[&str] = &["RELEASE job"];
const UNDO: &[&str] = &["ROLLBACK TO job", "RELEASE job"];

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
    let end = if result.is_ok() { KEEP } else { UNDO };
    if let Err(error) = run_cached(connection, end) {
        return failed(error);
    }
    let (is_fatal, committed) = (tx.is_fatal(), tx.into_committed());
    let committed = if result.is_ok() { committed } else { Committed::default() };
    InSavepoint { result, committed, is_fatal }
}
