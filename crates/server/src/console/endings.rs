//! Why a vehicle cannot get a release, how its update ended, why a campaign has stopped: in the visitor's language, from the data
//! that the campaign decides by. In English as the campaign itself says it.

use farrier_campaign::{
    Evaluation, FoundVersion, IneligibleReason, State, StopReason, VerifyCause, VersionScheme,
};
use farrier_protocol::{EcuId, Text};

use super::format::bytes;
use super::texts::{Texts, filled};
use crate::api::dry_run::Outlook;

/// A reason as part of a sentence.
pub(super) fn reason(t: &Texts, reason: &IneligibleReason) -> String {
    let u = &t.of_updates;
    let or_unknown = |text: &Option<Text>| text.as_ref().map_or(u.unknown_value, Text::as_str).to_owned();
    match reason {
        IneligibleReason::NoMatchingHardware => u.no_matching_hardware.to_owned(),
        IneligibleReason::HardwareUnknown { ecu_id } => filled(u.hardware_unknown, &[ecu_id.as_str()]),
        IneligibleReason::VersionUnknown { ecu_id } => filled(u.version_unknown, &[ecu_id.as_str()]),
        IneligibleReason::InventoryIncomplete { failed_ecus } if failed_ecus.is_empty() => {
            u.inventory_incomplete.to_owned()
        }
        IneligibleReason::InventoryIncomplete { failed_ecus } => {
            filled(u.inventory_incomplete_of, &[&ecus(failed_ecus)])
        }
        IneligibleReason::CommandUnsupported { command } => filled(u.command_unsupported, &[command.name()]),
        IneligibleReason::PlanRejected => u.plan_rejected.to_owned(),
        IneligibleReason::NoFittingImage { ecu_id, supplier, region } => {
            filled(u.no_fitting_image, &[ecu_id.as_str(), &or_unknown(supplier), &or_unknown(region)])
        }
        IneligibleReason::Downgrade { ecu_id, running, offered } => {
            filled(u.downgrade, &[ecu_id.as_str(), running.as_str(), offered.as_str()])
        }
        IneligibleReason::VersionNotInScheme { ecu_id, found, scheme } => {
            let scheme = match scheme {
                VersionScheme::Semver => u.semver,
                VersionScheme::Dotted => u.dotted,
                VersionScheme::Date => u.date,
            };
            filled(u.version_not_in_scheme, &[ecu_id.as_str(), found.as_str(), scheme])
        }
        IneligibleReason::NeedNotMet { hw_part_no, at_least, found } if found.is_empty() => {
            filled(u.need_missing, &[hw_part_no.as_str(), at_least.as_str()])
        }
        IneligibleReason::NeedNotMet { hw_part_no, at_least, found } => {
            filled(u.need_not_met, &[hw_part_no.as_str(), at_least.as_str(), &versions(t, found)])
        }
        IneligibleReason::Conflict { ecu_id, hw_part_no, version, from, to } => {
            let range = super::release_rules::range(t, from.as_ref(), to.as_ref());
            let parts = [hw_part_no.as_str(), &range, ecu_id.as_str(), &or_unknown(version)];
            filled(u.conflict, &parts)
        }
        IneligibleReason::BootloaderTooOld { ecu_id, found: None, at_least } => {
            filled(u.bootloader_unknown, &[ecu_id.as_str(), at_least.as_str()])
        }
        IneligibleReason::BootloaderTooOld { ecu_id, found: Some(found), at_least } => {
            filled(u.bootloader_too_old, &[ecu_id.as_str(), at_least.as_str(), found.as_str()])
        }
        IneligibleReason::EarlierVersionNotAllowed { ecu_id, running, allowed } => {
            let allowed = joined(allowed, t.or_between);
            filled(u.earlier_version, &[ecu_id.as_str(), running.as_str(), &allowed])
        }
        IneligibleReason::SetAside { failures } => filled(u.set_aside, &[&failures.to_string()]),
        IneligibleReason::TogetherIncomplete { hw_part_nos, missing } => {
            filled(u.together, &[&joined(hw_part_nos, t.and_between), &joined(missing, t.or_between)])
        }
    }
}

fn reasons(t: &Texts, reasons: &[IneligibleReason]) -> String {
    reasons.iter().map(|one| reason(t, one)).collect::<Vec<_>>().join("; ")
}

/// What a dry run says of a vehicle, in a sentence.
pub(super) fn foreseen(t: &Texts, outlook: &Outlook) -> String {
    let u = &t.of_updates;
    match outlook {
        Outlook::InAnotherUpdate(campaign) => filled(u.in_another_update, &[campaign.as_str()]),
        Outlook::Quarantined => u.is_quarantined.to_owned(),
        Outlook::InventoryUnknown => u.inventory_not_known.to_owned(),
        Outlook::Evaluated(Evaluation::Eligible(plan)) => {
            filled(u.would_be_updated, &[&plan.ecu_count().to_string(), &bytes(plan.size_bytes())])
        }
        Outlook::Evaluated(Evaluation::UpToDate) => u.runs_it_already.to_owned(),
        Outlook::Evaluated(Evaluation::Ineligible(all)) => filled(u.cannot_get, &[&reasons(t, all)]),
    }
}

/// How an update ended, in a sentence; `None` where something is still waited for.
pub(super) fn ended(t: &Texts, state: &State) -> Option<String> {
    let u = &t.of_updates;
    let said = match state {
        State::Cancelled { reason, .. } => filled(u.cancelled, &[reason.as_str()]),
        State::UpToDate => u.up_to_date.to_owned(),
        State::Ineligible { reasons: all } => filled(u.ineligible, &[&reasons(t, all)]),
        State::Succeeded { late: false, .. } => u.succeeded.to_owned(),
        State::Succeeded { late: true, .. } => u.succeeded_late.to_owned(),
        State::RolledBack { cause, .. } => filled(u.rolled_back, &[&caused(t, cause)]),
        State::Inconsistent { cause, found, .. } => {
            filled(u.inconsistent, &[&caused(t, cause), &versions(t, found)])
        }
        State::Waiting { .. }
        | State::CollectingVci { .. }
        | State::CheckingReadiness { .. }
        | State::Deferred { .. }
        | State::Downloading(_)
        | State::Installing(_)
        | State::Committing(_)
        | State::Verifying { .. }
        | State::RollingBack { .. }
        | State::Unknown { .. } => return None,
    };
    Some(said)
}

/// What led to the end of an attempt, as part of a sentence.
pub(super) fn caused(t: &Texts, cause: &VerifyCause) -> String {
    let u = &t.of_updates;
    let of_ecus = |failed: &[EcuId]| match failed.is_empty() {
        true => String::new(),
        false => filled(u.of_ecus, &[&ecus(failed)]),
    };
    match cause {
        VerifyCause::CommitReported => u.commit_reported.to_owned(),
        VerifyCause::DeadlinePassed => u.deadline_passed.to_owned(),
        VerifyCause::UpdateFailed { failed_ecus } => filled(u.update_failed, &[&of_ecus(failed_ecus)]),
        VerifyCause::ServiceRequired { failed_ecus } => filled(u.service_required, &[&of_ecus(failed_ecus)]),
        VerifyCause::ConsentDenied => u.consent_denied.to_owned(),
        VerifyCause::ErrorReported { code } => filled(u.error_reported, &[code.name()]),
        VerifyCause::RollbackReported => u.rollback_reported.to_owned(),
        VerifyCause::RollbackDeadlinePassed => u.rollback_deadline_passed.to_owned(),
        VerifyCause::RollbackRefused { code } => filled(u.rollback_refused, &[code.name()]),
        VerifyCause::FoundLater => u.found_later.to_owned(),
    }
}

/// Why a campaign has stopped by its rule, in a sentence.
pub(super) fn stopped(t: &Texts, stopped: &StopReason) -> String {
    let [failed, vehicles, inconsistent] =
        [stopped.failed, stopped.vehicles, stopped.inconsistent].map(super::format::number);
    match stopped.wave {
        None => filled(t.of_updates.stopped, &[&failed, &vehicles, &inconsistent]),
        Some(wave) => {
            filled(t.of_updates.stopped_in_wave, &[&failed, &vehicles, &wave.to_string(), &inconsistent])
        }
    }
}

fn ecus(ecus: &[EcuId]) -> String {
    ecus.iter().map(EcuId::as_str).collect::<Vec<_>>().join(", ")
}

fn joined(names: &[Text], by: &str) -> String {
    names.iter().map(Text::as_str).collect::<Vec<_>>().join(by)
}

fn versions(t: &Texts, found: &[FoundVersion]) -> String {
    let u = &t.of_updates;
    let one = |found: &FoundVersion| {
        let version = found.version.as_ref().map_or(u.unknown_value, Text::as_str);
        filled(u.found_version, &[found.ecu_id.as_str(), version])
    };
    found.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use farrier_protocol::UnixMillis;

    use super::*;
    use crate::console::texts::{ENGLISH, KOREAN};

    fn all_reasons() -> Vec<IneligibleReason> {
        serde_json::from_str(
            r#"[{"reason": "no_matching_hardware"},
                {"reason": "hardware_unknown", "ecu_id": "E1"},
                {"reason": "version_unknown", "ecu_id": "E1"},
                {"reason": "inventory_incomplete", "failed_ecus": []},
                {"reason": "inventory_incomplete", "failed_ecus": ["E1", "E2"]},
                {"reason": "command_unsupported", "command": "StartDownload"},
                {"reason": "plan_rejected"},
                {"reason": "no_fitting_image", "ecu_id": "E1", "supplier": "S1", "region": null},
                {"reason": "downgrade", "ecu_id": "E1", "running": "V2", "offered": "V1"},
                {"reason": "version_not_in_scheme", "ecu_id": "E1", "found": "V1", "scheme": "semver"},
                {"reason": "version_not_in_scheme", "ecu_id": "E1", "found": "V1", "scheme": "dotted"},
                {"reason": "version_not_in_scheme", "ecu_id": "E1", "found": "V1", "scheme": "date"},
                {"reason": "need_not_met", "hw_part_no": "H1", "at_least": "V1", "found": []},
                {"reason": "need_not_met", "hw_part_no": "H1", "at_least": "V2",
                 "found": [{"ecu_id": "E1", "version": "V1"}, {"ecu_id": "E2", "version": null}]},
                {"reason": "conflict", "ecu_id": "E1", "hw_part_no": "H1", "version": "V1", "from": null, "to": "V2"},
                {"reason": "conflict", "ecu_id": "E1", "hw_part_no": "H1", "version": null, "from": "V1", "to": "V2"},
                {"reason": "bootloader_too_old", "ecu_id": "E1", "found": null, "at_least": "V1"},
                {"reason": "bootloader_too_old", "ecu_id": "E1", "found": "V1", "at_least": "V2"},
                {"reason": "earlier_version_not_allowed", "ecu_id": "E1", "running": "V1", "allowed": ["V2", "V3"]},
                {"reason": "set_aside", "failures": 3},
                {"reason": "together_incomplete", "hw_part_nos": ["H1", "H2"], "missing": ["H3", "H4"]}]"#,
        )
        .unwrap()
    }

    /// Korean names all that the English sentence names.
    fn is_told_in_korean(korean: &str, english: &str) {
        assert!(korean.chars().any(|c| ('가'..='힣').contains(&c)), "{korean}");
        let is_name = |word: &&str| {
            word.len() > 1
                && word.chars().any(|c| c.is_ascii_digit())
                && word.starts_with(['E', 'H', 'V', 'S'])
        };
        for name in english.split([' ', ',', ';', ':', '.', '(', ')']).filter(is_name) {
            assert!(korean.contains(name), "{korean} lacks {name}");
        }
    }

    #[test]
    fn every_reason_is_said_in_english_as_the_campaign_says_it_and_in_korean_with_all_that_it_names() {
        for one in all_reasons() {
            assert_eq!(reason(&ENGLISH, &one), one.phrase());
            is_told_in_korean(&reason(&KOREAN, &one), &one.phrase());
        }
    }

    #[test]
    fn every_end_is_said_in_english_as_the_campaign_says_it_and_in_korean() {
        let stored = include_str!("../../../campaign/src/vehicle_update/stored_states.json");
        let states: Vec<State> = serde_json::from_str(stored).unwrap();
        let mut kinds = std::collections::BTreeSet::new();
        for state in states {
            let Some(said) = ended(&ENGLISH, &state) else {
                assert!(state.waiting_on().is_some(), "{state:?}");
                continue;
            };
            kinds.insert(state.name());
            assert_eq!(said, state.sentence(UnixMillis(0)));
            is_told_in_korean(&ended(&KOREAN, &state).unwrap(), &said);
        }
        let all = ["cancelled", "inconsistent", "ineligible", "rolled_back", "succeeded", "up_to_date"];
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn every_cause_has_its_words() {
        let ecus: Vec<EcuId> = vec!["E1".parse().unwrap()];
        let code = farrier_protocol::ErrorCode::Busy;
        for cause in [
            VerifyCause::CommitReported,
            VerifyCause::DeadlinePassed,
            VerifyCause::UpdateFailed { failed_ecus: ecus.clone() },
            VerifyCause::ServiceRequired { failed_ecus: ecus },
            VerifyCause::UpdateFailed { failed_ecus: Vec::new() },
            VerifyCause::ConsentDenied,
            VerifyCause::ErrorReported { code },
            VerifyCause::RollbackReported,
            VerifyCause::RollbackDeadlinePassed,
            VerifyCause::RollbackRefused { code },
            VerifyCause::FoundLater,
        ] {
            let plan = farrier_campaign::Plan { packages: Vec::new() };
            let state = State::RolledBack { plan, cause };
            assert_eq!(ended(&ENGLISH, &state).unwrap(), state.sentence(UnixMillis(0)));
            is_told_in_korean(&ended(&KOREAN, &state).unwrap(), &state.sentence(UnixMillis(0)));
        }
    }

    #[test]
    fn why_a_campaign_has_stopped_is_said_in_english_as_the_campaign_says_it() {
        for wave in [None, Some(2)] {
            let reason = StopReason { wave, failed: 3, inconsistent: 1, vehicles: 40 };
            assert_eq!(stopped(&ENGLISH, &reason), reason.sentence());
            let said = stopped(&KOREAN, &reason);
            assert!(said.contains("3대") && said.contains("40대") && said.contains("1대"), "{said}");
        }
    }
}
