//! The conversation with one ECU as a state machine without I/O: which request comes next, what its
//! answer, its refusal or its silence lead to.
//!
//! | sequence | calls |
//! |---|---|
//! | read | 22 for each identifier, in the default session |
//! | check preconditions | 10 03, 31 check preconditions |
//! | write | 10 03, 22 hardware, 31 check preconditions, 10 02, 27 seed, 27 key, 2E fingerprint, 31 erase, 34, 36…, 37, 31 check memory, 31 check dependencies |
//! | activate | 10 03, 27 seed, 27 key, 85 02, 28 03, 31 activate |
//! | reset | 10 03, 11 01 |
//! | confirm, roll back | 10 03, 27 seed, 27 key, 31 |
//!
//! | while a call is outstanding | then |
//! |---|---|
//! | its positive answer | the next call; after the last one, finished |
//! | an answer to something else | keep waiting |
//! | its negative answer | the decision of `policy`, each bounded by `Timers` |
//! | silence until P2 (P2* after "response pending") | the same request again, a bounded number of times |
//! | the connection is lost | all again from the first call; a reset counts as done |
//!
//! An activation stops fault recording and normal communication; both come back with
//! the reset that follows, or when the ECU leaves the session because its tester went away.

mod call;
mod failure;
mod transfer;

use std::time::Duration;

use bytes::{BufMut, BytesMut};

pub use self::call::{Call, Routine, WriteJob};
use self::failure::unexpected;
pub use self::failure::{Failure, RestartCause};
use self::transfer::{Resynchronisation, Transfer};
use crate::policy::{Decision, decide};
use crate::settings::Settings;
use crate::uds::{self, Answer, DiagnosticSessionType, Expected, NegativeResponseCode, Response};

/// What the caller does next.
#[derive(Debug)]
pub enum Step {
    /// Send the request that is in the buffer, then wait for an answer until then.
    Send {
        /// Moment of the caller's clock.
        answer_by: Duration,
    },
    /// Send the last request once more, then wait for an answer until then.
    Repeat {
        /// Moment of the caller's clock.
        answer_by: Duration,
    },
    /// Keep waiting for an answer until then.
    Await {
        /// Moment of the caller's clock.
        answer_by: Duration,
    },
    /// Do nothing until then.
    Pause {
        /// Moment of the caller's clock.
        until: Duration,
    },
    /// Append this part of the image to the buffer, then call [`Sequence::on_block`].
    AppendBlock {
        /// Where the part begins in the image, in bytes.
        offset: u64,
        /// Its length in bytes.
        length: usize,
    },
    /// All done.
    Finished,
    /// Given up.
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is outstanding: before the start and after the end.
    Idle,
    Awaiting {
        answer_by: Duration,
    },
    Pausing {
        until: Duration,
        then: AfterPause,
    },
    BlockWanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AfterPause {
    Repeat,
    Issue,
}

/// What happened to the outstanding call so far.
#[derive(Debug, Default)]
struct Exchange {
    expected: Expected,
    silences: u32,
    busy: u32,
    /// End of "response pending", once the ECU has said it.
    pending_until: Option<Duration>,
    /// End of waiting for conditions, once they were wrong.
    conditions_until: Option<Duration>,
}

/// A conversation with one ECU.
#[derive(Debug)]
pub struct Sequence {
    settings: Settings,
    plan: Vec<Call>,
    position: usize,
    job: Option<WriteJob>,
    state: State,
    exchange: Exchange,
    restarts: u32,
    security_retried: bool,
    session_open: bool,
    p2: Duration,
    p2_star: Duration,
    seed: Vec<u8>,
    records: Vec<Vec<u8>>,
    transfer: Transfer,
}

const EXTENDED: Call = Call::OpenSession(DiagnosticSessionType::ExtendedDiagnosticSession);
const PROGRAMMING: Call = Call::OpenSession(DiagnosticSessionType::ProgrammingSession);

impl Sequence {
    fn new(settings: &Settings, plan: Vec<Call>, job: Option<WriteJob>) -> Self {
        Self {
            p2: settings.timers.p2,
            p2_star: settings.timers.p2_star,
            settings: settings.clone(),
            plan,
            position: 0,
            job,
            state: State::Idle,
            exchange: Exchange::default(),
            restarts: 0,
            security_retried: false,
            session_open: false,
            seed: Vec::new(),
            records: Vec::new(),
            transfer: Transfer::default(),
        }
    }

    /// Reads data identifiers; their records are then in [`Sequence::records`], in this order.
    pub fn read(settings: &Settings, identifiers: &[u16]) -> Self {
        Self::new(settings, identifiers.iter().map(|identifier| Call::Read(*identifier)).collect(), None)
    }

    /// Asks whether the ECU can be programmed now.
    pub fn check_preconditions(settings: &Settings) -> Self {
        Self::new(settings, vec![EXTENDED, Call::StartRoutine(Routine::CheckPreconditions)], None)
    }

    /// Writes an image into the inactive bank and has the ECU verify it.
    pub fn write(settings: &Settings, job: WriteJob) -> Self {
        let plan = vec![
            EXTENDED,
            Call::CheckHardware,
            Call::StartRoutine(Routine::CheckPreconditions),
            PROGRAMMING,
            Call::RequestSeed,
            Call::SendKey,
            Call::WriteFingerprint,
            Call::StartRoutine(Routine::Erase),
            Call::RequestDownload,
            Call::TransferBlocks,
            Call::TransferExit,
            Call::StartRoutine(Routine::CheckMemory),
            Call::StartRoutine(Routine::CheckDependencies),
        ];
        Self::new(settings, plan, Some(job))
    }

    /// Marks the bank that was written for the next boot.
    pub fn activate(settings: &Settings) -> Self {
        let plan = vec![
            EXTENDED,
            Call::RequestSeed,
            Call::SendKey,
            Call::StopFaultRecording,
            Call::StopNormalCommunication,
            Call::StartRoutine(Routine::Activate),
        ];
        Self::new(settings, plan, None)
    }

    /// Restarts the ECU; finished when it has taken the request, not when it runs again.
    pub fn reset(settings: &Settings) -> Self {
        Self::new(settings, vec![EXTENDED, Call::Reset], None)
    }

    /// Ends the trial of the running software.
    pub fn confirm(settings: &Settings) -> Self {
        Self::unlocked_routine(settings, Routine::Confirm)
    }

    /// Marks the earlier software for the next boot.
    pub fn roll_back(settings: &Settings) -> Self {
        Self::unlocked_routine(settings, Routine::RollBack)
    }

    fn unlocked_routine(settings: &Settings, routine: Routine) -> Self {
        let plan = vec![EXTENDED, Call::RequestSeed, Call::SendKey, Call::StartRoutine(routine)];
        Self::new(settings, plan, None)
    }

    /// What was read, in the order of the identifiers.
    pub fn records(&self) -> &[Vec<u8>] {
        &self.records
    }

    /// What was read, when nothing else is needed of the sequence.
    pub fn into_records(self) -> Vec<Vec<u8>> {
        self.records
    }

    /// Bytes of the image that the ECU has acknowledged.
    pub fn bytes_written(&self) -> u64 {
        self.transfer.acknowledged_bytes()
    }

    /// Whether "tester present" has to be sent from time to time.
    pub fn session_is_open(&self) -> bool {
        self.session_open
    }

    /// Begins; the first request is in `out`.
    pub fn start(&mut self, now: Duration, out: &mut BytesMut) -> Step {
        if let Some(unusable) = self.job.as_ref().and_then(WriteJob::unusable) {
            return self.fail(unusable);
        }
        self.issue(now, out)
    }

    /// The block that [`Step::AppendBlock`] asked for is in `out`.
    pub fn on_block(&mut self, now: Duration, out: &BytesMut) -> Step {
        self.exchange.expected = Expected::for_request(out);
        Step::Send { answer_by: self.await_answer(now) }
    }

    /// A message came from the ECU.
    pub fn on_answer(&mut self, now: Duration, received: &[u8], out: &mut BytesMut) -> Step {
        let Some(call) = self.current() else { return Step::Finished };
        let State::Awaiting { answer_by } = self.state else { return self.on_time(now, out) };
        match self.exchange.expected.classify(received) {
            Answer::Foreign => Step::Await { answer_by },
            Answer::Malformed => self.fail(unexpected(call, received)),
            Answer::Negative(code) => self.refused(now, call, code, out),
            Answer::Positive(response) => self.accepted(now, call, &response, received, out),
        }
    }

    /// The moment of the last step has come.
    pub fn on_time(&mut self, now: Duration, out: &mut BytesMut) -> Step {
        match self.state {
            State::Idle => Step::Finished,
            State::BlockWanted => self.next_block(now, out),
            State::Awaiting { answer_by } if now < answer_by => Step::Await { answer_by },
            State::Awaiting { .. } => self.silence(now),
            State::Pausing { until, .. } if now < until => Step::Pause { until },
            State::Pausing { then: AfterPause::Issue, .. } => self.issue(now, out),
            State::Pausing { then: AfterPause::Repeat, .. } => self.repeat(now),
        }
    }

    /// The connection to the ECU's controller was lost; a new one is there by the end of the pause.
    pub fn on_connection_lost(&mut self, now: Duration) -> Step {
        let Some(call) = self.current() else { return Step::Finished };
        if call == Call::Reset {
            return self.finish();
        }
        if let Some(failed) = self.count_restart(call, RestartCause::ConnectionLost) {
            return failed;
        }
        self.go_to(0);
        self.session_open = false;
        let until = now + self.settings.timers.reconnect_wait;
        self.pause(until, AfterPause::Issue)
    }

    fn current(&self) -> Option<Call> {
        self.plan.get(self.position).copied()
    }

    fn go_to(&mut self, position: usize) {
        self.position = position;
        if position == 0 {
            self.records.clear();
        }
    }

    fn position_of(&self, call: Call) -> Option<usize> {
        self.plan.iter().position(|planned| *planned == call)
    }

    fn finish(&mut self) -> Step {
        self.state = State::Idle;
        self.session_open = false;
        Step::Finished
    }

    fn fail(&mut self, failure: Failure) -> Step {
        self.state = State::Idle;
        self.session_open = false;
        Step::Failed(failure)
    }

    fn pause(&mut self, until: Duration, then: AfterPause) -> Step {
        self.state = State::Pausing { until, then };
        Step::Pause { until }
    }

    /// Waits for the answer to what is sent now; returns until when.
    fn await_answer(&mut self, now: Duration) -> Duration {
        self.exchange.pending_until = None;
        let answer_by = now + self.p2 + self.settings.timers.network_allowance;
        self.state = State::Awaiting { answer_by };
        answer_by
    }

    fn repeat(&mut self, now: Duration) -> Step {
        Step::Repeat { answer_by: self.await_answer(now) }
    }

    fn advance(&mut self, now: Duration, out: &mut BytesMut) -> Step {
        self.position += 1;
        self.issue(now, out)
    }

    /// Sends the current call for the first time.
    fn issue(&mut self, now: Duration, out: &mut BytesMut) -> Step {
        self.exchange = Exchange::default();
        let Some(call) = self.current() else { return self.finish() };
        // A seed of zeros says that the ECU is unlocked already (ISO 14229-1, service 27).
        if call == Call::SendKey && self.seed.iter().all(|byte| *byte == 0) {
            return self.advance(now, out);
        }
        if call == Call::TransferBlocks {
            return self.next_block(now, out);
        }
        out.clear();
        if let Err(source) = call.append_request(&self.settings, self.job.as_ref(), &self.seed, out) {
            return self.fail(Failure::Unsendable { call, source });
        }
        self.exchange.expected = Expected::for_request(out);
        Step::Send { answer_by: self.await_answer(now) }
    }

    fn next_block(&mut self, now: Duration, out: &mut BytesMut) -> Step {
        self.exchange = Exchange::default();
        let Some(block) = self.transfer.next_block() else { return self.advance(now, out) };
        out.clear();
        out.put_slice(&[uds::UdsServiceType::TransferData.to_request_sid(), block.counter]);
        self.state = State::BlockWanted;
        Step::AppendBlock { offset: block.offset, length: block.length }
    }

    fn accepted(
        &mut self,
        now: Duration,
        call: Call,
        response: &Response<'_>,
        received: &[u8],
        out: &mut BytesMut,
    ) -> Step {
        match call {
            Call::OpenSession(_) => {
                let Response::DiagnosticSessionControl(session) = response else {
                    return self.fail(unexpected(call, received));
                };
                let timers = &self.settings.timers;
                let p2 = Duration::from_millis(session.p2_server_max_ms.into());
                let p2_star = Duration::from_millis(session.p2_star_server_max.as_millis().into());
                self.p2 = p2.max(timers.p2);
                self.p2_star = p2_star.max(timers.p2_star);
                self.session_open = true;
            }
            Call::Read(_) => self.records.push(record_of(response).to_vec()),
            Call::CheckHardware => {
                if let Some(mismatch) = self.hardware_mismatch(record_of(response)) {
                    return self.fail(mismatch);
                }
            }
            Call::RequestSeed => {
                let Response::SecurityAccess(access) = response else {
                    return self.fail(unexpected(call, received));
                };
                self.seed = access.security_seed.to_vec();
            }
            Call::StartRoutine(routine) => {
                let Response::RoutineControl(done) = response else {
                    return self.fail(unexpected(call, received));
                };
                match (routine, done.status_record) {
                    (_, [] | [0, ..]) => {}
                    (Routine::CheckPreconditions, _) => {
                        return self.not_ready(now, call, NegativeResponseCode::ConditionsNotCorrect);
                    }
                    (routine, status) => {
                        return self.fail(Failure::RoutineFailed { routine, status: status.to_vec() });
                    }
                }
            }
            Call::RequestDownload => {
                let Some(length) = self.block_payload(response) else {
                    return self.fail(unexpected(call, received));
                };
                self.transfer = Transfer::new(self.job.as_ref().map_or(0, |job| job.size), length);
            }
            Call::TransferBlocks => {
                self.transfer.acknowledge();
                return self.next_block(now, out);
            }
            Call::SendKey
            | Call::WriteFingerprint
            | Call::TransferExit
            | Call::StopFaultRecording
            | Call::StopNormalCommunication
            | Call::Reset => {}
        }
        self.advance(now, out)
    }

    /// Bytes of image that one block can carry.
    fn block_payload(&self, response: &Response<'_>) -> Option<usize> {
        let Response::RequestDownload(download) = response else { return None };
        let ecu_limit = download
            .max_number_of_block_length()
            .iter()
            .fold(0_u64, |length, byte| length.saturating_mul(256).saturating_add(u64::from(*byte)));
        let limit = ecu_limit.min(self.settings.timers.max_block_length.into());
        // maxNumberOfBlockLength counts the service byte and the block counter.
        usize::try_from(limit).ok()?.checked_sub(2).filter(|length| *length > 0)
    }

    fn hardware_mismatch(&self, record: &[u8]) -> Option<Failure> {
        let expected = self.job.as_ref().map(|job| job.hw_part_no.as_str()).unwrap_or_default();
        let found = String::from_utf8_lossy(record);
        let found = found.trim_end_matches(['\0', ' ']);
        let mismatch =
            || Failure::HardwareMismatch { expected: expected.to_owned(), found: found.to_owned() };
        (found != expected).then(mismatch)
    }

    fn refused(&mut self, now: Duration, call: Call, code: NegativeResponseCode, out: &mut BytesMut) -> Step {
        match decide(code) {
            Decision::WaitForAnswer => self.response_pending(now, call),
            Decision::RepeatLater => self.busy(now, call),
            Decision::ResynchroniseBlocks => self.wrong_counter(now, call, code, out),
            Decision::RestartProgramming => {
                let position = self.position_of(PROGRAMMING).unwrap_or_default();
                self.restart(now, call, code, position, out)
            }
            Decision::RestartSession => self.restart(now, call, code, 0, out),
            Decision::NotReady => self.not_ready(now, call, code),
            Decision::RetrySecurityOnce => self.retry_security(now, call, code),
            Decision::Fail => self.fail(Failure::Refused { call, code }),
        }
    }

    fn response_pending(&mut self, now: Duration, call: Call) -> Step {
        let timers = &self.settings.timers;
        let erasing = call == Call::StartRoutine(Routine::Erase);
        let cap = if erasing { timers.erase_pending_cap } else { timers.pending_cap };
        let end = *self.exchange.pending_until.get_or_insert(now + cap);
        if now >= end {
            return self.fail(Failure::PendingTooLong { call, cap });
        }
        let answer_by = (now + self.p2_star + timers.network_allowance).min(end);
        self.state = State::Awaiting { answer_by };
        Step::Await { answer_by }
    }

    fn busy(&mut self, now: Duration, call: Call) -> Step {
        let timers = &self.settings.timers;
        if self.exchange.busy >= timers.busy_repeats {
            return self.fail(Failure::Busy { call, repeats: self.exchange.busy });
        }
        let wait = timers.busy_wait.saturating_mul(2_u32.saturating_pow(self.exchange.busy));
        self.exchange.busy += 1;
        self.pause(now + wait, AfterPause::Repeat)
    }

    fn wrong_counter(
        &mut self,
        now: Duration,
        call: Call,
        code: NegativeResponseCode,
        out: &mut BytesMut,
    ) -> Step {
        if call != Call::TransferBlocks {
            return self.fail(Failure::Refused { call, code });
        }
        match self.transfer.wrong_counter() {
            Resynchronisation::RepeatBlock => self.repeat(now),
            Resynchronisation::NextBlock => {
                self.transfer.acknowledge();
                self.next_block(now, out)
            }
            Resynchronisation::RestartDownload => {
                let position = self.position_of(Call::RequestDownload).unwrap_or_default();
                self.restart(now, call, code, position, out)
            }
        }
    }

    fn not_ready(&mut self, now: Duration, call: Call, code: NegativeResponseCode) -> Step {
        let timers = &self.settings.timers;
        let waited = timers.conditions_wait;
        let next = now + timers.conditions_poll;
        let end = *self.exchange.conditions_until.get_or_insert(now + waited);
        if next > end {
            return self.fail(Failure::NotReady { call, code, waited });
        }
        self.pause(next, AfterPause::Repeat)
    }

    fn retry_security(&mut self, now: Duration, call: Call, code: NegativeResponseCode) -> Step {
        let Some(position) = self.position_of(Call::RequestSeed).filter(|_| !self.security_retried) else {
            return self.fail(Failure::Refused { call, code });
        };
        self.security_retried = true;
        self.go_to(position);
        let until = now + self.settings.timers.security_delay;
        self.pause(until, AfterPause::Issue)
    }

    fn restart(
        &mut self,
        now: Duration,
        call: Call,
        code: NegativeResponseCode,
        position: usize,
        out: &mut BytesMut,
    ) -> Step {
        if let Some(failed) = self.count_restart(call, RestartCause::Refused(code)) {
            return failed;
        }
        self.go_to(position);
        self.issue(now, out)
    }

    fn count_restart(&mut self, call: Call, cause: RestartCause) -> Option<Step> {
        if self.restarts >= self.settings.timers.restarts {
            return Some(self.fail(Failure::GaveUp { call, restarts: self.restarts, cause }));
        }
        self.restarts += 1;
        None
    }

    fn silence(&mut self, now: Duration) -> Step {
        let Some(call) = self.current() else { return self.finish() };
        // An ECU that said "pending" has the request; sending it again could start it twice.
        let has_request = self.exchange.pending_until.is_some();
        if has_request || self.exchange.silences >= self.settings.timers.silence_repeats {
            return self.fail(Failure::Silent { call });
        }
        self.exchange.silences += 1;
        if call == Call::TransferBlocks {
            self.transfer.repeated_after_silence();
        }
        self.repeat(now)
    }
}

/// The data record of an answer to a single identifier.
fn record_of<'a>(response: &Response<'a>) -> &'a [u8] {
    let Response::ReadDataByIdentifier(read) = response else { return &[] };
    read.records.get(2..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
