use super::*;
use crate::settings::{Identifiers, SecurityAlgorithm, Timers};
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        identifiers: Identifiers::default(),
        timers: Timers::default(),
        security: SecurityAlgorithm::InsecureXorA5ForSimulatorsOnly,
    }
}

fn job(size: u64) -> WriteJob {
    WriteJob { size, sha256: [7; 32], version: "2.0".into(), hw_part_no: "HW-1".into() }
}

/// A conversation whose ECU side is written by the test.
struct Talk {
    sequence: Sequence,
    now: Duration,
    out: BytesMut,
    /// Every request that was sent, repeats too.
    sent: Vec<Vec<u8>>,
    step: Step,
}

impl Talk {
    fn start(mut sequence: Sequence) -> Self {
        let mut out = BytesMut::new();
        let step = sequence.start(Duration::ZERO, &mut out);
        Self { sequence, now: Duration::ZERO, out, sent: Vec::new(), step }.settled()
    }

    /// Supplies blocks and notes what is sent.
    fn settled(mut self) -> Self {
        if let Step::AppendBlock { length, .. } = self.step {
            self.out.put_bytes(0xAB, length);
            self.step = self.sequence.on_block(self.now, &self.out);
        }
        if matches!(self.step, Step::Send { .. } | Step::Repeat { .. }) {
            self.sent.push(self.out.to_vec());
        }
        self
    }

    fn answer(mut self, bytes: &[u8]) -> Self {
        self.step = self.sequence.on_answer(self.now, bytes, &mut self.out);
        self.settled()
    }

    fn refuse(self, code: u8) -> Self {
        let service = self.last()[0];
        self.answer(&[0x7F, service, code])
    }

    fn wait(mut self, time: Duration) -> Self {
        self.now += time;
        self.step = self.sequence.on_time(self.now, &mut self.out);
        self.settled()
    }

    fn last(&self) -> &[u8] {
        self.sent.last().unwrap()
    }

    /// Answers each request as a willing ECU does, until `stop` is to be sent.
    fn agree_until(mut self, stop: &[u8]) -> Self {
        for _ in 0..1000 {
            if self.last().starts_with(stop) || matches!(self.step, Step::Finished) {
                return self;
            }
            let answer = willing(self.last());
            self = self.answer(&answer);
        }
        panic!("{stop:02X?} was never sent")
    }

    fn failure(self) -> Failure {
        let Step::Failed(failure) = self.step else { panic!("expected a failure, found {:?}", self.step) };
        failure
    }
}

/// What a willing ECU answers; blocks carry 8 bytes.
fn willing(request: &[u8]) -> Vec<u8> {
    match request {
        [0x10, session] => vec![0x50, *session, 0x00, 0x32, 0x01, 0xF4],
        [0x22, 0xF1, 0x91] => b"\x62\xF1\x91HW-1".to_vec(),
        [0x22, high, low] => vec![0x62, *high, *low, b'x'],
        [0x27, 0x11] => vec![0x67, 0x11, 1, 2, 3, 4],
        [0x27, 0x12, ..] => vec![0x67, 0x12],
        [0x2E, high, low, ..] => vec![0x6E, *high, *low],
        [0x31, 1, high, low, ..] => vec![0x71, 1, *high, *low, 0],
        [0x34, ..] => vec![0x74, 0x20, 0x00, 0x0A],
        [0x36, counter, ..] => vec![0x76, *counter],
        [service, second, ..] => vec![service + 0x40, *second],
        [service] => vec![service + 0x40],
        [] => vec![],
    }
}

fn writing(size: u64) -> Talk {
    Talk::start(Sequence::write(&settings(), job(size)))
}

#[test]
fn writing_asks_for_everything_in_the_order_of_the_table() {
    let talk = writing(20).agree_until(&[0xFF]);
    assert!(matches!(talk.step, Step::Finished));
    let mut check_memory = vec![0x31, 0x01, 0x02, 0x02];
    check_memory.extend([7; 32]);
    let expected: Vec<Vec<u8>> = vec![
        vec![0x10, 0x03],
        vec![0x22, 0xF1, 0x91],
        vec![0x31, 0x01, 0x02, 0x03],
        vec![0x10, 0x02],
        vec![0x27, 0x11],
        vec![0x27, 0x12, 1 ^ 0xA5, 2 ^ 0xA5, 3 ^ 0xA5, 4 ^ 0xA5],
        b"\x2E\xF1\x842.0".to_vec(),
        vec![0x31, 0x01, 0xFF, 0x00],
        vec![0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 0, 20],
        [&[0x36, 1][..], &[0xAB; 8]].concat(),
        [&[0x36, 2][..], &[0xAB; 8]].concat(),
        [&[0x36, 3][..], &[0xAB; 4]].concat(),
        vec![0x37],
        check_memory,
        vec![0x31, 0x01, 0xFF, 0x01],
    ];
    assert_eq!(talk.sent, expected);
    assert_eq!(talk.sequence.bytes_written(), 20);
    assert!(!talk.sequence.session_is_open());
}

#[test]
fn the_short_sequences_ask_what_the_table_says() {
    let requests = |sequence| Talk::start(sequence).agree_until(&[0xFF]).sent;
    let key = vec![0x27, 0x12, 1 ^ 0xA5, 2 ^ 0xA5, 3 ^ 0xA5, 4 ^ 0xA5];
    let unlock = [vec![0x10, 0x03], vec![0x27, 0x11], key];
    let settings = settings();
    assert_eq!(requests(Sequence::reset(&settings)), [vec![0x10, 0x03], vec![0x11, 0x01]]);
    assert_eq!(
        requests(Sequence::check_preconditions(&settings)),
        [vec![0x10, 3], vec![0x31, 0x01, 0x02, 0x03]]
    );
    let confirm = [&unlock[..], &[vec![0x31, 0x01, 0x03, 0x02]]].concat();
    assert_eq!(requests(Sequence::confirm(&settings)), confirm);
    let roll_back = [&unlock[..], &[vec![0x31, 0x01, 0x03, 0x03]]].concat();
    assert_eq!(requests(Sequence::roll_back(&settings)), roll_back);
    let quiet = [vec![0x85, 0x02], vec![0x28, 0x03, 0x01], vec![0x31, 0x01, 0x03, 0x01]];
    assert_eq!(requests(Sequence::activate(&settings)), [&unlock[..], &quiet].concat());
}

#[test]
fn reading_keeps_the_records_in_order_and_opens_no_session() {
    let talk = Talk::start(Sequence::read(&settings(), &[0xF189, 0xF18A]));
    assert!(!talk.sequence.session_is_open());
    let talk = talk.answer(b"\x62\xF1\x892.0").answer(b"\x62\xF1\x8ASUP");
    assert!(matches!(talk.step, Step::Finished));
    assert_eq!(talk.sequence.records(), [b"2.0".to_vec(), b"SUP".to_vec()]);
}

#[test]
fn another_hardware_is_found_before_anything_is_erased() {
    let talk = writing(20).agree_until(&[0x22]).answer(b"\x62\xF1\x91HW-2");
    assert!(!talk.sent.iter().any(|request| request[0] == 0x31 || request == &[0x10, 0x02]));
    assert!(matches!(talk.failure(), Failure::HardwareMismatch { found, .. } if found == "HW-2"));
}

#[test]
fn response_pending_is_waited_for_until_the_cap() {
    let mut talk = writing(20).agree_until(&[0x31, 0x01, 0xFF, 0x00]);
    for _ in 0..30 {
        talk = talk.refuse(0x78);
        assert!(matches!(talk.step, Step::Await { .. }));
        talk = talk.wait(4 * SECOND - Duration::from_millis(1));
    }
    // 119.97 s: an erase has 120 s, any other call 30 s.
    talk.now += SECOND;
    assert!(
        matches!(talk.refuse(0x78).failure(), Failure::PendingTooLong { cap, .. } if cap == 120 * SECOND)
    );

    let mut talk = writing(20).agree_until(&[0x31, 0x01, 0x02, 0x02]).refuse(0x78);
    talk.now += 30 * SECOND;
    assert!(matches!(talk.refuse(0x78).failure(), Failure::PendingTooLong { cap, .. } if cap == 30 * SECOND));
}

#[test]
fn an_ecu_that_goes_silent_after_response_pending_is_not_asked_again() {
    let talk = writing(20).agree_until(&[0x31, 0x01, 0xFF, 0x00]).refuse(0x78);
    let asked = talk.sent.len();
    let talk = talk.wait(8 * SECOND);
    assert_eq!(talk.sent.len(), asked);
    assert!(matches!(talk.failure(), Failure::Silent { .. }));
}

#[test]
fn a_busy_ecu_is_asked_again_ten_times_at_doubling_distances() {
    let mut talk = writing(20).agree_until(&[0x34]);
    let request = talk.last().to_vec();
    for repeat in 0..10 {
        talk = talk.refuse(0x21);
        let wait = Duration::from_millis(100) * 2_u32.pow(repeat);
        assert!(matches!(talk.step, Step::Pause { until } if until == talk.now + wait));
        talk = talk.wait(wait);
        assert_eq!(talk.last(), request);
    }
    assert!(matches!(talk.refuse(0x21).failure(), Failure::Busy { repeats: 10, .. }));
}

#[test]
fn a_wrong_counter_leads_to_a_repeat_and_then_to_a_new_download() {
    let talk = writing(20).agree_until(&[0x36, 2]).refuse(0x73);
    assert_eq!(talk.last()[..2], [0x36, 2]);
    let talk = talk.refuse(0x73);
    assert_eq!(talk.last()[0], 0x34);
    let talk = talk.answer(&[0x74, 0x20, 0x00, 0x0A]);
    assert_eq!(talk.last()[..2], [0x36, 1]);
    assert_eq!(talk.sequence.bytes_written(), 0);
}

#[test]
fn a_wrong_counter_after_a_lost_answer_means_that_the_block_arrived() {
    let talk = writing(20).agree_until(&[0x36, 2]).wait(3 * SECOND);
    assert_eq!(talk.last()[..2], [0x36, 2]);
    assert_eq!(talk.refuse(0x73).last()[..2], [0x36, 3]);
}

#[test]
fn a_late_second_acknowledgement_of_a_block_changes_nothing() {
    let talk = writing(20).agree_until(&[0x36, 2]).wait(3 * SECOND).answer(&[0x76, 2]);
    assert_eq!(talk.last()[..2], [0x36, 3]);
    let talk = talk.answer(&[0x76, 2]);
    assert!(matches!(talk.step, Step::Await { .. }));
    assert_eq!(talk.sequence.bytes_written(), 16);
}

#[test]
fn a_sequence_error_restarts_at_the_programming_session() {
    let talk = writing(20).agree_until(&[0x36, 2]).refuse(0x24);
    assert_eq!(talk.last(), [0x10, 0x02]);
}

#[test]
fn a_lost_session_restarts_at_the_first_session() {
    for code in [0x7E, 0x7F] {
        assert_eq!(writing(20).agree_until(&[0x36, 2]).refuse(code).last(), [0x10, 0x03]);
    }
}

#[test]
fn restarts_come_to_an_end() {
    let mut talk = writing(20);
    for _ in 0..3 {
        talk = talk.agree_until(&[0x37]).refuse(0x24);
        assert_eq!(talk.last(), [0x10, 0x02]);
    }
    assert!(matches!(talk.agree_until(&[0x37]).refuse(0x24).failure(), Failure::GaveUp { restarts: 3, .. }));
}

#[test]
fn wrong_conditions_are_waited_for_within_the_bound() {
    for code in [0x22, 0x92, 0x93] {
        let mut talk = writing(20).agree_until(&[0x31, 0x01, 0x02, 0x03]);
        for _ in 0..30 {
            talk = talk.refuse(code).wait(SECOND);
            assert_eq!(talk.last(), [0x31, 0x01, 0x02, 0x03]);
        }
        assert!(matches!(talk.refuse(code).failure(), Failure::NotReady { .. }));
    }
}

#[test]
fn a_precondition_result_other_than_zero_is_asked_again() {
    let talk = writing(20).agree_until(&[0x31, 0x01, 0x02, 0x03]).answer(&[0x71, 0x01, 0x02, 0x03, 0x01]);
    assert!(matches!(talk.step, Step::Pause { .. }));
    assert_eq!(talk.wait(SECOND).last(), [0x31, 0x01, 0x02, 0x03]);
}

#[test]
fn a_security_refusal_is_tried_once_more_after_the_delay_and_never_again() {
    for code in 0x33..=0x37 {
        let talk = writing(20).agree_until(&[0x27, 0x12]).refuse(code);
        assert!(matches!(talk.step, Step::Pause { until } if until == 10 * SECOND));
        let talk = talk.wait(10 * SECOND);
        assert_eq!(talk.last(), [0x27, 0x11]);
        assert!(matches!(talk.refuse(code).failure(), Failure::Refused { .. }));
    }
}

#[test]
fn what_cannot_be_helped_fails_this_ecu_at_once() {
    for code in [0x31, 0x70, 0x71, 0x72, 0x10] {
        let failure = writing(20).agree_until(&[0x36, 2]).refuse(code).failure();
        assert!(matches!(failure, Failure::Refused { call: Call::TransferBlocks, .. }), "{code:#04X}");
    }
}

#[test]
fn a_silent_ecu_is_asked_three_times() {
    let mut talk = writing(20);
    for _ in 0..2 {
        talk = talk.wait(3 * SECOND);
    }
    assert_eq!(talk.sent, vec![vec![0x10, 0x03]; 3]);
    assert!(matches!(talk.wait(3 * SECOND).failure(), Failure::Silent { .. }));
}

#[test]
fn a_lost_connection_begins_again_and_not_for_ever() {
    let mut talk = writing(20);
    for _ in 0..3 {
        talk = talk.agree_until(&[0x36, 2]);
        talk.step = talk.sequence.on_connection_lost(talk.now);
        assert!(!talk.sequence.session_is_open());
        talk = talk.wait(SECOND);
        assert_eq!(talk.last(), [0x10, 0x03]);
    }
    talk.step = talk.sequence.on_connection_lost(talk.now);
    assert!(matches!(talk.failure(), Failure::GaveUp { cause: RestartCause::ConnectionLost, .. }));
}

#[test]
fn a_reset_that_takes_the_connection_with_it_is_done() {
    let mut talk = Talk::start(Sequence::reset(&settings())).agree_until(&[0x11]);
    assert!(matches!(talk.sequence.on_connection_lost(talk.now), Step::Finished));
}

#[test]
fn a_zero_seed_means_that_the_ecu_is_unlocked() {
    let talk =
        Talk::start(Sequence::confirm(&settings())).agree_until(&[0x27]).answer(&[0x67, 0x11, 0, 0, 0, 0]);
    assert_eq!(talk.last(), [0x31, 0x01, 0x03, 0x02]);
}

#[test]
fn a_failed_check_of_the_memory_names_the_routine() {
    let talk = writing(20).agree_until(&[0x31, 0x01, 0x02, 0x02]).answer(&[0x71, 0x01, 0x02, 0x02, 0x01]);
    assert!(matches!(talk.failure(), Failure::RoutineFailed { routine: Routine::CheckMemory, .. }));
}

#[test]
fn a_block_length_that_leaves_no_room_for_data_is_refused() {
    let talk = writing(20).agree_until(&[0x34]).answer(&[0x74, 0x10, 0x02]);
    assert!(matches!(talk.failure(), Failure::UnexpectedAnswer { call: Call::RequestDownload, .. }));
}

#[test]
fn a_block_is_never_longer_than_the_tester_sends() {
    let talk = writing(200_000).agree_until(&[0x34]).answer(&[0x74, 0x40, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(talk.last().len(), 0xFFFF);
}

#[test]
fn an_image_or_version_that_cannot_be_written_is_found_before_the_first_request() {
    for size in [0, 1 << 32] {
        assert!(matches!(writing(size).failure(), Failure::ImageSize { .. }));
    }
    for version in ["", "2.0\n", "2.0é"] {
        let talk = Talk::start(Sequence::write(&settings(), WriteJob { version: version.into(), ..job(20) }));
        assert!(talk.sent.is_empty());
        assert!(matches!(talk.failure(), Failure::VersionText { .. }));
    }
}

proptest! {
    #[test]
    fn no_answer_whatever_makes_a_sequence_panic_or_run_for_ever(
        answers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..60),
        honest in proptest::collection::vec(any::<bool>(), 60),
    ) {
        let mut talk = writing(100);
        for (answer, honest) in answers.iter().zip(honest) {
            let answer = if honest { willing(talk.last()) } else { answer.clone() };
            talk = talk.answer(&answer).wait(SECOND);
        }
        // Whatever was said, silence ends it.
        for _ in 0..200 {
            talk = talk.wait(60 * SECOND);
        }
        prop_assert!(matches!(talk.step, Step::Finished | Step::Failed(_)));
    }
}
