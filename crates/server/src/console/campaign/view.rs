//! What a campaign's page shows of it at one moment, and changes by itself.

use farrier_campaign::{Opening, StopRule, WaveCounts};
use farrier_protocol::UnixMillis;

use super::actions::Action;
use super::tallies::Tallies;
use super::waves::{TimeLine, Waves};
use crate::api::Problem;
use crate::api::approvals::{self, Question};
use crate::console::eta::{self, is_open};
use crate::console::format::{absolute, bytes, number, percent, share};
use crate::console::texts::{Texts, filled};
use crate::console::{endings, progress};
use crate::conversation::Rules;
use crate::store::campaigns::{self, Campaign};
use crate::store::{Tx, intake, traffic};

pub(super) struct WaveRow {
    pub(super) number: u32,
    pub(super) is_open: bool,
    pub(super) vehicles: String,
    pub(super) at_release: String,
    pub(super) failed: String,
    pub(super) done_percent: u64,
    pub(super) parts: progress::Parts,
    /// What stops the campaign by this wave alone.
    pub(super) rules: Vec<Gauge>,
}

/// How far it is to the stop.
pub(super) struct Gauge {
    pub(super) sentence: String,
    /// Of the limit, in percent.
    pub(super) length: u64,
    pub(super) class: &'static str,
}

pub(super) struct View {
    pub(super) name: String,
    pub(super) release: String,
    pub(super) state: &'static str,
    pub(super) state_name: &'static str,
    pub(super) class: &'static str,
    pub(super) stopped: Option<String>,
    /// What a second person has to say something about, and whether it is still waited for.
    pub(super) question: Option<Question>,
    pub(super) awaited: Option<String>,
    pub(super) eta_sentence: String,
    /// Vehicles of waves that are not open, which no estimate is about.
    pub(super) not_open: Option<String>,
    pub(super) vehicles: String,
    pub(super) vehicles_in_words: String,
    pub(super) at_release: String,
    pub(super) at_release_percent: String,
    pub(super) under_way: String,
    pub(super) failed: String,
    pub(super) failed_percent: String,
    pub(super) left_out: String,
    pub(super) sent: String,
    /// What deltas have saved, where they have.
    pub(super) saved: Option<String>,
    pub(super) time_line: TimeLine,
    pub(super) waves: Vec<WaveRow>,
    pub(super) funnel: Vec<progress::Bar>,
    pub(super) rules: Vec<Gauge>,
    pub(super) tallies: Tallies,
}

impl View {
    pub(super) fn of(
        tx: &Tx<'_>,
        t: &'static Texts,
        server: &Rules,
        campaign: &Campaign,
        now: UnixMillis,
    ) -> Result<Self, Problem> {
        let view = Self::without_tallies(tx, t, server, campaign, now)?;
        let counts = campaigns::counts(tx, &campaign.name)?;
        Ok(Self { tallies: Tallies::of(tx, t, &campaign.name, &counts)?, ..view })
    }

    /// For those who do not show why vehicles wait or failed: that takes the most time.
    pub(super) fn without_tallies(
        tx: &Tx<'_>,
        t: &'static Texts,
        server: &Rules,
        campaign: &Campaign,
        now: UnixMillis,
    ) -> Result<Self, Problem> {
        let counts = campaigns::counts(tx, &campaign.name)?;
        let waves = campaigns::wave_counts(tx, campaign)?;
        let all = waves.iter().fold(WaveCounts::default(), WaveCounts::with);
        let vehicles = intake::vehicles_in_all(tx, campaign, &counts)?;
        let state = campaign.state_name(&counts);
        let traffic = traffic::of_campaign(tx, &campaign.name)?;
        let (eta, not_open) =
            eta::of_open_waves(tx, campaign, &waves, matches!(state, "starting" | "running"), now)?;
        let awaited = approvals::awaited(tx, server, campaign)?.map(|question| match question {
            Question::Start => t.awaits_approval_of_start.to_owned(),
            Question::Wave(wave) => filled(t.awaits_approval_of_wave, &[&wave.to_string()]),
        });
        Ok(Self {
            name: campaign.name.to_string(),
            release: campaign.release.to_string(),
            state,
            state_name: t.campaign_state(state),
            class: progress::campaign_class(state),
            stopped: campaign.stopped.as_ref().map(|stopped| endings::stopped(t, &stopped.reason)),
            question: approvals::question(server, campaign),
            awaited,
            eta_sentence: eta.sentence(t),
            not_open: (not_open > 0).then(|| filled(t.eta_not_open, &[&number(not_open)])),
            vehicles: number(vehicles),
            vehicles_in_words: filled(t.so_many_vehicles, &[&number(vehicles)]),
            at_release: number(all.at_release),
            at_release_percent: share(all.at_release, vehicles),
            under_way: number(all.under_way),
            failed: number(all.failed),
            failed_percent: share(all.failed, vehicles),
            left_out: number(all.left_out),
            sent: bytes(traffic.sent_bytes),
            saved: (traffic.saved_bytes() > 0)
                .then(|| filled(t.less_than_whole, &[&bytes(traffic.saved_bytes())])),
            time_line: TimeLine::of(
                tx,
                t,
                campaign,
                Waves {
                    counts: &waves,
                    vehicles,
                    goes_on: matches!(state, "starting" | "running" | "paused" | "stopped"),
                },
                now,
            )?,
            waves: wave_rows(t, campaign, &waves),
            funnel: progress::bars(t, &counts.by_state),
            rules: rules(t, &campaign.rollout.stop, &all),
            tallies: Tallies::default(),
        })
    }

    pub(super) fn can(&self, action: Action) -> bool {
        match action {
            Action::Start => self.state == "draft",
            Action::Approve | Action::Reject => self.question.is_some(),
            Action::Pause => matches!(self.state, "starting" | "running"),
            Action::Resume => matches!(self.state, "paused" | "stopped"),
            Action::OpenWave => {
                matches!(self.state, "starting" | "running" | "paused" | "stopped")
                    && self.question.is_none()
                    && self.waves.iter().any(|wave| !wave.is_open)
            }
            Action::Retry => !matches!(self.state, "draft" | "aborted"),
            Action::Abort => !matches!(self.state, "draft" | "aborted" | "finished"),
        }
    }

    /// What is offered for the campaign as a whole.
    pub(super) fn actions(&self) -> Vec<Action> {
        let whole = |action: &Action| *action != Action::Retry && self.can(*action);
        Action::ALL.into_iter().filter(whole).collect()
    }

    /// Whether any wave has a rule of its own.
    pub(super) fn has_wave_rules(&self) -> bool {
        self.waves.iter().any(|wave| !wave.rules.is_empty())
    }

    pub(super) fn can_retry(&self) -> bool {
        self.can(Action::Retry)
    }
}

fn wave_rows(t: &'static Texts, campaign: &Campaign, counts: &[WaveCounts]) -> Vec<WaveRow> {
    let rows = (1_u32..).zip(counts).map(|(wave, counts)| {
        let planned =
            usize::try_from(wave).ok().and_then(|wave| campaign.rollout.waves.get(wave.checked_sub(1)?));
        WaveRow {
            number: wave,
            is_open: is_open(campaign, wave),
            vehicles: number(counts.vehicles),
            at_release: number(counts.at_release),
            failed: number(counts.failed),
            done_percent: percent(counts.ended, counts.vehicles),
            parts: progress::Parts::of(counts.at_release, counts.under_way, counts.failed, counts.vehicles),
            rules: planned.map(|planned| rules(t, &planned.stop, counts)).unwrap_or_default(),
        }
    });
    rows.collect()
}

pub(in crate::console) fn opens(t: &Texts, opening: Opening) -> String {
    match opening {
        Opening::AtOnce => t.opens_at_once.to_owned(),
        Opening::ByHand => t.opens_by_hand.to_owned(),
        Opening::ByApproval => t.opens_by_approval.to_owned(),
        Opening::At(at) => filled(t.opens_at, &[&absolute(at)]),
        Opening::AfterSuccessPercent(share) => filled(t.opens_after_success, &[&share.to_string()]),
    }
}

/// Each limit of a rule, with how far it is to it.
fn rules(t: &Texts, rule: &StopRule, counts: &WaveCounts) -> Vec<Gauge> {
    let gauge = |sentence: String, found: u64, limit: u64| {
        let length = percent(found, limit).min(100);
        let class = match length {
            100.. => "bad",
            50.. => "warn",
            _ => "ok",
        };
        Gauge { sentence, length, class }
    };
    let mut all = Vec::new();
    if rule.inconsistent {
        let sentence = filled(t.rule_inconsistent, &[&number(counts.inconsistent)]);
        all.push(gauge(sentence, counts.inconsistent, 1));
    }
    if let Some(limit) = rule.failures {
        let sentence = filled(t.rule_failures, &[&number(counts.failed), &number(limit)]);
        all.push(gauge(sentence, counts.failed, limit));
    }
    if let Some(limit) = rule.failed_percent {
        let found = share(counts.failed, counts.vehicles);
        let sentence = filled(t.rule_failed_percent, &[&found, &limit.to_string()]);
        all.push(gauge(
            sentence,
            counts.failed.saturating_mul(100),
            counts.vehicles.saturating_mul(limit.into()),
        ));
    }
    all
}
