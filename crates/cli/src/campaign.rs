//! `farrier campaign`: plans, starts and follows campaigns.

mod approval;
mod dry_run;
mod intake;
mod statement;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};

mod course;
mod rollout;
mod schedule;
mod wait;
mod watch;

use crate::operator::{Operator, OperatorArgs, read};
use crate::output::{plain, print, print_json, table, thousands};
use approval::{Approval, Word};
use course::Awaited;
use intake::IntakeArgs;
use rollout::RolloutArgs;
use statement::StatementArgs;
use wait::WaitArgs;

/// How often a watched campaign is asked for.
const WATCH_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Campaign {
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Plan a campaign; it starts with `campaign start`.
    Create {
        /// Name of the campaign.
        name: String,
        /// The release that it brings.
        #[arg(long)]
        release: String,
        /// A vehicle that it takes in; can be given several times. Without it: every enrolled vehicle, later ones too.
        #[arg(long = "vehicle", value_name = "VEHICLE")]
        vehicles: Vec<String>,
        /// In place of --vehicle: those that a query selects now; with --follow, those that come later too.
        #[arg(long = "where", value_name = "QUERY", conflicts_with_all = ["vehicles", "group"])]
        selection: Option<String>,
        /// In place of --vehicle: those of a fleet group now.
        #[arg(long, value_name = "GROUP", conflicts_with = "vehicles")]
        group: Option<String>,
        #[command(flatten)]
        intake: IntakeArgs,
        #[command(flatten)]
        rollout: Box<RolloutArgs>,
        #[command(flatten)]
        statement: Box<StatementArgs>,
    },
    /// Approve a campaign that somebody else has planned, or a wave of one that somebody else has started.
    Approve(Word),
    /// Reject a campaign or a wave; it can be approved later.
    Reject(Word),
    /// Try updates again that ended without a change.
    Retry {
        /// Name of the campaign.
        name: String,
        /// Why they ended, such as UPDATE_FAILED, DEADLINE_PASSED, CONSENT_DENIED, CANCELLED or a code of ineligibility; can be
        /// given several times.
        #[arg(long = "code", value_name = "CODE", required = true)]
        codes: Vec<String>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Open the next wave of a campaign, whatever else it waits for.
    OpenWave {
        /// Name of the campaign.
        name: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Say what a campaign would do, from what the server knows by now. Nothing is sent or written.
    DryRun {
        /// The release that it would bring.
        #[arg(long)]
        release: String,
        /// A vehicle that it would take in; can be given several times. Without it: every enrolled vehicle.
        #[arg(long = "vehicle", value_name = "VEHICLE")]
        vehicles: Vec<String>,
        /// In place of --vehicle: those that a query selects.
        #[arg(long = "where", value_name = "QUERY", conflicts_with_all = ["vehicles", "group"])]
        selection: Option<String>,
        /// In place of --vehicle: those of a fleet group.
        #[arg(long, value_name = "GROUP", conflicts_with = "vehicles")]
        group: Option<String>,
        /// Also list the vehicles with this verdict.
        #[arg(long, value_name = "VERDICT", value_parser = [
            "would_update", "up_to_date", "ineligible", "inventory_unknown", "quarantined", "in_another_update",
        ])]
        list: Option<String>,
    },
    /// Start a campaign.
    Start {
        /// Name of the campaign.
        name: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Pause a campaign: no further vehicle begins to download; those that have begun go on.
    Pause {
        /// Name of the campaign.
        name: String,
    },
    /// Let a campaign go on that is paused, or that has stopped by its rule: the failures so far stop it no more.
    Resume {
        /// Name of the campaign.
        name: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// End a campaign for good: updates are cancelled where they can be, the others end by themselves.
    Abort {
        /// Name of the campaign.
        name: String,
        /// Why; vehicles and the audit log are told.
        #[arg(long)]
        reason: String,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Show where a campaign and its vehicles are.
    Show {
        /// Name of the campaign.
        name: String,
        /// Go on until every vehicle that it has taken in is done.
        #[arg(long)]
        watch: bool,
    },
    /// Watch a campaign in the terminal: waves, stages, failures, pace, vehicles; keys pause it and let it go on. Where there
    /// is no terminal: a line for each change, until it is over, with the exit codes of --wait.
    Watch {
        /// Name of the campaign.
        name: String,
    },
    /// List the campaigns.
    List,
}

#[derive(Deserialize)]
pub(crate) struct CampaignAnswer {
    pub(crate) name: String,
    pub(crate) release: String,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) states: BTreeMap<String, u64>,
    #[serde(default)]
    pub(crate) vehicles: u64,
    #[serde(default)]
    pub(crate) ended: u64,
    #[serde(default)]
    pub(crate) abort_reason: Option<String>,
    #[serde(default)]
    stop_sentence: Option<String>,
    #[serde(flatten)]
    intake: intake::Intake,
    #[serde(default)]
    approval: Approval,
    #[serde(default)]
    schedule_sentence: Option<String>,
    #[serde(default)]
    waves: Vec<Wave>,
    #[serde(default)]
    rollout: Value,
}

#[derive(Deserialize)]
struct Wave {
    wave: u32,
    is_open: bool,
    vehicles: u64,
    under_way: u64,
    at_release: u64,
    failed: u64,
    left_out: u64,
    #[serde(default)]
    ended: u64,
}

impl CampaignAnswer {
    /// Nothing is under way. A campaign that takes in later vehicles goes on all the same.
    fn is_done(&self) -> bool {
        self.state == "finished"
            || (self.state == "aborted" && self.ended == self.vehicles)
            || (self.state == "running" && self.vehicles > 0 && self.ended == self.vehicles)
    }
}

/// One vehicle in one campaign.
#[derive(Deserialize)]
pub(crate) struct VehicleUpdate {
    pub(crate) vehicle_id: String,
    pub(crate) state: String,
    pub(crate) sentence: String,
    #[serde(default)]
    waiting_on: Option<Value>,
    #[serde(default)]
    pub(crate) bytes_served: u64,
    #[serde(default)]
    pub(crate) bytes_total: u64,
    #[serde(default)]
    pub(crate) ecu_count: u64,
}

impl Campaign {
    pub(crate) async fn run(&self) -> anyhow::Result<ExitCode> {
        let operator = Operator::new(&self.operator)?;
        let answer = match &self.command {
            Command::Create { name, release, vehicles, selection, group, intake, rollout, statement } => {
                let more = [
                    ("where", selection.as_ref().map(|query| json!(query))),
                    ("group", group.as_ref().map(|group| json!(group))),
                    ("rollout", rollout.body()?),
                    ("statement", statement.body()?),
                ];
                let more = more.into_iter().chain(intake.body());
                create(&operator, name, release, vehicles, more).await?
            }
            Command::Approve(word) => word.say(&operator, "approve").await?,
            Command::Reject(word) => word.say(&operator, "reject").await?,
            Command::Retry { name, codes, .. } => {
                operator.post(&["campaigns", name, "retry"], &json!({ "codes": codes })).await?
            }
            Command::OpenWave { name, .. } => {
                operator.post(&["campaigns", name, "open-wave"], &json!({})).await?
            }
            Command::DryRun { release, vehicles, selection, group, list } => {
                let whom = json!({ "vehicles": (!vehicles.is_empty()).then_some(vehicles), "where": selection, "group": group });
                dry_run::ask(&operator, release, whom, list.as_deref()).await?
            }
            Command::Start { name, .. } => start(&operator, name).await?,
            Command::Pause { name } => operator.post(&["campaigns", name, "pause"], &json!({})).await?,
            Command::Resume { name, .. } => operator.post(&["campaigns", name, "resume"], &json!({})).await?,
            Command::Abort { name, reason, .. } => {
                operator.post(&["campaigns", name, "abort"], &json!({ "reason": reason })).await?
            }
            Command::Watch { name } if self.operator.json || !watch::is_possible() => {
                return WaitArgs::without_end()
                    .until_over(&operator, name, Awaited::End, self.operator.json)
                    .await;
            }
            Command::Watch { name } => {
                return watch::run(&operator, name).await.map(|()| ExitCode::SUCCESS);
            }
            Command::List => operator.list(&["campaigns"]).await?,
            Command::Show { name, watch: true } => {
                return self.watch(&operator, name).await.map(|()| ExitCode::SUCCESS);
            }
            Command::Show { name, watch: false } => {
                if !self.operator.json {
                    return print(&whole_text(&operator, name).await?.1).map(|()| ExitCode::SUCCESS);
                }
                operator.get(&["campaigns", name]).await?
            }
        };
        if let Some((name, wait, awaited)) = self.waits(&answer)? {
            self.tell(&answer, true)?;
            return wait.until_over(&operator, name, awaited, self.operator.json).await;
        }
        self.tell(&answer, false).map(|()| ExitCode::SUCCESS)
    }

    /// Whether this command waits for the campaign, and for what.
    fn waits(&self, answer: &Value) -> anyhow::Result<Option<(&str, &WaitArgs, Awaited)>> {
        let (name, wait, awaited) = match &self.command {
            Command::Start { name, wait }
            | Command::Resume { name, wait }
            | Command::Retry { name, wait, .. } => (name, wait, Awaited::End),
            Command::OpenWave { name, wait } => (name, wait, Awaited::wave_after(&read(answer)?)),
            Command::Abort { name, wait, .. } => (name, wait, Awaited::EndOfAborted),
            Command::Create { .. }
            | Command::Approve(_)
            | Command::Reject(_)
            | Command::DryRun { .. }
            | Command::Pause { .. }
            | Command::Show { .. }
            | Command::Watch { .. }
            | Command::List => return Ok(None),
        };
        Ok(wait.is_asked_for().then_some((name.as_str(), wait, awaited)))
    }

    /// Prints what was done; who waits needs not be told how to follow it.
    fn tell(&self, answer: &Value, waits: bool) -> anyhow::Result<()> {
        if self.operator.json {
            return print_json(answer);
        }
        let follow = |name: &str| match waits {
            true => String::new(),
            false => format!(" Follow it: farrier campaign watch {name}"),
        };
        match &self.command {
            Command::List => print(&listed(&read::<Vec<CampaignAnswer>>(answer)?)),
            Command::Create { name, .. } => {
                let next = read::<CampaignAnswer>(answer)?.approval.next(name);
                print(&format!("Created campaign {name}. Next: {next}"))
            }
            Command::Approve(word) => print(&word.said("Approved")),
            Command::Reject(word) => print(&word.said("Rejected")),
            Command::Retry { name, .. } => print(&retried(name, &follow(name), answer)),
            Command::OpenWave { name, .. } => {
                print(&format!("The next wave of campaign {name} opens in a moment.{}", follow(name)))
            }
            Command::DryRun { list, .. } => print(&dry_run::shown(answer, list.is_some())?),
            Command::Start { name, .. } => print(&format!("Started campaign {name}.{}", follow(name))),
            Command::Pause { name } => print(&format!(
                "Paused campaign {name}: {}. Let it go on: farrier campaign resume {name}",
                under_way(&read(answer)?)
            )),
            Command::Resume { name, .. } => print(&format!("Campaign {name} goes on.{}", follow(name))),
            Command::Abort { name, .. } => print(&format!(
                "Aborted campaign {name}: {}. See how each ended: farrier campaign show {name}",
                under_way(&read(answer)?)
            )),
            Command::Show { .. } | Command::Watch { .. } => Ok(()),
        }
    }

    /// Prints the campaign whenever it has changed, until every vehicle is done.
    async fn watch(&self, operator: &Operator, name: &str) -> anyhow::Result<()> {
        let mut last = String::new();
        let mut every = tokio::time::interval(WATCH_EVERY);
        loop {
            every.tick().await;
            let (done, text) = if self.operator.json {
                let answer = operator.get(&["campaigns", name]).await?;
                (read::<CampaignAnswer>(&answer)?.is_done(), answer.to_string())
            } else {
                let (campaign, text) = whole_text(operator, name).await?;
                (campaign.is_done(), format!("{text}\n"))
            };
            if text != last {
                print(&text)?;
                last = text;
            }
            if done {
                return Ok(());
            }
        }
    }
}

pub(crate) async fn create(
    operator: &Operator,
    name: &str,
    release: &str,
    vehicles: &[String],
    more: impl IntoIterator<Item = (&'static str, Option<Value>)>,
) -> anyhow::Result<Value> {
    let mut body = json!({ "name": name, "release": release });
    if let (false, Some(fields)) = (vehicles.is_empty(), body.as_object_mut()) {
        fields.insert("vehicles".to_owned(), json!(vehicles));
    }
    for (key, value) in more {
        if let (Some(value), Some(fields)) = (value, body.as_object_mut()) {
            fields.insert(key.to_owned(), value);
        }
    }
    Ok(operator.post(&["campaigns"], &body).await?)
}

pub(crate) async fn start(operator: &Operator, name: &str) -> anyhow::Result<Value> {
    Ok(operator.post(&["campaigns", name, "start"], &json!({})).await?)
}

async fn whole_text(operator: &Operator, name: &str) -> anyhow::Result<(CampaignAnswer, String)> {
    let campaign: CampaignAnswer = read(&operator.get(&["campaigns", name]).await?)?;
    let updates: Vec<VehicleUpdate> = read(&operator.list(&["campaigns", name, "vehicles"]).await?)?;
    let text = shown(&campaign, &updates);
    Ok((campaign, text))
}

fn shown(campaign: &CampaignAnswer, updates: &[VehicleUpdate]) -> String {
    let mut text = format!(
        "Campaign {} brings release {}: {}, {} vehicle(s){}",
        plain(&campaign.name),
        plain(&campaign.release),
        plain(&campaign.state),
        thousands(campaign.vehicles),
        counts(&campaign.states)
    );
    let name = plain(&campaign.name);
    if let Some(sentence) = &campaign.schedule_sentence {
        text.push_str(&format!("\n{}", plain(sentence)));
    }
    match (campaign.state.as_str(), &campaign.abort_reason) {
        ("draft", _) => text.push_str(&format!("\nNext: {}", campaign.approval.next(&name))),
        ("stopped", _) => text.push_str(&format!(
            "\nStopped by its rule: {}\nLook at what failed; it goes on with: farrier campaign resume {name}",
            plain(campaign.stop_sentence.as_deref().unwrap_or_default())
        )),
        ("paused", _) => text.push_str(&format!("\nIt goes on with: farrier campaign resume {name}")),
        (_, Some(reason)) => text.push_str(&format!("\nAborted: {}", plain(reason))),
        (_, None) => {}
    }
    text.push_str(&campaign.intake.shown());
    text.push_str(&campaign.approval.shown());
    if campaign.waves.len() > 1 {
        let rows = campaign.waves.iter().map(|wave| {
            let state = if wave.is_open { "open" } else { "not open" };
            let counts = [wave.vehicles, wave.under_way, wave.at_release, wave.failed, wave.left_out];
            let [vehicles, under_way, at_release, failed, left_out] = counts.map(thousands);
            [wave.wave.to_string(), state.to_owned(), vehicles, under_way, at_release, failed, left_out]
        });
        let heads = ["WAVE", "STATE", "VEHICLES", "UNDER WAY", "AT RELEASE", "FAILED", "LEFT OUT"];
        text.push_str("\n\n");
        text.push_str(&table(heads, rows.collect()));
    }
    if !updates.is_empty() {
        let rows = updates.iter().map(|update| {
            let served = format!("{} of {}", thousands(update.bytes_served), thousands(update.bytes_total));
            [
                update.vehicle_id.clone(),
                update.state.clone(),
                served,
                update.ecu_count.to_string(),
                update.sentence.clone(),
            ]
        });
        text.push_str("\n\n");
        text.push_str(&table(["VEHICLE", "STATE", "BYTES", "ECUS", "WHY"], rows.collect()));
    }
    text
}

fn retried(name: &str, follow: &str, answer: &Value) -> String {
    let number = |key| answer.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut text =
        format!("{} vehicle(s) of campaign {name} are tried again.{}", thousands(number("retried")), follow);
    if number("set_aside") > 0 {
        text.push_str(&format!(
            "\n{} more failed the release so often that they are set aside; see them, and take one back: \
             farrier vehicle set-aside list, farrier vehicle take-back VEHICLE --release RELEASE",
            thousands(number("set_aside"))
        ));
    }
    text
}

/// How many vehicles are not done.
fn under_way(campaign: &CampaignAnswer) -> String {
    let open = campaign.vehicles.saturating_sub(campaign.ended);
    format!("{} of {} vehicle(s) are not done", thousands(open), thousands(campaign.vehicles))
}

/// ": 2 succeeded, 1 rolled_back", or nothing.
fn counts(states: &BTreeMap<String, u64>) -> String {
    let counts: Vec<String> =
        states.iter().map(|(state, count)| format!("{} {}", thousands(*count), plain(state))).collect();
    if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) }
}

fn listed(campaigns: &[CampaignAnswer]) -> String {
    if campaigns.is_empty() {
        return "No campaigns yet. Make one: farrier campaign create NAME --release RELEASE".to_owned();
    }
    let rows = campaigns.iter().map(|campaign| {
        [
            campaign.name.clone(),
            campaign.release.clone(),
            campaign.state.clone(),
            campaign.intake.priority.to_string(),
            counts(&campaign.states).trim_start_matches(": ").to_owned(),
        ]
    });
    table(["CAMPAIGN", "RELEASE", "STATE", "PRIORITY", "VEHICLES"], rows.collect())
}
