//! Who is in a campaign and in which order, as it is said and shown on the command line.

use clap::Args;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::output::plain;

#[derive(Args)]
pub(crate) struct IntakeArgs {
    /// Also take in vehicles that the query, or that of the group, comes to have later.
    #[arg(long)]
    follow: bool,
    /// Of two campaigns that want a vehicle, the one with the higher number goes first: 0 to 1000, 500 where it is not said.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(0..=1000))]
    priority: Option<u16>,
    /// A campaign whose vehicles are left alone; can be given several times.
    #[arg(long = "exclude-campaign", value_name = "CAMPAIGN")]
    excludes: Vec<String>,
    /// Start only once a second person has approved it.
    #[arg(long)]
    needs_approval: bool,
}

impl IntakeArgs {
    /// What the API takes; nothing of what was not said.
    pub(crate) fn body(&self) -> [(&'static str, Option<Value>); 4] {
        [
            ("follows", self.follow.then_some(json!(true))),
            ("priority", self.priority.map(Value::from)),
            ("excludes", (!self.excludes.is_empty()).then(|| json!(self.excludes))),
            ("needs_approval", self.needs_approval.then_some(json!(true))),
        ]
    }
}

/// What the API says of it.
#[derive(Deserialize)]
pub(crate) struct Intake {
    #[serde(default)]
    query: Option<String>,
    #[serde(default)]
    follows: bool,
    #[serde(default = "usual")]
    pub(crate) priority: u64,
    #[serde(default)]
    excludes: Vec<String>,
    #[serde(default)]
    made_by: Option<String>,
    #[serde(default)]
    started_by: Option<String>,
}

fn usual() -> u64 {
    500
}

impl Intake {
    /// Lines, each after a line break; what is as always is not said.
    pub(crate) fn shown(&self) -> String {
        let mut text = String::new();
        if let Some(query) = &self.query {
            let how = if self.follows { "Follows" } else { "Vehicles that matched" };
            text.push_str(&format!("\n{how}: {}", plain(query)));
        }
        if self.priority != usual() {
            text.push_str(&format!("\nPriority: {}", self.priority));
        }
        if !self.excludes.is_empty() {
            text.push_str(&format!("\nLeaves alone the vehicles of: {}", plain(&self.excludes.join(", "))));
        }
        let people = [("planned by", &self.made_by), ("started by", &self.started_by)];
        let people: Vec<_> = people
            .iter()
            .filter_map(|(what, who)| who.as_ref().map(|who| format!("{what} {}", plain(who))))
            .collect();
        if !people.is_empty() {
            text.push_str(&format!("\nBy: {}", people.join(", ")));
        }
        text
    }
}
