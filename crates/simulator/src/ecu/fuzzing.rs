#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use std::sync::atomic::{AtomicU64, Ordering};

use farrier_diagnostics::SecurityAlgorithm;
use farrier_diagnostics::doip::MAX_UDS_LENGTH;
use farrier_diagnostics::uds::{Answer, Expected};

use super::*;

const FACTORY: &str = "1.0";

/// Requests to an ECU, each after an octet with its length; the length 0 stands for the key that fits the last seed,
/// 254 for all that is left, 255 for a loss of power.
///
/// - every request gets at most one answer beside "pending", and the gateway takes it for the answer to it;
/// - the running bank can be booted, and holds the factory's software or one that was written and verified;
/// - the software changes by a restart only.
pub fn uds_requests(data: &[u8]) {
    static RUN: AtomicU64 = AtomicU64::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("farrier-uds-{}-{run}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(Bench::new(&folder).play(data));
    std::fs::remove_dir_all(folder).unwrap();
}

struct Bench {
    ecu: Ecu,
    answers: mpsc::Sender<EcuAnswer>,
    received: mpsc::Receiver<EcuAnswer>,
    seed: Vec<u8>,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let at_once = EcuTiming {
            erase_ms: 0,
            block_ms: 0,
            reboot_ms: 0,
            security_delay_ms: 0,
            session_ms: 60_000,
            trial_boots: 2,
            ..EcuTiming::default()
        };
        let config = EcuConfig {
            ecu_id: "ecu_001".to_owned(),
            logical_address: 0x1010,
            supplier_code: "1234".to_owned(),
            hw_part_no: "HW-1".to_owned(),
            sw_part_no: "SW-1".to_owned(),
            sw_version: FACTORY.to_owned(),
            bootloader_ver: "BL-1".to_owned(),
            calibration_id: "CAL-1".to_owned(),
            timing: at_once,
            faults: Faults::default(),
        };
        let (answers, received) = mpsc::channel(64);
        Self { ecu: Ecu::power_up(config, folder).unwrap(), answers, received, seed: Vec::new() }
    }

    async fn play(mut self, mut data: &[u8]) {
        while let Some((length, rest)) = data.split_first() {
            data = rest;
            match length {
                255 => {
                    self.ecu.lose_power().await;
                    self.ecu.start_again();
                }
                0 => {
                    let key = SecurityAlgorithm::InsecureXorA5ForSimulatorsOnly.key(&self.seed);
                    self.ask(&[&[0x27, 0x12], key.as_slice()].concat()).await;
                }
                1.. => {
                    let length = if *length == 254 { rest.len() } else { rest.len().min((*length).into()) };
                    let (request, rest) = rest.split_at(length);
                    data = rest;
                    self.ask(request).await;
                }
            }
            assert!(self.ecu.banks.running().valid && !self.ecu.banks.running().version.is_empty());
        }
    }

    async fn ask(&mut self, request: &[u8]) {
        let before = self.ecu.banks.running().clone();
        let data = request.to_vec();
        self.ecu.serve(EcuRequest { data, tester: 0x0E80, answers: self.answers.clone() }).await;
        let mut finals = Vec::new();
        while let Ok(answer) = self.received.try_recv() {
            if !matches!(answer.data.as_ref(), [0x7F, _, 0x78]) {
                finals.push(answer.data);
            }
        }
        assert!(finals.len() <= 1, "{request:02X?} is answered by {finals:02X?}");
        let answer = finals.first().map(|answer| answer.as_ref()).unwrap_or_default();
        let restarted = matches!((request, answer), ([0x11, ..], [] | [0x51, ..]));
        assert!(restarted || *self.ecu.banks.running() == before, "{request:02X?} changes what runs");
        if finals.is_empty() {
            return;
        }
        assert!(answer.len() <= MAX_UDS_LENGTH, "{} octets answer {request:02X?}", answer.len());
        match Expected::for_request(request).classify(answer) {
            Answer::Positive(_) => {
                assert_eq!(request[1..].first().map_or(0, |sub| sub & 0x80) & suppressible(request[0]), 0)
            }
            Answer::Negative(_) => {}
            Answer::Foreign | Answer::Malformed => panic!("{request:02X?} is answered by {answer:02X?}"),
        }
        if let [0x67, 0x11, seed @ ..] = answer {
            self.seed = seed.to_vec();
        }
    }
}

/// The bit that asks for no positive answer, in services with a sub-function.
fn suppressible(service: u8) -> u8 {
    if matches!(service, 0x10 | 0x11 | 0x27 | 0x28 | 0x31 | 0x3E | 0x85) { 0x80 } else { 0 }
}
