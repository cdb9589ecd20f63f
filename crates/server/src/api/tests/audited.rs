use super::*;
use crate::audit::{AuditEntry, AuditHead, ChainCheck};
use crate::store::console_users::{self, ConsoleUser};
use crate::store::set_aside::{self, FailedAttempt};
use crate::testbed::text;

async fn entries(operator: &Operator) -> (Vec<AuditEntry>, AuditHead) {
    let page = operator.get("/audit?first=oldest&limit=1000").await;
    (
        serde_json::from_value(page["items"].clone()).unwrap(),
        serde_json::from_value(page["head"].clone()).unwrap(),
    )
}

#[tokio::test]
async fn every_operation_that_changes_something_is_in_the_audit_log() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let mut car = Car::known(&world, "V1").await;
    let mut audited: Vec<String> = Vec::new();
    let mut log = |operation: &str| audited.push(operation.to_owned());

    operator.post("/vehicles", json!({"vehicle_id": "V2", "gateway_id": "G"})).await;
    log("POST /vehicles");
    let (status, body) = operator.post("/vehicles/V2/ask-inventory", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = operator.post("/vehicles/V2/ask-inventory", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("INVENTORY_NOT_ASKED")));
    log("POST /vehicles/{vehicle_id}/ask-inventory");
    let sha256 = operator.upload(b"image").await;
    log("PUT /images/{sha256}");
    let images = json!([{"hw_part_no": "HW-1", "version": "2", "sha256": sha256}]);
    operator.post("/releases", json!({"name": "R2", "images": images.clone()})).await;
    log("POST /releases");
    operator.post("/releases", json!({"name": "R9", "images": images})).await;
    let (status, _) = operator.call("DELETE", "/api/v1/releases/R9", "").await;
    assert_eq!(status, StatusCode::OK);
    log("DELETE /releases/{name}");
    operator.post("/campaigns", json!({"name": "C2", "release": "R2", "vehicles": ["V1"]})).await;
    log("POST /campaigns");
    operator.post("/campaigns/C2/start", json!({})).await;
    log("POST /campaigns/{name}/start");
    let (command, _) = car.to_start_download(&world).await;
    car.report(&world, &command, "commit").await;
    car.versions = vec!["2", "2"];
    car.answer_vci(&world).await;
    operator.post("/campaigns/C2/vehicles/V1/rollback", json!({})).await;
    log("POST /campaigns/{name}/vehicles/{vehicle_id}/rollback");
    operator.post("/campaigns", json!({"name": "C3", "release": "R2", "vehicles": ["V2"]})).await;
    operator.post("/campaigns/C3/start", json!({})).await;
    let (status, _) =
        operator.post("/campaigns/C3/vehicles/V2/cancel", json!({"reason": "wrong image"})).await;
    assert_eq!(status, StatusCode::OK);
    log("POST /campaigns/{name}/vehicles/{vehicle_id}/cancel");
    let (_, body) = operator.post("/campaigns/C3/retry", json!({"codes": ["UPDATE_FAILED"]})).await;
    assert_eq!(body, json!({"retried": 0, "set_aside": 0}));
    let (_, body) = operator.post("/campaigns/C3/retry", json!({"codes": ["CANCELLED"]})).await;
    assert_eq!(body, json!({"retried": 1, "set_aside": 0}));
    log("POST /campaigns/{name}/retry");
    let waves = json!([{"size": {"vehicles": 1}}, {"size": "rest", "opens": "by_hand"}]);
    let (status, body) = operator
        .post("/campaigns", json!({"name": "C4", "release": "R2", "rollout": {"waves": waves[0]}}))
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let (status, body) = operator
        .post("/campaigns", json!({"name": "C4", "release": "R2", "rollout": {"vehicles_at_once": 0}}))
        .await;
    let detail = json!("/rollout/vehicles_at_once: expected at least 1, or no such key, found 0.");
    assert_eq!((status, &body["detail"]), (StatusCode::UNPROCESSABLE_ENTITY, &detail));
    let body = json!({"name": "C4", "release": "R2", "rollout": {"waves": waves}, "needs_approval": true});
    operator.post("/campaigns", body).await;
    let (status, body) = operator.post("/campaigns/C4/reject", json!({"remark": "too early"})).await;
    assert_eq!((status, &body["approval"]["state"]), (StatusCode::OK, &json!("rejected")));
    log("POST /campaigns/{name}/reject");
    let (status, body) =
        operator.post_as("operator", "/campaigns/C4/approve", json!({"remark": "looked at it"})).await;
    assert_eq!((status, &body["approval"]["state"]), (StatusCode::OK, &json!("approved")));
    log("POST /campaigns/{name}/approve");
    let (status, body) = operator.post("/campaigns/C4/pause", json!({})).await;
    assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("CAMPAIGN_NOT_STARTED")));
    operator.post("/campaigns/C4/start", json!({})).await;
    // Twice changes nothing, and is not in the log twice.
    for _ in 0..2 {
        let (status, body) = operator.post("/campaigns/C4/pause", json!({})).await;
        assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("paused")));
    }
    log("POST /campaigns/{name}/pause");
    for _ in 0..2 {
        let (status, body) = operator.post("/campaigns/C4/resume", json!({})).await;
        assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("running")));
    }
    log("POST /campaigns/{name}/resume");
    let (status, _) = operator.post("/campaigns/C4/open-wave", json!({})).await;
    assert_eq!(status, StatusCode::OK);
    log("POST /campaigns/{name}/open-wave");
    let (status, body) = operator.post("/campaigns/C4/abort", json!({"reason": "a bad release"})).await;
    assert_eq!(
        (status, &body["state"], &body["abort_reason"]),
        (StatusCode::OK, &json!("aborted"), &json!("a bad release"))
    );
    log("POST /campaigns/{name}/abort");
    for action in ["start", "pause", "resume"] {
        let (status, body) = operator.post(&format!("/campaigns/C4/{action}"), json!({})).await;
        assert_eq!((status, &body["code"]), (StatusCode::CONFLICT, &json!("CAMPAIGN_ABORTED")), "{action}");
    }
    for _ in 0..5 {
        car.reboot(&world, 1_000).await;
    }
    assert!(car.vehicle(&world).await.unwrap().quarantined_at.is_some());
    operator.post("/vehicles/V1/release", json!({})).await;
    log("POST /vehicles/{vehicle_id}/release");
    operator.post("/tokens", json!({"name": "ci", "scope": "viewer"})).await;
    log("POST /tokens");
    operator.post("/tokens/ci/revoke", json!({})).await;
    log("POST /tokens/{name}/revoke");
    let (status, invited) = operator.post("/users", json!({"name": "bob", "scope": "viewer"})).await;
    assert_eq!(status, StatusCode::CREATED, "{invited}");
    log("POST /users");
    let bob = ConsoleUser {
        name: "bob".to_owned(),
        scope: Scope::Viewer,
        created_at: world.now,
        created_by: "token:admin".to_owned(),
        disabled_at: None,
        issuer: None,
    };
    world.write(move |tx, _, _| console_users::add(tx, &bob, "a hash")).await;
    let (status, body) = operator.post("/users/bob/scope", json!({"scope": "operator"})).await;
    assert_eq!((status, &body["scope"]), (StatusCode::OK, &json!("operator")));
    log("POST /users/{name}/scope");
    for action in ["sign-out", "disable", "enable"] {
        let (status, body) = operator.post(&format!("/users/bob/{action}"), json!({})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        log(&format!("POST /users/{{name}}/{action}"));
    }

    let changed = operator.call("PATCH", "/api/v1/vehicles/V1", json!({"region": "EU"}).to_string()).await;
    assert_eq!((changed.0, &changed.1["region"]), (StatusCode::OK, &json!("EU")));
    log("PATCH /vehicles/{vehicle_id}");
    operator.post("/vehicles/V1/rebind", json!({"gateway_id": "G2", "reason": "repair"})).await;
    log("POST /vehicles/{vehicle_id}/rebind");
    let line = json!({"vehicle_id": "V3", "gateway_id": "G", "tags": ["new"]}).to_string();
    let imported = operator.call("POST", "/api/v1/vehicles/import", line).await;
    assert_eq!((imported.0, &imported.1["enrolled"]), (StatusCode::OK, &json!(1)));
    log("POST /vehicles/import");
    operator.post("/groups", json!({"name": "korea", "query": "region = \"KR\""})).await;
    log("POST /groups");
    let body = json!({"query": "region = \"EU\""}).to_string();
    operator.call("PUT", "/api/v1/groups/korea", body).await;
    log("PUT /groups/{name}");
    operator.call("DELETE", "/api/v1/groups/korea", "").await;
    log("DELETE /groups/{name}");
    let body = json!({"name": "ops", "url": "https://hooks.example/secret", "types": ["campaign.*"]});
    operator.post("/webhooks", body).await;
    log("POST /webhooks");
    let body = json!({"types": ["vehicle.*"]}).to_string();
    operator.call("PATCH", "/api/v1/webhooks/ops", body).await;
    log("PATCH /webhooks/{name}");
    operator.post("/webhooks/ops/rotate-secret", json!({})).await;
    log("POST /webhooks/{name}/rotate-secret");
    let (_, queued) = operator.post("/webhooks/ops/test", json!({})).await;
    log("POST /webhooks/{name}/test");
    let path = format!("/webhooks/ops/deliveries/{}/redeliver", queued["id"].as_str().unwrap());
    operator.post(&path, json!({})).await;
    log("POST /webhooks/{name}/deliveries/{delivery_id}/redeliver");
    operator.call("DELETE", "/api/v1/webhooks/ops", "").await;
    log("DELETE /webhooks/{name}");

    let large = Sha256::of(b"large");
    for given_up in [true, false] {
        operator.post("/uploads", json!({"sha256": large, "size_bytes": 5})).await;
        log("POST /uploads");
        let (method, query, body) =
            if given_up { ("DELETE", "", "") } else { ("PATCH", "?offset_bytes=0", "large") };
        let ended = operator.call(method, &format!("/api/v1/uploads/{large}{query}"), body).await;
        assert_eq!(ended.0, StatusCode::OK, "{}", ended.1);
        log(&format!("{method} /uploads/{{sha256}}"));
    }
    let (vehicle_id, release, attempt) = (car.binding.vehicle_id.clone(), text("R2"), text("attempt"));
    world
        .write(move |tx, _, now| {
            let (attempt_id, vehicle_id, campaign) = (&attempt, &vehicle_id, &text("C2"));
            let failed = FailedAttempt { attempt_id, vehicle_id, release: &release, campaign, code: "BUSY" };
            set_aside::note_failure(tx, failed, now)?;
            set_aside::set_aside(tx, failed, 1, now)
        })
        .await;
    let (status, _) = operator.call("DELETE", "/api/v1/vehicles/V1/set-aside/R2", "").await;
    assert_eq!(status, StatusCode::OK);
    log("DELETE /vehicles/{vehicle_id}/set-aside/{release}");
    let software = json!([{"hw_part_no": "HW-1", "version": "2", "sha256": sha256}]);
    let revision = json!({"vehicle_type": "T1", "rxswin": "R79-1", "software": software});
    // Twice the same is registered, and in the log, once.
    for expected in [StatusCode::CREATED, StatusCode::OK] {
        let (status, body) = operator.post("/evidence/rxswins", revision.clone()).await;
        assert_eq!((status, &body["revision"]), (expected, &json!(1)));
    }
    log("POST /evidence/rxswins");

    let (entries, head) = entries(&operator).await;
    let actions: Vec<_> = entries
        .iter()
        .map(|entry| (entry.actor.as_str(), entry.action.as_str(), entry.object.as_str()))
        .collect();
    let image = format!("image/{sha256}");
    let (upload, uploaded) = (format!("upload/{large}"), format!("image/{large}"));
    let by_admin = [
        ("vehicle.enrolled", "vehicle/V2"),
        ("vehicle.inventory_asked", "vehicle/V2"),
        ("image.uploaded", image.as_str()),
        ("release.created", "release/R2"),
        ("release.created", "release/R9"),
        ("release.deleted", "release/R9"),
        ("campaign.created", "campaign/C2"),
        ("campaign.started", "campaign/C2"),
        ("update.rollback_asked", "campaign/C2/vehicle/V1"),
        ("campaign.created", "campaign/C3"),
        ("campaign.started", "campaign/C3"),
        ("update.cancel_asked", "campaign/C3/vehicle/V2"),
        ("campaign.retried", "campaign/C3"),
        ("campaign.created", "campaign/C4"),
        ("campaign.rejected", "campaign/C4"),
        ("campaign.started", "campaign/C4"),
        ("campaign.paused", "campaign/C4"),
        ("campaign.resumed", "campaign/C4"),
        ("campaign.wave_asked_for", "campaign/C4"),
        ("campaign.aborted", "campaign/C4"),
        ("vehicle.released", "vehicle/V1"),
        ("token.created", "token/ci"),
        ("token.revoked", "token/ci"),
        ("user.invited", "user/bob"),
        ("user.scope_changed", "user/bob"),
        ("user.signed_out_everywhere", "user/bob"),
        ("user.disabled", "user/bob"),
        ("user.enabled", "user/bob"),
        ("vehicle.changed", "vehicle/V1"),
        ("vehicle.rebound", "vehicle/V1"),
        ("vehicle.enrolled", "vehicle/V3"),
        ("group.created", "group/korea"),
        ("group.changed", "group/korea"),
        ("group.deleted", "group/korea"),
        ("webhook.created", "webhook/ops"),
        ("webhook.changed", "webhook/ops"),
        ("webhook.secret_rotated", "webhook/ops"),
        ("webhook.tested", "webhook/ops"),
        ("webhook.redelivery_asked", "webhook/ops"),
        ("webhook.deleted", "webhook/ops"),
        ("image.upload_begun", upload.as_str()),
        ("image.upload_ended", upload.as_str()),
        ("image.upload_begun", upload.as_str()),
        ("image.uploaded", uploaded.as_str()),
        ("vehicle.taken_back", "vehicle/V1"),
        ("rxswin.registered", "rxswin/T1/R79-1"),
    ];
    let mut expected: Vec<_> =
        by_admin.into_iter().map(|(action, object)| ("token:admin", action, object)).collect();
    expected.insert(0, ("server", "vehicle.enrolled", "vehicle/V1"));
    let rejected = expected.iter().position(|(_, action, _)| *action == "campaign.rejected").unwrap();
    expected.insert(rejected + 1, ("token:operator", "campaign.approved", "campaign/C4"));
    let released = expected.iter().position(|(_, action, _)| *action == "vehicle.released").unwrap();
    expected.insert(released, ("server", "vehicle.quarantined", "vehicle/V1"));
    assert_eq!(actions, expected);

    let changing: Vec<_> = routes::operations()
        .iter()
        .map(|operation| operation.key())
        .filter(|(method, _, _)| method != axum::http::Method::GET)
        // It only asks.
        .filter(|(_, path, _)| *path != crate::api::dry_run::PATH)
        .map(|(method, path, _)| format!("{method} {path}"))
        // It has a body, and changes nothing.
        .filter(|operation| operation != "POST /selections/explain")
        .collect();
    for operation in &changing {
        assert!(audited.contains(operation), "{operation} is not shown to be audited");
    }

    let mut check = ChainCheck::new(vec![head]);
    entries.iter().try_for_each(|entry| check.take(entry)).unwrap();
    assert_eq!(check.end(), Ok(head));
    let started = entries.iter().find(|entry| entry.action == "campaign.started").unwrap();
    assert!(started.before_sha256.is_some() && started.before_sha256 != started.after_sha256);
}

#[tokio::test]
async fn what_is_refused_or_changes_nothing_leaves_no_entry() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    operator.post("/campaigns", json!({"name": "C2", "release": "R9"})).await;
    operator.post("/vehicles/V9/release", json!({})).await;
    operator.post("/tokens/admin/revoke", json!({})).await;
    let (entries, head) = entries(&operator).await;
    assert_eq!((entries, head), (Vec::new(), crate::audit::BEFORE_THE_FIRST));
}

#[tokio::test]
async fn a_request_keeps_its_id_from_the_header_to_the_audit_log() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let request = |id: &str| {
        let request = Request::builder().method("POST").uri("/api/v1/vehicles");
        let request = request.header("authorization", "Bearer secret of operator").header("x-request-id", id);
        // What is there already would leave no entry.
        let body = json!({"vehicle_id": format!("V{}", id.len()), "gateway_id": "G"});
        request.body(Body::from(body.to_string())).unwrap()
    };
    let answer = operator.router.clone().oneshot(request("ticket-17")).await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "ticket-17");
    let answer = operator.router.clone().oneshot(request("no identifier!")).await.unwrap();
    let made = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(made.len(), 36);
    let (entries, _) = entries(&operator).await;
    let ids: Vec<_> = entries.iter().map(|entry| entry.request_id.as_deref().unwrap()).collect();
    assert_eq!(ids, ["ticket-17", made.as_str()]);
    assert!(entries.iter().all(|entry| entry.actor == "token:operator"));
}

#[tokio::test]
async fn the_log_is_paged_from_both_ends() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    for number in 0..5 {
        operator.post("/vehicles", json!({"vehicle_id": format!("V{number}"), "gateway_id": "G"})).await;
    }
    for (first, expected) in [("oldest", [1, 2, 3, 4, 5]), ("newest", [5, 4, 3, 2, 1])] {
        let mut seqs = Vec::new();
        let mut path = format!("/audit?first={first}&limit=2");
        loop {
            let page = operator.get(&path).await;
            seqs.extend(page["items"].as_array().unwrap().iter().map(|entry| entry["seq"].as_u64().unwrap()));
            let Some(next) = page["next"].as_str() else { break };
            path = format!("/audit?first={first}&limit=2&after={next}");
        }
        assert_eq!(seqs, expected);
    }
}
