//! The audit log, security events and refused messages: found, read, proven.

use super::*;
use crate::audit::AuditEntry;
use crate::store::audit::{Actor, Change};
use crate::store::audit_search::{self, Wanted};
use crate::store::test_database::TestDatabase;
use crate::store::{messages, security_events};

fn wanted(actor: &str, action: &str, object: &str) -> Wanted {
    Wanted {
        actor: actor.to_owned(),
        action: action.to_owned(),
        object: object.to_owned(),
        from: UnixMillis(i64::MIN),
        until: UnixMillis(i64::MAX),
    }
}

/// A log of which every tenth entry is bob's, one a second.
async fn log(world: &World, entries: i64) {
    let start = world.now;
    world
        .write(move |tx, _, _| {
            for number in 0..entries {
                let who = if number % 10 == 0 { "bob" } else { "alice" };
                let change = Change {
                    action: if number % 2 == 0 { "campaign.paused" } else { "campaign.resumed" },
                    object: format!("campaign/C{}", number % 3),
                    detail: None,
                    before: Some(serde_json::json!({"paused": number % 2 == 1, "same": 1})),
                    after: Some(serde_json::json!({"paused": number % 2 == 0, "same": 1})),
                };
                let at = UnixMillis(start.0 + number * 1_000);
                audit::record(tx, &Actor::user(who, None, "r"), change, at)?;
            }
            Ok(())
        })
        .await;
}

#[tokio::test]
async fn the_log_is_searched_by_who_what_about_what_and_when_on_every_database() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        log(&world, 200).await;
        let search = |wanted: Wanted, before, limit| {
            world.read(move |tx| audit_search::search(tx, &wanted, before, limit))
        };
        let count = |entries: &[AuditEntry]| entries.len();
        // A name, a name with its kind, and what begins with it.
        for actor in ["bob", "user:bob", "bo"] {
            assert_eq!(count(&search(wanted(actor, "", ""), None, 500).await.entries), 20, "{actor}");
        }
        assert_eq!(count(&search(wanted("", "campaign.paused", ""), None, 500).await.entries), 100);
        assert_eq!(count(&search(wanted("", "campaign.", ""), None, 500).await.entries), 200);
        assert_eq!(count(&search(wanted("", "", "campaign/C1"), None, 500).await.entries), 67);
        assert_eq!(
            count(&search(wanted("bob", "campaign.paused", "campaign/C1"), None, 500).await.entries),
            7
        );
        assert_eq!(count(&search(wanted("carol", "", ""), None, 500).await.entries), 0);
        // A span of time, whose end is not in it.
        let at = |seconds: i64| UnixMillis(world.now.0 + seconds * 1_000);
        let span = Wanted { from: at(10), until: at(20), ..wanted("", "", "") };
        let found = search(span, None, 500).await.entries;
        assert_eq!((count(&found), found[0].at_ms, found[9].at_ms), (10, at(19), at(10)));
        // Page by page, each entry once, newest first.
        let (mut place, mut seen) = (None, Vec::new());
        loop {
            let page = search(wanted("alice", "", ""), place, 50).await;
            seen.extend(page.entries.iter().map(|entry| entry.seq));
            place = page.next;
            if place.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 180);
        assert!(seen.windows(2).all(|pair| pair[0] > pair[1]), "{seen:?}");
    }
}

#[tokio::test]
async fn a_search_for_what_is_rare_ends_and_can_be_gone_on_with() {
    let world = World::new();
    log(&world, 6_000).await;
    // Nothing is called so exactly, so no index leads to it.
    let first = world.read(|tx| audit_search::search(tx, &wanted("", "", "campaign/D"), None, 50)).await;
    assert!(first.entries.is_empty() && first.looked_back_to.is_some() && first.next.is_some());
    let place = first.next;
    let rest = world.read(move |tx| audit_search::search(tx, &wanted("", "", "campaign/D"), place, 50)).await;
    assert!(rest.entries.is_empty() && rest.looked_back_to.is_none() && rest.next.is_none());
    let mut browser = Browser::admin(&world).await;
    assert!(browser.page("/audit?object=campaign%2FD").await.contains("Look further"));
}

#[tokio::test]
async fn an_entry_shows_what_was_before_and_after_where_the_chain_has_its_digest() {
    let world = World::new();
    log(&world, 3).await;
    let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
    let page = viewer.page("/audit?actor=alice&action=campaign.").await;
    assert!(page.contains("href=\"/audit/2\"") && !page.contains("href=\"/audit/1\""), "{page}");
    assert!(page.contains("value=\"campaign.\""), "what was typed stays: {page}");
    let entry = viewer.page("/audit/1").await;
    for shown in ["campaign.paused", "user:bob", "campaign/C0", "paused", "false", "true", "changed", "same"]
    {
        assert!(entry.contains(shown), "{shown}: {entry}");
    }
    // Content that is not what the digest is of is not shown.
    world
        .write(|tx, _, _| {
            tx.exec("UPDATE audit_entry SET before_content = '{\"paused\":\"forged\"}' WHERE seq = 1", &[])
        })
        .await;
    let entry = viewer.page("/audit/1").await;
    assert!(!entry.contains("forged"), "{entry}");
    assert_eq!(viewer.get("/audit/999").await.status, StatusCode::NOT_FOUND);
    assert_eq!(viewer.get("/audit/x").await.status, StatusCode::NOT_FOUND);
    let wrong = viewer.page("/audit?from=yesterday&actor=alice").await;
    assert!(wrong.contains("value=\"yesterday\"") && wrong.contains("aria-invalid"), "{wrong}");
}

#[tokio::test]
async fn the_chain_is_followed_to_its_end_and_a_change_in_it_is_found() {
    let world = World::new();
    log(&world, 2_500).await;
    let mut browser = Browser::admin(&world).await;
    let mut page = browser.page("/audit").await;
    for _ in 0..100 {
        if page.contains("verified up to entry 2,502 of 2,502") {
            break;
        }
        assert!(page.contains("being verified"), "{page}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        page = browser.page("/audit").await;
    }
    assert!(page.contains("verified up to entry 2,502 of 2,502"), "{page}");
    world.write(|tx, _, _| tx.exec("UPDATE audit_entry SET actor = 'user:carol' WHERE seq = 17", &[])).await;
    assert!(browser.page("/audit").await.contains("verified up to entry"), "it was followed already");
    browser.post("/audit/check", &[]).await.leads_to();
    let page = browser.page("/audit").await;
    assert!(page.contains("entry 17 was changed"), "{page}");
}

#[tokio::test]
async fn the_whole_log_is_taken_away_and_proves_itself() {
    let world = World::new();
    log(&world, 1_500).await;
    let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
    let answer = viewer.get("/audit/export").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.headers["content-disposition"].to_str().unwrap().contains("audit-"));
    let mut check = crate::audit::ChainCheck::new(Vec::new());
    let mut entries = 0;
    for line in answer.body.lines() {
        check.take(&serde_json::from_str(line).unwrap()).unwrap();
        entries += 1;
    }
    assert!(entries > 1_500, "{entries}");
}

#[tokio::test]
async fn what_a_webhook_was_is_shown_to_admins_alone() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let mut viewer = admin.invite("eve", Scope::Viewer).await;
    let form = [("name", "ops"), ("url", "https://example.com/secret-path"), ("types", "*"), ("note", "")];
    admin.post("/settings/webhooks", &form).await;
    let entries = world.read(|tx| audit::page(tx, 0, 1_000)).await;
    let made = entries.iter().find(|entry| entry.action == "webhook.created").unwrap().seq;
    assert!(admin.page(&format!("/audit/{made}")).await.contains("secret-path"));
    let page = viewer.page(&format!("/audit/{made}")).await;
    assert!(page.contains("only admins see") && !page.contains("secret-path"), "{page}");
}

#[tokio::test]
async fn security_events_and_refused_messages_are_narrowed_by_kind_and_vehicle_on_every_database() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let (one, other) = (Car::known(&world, "V1").await, Car::known(&world, "V2").await);
        for car in [&one, &other] {
            car.send_octets(&world, UpTopic::Wakeup, "{\"<b>\":1}".into()).await;
            car.send_octets(&world, UpTopic::Wakeup, "no JSON".into()).await;
        }
        for (kind, binding) in
            [("KIND_A", &one.binding), ("KIND_A", &other.binding), ("KIND_B", &one.binding)]
        {
            let (kind, binding) = (kind.to_owned(), binding.clone());
            world
                .write(move |tx, _, now| security_events::record(tx, &binding, &kind, "said why", now))
                .await;
        }
        let place = (UnixMillis(i64::MAX), String::new());
        let v1 = "V1".parse().unwrap();
        let counts = world.read({
            let (place, v1): (_, farrier_protocol::VehicleId) = (place.clone(), v1);
            move |tx| {
                let events = |kind, vehicle| security_events::filtered(tx, kind, vehicle, &place, 100);
                let code = Some(farrier_protocol::RefusalCode::MalformedJson);
                let refused = |code, vehicle| messages::refused_with(tx, code, vehicle, &place, 100);
                Ok([
                    events(Some("KIND_A"), None)?.len(),
                    events(None, Some(&v1))?.len(),
                    events(Some("KIND_A"), Some(&v1))?.len(),
                    refused(code, None)?.len(),
                    refused(None, Some(&v1))?.len(),
                    refused(code, Some(&v1))?.len(),
                ])
            }
        });
        assert_eq!(counts.await, [2, 2, 1, 2, 2, 1]);
        assert_eq!(world.read(security_events::kinds).await, ["KIND_A", "KIND_B"]);
        let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
        let page = viewer.page("/security-events?kind=KIND_B").await;
        assert!(page.contains("V1/CCU") && !page.contains("V2/CCU"), "{page}");
        let page = viewer.page("/refused-messages?kind=MALFORMED_JSON&vehicle=V2").await;
        assert!(page.contains("no JSON") && page.contains("V2/CCU") && !page.contains("V1/CCU"), "{page}");
        let page = viewer.page("/refused-messages?vehicle=V1").await;
        assert!(page.contains("&#60;b&#62;") && !page.contains("<b>"), "{page}");
        let page = viewer.page("/refused-messages?vehicle=not%20one").await;
        assert!(page.contains("value=\"not one\"") && page.contains("aria-invalid"), "{page}");
        assert!(viewer.page("/security-events?vehicle=V9").await.contains("Nothing is found"));
    }
}
