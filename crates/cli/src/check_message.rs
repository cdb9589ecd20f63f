//! `farrier check-message`: the protocol's checks for people who write their own gateway.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use farrier_protocol::{CheckTopic, Refused, ServerMessage, Verdict, check_message};

use crate::output::print;

/// What `--topic` takes.
const TOPICS: [&str; 6] = ["wakeup", "vci", "readiness", "result", "error", "down"];

/// Prints one JSON line; exits with 0 if the message is accepted, 1 if it is refused, 2 if it cannot be checked.
#[derive(Args)]
pub(crate) struct CheckMessage {
    /// The topic that the message is sent on; `down` checks a command of the server.
    #[arg(long, value_parser = PossibleValuesParser::new(TOPICS).try_map(|name| name.parse::<CheckTopic>()))]
    topic: CheckTopic,

    /// The server's command that the message answers, as JSON: checks the answer against it.
    #[arg(long, value_name = "COMMAND.json")]
    in_reply_to: Option<PathBuf>,

    /// The message; `-` reads it from stdin.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

impl CheckMessage {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let verdict = match self.check() {
            Ok(verdict) => verdict,
            Err(error) => {
                crate::report(&error);
                return Ok(ExitCode::from(2));
            }
        };
        print(&serde_json::to_string(&verdict)?)?;
        Ok(match verdict {
            Verdict::Accepted { .. } => ExitCode::SUCCESS,
            Verdict::Refused(_) => ExitCode::FAILURE,
        })
    }

    fn check(&self) -> anyhow::Result<Verdict> {
        if self.topic == CheckTopic::Down && self.in_reply_to.is_some() {
            bail!("--in-reply-to belongs to answers of a vehicle; leave it out with --topic down");
        }
        let command = self.in_reply_to.as_deref().map(read_command).transpose()?;
        let message = read_bounded(&self.file, self.topic.max_payload_bytes())?;
        Ok(check_message(self.topic, &message, command.as_ref()))
    }
}

fn read_command(path: &Path) -> anyhow::Result<ServerMessage> {
    let bytes = read_bounded(path, CheckTopic::Down.max_payload_bytes())?;
    ServerMessage::parse(&bytes).map_err(Refused::into_refusal).with_context(|| {
        let path = path.display();
        format!("{path} is no command of the server; see `farrier check-message --topic down {path}`")
    })
}

/// Reads one byte more than allowed, so that a message that is too large is seen to be.
fn read_bounded(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}; name a file that exists, or - for stdin", path.display()))?;
    Ok(bytes)
}
