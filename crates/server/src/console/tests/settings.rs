//! Users, tokens, webhooks, certificates, and how the server is.

use super::*;
use crate::store::{tokens, webhooks};

/// What stands in the first `<pre>` after a heading.
fn shown_once(page: &str) -> String {
    let text = page.split("<pre tabindex=\"0\">").nth(1).unwrap();
    text.split("</pre>").next().unwrap().to_owned()
}

#[tokio::test]
async fn only_admins_see_and_change_users_tokens_and_webhooks() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    for scope in [Scope::Viewer, Scope::Operator, Scope::ReleaseManager] {
        let mut other = admin.invite(scope.name(), scope).await;
        let page = other.page("/settings").await;
        assert!(!page.contains("alice</td>") && !page.contains("/settings/webhooks\""), "{page}");
        assert_eq!(other.get("/settings/webhooks").await.status, StatusCode::FORBIDDEN);
        assert_eq!(other.get("/settings/tokens/first/revoke").await.status, StatusCode::FORBIDDEN);
        for (path, form) in [
            ("/settings/users", vec![("name", "x"), ("scope", "admin")]),
            ("/settings/users/alice/sign-out", vec![]),
            ("/settings/tokens", vec![("name", "x"), ("scope", "admin"), ("days", "")]),
            ("/settings/tokens/x/revoke", vec![]),
            ("/settings/webhooks", vec![("name", "x"), ("url", "https://example.com"), ("types", "*")]),
            ("/settings/webhooks/x", vec![("url", "https://example.com"), ("types", "*")]),
            ("/settings/webhooks/x/test", vec![]),
            ("/settings/webhooks/x/deliveries/y", vec![]),
        ] {
            assert_eq!(other.post(path, &form).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        other.page("/settings/certificates").await;
        other.page("/settings/health").await;
    }
}

#[tokio::test]
async fn an_admin_signs_somebody_out_and_a_wrong_invitation_keeps_what_was_typed() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let mut bob = admin.invite("bob", Scope::Operator).await;
    bob.page("/").await;
    admin.post("/settings/users/bob/sign-out", &[]).await.leads_to();
    assert_eq!(bob.get("/").await.leads_to(), "/sign-in");
    bob.sign_in("bob", PASSWORD).await.leads_to();
    let wrong = admin.post("/settings/users", &[("name", "not a name"), ("scope", "operator")]).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        wrong.body.contains("value=\"not a name\"") && wrong.body.contains("user-fault"),
        "{}",
        wrong.body
    );
    // A link that was sent to somebody who is disabled meanwhile opens nothing.
    let page = admin.post("/settings/users/bob/link", &[]).await.body;
    let link = shown_once(&page);
    admin.post("/settings/users/bob/disable", &[]).await.leads_to();
    assert_eq!(bob.get(&link).await.status, StatusCode::NOT_FOUND);
    let actions: Vec<_> = audited(&world).await.into_iter().map(|(_, action)| action).collect();
    for action in ["user.invited", "user.signed_out_everywhere", "user.disabled"] {
        assert!(actions.iter().any(|found| found == action), "{action}: {actions:?}");
    }
}

#[tokio::test]
async fn a_token_is_made_shown_once_and_revoked() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let form = |days| [("name", "ci"), ("scope", "release_manager"), ("days", days)];
    let wrong = admin.post("/settings/tokens", &form("soon")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(wrong.body.contains("value=\"soon\"") && wrong.body.contains("value=\"ci\""), "{}", wrong.body);
    let made = admin.post("/settings/tokens", &form("30")).await.body;
    let secret = shown_once(&made);
    assert!(secret.starts_with("farrier_"), "{made}");
    assert!(!admin.page("/settings").await.contains(&secret));
    let digest = farrier_protocol::Sha256::of(secret.as_bytes());
    let token = world.read(move |tx| tokens::by_digest(tx, &digest)).await.unwrap();
    assert_eq!(token.scope, Scope::ReleaseManager);
    assert_eq!(token.expires_at, Some(world.now.plus_seconds(30 * 86_400)));
    assert_eq!(token.created_by.as_deref(), Some("user:alice"));
    let again = admin.post("/settings/tokens", &form("")).await;
    assert!(again.status.is_client_error() && again.body.contains("choose another name"), "{}", again.body);
    assert!(admin.page("/settings/tokens/ci/revoke").await.contains("refused at once"));
    admin.post("/settings/tokens/ci/revoke", &[]).await.leads_to();
    assert!(admin.page("/settings").await.contains("revoked"));
}

#[tokio::test]
async fn a_webhook_is_made_tried_rotated_disabled_and_deleted() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let form =
        |url| [("name", "ops"), ("url", url), ("types", "campaign.*, vehicle.enrolled"), ("note", "chat")];
    let wrong = admin.post("/settings/webhooks", &form("ftp://example.com")).await;
    assert_eq!(wrong.status, StatusCode::UNPROCESSABLE_ENTITY);
    for kept in
        ["value=\"ops\"", "value=\"ftp://example.com\"", "value=\"chat\"", "campaign.*, vehicle.enrolled"]
    {
        assert!(wrong.body.contains(kept), "{kept}: {}", wrong.body);
    }
    let made = admin.post("/settings/webhooks", &form("https://example.com/hook")).await.body;
    let secret = shown_once(&made);
    assert!(secret.starts_with("whsec_"), "{made}");
    assert!(!admin.page("/settings/webhooks/ops").await.contains(&secret));
    assert!(admin.page("/settings/webhooks").await.contains("example.com"));

    admin.post("/settings/webhooks/ops/test", &[]).await.leads_to();
    let page = admin.page("/settings/webhooks/ops").await;
    assert!(page.contains("webhook.test") && page.contains("waiting"), "{page}");
    let name = text("ops");
    let delivery = world.read(move |tx| webhooks::deliveries(tx, &name, "g", 1)).await.remove(0);
    let again = admin.post(&format!("/settings/webhooks/ops/deliveries/{}", delivery.id), &[]).await;
    assert_eq!(again.leads_to(), "/settings/webhooks/ops");

    assert!(admin.page("/settings/webhooks/ops/rotate").await.contains("for a day"));
    let rotated = shown_once(&admin.post("/settings/webhooks/ops/rotate", &[]).await.body);
    assert!(rotated.starts_with("whsec_") && rotated != secret);
    let changed = [("url", "https://example.org/"), ("types", ""), ("note", "")];
    let refused = admin.post("/settings/webhooks/ops", &changed).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.body.contains("value=\"https://example.org/\""), "{}", refused.body);
    let changed = [("url", "https://example.org/"), ("types", "*"), ("note", "")];
    admin.post("/settings/webhooks/ops", &changed).await.leads_to();
    admin.post("/settings/webhooks/ops/disable", &[]).await.leads_to();
    assert_eq!(admin.post("/settings/webhooks/ops/test", &[]).await.status, StatusCode::CONFLICT);
    admin.post("/settings/webhooks/ops/enable", &[]).await.leads_to();
    assert!(admin.page("/settings/webhooks/ops/delete").await.contains("1 deliveries that wait"));
    assert_eq!(admin.post("/settings/webhooks/ops/delete", &[]).await.leads_to(), "/settings/webhooks");
    assert_eq!(admin.get("/settings/webhooks/ops").await.status, StatusCode::NOT_FOUND);
    let actions: Vec<_> = audited(&world).await.into_iter().map(|(_, action)| action).collect();
    for action in ["created", "tested", "redelivery_asked", "secret_rotated", "changed", "deleted"] {
        assert!(actions.contains(&format!("webhook.{action}")), "{action}: {actions:?}");
    }
}

#[tokio::test]
async fn health_says_in_words_what_the_checks_find_in_every_language() {
    let (world, _) = world_with_a_campaign().await;
    let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
    for (language, words) in [("en", ["Outbox", "Room for images"]), ("ko", ["발신함", "이미지 저장 공간"])]
    {
        viewer.language = language;
        let page = viewer.page("/settings/health").await;
        assert!(words.iter().all(|word| page.contains(word)), "{page}");
        assert!(page.contains(env!("CARGO_PKG_VERSION")) && !page.contains("—"), "{page}");
        let page = viewer.page("/settings/certificates").await;
        assert!(!page.contains("—"), "{page}");
    }
}
