//! Takes a sample of the fleet and its campaigns every minute, for the console's charts, and goes on looking for silent vehicles.
//! Looking is reading, beside what vehicles say; written is only what was found.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use farrier_protocol::UnixMillis;
use tokio_util::sync::CancellationToken;

use crate::conversation::{self, Rules};
use crate::desk::WallClock;
use crate::mqtt::Connections;
use crate::store::samples::{self, Step};
use crate::store::{Store, StoreError, silent};

/// Takes samples until the server stops.
pub(crate) struct Sampler {
    pub(crate) store: Store,
    pub(crate) rules: Arc<Rules>,
    pub(crate) clock: WallClock,
    pub(crate) connections: Arc<Connections>,
}

impl Sampler {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.sample().await {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "A sample for the console's charts could not be taken; the next one is in a minute."
                );
            }
            let to_the_minute =
                Step::Minute.ms().saturating_sub((self.clock)().0.rem_euclid(Step::Minute.ms()));
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(Duration::from_millis(to_the_minute.unsigned_abs())) => {}
            }
        }
    }

    async fn sample(&self) -> Result<(), StoreError> {
        take(&self.store, &self.rules, self.connections.number(), (self.clock)()).await.map(drop)
    }
}

/// Takes the sample of this minute, with so many vehicles connected to this server; says whether there was none yet.
pub(crate) async fn take(
    store: &Store,
    rules: &Arc<Rules>,
    connected_here: usize,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let rules = Arc::clone(rules);
    let found = store.read::<_, StoreError>(move |tx| {
        let connected = conversation::number_there(tx, &rules, connected_here, now)?;
        let Some(sample) = samples::look(tx, connected, now)? else { return Ok(None) };
        Ok(Some((sample, silent::look(tx, now, silent::AT_A_TIME)?)))
    });
    let Some((sample, silent)) = found.await? else { return Ok(false) };
    store
        .write(move |tx| {
            let is_kept = samples::keep(tx, &sample)?;
            if is_kept {
                silent::keep(tx, &silent)?;
            }
            Ok(is_kept)
        })
        .await
}

#[cfg(test)]
mod tests;
