//! What is stated of a campaign for the record of its updates (UN R156), as it is said on the command line.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value};

#[derive(Args)]
pub(crate) struct StatementArgs {
    /// Why the software is updated (UN R156, 7.1.2.5 a).
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
    /// The systems and functions that the update may affect (7.1.2.5 b).
    #[arg(long, value_name = "TEXT")]
    affects: Option<String>,
    /// Whether an approval was sought, and its reference (7.1.2.5 f).
    #[arg(long, value_name = "TEXT")]
    approval: Option<String>,
    /// How and under which conditions the update may be executed (7.1.2.5 g).
    #[arg(long, value_name = "TEXT")]
    conditions: Option<String>,
    /// What the user is told (7.1.1.11).
    #[arg(long, value_name = "TEXT")]
    user_information: Option<String>,
    /// All that is stated from a JSON file, as the API takes it; what options say comes first.
    #[arg(long, value_name = "FILE")]
    statement: Option<PathBuf>,
}

impl StatementArgs {
    /// What the API takes; `None` where nothing was said.
    pub(crate) fn body(&self) -> anyhow::Result<Option<Value>> {
        let mut statement: Map<String, Value> = match &self.statement {
            None => Map::new(),
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
                serde_json::from_str(&text)
                    .with_context(|| format!("{}: expected a statement as a JSON object", path.display()))?
            }
        };
        let said = [
            ("purpose", &self.purpose),
            ("functions_affected", &self.affects),
            ("approval", &self.approval),
            ("execution_conditions", &self.conditions),
            ("user_information", &self.user_information),
        ];
        for (key, text) in said {
            if let Some(text) = text {
                statement.insert(key.to_owned(), Value::from(text.as_str()));
            }
        }
        Ok((!statement.is_empty()).then_some(Value::Object(statement)))
    }
}
