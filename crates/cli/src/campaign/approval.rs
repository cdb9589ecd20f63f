//! Approval by a second person, as it is said and shown on the command line.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::output::plain;

#[derive(Args)]
pub(crate) struct Word {
    /// Name of the campaign.
    name: String,
    /// The wave that is meant, from 1; without it the start of the campaign.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    wave: Option<u32>,
    /// What was looked at, or what is wrong; it stays with the campaign and in the audit log.
    #[arg(long)]
    remark: String,
}

impl Word {
    pub(crate) async fn say(&self, operator: &Operator, what: &str) -> anyhow::Result<Value> {
        let mut body = json!({ "remark": self.remark });
        if let (Some(wave), Some(fields)) = (self.wave, body.as_object_mut()) {
            fields.insert("wave".to_owned(), json!(wave));
        }
        Ok(operator.post(&["campaigns", &self.name, what], &body).await?)
    }

    /// What was done, for people.
    pub(crate) fn said(&self, what: &str) -> String {
        let name = &self.name;
        match (self.wave, what) {
            (Some(wave), _) => {
                format!("{what} wave {wave} of campaign {name}. See it: farrier campaign show {name}")
            }
            (None, "Approved") => format!("{what} campaign {name}. Next: farrier campaign start {name}"),
            (None, _) => format!("{what} campaign {name}: it does not start until somebody approves it."),
        }
    }
}

/// How the approval of a campaign stands.
#[derive(Default, Deserialize)]
pub(crate) struct Approval {
    #[serde(default)]
    state: String,
    #[serde(default)]
    words: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    wave: Option<u32>,
    approved: bool,
    by: String,
    remark: String,
}

impl Approval {
    /// The command that a planned campaign waits for.
    pub(crate) fn next(&self, name: &str) -> String {
        match self.state.as_str() {
            "waiting" | "rejected" => {
                format!("farrier campaign approve {name} --remark WORDS, said by a second person")
            }
            _ => format!("farrier campaign start {name}"),
        }
    }

    /// Lines, each after a line break: all that was said.
    pub(crate) fn shown(&self) -> String {
        let line = |said: &Said| {
            let what = if said.approved { "Approved" } else { "Rejected" };
            let wave = said.wave.map(|wave| format!(" wave {wave}")).unwrap_or_default();
            format!("\n{what}{wave} by {}: {}", plain(&said.by), plain(&said.remark))
        };
        self.words.iter().map(line).collect()
    }
}
