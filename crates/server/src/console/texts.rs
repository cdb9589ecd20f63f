//! All that the console says, in one place for each language: a text that one of them lacks does not compile.

mod english;
mod korean;

pub(super) use english::ENGLISH;
pub(super) use korean::KOREAN;

/// Names of the store and the wire, each with its words.
type Words = &'static [(&'static str, &'static str)];

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
            waiting_kinds: Words,
            /// What stands beside the code; the codes alone are English enough.
            readiness_reasons: Words,
        }

        #[cfg(test)]
        impl Texts {
            /// Each with its name.
            fn all(&self) -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), self.$name)),*]
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
    seconds minutes hours days enrolled connected_now to_this_server being_updated download_to_verify
    needs_attention nothing_needs_attention attention_inconsistent attention_stopped attention_unknown
    attention_quarantined attention_expiry campaigns_under_way no_campaign_under_way updates_by_state
    no_updates_yet campaign release state_word progress at_release under_way failed ended left_out
    take_a_place ineligible_or_cancelled no_campaigns stopped_by_rule waves wave opens wave_open wave_closed
    opens_at_once opens_by_hand opens_by_approval opens_at opens_after_success where_vehicles_are not_started stop_rule
    no_stop_rule rule_inconsistent rule_failures rule_failed_percent why_they_wait nobody_waits
    failures_by_code none_failed only_first_counted show_all no_vehicles_here vehicle why since plan created
    started paused aborted vehicles_at_once starts_per_minute update_deadline start pause resume
    open_next_wave abort action_of_campaign will_start will_pause will_resume will_open_wave will_abort
    not_now reason find_vehicles find query_hint fleet_groups vehicles_match no_vehicles_found connection
    connected away quarantined update region tags vin last_seen end_quarantine ecus ecu domain hardware runs
    target no_inventory facts gateway time_zone inventory_received boot_counter clock_behind certificate
    updates no_campaign_selected no_update bytes_of cancel_update roll_back will_roll_back conversation when
    kind message correlation raw entry_received entry_refused entry_command entry_acknowledged entry_step
    entry_security entry_number nothing_here images size only_for version deltas no_deltas saves rules
    no_releases audit_note security_note nothing_suspicious refused_note nothing_refused expected found
    subject detail times users role you active disabled disable enable change new_link invite actions
    link_made link_note tokens tokens_note name expires spent certificates nothing_expires waits_for_wave
    waits_for_other_update waits_for_answer waits_for_step
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

    /// What is waited for, by the name of its kind.
    pub(super) fn waits_for(&self, kind: &str) -> &'static str {
        word(self.waiting_kinds, kind)
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

/// Fills in values, in their order.
pub(super) fn filled(text: &str, values: &[&str]) -> String {
    let mut parts = text.split("{}");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut values = values.iter();
    for part in parts {
        filled.push_str(values.next().copied().unwrap_or_default());
        filled.push_str(part);
    }
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
            for scope in crate::access::Scope::ALL {
                assert_ne!(t.scope(scope.name()), "—", "{scope:?}");
            }
            for state in ["draft", "starting", "running", "paused", "stopped", "aborted", "finished"] {
                assert_ne!(t.campaign_state(state), "—", "{state}");
            }
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
}
