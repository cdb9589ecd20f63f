//! `farrier group`: saved queries that select vehicles.

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{plain, print, print_json, table, thousands};

#[derive(Args)]
pub(crate) struct Group {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Save a query as a fleet group.
    Create {
        /// Name of the group.
        name: String,
        /// Which vehicles it has, as: region = "KR" and not tag = "prototype".
        query: String,
        /// A note for those who see it.
        #[arg(long)]
        note: Option<String>,
    },
    /// List the fleet groups.
    List,
    /// Show a fleet group, what it means, and how many vehicles it has.
    Show {
        /// Name of the group.
        name: String,
    },
    /// Change a fleet group's query and note.
    Change {
        /// Name of the group.
        name: String,
        /// Which vehicles it has from now on.
        query: String,
        /// Its note from now on.
        #[arg(long)]
        note: Option<String>,
    },
    /// Delete a fleet group; its vehicles stay.
    Delete {
        /// Name of the group.
        name: String,
    },
    /// Say what a query means, how many vehicles it selects, and how the database finds them.
    Explain {
        /// The query.
        query: String,
    },
}

#[derive(Deserialize)]
struct GroupAnswer {
    name: String,
    query: String,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Deserialize)]
struct Details {
    name: String,
    query: String,
    meaning: String,
    count: u64,
}

#[derive(Deserialize)]
struct Explanation {
    canonical: String,
    meaning: String,
    count: u64,
    plan: Vec<String>,
}

impl Group {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::Create { name, query, note } => {
                operator.post(&["groups"], &json!({ "name": name, "query": query, "note": note })).await?
            }
            Command::List => operator.list(&["groups"]).await?,
            Command::Show { name } => operator.get(&["groups", name]).await?,
            Command::Change { name, query, note } => {
                operator.put(&["groups", name], &json!({ "query": query, "note": note })).await?
            }
            Command::Delete { name } => operator.delete(&["groups", name]).await?,
            Command::Explain { query } => {
                operator.post(&["selections", "explain"], &json!({ "query": query })).await?
            }
        };
        if self.operator.json {
            return print_json(&answer);
        }
        print(&self.told(&answer)?)
    }

    fn told(&self, answer: &Value) -> anyhow::Result<String> {
        Ok(match &self.command {
            Command::Create { .. } | Command::Show { .. } | Command::Change { .. } => details(&read(answer)?),
            Command::List => listed(&read::<Vec<GroupAnswer>>(answer)?),
            Command::Delete { name } => format!("Deleted group {name}; its vehicles stay."),
            Command::Explain { .. } => explained(&read(answer)?),
        })
    }
}

fn lines(text: &str) -> String {
    text.lines().map(plain).collect::<Vec<_>>().join("\n")
}

fn vehicles(count: u64) -> String {
    format!("{} {}", thousands(count), if count == 1 { "vehicle" } else { "vehicles" })
}

fn details(group: &Details) -> String {
    format!(
        "Group {}: {} now\n{}\n\n{}",
        plain(&group.name),
        vehicles(group.count),
        plain(&group.query),
        lines(&group.meaning)
    )
}

fn listed(groups: &[GroupAnswer]) -> String {
    if groups.is_empty() {
        return "No groups yet. Make one: farrier group create NAME 'region = \"KR\"'".to_owned();
    }
    let rows = groups
        .iter()
        .map(|group| [group.name.clone(), group.query.clone(), group.note.clone().unwrap_or_default()]);
    table(["GROUP", "QUERY", "NOTE"], rows.collect())
}

fn explained(explanation: &Explanation) -> String {
    format!(
        "{}\n\n{}\n\n{} now. The database goes:\n{}",
        plain(&explanation.canonical),
        lines(&explanation.meaning),
        vehicles(explanation.count),
        explanation.plan.iter().map(|line| format!("  {}", plain(line))).collect::<Vec<_>>().join("\n")
    )
}
