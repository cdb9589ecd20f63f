//! Uploads from the browser, new releases, and what is shown of those there are.

use serde_json::{Value, json};

use super::*;
use crate::store::releases;
use farrier_protocol::Sha256;

fn image(octets: usize) -> (Vec<u8>, Sha256) {
    let image: Vec<u8> = (0..octets).map(|number| (number % 251) as u8).collect();
    let sha256 = Sha256::of(&image);
    (image, sha256)
}

impl Browser {
    /// As `assets/upload.js` asks.
    async fn asks(&mut self, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let request = self.request(method, path).header("sec-fetch-site", "same-origin");
        let request = request.header("hx-request", "true").header("content-type", "application/json");
        let answer = self.send(request.body(body.into()).unwrap()).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    async fn begins(&mut self, sha256: &Sha256, size_bytes: usize) -> (StatusCode, Value) {
        let new = json!({"sha256": sha256, "size_bytes": size_bytes});
        self.asks("POST", "/uploads", new.to_string()).await
    }

    /// Stores an image by one part.
    async fn stores(&mut self, octets: usize) -> Sha256 {
        let (octets, sha256) = image(octets);
        assert_eq!(self.begins(&sha256, octets.len()).await.0, StatusCode::CREATED);
        let path = format!("/uploads/{sha256}?offset_bytes=0");
        let (status, answer) = self.asks("PATCH", &path, octets).await;
        assert_eq!((status, &answer["is_stored"]), (StatusCode::OK, &json!(true)), "{answer}");
        sha256
    }
}

/// The form of a new release with one image.
fn form<'f>(sha256: &'f str, hw_part_no: &'f str, version: &'f str) -> Vec<(&'f str, &'f str)> {
    vec![
        ("sha256", sha256),
        ("hw_part_no", hw_part_no),
        ("version", version),
        ("supplier", ""),
        ("region", ""),
        ("rxswins", "RX-1, RX-2"),
        ("rules", ""),
        ("name", "2026.11"),
        ("scheme", "dotted"),
        ("counter", ""),
        ("notes", "For winter"),
    ]
}

#[tokio::test]
async fn a_release_manager_uploads_in_parts_that_go_on_where_they_broke_off() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let mut rita = admin.invite("rita", Scope::ReleaseManager).await;
    let (octets, sha256) = image(3_000);
    let (status, begun) = rita.begins(&sha256, 3_000).await;
    assert_eq!((status, &begun["offset_bytes"]), (StatusCode::CREATED, &json!(0)), "{begun}");
    assert_eq!(begun["begun_by"], "user:rita");
    let part = |at: u64| format!("/uploads/{sha256}?offset_bytes={at}");
    assert_eq!(rita.asks("PATCH", &part(0), octets[..1_000].to_vec()).await.1["offset_bytes"], 1_000);
    let (status, wrong) = rita.asks("PATCH", &part(500), octets[500..].to_vec()).await;
    assert_eq!((status, &wrong["code"]), (StatusCode::CONFLICT, &json!("UPLOAD_OFFSET")));
    // Another page knows the file and nothing else; the form shows what is unfinished.
    assert_eq!(rita.begins(&sha256, 3_000).await.1["offset_bytes"], 1_000);
    let page = rita.page("/new-release").await;
    assert!(page.contains(&format!("data-unfinished=\"{sha256}\"")) && page.contains("1.0 KB / 3.0 KB"));
    assert!(page.contains("user:rita"), "{page}");
    let (status, stored) = rita.asks("PATCH", &part(1_000), octets[1_000..].to_vec()).await;
    assert_eq!((status, &stored["is_stored"]), (StatusCode::OK, &json!(true)), "{stored}");
    let page = rita.page("/new-release").await;
    assert!(!page.contains("data-unfinished="), "{page}");
    assert!(page.contains(&format!("name=\"sha256\" value=\"{sha256}\"")), "{page}");
    let by_rita = audited(&world).await;
    assert!(by_rita.contains(&("user:rita".to_owned(), "image.uploaded".to_owned())), "{by_rita:?}");
}

#[tokio::test]
async fn an_upload_is_given_up_from_the_page_and_its_room_is_free() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let (octets, sha256) = image(3_000);
    admin.begins(&sha256, 3_000).await;
    let path = format!("/uploads/{sha256}?offset_bytes=0");
    admin.asks("PATCH", &path, octets[..1_000].to_vec()).await;
    assert_eq!(admin.post(&format!("/uploads/{sha256}/end"), &[]).await.leads_to(), "/new-release");
    assert!(!admin.page("/new-release").await.contains("data-unfinished="));
    assert_eq!(admin.begins(&sha256, 3_000).await.1["offset_bytes"], 0);
}

#[tokio::test]
async fn nobody_else_uploads_or_makes_releases() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let (octets, sha256) = image(100);
    for scope in [Scope::Viewer, Scope::Operator] {
        let mut other = admin.invite(scope.name(), scope).await;
        let (status, refused) = other.begins(&sha256, 100).await;
        assert_eq!((status, &refused["code"]), (StatusCode::FORBIDDEN, &json!("FORBIDDEN")), "{refused}");
        let path = format!("/uploads/{sha256}?offset_bytes=0");
        assert_eq!(other.asks("PATCH", &path, octets.clone()).await.0, StatusCode::FORBIDDEN);
        assert_eq!(other.post(&format!("/uploads/{sha256}/end"), &[]).await.status, StatusCode::FORBIDDEN);
        assert_eq!(other.get("/new-release").await.status, StatusCode::FORBIDDEN);
        let sent = other.post("/new-release", &form(&sha256.to_string(), "HW-1", "2.0.0")).await;
        assert_eq!(sent.status, StatusCode::FORBIDDEN);
        assert!(!other.page("/releases").await.contains("/new-release"));
    }
    // Whose session is over is told so by the status, and the upload waits for them.
    assert_eq!(admin.another().begins(&sha256, 100).await.0, StatusCode::UNAUTHORIZED);
    let forged = admin.request("POST", "/uploads").header("sec-fetch-site", "cross-site");
    let forged = forged.header("content-type", "application/json").body(Body::from("{}")).unwrap();
    assert_eq!(admin.send(forged).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_release_is_made_from_images_and_rules_and_what_is_wrong_is_said_where_it_is() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let sha256 = admin.stores(5_000).await.to_string();
    let typed = form(&sha256, "HW-PT-0001", "not a version");
    let refused = admin.post("/new-release", &typed).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    let page = refused.body;
    assert!(page.contains("value=\"HW-PT-0001\"") && page.contains("value=\"not a version\""), "{page}");
    assert!(page.contains("value=\"For winter\"") && page.contains("value=\"RX-1, RX-2\""), "{page}");
    assert!(page.contains("id=\"version-0-fault\""), "the API's pointer leads to the field: {page}");
    let missing = admin.post("/new-release", &form(&sha256, " ", "2.0.0")).await.body;
    assert!(
        missing.contains("id=\"hw_part_no-0-fault\"") && missing.contains("Expected a value"),
        "{missing}"
    );
    let mut unnamed = form(&sha256, "HW-PT-0001", "2.0.0");
    unnamed.retain(|(name, _)| *name != "name");
    assert!(admin.post("/new-release", &unnamed).await.body.contains("id=\"name-fault\""));

    // A rule from two fields, then a broken one as JSON.
    let mut with_rule = form(&sha256, "HW-PT-0001", "2.0.0");
    with_rule.extend([("rule", "minimum_bootloader"), ("rule_a", "HW-PT-0001"), ("rule_b", "1.2")]);
    with_rule.push(("do", "add-rule"));
    let page = admin.post("/new-release", &with_rule).await.body;
    assert!(page.contains("an update of HW-PT-0001 needs its bootloader at 1.2 or later"), "{page}");
    let mut broken = form(&sha256, "HW-PT-0001", "2.0.0");
    broken.retain(|(name, _)| *name != "rules");
    broken.push(("rules", "[{\"rule\": \"needs\"}]"));
    let page = admin.post("/new-release", &broken).await.body;
    assert!(page.contains("id=\"rules-fault\"") && page.contains("hw_part_no"), "{page}");

    let rule = r#"[{"rule": "minimum_bootloader", "hw_part_no": "HW-PT-0001", "version": "1.2"}]"#;
    broken.retain(|(name, _)| *name != "rules");
    broken.push(("rules", rule));
    assert_eq!(admin.post("/new-release", &broken).await.leads_to(), "/releases/2026.11");
    let page = admin.page("/releases/2026.11").await;
    for shown in
        ["HW-PT-0001", "2.0.0", "5.0 KB", "RX-1", "For winter", "needs its bootloader at 1.2", &sha256]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    let made = world.read(|tx| releases::by_name(tx, &text("2026.11"))).await.unwrap();
    assert_eq!((made.release.images().len(), made.release.rules().rules.len()), (1, 1));
    assert!(audited(&world).await.contains(&("user:alice".to_owned(), "release.created".to_owned())));
    // The next one begins with what this one has.
    let page = admin.page("/new-release?from=2026.11").await;
    assert!(page.contains("value=\"HW-PT-0001\"") && page.contains("minimum_bootloader"), "{page}");
    assert_eq!(admin.get("/new-release?from=none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn rows_are_doubled_and_removed_without_losing_what_was_typed() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let (one, other) = (admin.stores(1_000).await.to_string(), admin.stores(2_000).await.to_string());
    let mut typed = form(&one, "HW-1", "2.0.0");
    typed.extend([("sha256", &*other), ("hw_part_no", "HW-2"), ("version", "3.0.0")]);
    let mut again = typed.clone();
    again.push(("do", "again:0"));
    let page = admin.post("/new-release", &again).await.body;
    assert_eq!(page.matches(&format!("name=\"sha256\" value=\"{one}\"")).count(), 2);
    assert!(page.contains("value=\"HW-2\"") && page.contains("value=\"For winter\""), "{page}");
    let mut removed = typed.clone();
    removed.push(("do", "remove:0"));
    let page = admin.post("/new-release", &removed).await.body;
    assert!(!page.contains("value=\"HW-1\"") && page.contains("value=\"HW-2\""), "{page}");
    // What nobody says anything of is left out, and the others keep their places.
    let mut with_empty = vec![("sha256", &*other), ("hw_part_no", ""), ("version", "")];
    with_empty.extend(form(&one, "HW-1", "no version"));
    let page = admin.post("/new-release", &with_empty).await.body;
    assert!(page.contains("id=\"version-1-fault\""), "{page}");
}

#[tokio::test]
async fn a_release_says_which_vehicles_run_it_and_goes_only_while_no_campaign_brings_it() {
    let (world, _) = world_with_a_campaign().await;
    let mut admin = Browser::admin(&world).await;
    let mut viewer = admin.invite("eve", Scope::Viewer).await;
    let list = viewer.page("/releases").await;
    assert!(list.contains("in use") && !list.contains("not used yet"), "{list}");
    let name = world.read(|tx| releases::newest_names(tx, 1)).await.remove(0).to_string();
    let page = viewer.page(&format!("/releases/{name}")).await;
    assert!(page.contains(&format!("/campaigns/{CAMPAIGN}")), "{page}");
    assert!(!page.contains("/delete"), "{page}");
    // Two of its ECUs are one vehicle; the link finds the same.
    let mut car = Car::new("V2");
    car.versions = vec!["2", "2"];
    car.wake_up(&world).await;
    car.answer_vci(&world).await;
    let page = viewer.page(&format!("/releases/{name}")).await;
    let link = page.split("href=\"/vehicles?q=").nth(1).unwrap();
    let (query, rest) = link.split_once('"').unwrap();
    assert!(rest.starts_with(">1</a>"), "{page}");
    assert!(viewer.page(&format!("/vehicles?q={query}")).await.contains("1 vehicle matches."));

    let refused = admin.post(&format!("/releases/{name}/delete"), &[]).await;
    assert_eq!(refused.status, StatusCode::CONFLICT);
    let sha256 = admin.stores(1_000).await.to_string();
    admin.post("/new-release", &form(&sha256, "HW-1", "9.0.0")).await.leads_to();
    assert_eq!(viewer.post("/releases/2026.11/delete", &[]).await.status, StatusCode::FORBIDDEN);
    assert!(admin.page("/releases/2026.11/delete").await.contains("gone for good"));
    assert_eq!(admin.post("/releases/2026.11/delete", &[]).await.leads_to(), "/releases");
    assert_eq!(admin.get("/releases/2026.11").await.status, StatusCode::NOT_FOUND);
}
