//! Planning a campaign: nothing is lost on the way, refusals stand at their input, and what comes of it is what the API makes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::new_campaign;
use crate::store::campaigns;
use crate::store::test_database::TestDatabase;

/// What a browser would send of a page's form by the button with this value: all successful inputs, by name.
pub(super) fn sent(page: &str, go: &str) -> Vec<(String, String)> {
    let form =
        page.split("<form id=\"plan\"").nth(1).expect("there is a form").split("</form>").next().unwrap();
    let mut all = inputs(form);
    assert!(form.contains(&format!("value=\"{go}\"")), "there is no button {go}: {form}");
    all.insert("go".to_owned(), go.to_owned());
    all.into_iter().collect()
}

pub(super) fn inputs(form: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for tag in form.split('<').skip(1) {
        let (inside, text) = tag.split_once('>').unwrap_or((tag, ""));
        let attribute = |name: &str| {
            let value = inside.split(&format!(" {name}=\"")).nth(1)?;
            Some(unescaped(value.split('"').next()?))
        };
        let Some(name) = attribute("name") else { continue };
        if inside.starts_with("input") {
            let is_box = inside.contains("type=\"checkbox\"");
            if !is_box || inside.ends_with(" checked") || inside.contains(" checked ") {
                let value = attribute("value").unwrap_or_else(|| "on".to_owned());
                // Of one line, whatever it had.
                let is_line = !inside.contains("type=\"hidden\"") && !is_box;
                let value = if is_line { value.replace(['\r', '\n'], "") } else { value };
                all.insert(name, value);
            }
        } else if inside.starts_with("textarea") {
            // The line break right after the tag is none of the value; browsers send CR LF.
            let text = unescaped(text.strip_prefix('\n').unwrap_or(text));
            all.insert(name, text.replace('\n', "\r\n"));
        } else if inside.starts_with("select") {
            let rest = form.split(&format!("<{inside}>")).nth(1).unwrap().split("</select>").next().unwrap();
            let options: Vec<&str> = rest.split("<option ").skip(1).collect();
            let chosen = options.iter().find(|option| option.contains("\" selected>")).or(options.first());
            let value = chosen.unwrap().split("value=\"").nth(1).unwrap().split('"').next().unwrap();
            all.insert(name, unescaped(value));
        }
    }
    all
}

fn unescaped(text: &str) -> String {
    text.replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#38;", "&")
}

impl Browser {
    /// Presses a button of the page's form, after typing over some inputs; an empty tick is off.
    pub(super) async fn press(&mut self, page: &str, go: &str, typed: &[(&str, &str)]) -> Answer {
        let mut form: BTreeMap<String, String> = sent(page, go).into_iter().collect();
        for (name, value) in typed {
            assert!(page.contains(&format!("name=\"{name}\"")), "there is no input {name}");
            form.insert((*name).to_owned(), (*value).to_owned());
        }
        let form: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.post("/plan", &form).await
    }

    pub(super) async fn pressed(&mut self, page: &str, go: &str, typed: &[(&str, &str)]) -> String {
        let answer = self.press(page, go, typed).await;
        assert_eq!(answer.status, StatusCode::OK, "{go}: {}", answer.body);
        answer.body
    }
}

pub(super) async fn world_with_cars(world: World) -> World {
    world.release("R2", "2").await;
    for vehicle in ["V1", "V2", "V3"] {
        Car::known(&world, vehicle).await;
    }
    world
}

#[tokio::test]
async fn a_campaign_is_planned_step_by_step_looked_at_dry_and_started() {
    for database in TestDatabase::both() {
        let world = world_with_cars(World::on(database)).await;
        let mut browser = Browser::admin(&world).await;
        let page = browser.page("/plan?release=R2").await;
        assert!(page.contains("3 vehicles match."), "{page}");
        let page = browser.pressed(&page, "next", &[("name", "winter")]).await;
        let page = browser.pressed(&page, "next", &[("waves-0-size_number", "34")]).await;
        let page = browser.pressed(&page, "next", &[("vehicles_at_once", "50")]).await;
        let page = browser.pressed(&page, "next", &[]).await;
        assert!(page.contains("<dd>6.0 KB</dd>"), "the dry run says what travels: {page}");
        assert!(page.contains("list:would_update:"), "{page}");
        let listed = browser.pressed(&page, "list:would_update:", &[]).await;
        assert!(listed.contains("href=\"/vehicles/V3\""), "{listed}");
        assert!(audited(&world).await.iter().all(|(_, action)| action != "campaign.created"));
        let asked = browser.pressed(&listed, "start", &[]).await;
        assert!(asked.contains("3 vehicles are taken in and get release R2"), "{asked}");
        assert!(asked.contains("Wave 1 with 2 vehicles opens at once."), "{asked}");
        assert!(audited(&world).await.iter().all(|(_, action)| action != "campaign.created"));
        let answer = browser.press(&asked, "start-now", &[]).await;
        assert_eq!(answer.leads_to(), "/campaigns/winter");
        let campaign = world.read(|tx| campaigns::by_name(tx, &text("winter"))).await.unwrap();
        assert!(campaign.started_at.is_some());
        assert_eq!(campaign.rollout.vehicles_at_once, Some(50));
        assert_eq!(campaign.rollout.waves.len(), 3);
        let by_alice = audited(&world).await.into_iter().filter(|(actor, _)| actor == "user:alice");
        let actions: Vec<_> = by_alice.map(|(_, action)| action).collect();
        assert!(
            actions.ends_with(&["campaign.created".to_owned(), "campaign.started".to_owned()]),
            "{actions:?}"
        );
        // The same once more is refused at the name, and keeps the rest.
        let answer = browser.press(&asked, "start-now", &[]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.body.contains("id=\"name-fault\"") && answer.body.contains("value=\"winter\""));
    }
}

#[tokio::test]
async fn the_campaign_is_what_the_api_makes_of_the_same_document() {
    let world = world_with_cars(World::new()).await;
    let mut browser = Browser::admin(&world).await;
    browser.post("/groups", &[("name", "pilots"), ("query", "region = \"KR\"")]).await;
    let typed = [
        ("name", "by-console"),
        ("release", "R2"),
        ("whom", "where"),
        ("query", "region = \"KR\"\r\nor tag = \"x\""),
        ("follows", "on"),
        ("stop_failures", "7"),
        ("stop_failed_percent", "3"),
        ("waves-0-size", "group"),
        ("waves-0-size_group", "pilots"),
        ("waves-0-opens", "at"),
        ("waves-0-opens_at", "2027-01-15T22:00"),
        ("waves-0-stop_failures", "1"),
        ("waves-0-stop_inconsistent", "on"),
        ("waves-1-size", "vehicles"),
        ("waves-1-size_number", "2"),
        ("waves-1-opens", "after_success_percent"),
        ("waves-1-opens_percent", "90"),
        ("waves-2-size", "rest"),
        ("waves-2-opens", "by_approval"),
        ("vehicles_at_once", "10"),
        ("starts_per_minute", "5"),
        ("bytes_per_second", "20 MB"),
        ("spread_s", "10 min"),
        ("time_zone", "Asia/Seoul"),
        ("not_before", "2027-01-15T08:00"),
        ("not_after", "2027-03-01T05:00"),
        ("windows-0-from", "22:00"),
        ("windows-0-to", "05:00"),
        ("windows-0-mon", "on"),
        ("windows-0-sun", "on"),
        ("retries-0-code", "BUSY"),
        ("retries-0-attempts", "3"),
        ("retries-0-pause_s", "30 min"),
        ("retries-0-factor", "2"),
        ("update_deadline_s", "24 h"),
        ("priority", "700"),
        ("needs_approval", "on"),
        ("purpose", "a fix"),
        ("step", "review"),
        ("go", "create"),
    ];
    assert_eq!(browser.post("/plan", &typed).await.leads_to(), "/campaigns/by-console");
    let document = json!({
        "name": "by-api", "release": "R2", "where": "region = \"KR\" or tag = \"x\"", "follows": true,
        "update_deadline_s": 86_400, "priority": 700, "needs_approval": true,
        "statement": {"purpose": "a fix"},
        "rollout": {
            "stop": {"failures": 7, "failed_percent": 3, "inconsistent": false},
            "waves": [
                {"size": {"group": "pilots"}, "opens": {"at": 1_800_050_400_000_i64},
                 "stop": {"failures": 1, "inconsistent": true}},
                {"size": {"vehicles": 2}, "opens": {"after_success_percent": 90}, "stop": {"inconsistent": false}},
                {"size": "rest", "opens": "by_approval", "stop": {"inconsistent": false}},
            ],
            "vehicles_at_once": 10, "starts_per_minute": 5, "bytes_per_second": 20_000_000, "spread_s": 600,
            "time_zone": "Asia/Seoul", "not_before": 1_800_000_000_000_i64, "not_after": 1_803_877_200_000_i64,
            "windows": [{"days": ["mon", "sun"], "from": "22:00", "to": "05:00"}],
            "retries": [{"code": "BUSY", "attempts": 3, "pause_s": 1_800, "factor": 2}],
        },
    });
    let caller = crate::api::Caller::of_user("alice", Scope::Admin, None, "r".to_owned());
    let new = crate::api::Document(serde_json::from_value(document).unwrap());
    let made = new_campaign::create(axum::extract::State(browser.console.api.clone()), caller, new).await;
    assert_eq!(made.unwrap().0, StatusCode::CREATED);
    let audited = world.read(|tx| {
        let of = |name: &str| campaigns::by_name(tx, &text(name)).map(|campaign| campaign.unwrap());
        let (console, api) = (of("by-console")?, of("by-api")?);
        let stated = |name: &str| crate::store::evidence::statement(tx, &text(name));
        assert_eq!(stated("by-console")?, stated("by-api")?);
        assert_eq!(console.intake, api.intake);
        assert_eq!(
            (console.update_deadline_s, console.every_vehicle),
            (api.update_deadline_s, api.every_vehicle)
        );
        Ok((console.rollout, api.rollout))
    });
    let (console, api) = audited.await;
    assert_eq!(console, api);

    // And another one like it begins with all of it but its name.
    let page = browser.page("/plan?like=by-console").await;
    let page = browser.pressed(&page, "next", &[("name", "again")]).await;
    let page = browser.pressed(&page, "to-review", &[]).await;
    assert_eq!(browser.press(&page, "create", &[]).await.leads_to(), "/campaigns/again");
    let again = world.read(|tx| campaigns::by_name(tx, &text("again"))).await.unwrap();
    assert_eq!(again.rollout, api);
    assert!(again.intake.needs_approval && again.intake.follows);
    // The start is not offered where somebody else has to look first.
    assert!(!page.contains("value=\"start\""));
}

#[tokio::test]
async fn a_refusal_stands_at_its_input_and_keeps_what_was_typed() {
    let world = world_with_cars(World::new()).await;
    let mut browser = Browser::admin(&world).await;
    let first = browser.page("/plan").await;
    for (typed, input) in [
        (vec![("name", "two words"), ("release", "R2")], "name"),
        (vec![("name", "winter"), ("release", "R9")], "release"),
        (
            vec![("name", "winter"), ("release", "R2"), ("whom", "where"), ("query", "regoin = \"KR\"")],
            "query",
        ),
        (
            vec![("name", "winter"), ("release", "R2"), ("whom", "where"), ("query", "region = \"XX\"")],
            "query",
        ),
        (vec![("name", "winter"), ("release", "R2"), ("whom", "group"), ("group", "")], "group"),
        (
            vec![("name", "winter"), ("release", "R2"), ("whom", "vehicles"), ("vehicles", "V1\nV9")],
            "vehicles",
        ),
        (vec![("name", "winter"), ("release", "R2"), ("excludes", "spring")], "excludes"),
    ] {
        let answer = browser.press(&first, "next", &typed).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{typed:?}");
        assert!(answer.body.contains(&format!("id=\"{input}-fault\"")), "{typed:?}: {}", answer.body);
        assert!(answer.body.contains("role=\"alert\""));
        let kept: BTreeMap<String, String> = sent(&answer.body, "next").into_iter().collect();
        for (name, value) in typed {
            assert_eq!(kept[name].replace("\r\n", "\n"), value, "{name}");
        }
    }
    let wrong =
        browser.press(&first, "next", &[("whom", "where"), ("query", "region = \"KR\" and\nregoin = \"x\"")]);
    assert!(wrong.await.body.contains("<mark>regoin</mark>"));

    // Of a later step: it is led back to the step of the input.
    let page = browser.pressed(&first, "next", &[("name", "winter"), ("release", "R2")]).await;
    for (typed, input) in [
        (vec![("waves-0-size_number", "0")], "waves-0-size"),
        (vec![("waves-0-size_number", "many")], "waves-0-size_number"),
        (vec![("waves-1-opens", "at"), ("waves-1-opens_at", "")], "waves-1-opens_at"),
        (vec![("waves-1-opens", "at_once")], "waves-1-opens"),
        (vec![("stop_failed_percent", "0")], "stop_failed_percent"),
        (vec![("waves-1-stop_failed_percent", "101")], "waves-1-stop_failed_percent"),
        (vec![("waves-1-size", "where"), ("waves-1-size_where", "tag =")], "waves-1-size_where"),
        (vec![("waves-1-size", "group"), ("waves-1-size_group", "gone")], "waves-1-size_group"),
    ] {
        for go in ["next", "to-review"] {
            let answer = browser.press(&page, go, &typed).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{typed:?}");
            assert!(answer.body.contains(&format!("id=\"{input}-fault\"")), "{typed:?}: {}", answer.body);
            let kept: BTreeMap<String, String> = sent(&answer.body, "next").into_iter().collect();
            assert_eq!(kept["name"], "winter");
        }
        // Nobody is kept from going back.
        let back = browser.press(&page, "back", &typed).await;
        assert_eq!(back.status, StatusCode::OK);
    }
    let page = browser.pressed(&page, "to-pace", &[]).await;
    let page = browser.pressed(&page, "add-window", &[]).await;
    for (name, value) in
        [("windows-0-from", "25:00"), ("bytes_per_second", "1 KB"), ("time_zone", "Mars/Base")]
    {
        let answer = browser.press(&page, "next", &[(name, value)]).await;
        assert!(answer.body.contains(&format!("id=\"{name}-fault\"")), "{name}: {}", answer.body);
    }
    assert!(audited(&world).await.iter().all(|(_, action)| action != "campaign.created"));
}

#[tokio::test]
async fn waves_windows_and_rules_are_added_and_taken_away() {
    let world = world_with_cars(World::new()).await;
    let mut browser = Browser::admin(&world).await;
    let page = browser.page("/plan").await;
    let page = browser.pressed(&page, "to-waves", &[("name", "winter")]).await;
    let page = browser.pressed(&page, "add-wave", &[("waves-0-size_number", "7")]).await;
    let form: BTreeMap<String, String> = sent(&page, "next").into_iter().collect();
    assert_eq!((form["waves-0-size_number"].as_str(), form["waves-3-size"].as_str()), ("7", "rest"));
    let page = browser.pressed(&page, "drop-waves-0", &[]).await;
    let form: BTreeMap<String, String> = sent(&page, "next").into_iter().collect();
    assert_eq!((form["waves-0-size_number"].as_str(), form.contains_key("waves-3-size")), ("10", false));
    let page = browser.pressed(&page, "to-rules", &[]).await;
    let page = browser.pressed(&page, "add-retry", &[]).await;
    let page = browser.pressed(&page, "add-retry", &[("retries-0-attempts", "5")]).await;
    let page = browser.pressed(&page, "drop-retries-1", &[]).await;
    let form: BTreeMap<String, String> = sent(&page, "next").into_iter().collect();
    assert_eq!((form["retries-0-attempts"].as_str(), form.contains_key("retries-1-code")), ("5", false));
    assert_eq!(form["name"], "winter");
}

#[tokio::test]
async fn a_viewer_plans_nothing() {
    let world = world_with_cars(World::new()).await;
    let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
    assert!(!viewer.page("/campaigns").await.contains("/plan"));
    assert_eq!(viewer.get("/plan").await.status, StatusCode::FORBIDDEN);
    let form = [("step", "review"), ("go", "create"), ("name", "winter"), ("release", "R2"), ("whom", "all")];
    assert_eq!(viewer.post("/plan", &form).await.status, StatusCode::FORBIDDEN);
    assert!(audited(&world).await.iter().all(|(_, action)| action != "campaign.created"));
}

#[tokio::test]
async fn how_many_vehicles_are_selected_is_told_while_it_is_typed() {
    let world = world_with_cars(World::new()).await;
    let mut browser = Browser::admin(&world).await;
    let selected =
        |query: &str| vec![("whom".to_owned(), "where".to_owned()), ("query".to_owned(), query.to_owned())];
    for (query, told) in [
        ("vehicle in (\"V1\", \"V2\")", "2 vehicles match."),
        ("vehicle = ", "<mark>(end)</mark>"),
        ("", "Type a query"),
        ("<b>", "<mark>&#60;</mark>"),
    ] {
        let form = selected(query);
        let form: Vec<_> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = browser.post("/plan/selected", &form).await;
        assert!(answer.body.contains(told), "{query}: {}", answer.body);
        let answer = browser.get(&format!("/selected?query={}", encoded(query))).await;
        assert!(answer.body.contains(told), "{query}: {}", answer.body);
    }
}

/// Texts that nobody should type, and some that many will.
fn typed() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "[ -~]{0,12}",
        "\\PC{0,12}",
        Just("<b>\"&#34;'&amp;".to_owned()),
        Just("가나다".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    /// Whatever was typed, every page carries all of it on, whichever way somebody goes.
    #[test]
    fn nothing_is_lost_on_the_way(
        texts in proptest::collection::vec(typed(), 40),
        ticks in proptest::collection::vec(any::<bool>(), 12),
        lines in "[ -~]{0,8}\n[ -~]{0,8}\n",
        steps in proptest::collection::vec(0_usize..6, 1..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            let mut browser = Browser::admin(&world).await;
            let first = browser.page("/plan").await;
            let mut form: BTreeMap<String, String> = sent(&first, "next").into_iter().collect();
            let choices = ["whom", "group", "waves-0-size", "waves-1-size", "waves-2-size", "waves-0-opens",
                "waves-1-opens", "waves-2-opens", "waves-0-size_group", "waves-1-size_group", "waves-2-size_group",
                "step", "go", "follows", "needs_approval"];
            let ticked = ["stop_inconsistent", "waves-0-stop_inconsistent", "waves-1-stop_inconsistent", "waves-2-stop_inconsistent"];
            let names: Vec<String> = form.keys().cloned().collect();
            for (name, text) in names.iter().filter(|name| !choices.contains(&name.as_str())).zip(texts.iter().cycle()) {
                // An input of a time takes nothing else.
                let value = if name.ends_with("opens_at") || name.starts_with("not_") { "2027-01-15T22:00" } else { text };
                form.insert(name.clone(), value.to_owned());
            }
            form.insert("query".to_owned(), lines.clone());
            form.insert("group".to_owned(), texts[0].clone());
            for (name, is_on) in ticked.iter().chain(&["follows", "needs_approval"]).zip(&ticks) {
                form.remove(*name);
                if *is_on {
                    form.insert((*name).to_owned(), "on".to_owned());
                }
            }
            let expected = |form: &BTreeMap<String, String>| {
                let mut form = form.clone();
                form.remove("go");
                form.remove("step");
                form.into_iter().map(|(name, value)| (name, value.replace("\r\n", "\n"))).collect::<BTreeMap<_, _>>()
            };
            let before = expected(&form);
            for step in steps {
                let path = match ["vehicles", "waves", "pace", "rules"].get(step) {
                    Some(step) => {
                        form.insert("go".to_owned(), format!("to-{step}"));
                        "/plan"
                    }
                    None => {
                        form.remove("go");
                        ["/plan?language=ko", "/plan?theme=dark"][step % 2]
                    }
                };
                let pairs: Vec<(&str, &str)> = form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let answer = browser.post(path, &pairs).await;
                assert_eq!(answer.status, StatusCode::OK);
                form = sent(&answer.body, "to-vehicles").into_iter().collect();
                assert_eq!(expected(&form), before);
            }
        });
    }
}
