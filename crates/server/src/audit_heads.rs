//! Notes where the audit log ends, in a file beside the store: whoever copies that file elsewhere can prove later that
//! nothing was cut off or written anew.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::audit::{AuditHead, BEFORE_THE_FIRST, HEADS_FILE};
use crate::desk::WallClock;
use crate::store::{Store, StoreError, audit};

/// How often the log's end is looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Notes the ends of one server's log.
pub(crate) struct HeadNotes {
    store: Store,
    clock: WallClock,
    path: PathBuf,
    noted: AuditHead,
}

impl HeadNotes {
    pub(crate) fn new(store: Store, clock: WallClock, data: &Path) -> Self {
        Self { store, clock, path: data.join(HEADS_FILE), noted: BEFORE_THE_FIRST }
    }

    /// Notes each end that is new, until the server stops, and then once more.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            self.note().await;
            tokio::select! {
                () = shutdown.cancelled() => return self.note().await,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn note(&mut self) {
        let head = match self.store.read::<_, StoreError>(audit::head).await {
            Ok(head) if head == self.noted => return,
            Ok(head) => head,
            Err(error) => return tracing::warn!(%error, "The end of the audit log cannot be read."),
        };
        let (path, line) = (self.path.clone(), format!("{} {head}\n", (self.clock)().0));
        let written = tokio::task::spawn_blocking(move || append(&path, &line)).await;
        match written {
            Ok(Ok(())) => self.noted = head,
            Ok(Err(error)) => {
                tracing::error!(path = %self.path.display(), %error, "The end of the audit log cannot be noted.")
            }
            Err(error) => tracing::error!(%error, "The end of the audit log was not noted."),
        }
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
}
