use std::collections::BTreeSet;

use super::*;

/// The lists, as the document has them; what their addresses name is there.
fn lists() -> Vec<String> {
    let document = operation::openapi(&routes::operations());
    let paths = document["paths"].as_object().unwrap().iter();
    let lists = paths.filter(|(_, methods)| {
        let parameters = methods["get"]["parameters"].as_array();
        parameters.is_some_and(|parameters| parameters.iter().any(|one| one["name"] == "limit"))
    });
    lists
        .map(|(path, _)| {
            let name = if path.contains("/campaigns/") { "C2" } else { "all" };
            path.trim_start_matches("/api/v1").replace("{vehicle_id}", "V1").replace("{name}", name)
        })
        .collect()
}

async fn with_lists() -> (World, Operator) {
    let world = World::new();
    let operator = Operator::of(&world).await;
    Car::known(&world, "V1").await;
    operator.release("R2").await;
    operator.post("/campaigns", json!({"name": "C2", "release": "R2"})).await;
    operator.post("/groups", json!({"name": "all", "query": "not tag = \"none\""})).await;
    operator
        .post("/webhooks", json!({"name": "all", "url": "https://hooks.example.com/", "types": ["*"]}))
        .await;
    (world, operator)
}

#[tokio::test]
async fn every_list_bounds_its_pages_and_takes_only_places_that_it_gave() {
    let (_world, operator) = with_lists().await;
    let lists = lists();
    assert!(lists.len() >= 12, "{lists:?}");
    for list in &lists {
        assert!(operator.get(&format!("{list}?limit=1")).await["items"].is_array(), "{list}");
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=x", "after=%21", "after=eA", "other=1"] {
            let answer = operator.call("GET", &format!("/api/v1{list}?{query}"), "").await;
            refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "");
        }
    }
    // What answers a list in pages and is no list of this kind.
    let document = operation::openapi(&routes::operations());
    for (path, methods) in document["paths"].as_object().unwrap() {
        let schema = &methods["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        let is_page = schema.as_str().is_some_and(|name| name.contains("Page"));
        let is_list = methods["get"]["parameters"]
            .as_array()
            .is_some_and(|parameters| parameters.iter().any(|one| one["name"] == "limit"));
        // The feed of changes goes by their numbers.
        assert!(!is_page || is_list || path == "/api/v1/events", "{path}");
    }
}

/// What was there before the first page comes once, whatever is put in and taken out between the pages.
#[tokio::test]
async fn pages_stay_right_while_the_list_changes() {
    let (_world, operator) = with_lists().await;
    let group = |name: &str| json!({"name": name, "query": "region = \"KR\""});
    let before: BTreeSet<String> = ["b", "d", "f", "h", "k"].map(str::to_owned).into();
    for name in &before {
        operator.post("/groups", group(name)).await;
    }
    let (mut seen, mut path, mut round) = (Vec::new(), "/groups?limit=2".to_owned(), 0);
    loop {
        let page = operator.get(&path).await;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/groups?limit=2&after={next}");
        // Before, between and behind what was shown.
        for name in [format!("a{round}"), format!("e{round}"), format!("g{round}")] {
            assert_eq!(operator.post("/groups", group(&name)).await.0, StatusCode::CREATED);
        }
        operator.call("DELETE", "/api/v1/groups/all", "").await;
        round += 1;
    }
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "{seen:?}");
    assert!(before.is_subset(&once), "{seen:?}");
    assert!(seen.is_sorted(), "{seen:?}");
}
