//! The store in a PostgreSQL database that several servers may share: threads with one connection each.
//! Each job is a transaction of its own; PostgreSQL lets those that end together share one sync of its log.

pub(crate) mod address;
mod listener;
mod session;

use std::cell::RefCell;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{OnCommit, StoreError, Tx, inventories, locked, migrations};
use crate::measurements;
use address::PostgresAddress;
use listener::OnNotification;
use session::Worker;
pub(super) use session::{Session, integer, text};

/// Connections that write. More share each sync of PostgreSQL's log, and cost it memory.
const WRITERS: usize = 8;
/// Connections that read.
const READERS: usize = 4;
/// Jobs that wait for one thread; whoever brings more waits.
const QUEUE: usize = 1024;

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

pub(super) struct Postgres {
    address: Arc<PostgresAddress>,
    threads: Mutex<Option<Threads>>,
    on_commit: OnCommit,
    next_writer: AtomicUsize,
    closing: CancellationToken,
}

struct Threads {
    writers: Vec<mpsc::Sender<Job>>,
    readers: mpsc::Sender<Job>,
    handles: Vec<JoinHandle<()>>,
}

impl Postgres {
    /// Connects, and brings the schema up to date.
    pub(super) fn open(
        address: &PostgresAddress,
        on_commit: OnCommit,
        failed: &CancellationToken,
    ) -> Result<Self, StoreError> {
        let address = Arc::new(address.clone());
        // Away from the caller's runtime: the client brings its own, and two do not go into one another.
        let prepared = std::thread::scope(|scope| {
            let preparing = scope.spawn(|| {
                let mut session = Session::connect(&address)?;
                migrations::run_on_postgres(&mut session, address.shown())?;
                index_inventories(session)
            });
            preparing.join().map_err(|_| StoreError::NotCommitted)?
        });
        prepared?;
        let mut handles = Vec::new();
        let mut writers = Vec::new();
        for _ in 0..WRITERS {
            let (sender, receiver) = mpsc::channel(QUEUE);
            writers.push(sender);
            handles.push(spawn("store-writer", &address, Arc::new(Mutex::new(receiver)), failed)?);
        }
        let (readers, receiver) = mpsc::channel(QUEUE);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..READERS {
            handles.push(spawn("store-reader", &address, Arc::clone(&receiver), failed)?);
        }
        let threads = Mutex::new(Some(Threads { writers, readers, handles }));
        let closing = CancellationToken::new();
        Ok(Self { address, threads, on_commit, next_writer: AtomicUsize::new(0), closing })
    }

    /// Hears from now on what other servers notify.
    pub(super) fn listen(&self, on_notification: OnNotification) -> Result<(), StoreError> {
        let listener = listener::spawn(Arc::clone(&self.address), on_notification, self.closing.clone())?;
        if let Some(threads) = locked(&self.threads).as_mut() {
            threads.handles.push(listener);
        }
        Ok(())
    }

    /// Jobs with the same key are done one after the other, in the order in which they came.
    pub(super) async fn write<T, E>(
        &self,
        key: Option<&str>,
        job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let number = match key {
            Some(key) => BuildHasherDefault::<DefaultHasher>::default().hash_one(key) as usize,
            None => self.next_writer.fetch_add(1, Ordering::Relaxed),
        };
        let sender = locked(&self.threads)
            .as_ref()
            .and_then(|threads| threads.writers.get(number % WRITERS).cloned())
            .ok_or(StoreError::NotCommitted)?;
        let (reply, answer) = oneshot::channel();
        let on_commit = Arc::clone(&self.on_commit);
        let job: Job = Box::new(move |worker| {
            let begun = Instant::now();
            let result = worker.write(job).map(|(value, committed)| {
                measurements::commit(1, begun.elapsed());
                on_commit(committed);
                value
            });
            drop(reply.send(result));
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
        let sender = locked(&self.threads).as_ref().map(|threads| threads.readers.clone());
        let sender = sender.ok_or(StoreError::NotCommitted)?;
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |worker| drop(reply.send(worker.read(job))));
        sender.send(job).await.map_err(|_| StoreError::NotCommitted)?;
        answer.await.map_err(|_| StoreError::NotCommitted)?
    }

    pub(super) async fn close(&self) {
        let Some(Threads { writers, readers, handles }) = locked(&self.threads).take() else { return };
        self.closing.cancel();
        drop((writers, readers));
        let joined = tokio::task::spawn_blocking(move || {
            handles.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        if joined.await.unwrap_or(1) > 0 {
            tracing::error!("A thread of the store ended by a panic.");
        }
    }
}

/// Before anybody can ask this server, so that no selection misses a vehicle.
fn index_inventories(session: Session) -> Result<(), StoreError> {
    let session = RefCell::new(session);
    loop {
        session.borrow_mut().batch("BEGIN")?;
        let indexed = inventories::index_missing(&Tx::on_postgres(&session))?;
        session.borrow_mut().batch("COMMIT")?;
        if indexed == 0 {
            return Ok(());
        }
    }
}

/// Runs a job once on one state of the database; away from the caller's runtime, see [`Postgres::open`].
pub(super) fn read_once<T: Send>(
    address: &PostgresAddress,
    job: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send,
) -> Result<T, StoreError> {
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| Worker::new(Arc::new(address.clone())).read(job));
        reading.join().map_err(|_| StoreError::NotCommitted)?
    })
}

fn spawn(
    name: &str,
    address: &Arc<PostgresAddress>,
    jobs: Arc<Mutex<mpsc::Receiver<Job>>>,
    failed: &CancellationToken,
) -> Result<JoinHandle<()>, StoreError> {
    let mut worker = Worker::new(Arc::clone(address));
    let failed = failed.clone();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // However this thread ends while jobs can come, the server has to know.
        let ended = failed.drop_guard();
        loop {
            let next = locked(&jobs).blocking_recv();
            let Some(job) = next else { break };
            job(&mut worker);
        }
        ended.disarm();
    });
    thread.map_err(|_| StoreError::NotCommitted)
}
