//! Attempts that follow a failed one: the rules of a campaign, the pause, what ends both.

use super::*;
use crate::retry_policy::{Attempts, NextAttempt, RetryCode, RetryRule};
use crate::rollout::Rollout;

fn rule(code: RetryCode, attempts: u32) -> RetryRule {
    RetryRule { code, attempts, pause_s: 100, factor: 3, longest_pause_s: 500 }
}

fn with_rules(retries: Vec<RetryRule>) -> Rollout {
    Rollout { retries, ..Rollout::default() }
}

fn update_failed() -> VerifyCause {
    VerifyCause::UpdateFailed { failed_ecus: vec!["e1".parse().unwrap()] }
}

pub(super) fn pausing_until(at: UnixMillis) -> State {
    let next = NextAttempt { attempt: 2, of: 3, at };
    State::RolledBack { plan: plan(), cause: update_failed() }.before_next_attempt(next)
}

/// The attempt that follows one that failed for this cause, so many having failed with it.
fn next_after(rollout: &Rollout, cause: VerifyCause, failed: u32) -> Option<NextAttempt> {
    let (from, to) = (verifying(cause.clone()), State::RolledBack { plan: plan(), cause });
    rollout.next_attempt(&from, &to, Attempts { failed, barred: false }, NOW)
}

#[test]
fn pauses_grow_to_their_limit_until_the_attempts_are_used_up() {
    let rollout = with_rules(vec![rule(RetryCode::UpdateFailed, 4)]);
    let pauses: Vec<_> = (1..=4)
        .map(|failed| next_after(&rollout, update_failed(), failed))
        .map(|next| next.map(|next| (next.attempt, next.of, (next.at.0 - NOW.0) / 1000)))
        .collect();
    assert_eq!(pauses, [Some((2, 4, 100)), Some((3, 4, 300)), Some((4, 4, 500)), None]);
}

#[test]
fn nothing_is_tried_again_where_no_rule_says_so() {
    assert_eq!(next_after(&Rollout::default(), update_failed(), 1), None);
    let for_silence = with_rules(vec![rule(RetryCode::DeadlinePassed, 3)]);
    assert_eq!(next_after(&for_silence, update_failed(), 1), None);
    assert!(next_after(&for_silence, VerifyCause::DeadlinePassed, 1).is_some());
}

#[test]
fn a_rule_for_a_code_goes_before_the_one_for_all() {
    let rollout = with_rules(vec![rule(RetryCode::Any, 5), rule(RetryCode::UpdateFailed, 1)]);
    assert_eq!(next_after(&rollout, update_failed(), 1), None);
    assert_eq!(next_after(&rollout, VerifyCause::DeadlinePassed, 1).unwrap().of, 5);
}

#[test]
fn what_people_must_decide_is_not_tried_again_by_the_rule_for_all() {
    let rollout = with_rules(vec![rule(RetryCode::Any, 10)]);
    let service = || VerifyCause::ServiceRequired { failed_ecus: vec![] };
    for cause in [
        VerifyCause::ConsentDenied,
        VerifyCause::RollbackReported,
        VerifyCause::RollbackDeadlinePassed,
        VerifyCause::RollbackRefused { code: ErrorCode::Busy },
        VerifyCause::FoundLater,
        VerifyCause::ErrorReported { code: ErrorCode::Cancelled },
        service(),
    ] {
        assert_eq!(next_after(&rollout, cause.clone(), 1), None, "{cause:?}");
    }
    let named = with_rules(vec![rule(RetryCode::ServiceRequired, 2)]);
    assert!(next_after(&named, service(), 1).is_some());
    for ended in [
        State::Inconsistent { plan: plan(), cause: update_failed(), found: vec![] },
        State::Unknown { plan: plan(), cause: update_failed() },
        State::Cancelled { reason: text("why"), plan: Some(plan()) },
        State::Ineligible { reasons: vec![IneligibleReason::NoMatchingHardware] },
    ] {
        let attempts = Attempts { failed: 1, barred: false };
        assert_eq!(rollout.next_attempt(&collecting(), &ended, attempts, NOW), None, "{ended:?}");
    }
}

#[test]
fn rules_that_cannot_be_gone_by_are_refused_where_they_stand() {
    type Break = fn(&mut Vec<RetryRule>);
    let broken: [(&str, Break); 7] = [
        ("/retries", |rules| *rules = vec![rules[0].clone(); 17]),
        ("/retries/0/attempts", |rules| rules[0].attempts = 11),
        ("/retries/0/attempts", |rules| rules[0].attempts = 0),
        ("/retries/0/pause_s", |rules| rules[0].pause_s = 604_801),
        ("/retries/0/factor", |rules| rules[0].factor = 0),
        ("/retries/0/longest_pause_s", |rules| rules[0].longest_pause_s = 0),
        ("/retries/1/code", |rules| rules.push(rules[0].clone())),
    ];
    for (pointer, break_it) in broken {
        let mut rules = vec![rule(RetryCode::Any, 10)];
        assert_eq!(with_rules(rules.clone()).check(), Ok(()));
        break_it(&mut rules);
        assert_eq!(with_rules(rules).check().unwrap_err().pointer, pointer);
    }
    let refused = serde_json::from_str::<RetryRule>(r#"{"code": "CONSENT_DENIED", "attempts": 2}"#);
    assert!(refused.unwrap_err().to_string().contains("UPDATE_FAILED"));
}

#[test]
fn rows_of_waiting_for_the_next_attempt() {
    let pause = || pausing_until(NOW.plus_seconds(100));
    assert_eq!(pause().due_at(), Some(NOW.plus_seconds(100)));
    for event in [Event::LookedAt, Event::WokenUp, Event::TimePassed] {
        let same = row(pause(), event.clone(), &THERE.later(99), "waiting", &[]);
        assert_eq!(same, pause());
        row(pause(), event.clone(), &THERE.later(100), "collecting_vci", &["RequestVCI"]);
        let held = row(pause(), event.clone(), &QUARANTINED.later(100), "waiting", &[]);
        assert_eq!(held, State::Waiting { hold: Hold::Blocked(Block::Quarantine) });
        assert_eq!(row(pause(), event, &AWAY.later(100), "waiting", &[]), State::selected());
    }
    let ended = row(pause(), Event::CancelAsked { reason: text("why") }, &THERE, "rolled_back", &[]);
    assert_eq!(ended, State::RolledBack { plan: plan(), cause: update_failed() });
    assert_eq!(row(pause(), Event::RetryAsked, &THERE, "waiting", &[]), State::selected());
    row(pause(), Event::OtherVciSeen(&vci("HW", &["1", "1"])), &THERE, "waiting", &[]);
    row(pause(), Event::OtherVciSeen(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
    row(pause(), Event::OtherVciSeen(&vci("HW", &["1", "2"])), &THERE, "inconsistent", &["alarm"]);
    row(pause(), Event::OtherVciSeen(&vci("HW", &["2", "2"])), &OVERTAKEN, "waiting", &[]);
    let late = Event::ToldLate(LateWord::Success(Operation::Commit));
    row(pause(), late, &THERE, "verifying", &["RequestVCI"]);
    assert_eq!(
        pause().sentence(NOW),
        "Attempt 2 of 3 begins in 1 min 40 s; the last one failed with UPDATE_FAILED: \
         the vehicle reported that the update failed (e1)."
    );
}

#[test]
fn a_vehicle_that_is_set_aside_ends_when_its_turn_has_come() {
    let set_aside = Surroundings { set_aside: Some(3), ..THERE };
    let ended = row(State::selected(), Event::LookedAt, &set_aside, "ineligible", &[]);
    assert_eq!(ended.failure_codes(), ["SET_ASIDE"]);
    let blocked = Surroundings { block: Some(Block::CampaignPaused), ..set_aside };
    row(State::selected(), Event::LookedAt, &blocked, "waiting", &[]);
}

#[test]
fn an_attempt_counts_once_and_until_a_later_one_ends() {
    let mut attempts = Attempts::default();
    let rolled_back = || State::RolledBack { plan: plan(), cause: update_failed() };
    attempts = attempts.after(&verifying(update_failed()), &rolled_back(), false);
    assert_eq!(attempts.failed, 1);
    assert!(!attempts.count_as_failed(&rolled_back()), "its state says so");
    attempts = attempts.after(&rolled_back(), &pausing_until(NOW), false);
    assert_eq!(attempts.failed, 1);
    assert!(attempts.count_as_failed(&pausing_until(NOW)));
    // The vehicle says something else too late, and then the same again.
    attempts = attempts.after(&pausing_until(NOW), &verifying(update_failed()), false);
    assert_eq!(attempts.failed, 0);
    attempts = attempts.after(&verifying(update_failed()), &rolled_back(), false);
    attempts = attempts.after(&rolled_back(), &pausing_until(NOW), false);
    attempts = attempts.after(&pausing_until(NOW), &collecting(), false);
    assert_eq!(attempts, Attempts { failed: 1, barred: false });
    assert!(attempts.count_as_failed(&State::Downloading(execution())));
    assert!(!attempts.count_as_failed(&verifying(VerifyCause::DeadlinePassed)), "its state says so");
    let succeeded = State::Succeeded { plan: plan(), late: false };
    assert_eq!(attempts.after(&collecting(), &succeeded, false), Attempts::default());
    assert_eq!(attempts.after(&rolled_back(), &State::selected(), true), Attempts::default());
}

fn any_rules() -> impl Strategy<Value = Vec<RetryRule>> {
    let codes = prop::sample::subsequence(
        vec![RetryCode::Any, RetryCode::UpdateFailed, RetryCode::DeadlinePassed, RetryCode::ServiceRequired],
        0..=4,
    );
    let rule = (1_u32..=10, 1_u64..=10_000, 1_u32..=10, 1_u64..=20_000);
    (codes, prop::collection::vec(rule, 4)).prop_map(|(codes, numbers)| {
        let rules = codes.into_iter().zip(numbers);
        rules
            .map(|(code, (attempts, pause_s, factor, longest_pause_s))| RetryRule {
                code,
                attempts,
                pause_s,
                factor,
                longest_pause_s,
            })
            .collect()
    })
}

proptest! {
    /// Goes through updates as the server does, with rules that have further attempts follow.
    #[test]
    fn attempts_follow_only_where_they_may_and_never_more_than_the_rules_have(
        rules in any_rules(),
        first in 0..16_usize,
        events in prop::collection::vec((any_event(), any::<bool>(), 0..2_000_u64), 0..80),
    ) {
        let rollout = with_rules(rules.clone());
        prop_assert_eq!(rollout.check(), Ok(()));
        let most = rules.iter().map(|rule| rule.attempts).max().unwrap_or(1);
        let mut state = every_state().swap_remove(first);
        let (mut attempts, mut elapsed_s, mut follow_ups, mut people_must_look) = (Attempts::default(), 0_u64, 0, false);
        for (event, there, passed_s) in events {
            elapsed_s += passed_s;
            let now = NOW.plus_seconds(elapsed_s);
            let before = state.clone();
            let surroundings = Surroundings { after_s: elapsed_s, there, ..THERE };
            state = apply(before.clone(), &event, &surroundings).state;
            let by_operator = matches!(event, AnyEvent::Retry) && state != before;
            attempts = attempts.after(&before, &state, by_operator);
            if by_operator || matches!(state, State::Succeeded { .. } | State::UpToDate) {
                (follow_ups, people_must_look) = (0, false);
            }
            people_must_look |= matches!(state, State::Inconsistent { .. })
                || (matches!(event, AnyEvent::Cancel) && state != before);
            if before.is_between_attempts() && matches!(state.name(), "collecting_vci" | "waiting" | "ineligible")
                && state != before && !by_operator
            {
                follow_ups += 1;
            }
            prop_assert!(follow_ups < most, "{follow_ups} attempts followed, {rules:?}");
            if let Some(next) = rollout.next_attempt(&before, &state, attempts, now) {
                let State::RolledBack { cause, .. } = &state else { panic!("{next:?} follows {state:?}") };
                prop_assert!(RetryCode::of(cause).is_some(), "{next:?} follows {state:?}");
                prop_assert!(!people_must_look, "{next:?} follows {before:?} by itself");
                let rule = rules.iter().find(|rule| rule.attempts == next.of && next.attempt <= next.of);
                let pause_s = (next.at.0 - now.0) / 1000;
                prop_assert!(rule.is_some() && (1..=20_000).contains(&pause_s), "{next:?}");
                let after = state.clone().before_next_attempt(next);
                attempts = attempts.after(&state, &after, false);
                state = after;
            }
        }
    }
}
