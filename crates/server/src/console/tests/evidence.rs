//! Records of UN R156, read and taken away.

use super::*;
use crate::store::updates;

/// A campaign of which one vehicle has got the release.
async fn world_with_a_record() -> (World, String) {
    let world = World::new();
    world.campaign_for_all().await;
    let mut car = Car::new("V1");
    car.wake_up(&world).await;
    let (command, _) = car.to_start_download(&world).await;
    car.report(&world, &command, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    let vehicle_id = car.binding.vehicle_id.clone();
    let updates = world.read(move |tx| updates::of_vehicle(tx, &vehicle_id)).await;
    (world, updates[0].id.clone())
}

#[tokio::test]
async fn records_are_found_by_campaign_vehicle_vin_and_rxswin_and_read_on_a_page() {
    let (world, update_id) = world_with_a_record().await;
    let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
    let page = viewer.page("/evidence").await;
    assert!(page.contains(&format!("/evidence/campaigns/{CAMPAIGN}/archive")), "{page}");
    assert_eq!(viewer.get(&format!("/evidence?q={CAMPAIGN}")).await.leads_to(), "/evidence/campaigns/C2");
    assert_eq!(viewer.get("/evidence?q=V1").await.leads_to(), "/evidence/vehicles/V1");
    let missing = viewer.page("/evidence?q=nothing+like+this").await;
    assert!(missing.contains("value=\"nothing like this\"") && missing.contains("aria-invalid"), "{missing}");
    for of in ["/evidence/campaigns/C2", "/evidence/vehicles/V1"] {
        let page = viewer.page(of).await;
        assert!(page.contains(&format!("/evidence/records/{update_id}")), "{of}: {page}");
        assert!(page.contains("succeeded"), "{of}");
    }
    assert!(viewer.page("/evidence/campaigns/C2").await.contains("Software (7.1.1.2)"));
    for language in ["en", "ko"] {
        viewer.language = language;
        let record = viewer.page(&format!("/evidence/records/{update_id}")).await;
        assert!(record.contains("Software before and after (7.1.2.2)"), "{record}");
        assert!(!record.contains("<style") && !record.contains(" style="), "{record}");
    }
    for missing in ["/evidence/records/none", "/evidence/campaigns/C9", "/evidence/vehicles/V9"] {
        assert_eq!(viewer.get(missing).await.status, StatusCode::NOT_FOUND, "{missing}");
    }
}

#[tokio::test]
async fn an_archive_is_taken_away_with_the_key_that_proves_it() {
    let (world, _) = world_with_a_record().await;
    let browser = Browser::admin(&world).await;
    let request = |path: &str| browser.request("GET", path).body(Body::empty()).unwrap();
    let pem = browser.router.clone().oneshot(request("/evidence/key")).await.unwrap();
    let pem = axum::body::to_bytes(pem.into_body(), 10_000).await.unwrap();
    let pem = String::from_utf8(pem.to_vec()).unwrap();
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----"), "{pem}");
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key.pem"), pem).unwrap();
    let key = crate::evidence::EvidencePublicKey::load(&dir.path().join("key.pem")).unwrap();
    for (path, file) in [
        ("/evidence/campaigns/C2/archive", "evidence-C2.tar"),
        ("/evidence/vehicles/V1/archive", "evidence-V1.tar"),
    ] {
        let response = browser.router.clone().oneshot(request(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.headers()["content-disposition"].to_str().unwrap().contains(file));
        let archive = axum::body::to_bytes(response.into_body(), 10_000_000).await.unwrap();
        crate::evidence::verify(&archive[..], &key, &[]).unwrap();
    }
}

#[tokio::test]
async fn what_a_campaign_is_called_is_text_in_its_record() {
    let (world, update_id) = world_with_a_record().await;
    let vehicle = "V1".parse().unwrap();
    let said = Said { region: Some(text("<b>KR")), ..Said::default() };
    world.write(move |tx, _, _| vehicles::set_said(tx, &vehicle, &said)).await;
    let mut browser = Browser::admin(&world).await;
    let page = browser.page(&format!("/evidence/records/{update_id}")).await;
    assert!(!page.contains("<b>") && page.contains("&lt;b&gt;KR"), "{page}");
}

#[tokio::test]
async fn the_register_is_listed_by_vehicle_type_and_found_by_rxswin() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    assert!(admin.page("/evidence/rxswins").await.contains("farrier evidence rxswin set"));
    for (vehicle_type, rxswin) in [("T1", "R79-1"), ("T2", "R79-1"), ("T2", "R13-1")] {
        let content = serde_json::json!({
            "software": [{"hw_part_no": "HW-1", "version": "2", "sha256": "0".repeat(64)}],
            "approval": "E4*79R*01", "note": null,
        });
        world
            .write(move |tx, _, now| {
                let revision = crate::store::evidence::Revision {
                    vehicle_type: vehicle_type.parse().unwrap(),
                    rxswin: text(rxswin),
                    revision: 1,
                    content: serde_json::from_value(content).unwrap(),
                    recorded_at: now,
                    recorded_by: "token:admin".to_owned(),
                };
                crate::store::evidence::register(tx, &revision)
            })
            .await;
    }
    let all = admin.page("/evidence/rxswins").await;
    assert!(all.contains("R13-1") && all.contains("E4*79R*01") && all.contains("HW-1"), "{all}");
    assert_eq!(admin.get("/evidence?q=R79-1").await.leads_to(), "/evidence/rxswins?q=R79%2D1");
    let one = admin.page("/evidence/rxswins?q=R79-1").await;
    assert!(one.contains("T1") && one.contains("T2") && !one.contains("R13-1"), "{one}");
}
