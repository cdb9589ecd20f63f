use std::time::Duration;

use bytes::BytesMut;

use crate::uds::{Answer, Decode, Expected, Request};
use crate::{
    Identification, IdentificationField, Identifiers, Running, SecurityAlgorithm, Sequence, Settings, Step,
    Timers, WriteJob,
};

/// The image that is written, in bytes.
const IMAGE: u64 = 600;

/// More steps than the bounds of a sequence allow: restarts, each with all its calls, repeats and blocks.
const MOST_REQUESTS: usize = 20_000;

/// The first octet chooses the sequence; then what happens, an octet each: the answer that fits, time that passes, a
/// lost connection, or an answer of so many octets, which follow.
///
/// - what is sent is a request that UDS knows, and ends: by its success, its failure, or the time;
/// - the blocks of an image are asked for in order, without gaps, and within the image;
/// - a write that is finished has written every byte.
pub fn uds_answers(data: &[u8]) {
    let Some((kind, mut rest)) = data.split_first() else { return };
    let settings = Settings {
        identifiers: Identifiers::default(),
        timers: Timers { max_block_length: 130, ..Timers::default() },
        security: SecurityAlgorithm::InsecureXorA5ForSimulatorsOnly,
    };
    let mut tester = Tester::new(kind % 8, &settings);
    while tester.is_going_on() {
        let Some((what, later)) = rest.split_first() else { break };
        rest = later;
        match what {
            0..=99 => tester.fitting_answer(),
            100..=149 => tester.time_passes(Duration::from_millis(1 << ((what - 100) / 3))),
            150..=154 => tester.connection_lost(),
            155.. => {
                let (answer, later) = rest.split_at(rest.len().min(usize::from(what - 155)));
                rest = later;
                tester.answer(answer);
            }
        }
    }
    tester.silence_until_the_end();
}

struct Tester {
    sequence: Sequence,
    is_write: bool,
    reads: bool,
    now: Duration,
    until: Duration,
    /// What was sent last, as it stands in the buffer.
    out: BytesMut,
    requests: usize,
    asked_up_to: u64,
    ended: bool,
}

impl Tester {
    fn new(kind: u8, settings: &Settings) -> Self {
        let job = WriteJob {
            size: IMAGE,
            sha256: [7; 32],
            version: "2.0".to_owned(),
            hw_part_no: "HW-1".to_owned(),
        };
        let sequence = match kind {
            0 => Sequence::read(settings, &Running::identifiers(&settings.identifiers)),
            1 => Sequence::check_preconditions(settings),
            2 => Sequence::activate(settings),
            3 => Sequence::reset(settings),
            4 => Sequence::confirm(settings),
            5 => Sequence::roll_back(settings),
            6.. => Sequence::write(settings, job),
        };
        let mut tester = Self {
            sequence,
            is_write: kind >= 6,
            reads: kind == 0,
            now: Duration::ZERO,
            until: Duration::ZERO,
            out: BytesMut::new(),
            requests: 0,
            asked_up_to: 0,
            ended: false,
        };
        let step = tester.sequence.start(tester.now, &mut tester.out);
        tester.carry_out(step);
        tester
    }

    fn is_going_on(&self) -> bool {
        !self.ended
    }

    fn answer(&mut self, received: &[u8]) {
        let step = self.sequence.on_answer(self.now, received, &mut self.out);
        self.carry_out(step);
    }

    /// What an ECU would say that does all it is asked for.
    fn fitting_answer(&mut self) {
        let mut answer = self.out.to_vec();
        answer[0] |= 0x40;
        match self.out[0] {
            0x10 => answer.extend([0, 50, 1, 0xF4]),
            0x22 => answer.extend(b"HW-1"),
            0x27 if self.out[1] % 2 == 1 => answer.extend([1, 2, 3, 4]),
            0x2E => answer.truncate(3),
            0x31 => answer.truncate(4),
            0x34 => answer = vec![0x74, 0x20, 0x01, 0x00],
            _ => answer.truncate(2),
        }
        self.answer(&answer);
    }

    fn time_passes(&mut self, time: Duration) {
        self.now += time;
        let step = self.sequence.on_time(self.now, &mut self.out);
        self.carry_out(step);
    }

    fn connection_lost(&mut self) {
        let step = self.sequence.on_connection_lost(self.now);
        self.carry_out(step);
    }

    fn silence_until_the_end(&mut self) {
        for _ in 0..MOST_REQUESTS {
            if self.ended {
                return;
            }
            self.now = self.now.max(self.until);
            let step = self.sequence.on_time(self.now, &mut self.out);
            self.carry_out(step);
        }
        panic!("the sequence does not end by silence");
    }

    fn carry_out(&mut self, mut step: Step) {
        loop {
            match step {
                Step::Send { answer_by } | Step::Repeat { answer_by } => {
                    self.sent();
                    return self.wait(answer_by);
                }
                Step::Await { answer_by: until } | Step::Pause { until } => return self.wait(until),
                Step::AppendBlock { offset, length } => {
                    self.block(offset, length);
                    step = self.sequence.on_block(self.now, &self.out);
                }
                Step::Finished => return self.finished(),
                Step::Failed(failure) => {
                    assert!(failure.to_string().len() < 4096);
                    self.ended = true;
                    return;
                }
            }
        }
    }

    fn sent(&mut self) {
        self.requests += 1;
        assert!(self.requests < MOST_REQUESTS, "the sequence does not end");
        let (request, _) = Request::decode(&self.out).unwrap();
        assert_ne!(request.is_positive_response_suppressed(), Some(true));
        let refusal = [0x7F, self.out[0], 0x10];
        assert!(matches!(Expected::for_request(&self.out).classify(&refusal), Answer::Negative(_)));
    }

    fn wait(&mut self, until: Duration) {
        assert!(until >= self.now, "it waits for the past");
        assert!(until <= self.now + Duration::from_secs(200), "it waits too long");
        self.until = until;
    }

    fn block(&mut self, offset: u64, length: usize) {
        let end = offset + length as u64;
        assert!(length > 0 && end <= IMAGE, "{offset}, {length}");
        assert!(offset <= self.asked_up_to, "a gap before {offset}");
        assert_eq!(offset, self.sequence.bytes_written());
        self.asked_up_to = self.asked_up_to.max(end);
        assert_eq!(self.out.len(), 2);
        self.out.extend(std::iter::repeat_n(0xAB, length));
        assert!(self.out.len() <= 130);
    }

    fn finished(&mut self) {
        self.ended = true;
        if self.is_write {
            assert_eq!(self.sequence.bytes_written(), IMAGE);
        }
        if self.reads {
            let records = self.sequence.records();
            assert_eq!(records.len(), Running::identifiers(&Identifiers::default()).len());
            let _ = Running::from_records(records);
            let fields = [IdentificationField::SwVersion];
            let _ = Identification::from_records(&fields, records);
        }
    }
}
