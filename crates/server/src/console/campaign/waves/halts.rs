//! When a campaign let nothing begin: paused, stopped by its rule, or aborted.

use farrier_protocol::UnixMillis;

use super::{Axis, of_width};
use crate::console::format::{absolute, span};
use crate::console::texts::{Texts, filled};
use crate::store::campaigns::Campaign;
use crate::store::{StoreError, Tx, audit};

/// Pauses and stops that are shown, the last ones.
const HALTS: u32 = 40;
const HALTED_BY: [&str; 4] = ["campaign.paused", "campaign.stopped", "campaign.resumed", "campaign.aborted"];

/// Why nothing began for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::console::campaign) enum Why {
    Paused,
    Stopped,
    Aborted,
}

impl Why {
    /// Its pattern and colour.
    pub(in crate::console::campaign) fn class(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Aborted => "aborted",
        }
    }

    fn text(self, t: &Texts) -> &'static str {
        match self {
            Self::Paused => t.paused,
            Self::Stopped => t.stopped_by_rule_sign,
            Self::Aborted => t.aborted,
        }
    }

    /// Its sign, around the middle.
    pub(in crate::console::campaign) fn sign(self) -> &'static str {
        match self {
            Self::Paused => "M-4,-5h3v10h-3zM1,-5h3v10h-3z",
            Self::Stopped => "M-2.5,-6h5l3.5,3.5v5l-3.5,3.5h-5l-3.5,-3.5v-5z",
            Self::Aborted => {
                "M-5,-3.5l1.5,-1.5l3.5,3.5l3.5,-3.5l1.5,1.5l-3.5,3.5l3.5,3.5l-1.5,1.5l-3.5,-3.5l-3.5,3.5l-1.5,-1.5l3.5,-3.5z"
            }
        }
    }
}

/// A while in which nothing began; without an end it goes on, or is one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Halt {
    pub(super) why: Why,
    pub(super) from: UnixMillis,
    pub(super) until: Option<UnixMillis>,
}

/// A sign at the axis, and what it says.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::console::campaign) struct Sign {
    pub(in crate::console::campaign) why: Why,
    pub(in crate::console::campaign) x: String,
    pub(in crate::console::campaign) text: String,
}

/// When nothing began, oldest first: as the audit log has it, and as it is now.
pub(super) fn halts(tx: &Tx<'_>, campaign: &Campaign) -> Result<Vec<Halt>, StoreError> {
    let object = format!("campaign/{}", campaign.name);
    let told = audit::times_of(tx, &object, HALTED_BY, HALTS)?;
    let mut all = Vec::new();
    let mut open: Option<Halt> = None;
    for (action, at) in
        told.into_iter().filter(|(_, at)| campaign.started_at.is_some_and(|start| *at >= start))
    {
        all.extend(open.take().map(|halt| Halt { until: Some(at), ..halt }));
        open = match action.as_str() {
            "campaign.paused" => Some(Halt { why: Why::Paused, from: at, until: None }),
            "campaign.stopped" => Some(Halt { why: Why::Stopped, from: at, until: None }),
            _ => None,
        };
    }
    let is_now = |why, from| Halt { why, from, until: None };
    match (&campaign.aborted, &campaign.stopped, campaign.paused_at) {
        (Some(aborted), _, _) => all.push(is_now(Why::Aborted, aborted.at)),
        (None, Some(stopped), _) => all.push(is_now(Why::Stopped, stopped.at)),
        (None, None, Some(at)) => all.push(is_now(Why::Paused, at)),
        (None, None, None) => {}
    }
    Ok(all)
}

impl Halt {
    pub(super) fn sign(&self, t: &Texts, axis: &Axis) -> Sign {
        let (what, from) = (self.why.text(t), absolute(self.from));
        let text = match self.until {
            Some(until) => {
                filled(t.halted_for, &[what, &from, &span(t, until.0.saturating_sub(self.from.0))])
            }
            None => filled(t.halted_since, &[what, &from]),
        };
        Sign { why: self.why, x: of_width(axis.x(self.from)), text }
    }
}
