//! Texts by subject, each subject with a file of its own in each language.

/// The texts of one subject; `{}` stands for what is filled in.
macro_rules! subject {
    ($(#[$doc:meta])* $name:ident { $($text:ident)* }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(in crate::console) struct $name {
            $(pub(in crate::console) $text: &'static str,)*
        }

        #[cfg(test)]
        impl $name {
            /// Each with its name.
            pub(super) fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($text), self.$text)),*]
            }
        }
    };
}

subject! {
    /// What is wrong with a query, and what one means.
    QueryTexts {
        comparison field operator operator_of_version quoted_text valid_text end_of_text escape token version
        list_of_texts more_texts more_or_closing more_or_end nothing_after_all known_or_unknown
        ecu_side_by_side at_most_bytes at_most_canonical_bytes at_most_depth at_most_comparisons
        end unknown_field text bytes ecu_apart
        every_vehicle vehicles_for_one vehicles_for_all vehicles_for_not_all vehicles_for_any vehicles_for_none
        all_hold not_all_hold any_holds none_holds any_vehicle no_vehicle
        is is_not is_known_and_not is_one_of is_not_one_of is_known_and_not_one_of begins begins_not is_known
        is_unknown or_unknown
        has_tag has_no_tag has_one_of_tags has_none_of_tags has_tag_beginning has_no_tag_beginning has_a_tag
        has_not_a_tag
        one_ecu no_ecu and_ecu ecu_is ecu_other_than ecu_one_of ecu_begins ecu_known ecu_unknown ecu_below
        ecu_at_most ecu_above ecu_at_least
    }
}

subject! {
    /// Why a vehicle cannot get a release, what a dry run says of it, and how its update ended.
    UpdateTexts {
        no_matching_hardware hardware_unknown version_unknown inventory_incomplete inventory_incomplete_of
        command_unsupported plan_rejected no_fitting_image downgrade version_not_in_scheme semver dotted date
        need_missing need_not_met conflict bootloader_unknown bootloader_too_old earlier_version set_aside
        together unknown_value found_version
        in_another_update is_quarantined inventory_not_known would_be_updated runs_it_already cannot_get
        cancelled up_to_date ineligible succeeded succeeded_late rolled_back inconsistent
        commit_reported deadline_passed update_failed service_required consent_denied error_reported
        rollback_reported rollback_deadline_passed rollback_refused found_later of_ecus
        stopped stopped_in_wave
    }
}

subject! {
    /// What is expected of what somebody types or gives.
    FormTexts {
        a_short_text a_sha256 a_scheme a_rule file_empty file_columns file_cells file_quote
    }
}
