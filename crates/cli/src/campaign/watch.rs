//! `farrier campaign watch`: a campaign as it moves, in a terminal. What is seen is drawn by `screen`; here it is fetched, and
//! keys are answered.

mod keys;
mod pace;
mod screen;
mod terminal;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use farrier_server::audit::AuditEntry;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::{CampaignAnswer, VehicleUpdate};
use crate::operator::{Operator, read};
use crate::output::{moment, now};
use crate::stop_signal::StopSignal;
use keys::Key;
use pace::Pace;
use screen::View;
use terminal::Terminal;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The audit log changes rarely: it is asked for at every so many looks.
const LOOKS_PER_AUDIT: u32 = 5;

/// Vehicles that are fetched at a time; why the campaign waits is told from these.
const VEHICLES: usize = 100;

/// Entries of the audit log in which those of the campaign are looked for.
const AUDIT_ENTRIES: &str = "200";

/// Whether somebody can see a screen and press keys.
pub(super) fn is_possible() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// What one look at the server found.
struct Look {
    campaign: CampaignAnswer,
    updates: Vec<VehicleUpdate>,
    /// Where the next page of vehicles begins.
    next: Option<String>,
    /// Newest last; only where the log was asked for.
    events: Option<Vec<String>>,
}

/// Shows the campaign until somebody leaves; an error only if it cannot be shown at all.
pub(super) async fn run(operator: &Operator, name: &str) -> anyhow::Result<()> {
    // Asked once before the screen is taken, so that what is wrong with the name or the token is said as ever.
    let first = look(operator, name, None, true).await?;
    let (after, wanted) = watch::channel(None);
    let (found, mut looks) = mpsc::channel(1);
    let task = tokio::spawn(keep_looking(operator.clone(), name.to_owned(), wanted, found));
    let mut resized = signal(SignalKind::window_change())?;
    let mut stop = StopSignal::new()?;
    let mut keys = keys::pressed();
    let mut terminal = Terminal::enter()?;
    let mut watched = Watched::new(operator, name, first, after);
    loop {
        terminal.draw(|width, height| screen::lines(&watched.view(), width, height))?;
        tokio::select! {
            look = looks.recv() => match look {
                Some(look) => watched.take(look),
                None => break,
            },
            key = keys.recv() => match key {
                Some(key) if watched.answer(key).await => break,
                Some(_) => {}
                None => break,
            },
            _ = resized.recv() => {}
            () = stop.received() => break,
        }
    }
    task.abort();
    Ok(())
}

async fn keep_looking(
    operator: Operator,
    name: String,
    mut after: watch::Receiver<Option<String>>,
    found: mpsc::Sender<anyhow::Result<Look>>,
) {
    for number in 0_u32.. {
        let asked = after.borrow_and_update().clone();
        let with_events = number.is_multiple_of(LOOKS_PER_AUDIT);
        let look = look(&operator, &name, asked.as_deref(), with_events).await;
        if found.send(look).await.is_err() {
            return;
        }
        // Another page is fetched at once.
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            changed = after.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(
    operator: &Operator,
    name: &str,
    after: Option<&str>,
    with_events: bool,
) -> anyhow::Result<Look> {
    let campaign = read(&operator.get(&["campaigns", name]).await?)?;
    let limit = VEHICLES.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(after.map(|after| ("after", after)));
    let page = operator.get_with(&["campaigns", name, "vehicles"], &query).await?;
    let events = if with_events {
        let page = operator.get_with(&["audit"], &[("limit", AUDIT_ENTRIES)]).await?;
        let entries: Vec<AuditEntry> = read(page.get("items").unwrap_or(&Value::Null))?;
        let object = format!("campaign/{name}");
        Some(entries.into_iter().rev().filter(|entry| entry.object == object).map(event).collect())
    } else {
        None
    };
    Ok(Look {
        campaign,
        updates: read(page.get("items").unwrap_or(&Value::Null))?,
        next: page.get("next").and_then(Value::as_str).map(str::to_owned),
        events,
    })
}

fn event(entry: AuditEntry) -> String {
    let detail = entry.detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    format!("{}  {}  {}{detail}", moment(Some(entry.at_ms.0)), entry.actor, entry.action)
}

/// What is known of the campaign, and where in it the operator looks.
struct Watched<'a> {
    operator: &'a Operator,
    name: &'a str,
    last: Look,
    events: Vec<String>,
    pace: pace::Samples,
    trouble: Option<String>,
    question: Option<&'static str>,
    /// Where the pages of vehicles up to the one that is shown begin, but for the first.
    pages: Vec<String>,
    /// Vehicles of the page above the first that is shown.
    above: usize,
    after: watch::Sender<Option<String>>,
}

impl<'a> Watched<'a> {
    fn new(
        operator: &'a Operator,
        name: &'a str,
        mut first: Look,
        after: watch::Sender<Option<String>>,
    ) -> Self {
        let events = first.events.take().unwrap_or_default();
        let mut pace = pace::Samples::default();
        pace.note(Instant::now(), first.campaign.ended);
        let pages = Vec::new();
        Self {
            operator,
            name,
            last: first,
            events,
            pace,
            trouble: None,
            question: None,
            pages,
            above: 0,
            after,
        }
    }

    fn view(&self) -> View<'_> {
        View {
            campaign: &self.last.campaign,
            updates: &self.last.updates,
            vehicles_before: (self.pages.len() * VEHICLES) as u64,
            above: self.above,
            has_more: self.last.next.is_some(),
            events: &self.events,
            pace: self.pace(),
            trouble: self.trouble.as_deref(),
            question: self.question,
            at: moment(Some(now().0)),
            has_colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        }
    }

    fn pace(&self) -> Option<Pace> {
        self.pace.pace()
    }

    fn take(&mut self, look: anyhow::Result<Look>) {
        match look {
            Ok(mut look) => {
                self.trouble = None;
                self.pace.note(Instant::now(), look.campaign.ended);
                if let Some(events) = look.events.take() {
                    self.events = events;
                }
                self.above = self.above.min(look.updates.len().saturating_sub(1));
                self.last = look;
            }
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }

    /// Whether the operator leaves.
    async fn answer(&mut self, key: Key) -> bool {
        match (self.question.take(), key) {
            (_, Key::Quit) => return true,
            (Some(_), Key::Letter('y')) => self.pause_or_resume().await,
            (None, Key::Letter('p')) => self.question = self.may_ask(),
            (None, Key::Up) => self.above = self.above.saturating_sub(1),
            (None, Key::Down) => {
                self.above = (self.above + 1).min(self.last.updates.len().saturating_sub(1));
            }
            (None, Key::PageDown) => {
                if let Some(next) = self.last.next.clone() {
                    self.pages.push(next);
                    self.turn();
                }
            }
            (None, Key::PageUp) => {
                self.pages.pop();
                self.turn();
            }
            (None, Key::Home) => {
                self.pages.clear();
                self.turn();
            }
            (Some(_), Key::Letter(_) | Key::Up | Key::Down | Key::PageUp | Key::PageDown | Key::Home)
            | (None, Key::Letter(_)) => {}
        }
        false
    }

    /// Shows another page of vehicles from its beginning, once it is there.
    fn turn(&mut self) {
        self.above = 0;
        self.after.send_replace(self.pages.last().cloned());
    }

    /// What `p` asks, where there is something to ask.
    fn may_ask(&mut self) -> Option<&'static str> {
        match self.last.campaign.state.as_str() {
            "running" => {
                Some("Pause this campaign? No further vehicle begins to download. y: yes, other keys: no")
            }
            "paused" => Some("Let this campaign go on? y: yes, other keys: no"),
            "stopped" => {
                Some("Let this campaign go on? The failures so far stop it no more. y: yes, other keys: no")
            }
            _ => {
                self.trouble =
                    Some("Only a campaign that runs is paused, and only a paused one goes on.".to_owned());
                None
            }
        }
    }

    async fn pause_or_resume(&mut self) {
        let what = if self.last.campaign.state == "running" { "pause" } else { "resume" };
        let (path, nothing) = (["campaigns", self.name, what], json!({}));
        let asked = self.operator.post(&path, &nothing);
        // Nobody looks at a screen that stands still.
        let answered = tokio::time::timeout(Duration::from_secs(10), asked).await;
        let campaign = match answered {
            Ok(answer) => answer.map_err(anyhow::Error::from).and_then(|answer| read(&answer)),
            Err(_) => {
                Err(anyhow::anyhow!("the server has not answered within 10 s; look whether it has done it"))
            }
        };
        match campaign {
            Ok(campaign) => self.last.campaign = campaign,
            Err(error) => self.trouble = Some(format!("{error:#}")),
        }
    }
}
