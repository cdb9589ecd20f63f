//! `farrier security-events`: what tells whether senders can be trusted.

use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, print, print_json, table, thousands};

#[derive(Args)]
pub(crate) struct SecurityEvents {
    #[command(flatten)]
    operator: OperatorArgs,
    /// How many at most, the newest.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

#[derive(Deserialize)]
struct EventAnswer {
    kind: String,
    subject: String,
    detail: String,
    first_at_ms: i64,
    last_at_ms: i64,
    times: u64,
}

impl SecurityEvents {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        let page = operator.get_with(&["security-events"], &[("limit", &self.limit.to_string())]).await?;
        if self.operator.json {
            return print_json(&page);
        }
        let mut events: Vec<EventAnswer> = read(page.get("items").unwrap_or(&Value::Null))?;
        if events.is_empty() {
            return print("No security events.");
        }
        events.reverse();
        let rows = events.into_iter().map(|event| {
            [
                moment(Some(event.first_at_ms)),
                moment(Some(event.last_at_ms)),
                thousands(event.times),
                event.kind,
                event.subject,
                event.detail,
            ]
        });
        print(&table(["FIRST", "LAST", "TIMES", "KIND", "WHO", "DETAIL"], rows.collect()))
    }
}
