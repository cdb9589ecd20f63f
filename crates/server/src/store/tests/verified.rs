//! What `store verify` finds of users, tokens, the audit log and security events.

use farrier_protocol::{Binding, UnixMillis};

use super::*;
use crate::store::console_users::{self, ConsoleUser};

/// The argon2id hash of nobody's password.
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$\
                    MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

#[tokio::test]
async fn a_look_at_the_store_finds_what_is_wrong_with_users_tokens_and_the_log() {
    for database in TestDatabase::both() {
        let (store, _) = open(&database);
        let fill = |tx: &Tx<'_>| {
            let user = ConsoleUser {
                name: "alice".to_owned(),
                scope: crate::access::Scope::Admin,
                created_at: UnixMillis(1),
                created_by: "server".to_owned(),
                disabled_at: None,
                issuer: None,
            };
            console_users::add(tx, &user, HASH)?;
            add_token(tx, "ci")?;
            for number in 0..3 {
                let change = audit::Change {
                    action: "campaign.started",
                    object: format!("campaign/{number}"),
                    detail: None,
                    before: None,
                    after: None,
                };
                audit::record(tx, &audit::Actor::server(), change, UnixMillis(1))?;
            }
            let binding = Binding { vehicle_id: "V".parse().unwrap(), gateway_id: "G".parse().unwrap() };
            security_events::record(tx, &binding, "BAN", "why", UnixMillis(1))
        };
        store.write(fill).await.unwrap();
        let look = || async { store.read(verify::all).await.unwrap() };
        let checks = look().await;
        assert!(checks.iter().all(|check| check.wrong == 0), "{checks:#?}");
        let looked_at = |name: &str| checks.iter().find(|check| check.name == name).unwrap().looked_at;
        assert_eq!((looked_at("tokens"), looked_at("security events")), (1, 1));
        assert!(looked_at("console users") >= 1 && looked_at("audit log") >= 3);

        for (sql, name, problem) in [
            ("UPDATE console_user SET password = 'plain'", "console users", "no argon2id hash"),
            ("UPDATE console_user SET scope = 'emperor'", "console users", "user alice"),
            ("UPDATE operator_token SET scope = 'emperor'", "tokens", "token ci"),
            ("UPDATE security_event SET last_at = 0, first_at = 5", "security events", "before it begins"),
            (
                "UPDATE audit_entry SET actor = 'user:mallory' WHERE seq = 2",
                "audit log",
                "entry 2 was changed",
            ),
        ] {
            store.write(move |tx| tx.exec(sql, &[])).await.unwrap();
            let checks = look().await;
            let check = checks.iter().find(|check| check.name == name).unwrap();
            let found = check.problems.iter().any(|found| found.contains(problem));
            assert!(check.wrong > 0 && found, "{sql}: {check:#?}");
        }
    }
}
