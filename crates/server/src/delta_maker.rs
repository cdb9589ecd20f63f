//! Makes the deltas that are wanted, one after the other, beside everything else the server does.
//! What is wanted is rows of the store, so that a restart forgets none and makes none twice.

use std::error::Error;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farrier_campaign::DeltaSettings;
use farrier_delta::DeltaReader;
use farrier_protocol::Sha256;
use futures_util::stream;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::artifacts::Artifacts;
use crate::desk::WallClock;
use crate::release_signature::ReleaseSignature;
use crate::store::deltas::{self, MadeDelta, WantedDelta};
use crate::store::{Store, StoreError};

/// How often it looks for what is wanted without being told.
const LOOK: Duration = Duration::from_secs(60);
/// After the store has failed.
const PAUSE: Duration = Duration::from_secs(10);
/// zstd's levels by which an image is measured: the best one that is bearable for its length.
const LEVEL: i32 = 19;
const LEVEL_OF_LARGE: i32 = 9;
/// An image beyond this length is large (64 MiB).
const LARGE_BYTES: u64 = 64 << 20;

/// Makes deltas until the server stops.
pub(crate) struct DeltaMaker {
    pub(crate) store: Store,
    pub(crate) artifacts: Artifacts,
    pub(crate) signature: Arc<ReleaseSignature>,
    pub(crate) settings: DeltaSettings,
    pub(crate) clock: WallClock,
    /// What this server is called among those that share its store.
    pub(crate) node: String,
    /// Notified when another delta is wanted.
    pub(crate) wanted: Arc<Notify>,
}

/// What came of the computing, before anything is stored.
enum Computed {
    /// Clearly smaller, and shown to rebuild the image.
    Delta {
        octets: Vec<u8>,
        compressed_image_bytes: u64,
    },
    NotSmaller {
        size_bytes: u64,
        compressed_image_bytes: u64,
    },
}

impl DeltaMaker {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        if self.settings.at_most_percent == 0 {
            return;
        }
        if !self.signature.can_sign() {
            tracing::warn!(
                "No deltas are made, since this server has no release key to sign them: vehicles get full images."
            );
            return;
        }
        if let Err(error) = self.store.write(deltas::want_failed_again).await {
            tracing::error!(error = &error as &dyn Error, "Deltas that failed are not tried again.");
        }
        while !shutdown.is_cancelled() {
            let next = async {
                match self.make_next().await {
                    Ok(true) => {}
                    Ok(false) => {
                        // Another server may have gone before it made what it had claimed.
                        let _ = timeout(LOOK, self.wanted.notified()).await;
                    }
                    Err(error) => {
                        tracing::error!(
                            error = &error as &dyn Error,
                            "The store failed the making of deltas."
                        );
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = next => {}
            }
        }
    }

    /// Makes the delta that is wanted most; says whether there was one.
    pub(crate) async fn make_next(&self) -> Result<bool, StoreError> {
        let (node, now) = (self.node.clone(), (self.clock)());
        let claimed = self.store.write(move |tx| deltas::claim_next_wanted(tx, &node, now));
        let Some(wanted) = claimed.await? else { return Ok(false) };
        let made = match self.make(&wanted).await {
            Ok(made) => made,
            Err(error) => MadeDelta::Failed(with_causes(error.as_ref())),
        };
        log(&wanted, &made);
        let now = (self.clock)();
        self.store.write(move |tx| deltas::made(tx, &wanted, &made, now)).await?;
        Ok(true)
    }

    async fn make(&self, wanted: &WantedDelta) -> Result<MadeDelta, Box<dyn Error + Send + Sync>> {
        let most = self.settings.largest_image_mib.saturating_mul(1 << 20);
        if wanted.from_bytes.max(wanted.image_bytes) > most {
            let limit = self.settings.largest_image_mib;
            return Err(format!(
                "expected images of at most {limit} MiB, found larger ones; raise deltas.largest_image_mib"
            )
            .into());
        }
        let computing = Computing {
            wanted: wanted.clone(),
            from: self.artifacts.path(&wanted.from),
            image: self.artifacts.path(&wanted.image),
            settings: self.settings.clone(),
        };
        let (octets, compressed_image_bytes) = match computing.on_own_thread().await? {
            Computed::Delta { octets, compressed_image_bytes } => (octets, compressed_image_bytes),
            Computed::NotSmaller { size_bytes, compressed_image_bytes } => {
                return Ok(MadeDelta::NotSmaller { size_bytes, compressed_image_bytes });
            }
        };
        let (sha256, size_bytes) = (Sha256::of(&octets), octets.len() as u64);
        let whole = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from(octets))]);
        let written = self.artifacts.write(sha256, size_bytes, whole).await?;
        let signature = self.signature.settle(&written.digest, None)?;
        self.artifacts.keep(written).await?;
        Ok(MadeDelta::Ready { sha256, size_bytes, signature, compressed_image_bytes })
    }
}

/// One delta's computing: seconds to minutes of one core.
struct Computing {
    wanted: WantedDelta,
    from: PathBuf,
    image: PathBuf,
    settings: DeltaSettings,
}

impl Computing {
    /// Not on the runtime's threads for blocking work: a server that stops waits for those, and what is
    /// computed here is wanted again at the next start.
    async fn on_own_thread(self) -> Result<Computed, Box<dyn Error + Send + Sync>> {
        let (reply, computed) = oneshot::channel();
        std::thread::Builder::new().name("delta".to_owned()).spawn(move || {
            // Nobody listens any more only when the server stops.
            drop(reply.send(self.compute()));
        })?;
        computed.await.map_err(|_| "the computing ended by a panic")?
    }

    fn compute(self) -> Result<Computed, Box<dyn Error + Send + Sync>> {
        let (from, image) = (std::fs::read(&self.from)?, std::fs::read(&self.image)?);
        let octets = farrier_delta::make(&from, &image)?;
        let mut reader = DeltaReader::open(Cursor::new(&octets))?;
        let made_of = (Sha256::from(reader.header().old_sha256), Sha256::from(reader.header().new_sha256));
        if made_of != (self.wanted.from, self.wanted.image) {
            return Err(
                "an image's file is damaged: its digest is not its name; upload the image again".into()
            );
        }
        let compressed_image_bytes = match self.wanted.compressed_image_bytes {
            Some(bytes) => bytes,
            None => compressed_bytes(&image)?,
        };
        let size_bytes = octets.len() as u64;
        if !self.settings.is_clearly_smaller(size_bytes, compressed_image_bytes) {
            return Ok(Computed::NotSmaller { size_bytes, compressed_image_bytes });
        }
        // Vehicles rely on it: it is applied once before any of them gets it.
        reader.apply(&mut Cursor::new(&from), &mut std::io::sink())?;
        Ok(Computed::Delta { octets, compressed_image_bytes })
    }
}

fn compressed_bytes(image: &[u8]) -> std::io::Result<u64> {
    let level = if image.len() as u64 <= LARGE_BYTES { LEVEL } else { LEVEL_OF_LARGE };
    Ok(zstd::bulk::compress(image, level)?.len() as u64)
}

fn log(wanted: &WantedDelta, made: &MadeDelta) {
    let (from, image) = (&wanted.from, &wanted.image);
    match made {
        MadeDelta::Ready { size_bytes, compressed_image_bytes, .. } => {
            tracing::info!(%from, %image, size_bytes, compressed_image_bytes, "A delta is ready.");
        }
        MadeDelta::NotSmaller { size_bytes, compressed_image_bytes } => tracing::info!(
            %from, %image, size_bytes, compressed_image_bytes,
            "A delta is not clearly smaller than the compressed image, and is not kept."
        ),
        MadeDelta::Failed(why) => {
            tracing::error!(%from, %image, why, "A delta could not be made; vehicles get the full image.");
        }
    }
}

/// The error's sentence, and those of its causes.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence.push_str(&format!(": {error}"));
        cause = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests;
