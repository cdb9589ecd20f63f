use super::*;
use std::fs;

const TESTER: u16 = 0x0E80;

fn config() -> EcuConfig {
    EcuConfig {
        ecu_id: "ecu_001".into(),
        logical_address: 0x1010,
        supplier_code: "1234".into(),
        hw_part_no: "HW-1".into(),
        sw_part_no: "SW-1".into(),
        sw_version: "1.0".into(),
        bootloader_ver: "BL-1".into(),
        calibration_id: "CAL-1".into(),
        timing: EcuTiming::default(),
        faults: Faults::default(),
    }
}

/// A tester at the ECU's own queue; the test's clock stands still unless it sleeps.
struct Bench {
    requests: mpsc::Sender<EcuRequest>,
    answers: mpsc::Receiver<EcuAnswer>,
    to_answers: mpsc::Sender<EcuAnswer>,
    handle: EcuHandle,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn new(config: EcuConfig) -> Self {
        Self::in_folder(config, tempfile::tempdir().unwrap())
    }

    fn in_folder(config: EcuConfig, folder: tempfile::TempDir) -> Self {
        let (requests, handle, task) = Ecu::power_up(config, folder.path()).unwrap().run();
        let (to_answers, answers) = mpsc::channel(64);
        Self { requests, answers, to_answers, handle, folder, task: tokio::spawn(task) }
    }

    /// Cuts the power and switches it on again.
    async fn power_cycle(self, config: EcuConfig) -> Self {
        self.task.abort();
        let _ = self.task.await;
        Self::in_folder(config, self.folder)
    }

    async fn send(&self, data: &[u8]) {
        let request = EcuRequest { data: data.to_vec(), tester: TESTER, answers: self.to_answers.clone() };
        self.requests.send(request).await.unwrap();
    }

    /// Asks in vain.
    async fn silence(&mut self, data: &[u8]) {
        self.send(data).await;
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.recv()).await;
        assert!(answer.is_err(), "{data:02X?} was answered with {answer:02X?}");
    }

    async fn power_cut_and_restored(&self) {
        self.handle.cut_power().await;
        self.handle.restore_power().await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }

    /// The final answer to a request.
    async fn ask(&mut self, data: &[u8]) -> Vec<u8> {
        self.send(data).await;
        loop {
            let answer = self.answers.recv().await.unwrap().data;
            if answer.as_ref() != [0x7F, data[0], 0x78] {
                return answer.to_vec();
            }
        }
    }

    async fn refused(&mut self, data: &[u8]) -> u8 {
        match self.ask(data).await.as_slice() {
            [0x7F, service, code] if *service == data[0] => *code,
            other => panic!("expected a refusal of {data:02X?}, found {other:02X?}"),
        }
    }

    async fn accepted(&mut self, data: &[u8]) -> Vec<u8> {
        let answer = self.ask(data).await;
        assert_eq!(answer[0], data[0] + 0x40, "{data:02X?} was answered with {answer:02X?}");
        answer
    }

    async fn unlock(&mut self) {
        let seed = self.accepted(&[0x27, 0x11]).await;
        let key: Vec<u8> = seed[2..].iter().map(|byte| byte ^ 0xA5).collect();
        self.accepted(&[&[0x27, 0x12], key.as_slice()].concat()).await;
    }

    /// Up to the point at which blocks can be sent.
    async fn begin_download(&mut self, version: &[u8], size: u32) {
        self.accepted(&[0x10, 0x03]).await;
        self.accepted(&[0x10, 0x02]).await;
        self.unlock().await;
        self.accepted(&[&[0x2E, 0xF1, 0x84], version].concat()).await;
        self.accepted(&[0x31, 0x01, 0xFF, 0x00]).await;
        let size = size.to_be_bytes();
        self.accepted(&[&[0x34, 0x00, 0x44, 0, 0, 0, 0], size.as_slice()].concat()).await;
    }

    async fn write(&mut self, version: &[u8], image: &[u8]) {
        self.begin_download(version, image.len() as u32).await;
        self.accepted(&[&[0x36, 1], image].concat()).await;
        self.accepted(&[0x37]).await;
        assert_eq!(self.check_memory(image).await, 0);
    }

    async fn check_memory(&mut self, image: &[u8]) -> u8 {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, image);
        let answer = self.accepted(&[&[0x31, 0x01, 0x02, 0x02], digest.as_ref()].concat()).await;
        answer[4]
    }

    async fn unlocked_routine(&mut self, number: u16) {
        self.accepted(&[0x10, 0x03]).await;
        self.unlock().await;
        let [high, low] = number.to_be_bytes();
        self.accepted(&[0x31, 0x01, high, low]).await;
    }

    async fn reset(&mut self) {
        self.accepted(&[0x11, 0x01]).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }

    /// Version, active bank, version of the other bank, trial state.
    async fn running(&mut self) -> (String, u8, String, u8) {
        let version = self.accepted(&[0x22, 0xF1, 0x89]).await;
        let bank = self.accepted(&[0x22, 0xF1, 0xA0]).await;
        let other = self.accepted(&[0x22, 0xF1, 0xA1]).await;
        let trial = self.accepted(&[0x22, 0xF1, 0xA2]).await;
        let text = |record: &[u8]| String::from_utf8(record[3..].to_vec()).unwrap().replace('\0', "");
        (text(&version), bank[3], text(&other), trial[3])
    }
}

fn running(version: &str, bank: u8, other: &str, trial: u8) -> (String, u8, String, u8) {
    (version.into(), bank, other.into(), trial)
}

#[tokio::test(start_paused = true)]
async fn a_reserved_sub_function_of_tester_present_is_refused() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.accepted(&[0x3E, 0x00]).await, [0x7E, 0x00]);
    assert_eq!(bench.refused(&[0x3E, 0x35]).await, 0x12);
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_no_answer_can_carry_is_refused() {
    let mut bench = Bench::new(config());
    let identifiers = |count| [vec![0x22], [0xF1, 0x91].repeat(count)].concat();
    // Each record has two bytes of identifier and the four of "HW-1".
    let most = (0xFFFF - 1) / 6;
    assert_eq!(bench.accepted(&identifiers(most)).await.len(), 1 + most * 6);
    assert_eq!(bench.refused(&identifiers(most + 1)).await, 0x14);
}

#[tokio::test(start_paused = true)]
async fn every_inventory_field_can_be_read_in_the_default_session() {
    let mut ecu = Bench::new(config());
    let read = ecu.accepted(&[0x22, 0xF1, 0x8A, 0xF1, 0x91, 0xF1, 0x82]).await;
    assert_eq!(read, b"\x62\xF1\x8A1234\xF1\x91HW-1\xF1\x82\x01CAL-1");
    assert_eq!(ecu.refused(&[0x22, 0xF1, 0x99]).await, 0x31);
}

#[tokio::test(start_paused = true)]
async fn an_image_is_written_activated_confirmed_and_can_be_rolled_back() {
    let mut ecu = Bench::new(config());
    ecu.write(b"2.0", b"new software").await;
    assert_eq!(ecu.running().await, running("1.0", 0, "2.0", 0));
    assert_eq!(fs::read(ecu.folder.path().join("bank1.bin")).unwrap(), b"new software");

    ecu.unlocked_routine(0x0301).await;
    ecu.unlocked_routine(0x0301).await;
    assert_eq!(ecu.running().await, running("1.0", 0, "2.0", 0));
    ecu.reset().await;
    assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 1));

    ecu.unlocked_routine(0x0302).await;
    ecu.unlocked_routine(0x0302).await;
    assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 2));

    ecu.unlocked_routine(0x0303).await;
    ecu.unlocked_routine(0x0303).await;
    ecu.reset().await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
    ecu.unlocked_routine(0x0303).await;
    ecu.reset().await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
}

#[tokio::test(start_paused = true)]
async fn software_that_nobody_confirms_goes_back_after_its_time() {
    let mut ecu =
        Bench::new(EcuConfig { timing: EcuTiming { trial_s: 60, ..EcuTiming::default() }, ..config() });
    ecu.write(b"2.0", b"new software").await;
    ecu.unlocked_routine(0x0301).await;
    ecu.reset().await;
    tokio::time::sleep(Duration::from_secs(58)).await;
    assert_eq!(ecu.running().await.0, "2.0");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_reached_survives_a_power_cut() {
    let mut ecu = Bench::new(config());
    ecu.write(b"2.0", b"new software").await;
    let mut ecu = ecu.power_cycle(config()).await;
    assert_eq!(ecu.running().await, running("1.0", 0, "2.0", 0));
    ecu.unlocked_routine(0x0301).await;
    let mut ecu = ecu.power_cycle(config()).await;
    assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 1));
    ecu.unlocked_routine(0x0302).await;
    let mut ecu = ecu.power_cycle(config()).await;
    assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 2));
}

#[tokio::test(start_paused = true)]
async fn a_half_written_bank_is_never_booted() {
    let mut ecu = Bench::new(config());
    ecu.begin_download(b"2.0", 100).await;
    ecu.accepted(&[0x36, 1, 0xAA]).await;
    assert_eq!(ecu.refused(&[0x37]).await, 0x24);
    assert_eq!(ecu.refused(&[0x31, 0x01, 0x03, 0x01]).await, 0x24);
    let mut ecu = ecu.power_cycle(config()).await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_block_is_acknowledged_and_not_written_twice() {
    let mut ecu = Bench::new(config());
    ecu.begin_download(b"2.0", 4).await;
    assert_eq!(ecu.refused(&[0x36, 0, 9]).await, 0x73);
    assert_eq!(ecu.accepted(&[0x36, 1, 1, 2]).await, [0x76, 1]);
    assert_eq!(ecu.accepted(&[0x36, 1, 1, 2]).await, [0x76, 1]);
    assert_eq!(ecu.refused(&[0x36, 3, 9]).await, 0x73);
    assert_eq!(ecu.refused(&[0x36, 2, 3, 4, 5]).await, 0x71);
    ecu.accepted(&[0x36, 2, 3, 4]).await;
    ecu.accepted(&[0x37]).await;
    assert_eq!(ecu.check_memory(&[1, 2, 3, 4]).await, 0);
}

#[tokio::test(start_paused = true)]
async fn the_block_counter_goes_from_ff_to_00() {
    let mut ecu = Bench::new(config());
    ecu.begin_download(b"2.0", 300).await;
    for block in 1..=300_u32 {
        ecu.accepted(&[0x36, block as u8, block as u8]).await;
    }
    ecu.accepted(&[0x37]).await;
    let image: Vec<u8> = (1..=300_u32).map(|block| block as u8).collect();
    assert_eq!(ecu.check_memory(&image).await, 0);
}

#[tokio::test(start_paused = true)]
async fn another_checksum_leaves_the_bank_unbootable() {
    let mut ecu = Bench::new(config());
    ecu.begin_download(b"2.0", 3).await;
    ecu.accepted(&[0x36, 1, 1, 2, 3]).await;
    assert_eq!(ecu.refused(&[&[0x31, 0x01, 0x02, 0x02][..], &[0; 32]].concat()).await, 0x24);
    ecu.accepted(&[0x37]).await;
    assert_eq!(ecu.check_memory(&[1, 2, 4]).await, 1);
    assert_eq!(ecu.accepted(&[0x31, 0x01, 0xFF, 0x01]).await[4], 1);
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
}

#[tokio::test(start_paused = true)]
async fn software_on_trial_protects_its_way_back() {
    let mut ecu = Bench::new(config());
    ecu.write(b"2.0", b"new software").await;
    ecu.unlocked_routine(0x0301).await;
    ecu.reset().await;
    ecu.accepted(&[0x10, 0x03]).await;
    ecu.accepted(&[0x10, 0x02]).await;
    ecu.unlock().await;
    assert_eq!(ecu.refused(&[0x31, 0x01, 0xFF, 0x00]).await, 0x22);
}

#[tokio::test(start_paused = true)]
async fn programming_needs_its_session_and_a_key() {
    let mut ecu = Bench::new(config());
    assert_eq!(ecu.refused(&[0x10, 0x02]).await, 0x7E);
    assert_eq!(ecu.refused(&[0x27, 0x11]).await, 0x7F);
    ecu.accepted(&[0x10, 0x03]).await;
    assert_eq!(ecu.refused(&[0x31, 0x01, 0x03, 0x01]).await, 0x33);
    ecu.unlock().await;
    assert_eq!(ecu.refused(&[0x31, 0x01, 0xFF, 0x00]).await, 0x7F);
    ecu.accepted(&[0x10, 0x02]).await;
    assert_eq!(ecu.refused(&[0x31, 0x01, 0xFF, 0x00]).await, 0x33);
    ecu.unlock().await;
    assert_eq!(ecu.refused(&[0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 0, 1]).await, 0x24);
}

#[tokio::test(start_paused = true)]
async fn no_byte_is_written_outside_the_programming_session() {
    for leave in [&[0x10, 0x01][..], &[0x10, 0x03], &[0x11, 0x01]] {
        let mut ecu = Bench::new(config());
        ecu.accepted(&[0x10, 0x03]).await;
        ecu.accepted(&[0x10, 0x02]).await;
        ecu.unlock().await;
        ecu.accepted(&[0x2E, 0xF1, 0x84, b'2']).await;
        ecu.accepted(&[0x31, 0x01, 0xFF, 0x00]).await;
        ecu.accepted(&[0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 0, 4]).await;
        ecu.accepted(&[0x36, 1, 7, 7]).await;
        ecu.accepted(leave).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(ecu.refused(&[0x36, 2, 7, 7]).await, 0x7F, "{leave:02X?}");
        assert_eq!(ecu.refused(&[0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 0, 4]).await, 0x7F, "{leave:02X?}");
        assert_eq!(fs::read(ecu.folder.path().join("bank1.bin")).unwrap(), [7, 7], "{leave:02X?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_without_its_tester_and_tester_present_keeps_it() {
    let mut ecu = Bench::new(config());
    ecu.accepted(&[0x10, 0x03]).await;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        ecu.send(&[0x3E, 0x80]).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ecu.accepted(&[0x22, 0xF1, 0x86]).await[3], 3);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(ecu.accepted(&[0x22, 0xF1, 0x86]).await[3], 1);
}

#[tokio::test(start_paused = true)]
async fn three_wrong_keys_lock_the_ecu_for_a_while() {
    let mut ecu = Bench::new(config());
    ecu.accepted(&[0x10, 0x03]).await;
    for code in [0x35, 0x35, 0x36] {
        ecu.accepted(&[0x27, 0x11]).await;
        assert_eq!(ecu.refused(&[0x27, 0x12, 0, 0, 0, 0]).await, code);
    }
    assert_eq!(ecu.refused(&[0x27, 0x11]).await, 0x37);
    tokio::time::sleep(Duration::from_secs(11)).await;
    ecu.accepted(&[0x10, 0x03]).await;
    assert_eq!(ecu.refused(&[0x27, 0x12, 0, 0, 0, 0]).await, 0x24);
    ecu.unlock().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_erase_is_announced_as_pending_before_p2_star_ends() {
    let mut ecu =
        Bench::new(EcuConfig { timing: EcuTiming { erase_ms: 7_000, ..EcuTiming::default() }, ..config() });
    ecu.accepted(&[0x10, 0x03]).await;
    ecu.accepted(&[0x10, 0x02]).await;
    ecu.unlock().await;
    ecu.send(&[0x31, 0x01, 0xFF, 0x00]).await;
    let start = Instant::now();
    let mut pending = 0;
    let answer = loop {
        let answer = ecu.answers.recv().await.unwrap().data;
        if answer.as_ref() != [0x7F, 0x31, 0x78] {
            break answer;
        }
        pending += 1;
    };
    assert_eq!((pending, answer.as_ref()), (4, &[0x71, 0x01, 0xFF, 0x00, 0x00][..]));
    assert_eq!(start.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn faults_do_what_they_say() {
    let with = |faults| Bench::new(EcuConfig { faults, ..config() });

    let mut ecu = with(Faults { fails_write_at_byte: Some(2), ..Faults::default() });
    ecu.begin_download(b"2.0", 4).await;
    ecu.accepted(&[0x36, 1, 1, 2]).await;
    assert_eq!(ecu.refused(&[0x36, 2, 3, 4]).await, 0x72);

    let mut ecu = with(Faults { wrong_checksum: true, ..Faults::default() });
    ecu.begin_download(b"2.0", 1).await;
    ecu.accepted(&[0x36, 1, 7]).await;
    ecu.accepted(&[0x37]).await;
    assert_eq!(ecu.check_memory(&[7]).await, 1);

    let mut ecu = with(Faults { boots_into_old_bank: true, ..Faults::default() });
    ecu.write(b"2.0", b"new software").await;
    ecu.unlocked_routine(0x0301).await;
    ecu.reset().await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));

    let mut ecu = with(Faults { silent: true, ..Faults::default() });
    ecu.silence(&[0x22, 0xF1, 0x89]).await;
    ecu.handle.set_faults(Faults::default());
    ecu.accepted(&[0x22, 0xF1, 0x89]).await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_ecu_is_busy_as_often_as_it_was_told() {
    let mut ecu = Bench::new(config());
    ecu.handle.set_faults(Faults { busy_answers: 2, ..Faults::default() });
    assert_eq!(ecu.refused(&[0x10, 0x03]).await, 0x21);
    ecu.accepted(&[0x3E, 0x00]).await;
    assert_eq!(ecu.refused(&[0x10, 0x03]).await, 0x21);
    ecu.accepted(&[0x10, 0x03]).await;
    assert_eq!(ecu.handle.faults().busy_answers, 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_ecu_says_that_it_works_and_answers_later() {
    let mut ecu =
        Bench::new(EcuConfig { faults: Faults { slow_ms: 3_000, ..Faults::default() }, ..config() });
    let start = Instant::now();
    ecu.send(&[0x10, 0x03]).await;
    assert_eq!(ecu.answers.recv().await.unwrap().data, [0x7F, 0x10, 0x78][..]);
    assert_eq!(ecu.answers.recv().await.unwrap().data, [0x7F, 0x10, 0x78][..]);
    assert_eq!(ecu.answers.recv().await.unwrap().data[..2], [0x50, 0x03]);
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_roll_back_can_be_refused_a_number_of_times() {
    let mut ecu = Bench::new(config());
    ecu.write(b"2.0", b"new software").await;
    ecu.unlocked_routine(0x0301).await;
    ecu.reset().await;
    ecu.handle.set_faults(Faults { refuses_roll_back: 2, ..Faults::default() });
    ecu.accepted(&[0x10, 0x03]).await;
    ecu.unlock().await;
    assert_eq!(ecu.refused(&[0x31, 0x01, 0x03, 0x03]).await, 0x72);
    assert_eq!(ecu.refused(&[0x31, 0x01, 0x03, 0x03]).await, 0x72);
    ecu.accepted(&[0x31, 0x01, 0x03, 0x03]).await;
    ecu.reset().await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
}

#[tokio::test(start_paused = true)]
async fn a_block_whose_answer_was_lost_is_written_once() {
    let mut ecu = Bench::new(config());
    ecu.handle.set_faults(Faults { loses_answer_to_block: Some(2), ..Faults::default() });
    ecu.begin_download(b"2.0", 6).await;
    ecu.accepted(&[0x36, 1, 1, 2]).await;
    ecu.send(&[0x36, 2, 3, 4]).await;
    assert_eq!(ecu.accepted(&[0x36, 2, 3, 4]).await, [0x76, 2]);
    ecu.accepted(&[0x36, 3, 5, 6]).await;
    ecu.accepted(&[0x37]).await;
    assert_eq!(ecu.check_memory(&[1, 2, 3, 4, 5, 6]).await, 0);
}

#[tokio::test(start_paused = true)]
async fn power_lost_in_the_middle_of_a_block_leaves_half_of_it_and_no_session() {
    let mut ecu = Bench::new(config());
    ecu.handle.set_faults(Faults { loses_power_at_block: Some(2), ..Faults::default() });
    ecu.begin_download(b"2.0", 8).await;
    ecu.accepted(&[0x36, 1, 1, 2, 3, 4]).await;
    ecu.silence(&[0x36, 2, 5, 6, 7, 8]).await;
    assert_eq!(fs::read(ecu.folder.path().join("bank1.bin")).unwrap(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(ecu.refused(&[0x36, 2, 5, 6, 7, 8]).await, 0x7F);
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
    ecu.write(b"2.0", &[1, 2, 3, 4, 5, 6, 7, 8]).await;
}

#[tokio::test(start_paused = true)]
async fn power_lost_instead_of_an_answer_keeps_what_was_done() {
    let mut ecu = Bench::new(config());
    ecu.write(b"2.0", b"new software").await;
    ecu.accepted(&[0x10, 0x03]).await;
    ecu.unlock().await;
    ecu.handle.set_faults(Faults { loses_power_instead_of_answer: Some(2), ..Faults::default() });
    ecu.accepted(&[0x85, 0x02]).await;
    ecu.silence(&[0x31, 0x01, 0x03, 0x01]).await;
    assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 1));
}

#[tokio::test(start_paused = true)]
async fn an_ecu_without_power_is_silent_and_comes_back_from_what_it_had_saved() {
    let mut ecu = Bench::new(config());
    ecu.write(b"2.0", b"new software").await;
    ecu.unlocked_routine(0x0301).await;
    ecu.handle.cut_power().await;
    ecu.silence(&[0x22, 0xF1, 0x89]).await;
    ecu.handle.restore_power().await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 1));
    assert_eq!(ecu.accepted(&[0x22, 0xF1, 0x86]).await[3], 1);
}

#[tokio::test(start_paused = true)]
async fn power_cuts_on_trial_count_as_boots_and_end_it() {
    let timing = EcuTiming { trial_boots: 3, ..EcuTiming::default() };
    let mut ecu = Bench::new(EcuConfig { timing, ..config() });
    for _ in 0..10 {
        ecu.power_cut_and_restored().await;
    }
    ecu.write(b"2.0", b"new software").await;
    ecu.unlocked_routine(0x0301).await;
    for _ in 0..3 {
        ecu.power_cut_and_restored().await;
        assert_eq!(ecu.running().await, running("2.0", 1, "1.0", 1));
    }
    ecu.power_cut_and_restored().await;
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_in_the_middle_of_an_erase_leaves_nothing_to_write_to() {
    let timing = EcuTiming { erase_ms: 5_000, ..EcuTiming::default() };
    let mut ecu = Bench::new(EcuConfig { timing, ..config() });
    ecu.write(b"2.0", b"new software").await;
    ecu.send(&[0x31, 0x01, 0xFF, 0x00]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ecu.power_cut_and_restored().await;
    while ecu.answers.try_recv().is_ok() {}
    assert_eq!(ecu.running().await, running("1.0", 0, "", 0));
    ecu.accepted(&[0x10, 0x03]).await;
    ecu.accepted(&[0x10, 0x02]).await;
    ecu.unlock().await;
    ecu.accepted(b"\x2E\xF1\x842.0").await;
    assert_eq!(ecu.refused(&[0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 0, 1]).await, 0x24);
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_refused_with_the_code_of_the_standard() {
    let mut ecu = Bench::new(config());
    assert_eq!(ecu.refused(&[0x10]).await, 0x13);
    assert_eq!(ecu.refused(&[0x10, 0x55]).await, 0x12);
    assert_eq!(ecu.refused(&[0x22, 0xF1]).await, 0x13);
    assert_eq!(ecu.refused(&[0x19, 0x02, 0xFF]).await, 0x11);
    assert_eq!(ecu.refused(&[0xBA]).await, 0x11);
}
