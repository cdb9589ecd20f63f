//! Approval of campaigns and their waves by a second person.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use farrier_campaign::{
    ApprovalRule, ApprovalStanding, ApprovalWord, GateRecord, Opening, approval_standing, is_second_person,
};
use farrier_protocol::{Sha256, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::campaigns::{self, CampaignAnswer};
use super::problem::Problem;
use super::request::{Caller, Document, InPath};
use super::{Api, name};
use crate::conversation::Rules;
use crate::store::audit::{self, Actor, Change};
use crate::store::campaigns::{Campaign, hold_gate, set_gate};
use crate::store::{StoreError, Tx, approvals};

/// The body of an approval or a rejection.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Word {
    /// What was looked at, or what is wrong.
    pub(crate) remark: Text,
    /// The wave that it is about, from 1; without it the start of the campaign.
    #[schemars(range(min = 1))]
    pub(crate) wave: Option<u32>,
}

/// How the approval of a campaign stands.
#[derive(Serialize, JsonSchema)]
pub(super) struct ApprovalAnswer {
    state: ApprovalStanding,
    /// SHA-256 of the plan that is approved: release, vehicles, query, order, deadline, rollout. Absent where the start needs
    /// no approval.
    plan_sha256: Option<Sha256>,
    /// All that was said, oldest first.
    words: Vec<WordAnswer>,
}

/// What somebody said.
#[derive(Serialize, JsonSchema)]
pub(super) struct WordAnswer {
    /// The wave, from 1; absent where it was about the start.
    wave: Option<u32>,
    approved: bool,
    /// As the audit log names them.
    by: String,
    at_ms: UnixMillis,
    remark: Text,
    /// Of the plan at that time.
    plan_sha256: Sha256,
}

fn is_needed(rules: &Rules, campaign: &Campaign) -> bool {
    campaign.intake.needs_approval
        || (campaign.started_at.is_none() && rules.approval == ApprovalRule::SecondPerson)
}

/// What a second person can still say something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    /// Whether the campaign may start.
    Start,
    /// Whether its next wave may open.
    Wave(u32),
}

/// What a campaign can be approved for now; whether it has been is another matter.
pub(crate) fn question(rules: &Rules, campaign: &Campaign) -> Option<Question> {
    if campaign.aborted.is_some() {
        return None;
    }
    if campaign.started_at.is_none() {
        return is_needed(rules, campaign).then_some(Question::Start);
    }
    let next = campaign.gate.open;
    let is_there = campaign.rollout.has_gate() && next < campaign.rollout.wave_count();
    let opening = campaign.rollout.opening(usize::try_from(next).unwrap_or(usize::MAX));
    (is_there && opening == Opening::ByApproval).then_some(Question::Wave(next.saturating_add(1)))
}

/// What a second person has yet to approve of a campaign. Its plan does not change once it is made, so the last word counts.
pub(crate) fn awaited(
    tx: &Tx<'_>,
    rules: &Rules,
    campaign: &Campaign,
) -> Result<Option<Question>, StoreError> {
    let question = question(rules, campaign);
    let is_answered = match question {
        None => true,
        Some(Question::Wave(wave)) => campaign.gate.approved_wave >= wave,
        Some(Question::Start) => {
            let words = approvals::words(tx, &campaign.name)?;
            words.iter().rfind(|word| word.wave.is_none()).is_some_and(|word| word.approved)
        }
    };
    Ok(question.filter(|_| !is_answered))
}

pub(super) fn shown(tx: &Tx<'_>, rules: &Rules, campaign: &Campaign) -> Result<ApprovalAnswer, StoreError> {
    let words = approvals::words(tx, &campaign.name)?;
    // It goes by all vehicles that were named, so nobody else has to wait for it.
    let plan_sha256 = is_needed(rules, campaign).then(|| approvals::plan_sha256(tx, campaign)).transpose()?;
    Ok(ApprovalAnswer {
        state: plan_sha256
            .as_ref()
            .map_or(ApprovalStanding::NotNeeded, |plan_sha256| approval_standing(plan_sha256, &words)),
        plan_sha256,
        words: words
            .into_iter()
            .map(|word| WordAnswer {
                wave: word.wave,
                approved: word.approved,
                by: word.by,
                at_ms: word.at,
                remark: word.remark,
                plan_sha256: word.plan_sha256,
            })
            .collect(),
    })
}

/// Refuses the start of a campaign that a second person has yet to approve.
pub(super) fn check_start(tx: &Tx<'_>, rules: &Rules, campaign: &Campaign) -> Result<(), Problem> {
    if !is_needed(rules, campaign) {
        return Ok(());
    }
    let words = approvals::words(tx, &campaign.name)?;
    let plan_sha256 = approvals::plan_sha256(tx, campaign)?;
    let found = match approval_standing(&plan_sha256, &words) {
        ApprovalStanding::NotNeeded | ApprovalStanding::Approved => return Ok(()),
        ApprovalStanding::Waiting => "no word about it",
        ApprovalStanding::Rejected => "that it was rejected",
    };
    let name = &campaign.name;
    let detail = format!(
        "Campaign {name} starts when another person than the one who planned it has approved it, found {found}; \
         they say `farrier campaign approve {name} --remark WORDS`."
    );
    Err(Problem::conflict("NOT_APPROVED", detail))
}

/// Refuses to open a wave by hand that a second person has to approve.
pub(super) fn check_open_wave(campaign: &Campaign, record: &GateRecord) -> Result<(), Problem> {
    let (name, wave) = (&campaign.name, record.open.saturating_add(1));
    let next = usize::try_from(record.open).unwrap_or(usize::MAX);
    if campaign.rollout.opening(next) != Opening::ByApproval {
        return Ok(());
    }
    let detail = format!(
        "Wave {wave} of campaign {name} opens when another person than the one who started it has approved it; they say \
         `farrier campaign approve {name} --wave {wave} --remark WORDS`."
    );
    Err(Problem::conflict("NOT_APPROVED", detail))
}

/// `POST /campaigns/{name}/approve`
pub(crate) async fn approve(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(word): Document<Word>,
) -> Result<Json<CampaignAnswer>, Problem> {
    said(&api, &caller, &text, word, true).await
}

/// `POST /campaigns/{name}/reject`: what was approved before is approved no more.
pub(crate) async fn reject(
    State(api): State<Api>,
    caller: Caller,
    InPath(text): InPath<String>,
    Document(word): Document<Word>,
) -> Result<Json<CampaignAnswer>, Problem> {
    said(&api, &caller, &text, word, false).await
}

async fn said(
    api: &Api,
    caller: &Caller,
    text: &str,
    word: Word,
    approved: bool,
) -> Result<Json<CampaignAnswer>, Problem> {
    let (name, actor) = (name(text, "campaign")?, caller.actor());
    if word.wave == Some(0) {
        return Err(Problem::invalid("/wave: expected at least 1, or no such key, found 0."));
    }
    let said = api.answer(move |tx, rules, now| {
        say(tx, rules, &actor, &name, (word.wave, approved, word.remark), now)?;
        Ok((StatusCode::OK, campaigns::shown(tx, rules, &campaigns::found(tx, &name)?)?))
    });
    Ok(said.await?.1)
}

/// Takes what somebody says of a campaign or a wave: whether it may go on, and why.
pub(crate) fn say(
    tx: &Tx<'_>,
    rules: &Rules,
    actor: &Actor,
    name: &Text,
    (wave, approved, remark): (Option<u32>, bool, Text),
    now: UnixMillis,
) -> Result<(), Problem> {
    let record = hold_gate(tx, name)?;
    let campaign = campaigns::found(tx, name)?;
    if campaign.aborted.is_some() {
        return Err(campaigns::is_aborted(name));
    }
    let plan_sha256 = approvals::plan_sha256(tx, &campaign)?;
    let word = ApprovalWord { wave, approved, by: actor.name().to_owned(), at: now, remark, plan_sha256 };
    match word.wave {
        None => about_the_start(rules, &campaign, &word)?,
        Some(wave) => set_gate(tx, name, &about_a_wave(&campaign, record, wave, &word)?)?,
    }
    approvals::add(tx, name, &word)?;
    let whole = wave.map_or_else(|| "the start".to_owned(), |wave| format!("wave {wave}"));
    let change = Change {
        action: if approved { "campaign.approved" } else { "campaign.rejected" },
        object: format!("campaign/{name}"),
        detail: Some(format!("{whole}: {}", word.remark)),
        before: Some(campaign.audited()),
        after: Some(json_of(&word)),
    };
    Ok(audit::record(tx, actor, change, now)?)
}

fn json_of(word: &ApprovalWord) -> serde_json::Value {
    serde_json::json!({
        "wave": word.wave, "approved": word.approved, "by": word.by, "at": word.at, "remark": word.remark,
        "plan_sha256": word.plan_sha256,
    })
}

fn same_person(what: &str, first: Option<&str>) -> Problem {
    let found = match first {
        Some(first) => format!("{first}, who {what} it; somebody else approves it with a token of their own"),
        None => format!("nobody knows who {what} it; plan the campaign anew"),
    };
    Problem::conflict(
        "SAME_PERSON",
        format!("Expected another person than the one who {what} it, found {found}."),
    )
}

fn about_the_start(rules: &Rules, campaign: &Campaign, word: &ApprovalWord) -> Result<(), Problem> {
    let name = &campaign.name;
    if campaign.started_at.is_some() {
        let detail =
            format!("Campaign {name} has started already; pause it, or name the wave that is meant.");
        return Err(Problem::conflict("CAMPAIGN_STARTED", detail));
    }
    if !is_needed(rules, campaign) {
        let detail = format!("Campaign {name} needs no approval; start it: farrier campaign start {name}.");
        return Err(Problem::conflict("NO_APPROVAL_NEEDED", detail));
    }
    let first = campaign.intake.made_by.as_deref();
    if word.approved && !is_second_person(first, &word.by) {
        return Err(same_person("planned", first));
    }
    Ok(())
}

/// Gives the record of the gate once the word has been said.
fn about_a_wave(
    campaign: &Campaign,
    record: GateRecord,
    wave: u32,
    word: &ApprovalWord,
) -> Result<GateRecord, Problem> {
    let name = &campaign.name;
    if campaign.started_at.is_none() {
        let detail = format!("Campaign {name} has not started; approve it without a wave first.");
        return Err(Problem::conflict("CAMPAIGN_NOT_STARTED", detail));
    }
    let next = usize::try_from(record.open).unwrap_or(usize::MAX);
    let is_next = record.open.checked_add(1) == Some(wave) && wave <= campaign.rollout.wave_count();
    if !is_next || campaign.rollout.opening(next) != Opening::ByApproval {
        let detail = format!(
            "Wave {wave} of campaign {name} is not the next one, or does not open by approval; see which it is: \
             farrier campaign show {name}."
        );
        return Err(Problem::conflict("WAVE_NOT_TO_APPROVE", detail));
    }
    let first = campaign.intake.started_by.as_deref();
    if word.approved && !is_second_person(first, &word.by) {
        return Err(same_person("started", first));
    }
    Ok(GateRecord { approved_wave: if word.approved { wave } else { 0 }, ..record })
}
