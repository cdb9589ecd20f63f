//! The table of recovery: the last record of the journal × what an ECU says it runs → what the gateway does
//! with that ECU first, after it restarted. It is the join of the tables of `record.rs` and `ecu_work.rs`.

use super::*;

/// What an ECU says when it is asked.
#[derive(Debug, Clone, Copy)]
enum Says {
    Earlier,
    /// The earlier software runs, the new one can be booted.
    EarlierNewReady,
    NewOnTrial,
    NewConfirmed,
    Nothing,
}

const SAYS: [Says; 5] =
    [Says::Earlier, Says::EarlierNewReady, Says::NewOnTrial, Says::NewConfirmed, Says::Nothing];

impl Says {
    fn outcome(self, call: EcuCall) -> EcuOutcome {
        let runs = match self {
            Self::Earlier => earlier(),
            Self::EarlierNewReady => Runs { other_version: Some("2.0".to_owned()), ..earlier() },
            Self::NewOnTrial => new_runs(Trial::OnTrial),
            Self::NewConfirmed => new_runs(Trial::Confirmed),
            Self::Nothing if matches!(call, EcuCall::Identify | EcuCall::AskWhatRuns) => return silent(),
            Self::Nothing => return EcuOutcome::Done,
        };
        match call {
            EcuCall::Identify => EcuOutcome::Identified { hw_part_no: "HW-1".to_owned(), runs },
            EcuCall::AskWhatRuns => EcuOutcome::Runs(runs),
            EcuCall::WriteInactiveBank
            | EcuCall::Activate
            | EcuCall::Reset
            | EcuCall::Confirm
            | EcuCall::RollBack => EcuOutcome::Done,
        }
    }
}

fn new_runs(trial: Trial) -> Runs {
    let EcuOutcome::Runs(runs) = new(trial) else { panic!() };
    runs
}

/// The gateway restarts with these records; the ECU is asked. What follows, in a few words.
fn follows(records: &[Record], says: Says) -> String {
    let (mut update, mut commands) = VehicleUpdate::resume(records.to_vec(), Bounds::default(), NOW).unwrap();
    let mut steps = Vec::new();
    let mut asked = false;
    loop {
        let command = commands.pop().expect("recovery does not stand still");
        let event = match command {
            Command::Persist { record, .. } => {
                steps.push(record.name().to_owned());
                if asked {
                    return steps.join(", ");
                }
                Event::Persisted
            }
            Command::CallEcu { ecu_id, call, .. } => {
                steps.push(format!("{call:?}"));
                if asked {
                    return steps.join(", ");
                }
                asked = matches!(call, EcuCall::Identify | EcuCall::AskWhatRuns);
                Event::EcuAnswered { ecu_id, call, outcome: says.outcome(call) }
            }
            Command::Download | Command::AwaitReady { .. } | Command::DeletePackages => {
                return format!("{command:?}");
            }
            Command::Report(_) | Command::Interrupt => panic!("{command:?}"),
        };
        commands = update.handle(event, NOW);
    }
}

#[test]
fn every_record_with_everything_that_an_ecu_can_say_leads_where_the_table_says() {
    let mut run = Run::begin(&[1]);
    run.advance_to_ended_committed();
    let named = |name: &str| {
        let at = run.records.iter().position(|record| record.name() == name).unwrap();
        run.records[..=at].to_vec()
    };
    let rolling_back = |after: &str, swapped| {
        let why = Why { detail: "x".to_owned(), failed_ecus: Vec::new(), cancelled: false };
        [named(after), vec![Record::RollBack { swapped, why }]].concat()
    };
    let undo = [named("ended"), vec![Record::Undo { command: "SRV_R".parse().unwrap(), accepted_at: NOW }]];

    let back = "RollBack, Reset, AskWhatRuns";
    let table: [(Vec<Record>, &str, [&str; 5]); 12] = [
        // record, what is done before the ECU answers; what follows from earlier, earlier with the new one ready,
        // new on trial, new confirmed, no answer
        (named("accepted"), "Identify", ["synced", "synced", "ended", "synced", "Identify"]),
        (named("synced"), "", ["Download"; 5]),
        (named("transferred"), "", ["AwaitReady { before: Consent }"; 5]),
        (named("consented"), "", ["AwaitReady { before: Processing }"; 5]),
        (
            named("process"),
            "roll_back, AskWhatRuns",
            ["ended", "ended", "AskWhatRuns", "AskWhatRuns", "AskWhatRuns"],
        ),
        (
            named("activate"),
            "roll_back, RollBack, Reset, AskWhatRuns",
            ["ended", "ended", "RollBack", "RollBack", "RollBack"],
        ),
        (
            named("activated"),
            "roll_back, RollBack, Reset, AskWhatRuns",
            ["ended", "ended", "RollBack", "RollBack", "RollBack"],
        ),
        (named("commit"), "AskWhatRuns", ["AskWhatRuns", "Activate", "Confirm", "ended", "AskWhatRuns"]),
        (
            rolling_back("process", false),
            "AskWhatRuns",
            ["ended", "ended", "AskWhatRuns", "AskWhatRuns", "AskWhatRuns"],
        ),
        (rolling_back("activated", true), back, ["ended", "ended", "RollBack", "RollBack", "RollBack"]),
        (undo.concat(), back, ["ended", "ended", "RollBack", "RollBack", "RollBack"]),
        (named("ended"), "", ["DeletePackages"; 5]),
    ];
    for (records, before, row) in table {
        for (says, expected) in SAYS.into_iter().zip(row) {
            let expected = [before, expected].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
            let record = records.last().unwrap().name();
            assert_eq!(follows(&records, says), expected.join(", "), "{record}, the ECU says {says:?}");
        }
    }
}
