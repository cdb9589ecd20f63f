use farrier_protocol::Sha256;

use super::*;
use crate::store::test_database::TestDatabase;
use crate::testbed::{Car, START, World};

/// A server's data folder with one image, a car in the middle of an update, and what lies beside.
async fn server() -> (World, ServerFiles) {
    let world = World::on(TestDatabase::sqlite());
    let car = Car::known(&world, "V1").await;
    world.campaign_for_all().await;
    car.to_start_download(&world).await;
    let data = world.folder().to_owned();
    let octets = b"2";
    fs::create_dir(data.join(IMAGES)).unwrap();
    fs::write(data.join(IMAGES).join(Sha256::of(octets).to_string()), octets).unwrap();
    world.write(|tx, _, _| tx.exec("UPDATE image SET size_bytes = 1", &[])).await;
    fs::write(data.join("operator.token"), "secret\n").unwrap();
    fs::write(data.join("lock"), "").unwrap();
    (world, ServerFiles { data, store: None, images: None, pki: None })
}

fn problems(server: &ServerFiles) -> Vec<String> {
    look(server, |_| {}).unwrap().into_iter().flat_map(|check| check.problems).collect()
}

#[tokio::test]
async fn a_server_that_runs_is_backed_up_and_restored_as_it_was() {
    let (world, server) = server().await;
    let out = tempfile::tempdir().unwrap();
    let (backup, data) = (out.path().join("backup"), out.path().join("data"));
    let made = back_up(&server, &backup, START, |_| {}).unwrap();
    assert_eq!((made.files, made.images, made.has_store), (3, 1, true));
    // What comes after the backup is not in it.
    Car::known(&world, "LATE").await;
    assert_eq!(restore(&backup, &data, None, |_| {}).unwrap(), made);
    let restored = ServerFiles { data: data.clone(), ..server.clone() };
    assert_eq!(problems(&restored), [""; 0]);
    assert!(!data.join("lock").exists());
    assert_eq!(fs::read_to_string(data.join("operator.token")).unwrap(), "secret\n");
    let known = crate::store::read_file(&data.join(STORE), |tx| {
        tx.rows("SELECT vehicle_id FROM vehicle", &[], |row| row.text(0))
    });
    assert_eq!(known.unwrap(), ["V1"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&backup).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn nothing_is_overwritten_and_nothing_is_left_of_what_failed() {
    let (_world, server) = server().await;
    let out = tempfile::tempdir().unwrap();
    let backup = out.path().join("backup");
    back_up(&server, &backup, START, |_| {}).unwrap();
    assert!(matches!(back_up(&server, &backup, START, |_| {}), Err(BackupError::Exists { .. })));
    assert!(matches!(restore(&backup, &server.data, None, |_| {}), Err(BackupError::Exists { .. })));
    let image = backup.join(IMAGES).join(Sha256::of(b"2").to_string());
    fs::write(&image, b"3").unwrap();
    let error = restore(&backup, &out.path().join("data"), None, |_| {}).unwrap_err();
    assert!(matches!(&error, BackupError::Changed { path, .. } if *path == image), "{error}");
    fs::write(&image, b"2").unwrap();
    fs::remove_file(server.data.join(IMAGES).join(Sha256::of(b"2").to_string())).unwrap();
    assert!(matches!(back_up(&server, &out.path().join("b2"), START, |_| {}), Err(BackupError::Io { .. })));
    let left: Vec<_> = fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["backup"]);
    let nowhere = ServerFiles { data: out.path().to_owned(), ..server };
    assert!(matches!(look(&nowhere, |_| {}), Err(BackupError::Absent { .. })));
    assert!(matches!(
        restore(out.path(), &out.path().join("d"), None, |_| {}),
        Err(BackupError::Absent { .. })
    ));
}

#[tokio::test]
async fn the_authoritys_keys_are_in_the_backup_only_if_that_is_wished() {
    let (_world, mut server) = server().await;
    let out = tempfile::tempdir().unwrap();
    let pki = out.path().join("pki");
    crate::pki::Pki::init(&pki, false, START).unwrap();
    server.pki = Some(pki.clone());
    let backup = out.path().join("backup");
    back_up(&server, &backup, START, |_| {}).unwrap();
    let data = out.path().join("data");
    assert!(matches!(restore(&backup, &data, None, |_| {}), Err(BackupError::NoPlaceForPki)));
    let again = out.path().join("pki again");
    restore(&backup, &data, Some(&again), |_| {}).unwrap();
    assert_eq!(files_below(&pki).unwrap(), files_below(&again).unwrap());
    crate::pki::Pki::open(&again).unwrap();
    assert!(!data.join(PKI).exists());
}

#[tokio::test]
async fn a_list_that_leads_out_of_the_backup_is_refused() {
    let out = tempfile::tempdir().unwrap();
    for path in ["../outside", "/etc/passwd"] {
        let file = BackedUpFile { path: path.into(), size_bytes: 0, sha256: String::new() };
        let manifest =
            Manifest { form: FORMAT, made_at_ms: 0, store: "sqlite".to_owned(), files: vec![file] };
        let _ = fs::remove_file(out.path().join(MANIFEST));
        write_manifest(out.path(), &manifest).unwrap();
        let error = restore(out.path(), &out.path().join("data"), None, |_| {}).unwrap_err();
        assert!(matches!(error, BackupError::Manifest { .. }), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_whole_is_named() {
    let (world, server) = server().await;
    assert_eq!(problems(&server), [""; 0]);
    let image = server.data.join(IMAGES).join(Sha256::of(b"2").to_string());
    fs::write(&image, b"3").unwrap();
    world
        .write(|tx, _, _| {
            tx.exec("UPDATE vehicle_update SET data = '{\"state\":\"lost\"}'", &[])?;
            tx.exec("UPDATE command SET payload = '{}' WHERE message_type = 'StartDownload'", &[])?;
            tx.exec("UPDATE vehicle SET recent_reboots = 'many'", &[])
        })
        .await;
    let found = problems(&server);
    for what in ["vehicle V1", "vehicle update ", "command SRV-", &image.display().to_string()] {
        assert!(found.iter().any(|problem| problem.contains(what)), "{what}: {found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
    world.write(|tx, _, _| tx.exec("DELETE FROM schema_step WHERE number = 7", &[])).await;
    assert!(problems(&server).iter().any(|problem| problem.contains("step 7")));
}

#[tokio::test]
async fn of_a_server_on_postgresql_all_is_backed_up_that_is_not_in_the_database() {
    let database = TestDatabase::postgres();
    let url = database.url().unwrap();
    let world = World::on(database);
    world.release("R2", "2").await;
    world.write(|tx, _, _| tx.exec("UPDATE image SET size_bytes = 1", &[])).await;
    let out = tempfile::tempdir().unwrap();
    let server = ServerFiles {
        data: out.path().join("data"),
        store: Some(url.parse().unwrap()),
        images: Some(out.path().join("shared")),
        pki: None,
    };
    fs::create_dir_all(&server.data).unwrap();
    fs::create_dir_all(server.images()).unwrap();
    fs::write(server.images().join(Sha256::of(b"2").to_string()), b"2").unwrap();
    assert_eq!(problems(&server), [""; 0]);
    let made = back_up(&server, &out.path().join("backup"), START, |_| {}).unwrap();
    assert_eq!((made.images, made.has_store), (1, false));
}
