//! Vehicles: their page, what can be done about them, fleet groups, files.

use serde_json::json;

use super::*;
use crate::store::groups;
use crate::store::test_database::TestDatabase;

#[tokio::test]
async fn the_page_of_a_vehicle_tells_what_it_runs_whether_it_is_ready_and_what_was_said() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        world.campaign_for_all().await;
        let car = Car::known(&world, "V1").await;
        car.answer_not_ready(&world, 600).await;
        let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
        let page = viewer.page("/vehicles/V1").await;
        assert!(page.contains("scope=\"rowgroup\"") && page.contains("→ 2"), "{page}");
        assert!(page.contains("not met") && page.contains("POWER_LOW"), "{page}");
        assert!(page.contains("CN="));
        // The answer stands below its question, with what it says.
        let question = page.find("RequestDownloadReadiness").unwrap();
        let answer = page.find("ReadinessReport").unwrap();
        assert!(question < answer, "{page}");
        assert!(page.contains("<code>not_ready_reasons</code>") && page.contains("<summary>raw</summary>"));
        for action in ["ask-inventory", "rebind", "cancel"] {
            assert!(!page.contains(&format!("/{action}\"")), "{action}");
        }
    }
}

#[tokio::test]
async fn each_action_says_what_will_happen_and_is_done_by_the_api() {
    let (world, car) = world_with_a_campaign().await;
    let mut admin = Browser::admin(&world).await;
    let mut viewer = admin.invite("eve", Scope::Viewer).await;
    for (path, says) in [
        ("/vehicles/V1/ask-inventory", "changes nothing in the vehicle"),
        ("/vehicles/V1/release", "gets update commands again"),
        ("/vehicles/V1/rebind", "is refused, and its connection ends"),
        ("/vehicles/V1/C2/cancel", "no boot flag is swapped yet"),
        ("/vehicles/V1/C2/rollback", "All ECUs go back"),
    ] {
        assert!(admin.page(path).await.contains(says), "{path}");
        assert_eq!(viewer.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
        assert_eq!(viewer.post(path, &[("reason", "x")]).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(admin.get("/vehicles/V1/explode").await.status, StatusCode::NOT_FOUND);
    // What was typed stays, and the refusal stands at its input.
    let typed = [("gateway_id", "CCU 2"), ("thumbprint", ""), ("reason", "repair <1>")];
    let answer = admin.post("/vehicles/V1/rebind", &typed).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer.body.contains("id=\"gateway_id-fault\"") && answer.body.contains("value=\"CCU 2\""));
    assert!(answer.body.contains("value=\"repair &#60;1&#62;\""), "{}", answer.body);
    let answer = admin.post("/vehicles/V1/rebind", &[("gateway_id", "CCU_2"), ("reason", " ")]).await;
    assert!(answer.body.contains("id=\"reason-fault\""), "{}", answer.body);
    let answer = admin.post("/vehicles/V1/release", &[]).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.body.contains("is not quarantined"));
    let typed = [("gateway_id", "CCU_2"), ("reason", "repair")];
    assert_eq!(admin.post("/vehicles/V1/rebind", &typed).await.leads_to(), "/vehicles/V1");
    assert_eq!(car.vehicle(&world).await.unwrap().binding.gateway_id.as_str(), "CCU_2");
    assert!(admin.page("/vehicles/V1").await.contains("Earlier gateways"));
    let cancelled = admin.post("/vehicles/V1/C2/cancel", &[("reason", "not now")]).await;
    assert_eq!(cancelled.leads_to(), "/vehicles/V1");
    let by_alice = audited(&world).await.into_iter().filter(|(actor, _)| actor == "user:alice");
    let actions: Vec<_> = by_alice.map(|(_, action)| action).collect();
    assert!(actions.contains(&"vehicle.rebound".to_owned()), "{actions:?}");
}

#[tokio::test]
async fn a_connected_vehicle_is_asked_for_its_inventory_once() {
    let world = World::new();
    let car = Car::known(&world, "V1").await;
    let mut browser = Browser::admin(&world).await;
    world.set_connected(false);
    let away = browser.post("/vehicles/V1/ask-inventory", &[]).await;
    assert_eq!(away.status, StatusCode::CONFLICT);
    assert!(away.body.contains("not connected"), "{}", away.body);
    world.set_connected(true);
    assert_eq!(browser.post("/vehicles/V1/ask-inventory", &[]).await.leads_to(), "/vehicles/V1");
    assert!(car.waiting_types(&world).await.contains(&farrier_protocol::MessageType::RequestVci));
    let again = browser.post("/vehicles/V1/ask-inventory", &[]).await;
    assert!(again.body.contains("asked already"), "{}", again.body);
    assert!(audited(&world).await.contains(&("user:alice".to_owned(), "vehicle.inventory_asked".to_owned())));
}

#[tokio::test]
async fn vehicles_are_filtered_on_the_server_and_found_by_version() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        for number in 0..55 {
            Car::known(&world, &format!("V{number:02}")).await;
        }
        let mut browser = Browser::admin(&world).await;
        let first = browser.page("/vehicles").await;
        assert!(first.contains("/vehicles/V49\"") && !first.contains("/vehicles/V50\""));
        assert!(first.contains("href=\"/vehicles?after=V49\""), "{first}");
        assert!(browser.page("/vehicles?after=V49").await.contains("/vehicles/V54\""));
        let backwards = browser.page("/vehicles?order=desc").await;
        assert!(
            backwards.contains("/vehicles/V54\"") && backwards.contains("order=desc&#38;after=V05"),
            "{backwards}"
        );
        world.set_connected(false);
        assert!(browser.page("/vehicles?connected=no").await.contains("/vehicles/V00\""));
        assert!(browser.page("/vehicles?connected=yes").await.contains("No vehicle on this page matches"));
        assert!(browser.page("/vehicles?quarantined=yes").await.contains("No vehicle on this page matches"));
        assert!(browser.page("/vehicles?q=1").await.contains("55 vehicles match."));
        let wrong = browser.page("/vehicles?q=region+%3D+KR").await;
        assert!(wrong.contains("<mark>KR</mark>") && wrong.contains("value=\"region = KR\""), "{wrong}");
    }
}

#[tokio::test]
async fn fleet_groups_are_made_changed_and_deleted() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        Car::known(&world, "V1").await;
        let mut admin = Browser::admin(&world).await;
        let mut viewer = admin.invite("eve", Scope::Viewer).await;
        let new = [("name", "pilots"), ("query", "vehicle = \"V1\""), ("note", "first")];
        assert_eq!(viewer.post("/groups", &new).await.status, StatusCode::FORBIDDEN);
        assert_eq!(admin.post("/groups", &new).await.leads_to(), "/groups/pilots");
        let again = admin.post("/groups", &new).await;
        assert_eq!(again.status, StatusCode::CONFLICT);
        assert!(
            again.body.contains("id=\"name-fault\"") && again.body.contains("value=\"first\""),
            "{}",
            again.body
        );
        let wrong = [("name", "other"), ("query", "vehicle = V1"), ("note", "")];
        let wrong = admin.post("/groups", &wrong).await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            wrong.body.contains("<mark>V1</mark>") && wrong.body.contains("value=\"other\""),
            "{}",
            wrong.body
        );
        let list = viewer.page("/groups").await;
        assert!(list.contains("href=\"/groups/pilots\"") && !list.contains("/plan?group="), "{list}");
        assert!(admin.page("/groups").await.contains("/plan?group=pilots"));
        let page = viewer.page("/groups/pilots").await;
        assert!(page.contains("1 vehicle matches.") && !page.contains("Save</button>"), "{page}");
        let changed = [("query", "vehicle = \"V2\""), ("note", "")];
        assert_eq!(viewer.post("/groups/pilots", &changed).await.status, StatusCode::FORBIDDEN);
        assert_eq!(
            admin.post("/groups/pilots", &[("query", "nonsense")]).await.status,
            StatusCode::UNPROCESSABLE_ENTITY
        );
        assert_eq!(admin.post("/groups/pilots", &changed).await.leads_to(), "/groups/pilots");
        let group = world.read(|tx| groups::by_name(tx, &text("pilots"))).await.unwrap();
        assert_eq!((group.selection.to_string().as_str(), group.note), ("vehicle = \"V2\"", None));
        assert_eq!(viewer.post("/groups/pilots/delete", &[]).await.status, StatusCode::FORBIDDEN);
        assert!(admin.page("/groups/pilots/delete").await.contains("Its vehicles stay"));
        assert_eq!(admin.post("/groups/pilots/delete", &[]).await.leads_to(), "/groups");
        assert_eq!(admin.get("/groups/pilots").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn what_is_exported_can_be_imported_and_what_is_wrong_is_told_by_line() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let mut admin = Browser::admin(&world).await;
        let mut viewer = admin.invite("eve", Scope::Viewer).await;
        let file = "vehicle_id,gateway_id,region,tags\r\nV1,G1,KR,a;b\r\nV2,G1,\"E, U\",\r\n";
        assert_eq!(viewer.get("/import").await.status, StatusCode::FORBIDDEN);
        let viewed = viewer.post("/import", &[("text", file), ("go", "import")]).await;
        assert_eq!(viewed.status, StatusCode::FORBIDDEN);
        let tried = admin.post("/import", &[("text", file), ("go", "try")]).await;
        assert_eq!(tried.status, StatusCode::OK);
        assert!(
            tried.body.contains("nothing is changed yet") && tried.body.contains("V2,G1,&#34;E, U&#34;"),
            "{}",
            tried.body
        );
        assert!(admin.get("/vehicles/V1").await.status == StatusCode::NOT_FOUND);
        let done = admin.post("/import", &[("text", file), ("go", "import")]).await;
        assert!(done.body.contains("It is imported."), "{}", done.body);
        admin.page("/vehicles/V2").await;
        for format in ["csv", "jsonl"] {
            let exported = viewer.get(&format!("/export?format={format}")).await;
            assert!(exported.headers["content-disposition"].to_str().unwrap().contains(format));
            let again = admin.post("/import", &[("text", &exported.body), ("go", "import")]).await;
            assert!(
                again.body.contains("<dt>As they were</dt><dd>2</dd>"),
                "{}: {}",
                exported.body,
                again.body
            );
        }
        let of_query = viewer.get("/export?q=region+%3D+%22KR%22").await.body;
        assert_eq!(of_query.lines().count(), 2, "{of_query}");
        let lines =
            [json!({"vehicle_id": "V3", "gateway_id": "G"}), json!({"vehicle_id": "V4", "colour": "red"})];
        let lines = format!("\n{}\n\n{}\n", lines[0], lines[1]);
        let refused = admin.post("/import", &[("text", &lines), ("go", "import")]).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            refused.body.contains("<td class=\"n\">4</td><td><code>colour</code></td>"),
            "{}",
            refused.body
        );
        assert!(refused.body.contains("V3"), "what was typed stays");
        assert_eq!(admin.get("/vehicles/V3").await.status, StatusCode::NOT_FOUND);
        for text in ["", "colour\nred", "vehicle_id\n\"V1"] {
            let refused = admin.post("/import", &[("text", text), ("go", "import")]).await;
            assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{text:?}");
        }
    }
}
