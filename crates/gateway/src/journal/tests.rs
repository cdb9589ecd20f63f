//! The journal across restarts, damage of every kind, and two gateways at once.

use farrier_protocol::{
    ErrorCode, ErrorResponse, LongText, ProtoVer, ServerBody, ServerMessage, VehicleBody,
};
use farrier_vehicle_update::{Ending, Plan};

use super::*;

fn message(number: u32) -> VehicleMessage {
    VehicleMessage {
        msg_id: format!("VMG-{number}").parse().unwrap(),
        proto_ver: ProtoVer::CURRENT,
        vehicle_id: "VEH_001".parse().unwrap(),
        gateway_id: "CCU_001".parse().unwrap(),
        ts: UnixMillis(5),
        body: VehicleBody::ErrorResponse(ErrorResponse {
            correlation_id: format!("SRV-{number}").parse().unwrap(),
            code: ErrorCode::Busy,
            detail: LongText::beginning_of("later"),
            failed_ecus: None,
            pkg_ids: None,
            retry_after_s: Some(30),
        }),
    }
}

async fn take_in(journal: &Journal, number: u32) {
    let msg_id = format!("SRV-{number}").parse().unwrap();
    journal.take_in(msg_id, number.to_string().into_bytes(), UnixMillis(1)).await.unwrap()
}

#[tokio::test]
async fn boots_are_counted_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    for expected in 1..=3 {
        let journal = Journal::open(folder.path()).unwrap();
        assert_eq!(journal.count_boot().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_command_is_taken_in_once_and_stays_open_until_it_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    for number in [1, 2, 1] {
        take_in(&journal, number).await;
    }
    drop(journal);

    let journal = Journal::open(folder.path()).unwrap();
    let open = journal.open_commands().await.unwrap();
    assert_eq!(open.iter().map(|command| command.payload.as_slice()).collect::<Vec<_>>(), [b"1", b"2"]);
    journal.store(Entry { messages: vec![message(1)], ..Entry::default() }).await.unwrap();
    assert_eq!(journal.open_commands().await.unwrap().len(), 1);
    take_in(&journal, 1).await;
    assert_eq!(journal.open_commands().await.unwrap().len(), 1, "an answered command stays known");
}

#[tokio::test]
async fn a_message_is_sent_again_with_the_same_content_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let entry = Entry { messages: vec![message(1), message(2)], ..Entry::default() };
    journal.store(entry).await.unwrap();
    let first = journal.next_outgoing().await.unwrap().unwrap();
    drop(journal);

    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(journal.next_outgoing().await.unwrap(), Some(first.clone()));
    assert_eq!((first.topic, first.payload), (UpTopic::Error, message(1).to_json()));
    journal.acknowledged(first.sequence).await.unwrap();
    let second = journal.next_outgoing().await.unwrap().unwrap();
    assert_eq!(second.payload, message(2).to_json());
    journal.acknowledged(second.sequence).await.unwrap();
    assert_eq!(journal.next_outgoing().await.unwrap(), None);
}

fn accepted() -> Record {
    let start = r#"{"msg_id":"SRV-1","proto_ver":"1.0","type":"StartDownload","vehicle_id":"V","gateway_id":"G",
        "correlation_id":"VMG-1","expires_at_ms":9,"update_id":"U","failure_report":true,
        "transfer":{"protocol":"HTTPS","allow_chunking":true,"max_kb_per_msg":1,"base_url":"https://localhost"},
        "packages":[{"pkg_id":"P","target_component":"ecu_1","target_version":"2","size_bytes":1,
        "hash_sha256":"HASH","url":"/v1/packages/P/HASH","image_sha256":"HASH","image_size_bytes":1,
        "hw_part_no":"H","install_order":1}]}"#;
    let start = start.replace("HASH", &Sha256::of(b"image").to_string());
    let message = ServerMessage::parse(start.as_bytes()).unwrap();
    let ServerBody::StartDownload(start) = message.body else { panic!("{message:?}") };
    Record::Accepted(Box::new(Plan::new(message.msg_id, UnixMillis(1), start).unwrap()))
}

async fn store_record(journal: &Journal, record: Record) {
    journal.store(Entry { record: Some(record), ..Entry::default() }).await.unwrap();
}

#[tokio::test]
async fn records_come_back_in_order_with_what_was_stored_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let digest = Sha256::of(b"vci");
    let first = Entry { record: Some(accepted()), messages: vec![message(1)], ..Entry::default() };
    let second = Entry {
        record: Some(Record::Ended(Ending::Cancelled)),
        vci_digest: Some(digest),
        accepted_versions: vec![("ecu_1".parse().unwrap(), "2".to_owned())],
        ..Entry::default()
    };
    journal.store(first).await.unwrap();
    journal.store(second).await.unwrap();
    drop(journal);

    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(journal.fault(), None);
    let records = journal.records().await.unwrap();
    assert_eq!(records, [accepted(), Record::Ended(Ending::Cancelled)]);
    assert!(journal.next_outgoing().await.unwrap().is_some());
    assert_eq!(journal.vci_digest().await.unwrap(), Some(digest));
    assert_eq!(journal.accepted_versions().await.unwrap(), [("ecu_1".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn a_write_that_fails_is_an_error_and_the_last_one() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    let other = Connection::open(folder.path().join("journal.sqlite3")).unwrap();
    other.execute_batch("DROP TABLE outbox").unwrap();
    let stored = journal
        .store(Entry { record: Some(Record::Commit), messages: vec![message(1)], ..Entry::default() })
        .await;
    assert!(matches!(stored, Err(JournalError::Database { .. })));
    let again = journal.store(Entry { record: Some(accepted()), ..Entry::default() }).await;
    assert!(
        matches!(again, Err(JournalError::Failed { .. })),
        "nothing is written after what was lost: {again:?}"
    );
    journal.close().await;
    other
        .execute_batch("CREATE TABLE outbox (sequence INTEGER PRIMARY KEY, topic TEXT, payload BLOB)")
        .unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!(journal.records().await.unwrap(), [], "nothing of the transaction is kept");
}

#[tokio::test]
async fn a_journal_belongs_to_one_gateway_until_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    assert!(matches!(Journal::open(folder.path()), Err(JournalError::InUse { .. })));
    journal.close().await;
    assert!(matches!(journal.records().await, Err(JournalError::Closed)));
    Journal::open(folder.path()).unwrap();
}

/// A journal with an update under way, closed.
async fn with_an_update(folder: &Path) -> PathBuf {
    let journal = Journal::open(folder).unwrap();
    assert_eq!(journal.count_boot().await.unwrap(), 1);
    assert_eq!(journal.count_boot().await.unwrap(), 2);
    store_record(&journal, accepted()).await;
    store_record(&journal, Record::Synced(Vec::new())).await;
    journal.close().await;
    folder.join("journal.sqlite3")
}

/// The damage that a gateway finds in this folder, again at each start; its boot counter goes on.
async fn fault(folder: &Path, boot: u64) -> String {
    for boot in [boot, boot + 1] {
        let journal = Journal::open(folder).unwrap();
        assert!(journal.fault().is_some());
        assert_eq!(journal.records().await.unwrap(), []);
        assert_eq!(journal.count_boot().await.unwrap(), boot);
        journal.close().await;
    }
    let found = Journal::open(folder).unwrap().fault().unwrap().to_owned();
    std::fs::remove_file(folder.join("journal.fault")).unwrap();
    assert_eq!(Journal::open(folder).unwrap().fault(), None, "a workshop can clear it");
    found
}

#[tokio::test]
async fn garbage_in_place_of_the_journal_is_a_fault_and_kept_for_the_workshop() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_an_update(folder.path()).await;
    let garbage = b"this is no database, it only lies where one should be".repeat(100);
    std::fs::write(&path, &garbage).unwrap();
    assert!(fault(folder.path(), 3).await.contains("not a database"));
    assert_eq!(std::fs::read(folder.path().join("journal.damaged.sqlite3")).unwrap(), garbage);
}

#[tokio::test]
async fn a_journal_that_is_gone_or_empty_is_a_fault_and_not_a_vehicle_without_an_update() {
    for damage in ["gone", "empty", "gone, one marker too", "gone, markers unreadable"] {
        let folder = tempfile::tempdir().unwrap();
        let path = with_an_update(folder.path()).await;
        if damage == "empty" {
            std::fs::write(&path, "").unwrap()
        } else {
            std::fs::remove_file(&path).unwrap()
        }
        let mut boot = 3;
        if damage.contains("too") {
            std::fs::remove_file(folder.path().join("journal.mark0")).unwrap();
        }
        if damage.contains("unreadable") {
            std::fs::write(folder.path().join("journal.mark0"), "x").unwrap();
            std::fs::write(folder.path().join("journal.mark1"), "x").unwrap();
            boot = 1;
        }
        assert!(fault(folder.path(), boot).await.contains("there was one"), "{damage}");
    }
}

#[tokio::test]
async fn a_journal_cut_at_any_page_or_byte_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(with_an_update(folder.path()).await).unwrap();
    for length in (1..whole.len()).step_by(1_000).chain((4_096..whole.len()).step_by(4_096)) {
        let folder = tempfile::tempdir().unwrap();
        let path = with_an_update(folder.path()).await;
        std::fs::write(&path, &whole[..length]).unwrap();
        fault(folder.path(), 3).await;
    }
}

#[tokio::test]
async fn a_changed_byte_in_a_record_or_in_the_boot_counter_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(with_an_update(folder.path()).await).unwrap();
    for text in ["\"update_id\":\"U\"", "boot_seq2", "{\"Synced\":[]}"] {
        let at = whole.windows(text.len()).position(|window| window == text.as_bytes()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = with_an_update(folder.path()).await;
        let mut damaged = std::fs::read(&path).unwrap();
        assert_eq!(damaged.len(), whole.len());
        damaged[at + text.len() - 2] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        fault(folder.path(), 3).await;
    }
}

#[tokio::test]
async fn a_page_of_zeros_or_noise_is_never_taken_for_a_vehicle_without_an_update() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(with_an_update(folder.path()).await).unwrap();
    for page in 0..whole.len() / 4_096 {
        for noise in [0, 0xA5] {
            let folder = tempfile::tempdir().unwrap();
            let path = with_an_update(folder.path()).await;
            let mut damaged = std::fs::read(&path).unwrap();
            damaged[page * 4_096..(page + 1) * 4_096].fill(noise);
            std::fs::write(&path, damaged).unwrap();
            let journal = Journal::open(folder.path()).unwrap();
            let records = journal.records().await.unwrap();
            assert!(journal.fault().is_some() || records.len() == 2, "page {page}, {noise}");
        }
    }
}

#[tokio::test]
async fn an_older_copy_of_the_journal_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_an_update(folder.path()).await;
    let older = std::fs::read(&path).unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    store_record(&journal, Record::Transferred).await;
    journal.close().await;
    std::fs::write(&path, older).unwrap();
    assert!(fault(folder.path(), 3).await.contains("an earlier state"));
}

#[tokio::test]
async fn a_journal_that_is_gone_is_not_one_that_never_was() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Journal::was_never_in(folder.path()).unwrap());
    let path = with_an_update(folder.path()).await;
    std::fs::remove_file(path).unwrap();
    assert!(!Journal::was_never_in(folder.path()).unwrap());
    assert_eq!(Journal::fault_in(folder.path()).unwrap(), None);
    Journal::open(folder.path()).unwrap().close().await;
    assert!(Journal::fault_in(folder.path()).unwrap().is_some());
}

#[tokio::test]
async fn a_journal_whose_markers_are_lost_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    with_an_update(folder.path()).await;
    std::fs::remove_file(folder.path().join("journal.mark0")).unwrap();
    std::fs::write(folder.path().join("journal.mark1"), "x").unwrap();
    let journal = Journal::open(folder.path()).unwrap();
    assert_eq!((journal.fault(), journal.records().await.unwrap().len()), (None, 2));
}

#[tokio::test]
async fn a_journal_of_another_layout_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = with_an_update(folder.path()).await;
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    assert!(matches!(Journal::open(folder.path()), Err(JournalError::Layout { found: 9, .. })));
}
