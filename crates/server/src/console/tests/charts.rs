//! The fleet's and a campaign's history, what needs attention, and what can be done about a campaign from its page.

use farrier_campaign::{GateRecord, Opening, Rollout, StopRule, Wave, WaveSize};
use serde_json::json;

use super::*;
use crate::sampler;
use crate::store::campaigns::{self, Campaign};
use crate::store::intake::Intake;
use crate::store::test_database::TestDatabase;
use crate::store::{set_aside, silent};

async fn sampled(world: &World) {
    sampler::take(&world.store, &world.rules, 1, world.now).await.unwrap();
}

/// The campaign's update of the car fails on its first ECU.
async fn failed(world: &World, car: &Car) {
    let (command, _) = car.to_start_download(world).await;
    car.fail(world, &command, "UPDATE_FAILED", json!({"failed_ecus": ["e0"]})).await;
    car.answer_vci(world).await;
}

pub(super) fn draft(world: &World, name: &str, intake: Intake, rollout: Rollout) -> Campaign {
    Campaign {
        name: text(name),
        release: text("R2"),
        every_vehicle: true,
        update_deadline_s: None,
        created_at: world.now,
        started_at: None,
        paused_at: None,
        aborted: None,
        rollout,
        gate: GateRecord::default(),
        stopped: None,
        starting: None,
        intake,
    }
}

async fn create(world: &World, campaign: Campaign) {
    world.write(move |tx, _, _| campaigns::create(tx, &campaign, &[])).await;
}

/// How often something stands in a page.
fn times(page: &str, text: &str) -> usize {
    page.matches(text).count()
}

#[tokio::test]
async fn the_fleet_and_a_campaign_are_shown_over_time_as_drawings_and_as_figures() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        let _car = Car::known(&world, "V1").await;
        world.campaign_for_all().await;
        let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
        assert!(viewer.page("/").await.contains("There is no history yet"));
        for _ in 0..3 {
            world.now = world.now.plus_seconds(60);
            sampled(&world).await;
        }
        viewer.later(180_000);
        for path in ["/", "/?span=week", "/charts", "/charts?span=day"] {
            let page = viewer.page(path).await;
            for id in ["adoption-chart", "connected-chart"] {
                assert!(page.contains(&format!("<figure class=\"chart\" id=\"{id}\">")), "{path}: {page}");
                assert!(page.contains(&format!("<desc id=\"{id}-desc\">")), "{path}");
            }
            assert!(page.contains("no release yet") && page.contains("<table>"), "{path}: {page}");
        }
        let path = format!("/campaigns/{CAMPAIGN}");
        for path in [path.clone(), format!("{path}/charts")] {
            let page = viewer.page(&path).await;
            for id in ["progress-chart", "throughput-chart", "bytes-chart"] {
                assert!(page.contains(&format!("id=\"{id}\"")), "{path}: {page}");
            }
        }
        viewer.language = "ko";
        let page = viewer.page("/").await;
        assert!(page.contains("릴리스 적용 현황") && !page.contains(" style="), "{page}");
        assert_eq!(viewer.get("/campaigns/none/charts").await.status, StatusCode::NOT_FOUND);
    }
}

#[tokio::test]
async fn what_needs_attention_is_counted_and_leads_to_exactly_these() {
    let mut world = World::new();
    let all = ["V1", "V2", "V3", "V4", "V5", "V6"];
    let mut cars = Vec::new();
    for vehicle in all {
        cars.push(Car::known(&world, vehicle).await);
    }
    world.campaign_for_all().await;
    let mut browser = Browser::admin(&world).await;
    let page = browser.page("/").await;
    assert!(page.contains("Nothing needs attention."), "{page}");
    // One runs a mix, one needs a workshop, one is quarantined, one set aside.
    let (command, _) = cars[0].to_start_download(&world).await;
    cars[0].fail(&world, &command, "UPDATE_FAILED", json!({"failed_ecus": []})).await;
    cars[0].versions = vec!["1", "2"];
    cars[0].answer_vci(&world).await;
    let (command, _) = cars[1].to_start_download(&world).await;
    cars[1].fail(&world, &command, "SERVICE_REQUIRED", json!({"failed_ecus": ["e1"]})).await;
    cars[1].answer_vci(&world).await;
    failed(&world, &cars[3]).await;
    world
        .write(|tx, _, now| {
            let quarantine = "UPDATE vehicle SET quarantined_at = $1 WHERE vehicle_id = 'V3'";
            tx.exec(quarantine, &[now.into()])?;
            let (vehicle, release, campaign) = ("V4".parse().unwrap(), text("R2"), text(CAMPAIGN));
            let failed = set_aside::FailedAttempt {
                attempt_id: &text("A"),
                vehicle_id: &vehicle,
                release: &release,
                campaign: &campaign,
                code: "UPDATE_FAILED",
            };
            set_aside::set_aside(tx, failed, 1, now)
        })
        .await;
    create(
        &world,
        draft(&world, "asks", Intake { needs_approval: true, ..Intake::default() }, Rollout::default()),
    )
    .await;
    // All but one fall silent.
    world.now = world.now.plus_seconds(8 * 86_400);
    cars[5].wake_up(&world).await;
    let now = world.now;
    let look = world.read(move |tx| silent::look(tx, now, 100)).await;
    world.write(move |tx, _, _| silent::keep(tx, &look)).await;
    let page = browser.page("/").await;
    let lists = [
        ("inconsistent", "1 vehicle runs a mix of software.", vec!["V1"]),
        ("service-required", "1 vehicle needs a workshop", vec!["V2"]),
        ("quarantined", "1 vehicle is quarantined", vec!["V3"]),
        ("set-aside", "1 vehicle is set aside", vec!["V4"]),
        ("silent", "5 vehicles have not been heard", vec!["V1", "V2", "V3", "V4", "V5"]),
    ];
    for (kind, sentence, vehicles) in lists {
        assert!(page.contains(&format!("href=\"/attention/{kind}\">{sentence}")), "{kind}: {page}");
        let list = browser.page(&format!("/attention/{kind}")).await;
        assert!(list.contains(sentence), "{kind}: {list}");
        for vehicle in all {
            let is_there = list.contains(&format!("href=\"/vehicles/{vehicle}\""));
            assert_eq!(is_there, vehicles.contains(&vehicle), "{kind}, {vehicle}: {list}");
        }
    }
    assert!(page.contains("href=\"/campaigns?state=awaiting_approval\">1 campaign waits"), "{page}");
    let list = browser.page("/campaigns?state=awaiting_approval").await;
    assert!(list.contains("/campaigns/asks") && !list.contains("/campaigns/C2"), "{list}");
    assert_eq!(browser.get("/attention/nothing").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn campaigns_are_listed_by_state_and_order_a_page_at_a_time() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        world.campaign_for_all().await;
        for number in 0..60 {
            world.now = world.now.plus_seconds(1);
            create(&world, draft(&world, &format!("d{number:02}"), Intake::default(), Rollout::default()))
                .await;
        }
        let mut browser = Browser::admin(&world).await;
        let newest = browser.page("/campaigns").await;
        assert!(newest.contains("/campaigns/d59\"") && !newest.contains("/campaigns/d09\""), "{newest}");
        let next = newest.split("href=\"/campaigns?state=&amp;order=newest&amp;after=").nth(1).unwrap();
        let next = next.split('"').next().unwrap();
        let second = browser.page(&format!("/campaigns?order=newest&after={next}")).await;
        assert!(second.contains("/campaigns/d09\"") && !second.contains("/campaigns/d10\""), "{second}");
        assert!(second.contains("/campaigns/C2\"") && second.contains("First page"), "{second}");
        let by_name = browser.page("/campaigns?order=name").await;
        assert!(by_name.contains("/campaigns/C2\"") && !by_name.contains("/campaigns/d59\""), "{by_name}");
        let running = browser.page("/campaigns?state=running").await;
        assert!(running.contains("/campaigns/C2\"") && times(&running, "/campaigns/d") == 0, "{running}");
        assert!(running.contains("<option value=\"running\" selected>"), "{running}");
        assert!(browser.page("/campaigns?state=stopped").await.contains("No campaign is in this state."));
        let drafts = browser.page("/campaigns?state=draft&order=name").await;
        assert_eq!(times(&drafts, "<td><a href=\"/campaigns/d"), 50);
        let wrong = browser.get("/campaigns?order=newest&after=nonsense").await;
        assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[tokio::test]
async fn a_second_person_approves_a_campaign_and_the_first_one_is_refused_with_what_was_typed() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        world.release("R2", "2").await;
        let car = Car::known(&world, "V1").await;
        let mut admin = Browser::admin(&world).await;
        let mut bob = admin.invite("bob", Scope::Operator).await;
        let mut viewer = admin.invite("eve", Scope::Viewer).await;
        let wave = |size, opens| Wave { size, opens, stop: StopRule::default() };
        let waves =
            vec![wave(WaveSize::Vehicles(1), Opening::AtOnce), wave(WaveSize::Rest, Opening::ByApproval)];
        let intake =
            Intake { needs_approval: true, made_by: Some("user:alice".to_owned()), ..Intake::default() };
        let rollout = Rollout { waves, ..Rollout::default() };
        create(&world, draft(&world, "asks", intake, rollout)).await;
        let page = admin.page("/campaigns/asks").await;
        assert!(page.contains("The start waits for the approval of a second person."), "{page}");
        for path in ["approve", "reject", "retry?code=X"] {
            let path = format!("/campaigns/asks/{path}");
            assert_eq!(viewer.get(&path).await.status, StatusCode::FORBIDDEN);
            assert_eq!(viewer.post(&path, &[("reason", "x")]).await.status, StatusCode::FORBIDDEN);
        }
        let said = admin.page("/campaigns/asks/approve").await;
        assert!(said.contains("release R2 may go out to 1 vehicle"), "{said}");
        assert!(said.contains("Whoever planned the campaign cannot approve it"), "{said}");
        let refused = admin.post("/campaigns/asks/approve", &[("reason", "I <looked>")]).await;
        assert_eq!(refused.status, StatusCode::CONFLICT, "{}", refused.body);
        assert!(refused.body.contains("value=\"I &#60;looked&#62;\""), "{}", refused.body);
        assert!(refused.body.contains("Expected another person"), "{}", refused.body);
        let empty = bob.post("/campaigns/asks/approve", &[("reason", " ")]).await;
        assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(
            empty.body.contains("aria-invalid") && empty.body.contains("id=\"reason-fault\""),
            "{}",
            empty.body
        );
        let path = "/campaigns/asks";
        assert_eq!(bob.post("/campaigns/asks/approve", &[("reason", "looked")]).await.leads_to(), path);
        let page = bob.page(path).await;
        assert!(!page.contains("waits for the approval") && page.contains("user:bob"), "{page}");
        assert_eq!(bob.post("/campaigns/asks/start", &[]).await.leads_to(), path);
        world.look_at_gates().await;
        let page = admin.page(path).await;
        assert!(page.contains("Wave 2 waits for the approval of a second person."), "{page}");
        let said = admin.page("/campaigns/asks/approve").await;
        assert!(said.contains("name=\"wave\" value=\"2\""), "{said}");
        let with_wave = [("reason", "looked"), ("wave", "2")];
        assert_eq!(bob.post("/campaigns/asks/approve", &with_wave).await.status, StatusCode::CONFLICT);
        assert_eq!(admin.post("/campaigns/asks/approve", &with_wave).await.leads_to(), path);
        let actions: Vec<_> = audited(&world).await.into_iter().map(|(_, action)| action).collect();
        assert_eq!(actions.iter().filter(|action| *action == "campaign.approved").count(), 2, "{actions:?}");
        drop(car);
    }
}

#[tokio::test]
async fn failed_vehicles_are_tried_again_by_code_and_those_set_aside_are_taken_back_first() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        let car = Car::known(&world, "V1").await;
        world.campaign_for_all().await;
        failed(&world, &car).await;
        let mut admin = Browser::admin(&world).await;
        let mut operator = admin.invite("bob", Scope::Operator).await;
        let mut viewer = admin.invite("eve", Scope::Viewer).await;
        let (path, retry) =
            (format!("/campaigns/{CAMPAIGN}"), format!("/campaigns/{CAMPAIGN}/retry?code=UPDATE_FAILED"));
        let page = operator.page(&path).await;
        assert!(page.contains(&format!("href=\"{retry}\"")) && page.contains("<code>e0</code>"), "{page}");
        let said = operator.page(&retry).await;
        assert!(said.contains("1 vehicle that ended with UPDATE_FAILED is tried again"), "{said}");
        let none = operator.get(&format!("{path}/retry?code=BUSY")).await;
        assert_eq!(none.status, StatusCode::CONFLICT);
        let code = [("code", "UPDATE_FAILED")];
        for _ in 0..2 {
            assert_eq!(operator.post(&format!("{path}/retry"), &code).await.leads_to(), path);
            world.pass(1).await;
            failed(&world, &car).await;
        }
        // It has failed three times by now.
        let none = operator.get(&retry).await;
        assert_eq!(none.status, StatusCode::CONFLICT);
        assert!(none.body.contains("1 are set aside for the release"), "{}", none.body);
        let page = operator.page(&path).await;
        let take_back = "/vehicles/V1/set-aside/R2/take-back".to_owned();
        assert!(page.contains(&format!("href=\"{take_back}\"")), "{page}");
        assert!(!viewer.page(&path).await.contains(&take_back));
        assert_eq!(viewer.get(&take_back).await.status, StatusCode::FORBIDDEN);
        assert_eq!(viewer.post(&take_back, &[]).await.status, StatusCode::FORBIDDEN);
        let said = operator.page(&take_back).await;
        assert!(said.contains("its 3 failed attempts of release R2 are forgotten"), "{said}");
        operator.post(&take_back, &[]).await.leads_to();
        assert_eq!(operator.get(&take_back).await.status, StatusCode::NOT_FOUND);
        assert!(operator.page(&retry).await.contains("1 vehicle that"));
        let by_bob = audited(&world).await.into_iter().filter(|(actor, _)| actor == "user:bob");
        let actions: Vec<_> = by_bob.map(|(_, action)| action).collect();
        assert_eq!(
            actions,
            ["user.created", "user.signed_in", "campaign.retried", "campaign.retried", "vehicle.taken_back"]
        );
    }
}

#[tokio::test]
async fn a_campaign_says_when_it_will_be_done_as_soon_as_something_speaks_for_it() {
    let world = World::new();
    let mut cars = Vec::new();
    for number in 0..8 {
        cars.push(Car::known(&world, &format!("V{number}")).await);
    }
    world.campaign_for_all().await;
    let mut browser = Browser::admin(&world).await;
    let path = format!("/campaigns/{CAMPAIGN}");
    let page = browser.page(&path).await;
    assert!(
        page.contains("not known yet: it takes 2 minutes, and 5 vehicles that have ended lately."),
        "{page}"
    );
    for car in cars.iter().take(6) {
        failed(&world, car).await;
    }
    browser.later(600_000);
    for path in [path.as_str(), "/", "/campaigns"] {
        let page = browser.page(path).await;
        assert!(page.contains("about 3 min"), "{path}: {page}");
    }
    let page = browser.page(&path).await;
    assert!(page.contains("about 3 min: 2 vehicles remain, 6 ended in the last 10 min"), "{page}");
    browser.post(&format!("{path}/pause"), &[]).await.leads_to();
    let page = browser.page(&path).await;
    assert!(page.contains("does not go on now") && page.contains("<option value=\"rolled_back\""), "{page}");
    let rolled_back = browser.page(&format!("{path}?state=rolled_back")).await;
    assert!(rolled_back.contains("<option value=\"rolled_back\" selected>"), "{rolled_back}");
    assert!(rolled_back.contains("/vehicles/V0\"") && !rolled_back.contains("/vehicles/V7\""));
}
