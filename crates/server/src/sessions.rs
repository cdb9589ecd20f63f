//! Notes in memory when clients connect and go, and writes it to the store: one task, many in one transaction, so that no
//! connection waits for it and a client that comes and goes at once costs one row.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use farrier_protocol::UnixMillis;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::desk::ClientSession;
use crate::store::{Store, StoreError, sessions};

/// What comes within this time is written together.
const GATHER: Duration = Duration::from_millis(100);
/// Connections that are written in one transaction.
const BATCH: usize = 256;
/// After the store has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections that are held while the store cannot be written; of more nothing is noted.
const MOST_WAITING: usize = 65_536;

/// What is still to be written.
#[derive(Default)]
pub(crate) struct Sessions {
    waiting: Mutex<Waiting>,
    added: Notify,
}

#[derive(Default)]
struct Waiting {
    /// By their ids, so in the order in which they began.
    sessions: BTreeMap<String, ClientSession>,
    /// How many were not noted for want of room.
    lost: u64,
}

impl Sessions {
    /// A connection began, or ended: then the beginning that was not written yet need not be.
    pub(crate) fn note(&self, session: ClientSession) {
        let mut waiting = self.waiting();
        if waiting.sessions.len() >= MOST_WAITING && !waiting.sessions.contains_key(&session.id) {
            waiting.lost = waiting.lost.saturating_add(1);
            return;
        }
        waiting.sessions.insert(session.id.clone(), session);
        drop(waiting);
        self.added.notify_one();
    }

    fn take(&self) -> Vec<ClientSession> {
        let mut waiting = self.waiting();
        if waiting.lost > 0 {
            tracing::warn!(
                connections = waiting.lost,
                "The store did not take them in time: of these connections nothing is in the vehicles' time lines."
            );
            waiting.lost = 0;
        }
        (0..BATCH).map_while(|_| waiting.sessions.pop_first().map(|(_, session)| session)).collect()
    }

    /// What could not be written waits again, unless more is known by now.
    fn put_back(&self, sessions: Vec<ClientSession>) {
        let mut waiting = self.waiting();
        for session in sessions {
            waiting.sessions.entry(session.id.clone()).or_insert(session);
        }
        drop(waiting);
        self.added.notify_one();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what is noted.
pub(crate) struct SessionWriter {
    pub(crate) store: Store,
    pub(crate) sessions: Arc<Sessions>,
    /// The server among those that share the store.
    pub(crate) node: String,
    /// Whatever an earlier run of it left open had ended by then.
    pub(crate) started_at: UnixMillis,
}

impl SessionWriter {
    /// Until the server stops, and then once more.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut result = self.end_left_open().await;
        loop {
            if let Err(error) = &result {
                tracing::warn!(
                    error = error as &dyn Error,
                    "When vehicles connected and went could not be stored; it is tried again."
                );
                sleep(PAUSE).await;
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.sessions.added.notified() => sleep(GATHER).await,
            }
            result = self.write().await;
        }
        if let Err(error) = self.write().await {
            tracing::warn!(error = &error as &dyn Error, "When the last vehicles went could not be stored.");
        }
    }

    async fn end_left_open(&self) -> Result<(), StoreError> {
        loop {
            let (node, now) = (self.node.clone(), self.started_at);
            let ended = self.store.write(move |tx| sessions::end_left_open(tx, &node, now)).await?;
            if ended == 0 {
                return Ok(());
            }
        }
    }

    async fn write(&self) -> Result<(), StoreError> {
        loop {
            let taken = self.sessions.take();
            if taken.is_empty() {
                return Ok(());
            }
            let (node, written) = (self.node.clone(), taken.clone());
            let stored = self.store.write::<_, StoreError>(move |tx| {
                written.iter().try_for_each(|session| sessions::write(tx, &node, session))
            });
            if let Err(error) = stored.await {
                self.sessions.put_back(taken);
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
