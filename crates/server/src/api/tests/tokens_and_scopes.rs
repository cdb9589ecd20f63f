use super::*;
use crate::access::Permission;

async fn with_token(
    operator: &Operator,
    token: &str,
    method: &str,
    path: &str,
    body: Value,
) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(format!("/api/v1{path}"));
    let request = request.header("authorization", format!("Bearer {token}"));
    operator.send(request.body(Body::from(body.to_string())).unwrap()).await
}

/// Who may do what, written out a second time: a change of the table is a change here, on purpose.
const NEEDS: &[(&str, &str, Permission)] = &[
    ("GET", "/vehicles", Permission::View),
    ("POST", "/vehicles", Permission::Operate),
    ("POST", "/vehicles/import", Permission::Operate),
    ("GET", "/vehicles/{vehicle_id}", Permission::View),
    ("PATCH", "/vehicles/{vehicle_id}", Permission::Operate),
    ("GET", "/vehicles/{vehicle_id}/configurations", Permission::View),
    ("GET", "/vehicles/{vehicle_id}/bindings", Permission::View),
    ("POST", "/vehicles/{vehicle_id}/rebind", Permission::Operate),
    ("GET", "/vehicles/{vehicle_id}/why", Permission::View),
    ("GET", "/vehicles/{vehicle_id}/messages", Permission::View),
    ("POST", "/vehicles/{vehicle_id}/ask-inventory", Permission::Operate),
    ("POST", "/vehicles/{vehicle_id}/release", Permission::Operate),
    ("DELETE", "/vehicles/{vehicle_id}/set-aside/{release}", Permission::Operate),
    ("GET", "/set-aside", Permission::View),
    ("GET", "/refused-messages", Permission::View),
    ("GET", "/security-events", Permission::View),
    ("POST", "/selections/explain", Permission::View),
    ("GET", "/groups", Permission::View),
    ("POST", "/groups", Permission::Operate),
    ("GET", "/groups/{name}", Permission::View),
    ("PUT", "/groups/{name}", Permission::Operate),
    ("DELETE", "/groups/{name}", Permission::Operate),
    ("GET", "/groups/{name}/vehicles", Permission::View),
    ("PUT", "/images/{sha256}", Permission::Release),
    ("GET", "/uploads", Permission::View),
    ("POST", "/uploads", Permission::Release),
    ("GET", "/uploads/{sha256}", Permission::View),
    ("PATCH", "/uploads/{sha256}", Permission::Release),
    ("DELETE", "/uploads/{sha256}", Permission::Release),
    ("GET", "/releases", Permission::View),
    ("POST", "/releases", Permission::Release),
    ("GET", "/releases/{name}", Permission::View),
    ("DELETE", "/releases/{name}", Permission::Release),
    ("GET", "/campaigns", Permission::View),
    ("POST", "/campaigns", Permission::Operate),
    ("POST", "/campaigns/dry-run", Permission::View),
    ("GET", "/campaigns/{name}", Permission::View),
    ("POST", "/campaigns/{name}/start", Permission::Operate),
    ("POST", "/campaigns/{name}/approve", Permission::Operate),
    ("POST", "/campaigns/{name}/reject", Permission::Operate),
    ("POST", "/campaigns/{name}/pause", Permission::Operate),
    ("POST", "/campaigns/{name}/resume", Permission::Operate),
    ("POST", "/campaigns/{name}/open-wave", Permission::Operate),
    ("POST", "/campaigns/{name}/retry", Permission::Operate),
    ("POST", "/campaigns/{name}/abort", Permission::Operate),
    ("GET", "/campaigns/{name}/vehicles", Permission::View),
    ("POST", "/campaigns/{name}/vehicles/{vehicle_id}/cancel", Permission::Operate),
    ("POST", "/campaigns/{name}/vehicles/{vehicle_id}/rollback", Permission::Operate),
    ("GET", "/evidence/key", Permission::View),
    ("GET", "/evidence/rxswins", Permission::View),
    ("POST", "/evidence/rxswins", Permission::Release),
    ("GET", "/evidence/campaigns/{name}", Permission::View),
    ("GET", "/evidence/vehicles/{vehicle_id}", Permission::View),
    ("GET", "/webhooks", Permission::Administer),
    ("POST", "/webhooks", Permission::Administer),
    ("GET", "/webhooks/{name}", Permission::Administer),
    ("PATCH", "/webhooks/{name}", Permission::Administer),
    ("DELETE", "/webhooks/{name}", Permission::Administer),
    ("POST", "/webhooks/{name}/rotate-secret", Permission::Administer),
    ("POST", "/webhooks/{name}/test", Permission::Administer),
    ("GET", "/webhooks/{name}/deliveries", Permission::Administer),
    ("POST", "/webhooks/{name}/deliveries/{delivery_id}/redeliver", Permission::Administer),
    ("GET", "/tokens", Permission::Administer),
    ("POST", "/tokens", Permission::Administer),
    ("GET", "/tokens/{name}", Permission::Administer),
    ("POST", "/tokens/{name}/revoke", Permission::Administer),
    ("GET", "/users", Permission::Administer),
    ("POST", "/users", Permission::Administer),
    ("POST", "/users/{name}/scope", Permission::Administer),
    ("POST", "/users/{name}/sign-out", Permission::Administer),
    ("POST", "/users/{name}/disable", Permission::Administer),
    ("POST", "/users/{name}/enable", Permission::Administer),
    ("GET", "/audit", Permission::View),
    ("GET", "/events", Permission::View),
    ("GET", "/openapi.json", Permission::View),
];

#[tokio::test]
async fn every_operation_lets_in_exactly_the_scopes_that_it_needs() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let table: Vec<_> = routes::operations()
        .iter()
        .map(|operation| {
            let (method, path, needs) = operation.key();
            (method.to_string(), path, needs)
        })
        .collect();
    let expected: Vec<_> =
        NEEDS.iter().map(|(method, path, needs)| ((*method).to_owned(), *path, *needs)).collect();
    assert_eq!(table, expected);

    for (method, path, needs) in table {
        // What is asked for is not there, or the request is wrong: but for the scope it is looked at.
        let path = path
            .replace("{vehicle_id}", "V9")
            .replace("{name}", "none")
            .replace("{release}", "none")
            .replace("{delivery_id}", "none")
            .replace("{sha256}", &"0".repeat(64));
        for scope in Scope::ALL {
            let token = format!("secret of {}", scope.name());
            let (status, body) = with_token(&operator, &token, &method, &path, json!({})).await;
            if scope.may(needs) {
                assert_ne!(status, StatusCode::FORBIDDEN, "{method} {path} {scope:?}: {body}");
                assert_ne!(status, StatusCode::UNAUTHORIZED, "{method} {path} {scope:?}: {body}");
            } else {
                assert_eq!(body["needed_scopes"], json!(needs.scopes()), "{method} {path} {scope:?}");
                refused((status, body), StatusCode::FORBIDDEN, "FORBIDDEN", scope.name());
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_once_and_opens_until_it_is_revoked() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (status, made) = operator.post("/tokens", json!({"name": "ci", "scope": "release_manager"})).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let secret = made["token"].as_str().unwrap();
    assert!(secret.starts_with("farrier_"), "{secret}");
    assert_eq!(made["created_by"], "token:admin");
    let ask = || with_token(&operator, secret, "GET", "/vehicles", Value::Null);
    assert_eq!(ask().await.0, StatusCode::OK);

    let again = operator.post("/tokens", json!({"name": "ci", "scope": "viewer"})).await;
    refused(again, StatusCode::CONFLICT, "TOKEN_EXISTS", "another name");
    let listed = operator.get("/tokens").await;
    assert!(!listed.to_string().contains(secret));
    let ci = listed["items"].as_array().unwrap().iter().find(|token| token["name"] == "ci").unwrap();
    assert_eq!((&ci["scope"], &ci["usable"]), (&json!("release_manager"), &json!(true)));

    for _ in 0..2 {
        let (status, revoked) = operator.post("/tokens/ci/revoke", json!({})).await;
        assert_eq!((status, &revoked["usable"]), (StatusCode::OK, &json!(false)));
    }
    refused(ask().await, StatusCode::UNAUTHORIZED, "UNAUTHORISED", "was revoked");
    let unknown = operator.post("/tokens/none/revoke", json!({})).await;
    refused(unknown, StatusCode::NOT_FOUND, "NOT_FOUND", "none");
    let taken = operator.post("/tokens", json!({"name": "ci", "scope": "viewer"})).await;
    refused(taken, StatusCode::CONFLICT, "TOKEN_EXISTS", "is or was");
}

#[tokio::test]
async fn a_token_expires_when_it_was_said_to() {
    let mut world = World::new();
    let operator = Operator::of(&world).await;
    let new = json!({"name": "guest", "scope": "viewer", "expires_in_s": 60});
    let (_, made) = operator.post("/tokens", new).await;
    let secret = made["token"].as_str().unwrap();
    assert_eq!(made["expires_at_ms"], START.plus_seconds(60).0);
    world.now = START.plus_seconds(59);
    let earlier = Operator::of(&world).await;
    assert_eq!(with_token(&earlier, secret, "GET", "/vehicles", Value::Null).await.0, StatusCode::OK);
    world.now = START.plus_seconds(60);
    let later = Operator::of(&world).await;
    let answer = with_token(&later, secret, "GET", "/vehicles", Value::Null).await;
    refused(answer, StatusCode::UNAUTHORIZED, "UNAUTHORISED", "has expired");
    for life in [0, 4_000_000_000_u64] {
        let new = json!({"name": "x", "scope": "viewer", "expires_in_s": life});
        let answer = operator.post("/tokens", new).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "expires_in_s");
    }
}

#[tokio::test]
async fn the_last_admin_is_not_locked_out() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let answer = operator.post("/tokens/admin/revoke", json!({})).await;
    refused(answer, StatusCode::CONFLICT, "LAST_ADMIN", "another one first");
    operator.post("/tokens", json!({"name": "second", "scope": "admin"})).await;
    assert_eq!(operator.post("/tokens/admin/revoke", json!({})).await.0, StatusCode::OK);
}

#[tokio::test]
async fn lists_come_in_pages_that_miss_nothing_and_repeat_nothing() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for number in 0..7 {
        let vehicle = json!({"vehicle_id": format!("V{number}"), "gateway_id": "G"});
        operator.post("/vehicles", vehicle).await;
    }
    let mut ids = Vec::new();
    let mut path = "/vehicles?limit=3".to_owned();
    loop {
        let page = operator.get(&path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        ids.extend(items.iter().map(|vehicle| vehicle["vehicle_id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/vehicles?limit=3&after={next}");
    }
    assert_eq!(ids, ["V0", "V1", "V2", "V3", "V4", "V5", "V6"]);
    for query in ["limit=0", "limit=1001", "limit=x", "after=%21", "after=eA", "other=1"] {
        for list in ["/vehicles", "/refused-messages", "/audit"] {
            let answer = operator.call("GET", &format!("/api/v1{list}?{query}"), "").await;
            refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "");
        }
    }
}

#[tokio::test]
async fn refused_messages_of_one_moment_are_all_listed() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    for number in 0..5 {
        car.send_octets(&world, UpTopic::Result, format!("{{{number}").into()).await;
    }
    let first = operator.get("/refused-messages?limit=3").await;
    let second =
        operator.get(&format!("/refused-messages?limit=3&after={}", first["next"].as_str().unwrap())).await;
    let payloads: std::collections::BTreeSet<_> = [&first, &second]
        .into_iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|refused| refused["payload"].as_str().unwrap())
        .collect();
    assert_eq!(payloads.len(), 5);
    assert!(second.get("next").is_none());
}
