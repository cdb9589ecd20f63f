//! `farrier webhook`: sends what changes to other programs, and shows what was delivered.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{moment, plain, print, print_json, table, thousands};

/// How long a test waits for the receiver: longer than the server does.
const TEST_TIME: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct Webhook {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a webhook; its secret is shown once.
    Create {
        /// Name of the webhook.
        name: String,
        /// Where changes are sent, https://.
        url: String,
        /// Which changes: campaign.started, campaign.*, or *.
        #[arg(long = "type", value_name = "TYPE", required = true)]
        types: Vec<String>,
        /// A note for those who see it.
        #[arg(long)]
        note: Option<String>,
    },
    /// List the webhooks.
    List,
    /// Show a webhook.
    Show {
        /// Name of the webhook.
        name: String,
    },
    /// Change a webhook; what is not given stays.
    Change {
        /// Name of the webhook.
        name: String,
        /// Where changes are sent from now on.
        #[arg(long)]
        url: Option<String>,
        /// Which changes from now on.
        #[arg(long = "type", value_name = "TYPE")]
        types: Vec<String>,
        /// Its note from now on.
        #[arg(long)]
        note: Option<String>,
        /// Send to it again.
        #[arg(long, conflicts_with = "disable")]
        enable: bool,
        /// Send nothing to it.
        #[arg(long)]
        disable: bool,
    },
    /// Give a webhook a new secret; for a day the earlier one signs too.
    RotateSecret {
        /// Name of the webhook.
        name: String,
    },
    /// Delete a webhook with what it has still to deliver.
    Delete {
        /// Name of the webhook.
        name: String,
    },
    /// Send a test to a webhook, and say what came of it.
    Test {
        /// Name of the webhook.
        name: String,
    },
    /// List what a webhook has to deliver and has delivered, newest first.
    Deliveries {
        /// Name of the webhook.
        name: String,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Deliver something once more, under the same id.
    Redeliver {
        /// Name of the webhook.
        name: String,
        /// The delivery, as the list of deliveries names it.
        delivery: String,
    },
}

#[derive(Deserialize)]
struct WebhookAnswer {
    name: String,
    url: String,
    types: Vec<String>,
    enabled: bool,
    #[serde(default)]
    disabled_because: Option<String>,
    dropped: u64,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    earlier_secret_until_ms: Option<i64>,
    #[serde(default)]
    secret: Option<String>,
}

#[derive(Deserialize)]
struct DeliveryAnswer {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    state: String,
    attempts: u64,
    created_at_ms: i64,
    #[serde(default)]
    next_at_ms: Option<i64>,
    #[serde(default)]
    duration_ms: Option<u64>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    outcome: Option<String>,
}

impl Webhook {
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let operator = Operator::new(&self.operator)?;
        if let Command::Test { name } = &self.command {
            return self.test(&operator, name).await;
        }
        let answer = self.ask(&operator).await?;
        if self.operator.json {
            return print_json(&answer);
        }
        match &self.command {
            Command::List => print(&listed(&read::<Vec<WebhookAnswer>>(&answer)?)),
            Command::Show { .. } | Command::Change { .. } => print(&described(&read(&answer)?)),
            Command::Create { .. } | Command::RotateSecret { .. } => {
                let made: WebhookAnswer = read(&answer)?;
                let secret = plain(made.secret.as_deref().unwrap_or_default());
                print(&format!(
                    "{secret}\n\nThis is what webhook {} signs with. Keep it now: it is not shown again.\n\n{}",
                    plain(&made.name),
                    described(&made)
                ))
            }
            Command::Delete { name } => {
                print(&format!("Deleted webhook {name}; nothing more is sent to it."))
            }
            Command::Deliveries { .. } => {
                print(&deliveries(&read::<Vec<DeliveryAnswer>>(answer.get("items").unwrap_or(&Value::Null))?))
            }
            Command::Redeliver { delivery, .. } => print(&format!("Delivery {delivery} goes out again.")),
            Command::Test { .. } => Ok(()),
        }
    }

    async fn ask(&self, operator: &Operator) -> anyhow::Result<Value> {
        Ok(match &self.command {
            Command::Create { name, url, types, note } => {
                let body = json!({"name": name, "url": url, "types": types, "note": note});
                operator.post(&["webhooks"], &body).await?
            }
            Command::List => operator.list(&["webhooks"]).await?,
            Command::Show { name } => operator.get(&["webhooks", name]).await?,
            Command::Change { name, url, types, note, enable, disable } => {
                let types = (!types.is_empty()).then_some(types);
                let enabled = (*enable || *disable).then_some(*enable);
                let body = json!({"url": url, "types": types, "note": note, "enabled": enabled});
                operator.patch(&["webhooks", name], &body).await?
            }
            Command::RotateSecret { name } => {
                operator.post(&["webhooks", name, "rotate-secret"], &json!({})).await?
            }
            Command::Delete { name } => operator.delete(&["webhooks", name]).await?,
            Command::Test { name } => operator.post(&["webhooks", name, "test"], &json!({})).await?,
            Command::Deliveries { name, limit } => {
                let limit = limit.to_string();
                operator.get_with(&["webhooks", name, "deliveries"], &[("limit", limit.as_str())]).await?
            }
            Command::Redeliver { name, delivery } => {
                operator.post(&["webhooks", name, "deliveries", delivery, "redeliver"], &json!({})).await?
            }
        })
    }

    /// Sends a test and waits for its first attempt; an error unless the receiver took it.
    async fn test(&self, operator: &Operator, name: &str) -> anyhow::Result<()> {
        let queued: DeliveryAnswer = read(&self.ask(operator).await?)?;
        let until = Instant::now() + TEST_TIME;
        loop {
            let page = operator.get_with(&["webhooks", name, "deliveries"], &[("limit", "1000")]).await?;
            let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
            let own = items.filter(|item| item.get("id").and_then(Value::as_str) == Some(queued.id.as_str()));
            for item in own {
                let delivery: DeliveryAnswer = read(item)?;
                if delivery.attempts == 0 {
                    continue;
                }
                if self.operator.json {
                    print_json(item)?;
                } else {
                    print(&deliveries(std::slice::from_ref(&delivery)))?;
                }
                if delivery.state == "delivered" {
                    return Ok(());
                }
                bail!(
                    "the receiver did not take the test: {}; it is tried again",
                    plain(delivery.outcome.as_deref().unwrap_or("it said nothing"))
                );
            }
            if Instant::now() >= until {
                bail!("the test was not sent within {} s; look at the server's log", TEST_TIME.as_secs());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn state(webhook: &WebhookAnswer) -> String {
    match (webhook.enabled, &webhook.disabled_because) {
        (true, _) => "enabled".to_owned(),
        (false, None) => "disabled".to_owned(),
        (false, Some(because)) => format!("disabled: {because}"),
    }
}

fn described(webhook: &WebhookAnswer) -> String {
    let mut lines = vec![
        format!("Webhook {} is {}.", webhook.name, state(webhook)),
        format!("It sends {} to {}.", webhook.types.join(", "), webhook.url),
    ];
    lines.extend(webhook.note.iter().map(|note| format!("Note: {note}")));
    if let Some(until) = webhook.earlier_secret_until_ms {
        lines.push(format!("The earlier secret signs too until {}.", moment(Some(until))));
    }
    if webhook.dropped > 0 {
        lines
            .push(format!("{} deliveries were dropped because too many waited.", thousands(webhook.dropped)));
    }
    lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join("\n")
}

fn listed(webhooks: &[WebhookAnswer]) -> String {
    if webhooks.is_empty() {
        return "No webhooks yet. Make one: farrier webhook create NAME URL --type 'campaign.*'".to_owned();
    }
    let rows = webhooks.iter().map(|webhook| {
        let dropped = thousands(webhook.dropped);
        [webhook.name.clone(), state(webhook), webhook.types.join(" "), dropped, webhook.url.clone()]
    });
    table(["WEBHOOK", "STATE", "TYPES", "DROPPED", "URL"], rows.collect())
}

fn deliveries(deliveries: &[DeliveryAnswer]) -> String {
    let rows = deliveries.iter().map(|delivery| {
        let state = match delivery.next_at_ms {
            Some(at) if delivery.attempts > 0 => format!("waiting until {}", moment(Some(at))),
            Some(_) | None => delivery.state.clone(),
        };
        [
            delivery.id.clone(),
            delivery.kind.clone(),
            state,
            delivery.attempts.to_string(),
            delivery.status.map_or_else(|| "none".to_owned(), |status| status.to_string()),
            delivery.duration_ms.map_or_else(String::new, |ms| format!("{} ms", thousands(ms))),
            delivery.outcome.clone().unwrap_or_default(),
            moment(Some(delivery.created_at_ms)),
        ]
    });
    table(["DELIVERY", "TYPE", "STATE", "ATTEMPTS", "STATUS", "TOOK", "OUTCOME", "QUEUED"], rows.collect())
}
