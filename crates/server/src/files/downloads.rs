//! What is being downloaded: how far each vehicle got, told to the desk once a second for all of them, and
//! whether it may still go on, which the desk says then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use farrier_protocol::{PkgId, Sha256, Thumbprint};
use tokio_util::sync::CancellationToken;

use crate::desk::{Download, PackageDesk, PeerIdentity};

/// How often the desk hears of progress.
const INTERVAL: Duration = Duration::from_secs(1);

type Key = (Thumbprint, PkgId, Sha256);

/// The downloads of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Downloads(Mutex<HashMap<Key, Arc<UnderWay>>>);

/// One package on its way to one vehicle, by however many requests.
#[derive(Debug)]
struct UnderWay {
    peer: PeerIdentity,
    /// The farthest byte that was served, exclusive.
    up_to_byte: AtomicU64,
    /// What of it the desk has heard.
    told: AtomicU64,
    is_over: AtomicBool,
}

/// One request's share in a download.
#[derive(Debug)]
pub(super) struct Share {
    under_way: Arc<UnderWay>,
    at_byte: u64,
}

impl Share {
    /// So many more bytes were served; whether there may be more of them.
    pub(super) fn went_on(&mut self, bytes: u64) {
        self.at_byte += bytes;
        self.under_way.up_to_byte.fetch_max(self.at_byte, Ordering::Relaxed);
    }

    /// Whether the vehicle may not have the package any more.
    pub(super) fn is_over(&self) -> bool {
        self.under_way.is_over.load(Ordering::Relaxed)
    }
}

impl Downloads {
    /// A request begins to serve a package from this byte on.
    pub(super) fn begin(&self, peer: &PeerIdentity, pkg_id: &PkgId, hash: &Sha256, at_byte: u64) -> Share {
        let key = (peer.thumbprint.clone(), pkg_id.clone(), *hash);
        let mut downloads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // One that is over ends with its requests; the desk has let this one begin anew.
        let under_way = downloads
            .entry(key)
            .and_modify(|known| {
                if known.is_over.load(Ordering::Relaxed) {
                    *known = Arc::new(UnderWay::new(peer));
                }
            })
            .or_insert_with(|| Arc::new(UnderWay::new(peer)));
        Share { under_way: Arc::clone(under_way), at_byte }
    }

    /// Tells the desk once a second, and for a last time when the endpoint has stopped.
    pub(super) async fn keep_telling<D: PackageDesk>(&self, desk: &D, stopped: CancellationToken) {
        let mut every = tokio::time::interval(INTERVAL);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = every.tick() => self.tell(desk).await,
                () = stopped.cancelled() => return self.tell(desk).await,
            }
        }
    }

    async fn tell<D: PackageDesk>(&self, desk: &D) {
        let (keys, under_way) = self.snapshot();
        let reports =
            keys.iter().zip(&under_way).map(|((_, pkg_id, hash), (under_way, up_to_byte))| Download {
                peer: under_way.peer.clone(),
                pkg_id: pkg_id.clone(),
                hash: *hash,
                up_to_byte: *up_to_byte,
            });
        let reports: Vec<_> = reports.collect();
        if reports.is_empty() {
            return;
        }
        match desk.downloading(reports).await {
            Ok(open) => {
                for ((under_way, up_to_byte), is_open) in under_way.iter().zip(open) {
                    under_way.told.store(*up_to_byte, Ordering::Relaxed);
                    if !is_open {
                        under_way.is_over.store(true, Ordering::Relaxed);
                    }
                }
                drop(under_way);
                self.forget(&keys);
            }
            // It is told again in a second; progress is for people's eyes, and each request asks anew.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "The progress of downloads was not noted.");
            }
        }
    }

    fn snapshot(&self) -> (Vec<Key>, Vec<(Arc<UnderWay>, u64)>) {
        let downloads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        downloads
            .iter()
            .map(|(key, under_way)| {
                (key.clone(), (Arc::clone(under_way), under_way.up_to_byte.load(Ordering::Relaxed)))
            })
            .unzip()
    }

    /// Forgets those that no request is about any more, if the desk has heard all of them.
    fn forget(&self, keys: &[Key]) {
        let mut downloads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            let ended = |under_way: &Arc<UnderWay>| {
                Arc::strong_count(under_way) == 1
                    && under_way.told.load(Ordering::Relaxed) == under_way.up_to_byte.load(Ordering::Relaxed)
            };
            if downloads.get(key).is_some_and(ended) {
                downloads.remove(key);
            }
        }
    }
}

impl UnderWay {
    fn new(peer: &PeerIdentity) -> Self {
        Self {
            peer: peer.clone(),
            up_to_byte: AtomicU64::new(0),
            told: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }
}
