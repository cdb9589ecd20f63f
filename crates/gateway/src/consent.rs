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

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::image_store::tests::plan;

    fn settings(ask: Consent) -> ConsentSettings {
        ConsentSettings { ask, ..ConsentSettings::default() }
    }

    fn program(script: &str) -> ConsentSettings {
        settings(Consent::Command(["sh", "-c", script].map(str::to_owned).to_vec()))
    }

    async fn asked(settings: &ConsentSettings) -> Result<bool, ConsentError> {
        ask(settings, &plan("2.0", &[("brake", b"x"), ("door", b"y")])).await
    }

    #[tokio::test]
    async fn a_program_gets_the_whole_question_and_its_exit_status_is_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("question.json");
        let script = format!("cat > {}", said.display());
        assert!(asked(&program(&script)).await.unwrap());
        let question: serde_json::Value = serde_json::from_slice(&std::fs::read(said).unwrap()).unwrap();
        assert_eq!(question["purpose"], "Software update of brake to version 2.0, door to version 2.0");
        assert_eq!(
            (question["duration_s"].as_u64(), question["update_id"].as_str()),
            (Some(900), Some("UPD_1"))
        );
        assert!(question["not_usable"].as_str().unwrap().contains("cannot be driven"));

        assert!(!asked(&program("exit 1")).await.unwrap());
        let crashed = asked(&program("exit 3")).await.unwrap_err();
        assert!(matches!(&crashed, ConsentError::NoAnswer { .. }), "a crash is no answer: {crashed}");
        let missing = settings(Consent::Command(vec!["/no/such/program".to_owned()]));
        assert!(matches!(asked(&missing).await, Err(ConsentError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn a_socket_is_asked_in_one_line_and_answers_in_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hmi.sock");
        let settings = settings(Consent::Socket(path.clone()));
        assert!(matches!(asked(&settings).await, Err(ConsentError::Unreachable { .. })));
        let listener = UnixListener::bind(&path).unwrap();
        for (answer, expected) in
            [("{\"agrees\": true}\n", Some(true)), ("{\"agrees\":false}", Some(false)), ("", None)]
        {
            let driver = async {
                let (socket, _) = listener.accept().await.unwrap();
                let mut socket = BufReader::new(socket);
                let mut question = String::new();
                socket.read_line(&mut question).await.unwrap();
                assert!(question.contains("Software update of brake"), "{question}");
                socket.get_mut().write_all(answer.as_bytes()).await.unwrap();
            };
            let (asked, ()) = tokio::join!(asked(&settings), driver);
            match expected {
                Some(expected) => assert_eq!(asked.unwrap(), expected),
                None => assert!(matches!(asked, Err(ConsentError::NoAnswer { .. }))),
            }
        }
    }
}
