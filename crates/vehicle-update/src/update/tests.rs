//! Every row of the table, then random lives in virtual time against a model of ECUs.

mod random_life;
mod recovery;

use std::collections::BTreeMap;

use farrier_protocol::{Operation, VehicleBody};

use super::*;
use crate::ecu_work::{Runs, Trial};
use crate::plan::tests::start_download;

const NOW: UnixMillis = UnixMillis(1_000);
const LATE: UnixMillis = UnixMillis(1_000_000);

fn plan(install_orders: &[u64]) -> Plan {
    Plan::new("SRV_1".parse().unwrap(), UnixMillis(0), start_download(install_orders)).unwrap()
}

/// An update and the commands that came last.
struct Run {
    update: VehicleUpdate,
    commands: Vec<Command>,
    reports: Vec<VehicleBody>,
    records: Vec<Record>,
}

impl Run {
    fn begin(install_orders: &[u64]) -> Self {
        let (update, commands) = VehicleUpdate::begin(plan(install_orders), Bounds::default());
        Self { update, commands, reports: Vec::new(), records: Vec::new() }
    }

    fn event(&mut self, event: Event) {
        self.event_at(event, NOW);
    }

    fn event_at(&mut self, event: Event, now: UnixMillis) {
        self.commands = self.update.handle(event, now);
    }

    /// Makes the record of the last command durable; its name.
    fn persist(&mut self) -> &'static str {
        let Some(Command::Persist { record, reports }) = self.commands.pop() else {
            panic!("no record: {:?}", self.commands);
        };
        let name = record.name();
        assert!(record.may_follow(self.records.last()), "{name} after {:?}", self.records.last());
        self.records.push(record);
        self.reports.extend(reports);
        self.event(Event::Persisted);
        name
    }

    fn answer(&mut self, number: usize, call: EcuCall, outcome: EcuOutcome) {
        let ecu_id = format!("ecu_{number}").parse().unwrap();
        self.event(Event::EcuAnswered { ecu_id, call, outcome });
    }

    /// The ECU numbers of the last commands, all of them this call.
    fn called(&self, expected: EcuCall) -> Vec<String> {
        let called = self.commands.iter().map(|command| match command {
            Command::CallEcu { ecu_id, call, .. } if *call == expected => ecu_id.to_string(),
            Command::CallEcu { .. }
            | Command::Persist { .. }
            | Command::Report(_)
            | Command::Download
            | Command::AwaitReady { .. }
            | Command::Interrupt
            | Command::DeletePackages => panic!("expected {expected:?}, found {command:?}"),
        });
        called.collect()
    }

    /// Answers all ECUs in the same way.
    fn all(&mut self, call: EcuCall, outcome: &EcuOutcome) {
        let count = self.update.plan().start.packages.len();
        for number in 1..=count {
            self.answer(number, call, outcome.clone());
        }
    }

    fn advance_to_transferring(&mut self) {
        assert_eq!(self.persist(), "accepted");
        self.all(
            EcuCall::Identify,
            &EcuOutcome::Identified { hw_part_no: "HW-1".to_owned(), runs: earlier() },
        );
        assert_eq!(self.persist(), "synced");
        assert_eq!(self.commands, [Command::Download]);
    }

    fn advance_to_processing(&mut self) {
        self.advance_to_transferring();
        self.event(Event::Downloaded);
        assert_eq!(self.persist(), "transferred");
        self.ready(InstallStep::Consent);
        assert_eq!(self.persist(), "consented");
        self.ready(InstallStep::Processing);
        assert_eq!(self.persist(), "process");
    }

    /// The wait that has begun ends well.
    fn ready(&mut self, before: InstallStep) {
        assert_eq!(self.commands, [Command::AwaitReady { before }]);
        assert_eq!(self.update.phase(), Phase::Waiting);
        self.event(Event::Ready);
    }

    fn advance_to_activating(&mut self) {
        self.advance_to_processing();
        self.all(EcuCall::WriteInactiveBank, &EcuOutcome::Done);
        self.ready(InstallStep::Activating);
        assert_eq!(self.update.phase(), Phase::Barrier);
        assert_eq!(self.persist(), "activate");
    }

    fn advance_to_checking(&mut self) {
        self.advance_to_activating();
        self.all(EcuCall::Activate, &EcuOutcome::Done);
        assert_eq!(self.persist(), "activated");
    }

    fn advance_to_finishing(&mut self) {
        self.advance_to_checking();
        self.all(EcuCall::Reset, &EcuOutcome::Done);
        self.all(EcuCall::AskWhatRuns, &new(Trial::OnTrial));
        assert_eq!(self.update.phase(), Phase::Committing);
        assert_eq!(self.persist(), "commit");
    }

    fn advance_to_ended_committed(&mut self) {
        self.advance_to_finishing();
        self.all(EcuCall::AskWhatRuns, &new(Trial::Confirmed));
        assert_eq!(self.persist(), "ended");
        assert_eq!(self.commands, [Command::DeletePackages]);
        self.event(Event::PackagesDeleted);
    }

    fn codes(&self) -> Vec<String> {
        let code = |report: &VehicleBody| match report {
            VehicleBody::UpdateSuccessResult(result) => format!("{:?}", result.operation),
            VehicleBody::ErrorResponse(error) => format!("{:?}", error.code),
            VehicleBody::WakeUp(_) | VehicleBody::SendVci(_) | VehicleBody::ReadinessReport(_) => {
                panic!("{report:?}")
            }
        };
        self.reports.iter().map(code).collect()
    }
}

fn earlier() -> Runs {
    Runs { version: "1.0".to_owned(), bank: 0, other_version: None, trial: Trial::None }
}

fn earlier_runs() -> EcuOutcome {
    EcuOutcome::Runs(earlier())
}

fn new(trial: Trial) -> EcuOutcome {
    EcuOutcome::Runs(Runs {
        version: "2.0".to_owned(),
        bank: 1,
        other_version: Some("1.0".to_owned()),
        trial,
    })
}

fn silent() -> EcuOutcome {
    EcuOutcome::Failed("silent".to_owned())
}

fn cancel(number: u32) -> Event {
    Event::CancelRequested { command: format!("SRV_C{number}").parse().unwrap() }
}

#[test]
fn an_update_in_which_nothing_fails_goes_through_every_phase_and_reports_three_times() {
    let mut run = Run::begin(&[1, 1]);
    run.advance_to_ended_committed();
    assert_eq!(run.update.phase(), Phase::Ended);
    assert_eq!(run.update.ending(), Some(&Ending::Committed));
    assert_eq!(run.codes(), ["Download", "Install", "Commit"]);
    let VehicleBody::UpdateSuccessResult(commit) = &run.reports[2] else { panic!() };
    assert_eq!((commit.ecu_count, commit.rebooted, commit.duration_s), (2, Some(true), Some(1)));
    assert_eq!(commit.correlation_id.as_str(), "SRV_1");
}

#[test]
fn nothing_is_done_before_the_record_that_allows_it_is_durable() {
    let mut run = Run::begin(&[1]);
    let is_one_persist = |commands: &[Command]| matches!(commands, [Command::Persist { .. }]);
    assert!(is_one_persist(&run.commands));
    run.advance_to_processing();
    run.answer(1, EcuCall::WriteInactiveBank, EcuOutcome::Done);
    run.ready(InstallStep::Activating);
    assert!(is_one_persist(&run.commands), "{:?}", run.commands);
    run.persist();
    run.answer(1, EcuCall::Activate, EcuOutcome::Done);
    assert!(is_one_persist(&run.commands), "{:?}", run.commands);
    run.persist();
    run.answer(1, EcuCall::Reset, EcuOutcome::Done);
    run.answer(1, EcuCall::AskWhatRuns, new(Trial::OnTrial));
    assert!(is_one_persist(&run.commands), "{:?}", run.commands);
}

#[test]
fn syncing_ends_the_update_when_an_ecu_has_other_hardware_and_names_it() {
    let mut run = Run::begin(&[1, 1]);
    run.persist();
    run.answer(
        1,
        EcuCall::Identify,
        EcuOutcome::Identified { hw_part_no: "HW-1".to_owned(), runs: earlier() },
    );
    run.answer(
        2,
        EcuCall::Identify,
        EcuOutcome::Identified { hw_part_no: "HW-9".to_owned(), runs: earlier() },
    );
    assert_eq!(run.persist(), "ended");
    let VehicleBody::ErrorResponse(error) = &run.reports[0] else { panic!() };
    assert_eq!(error.code, ErrorCode::UpdateFailed);
    assert_eq!(error.failed_ecus, Some(vec!["ecu_2".parse().unwrap()]));
    assert!(error.detail.as_str().contains("HW-9"));
}

#[test]
fn a_silent_ecu_is_asked_a_bounded_number_of_times() {
    let mut run = Run::begin(&[1]);
    run.persist();
    for attempt in 1..Bounds::default().attempts {
        run.answer(1, EcuCall::Identify, silent());
        assert_eq!(run.called(EcuCall::Identify).len(), 1, "attempt {attempt}");
    }
    run.answer(1, EcuCall::Identify, silent());
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["UpdateFailed"]);
}

#[test]
fn without_failure_report_a_failure_is_silent() {
    let mut plan = plan(&[1]);
    plan.start.failure_report = false;
    let (update, commands) = VehicleUpdate::begin(plan, Bounds::default());
    let mut run = Run { update, commands, reports: Vec::new(), records: Vec::new() };
    run.advance_to_transferring();
    run.event(Event::DownloadFailed("gone".to_owned()));
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), [""; 0]);
    assert!(matches!(run.update.ending(), Some(Ending::RolledBack(_))));
}

#[test]
fn a_failed_download_ends_without_asking_ecus_that_nobody_touched() {
    let mut run = Run::begin(&[1]);
    run.advance_to_transferring();
    run.event(Event::DownloadFailed("gone".to_owned()));
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["UpdateFailed"]);
}

#[test]
fn the_deadline_ends_the_download_and_the_writing_but_not_what_comes_after() {
    let mut run = Run::begin(&[1]);
    run.advance_to_transferring();
    run.event_at(Event::DeadlinePassed, LATE);
    assert_eq!(run.commands, [Command::Interrupt]);
    run.event_at(Event::DownloadFailed("interrupted".to_owned()), LATE);
    assert_eq!(run.persist(), "ended");

    let mut run = Run::begin(&[1]);
    run.advance_to_processing();
    run.event_at(Event::DeadlinePassed, LATE);
    assert_eq!(run.commands, [Command::Interrupt]);
    run.answer(1, EcuCall::WriteInactiveBank, silent());
    assert_eq!(run.persist(), "roll_back");
    run.answer(1, EcuCall::AskWhatRuns, earlier_runs());
    assert_eq!(run.persist(), "ended");
    let VehicleBody::ErrorResponse(error) = run.reports.last().unwrap() else { panic!() };
    assert_eq!((error.code, error.failed_ecus.clone()), (ErrorCode::UpdateFailed, None));

    let mut run = Run::begin(&[1]);
    run.advance_to_activating();
    run.event_at(Event::DeadlinePassed, LATE);
    assert_eq!(run.commands, []);
    run.answer(1, EcuCall::Activate, EcuOutcome::Done);
    assert_eq!(run.persist(), "activated");
}

#[test]
fn lower_install_orders_are_written_first_and_equal_ones_side_by_side() {
    let mut run = Run::begin(&[7, 1, 1]);
    run.advance_to_processing();
    assert_eq!(run.called(EcuCall::WriteInactiveBank), ["ecu_2", "ecu_3"]);
    run.answer(3, EcuCall::WriteInactiveBank, EcuOutcome::Done);
    assert_eq!(run.commands, []);
    run.answer(2, EcuCall::WriteInactiveBank, EcuOutcome::Done);
    assert_eq!(run.called(EcuCall::WriteInactiveBank), ["ecu_1"]);
}

#[test]
fn an_ecu_that_fails_while_written_stops_the_others_and_every_ecu_is_asked_what_it_runs() {
    let mut run = Run::begin(&[1, 1, 2]);
    run.advance_to_processing();
    run.answer(1, EcuCall::WriteInactiveBank, silent());
    assert_eq!(run.commands, [Command::Interrupt]);
    run.answer(2, EcuCall::WriteInactiveBank, EcuOutcome::Failed("interrupted".to_owned()));
    assert_eq!(run.persist(), "roll_back");
    assert_eq!(run.called(EcuCall::AskWhatRuns), ["ecu_1", "ecu_2", "ecu_3"]);
    run.all(EcuCall::AskWhatRuns, &earlier_runs());
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "UpdateFailed"]);
    let VehicleBody::ErrorResponse(error) = &run.reports[1] else { panic!() };
    assert_eq!(error.failed_ecus, Some(vec!["ecu_1".parse().unwrap()]), "an interrupted ECU has not failed");
}

#[test]
fn an_ecu_whose_flag_is_not_swapped_brings_every_ecu_back() {
    let mut run = Run::begin(&[1, 1]);
    run.advance_to_activating();
    run.answer(1, EcuCall::Activate, EcuOutcome::Done);
    run.answer(2, EcuCall::Activate, silent());
    assert_eq!(run.persist(), "roll_back");
    assert_eq!(run.called(EcuCall::RollBack), ["ecu_1", "ecu_2"]);
    run.all(EcuCall::RollBack, &EcuOutcome::Done);
    run.all(EcuCall::Reset, &EcuOutcome::Done);
    run.all(EcuCall::AskWhatRuns, &earlier_runs());
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "UpdateFailed"]);
}

#[test]
fn an_ecu_that_starts_its_earlier_software_brings_every_ecu_back() {
    let mut run = Run::begin(&[1, 1]);
    run.advance_to_checking();
    run.all(EcuCall::Reset, &EcuOutcome::Done);
    run.answer(1, EcuCall::AskWhatRuns, new(Trial::OnTrial));
    run.answer(2, EcuCall::AskWhatRuns, earlier_runs());
    assert_eq!(run.persist(), "roll_back");
    assert!(matches!(run.records.last(), Some(Record::RollBack { swapped: true, .. })));
}

#[test]
fn an_ecu_that_cannot_be_brought_back_needs_service() {
    let mut run = Run::begin(&[1, 1]);
    run.advance_to_activating();
    run.all(EcuCall::Activate, &silent());
    run.persist();
    run.answer(1, EcuCall::RollBack, EcuOutcome::Done);
    run.answer(1, EcuCall::Reset, EcuOutcome::Done);
    run.answer(1, EcuCall::AskWhatRuns, earlier_runs());
    for _ in 0..Bounds::default().attempts_to_end {
        assert!(run.update.ending().is_none());
        run.answer(2, EcuCall::RollBack, silent());
        run.answer(2, EcuCall::Reset, silent());
    }
    assert_eq!(run.persist(), "ended");
    let VehicleBody::ErrorResponse(error) = run.reports.last().unwrap() else { panic!() };
    assert_eq!(error.code, ErrorCode::ServiceRequired);
    assert_eq!(error.failed_ecus, Some(vec!["ecu_2".parse().unwrap()]));
}

#[test]
fn commit_is_reported_only_after_every_ecu_said_that_it_keeps_the_new_software() {
    let mut run = Run::begin(&[1, 1]);
    run.advance_to_finishing();
    assert_eq!(run.codes(), ["Download", "Install"]);
    run.all(EcuCall::AskWhatRuns, &new(Trial::OnTrial));
    run.answer(1, EcuCall::Confirm, EcuOutcome::Done);
    run.answer(1, EcuCall::AskWhatRuns, new(Trial::Confirmed));
    run.answer(2, EcuCall::Confirm, silent());
    run.answer(2, EcuCall::AskWhatRuns, new(Trial::OnTrial));
    assert_eq!(run.called(EcuCall::Confirm), ["ecu_2"]);
    run.answer(2, EcuCall::Confirm, EcuOutcome::Done);
    run.answer(2, EcuCall::AskWhatRuns, new(Trial::Confirmed));
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "Install", "Commit"]);
}

#[test]
fn an_ecu_that_never_confirms_needs_service_and_no_success_is_reported() {
    let mut run = Run::begin(&[1]);
    run.advance_to_finishing();
    while run.update.ending().is_none() && run.records.last().is_some_and(|last| last.name() == "commit") {
        run.answer(1, EcuCall::AskWhatRuns, silent());
        if matches!(run.commands.last(), Some(Command::Persist { .. })) {
            run.persist();
        }
    }
    assert_eq!(run.codes(), ["Download", "Install", "ServiceRequired"]);
}

#[test]
fn a_cancel_before_the_barrier_is_honoured_and_answered_once_every_ecu_is_as_before() {
    let mut run = Run::begin(&[1]);
    run.advance_to_transferring();
    run.event(cancel(1));
    assert_eq!(run.commands, [Command::Interrupt]);
    run.event(Event::Downloaded);
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Cancelled"]);

    let mut run = Run::begin(&[1]);
    run.advance_to_processing();
    run.event(cancel(1));
    run.answer(1, EcuCall::WriteInactiveBank, EcuOutcome::Done);
    assert_eq!(run.persist(), "roll_back");
    run.answer(1, EcuCall::AskWhatRuns, earlier_runs());
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "Cancelled"]);
    assert_eq!(run.update.ending(), Some(&Ending::Cancelled));
}

#[test]
fn a_cancel_while_the_activate_record_is_written_still_counts_for_no_flag_is_swapped() {
    let mut run = Run::begin(&[1]);
    run.advance_to_processing();
    run.answer(1, EcuCall::WriteInactiveBank, EcuOutcome::Done);
    run.ready(InstallStep::Activating);
    let persist = std::mem::take(&mut run.commands);
    run.event(cancel(1));
    assert_eq!(run.commands, []);
    run.commands = persist;
    assert_eq!(run.persist(), "activate");
    assert_eq!(run.persist(), "roll_back");
    assert!(matches!(run.records.last(), Some(Record::RollBack { swapped: false, .. })));
}

#[test]
fn a_cancel_after_the_barrier_is_refused_and_the_update_goes_on() {
    let mut run = Run::begin(&[1]);
    run.advance_to_activating();
    run.event(cancel(1));
    let [Command::Report(VehicleBody::ErrorResponse(error))] = run.commands.as_slice() else { panic!() };
    assert_eq!((error.code, error.correlation_id.as_str()), (ErrorCode::CancelRefused, "SRV_C1"));
    run.answer(1, EcuCall::Activate, EcuOutcome::Done);
    assert_eq!(run.persist(), "activated");
}

#[test]
fn a_cancel_of_an_update_that_has_ended_is_answered_by_how_it_ended() {
    let mut run = Run::begin(&[1]);
    run.advance_to_ended_committed();
    run.event(cancel(1));
    let [Command::Report(VehicleBody::ErrorResponse(error))] = run.commands.as_slice() else { panic!() };
    assert_eq!(error.code, ErrorCode::CancelRefused);
}

#[test]
fn a_committed_update_is_undone_while_the_other_banks_hold_the_earlier_software() {
    let mut run = Run::begin(&[1, 1]);
    run.advance_to_ended_committed();
    run.commands = run.update.undo("SRV_R".parse().unwrap(), NOW).unwrap();
    run.all(EcuCall::AskWhatRuns, &new(Trial::Confirmed));
    assert_eq!(run.persist(), "undo");
    run.all(EcuCall::RollBack, &EcuOutcome::Done);
    run.all(EcuCall::Reset, &EcuOutcome::Done);
    run.all(EcuCall::AskWhatRuns, &earlier_runs());
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes().last().unwrap(), "Rollback");
    let VehicleBody::UpdateSuccessResult(result) = run.reports.last().unwrap() else { panic!() };
    assert_eq!(result.correlation_id.as_str(), "SRV_R");
    assert_eq!(run.update.ending(), Some(&Ending::Undone));
}

#[test]
fn a_committed_update_can_be_undone_while_it_still_cleans_up() {
    let mut run = Run::begin(&[1]);
    run.advance_to_finishing();
    run.all(EcuCall::AskWhatRuns, &new(Trial::Confirmed));
    run.persist();
    assert_eq!(run.update.phase(), Phase::CleaningUp);
    run.commands = run.update.undo("SRV_R".parse().unwrap(), NOW).unwrap();
    run.update.handle(Event::PackagesDeleted, NOW);
    run.all(EcuCall::AskWhatRuns, &new(Trial::Confirmed));
    assert_eq!(run.persist(), "undo");
}

#[test]
fn a_committed_update_whose_earlier_software_is_gone_cannot_be_undone() {
    let mut run = Run::begin(&[1]);
    run.advance_to_ended_committed();
    run.commands = run.update.undo("SRV_R".parse().unwrap(), LATE).unwrap();
    let mut gone = earlier();
    (gone.version, gone.bank) = ("2.0".to_owned(), 1);
    run.answer(1, EcuCall::AskWhatRuns, EcuOutcome::Runs(gone));
    let [Command::Report(VehicleBody::ErrorResponse(error))] = run.commands.as_slice() else { panic!() };
    assert_eq!((error.code, error.correlation_id.as_str()), (ErrorCode::RollbackUnavailable, "SRV_R"));
    assert_eq!(run.update.ending(), Some(&Ending::Committed));
    assert_eq!(run.update.phase(), Phase::Ended);
}

#[test]
fn only_a_committed_update_can_be_undone() {
    let mut run = Run::begin(&[1]);
    assert!(run.update.undo("SRV_R".parse().unwrap(), NOW).is_none());
    run.advance_to_transferring();
    run.event(Event::DownloadFailed("gone".to_owned()));
    run.persist();
    run.event(Event::PackagesDeleted);
    assert!(run.update.undo("SRV_R".parse().unwrap(), NOW).is_none());
}

#[test]
fn a_restart_goes_on_as_the_table_of_the_records_says() {
    let mut run = Run::begin(&[1]);
    run.advance_to_ended_committed();
    let records = run.records.clone();
    let first_command = |count: usize| {
        let (update, mut commands) =
            VehicleUpdate::resume(records[..count].to_vec(), Bounds::default(), NOW).unwrap();
        (update.phase(), commands.remove(0))
    };
    let call = |call| Command::CallEcu { ecu_id: "ecu_1".parse().unwrap(), call, wait: Duration::ZERO };
    let rolls_back = |command: &Command, expected: bool| matches!(command, Command::Persist { record: Record::RollBack { swapped, .. }, .. } if *swapped == expected);
    let names: Vec<&str> = records.iter().map(Record::name).collect();
    assert_eq!(
        names,
        [
            "accepted",
            "synced",
            "transferred",
            "consented",
            "process",
            "activate",
            "activated",
            "commit",
            "ended"
        ]
    );
    assert_eq!(first_command(1), (Phase::Syncing, call(EcuCall::Identify)));
    assert_eq!(first_command(2), (Phase::Transferring, Command::Download));
    let waits = |before| (Phase::Waiting, Command::AwaitReady { before });
    assert_eq!(first_command(3), waits(InstallStep::Consent));
    assert_eq!(first_command(4), waits(InstallStep::Processing), "who agreed is not asked again");
    assert!(rolls_back(&first_command(5).1, false));
    assert!(rolls_back(&first_command(6).1, true));
    assert!(rolls_back(&first_command(7).1, true));
    assert_eq!(first_command(8), (Phase::Finishing, call(EcuCall::AskWhatRuns)));
    assert_eq!(first_command(9), (Phase::CleaningUp, Command::DeletePackages));

    let why = Why { detail: "x".to_owned(), failed_ecus: Vec::new(), cancelled: false };
    for (swapped, expected) in [(false, EcuCall::AskWhatRuns), (true, EcuCall::RollBack)] {
        let mut rolling_back = records[..6].to_vec();
        rolling_back.push(Record::RollBack { swapped, why: why.clone() });
        let (update, commands) = VehicleUpdate::resume(rolling_back, Bounds::default(), NOW).unwrap();
        assert_eq!((update.phase(), commands), (Phase::RollingBack, vec![call(expected)]));
    }
    let mut undoing = records.clone();
    undoing.push(Record::Undo { command: "SRV_R".parse().unwrap(), accepted_at: NOW });
    let (_, commands) = VehicleUpdate::resume(undoing, Bounds::default(), NOW).unwrap();
    assert_eq!(commands, [call(EcuCall::RollBack)]);
}

#[test]
fn a_restart_after_the_deadline_does_not_go_on_downloading() {
    let mut run = Run::begin(&[1]);
    run.advance_to_transferring();
    let (_, commands) = VehicleUpdate::resume(run.records, Bounds::default(), LATE).unwrap();
    assert!(matches!(&commands[..], [Command::Persist { record: Record::Ended(Ending::RolledBack(_)), .. }]));
}

#[test]
fn records_out_of_order_are_a_damaged_journal() {
    let mut run = Run::begin(&[1]);
    run.advance_to_ended_committed();
    let records = run.records;
    let resume = |records: Vec<Record>| VehicleUpdate::resume(records, Bounds::default(), NOW);
    assert!(resume(Vec::new()).is_err());
    assert!(resume(records[1..].to_vec()).is_err());
    for missing in 1..records.len() - 1 {
        let mut damaged = records.clone();
        damaged.remove(missing);
        assert!(resume(damaged).is_err(), "without {}", records[missing].name());
    }
}

#[test]
fn events_that_do_not_fit_change_nothing() {
    let mut run = Run::begin(&[1]);
    run.event(Event::Downloaded);
    assert_eq!(run.commands, []);
    run.event(Event::PackagesDeleted);
    assert_eq!(run.update.phase(), Phase::Syncing);
    run.answer(1, EcuCall::Activate, EcuOutcome::Done);
    assert_eq!(run.commands, []);
}

#[test]
fn a_vehicle_that_is_not_ready_waits_with_the_install_until_it_is_or_the_deadline_passes() {
    let mut run = Run::begin(&[1]);
    run.advance_to_transferring();
    run.event(Event::Downloaded);
    assert_eq!(run.persist(), "transferred");
    assert_eq!(run.codes(), ["Download"]);
    run.event_at(Event::DeadlinePassed, LATE);
    assert_eq!(run.commands, [Command::Interrupt]);
    run.event_at(Event::WaitGivenUp, LATE);
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "UpdateFailed"]);

    let mut run = Run::begin(&[1]);
    run.advance_to_processing();
    run.answer(1, EcuCall::WriteInactiveBank, EcuOutcome::Done);
    assert_eq!(run.commands, [Command::AwaitReady { before: InstallStep::Activating }]);
    run.event(cancel(1));
    assert_eq!(run.commands, [Command::Interrupt]);
    run.event(Event::Ready);
    assert_eq!(run.persist(), "roll_back");
    run.answer(1, EcuCall::AskWhatRuns, earlier_runs());
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "Cancelled"]);
}

#[test]
fn a_driver_who_does_not_agree_ends_the_update_before_anything_is_written() {
    let mut run = Run::begin(&[1]);
    run.update.plan.start.failure_report = false;
    run.advance_to_transferring();
    run.event(Event::Downloaded);
    run.persist();
    run.event(Event::ConsentDenied("not now".to_owned()));
    assert_eq!(run.persist(), "ended");
    assert_eq!(run.codes(), ["Download", "ConsentDenied"]);
    assert_eq!(run.commands, [Command::DeletePackages]);
    let (update, _) = VehicleUpdate::resume(run.records, Bounds::default(), NOW).unwrap();
    assert!(matches!(update.ending(), Some(Ending::ConsentDenied(_))));
}
