//! Asks the driver before an install: what for, how long, what is not usable meanwhile (UN R156 7.2.2.2).

use std::io;
use std::path::Path;
use std::process::Stdio;

use farrier_vehicle_update::Plan;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::config::{Consent, ConsentSettings};

/// The longest answer of a socket that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 4_096;

/// The question as programs get it.
#[derive(Debug, Serialize)]
struct Question {
    update_id: String,
    /// For the driver.
    purpose: String,
    /// Seconds.
    duration_s: u64,
    not_usable: String,
    /// When the question is withdrawn, Unix time in milliseconds.
    answer_by_ms: i64,
}

#[derive(Debug, Deserialize)]
struct Answer {
    agrees: bool,
}

/// The driver cannot be asked at the moment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsentError {
    #[error("cannot ask the driver by {by}; check consent.ask in the settings")]
    Unreachable {
        by: String,
        #[source]
        source: io::Error,
    },
    #[error("expected {by} to answer the question for the driver, found {found}")]
    NoAnswer { by: String, found: String },
}

/// Whether the driver agrees. May take as long as people take; dropping it withdraws the question.
pub(crate) async fn ask(settings: &ConsentSettings, plan: &Plan) -> Result<bool, ConsentError> {
    let question = serde_json::to_string(&question(settings, plan)).unwrap_or_default();
    match &settings.ask {
        Consent::Auto => Ok(true),
        Consent::Command(program) => ask_program(program, question).await,
        Consent::Socket(path) => ask_socket(path, question).await,
    }
}

fn question(settings: &ConsentSettings, plan: &Plan) -> Question {
    let ecus: Vec<String> = plan
        .start
        .packages
        .iter()
        .map(|package| format!("{} to version {}", package.target_component, package.target_version))
        .collect();
    Question {
        update_id: plan.update_id().to_string(),
        purpose: format!("Software update of {}", ecus.join(", ")),
        duration_s: settings.duration_s,
        not_usable: settings.not_usable.clone(),
        answer_by_ms: plan.start.expires_at_ms.0,
    }
}

async fn ask_program(program: &[String], question: String) -> Result<bool, ConsentError> {
    let Some((name, arguments)) = program.split_first() else { return Ok(false) };
    let unreachable = |source| ConsentError::Unreachable { by: name.clone(), source };
    let mut child = Command::new(name)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(unreachable)?;
    if let Some(mut input) = child.stdin.take() {
        // A program that does not want to know what it asks may close its input; its answer counts all the same.
        input.write_all(question.as_bytes()).await.ok();
    }
    let status = child.wait().await.map_err(unreachable)?;
    match status.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        Some(_) | None => Err(ConsentError::NoAnswer { by: name.clone(), found: status.to_string() }),
    }
}

async fn ask_socket(path: &Path, question: String) -> Result<bool, ConsentError> {
    let by = path.display().to_string();
    let asked = async {
        let mut socket = UnixStream::connect(path).await?;
        socket.write_all(format!("{question}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(socket.take(MAX_ANSWER_BYTES)).read_line(&mut answer).await?;
        Ok(answer)
    };
    let answer = asked.await.map_err(|source| ConsentError::Unreachable { by: by.clone(), source })?;
    let answer: Result<Answer, _> = serde_json::from_str(&answer);
    answer
        .map(|answer| answer.agrees)
        .map_err(|error| ConsentError::NoAnswer { by, found: error.to_string() })
}
