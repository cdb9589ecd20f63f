//! What the writer does in its turn: jobs that share a transaction, each undone by itself where it fails.

use std::collections::BTreeMap;
use std::time::Instant;

use farrier_protocol::VehicleId;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::super::statements::{Prepared, Statements};
use super::super::vehicles::{self, Heard};
use super::super::{Committed, StoreError, Tx};
use crate::measurements;

/// Jobs that share one commit.
const BATCH: usize = 1024;
/// Jobs that share a savepoint: SQLite copies each page that a savepoint changes, so many to one save much.
const NEIGHBOURS: usize = 64;

/// What the writer does in its turn.
pub(super) enum Job {
    /// Has a savepoint of its own, by which its failure undoes its own changes and no others.
    Once(Box<dyn FnOnce(&Statements<'_>) -> Done + Send>),
    /// Shares a savepoint, or the transaction, with its neighbours: if one of them fails, all are undone and run again, each
    /// in a savepoint of its own.
    Again(Box<dyn Repeatable>),
}

impl Job {
    pub(super) fn once<T, E>(
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
        reply: oneshot::Sender<Result<T, E>>,
    ) -> Self
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        Self::Once(Box::new(move |statements| {
            let InSavepoint { result, committed, is_fatal } = in_savepoint(statements, job);
            let reply = Box::new(move || drop(reply.send(result)));
            Done { committed, reply, is_fatal }
        }))
    }

    pub(super) fn again<J, T, E>(job: J, reply: oneshot::Sender<(Option<Result<T, E>>, J)>) -> Self
    where
        J: Fn(&Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        Self::Again(Box::new(RepeatableJob { job, result: None, reply }))
    }
}

/// A job that has run, and what follows if it is committed. Dropped otherwise: whoever waits is told by that.
pub(super) struct Done {
    pub(super) committed: Committed,
    pub(super) reply: Box<dyn Reply>,
    /// The file cannot be relied on.
    is_fatal: bool,
}

/// Tells whoever waits for a job how it ended.
pub(super) trait Reply: Send {
    fn send(self: Box<Self>);
}

impl<F: FnOnce() + Send> Reply for F {
    fn send(self: Box<Self>) {
        self();
    }
}

/// How a run of a job ended.
pub(super) struct Ran {
    committed: Committed,
    /// The vehicle that it heard of, which is still to be written.
    heard: Option<(VehicleId, Heard)>,
    has_failed: bool,
    is_fatal: bool,
}

/// A job that may be run again after its changes were undone; its result is that of the last time.
pub(super) trait Repeatable: Send {
    fn run(&mut self, statements: &Statements<'_>) -> Ran;
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
    fn run(&mut self, statements: &Statements<'_>) -> Ran {
        let tx = Tx::on_sqlite(statements);
        let result = (self.job)(&tx).and_then(|value| Ok(tx.write_counters().map(|()| value)?));
        let (has_failed, is_fatal) = (result.is_err(), tx.is_fatal());
        self.result = Some(result);
        let heard = tx.take_heard().filter(|_| !has_failed);
        let committed = if has_failed { Committed::default() } else { tx.into_committed() };
        Ran { committed, heard, has_failed, is_fatal }
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

pub(super) fn write_batch(
    statements: &Statements<'_>,
    first: Job,
    jobs: &mut mpsc::Receiver<Job>,
) -> Result<Vec<Done>, rusqlite::Error> {
    let begun = Instant::now();
    let mut batch = Batch::begin(statements)?;
    let mut next = Some(first);
    while let Some(job) = next {
        batch.run(job)?;
        // Some errors make SQLite undo the whole transaction, and with it the jobs before.
        if statements.connection().is_autocommit() {
            return Err(undone());
        }
        next = if batch.len() < BATCH { jobs.try_recv().ok() } else { None };
    }
    let done = batch.commit()?;
    measurements::commit(done.len(), begun.elapsed());
    Ok(done)
}

/// Jobs that share a transaction.
struct Batch<'b, 'c> {
    statements: &'b Statements<'c>,
    transaction: Transaction<'b>,
    done: Vec<Done>,
    /// Those of the jobs that share what they are undone by.
    neighbours: Vec<(Box<dyn Repeatable>, Ran)>,
    /// When vehicles were last heard of whose jobs are kept: written once for all of a vehicle's.
    heard: BTreeMap<VehicleId, Heard>,
}

impl<'b, 'c> Batch<'b, 'c> {
    fn begin(statements: &'b Statements<'c>) -> rusqlite::Result<Self> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = Transaction::new_unchecked(statements.connection(), behavior)?;
        Ok(Self { statements, transaction, done: Vec::new(), neighbours: Vec::new(), heard: BTreeMap::new() })
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
                // It may look at what they have left to be written.
                self.write_heard()?;
                let ran = job(self.statements);
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
        let ran = job.run(self.statements);
        if ran.is_fatal {
            return Err(fatal());
        }
        let has_failed = ran.has_failed;
        self.neighbours.push((job, ran));
        if has_failed {
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
            let ran = job.run(self.statements);
            if ran.is_fatal {
                return Err(fatal());
            }
            run_cached(&self.transaction, if ran.has_failed { UNDO } else { KEEP })?;
            self.keep(job, ran);
        }
        Ok(())
    }

    /// Keeps what the neighbours have changed.
    fn keep_neighbours(&mut self) -> rusqlite::Result<()> {
        let has_savepoint = !self.neighbours.is_empty() && !self.is_of_neighbours();
        for (job, ran) in std::mem::take(&mut self.neighbours) {
            self.keep(job, ran);
        }
        if has_savepoint { run_cached(&self.transaction, KEEP) } else { Ok(()) }
    }

    fn keep(&mut self, job: Box<dyn Repeatable>, ran: Ran) {
        self.heard.extend(ran.heard);
        self.done.push(Done { committed: ran.committed, reply: job.into_reply(), is_fatal: false });
    }

    fn write_heard(&mut self) -> rusqlite::Result<()> {
        for (vehicle_id, heard) in std::mem::take(&mut self.heard) {
            let tx = Tx::on_sqlite(self.statements);
            if let Err(error) = vehicles::write_heard(&tx, &vehicle_id, heard) {
                return Err(if error.is_fatal() { fatal() } else { undone() });
            }
        }
        Ok(())
    }

    fn commit(mut self) -> rusqlite::Result<Vec<Done>> {
        self.keep_neighbours()?;
        self.write_heard()?;
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
    statements: &Statements<'_>,
    job: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> InSavepoint<T, E> {
    let failed = |error: rusqlite::Error| {
        let error = StoreError::from(error);
        let is_fatal = error.is_fatal();
        InSavepoint { result: Err(error.into()), committed: Committed::default(), is_fatal }
    };
    let connection = statements.connection();
    if let Err(error) = run_cached(connection, &["SAVEPOINT job"]) {
        return failed(error);
    }
    let tx = Tx::on_sqlite(statements);
    let result = job(&tx).and_then(|value| Ok(tx.write_rest().map(|()| value)?));
    let end = if result.is_ok() { KEEP } else { UNDO };
    if let Err(error) = run_cached(connection, end) {
        return failed(error);
    }
    let (is_fatal, committed) = (tx.is_fatal(), tx.into_committed());
    let committed = if result.is_ok() { committed } else { Committed::default() };
    InSavepoint { result, committed, is_fatal }
}
