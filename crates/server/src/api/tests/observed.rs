use super::*;

async fn plain(operator: &Operator, path: &str, token: Option<&str>) -> (StatusCode, String) {
    let mut request = Request::builder().uri(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Body::empty()).unwrap();
    let response = operator.router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_is_told_to_everybody_and_ends_with_what_it_rests_on() {
    let mut world = World::new();
    let operator = Operator::of(&world).await;
    let (status, body) = plain(&operator, "/readyz", None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({
            "status": "ready", "checks": {"certificates": "ok", "listeners": "ok", "store": "ok"}, "alarms": [],
        })
    );
    world.now = START.plus_seconds(60_000);
    let (status, body) = plain(&Operator::of(&world).await, "/readyz", None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(
        body.contains(r#""alarms":["revocation_list"]"#),
        "it ends soon, and lets vehicles in until then: {body}"
    );
    world.now = START.plus_seconds(100_001);
    let (status, body) = plain(&Operator::of(&world).await, "/readyz", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(r#""certificates":"failed""#) && body.contains(r#""store":"ok""#), "{body}");
    let another = Operator::of(&world).await;
    world.store.close().await;
    let (status, body) = plain(&another, "/readyz", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(r#""store":"failed""#), "{body}");
}

#[tokio::test]
async fn metrics_count_what_was_done_and_name_no_vehicle() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (status, _) = plain(&operator, "/metrics", None).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);

    world.campaign_for_all().await;
    let car = Car::known(&world, "UNMISTAKABLE").await;
    car.send_octets(&world, UpTopic::Result, "{".into()).await;
    operator.get("/vehicles").await;
    let (status, text) = plain(&operator, "/metrics", Some("secret of viewer")).await;
    assert_eq!(status, StatusCode::OK);
    for expected in [
        "farrier_vehicles 1",
        "farrier_vehicle_updates{state=\"checking_readiness\"} 1",
        "farrier_outbox_commands ",
        "farrier_refusals_total{code=\"MALFORMED_JSON\"} ",
        "farrier_commit_seconds_bucket",
        "farrier_tls_expires_seconds{of=\"revocation_list\"} 100000",
        "route=\"/api/v1/vehicles\"",
    ] {
        assert!(text.contains(expected), "expected {expected} in {text}");
    }
    assert!(!text.contains("UNMISTAKABLE"));
}
