//! All that the console says, in one place for each language: a text that one of them lacks does not compile.

mod english;
mod korean;
mod subjects;

pub(super) use english::ENGLISH;
pub(super) use korean::KOREAN;
pub(super) use subjects::{FormTexts, QueryTexts, UpdateTexts};

/// Names of the store and the wire, each with its words.
type Words = &'static [(&'static str, &'static str)];
/// Codes of refusals, each with what it means and what to do.
type Refusals = &'static [(&'static str, &'static str, &'static str)];

macro_rules! texts {
    ($($name:ident)*) => {
        /// The texts of one language; `{}` stands for what is filled in.
        #[derive(Debug)]
        pub(super) struct Texts {
            $(pub(super) $name: &'static str,)*
            states: Words,
            campaign_states: Words,
            scopes: Words,
            delta_states: Words,
            session_ends: Words,
            waiting_kinds: Words,
            statements: Words,
            weekdays: Words,
            verdicts: Words,
            /// What stands beside the code; the codes alone are English enough.
            readiness_reasons: Words,
            /// Steps that vehicles report.
            operations: Words,
            /// What stands between a number and its unit of time.
            pub(super) before_units: &'static str,
            /// Empty where the API's own words are in the language.
            refusals: Refusals,
            pub(super) of_queries: QueryTexts,
            pub(super) of_updates: UpdateTexts,
            pub(super) of_forms: FormTexts,
        }

        #[cfg(test)]
        impl Texts {
            /// Each with its name.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                let mut all = vec![$((stringify!($name), self.$name)),*];
                all.extend(self.of_queries.all());
                all.extend(self.of_updates.all());
                all.extend(self.of_forms.all());
                all
            }
        }
    };
}

texts! {
    skip_to_content sections language theme theme_system theme_light theme_dark fleet campaigns vehicles
    releases audit_log security_events refused_messages settings sign_in sign_out sign_out_everywhere
    user_name password new_password password_again password_rule password_too_short passwords_differ
    sign_in_with provider_unreachable provider_refused provider_way_lost provider_gives_no_scope provider_gives_no_name
    provider_name_taken user_disabled
    bad_user_name user_name_taken wrong_password too_many_tries no_account welcome welcome_note set_password
    connection_lost not_possible code to_fleet back pages first_page next_page just_now ago from_now never
    seconds minutes hours days enrolled connected_now being_updated download_to_verify
    needs_attention nothing_needs_attention attention_inconsistent attention_stopped attention_unknown
    attention_quarantined attention_expiry campaigns_under_way no_campaign_under_way updates_by_state
    no_updates_yet campaign release state_word progress at_release under_way failed ended left_out
    take_a_place ineligible_or_cancelled no_campaigns stopped_by_rule waves wave opens wave_open wave_closed
    opens_at_once opens_by_hand opens_by_approval opens_at opens_after_success where_vehicles_are not_started stop_rule
    no_stop_rule rule_inconsistent rule_failures rule_failed_percent why_they_wait nobody_waits
    failures_by_code none_failed only_first_counted show_all no_vehicles_here vehicle why since plan created
    started paused aborted vehicles_at_once starts_per_minute update_deadline start pause resume
    open_next_wave abort action_of_campaign will_start will_pause will_resume will_open_wave will_abort
    not_now reason find_vehicles find fleet_groups vehicles_match no_vehicles_found connection
    connected away quarantined update region tags vin last_seen end_quarantine ecus ecu hardware runs
    target no_inventory facts gateway time_zone inventory_received boot_counter clock_behind certificate
    updates no_campaign_selected no_update bytes_of cancel_update roll_back will_roll_back conversation when
    kind message correlation raw entry_received entry_refused entry_command entry_acknowledged entry_step
    entry_connection connected_since gone_since
    entry_security entry_number nothing_here images size only_for version deltas no_deltas saves
    no_releases audit_note security_note nothing_suspicious refused_note nothing_refused expected found
    subject detail times users role you active disabled disable enable change new_link invite actions
    link_made link_note tokens name expires spent waits_for_wave
    waits_for_other_update waits_for_answer waits_for_step
    eta eta_about eta_basis eta_done eta_done_why eta_halted eta_halted_why eta_unknown eta_unknown_why
    eta_not_open over_time no_history_yet figures chart_description progress_over_time progress_note waiting
    throughput throughput_note ended_per_hour bytes_over_time bytes_note bytes_sent bytes_whole less_than_whole
    no_deltas_saved adoption adoption_note other_releases no_release_yet connected_over_time connected_note
    to_all_servers last_day last_week last_month last_year attention_service_required attention_set_aside
    attention_certificate_ends advice_certificate_ends certificate_has_ended certificate_ends_soon cert_serial
    certificate_end_unknown renew_vehicle_certificate renew_vehicle_certificate_late
    attention_silent attention_approval attention_webhooks advice_inconsistent advice_service_required
    advice_unknown advice_quarantined advice_set_aside advice_silent set_aside_detail set_aside failures
    take_back take_back_vehicle will_take_back retry will_retry will_retry_at_least none_to_retry approve reject
    approved rejected approval said by_whom remark awaiting_approval awaits_approval_of_start
    awaits_approval_of_wave will_approve_start will_approve_wave will_reject_start will_reject_wave
    second_person_of_start second_person_of_wave failures_by_ecu left_out_by_reason opened filter
    wave_over wave_counted wave_took wave_open_since wave_open_unknown wave_never_opened wave_opens wave_share_now
    wave_not_before_resumed waves_in_time waves_in_time_note now_word later_word stopped_by_rule_sign halted_for halted_since
    so_many_vehicles
    all_states order newest_first by_name show no_campaigns_here
    new_campaign plan_like step steps step_what step_vehicles step_waves step_pace step_rules
    step_review next to_dry_run discard look_again remove yes choose_one hint_name hint_release whom
    note_whom whom_all whom_where whom_group whom_vehicles query fleet_group vehicle_ids
    hint_vehicle_ids follows hint_follows excludes hint_excludes type_a_query choose_group type_vehicles
    what_it_means query_end query_fault query_help query_help_note comparisons for_versions together
    example_region example_version example_tag example_vin expected_found expected_nothing
    a_whole_number a_percentage a_span an_instant a_size a_time_zone a_time_of_day a_long_text wave_size
    size_percent size_vehicles size_where size_group size_rest how_many opens_at_time opens_after_share
    time_utc share_percent hint_opens_percent add_wave note_waves note_no_waves stop_of_all note_stop
    stop_failed_percent hint_percent stop_failures hint_failures stop_inconsistent stops_at_percent
    stops_at_failures stops_at_mix stops_never caps note_caps hint_at_once hint_per_minute
    bytes_per_second hint_bytes spread hint_spread windows note_no_windows add_window window_number
    window_from window_to hint_time_of_day hint_window_to note_days first_and_last hint_time_zone
    not_before hint_not_before not_after hint_not_after retries note_no_retries note_retries add_retry
    retry_number failure any_failure attempts hint_attempts pause_first hint_span pause_factor
    hint_factor pause_longest retry_in_words order_and_approval needs_approval hint_needs_approval
    priority hint_priority hint_deadline statement note_statement dry_run note_dry_run verdict_word
    share list why_left_out for_example travels with_deltas without_deltas approval_first create_draft
    create_and_start start_campaign create_and_start_now first_wave_at_once first_wave_waits
    no_waves_at_start windows_at_start excludes_at_start
    hint_group_name note save delete delete_group will_delete_group note_groups no_groups new_group
    note_change_group campaign_for_group changed
    any is_aside first_id_first last_id_first apply look_further find_hint none_match
    campaign_for_these save_as_group import export_csv export_lines import_vehicles note_import
    choose_file csv_or_lines import_try import_now import_would import_done import_refused line column
    newly_enrolled as_they_were
    ask_inventory will_ask_inventory will_end_quarantine rebind will_rebind hint_gateway hint_thumbprint
    a_gateway_id a_thumbprint will_cancel ran_before rxswin in_domain in_zone
    vehicle_type readiness no_readiness ready not_ready condition measured usual_threshold
    verdict_of_vehicle met not_met note_readiness cert_subject thumbprint of_next_wake_up
    earlier_bindings is_set_aside
    users_and_tokens webhooks certificates_and_lists system_health token_made token_made_note
    only_admins_see_users signed_in_with tokens_for_programs revoked revoke revoke_token will_revoke_token
    good_for_days good_for_days_hint make_token
    webhooks_note no_webhooks receiver types_of_changes deliveries_waiting last_delivery new_webhook address
    types_hint make_webhook send_test rotate_secret secret_made secret_made_note deliveries no_deliveries
    attempts_in_all outcome took tried_next answer deliver_again rotate_webhook will_rotate delete_webhook
    will_delete_webhook last_changed deliveries_dropped disabled_because earlier_secret_until
    delivery_waiting delivery_delivered delivery_failed
    certificates_note no_certificates used_for ends what_to_do server_certificate server_certificate_for
    renew_server_certificate client_root client_root_for renew_client_root revocation_list
    revocation_list_for renew_revocation_list operator_certificate operator_certificate_for
    renew_operator_certificate has_ended ends_soon is_good
    server_is_ready server_is_not_ready what health_note health_good health_look health_bad health_told
    outbox outbox_words deadlines deadlines_words connections commits commits_words no_commits disk
    disk_words disk_unreadable up_for check_store check_store_good check_store_bad check_certificates
    check_certificates_good check_certificates_bad check_listeners check_listeners_good check_listeners_bad
    check_broker check_broker_good check_broker_bad
    evidence evidence_note rxswin_register find_records no_records_under no_records_yet records_by_campaign
    records record archive download download_archive how_to_verify how_to_verify_note evidence_key
    no_records_here read_record record_of_update record_note rxswin_note changed_by_releases no_rxswins
    revision software type_approval recorded
    who action at_word from_address request digest_before digest_after digest_of_entry digest_of_previous
    chain chain_holds chain_under_way chain_hint check_again export bad_moment only_admins_see
    nothing_before_or_after not_kept before_and_after before_and_after_hint before after same
    from_utc until_utc begins_with_hint nothing_found looked_back_to
    all_of_them vehicle_or_vin first_time pointer topic
    new_release upload_images upload_needs_script choose_files upload_hint upload_wants_signatures upload_queued
    upload_checking upload_sending upload_left upload_paused upload_lost upload_signed_out upload_stored
    upload_failed upload_changed upload_empty upload_given_up upload_go_on upload_give_up upload_dismiss
    uploads_unfinished uploads_unfinished_hint begun_by image take_over_from take_over images_of_release
    no_images_yet empty_rows_left_out again again_hint rules_across_ecus no_rules add_rule rule
    rule_b_hint add rules_as_json name_and_notes version_scheme no_scheme allow_downgrade downgrade
    release_counter notes release_never_changes make_release not_uploaded field_missing expected_number
    supplier rxswins rule_needs rule_needs_when rule_conflicts rule_together rule_order rule_bootloader
    rule_earlier any_version version_or_later version_or_earlier version_range or_between and_between
    release_used release_unused release_like_this vehicles_run_it delta whole_image deltas_save
    delta_needs_key no_campaign_of_release delete_release will_delete_release
}

impl Texts {
    /// The words for a state of a vehicle update.
    pub(super) fn state(&self, name: &str) -> &'static str {
        word(self.states, name)
    }

    pub(super) fn campaign_state(&self, name: &str) -> &'static str {
        word(self.campaign_states, name)
    }

    pub(super) fn scope(&self, name: &str) -> &'static str {
        word(self.scopes, name)
    }

    pub(super) fn delta_state(&self, name: &str) -> &'static str {
        word(self.delta_states, name)
    }

    /// Why a connection ended.
    pub(super) fn why_gone(&self, code: &str) -> &'static str {
        word(self.session_ends, code)
    }

    /// What is waited for, by the name of its kind.
    pub(super) fn waits_for(&self, kind: &str) -> &'static str {
        word(self.waiting_kinds, kind)
    }

    /// What a dry run says of a vehicle.
    pub(super) fn verdict(&self, name: &str) -> &'static str {
        word(self.verdicts, name)
    }

    pub(super) fn weekday(&self, day: &str) -> &'static str {
        word(self.weekdays, day)
    }

    /// How many vehicles a query matches.
    pub(super) fn matching(&self, count: &str) -> String {
        filled(self.vehicles_match, &[count])
    }

    /// What is stated of a campaign for the record of its updates.
    pub(super) fn stated(&self, name: &str) -> &'static str {
        word(self.statements, name)
    }

    /// A step that vehicles report.
    pub(super) fn operation(&self, name: &str) -> &'static str {
        word(self.operations, name)
    }

    /// What a code of a refusal means and what to do, where the API does not say it in the language itself.
    pub(super) fn refusal(&self, code: &str) -> Option<String> {
        let found = self.refusals.iter().find(|(of, _, _)| *of == code);
        found.map(|(_, means, what_to_do)| format!("{means} {what_to_do}"))
    }

    /// A reason why a vehicle is not ready: its code, and what it means where the code does not say so.
    pub(super) fn readiness_reason(&self, code: &str) -> String {
        match self.readiness_reasons.iter().find(|(name, _)| *name == code) {
            Some((code, words)) => format!("{code} ({words})"),
            None => code.to_owned(),
        }
    }
}

fn word(words: Words, name: &str) -> &'static str {
    words.iter().find(|(of, _)| *of == name).map_or("—", |(_, word)| word)
}

/// Fills in values, in their order: `{}` stands for the next one, `{vehicle|vehicles}` for its first part where the last number was
/// 1, else for the second.
pub(super) fn filled(text: &str, values: &[&str]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut values = values.iter();
    let mut is_one = false;
    let mut rest = text;
    while let Some((before, (place, after))) =
        rest.split_once('{').and_then(|(before, after)| Some((before, after.split_once('}')?)))
    {
        filled.push_str(before);
        match place.split_once('|') {
            Some((one, many)) => filled.push_str(if is_one { one } else { many }),
            None => {
                let value = values.next().copied().unwrap_or_default();
                if value.starts_with(|first: char| first.is_ascii_digit()) {
                    is_one = value == "1";
                }
                filled.push_str(value);
            }
        }
        rest = after;
    }
    filled.push_str(rest);
    filled
}

#[cfg(test)]
mod tests {
    use super::super::language::Language;
    use super::*;

    #[test]
    fn no_text_is_missing_and_each_has_the_same_places_to_fill_in() {
        let places = |text: &str| text.matches("{}").count();
        for ((name, english), (_, korean)) in ENGLISH.all().into_iter().zip(KOREAN.all()) {
            assert!(!english.trim().is_empty() && !korean.trim().is_empty(), "{name}");
            assert_eq!(places(english), places(korean), "{name}");
            let is_korean = korean.chars().any(|c| ('가'..='힣').contains(&c));
            assert!(is_korean || english == korean || places(english) > 0, "{name}: {korean}");
        }
    }

    #[test]
    fn every_name_has_its_words_in_every_language() {
        for t in Language::ALL.map(Language::texts) {
            for (state, _) in super::super::progress::STATES {
                assert_ne!(t.state(state), "—", "{state}");
            }
            for standing in farrier_campaign::Standing::ALL {
                assert_ne!(t.state(standing.state_name()), "—", "{standing:?}");
            }
            for why in crate::desk::WhyGone::ALL {
                assert_ne!(t.why_gone(why.name()), "—", "{why:?}");
            }
            for scope in crate::access::Scope::ALL {
                assert_ne!(t.scope(scope.name()), "—", "{scope:?}");
            }
            for step in farrier_protocol::Operation::ALL {
                assert_ne!(t.operation(step.name()), "—", "{step}");
            }
            for state in ["draft", "starting", "running", "paused", "stopped", "aborted", "finished"] {
                assert_ne!(t.campaign_state(state), "—", "{state}");
            }
        }
    }

    #[test]
    fn every_code_of_a_refusal_is_told_in_korean() {
        let codes: Vec<_> = crate::api::problem_codes().collect();
        let told: Vec<_> = KOREAN.refusals.iter().map(|(code, _, _)| *code).collect();
        assert_eq!(told, codes);
        let is_korean = |text: &str| text.chars().any(|c| ('가'..='힣').contains(&c)) && text.ends_with('.');
        for (code, means, what_to_do) in KOREAN.refusals {
            assert!(is_korean(means) && is_korean(what_to_do), "{code}");
        }
    }

    #[test]
    fn whatever_is_waited_for_has_its_words_in_every_language() {
        let stored = include_str!("../../../campaign/src/vehicle_update/stored_states.json");
        let states: Vec<farrier_campaign::State> = serde_json::from_str(stored).unwrap();
        assert!(states.len() > 30, "{}", states.len());
        for waiting_on in states.iter().filter_map(farrier_campaign::State::waiting_on) {
            for t in Language::ALL.map(Language::texts) {
                let reasons = super::super::why::reasons(t, &waiting_on);
                assert!(reasons.iter().all(|reason| !reason.contains('—')), "{waiting_on:?}: {reasons:?}");
            }
        }
    }

    #[test]
    fn values_are_filled_in_in_their_order() {
        assert_eq!(filled("{} of {}", &["1", "2"]), "1 of 2");
        assert_eq!(filled("none", &["1"]), "none");
        assert_eq!(filled("{} and {}", &["1"]), "1 and ");
    }

    #[test]
    fn words_agree_with_the_number_before_them() {
        let text = "{} {vehicle|vehicles} that ended with {} {is|are} tried again";
        assert_eq!(filled(text, &["1", "A_FAULT"]), "1 vehicle that ended with A_FAULT is tried again");
        for many in ["0", "2", "1,000"] {
            assert_eq!(
                filled(text, &[many, "A_FAULT"]),
                format!("{many} vehicles that ended with A_FAULT are tried again")
            );
        }
    }
}
