//! Tells local programs what the gateway is doing: each connection to `status.sock` in the state folder gets the
//! present status as one JSON object.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farrier_vehicle_update::Ending;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use crate::journal::fault_text;
use crate::status::Status;

/// How long a program may take to read or to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 1024 * 1024;

/// The status as local programs get it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// Whether the server is connected.
    pub connected: bool,
    /// What was found when the journal was damaged, until a workshop has cleared that: no update is taken on.
    pub journal_fault: Option<String>,
    /// The update under way, or the last one.
    pub update_id: Option<String>,
    /// Where it stands.
    pub phase: Option<String>,
    /// What it waits for, where it waits.
    pub waits_for: Option<String>,
    /// Bytes of its packages that are here.
    pub downloaded_bytes: u64,
    /// Bytes of its packages in all.
    pub download_total_bytes: u64,
    /// Bytes written and bytes of the image, for each ECU.
    pub ecus: BTreeMap<String, WrittenReport>,
    /// How it ended, once it has.
    pub ending: Option<String>,
}

/// How far one ECU is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenReport {
    /// Bytes written into its inactive bank.
    pub written_bytes: u64,
    /// Bytes of its image.
    pub total_bytes: u64,
}

impl From<&Status> for StatusReport {
    fn from(status: &Status) -> Self {
        let written = |ecu: &crate::status::EcuProgress| WrittenReport {
            written_bytes: ecu.written_bytes,
            total_bytes: ecu.total_bytes,
        };
        Self {
            connected: status.connected,
            journal_fault: status.journal_fault.clone(),
            update_id: status.update_id.as_ref().map(ToString::to_string),
            phase: status.phase.map(|phase| phase.to_string()),
            waits_for: status.waits_for.clone(),
            downloaded_bytes: status.downloaded_bytes,
            download_total_bytes: status.download_total_bytes,
            ecus: status.ecus.iter().map(|(ecu_id, ecu)| (ecu_id.to_string(), written(ecu))).collect(),
            ending: status.ending.as_ref().map(ending),
        }
    }
}

fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Committed => "committed".to_owned(),
        Ending::Undone => "undone".to_owned(),
        Ending::Cancelled => "cancelled".to_owned(),
        Ending::ConsentDenied(why) => format!("consent denied: {}", why.detail),
        Ending::RolledBack(why) => format!("rolled back: {}", why.detail),
        Ending::ServiceRequired(why) => format!("service required: {}", why.detail),
    }
}

impl StatusReport {
    /// Asks the gateway that works on a state folder; blocks for a few seconds at most.
    ///
    /// # Errors
    /// No gateway is at work there, or it does not answer.
    pub async fn ask(state_dir: &Path) -> io::Result<Self> {
        let asked = async {
            let mut answer = Vec::new();
            let socket = UnixStream::connect(path(state_dir)).await?;
            socket.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
            serde_json::from_slice(&answer).map_err(io::Error::other)
        };
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|late| Err(io::Error::other(late)))
    }

    /// For people, a few lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines =
            vec![format!("server      {}", if self.connected { "connected" } else { "not connected" })];
        lines.extend(self.journal_fault.iter().map(|found| format!("journal     {}", fault_text(found))));
        let Some(update_id) = &self.update_id else {
            lines.push("update      none".to_owned());
            return lines;
        };
        let phase = self.phase.as_deref().unwrap_or("unknown");
        lines.push(format!("update      {update_id}: {phase}"));
        lines.extend(self.waits_for.iter().map(|what| format!("waits for   {what}")));
        lines.push(format!("downloaded  {} of {} bytes", self.downloaded_bytes, self.download_total_bytes));
        lines.extend(self.ecus.iter().map(|(ecu_id, ecu)| {
            format!("written     {ecu_id}: {} of {} bytes", ecu.written_bytes, ecu.total_bytes)
        }));
        lines.extend(self.ending.iter().map(|ending| format!("ended       {ending}")));
        lines
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("status.sock")
}

/// Answers until it is dropped. A gateway whose status cannot be told works all the same.
pub(crate) async fn serve(state_dir: PathBuf, status: watch::Receiver<Status>) {
    let path = path(&state_dir);
    // One that a power cut left behind; the journal's lock says that no other gateway is here.
    std::fs::remove_file(&path).ok();
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "The status cannot be told to local programs.");
            return std::future::pending().await;
        }
    };
    loop {
        let Ok((mut socket, _)) = listener.accept().await else {
            // Out of file descriptors, for example: the rest of the gateway comes first.
            tokio::time::sleep(PATIENCE).await;
            continue;
        };
        let report = StatusReport::from(&*status.borrow());
        let answer = serde_json::to_vec(&report).unwrap_or_default();
        tokio::time::timeout(PATIENCE, socket.write_all(&answer)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn local_programs_get_the_present_status() {
        let folder = tempfile::tempdir().unwrap();
        assert!(StatusReport::ask(folder.path()).await.is_err(), "no gateway is at work");
        // A stale socket is no obstacle.
        drop(std::os::unix::net::UnixListener::bind(path(folder.path())).unwrap());
        let (sender, receiver) = watch::channel(Status::default());
        let serving = serve(folder.path().to_owned(), receiver);
        let asking = async {
            let report = loop {
                // Until the listener is there.
                if let Ok(report) = StatusReport::ask(folder.path()).await {
                    break report;
                }
                tokio::task::yield_now().await;
            };
            assert_eq!(report.lines(), ["server      not connected", "update      none"]);
            sender.send_modify(|status| {
                status.journal_fault = Some("an earlier state of it".to_owned());
                status.update_id = Some("UPD_1".parse().unwrap());
                status.phase = Some(farrier_vehicle_update::Phase::Waiting);
                status.waits_for = Some("the vehicle (VEHICLE_MOVING)".to_owned());
                status.ecus.insert("ecu_1".parse().unwrap(), Default::default());
                status.ending = Some(Ending::Committed);
            });
            StatusReport::ask(folder.path()).await.unwrap()
        };
        let report = tokio::select! {
            () = serving => panic!("it serves for ever"),
            report = asking => report,
        };
        let lines = report.lines().join("\n");
        for part in [
            "journal     was damaged (found an earlier state of it); have the vehicle checked",
            "UPD_1: waiting",
            "waits for   the vehicle (VEHICLE_MOVING)",
            "ecu_1: 0 of 0",
            "ended       committed",
        ] {
            assert!(lines.contains(part), "{part}: {lines}");
        }
    }
}
