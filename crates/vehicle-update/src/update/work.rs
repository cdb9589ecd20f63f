//! One goal for every ECU of an update: whose turn it is, how often each is tried, and what came of it.

use std::collections::BTreeMap;
use std::time::Duration;

use farrier_protocol::{EcuId, MsgId, UnixMillis};
use serde::Deserialize;

use crate::ecu_work::{EcuCall, Goal};
use crate::plan::Plan;
use crate::record::{EarlierSoftware, Why};

/// How often one ECU is tried in one phase. The longest way must stay below the ECUs' trial time.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Attempts while the update can still be given up.
    pub attempts: u32,
    /// Attempts to bring an ECU to the state of the others, after which service is required.
    pub attempts_to_end: u32,
    /// Wait before a second try in milliseconds; grows by itself with each further one, up to 30 s.
    pub retry_wait_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { attempts: 5, attempts_to_end: 20, retry_wait_ms: 1_000 }
    }
}

impl Bounds {
    pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

    pub(super) fn attempts_for(&self, goal: Goal) -> u32 {
        match goal {
            Goal::Sync | Goal::Write | Goal::Activate | Goal::Prove | Goal::OfferEarlier => self.attempts,
            Goal::Keep | Goal::StayEarlier | Goal::RestoreEarlier => self.attempts_to_end,
        }
    }

    /// The first attempt after the first call comes at once.
    pub(super) fn wait(&self, attempts_used: u32) -> Duration {
        Duration::from_millis(self.retry_wait_ms).saturating_mul(attempts_used).min(Self::LONGEST_WAIT)
    }
}

/// One goal for every ECU.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) goal: Goal,
    pub(super) ecus: BTreeMap<EcuId, EcuState>,
    /// Whether no further call is made, because the update cannot go on.
    pub(super) stopped: bool,
    /// The StartRollback that is being looked at.
    pub(super) undo: Option<(MsgId, UnixMillis)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EcuState {
    Waiting,
    Calling { call: EcuCall, attempts_used: u32 },
    Reached(Option<EarlierSoftware>),
    Failed(String),
}

impl Work {
    pub(super) fn is_calling(&self) -> bool {
        self.ecus.values().any(|state| matches!(state, EcuState::Calling { .. }))
    }

    /// Whether leaving an ECU in the middle of this does no harm.
    pub(super) fn can_be_stopped(&self) -> bool {
        match self.goal {
            Goal::Sync | Goal::Write => true,
            Goal::Activate
            | Goal::Prove
            | Goal::Keep
            | Goal::StayEarlier
            | Goal::RestoreEarlier
            | Goal::OfferEarlier => false,
        }
    }

    /// The ECUs to start: when writing, those of the lowest install order that is left, else all.
    pub(super) fn next_ecus(&self, plan: &Plan) -> Vec<EcuId> {
        let order = |ecu_id: &EcuId| match self.goal {
            Goal::Write => plan.package(ecu_id).map_or(0, |package| package.install_order),
            Goal::Sync
            | Goal::Activate
            | Goal::Prove
            | Goal::Keep
            | Goal::StayEarlier
            | Goal::RestoreEarlier
            | Goal::OfferEarlier => 0,
        };
        let waiting = || self.ecus.iter().filter(|(_, state)| **state == EcuState::Waiting).map(|(id, _)| id);
        let lowest = waiting().map(order).min();
        waiting().filter(|ecu_id| Some(order(ecu_id)) == lowest).cloned().collect()
    }

    pub(super) fn failure(&self) -> Option<Why> {
        let failed: Vec<(&EcuId, &String)> = self
            .ecus
            .iter()
            .filter_map(|(ecu_id, state)| match state {
                EcuState::Failed(detail) => Some((ecu_id, detail)),
                EcuState::Waiting | EcuState::Calling { .. } | EcuState::Reached(_) => None,
            })
            .collect();
        if failed.is_empty() {
            return None;
        }
        let details: Vec<String> =
            failed.iter().map(|(ecu_id, detail)| format!("{ecu_id}: {detail}")).collect();
        Some(Why {
            detail: details.join("; "),
            failed_ecus: failed.into_iter().map(|(ecu_id, _)| ecu_id.clone()).collect(),
            cancelled: false,
        })
    }

    pub(super) fn earlier_software(&self) -> Vec<EarlierSoftware> {
        self.ecus
            .values()
            .filter_map(|state| match state {
                EcuState::Reached(software) => software.clone(),
                EcuState::Waiting | EcuState::Calling { .. } | EcuState::Failed(_) => None,
            })
            .collect()
    }
}
