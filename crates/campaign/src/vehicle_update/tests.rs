use farrier_protocol::{EcuEntry, FunctionalGroup, Placement, Sha256};
use proptest::prelude::*;

use super::*;
use crate::delta::DeltaSettings;
use crate::release::Image;
use crate::version::VersionScheme;

mod retries;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn text(value: &str) -> Text {
    value.parse().unwrap()
}

fn release() -> Release {
    let image = Image::new(text("HW"), text("2"), Sha256::of(b"image"), 5);
    Release::new(vec![image]).unwrap()
}

fn vci(hardware: &str, versions: &[&str]) -> SendVci {
    let ecu = |(number, version): (usize, &&str)| EcuEntry {
        ecu_id: format!("ecu{number}").parse().unwrap(),
        supplier_code: None,
        hw_part_no: Some(text(hardware)),
        sw_part_no: None,
        sw_version: Some(text(version)),
        bootloader_ver: None,
        calibration_id: None,
        mac_address: None,
        ip_address: None,
        can_id: None,
        functional_group: FunctionalGroup { placement: Placement::Domain(text("body")), index: None },
    };
    SendVci {
        correlation_id: "SRV-1".parse().unwrap(),
        region: None,
        fw_sw_version: text("1"),
        bootloader_ver: None,
        ecu_inventory: versions.iter().enumerate().map(ecu).collect(),
        power: None,
    }
}

fn plan() -> Plan {
    match evaluate(
        &vci("HW", &["1", "1"]),
        &release(),
        Deltas { ready: &[], settings: &DeltaSettings::default() },
    ) {
        Evaluation::Eligible(plan) => plan,
        other @ (Evaluation::UpToDate | Evaluation::Ineligible(_)) => panic!("{other:?}"),
    }
}

fn delta_plan() -> Plan {
    let mut plan = plan();
    plan.packages[0].delta_from = Some(text("1"));
    plan.packages[0].sha256 = Sha256::of(b"delta");
    plan.packages[0].size_bytes = 1;
    plan
}

fn error(code: ErrorCode) -> ErrorResponse {
    ErrorResponse {
        correlation_id: "SRV-1".parse().unwrap(),
        code,
        detail: "words".parse().unwrap(),
        failed_ecus: Some(vec!["ecu1".parse().unwrap()]),
        pkg_ids: None,
        retry_after_s: Some(120),
    }
}

/// The surroundings of one event; what most rows need is the default.
#[derive(Clone)]
struct Surroundings {
    after_s: u64,
    there: bool,
    block: Option<Block>,
    set_aside: Option<u32>,
    is_latest: bool,
}

const THERE: Surroundings =
    Surroundings { after_s: 0, there: true, block: None, set_aside: None, is_latest: true };
const AWAY: Surroundings = Surroundings { there: false, ..THERE };
const QUARANTINED: Surroundings = Surroundings { block: Some(Block::Quarantine), ..THERE };
const OVERTAKEN: Surroundings = Surroundings { is_latest: false, ..THERE };

impl Surroundings {
    fn later(&self, after_s: u64) -> Self {
        Self { after_s, ..self.clone() }
    }
}

fn step(state: State, event: Event<'_>, surroundings: &Surroundings) -> Transition {
    let (settings, release, delta_settings) = (Settings::default(), release(), DeltaSettings::default());
    let context = Context {
        now: NOW.plus_seconds(surroundings.after_s),
        settings: &settings,
        release: &release,
        deltas: Deltas { ready: &[], settings: &delta_settings },
        vehicle_there: surroundings.there,
        block: surroundings.block.clone(),
        set_aside: surroundings.set_aside,
        is_latest: surroundings.is_latest,
    };
    state.handle(event, &context)
}

fn pursuit(unanswered: u32, incomplete: usize) -> VciPursuit {
    VciPursuit { step: PursuitStep::Asked { until: NOW.plus_seconds(30) }, unanswered, incomplete }
}

fn collecting() -> State {
    State::CollectingVci { pursuit: pursuit(0, 0), replans: 0 }
}

fn pausing(why: PauseReason) -> State {
    let step = PursuitStep::Pausing { until: NOW, why };
    State::CollectingVci { pursuit: VciPursuit { step, unanswered: 0, incomplete: 1 }, replans: 0 }
}

fn awaiting_wake_up() -> State {
    let pursuit = VciPursuit { step: PursuitStep::AwaitingWakeUp, unanswered: 0, incomplete: 0 };
    State::Verifying { plan: plan(), cause: VerifyCause::CommitReported, pursuit, deadline: NOW }
}

fn checking(plan: Plan) -> State {
    State::CheckingReadiness { plan, asked_until: NOW.plus_seconds(60), unanswered: 0, replans: 0 }
}

fn deferred() -> State {
    State::Deferred { plan: plan(), why: DeferredBy::Busy, retry_at: NOW.plus_seconds(100), replans: 0 }
}

fn execution() -> Execution {
    Execution { plan: plan(), deadline: NOW.plus_seconds(1_000), cancel: Cancel::NotAsked, replans: 0 }
}

fn cancel_asked() -> Execution {
    Execution { cancel: Cancel::Asked { reason: text("why") }, ..execution() }
}

fn verifying(cause: VerifyCause) -> State {
    State::Verifying { plan: plan(), cause, pursuit: pursuit(0, 0), deadline: NOW.plus_seconds(1_800) }
}

fn command_name(command: &Command) -> &'static str {
    match command {
        Command::RequestVci { .. } => "RequestVCI",
        Command::RequestReadiness { .. } => "RequestDownloadReadiness",
        Command::StartDownload { .. } => "StartDownload",
        Command::StartRollback { .. } => "StartRollback",
        Command::CancelUpdate { .. } => "CancelUpdate",
        Command::RaiseAlarm(_) => "alarm",
        Command::AvoidDeltas { .. } => "avoid",
    }
}

/// One row of the table at the top of the state machine.
#[track_caller]
fn row(from: State, event: Event<'_>, surroundings: &Surroundings, to: &str, sends: &[&str]) -> State {
    let shown = format!("{} on {event:?}", from.name());
    let transition = step(from, event, surroundings);
    assert_eq!(transition.state.name(), to, "{shown}");
    assert_eq!(transition.commands.iter().map(command_name).collect::<Vec<_>>(), sends, "{shown}");
    transition.state
}

fn failed(command: MessageType, error: &ErrorResponse) -> Event<'_> {
    Event::ErrorReported { command, error }
}

#[test]
fn rows_of_waiting() {
    for event in [Event::LookedAt, Event::WokenUp] {
        row(State::selected(), event.clone(), &THERE, "collecting_vci", &["RequestVCI"]);
        let held = row(State::selected(), event.clone(), &QUARANTINED, "waiting", &[]);
        assert_eq!(held, State::Waiting { hold: Hold::Blocked(Block::Quarantine) });
        row(held, event, &THERE, "collecting_vci", &["RequestVCI"]);
    }
    row(State::selected(), Event::LookedAt, &AWAY, "waiting", &[]);
    row(State::selected(), Event::TimePassed, &THERE, "waiting", &[]);
    let ask_at = NOW.plus_seconds(1_800);
    for hold in [Hold::VehicleSilent { ask_at }, Hold::VehicleClock { ask_at }] {
        let silent = || State::Waiting { hold: hold.clone() };
        assert_eq!(silent().due_at(), Some(ask_at));
        row(silent(), Event::WokenUp, &THERE, "collecting_vci", &["RequestVCI"]);
        for event in [Event::LookedAt, Event::TimePassed] {
            row(silent(), event.clone(), &THERE.later(1_799), "waiting", &[]);
            row(silent(), event.clone(), &THERE.later(1_800), "collecting_vci", &["RequestVCI"]);
            let away = row(silent(), event, &AWAY.later(1_800), "waiting", &[]);
            assert_eq!(away.due_at(), None);
        }
    }
    row(State::selected(), Event::CancelAsked { reason: text("why") }, &AWAY, "cancelled", &[]);
}

#[test]
fn rows_of_collecting_vci() {
    use MessageType::RequestVci;
    let outdated = vci("HW", &["1", "2"]);
    row(
        collecting(),
        Event::VciReceived(&outdated),
        &THERE,
        "checking_readiness",
        &["RequestDownloadReadiness"],
    );
    row(collecting(), Event::VciReceived(&vci("HW", &["2"])), &THERE, "up_to_date", &[]);
    row(collecting(), Event::VciReceived(&vci("OTHER", &["1"])), &THERE, "ineligible", &[]);
    row(collecting(), Event::VciReceived(&outdated), &QUARANTINED, "waiting", &[]);
    let busy = row(collecting(), failed(RequestVci, &error(ErrorCode::Busy)), &THERE, "collecting_vci", &[]);
    assert_eq!(busy.due_at(), Some(NOW.plus_seconds(120)));
    row(busy.clone(), Event::TimePassed, &THERE.later(119), "collecting_vci", &[]);
    row(busy, Event::TimePassed, &THERE.later(120), "collecting_vci", &["RequestVCI"]);
    row(
        collecting(),
        failed(RequestVci, &error(ErrorCode::Expired)),
        &THERE,
        "collecting_vci",
        &["RequestVCI"],
    );
    let expired_often = State::CollectingVci { pursuit: pursuit(0, 0), replans: 3 };
    let held = row(expired_often, failed(RequestVci, &error(ErrorCode::Expired)), &THERE, "waiting", &[]);
    assert_eq!(held.due_at(), Some(NOW.plus_seconds(1_800)));
    row(collecting(), failed(RequestVci, &error(ErrorCode::Unsupported)), &THERE, "ineligible", &[]);
    row(collecting(), Event::TimePassed, &THERE.later(29), "collecting_vci", &[]);
    row(collecting(), Event::TimePassed, &THERE.later(30), "collecting_vci", &["RequestVCI"]);
    row(collecting(), Event::TimePassed, &AWAY.later(30), "waiting", &[]);
    let asked_often = State::CollectingVci { pursuit: pursuit(2, 0), replans: 0 };
    let held = row(asked_often, Event::TimePassed, &THERE.later(30), "waiting", &[]);
    assert_eq!(held.due_at(), Some(NOW.plus_seconds(1_830)));
    row(collecting(), Event::TimePassed, &QUARANTINED.later(30), "waiting", &[]);
    row(collecting(), Event::CancelAsked { reason: text("why") }, &THERE, "cancelled", &[]);
}

#[test]
fn an_incomplete_inventory_is_asked_for_three_more_times_at_growing_intervals() {
    let incomplete = error(ErrorCode::VciIncomplete);
    let mut state = collecting();
    let mut elapsed_s = 0;
    for pause_s in [60, 300, 900] {
        let event = failed(MessageType::RequestVci, &incomplete);
        state = row(state, event, &THERE.later(elapsed_s), "collecting_vci", &[]);
        elapsed_s += pause_s;
        assert_eq!(state.due_at(), Some(NOW.plus_seconds(elapsed_s)));
        state = row(state, Event::TimePassed, &THERE.later(elapsed_s), "collecting_vci", &["RequestVCI"]);
    }
    let ended =
        row(state, failed(MessageType::RequestVci, &incomplete), &THERE.later(elapsed_s), "ineligible", &[]);
    assert!(ended.sentence(NOW).contains("ecu1"), "{}", ended.sentence(NOW));
}

#[test]
fn rows_of_checking_readiness() {
    use MessageType::RequestDownloadReadiness;
    let begun = row(checking(plan()), Event::Ready, &THERE, "downloading", &["StartDownload"]);
    assert_eq!(begun.due_at(), Some(NOW.plus_seconds(86_400)));
    row(checking(plan()), Event::Ready, &QUARANTINED, "waiting", &[]);
    let not_ready = Event::NotReady { reasons: &[NotReadyReason::PowerLow], retry_after_s: 900 };
    let put_off = row(checking(plan()), not_ready, &THERE, "deferred", &[]);
    assert_eq!(put_off.due_at(), Some(NOW.plus_seconds(900)));
    row(checking(plan()), failed(RequestDownloadReadiness, &error(ErrorCode::Busy)), &THERE, "deferred", &[]);
    let mismatch = error(ErrorCode::DeltaBaseMismatch);
    let full = row(
        checking(delta_plan()),
        failed(RequestDownloadReadiness, &mismatch),
        &THERE,
        "checking_readiness",
        &["RequestDownloadReadiness"],
    );
    assert_eq!(full.plan(), Some(&plan()));
    row(checking(plan()), failed(RequestDownloadReadiness, &mismatch), &THERE, "ineligible", &[]);
    let expired = error(ErrorCode::Expired);
    row(
        checking(plan()),
        failed(RequestDownloadReadiness, &expired),
        &THERE,
        "collecting_vci",
        &["RequestVCI"],
    );
    let often = State::CheckingReadiness {
        plan: plan(),
        asked_until: NOW.plus_seconds(60),
        unanswered: 2,
        replans: 3,
    };
    row(often.clone(), failed(RequestDownloadReadiness, &expired), &THERE, "waiting", &[]);
    row(
        checking(plan()),
        failed(RequestDownloadReadiness, &error(ErrorCode::Unsupported)),
        &THERE,
        "ineligible",
        &[],
    );
    row(checking(plan()), Event::TimePassed, &THERE.later(59), "checking_readiness", &[]);
    row(
        checking(plan()),
        Event::TimePassed,
        &THERE.later(60),
        "checking_readiness",
        &["RequestDownloadReadiness"],
    );
    row(checking(plan()), Event::TimePassed, &AWAY.later(60), "waiting", &[]);
    row(often, Event::TimePassed, &THERE.later(60), "waiting", &[]);
    row(checking(plan()), Event::CancelAsked { reason: text("why") }, &THERE, "cancelled", &[]);
}

#[test]
fn rows_of_deferred() {
    row(deferred(), Event::TimePassed, &THERE.later(99), "deferred", &[]);
    row(
        deferred(),
        Event::TimePassed,
        &THERE.later(100),
        "checking_readiness",
        &["RequestDownloadReadiness"],
    );
    row(deferred(), Event::TimePassed, &AWAY.later(100), "waiting", &[]);
    row(deferred(), Event::TimePassed, &QUARANTINED.later(100), "waiting", &[]);
    row(deferred(), Event::WokenUp, &THERE, "deferred", &[]);
    row(deferred(), Event::CancelAsked { reason: text("why") }, &THERE, "cancelled", &[]);
    let same = row(deferred(), Event::OtherVciSeen(&vci("HW", &["1", "1"])), &THERE, "deferred", &[]);
    assert_eq!(same.plan(), Some(&plan()));
    let other = row(deferred(), Event::OtherVciSeen(&vci("HW", &["1", "1.5"])), &THERE, "deferred", &[]);
    assert_eq!(other.plan().unwrap().packages[1].earlier_version, text("1.5"));
    row(deferred(), Event::OtherVciSeen(&vci("HW", &["2", "2"])), &THERE, "up_to_date", &[]);
    row(deferred(), Event::OtherVciSeen(&vci("OTHER", &["1"])), &THERE, "ineligible", &[]);
}

#[test]
fn steps_go_forward_only_and_a_later_one_implies_the_earlier_ones() {
    use Operation::{Commit, Download, Install};
    let stages =
        [State::Downloading(execution()), State::Installing(execution()), State::Committing(execution())];
    let after = |operation| stages.clone().map(|stage| step(stage, Event::StepReported(operation), &THERE));
    let names = |transitions: [Transition; 3]| transitions.map(|transition| transition.state.name());
    assert_eq!(names(after(Download)), ["installing", "installing", "committing"]);
    assert_eq!(names(after(Install)), ["committing", "committing", "committing"]);
    assert_eq!(names(after(Commit)), ["verifying", "verifying", "verifying"]);
    for transition in after(Commit) {
        let [Command::RequestVci { reason: VciReason::VerifyUpdate, .. }] = transition.commands[..] else {
            panic!("{:?}", transition.commands);
        };
    }
}

#[test]
fn rows_of_an_execution_that_does_not_end_well() {
    use MessageType::StartDownload;
    let stages =
        [State::Downloading(execution()), State::Installing(execution()), State::Committing(execution())];
    for stage in stages {
        row(stage.clone(), Event::TimePassed, &THERE.later(999), stage.name(), &[]);
        row(stage.clone(), Event::TimePassed, &THERE.later(1_000), "verifying", &["RequestVCI"]);
        row(stage.clone(), Event::TimePassed, &AWAY.later(1_000), "verifying", &[]);
        for code in [ErrorCode::ConsentDenied, ErrorCode::UpdateFailed, ErrorCode::Cancelled] {
            row(stage.clone(), failed(StartDownload, &error(code)), &THERE, "verifying", &["RequestVCI"]);
        }
        let service = error(ErrorCode::ServiceRequired);
        row(stage, failed(StartDownload, &service), &THERE, "verifying", &["RequestVCI", "alarm"]);
    }
    let refused = |plan, code| {
        let execution = Execution { plan, ..execution() };
        let transition = step(State::Downloading(execution), failed(StartDownload, &error(code)), &THERE);
        (transition.state.name(), transition.commands.iter().map(command_name).collect::<Vec<_>>())
    };
    assert_eq!(refused(plan(), ErrorCode::Busy), ("deferred", vec![]));
    assert_eq!(refused(plan(), ErrorCode::Expired), ("collecting_vci", vec!["RequestVCI"]));
    assert_eq!(refused(plan(), ErrorCode::Unsupported), ("ineligible", vec![]));
    assert_eq!(
        refused(delta_plan(), ErrorCode::DeltaBaseMismatch),
        ("checking_readiness", vec!["RequestDownloadReadiness"])
    );
    let busy = error(ErrorCode::Busy);
    row(State::Installing(execution()), failed(StartDownload, &busy), &THERE, "verifying", &["RequestVCI"]);
}

#[test]
fn rows_of_a_cancellation_under_way() {
    use MessageType::CancelUpdate;
    let ask = || Event::CancelAsked { reason: text("why") };
    row(State::Downloading(execution()), ask(), &THERE, "downloading", &["CancelUpdate"]);
    let asked = row(State::Installing(execution()), ask(), &THERE, "installing", &["CancelUpdate"]);
    row(asked.clone(), ask(), &THERE, "installing", &[]);
    row(State::Committing(execution()), ask(), &THERE, "committing", &[]);
    row(asked.clone(), failed(CancelUpdate, &error(ErrorCode::Cancelled)), &THERE, "cancelled", &[]);
    let goes_on =
        row(asked, failed(CancelUpdate, &error(ErrorCode::CancelRefused)), &THERE, "installing", &[]);
    row(goes_on, ask(), &THERE, "installing", &["CancelUpdate"]);
    row(
        State::Committing(cancel_asked()),
        failed(CancelUpdate, &error(ErrorCode::Cancelled)),
        &THERE,
        "verifying",
        &["RequestVCI"],
    );
}

#[test]
fn rows_of_verifying() {
    let cause = || VerifyCause::DeadlinePassed;
    let late = row(verifying(cause()), Event::VciReceived(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
    assert_eq!(late, State::Succeeded { plan: plan(), late: true });
    let timely = verifying(VerifyCause::CommitReported);
    let timely = row(timely, Event::VciReceived(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
    assert_eq!(timely, State::Succeeded { plan: plan(), late: false });
    row(verifying(cause()), Event::VciReceived(&vci("HW", &["1", "1"])), &THERE, "rolled_back", &[]);
    row(verifying(cause()), Event::VciReceived(&vci("HW", &["1", "2"])), &THERE, "inconsistent", &["alarm"]);
    row(verifying(cause()), Event::VciReceived(&vci("HW", &["2"])), &THERE, "inconsistent", &["alarm"]);
    let claimed = verifying(VerifyCause::CommitReported);
    row(claimed, Event::VciReceived(&vci("HW", &["1", "1"])), &THERE, "rolled_back", &["alarm"]);
    row(verifying(cause()), Event::TimePassed, &THERE.later(1_800), "unknown", &[]);
    row(verifying(cause()), Event::TimePassed, &THERE.later(30), "verifying", &["RequestVCI"]);
    row(verifying(cause()), Event::WokenUp, &THERE, "verifying", &[]);
    let waits = row(verifying(cause()), Event::TimePassed, &AWAY.later(30), "verifying", &[]);
    assert_eq!(waits.due_at(), Some(NOW.plus_seconds(1_800)));
    row(waits, Event::WokenUp, &THERE.later(40), "verifying", &["RequestVCI"]);
    let incomplete = error(ErrorCode::VciIncomplete);
    let paused =
        row(verifying(cause()), failed(MessageType::RequestVci, &incomplete), &THERE, "verifying", &[]);
    row(paused, Event::TimePassed, &THERE.later(60), "verifying", &["RequestVCI"]);
}

#[test]
fn a_connected_vehicle_that_does_not_say_what_it_runs_is_asked_again_after_a_pause() {
    let asked_often = State::Verifying {
        plan: plan(),
        cause: VerifyCause::DeadlinePassed,
        pursuit: pursuit(2, 0),
        deadline: NOW.plus_seconds(1_800),
    };
    let paused = row(asked_often, Event::TimePassed, &THERE.later(30), "verifying", &[]);
    assert_eq!(paused.due_at(), Some(NOW.plus_seconds(330)));
    row(paused.clone(), Event::WokenUp, &THERE.later(31), "verifying", &["RequestVCI"]);
    row(paused, Event::TimePassed, &THERE.later(330), "verifying", &["RequestVCI"]);
}

#[test]
fn a_vehicle_that_is_busy_with_its_update_is_not_unknown() {
    let mut state = verifying(VerifyCause::DeadlinePassed);
    for round in 0..40 {
        let busy = error(ErrorCode::Busy);
        let event = failed(MessageType::RequestVci, &busy);
        state = row(state, event, &THERE.later(round * 120), "verifying", &[]);
        let asked = &["RequestVCI"];
        state = row(state, Event::TimePassed, &THERE.later((round + 1) * 120), "verifying", asked);
    }
    row(state, Event::TimePassed, &THERE.later(40 * 120 + 1_800), "unknown", &[]);
}

#[test]
fn a_delta_whose_update_fails_or_falls_silent_is_not_offered_again() {
    let ended = |cause| {
        let state = State::Verifying {
            plan: delta_plan(),
            cause,
            pursuit: pursuit(0, 0),
            deadline: NOW.plus_seconds(1_800),
        };
        let earlier = vci("HW", &["1", "1"]);
        step(state, Event::VciReceived(&earlier), &THERE).commands
    };
    let avoid = [Command::AvoidDeltas { deltas: vec![Sha256::of(b"delta")] }];
    assert_eq!(ended(VerifyCause::DeadlinePassed), avoid);
    assert_eq!(ended(VerifyCause::UpdateFailed { failed_ecus: vec![] }), avoid);
    assert_eq!(ended(VerifyCause::ErrorReported { code: ErrorCode::Unsupported }), avoid);
    assert_eq!(ended(VerifyCause::ConsentDenied), []);
}

#[test]
fn rows_of_ended_updates_whose_vehicle_turns_out_to_run_something_else() {
    let states = [
        State::Cancelled { reason: text("why"), plan: Some(plan()) },
        State::RolledBack { plan: plan(), cause: VerifyCause::DeadlinePassed },
        State::Inconsistent { plan: plan(), cause: VerifyCause::DeadlinePassed, found: vec![] },
        State::Succeeded { plan: plan(), late: false },
    ];
    let all_new = ["succeeded", "succeeded", "succeeded", "succeeded"];
    let all_earlier = ["cancelled", "rolled_back", "rolled_back", "rolled_back"];
    let a_mix = ["inconsistent"; 4];
    // Somebody else's version on one ECU is no mix of this update's making.
    let new_and_other = ["inconsistent", "inconsistent", "inconsistent", "succeeded"];
    let earlier_and_other = ["cancelled", "rolled_back", "inconsistent", "inconsistent"];
    let rows = [
        (["2", "2"], all_new),
        (["1", "1"], all_earlier),
        (["1", "2"], a_mix),
        (["2", "3"], new_and_other),
        (["3", "1"], earlier_and_other),
    ];
    for (versions, expected) in rows {
        let vci = vci("HW", &versions);
        for (state, expected) in states.iter().zip(expected) {
            let becomes_mixed = expected == "inconsistent" && state.name() != "inconsistent";
            let sends: &[&str] = if becomes_mixed { &["alarm"] } else { &[] };
            let event = || Event::OtherVciSeen(&vci);
            row(state.clone(), event(), &THERE, expected, sends);
            row(state.clone(), event(), &OVERTAKEN, state.name(), &[]);
        }
    }
}

#[test]
fn rows_of_ended_updates_of_which_the_vehicle_says_something_else_too_late() {
    use LateWord::{Error, Success};
    let unknown = State::Unknown { plan: plan(), cause: VerifyCause::DeadlinePassed };
    let rolled_back = State::RolledBack { plan: plan(), cause: VerifyCause::DeadlinePassed };
    let mixed = State::Inconsistent { plan: plan(), cause: VerifyCause::DeadlinePassed, found: vec![] };
    let cancelled = State::Cancelled { reason: text("why"), plan: Some(plan()) };
    let succeeded = State::Succeeded { plan: plan(), late: false };
    let says = |word: LateWord, doubted: &[&State]| {
        for state in [&unknown, &rolled_back, &mixed, &cancelled, &succeeded] {
            let (to, sends): (_, &[&str]) =
                if doubted.contains(&state) { ("verifying", &["RequestVCI"]) } else { (state.name(), &[]) };
            row(state.clone(), Event::ToldLate(word), &THERE, to, sends);
            row(state.clone(), Event::ToldLate(word), &OVERTAKEN, state.name(), &[]);
        }
    };
    for operation in [Operation::Download, Operation::Install, Operation::Commit] {
        says(Success(operation), &[&unknown, &rolled_back, &mixed, &cancelled]);
    }
    says(Success(Operation::Rollback), &[&unknown, &mixed, &succeeded]);
    says(Error(ErrorCode::UpdateFailed), &[&unknown, &mixed, &succeeded]);
    says(Error(ErrorCode::ServiceRequired), &[&unknown, &rolled_back, &cancelled, &succeeded]);
    says(Error(ErrorCode::Busy), &[]);
    let planned_only = State::Cancelled { reason: text("why"), plan: None };
    row(planned_only, Event::ToldLate(Success(Operation::Commit)), &THERE, "cancelled", &[]);
}

#[test]
fn rows_of_ended_updates() {
    let cause = || VerifyCause::UpdateFailed { failed_ecus: vec![] };
    let unknown = || State::Unknown { plan: plan(), cause: cause() };
    row(unknown(), Event::WokenUp, &THERE, "verifying", &["RequestVCI"]);
    row(unknown(), Event::OtherVciSeen(&vci("HW", &["1", "1"])), &THERE, "rolled_back", &[]);
    row(unknown(), Event::OtherVciSeen(&vci("HW", &["1", "2"])), &THERE, "inconsistent", &["alarm"]);
    row(unknown(), Event::OtherVciSeen(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
    let rolled_back = || State::RolledBack { plan: plan(), cause: cause() };
    let late = row(rolled_back(), Event::OtherVciSeen(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
    assert_eq!(late, State::Succeeded { plan: plan(), late: true });
    let mixed = State::Inconsistent { plan: plan(), cause: cause(), found: vec![] };
    row(mixed, Event::OtherVciSeen(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
    let succeeded = || State::Succeeded { plan: plan(), late: false };
    row(succeeded(), Event::RollbackAsked, &QUARANTINED, "succeeded", &[]);
    row(succeeded(), Event::RollbackAsked, &OVERTAKEN, "succeeded", &[]);
    let undone = row(succeeded(), Event::RollbackAsked, &THERE, "rolling_back", &["StartRollback"]);
    row(undone.clone(), Event::StepReported(Operation::Rollback), &THERE, "verifying", &["RequestVCI"]);
    row(undone.clone(), Event::TimePassed, &THERE.later(3_600), "verifying", &["RequestVCI"]);
    let unavailable = error(ErrorCode::RollbackUnavailable);
    let event = failed(MessageType::StartRollback, &unavailable);
    let kept = row(undone, event, &THERE, "verifying", &["RequestVCI"]);
    row(kept, Event::VciReceived(&vci("HW", &["2", "2"])), &THERE, "succeeded", &[]);
}

#[test]
fn every_state_says_why_in_one_sentence() {
    let sentences: Vec<_> = every_state().into_iter().map(|state| state.sentence(NOW)).collect();
    for sentence in &sentences {
        assert!(sentence.ends_with('.') && sentence.matches(". ").count() == 0, "{sentence}");
    }
    let deferred = State::Deferred {
        plan: plan(),
        why: DeferredBy::NotReady { reasons: vec![NotReadyReason::PowerLow, NotReadyReason::MemoryLow] },
        retry_at: NOW.plus_seconds(1_850),
        replans: 0,
    };
    assert_eq!(
        deferred.sentence(NOW),
        "The vehicle is not ready (POWER_LOW, MEMORY_LOW); it is asked again in 30 min 50 s."
    );
}

#[test]
fn names_on_the_wire_are_those_of_the_protocol() {
    for code in [ErrorCode::VciIncomplete, ErrorCode::CancelRefused, ErrorCode::RollbackUnavailable] {
        let state = State::Unknown { plan: plan(), cause: VerifyCause::ErrorReported { code } };
        let wire = serde_json::to_value(code).unwrap();
        assert!(state.sentence(NOW).contains(wire.as_str().unwrap()), "{}", state.sentence(NOW));
    }
}

fn every_state() -> Vec<State> {
    let cause = || VerifyCause::ConsentDenied;
    vec![
        State::selected(),
        collecting(),
        checking(delta_plan()),
        deferred(),
        State::Downloading(execution()),
        State::Installing(cancel_asked()),
        State::Committing(execution()),
        verifying(cause()),
        State::RollingBack { plan: plan(), deadline: NOW.plus_seconds(10) },
        State::Cancelled { reason: text("why"), plan: None },
        State::UpToDate,
        State::Ineligible { reasons: vec![IneligibleReason::NoMatchingHardware] },
        State::Succeeded { plan: plan(), late: false },
        State::RolledBack { plan: plan(), cause: cause() },
        State::Inconsistent { plan: plan(), cause: cause(), found: vec![] },
        State::Unknown { plan: plan(), cause: cause() },
        State::Waiting { hold: Hold::VehicleSilent { ask_at: NOW } },
        State::Waiting { hold: Hold::VehicleClock { ask_at: NOW } },
        State::Waiting { hold: Hold::Blocked(Block::OtherUpdate { campaign: text("C") }) },
        State::Waiting { hold: Hold::Blocked(Block::Quarantine) },
        State::Waiting { hold: Hold::Blocked(Block::CampaignPaused) },
        State::Waiting { hold: Hold::Blocked(Block::CampaignAborted) },
        State::Cancelled { reason: text("why"), plan: Some(plan()) },
        State::Succeeded { plan: plan(), late: true },
        verifying(VerifyCause::CommitReported),
        verifying(VerifyCause::DeadlinePassed),
        verifying(VerifyCause::UpdateFailed { failed_ecus: vec!["e1".parse().unwrap()] }),
        verifying(VerifyCause::ServiceRequired { failed_ecus: vec!["e1".parse().unwrap()] }),
        verifying(VerifyCause::ErrorReported { code: ErrorCode::Busy }),
        verifying(VerifyCause::RollbackReported),
        verifying(VerifyCause::RollbackDeadlinePassed),
        verifying(VerifyCause::RollbackRefused { code: ErrorCode::RollbackUnavailable }),
        verifying(VerifyCause::FoundLater),
        pausing(PauseReason::Silent),
        pausing(PauseReason::Busy),
        pausing(PauseReason::Incomplete { failed_ecus: vec!["e1".parse().unwrap()] }),
        awaiting_wake_up(),
        State::Deferred {
            plan: plan(),
            why: DeferredBy::NotReady { reasons: vec![NotReadyReason::PowerLow] },
            retry_at: NOW,
            replans: 1,
        },
        State::Ineligible { reasons: reasons_of_rules() },
        State::Waiting { hold: Hold::Blocked(Block::CampaignStopped) },
        State::Waiting { hold: Hold::Blocked(Block::WaveNotOpen { wave: 2 }) },
        State::Waiting { hold: Hold::Blocked(Block::NoPlace { vehicles_at_once: 10 }) },
        State::Waiting { hold: Hold::Blocked(Block::NoStart { starts_per_minute: 4, until: NOW }) },
        State::Waiting { hold: Hold::Blocked(Block::WindowClosed { opens_at: NOW, until: NOW }) },
        State::Waiting { hold: Hold::Blocked(Block::ScheduleToBegin { not_before: NOW, until: NOW }) },
        State::Waiting { hold: Hold::Blocked(Block::Spread { until: NOW }) },
        State::Waiting { hold: Hold::Blocked(Block::ScheduleOver { not_after: NOW }) },
        goes_after(900, 500),
        goes_after(500, 500),
        retries::pausing_until(NOW),
        State::Ineligible { reasons: vec![IneligibleReason::SetAside { failures: 3 }] },
    ]
}

fn goes_after(priority: u16, own_priority: u16) -> State {
    let block = Block::GoesAfter { campaign: text("C"), priority, own_priority };
    State::Waiting { hold: Hold::Blocked(block) }
}

#[test]
fn who_waits_for_its_own_campaign_lets_others_go_before_it() {
    let goes_before: Vec<_> = every_state().into_iter().filter(State::goes_before_others).collect();
    let expected = [
        State::selected(),
        State::Waiting { hold: Hold::Blocked(Block::OtherUpdate { campaign: text("C") }) },
        State::Waiting { hold: Hold::Blocked(Block::Quarantine) },
        goes_after(900, 500),
        goes_after(500, 500),
    ];
    assert_eq!(goes_before, expected);
    assert_eq!(
        goes_after(900, 500).sentence(NOW),
        "Campaign C goes first: it has priority 900, this one 500."
    );
    assert_eq!(
        goes_after(500, 500).sentence(NOW),
        "Campaign C goes first: it has the same priority, 500, and started earlier."
    );
}

fn reasons_of_rules() -> Vec<IneligibleReason> {
    let ecu_id: EcuId = "e1".parse().unwrap();
    let found = FoundVersion { ecu_id: ecu_id.clone(), version: Some(text("1")) };
    vec![
        IneligibleReason::NoFittingImage { ecu_id: ecu_id.clone(), supplier: Some(text("S")), region: None },
        IneligibleReason::Downgrade { ecu_id: ecu_id.clone(), running: text("3"), offered: text("2") },
        IneligibleReason::VersionNotInScheme {
            ecu_id: ecu_id.clone(),
            found: text("x"),
            scheme: VersionScheme::Semver,
        },
        IneligibleReason::NeedNotMet { hw_part_no: text("HW"), at_least: text("2"), found: vec![found] },
        IneligibleReason::Conflict {
            ecu_id: ecu_id.clone(),
            hw_part_no: text("HW"),
            version: Some(text("1")),
            from: None,
            to: Some(text("1")),
        },
        IneligibleReason::BootloaderTooOld { ecu_id: ecu_id.clone(), found: None, at_least: text("2") },
        IneligibleReason::EarlierVersionNotAllowed { ecu_id, running: text("1"), allowed: vec![text("0")] },
        IneligibleReason::TogetherIncomplete {
            hw_part_nos: vec![text("HW"), text("HW-2")],
            missing: vec![text("HW-2")],
        },
    ]
}

#[test]
fn the_code_of_a_reason_is_its_stored_name() {
    let others = [
        IneligibleReason::NoMatchingHardware,
        IneligibleReason::HardwareUnknown { ecu_id: "e1".parse().unwrap() },
        IneligibleReason::VersionUnknown { ecu_id: "e1".parse().unwrap() },
        IneligibleReason::InventoryIncomplete { failed_ecus: vec![] },
        IneligibleReason::CommandUnsupported { command: MessageType::RequestVci },
        IneligibleReason::PlanRejected,
        IneligibleReason::SetAside { failures: 3 },
    ];
    for reason in reasons_of_rules().into_iter().chain(others) {
        let stored = serde_json::to_value(&reason).unwrap();
        assert_eq!(stored["reason"].as_str().unwrap().to_uppercase(), reason.code());
    }
}

#[test]
fn the_stored_form_of_every_state_is_read_back_and_keeps_its_name() {
    for state in every_state() {
        let stored = serde_json::to_value(&state).unwrap();
        assert_eq!(stored["state"], state.name());
        assert_eq!(serde_json::from_value::<State>(stored).unwrap(), state);
    }
}

/// Servers have these forms in their stores: a change here needs a migration, not another golden file.
#[test]
fn the_stored_form_of_every_state_does_not_change() {
    let stored = serde_json::to_string_pretty(&every_state()).unwrap();
    assert_eq!(stored.trim(), include_str!("stored_states.json").trim(), "now it is:\n{stored}");
}

#[derive(Debug, Clone)]
enum AnyEvent {
    LookedAt,
    WokenUp,
    Vci(bool, Vec<&'static str>),
    Ready,
    NotReady(u64),
    Step(Operation),
    Error(MessageType, ErrorCode, Option<u64>),
    TimePassed,
    Late(LateWord),
    Cancel,
    Rollback,
    Retry,
}

fn any_event() -> impl Strategy<Value = AnyEvent> {
    use ErrorCode as E;
    use MessageType as K;
    let kind = prop::sample::select(vec![
        K::RequestVci,
        K::RequestDownloadReadiness,
        K::StartDownload,
        K::StartRollback,
        K::CancelUpdate,
    ]);
    let code = prop::sample::select(vec![
        E::Expired,
        E::Unsupported,
        E::Busy,
        E::VciIncomplete,
        E::DeltaBaseMismatch,
        E::ConsentDenied,
        E::UpdateFailed,
        E::ServiceRequired,
        E::Cancelled,
        E::CancelRefused,
        E::RollbackUnavailable,
    ]);
    let operation = prop::sample::select(vec![
        Operation::Download,
        Operation::Install,
        Operation::Commit,
        Operation::Rollback,
    ]);
    let versions = prop::collection::vec(prop::sample::select(vec!["1", "2", "3"]), 1..3);
    prop_oneof![
        Just(AnyEvent::LookedAt),
        Just(AnyEvent::WokenUp),
        (any::<bool>(), versions).prop_map(|(own, versions)| AnyEvent::Vci(own, versions)),
        Just(AnyEvent::Ready),
        any::<u64>().prop_map(AnyEvent::NotReady),
        operation.clone().prop_map(AnyEvent::Step),
        operation.prop_map(|operation| AnyEvent::Late(LateWord::Success(operation))),
        code.clone().prop_map(|code| AnyEvent::Late(LateWord::Error(code))),
        (kind, code, any::<Option<u64>>()).prop_map(|(k, c, r)| AnyEvent::Error(k, c, r)),
        Just(AnyEvent::TimePassed),
        Just(AnyEvent::TimePassed),
        Just(AnyEvent::TimePassed),
        Just(AnyEvent::Cancel),
        Just(AnyEvent::Rollback),
        Just(AnyEvent::Retry),
    ]
}

fn apply(state: State, event: &AnyEvent, surroundings: &Surroundings) -> Transition {
    match event {
        AnyEvent::LookedAt => step(state, Event::LookedAt, surroundings),
        AnyEvent::WokenUp => step(state, Event::WokenUp, surroundings),
        AnyEvent::Vci(true, versions) => step(state, Event::VciReceived(&vci("HW", versions)), surroundings),
        AnyEvent::Vci(false, versions) => {
            step(state, Event::OtherVciSeen(&vci("HW", versions)), surroundings)
        }
        AnyEvent::Ready => step(state, Event::Ready, surroundings),
        AnyEvent::NotReady(retry_after_s) => {
            let reasons = &[NotReadyReason::CpuHigh];
            step(state, Event::NotReady { reasons, retry_after_s: *retry_after_s }, surroundings)
        }
        AnyEvent::Step(operation) => step(state, Event::StepReported(*operation), surroundings),
        AnyEvent::Error(command, code, retry_after_s) => {
            let error = ErrorResponse { retry_after_s: *retry_after_s, ..error(*code) };
            step(state, Event::ErrorReported { command: *command, error: &error }, surroundings)
        }
        AnyEvent::Late(word) => step(state, Event::ToldLate(*word), surroundings),
        AnyEvent::TimePassed => step(state, Event::TimePassed, surroundings),
        AnyEvent::Cancel => step(state, Event::CancelAsked { reason: text("why") }, surroundings),
        AnyEvent::Rollback => step(state, Event::RollbackAsked, surroundings),
        AnyEvent::Retry => step(state, Event::RetryAsked, surroundings),
    }
}

fn may_leave_a_final_state(from: &State, to: &State) -> bool {
    let installs =
        |state: &State| state.is_final() && state.plan().is_some() && !matches!(state, State::Unknown { .. });
    let found_out = installs(from) && (installs(to) || matches!(to, State::Verifying { .. }));
    let undone = matches!(from, State::Succeeded { .. }) && matches!(to, State::RollingBack { .. });
    let tried_again =
        matches!(from, State::Cancelled { .. } | State::Ineligible { .. } | State::RolledBack { .. })
            && *to == State::selected();
    matches!(from, State::Unknown { .. }) || found_out || undone || tried_again
}

/// What an earlier version stored of a vehicle that did not answer is looked at at once.
#[test]
fn a_hold_that_was_stored_without_a_time_is_due() {
    let stored = serde_json::json!({"state": "waiting", "data": {"hold": {"hold": "vehicle_silent"}}});
    let state: State = serde_json::from_value(stored).unwrap();
    row(state, Event::TimePassed, &THERE, "collecting_vci", &["RequestVCI"]);
}

proptest! {
    #[test]
    fn whatever_happens_ended_updates_stay_ended_and_others_wait_for_something(
        first in 0..16_usize,
        events in prop::collection::vec((any_event(), any::<bool>(), any::<bool>(), 0..2_000_u64), 0..40),
    ) {
        let mut state = every_state().swap_remove(first);
        let mut elapsed_s = 0_u64;
        for (event, there, quarantined, passed_s) in events {
            elapsed_s += passed_s;
            let block = quarantined.then_some(Block::Quarantine);
            let before = state.clone();
            let transition = apply(state, &event, &Surroundings { after_s: elapsed_s, there, block, ..THERE });
            state = transition.state;
            if before.is_final() && state != before {
                prop_assert!(may_leave_a_final_state(&before, &state), "{before:?} on {event:?} became {state:?}");
            }
            let waits = state.waiting_on();
            let is_over = state.is_final() && !matches!(state, State::Unknown { .. });
            prop_assert_eq!(waits.is_none(), is_over);
            if !state.is_final() && state.due_at().is_none() {
                let waits_for_an_event = matches!(
                    waits,
                    Some(WaitingOn::VehicleToConnect
                        | WaitingOn::OtherUpdate { .. } | WaitingOn::Quarantine)
                );
                prop_assert!(waits_for_an_event, "{state:?} waits for nothing");
            }
            if let AnyEvent::TimePassed = event {
                let now = NOW.plus_seconds(elapsed_s);
                prop_assert!(state.due_at().is_none_or(|due| due > now), "{state:?} is still due");
            }
            prop_assert!(!state.sentence(NOW).is_empty());
        }
    }
}
