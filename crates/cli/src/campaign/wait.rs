//! `--wait`: follows a campaign until it is over or needs an operator, and ends with how it went.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::course::{Awaited, Course, course, failures, progress};
use super::{CampaignAnswer, counts};
use crate::exit_code::{INTERRUPTED, NOT_AS_WISHED, TIMED_OUT};
use crate::operator::{Operator, OperatorError, read};
use crate::output::{is_watched, plain, print, print_json, seconds};
use crate::stop_signal::StopSignal;
use crate::time_span::time_span;

/// How long after a change the server is asked again; twice as long each time that nothing has changed.
const ASK_SOON: Duration = Duration::from_millis(250);
const ASK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// For how long a server may be away before waiting ends with an error.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args)]
pub(super) struct WaitArgs {
    /// Wait until the campaign is over, or until only an operator can open its next wave; the exit code says how it went.
    #[arg(long)]
    wait: bool,
    /// With --wait: for so long at most, as 12h, 30m or 45s. The campaign goes on all the same.
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = time_span)]
    timeout: Option<Duration>,
}

/// Why the waiting is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Course(Course),
    TimedOut,
    Interrupted,
}

impl End {
    /// The name for programs.
    fn name(self) -> &'static str {
        match self {
            Self::Course(course) => course.name(),
            Self::TimedOut => "timed_out",
            Self::Interrupted => "interrupted",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Course(Course::GoesOn | Course::Done | Course::NeedsOperator) => 0,
            Self::Course(Course::Failed | Course::Stopped | Course::Aborted) => NOT_AS_WISHED,
            Self::TimedOut => TIMED_OUT,
            Self::Interrupted => INTERRUPTED,
        }
    }

    /// What happened and what to do next.
    fn sentence(self, name: &str, campaign: &CampaignAnswer) -> String {
        let name = plain(name);
        let states = counts(&campaign.states);
        match self {
            Self::Course(Course::GoesOn) => format!("Campaign {name} goes on{states}."),
            Self::Course(Course::Done) => {
                // Of an aborted campaign some may have come back whole.
                let none_failed = if failures(campaign) == 0 { " No vehicle failed." } else { "" };
                format!("Campaign {name} is over{states}.{none_failed}")
            }
            Self::Course(Course::Failed) => format!(
                "Campaign {name} has vehicles that failed{states}. See why: farrier campaign show {name}; try them \
                 again: farrier campaign retry {name} --code CODE"
            ),
            Self::Course(Course::Stopped) => format!(
                "Campaign {name} was stopped by its rule{states}. {} Look at what failed: farrier campaign show \
                 {name}; it goes on with: farrier campaign resume {name}",
                plain(campaign.stop_sentence.as_deref().unwrap_or_default())
            ),
            Self::Course(Course::Aborted) => format!(
                "Campaign {name} was aborted{states}. Reason: {}",
                plain(campaign.abort_reason.as_deref().unwrap_or("not given"))
            ),
            Self::Course(Course::NeedsOperator) => format!(
                "The open waves of campaign {name} are done{states}. The next one needs you: farrier campaign \
                 open-wave {name} --wait"
            ),
            Self::TimedOut => format!(
                "Campaign {name} is not over after the time of --timeout; it goes on{states}. Look at it: farrier \
                 campaign watch {name}"
            ),
            Self::Interrupted => format!(
                "You stopped waiting; campaign {name} goes on{states}. Look at it: farrier campaign watch {name}; \
                 hold it: farrier campaign pause {name}"
            ),
        }
    }
}

impl WaitArgs {
    /// Until it is over, however long that takes.
    pub(super) fn without_end() -> Self {
        Self { wait: true, timeout: None }
    }

    pub(super) fn is_asked_for(&self) -> bool {
        self.wait
    }

    /// Prints what changes, then how it ended.
    pub(super) async fn until_over(
        &self,
        operator: &Operator,
        name: &str,
        awaited: Awaited,
        json: bool,
    ) -> anyhow::Result<ExitCode> {
        let mut waiting = Waiting::new(operator, name, json)?;
        let mut stop = StopSignal::new()?;
        // Without a timeout: never.
        let timeout = self.timeout;
        let timed_out = async move {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            course = waiting.follow(awaited) => End::Course(course?),
            () = timed_out => End::TimedOut,
            () = stop.received() => End::Interrupted,
        };
        waiting.finish(end).await
    }
}

/// A campaign that is waited for, and what was shown of it.
struct Waiting<'a> {
    operator: &'a Operator,
    name: &'a str,
    json: bool,
    line: Option<ProgressBar>,
    began: Instant,
    last: Option<Value>,
    last_line: String,
}

impl<'a> Waiting<'a> {
    fn new(operator: &'a Operator, name: &'a str, json: bool) -> anyhow::Result<Self> {
        let line = (is_watched() && !json).then(|| -> anyhow::Result<_> {
            let line = ProgressBar::new_spinner();
            line.set_style(ProgressStyle::with_template("{elapsed:>6}  {wide_msg}")?);
            line.enable_steady_tick(Duration::from_millis(500));
            Ok(line)
        });
        let (line, began) = (line.transpose()?, Instant::now());
        Ok(Self { operator, name, json, line, began, last: None, last_line: String::new() })
    }

    async fn follow(&mut self, awaited: Awaited) -> anyhow::Result<Course> {
        let mut pause = ASK_SOON;
        let mut answered = Instant::now();
        loop {
            match self.operator.get(&["campaigns", self.name]).await {
                Ok(answer) => {
                    answered = Instant::now();
                    let campaign: CampaignAnswer = read(&answer)?;
                    let has_changed = self.show(answer, &campaign)?;
                    match course(&campaign, &awaited) {
                        Course::GoesOn => {}
                        over @ (Course::Done
                        | Course::Failed
                        | Course::Stopped
                        | Course::Aborted
                        | Course::NeedsOperator) => return Ok(over),
                    }
                    pause = if has_changed { ASK_SOON } else { (pause * 2).min(ASK_AT_LEAST_EVERY) };
                }
                Err(error) if is_away(&error) && answered.elapsed() < PATIENCE => {
                    tracing::warn!(%error, "The server does not answer; it is asked again.");
                    pause = ASK_AT_LEAST_EVERY;
                }
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Whether there was something new to show.
    fn show(&mut self, answer: Value, campaign: &CampaignAnswer) -> anyhow::Result<bool> {
        let has_changed = self.last.as_ref() != Some(&answer);
        let line = progress(campaign);
        if self.json {
            if has_changed {
                print_json(&answer)?;
            }
        } else if let Some(moving) = &self.line {
            moving.set_message(line);
        } else if line != self.last_line {
            print(&format!("{:>8}  {line}", seconds(self.began.elapsed())))?;
            self.last_line = line;
        }
        self.last = Some(answer);
        Ok(has_changed)
    }

    async fn finish(self, end: End) -> anyhow::Result<ExitCode> {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
        // Nothing was seen yet where the time was over before the first answer.
        let last = match self.last {
            Some(last) => last,
            None => self.operator.get(&["campaigns", self.name]).await?,
        };
        let sentence = end.sentence(self.name, &read(&last)?);
        let code = end.code();
        match self.json {
            true => print_json(&json!({"ended": end.name(), "exit_code": code, "sentence": sentence}))?,
            false => print(&sentence)?,
        }
        Ok(ExitCode::from(code))
    }
}

/// The server may be back soon.
fn is_away(error: &OperatorError) -> bool {
    match error {
        OperatorError::Unreachable { .. } => true,
        OperatorError::Refused { status, .. } => status.is_server_error(),
        OperatorError::NoToken
        | OperatorError::TokenFile { .. }
        | OperatorError::TokenForm
        | OperatorError::Ca { .. }
        | OperatorError::Address { .. }
        | OperatorError::Untrusted { .. }
        | OperatorError::NoTls { .. }
        | OperatorError::Unauthorized { .. }
        | OperatorError::RefusedLines { .. }
        | OperatorError::NotOurs { .. }
        | OperatorError::Setup(_) => false,
    }
}
