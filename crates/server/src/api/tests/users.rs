use super::*;
use crate::store::console_users::{self, ConsoleUser};

/// Users who have chosen their passwords.
async fn with_users(world: &World, users: &'static [(&'static str, Scope)]) {
    world
        .write(move |tx, _, now| {
            users.iter().try_for_each(|(name, scope)| {
                let user = ConsoleUser {
                    name: (*name).to_owned(),
                    scope: *scope,
                    created_at: now,
                    created_by: "token:admin".to_owned(),
                    disabled_at: None,
                    issuer: None,
                };
                console_users::add(tx, &user, "a hash")?;
                let session = Sha256::of(name.as_bytes());
                console_users::sign_in(tx, &session, name, None, now)
            })
        })
        .await;
}

#[tokio::test]
async fn users_are_invited_listed_and_changed() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    with_users(&world, &[("alice", Scope::Admin), ("bob", Scope::Viewer)]).await;
    let (status, link) = operator.post("/users", json!({"name": "carol", "scope": "operator"})).await;
    assert_eq!(status, StatusCode::CREATED, "{link}");
    let path = link["path"].as_str().unwrap();
    assert!(path.starts_with("/welcome/") && path.len() == 73, "{path}");
    // Somebody who is there keeps their scope: a link gives nobody more.
    let (_, link) = operator.post("/users", json!({"name": "bob", "scope": "admin"})).await;
    assert_eq!(link["scope"], "viewer");
    let wrong = operator.post("/users", json!({"name": "not a name", "scope": "viewer"})).await;
    refused(wrong, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "user name");

    let listed = operator.get("/users").await;
    let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|user| &user["name"]).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(
        (&listed["items"][1]["sessions"], &listed["items"][1]["scope"]),
        (&json!(1), &json!("viewer"))
    );
    let (status, bob) = operator.post("/users/bob/scope", json!({"scope": "release_manager"})).await;
    assert_eq!((status, &bob["scope"]), (StatusCode::OK, &json!("release_manager")));
    let (_, bob) = operator.post("/users/bob/sign-out", json!({})).await;
    assert_eq!(bob["sessions"], 0);
    let (_, bob) = operator.post("/users/bob/disable", json!({})).await;
    assert!(bob["disabled_at_ms"].is_number(), "{bob}");
    let (_, bob) = operator.post("/users/bob/enable", json!({})).await;
    assert!(bob["disabled_at_ms"].is_null(), "{bob}");
    let nobody = operator.post("/users/dave/disable", json!({})).await;
    refused(nobody, StatusCode::NOT_FOUND, "NOT_FOUND", "dave");
}

#[tokio::test]
async fn the_last_admin_of_the_console_stays_one() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    with_users(&world, &[("alice", Scope::Admin), ("bob", Scope::Viewer)]).await;
    let demoted = operator.post("/users/alice/scope", json!({"scope": "viewer"})).await;
    refused(demoted, StatusCode::CONFLICT, "LAST_ADMIN", "only user");
    let disabled = operator.post("/users/alice/disable", json!({})).await;
    refused(disabled, StatusCode::CONFLICT, "LAST_ADMIN", "only user");
    operator.post("/users/bob/scope", json!({"scope": "admin"})).await;
    let (status, _) = operator.post("/users/alice/disable", json!({})).await;
    assert_eq!(status, StatusCode::OK);
}
