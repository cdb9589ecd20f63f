//! Looks whether a store is whole: the file, its references, its schema, and whether all that is written in it can be
//! read. What belongs to it outside, the images, is the backup's to look at.

use farrier_protocol::{ServerMessage, Sha256, Text, UnixMillis, VehicleId};

use super::migrations::STEPS;
use super::{
    StoreError, Tx, approvals, audit, campaigns, console_users, deltas, evidence, groups, releases,
    security_events, tokens, traffic, updates, vehicles, webhooks,
};
use crate::audit::ChainCheck;

/// Problems of one kind that are told one by one; of more, only the number is.
const TOLD: usize = 20;

/// Entries of the audit log, and security events, that are read at a time.
const AUDIT_AT_A_TIME: u32 = 1_000;

/// What one look has found.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How many of it.
    pub looked_at: u64,
    /// How many are not as they should be.
    pub wrong: u64,
    /// What is wrong, one sentence for each of the first of them.
    pub problems: Vec<String>,
}

impl Check {
    /// Nothing looked at yet.
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, looked_at: 0, wrong: 0, problems: Vec::new() }
    }

    /// One more was looked at, and is as it should be unless a problem is given.
    pub(crate) fn count(&mut self, problem: Option<String>) {
        self.looked_at = self.looked_at.saturating_add(1);
        if let Some(problem) = problem {
            self.wrong = self.wrong.saturating_add(1);
            if self.problems.len() < TOLD {
                self.problems.push(problem);
            }
        }
    }

    /// One more row was read; what cannot be understood is a problem, a store that fails an error.
    fn read<T>(&mut self, key: &str, read: Result<Option<T>, StoreError>) -> Result<(), StoreError> {
        match read {
            Ok(Some(_)) => self.count(None),
            Ok(None) => self.count(Some(format!("{key}: what it refers to is not there"))),
            Err(error @ StoreError::Damaged { .. }) => self.count(Some(format!("{key}: {error}"))),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Looks at everything that the store says of itself.
pub(crate) fn all(tx: &Tx<'_>) -> Result<Vec<Check>, StoreError> {
    let mut checks = Vec::new();
    // PostgreSQL looks after its files and references itself.
    if !tx.is_shared() {
        checks.push(file(tx)?);
        checks.push(references(tx)?);
    }
    let schema = schema(tx)?;
    let is_current = schema.wrong == 0;
    checks.push(schema);
    if is_current {
        checks.extend([
            every_vehicle(tx)?,
            every_update(tx)?,
            every_command(tx)?,
            every_campaign(tx)?,
            every_release(tx)?,
            every_group(tx)?,
            every_set_aside(tx)?,
            every_record(tx)?,
            every_webhook(tx)?,
            every_user(tx)?,
            every_token(tx)?,
            audit_chain(tx)?,
            every_security_event(tx)?,
        ]);
    }
    Ok(checks)
}

fn file(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("file");
    for found in tx.rows("PRAGMA integrity_check", &[], |row| row.text(0))? {
        check.count((found != "ok").then_some(found));
    }
    Ok(check)
}

fn references(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("references");
    let broken = tx.rows("PRAGMA foreign_key_check", &[], |row| {
        let row_number =
            row.optional_integer(1)?.map_or_else(String::new, |number| format!(" (row {number})"));
        Ok(format!(
            "a row of {}{row_number} refers to one of {} that is not there",
            row.text(0)?,
            row.text(2)?
        ))
    })?;
    broken.into_iter().for_each(|problem| check.count(Some(problem)));
    Ok(check)
}

fn schema(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("schema");
    let seen = tx.rows("SELECT number FROM schema_step ORDER BY number", &[], |row| row.integer(0))?;
    for (number, name, _) in STEPS {
        let is_missing = !seen.contains(&number);
        check.count(is_missing.then(|| {
            format!("step {number} ({name}) is not there yet: it is taken when this version's server starts")
        }));
    }
    for number in seen.iter().filter(|number| !STEPS.iter().any(|(known, _, _)| known == *number)) {
        check.count(Some(format!("step {number} is of a newer version: run that version")));
    }
    Ok(check)
}

fn every_vehicle(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("vehicles");
    for id in tx.rows("SELECT vehicle_id FROM vehicle ORDER BY vehicle_id", &[], |row| row.text(0))? {
        let read = id
            .parse::<VehicleId>()
            .map_err(|_| StoreError::Damaged { expected: "a vehicle id", found: id.clone() })
            .and_then(|vehicle_id| {
                vehicles::vci(tx, &vehicle_id)?;
                vehicles::by_id(tx, &vehicle_id)
            });
        check.read(&format!("vehicle {id}"), read)?;
    }
    vehicles::with_another_release(tx)?.into_iter().for_each(|problem| check.count(Some(problem)));
    Ok(check)
}

fn every_update(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("vehicle updates");
    for id in tx.rows("SELECT id FROM vehicle_update ORDER BY id", &[], |row| row.text(0))? {
        check.read(&format!("vehicle update {id}"), updates::by_id(tx, &id))?;
    }
    Ok(check)
}

fn every_command(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("commands");
    let unreadable = |row: &super::Row<'_>| {
        let is_readable = ServerMessage::parse(row.text(1)?.as_bytes()).is_ok();
        Ok((row.text(0)?, is_readable))
    };
    for (id, is_readable) in
        tx.rows("SELECT msg_id, payload FROM command ORDER BY msg_id", &[], unreadable)?
    {
        check.count((!is_readable).then(|| format!("command {id} is no message of this protocol")));
    }
    Ok(check)
}

fn every_campaign(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("campaigns");
    for name in tx.rows("SELECT name FROM campaign ORDER BY name", &[], |row| row.text(0))? {
        let read = parsed_name(&name).and_then(|parsed| {
            approvals::words(tx, &parsed)?;
            campaigns::by_name(tx, &parsed)
        });
        check.read(&format!("campaign {name}"), read)?;
        // What cannot be read for them is told of the vehicle updates themselves.
        if let Ok(wrong) = parsed_name(&name).and_then(|parsed| campaigns::wrong_counters(tx, &parsed)) {
            wrong.into_iter().for_each(|problem| check.count(Some(problem)));
        }
        if let Ok(parsed) = parsed_name(&name)
            && let Some(problem) = traffic::wrong(tx, &parsed)?
        {
            check.count(Some(problem));
        }
    }
    Ok(check)
}

fn every_release(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("releases");
    for name in tx.rows("SELECT name FROM release ORDER BY name", &[], |row| row.text(0))? {
        let read = parsed_name(&name).and_then(|parsed| {
            deltas::of_release(tx, &parsed)?;
            releases::by_name(tx, &parsed)
        });
        check.read(&format!("release {name}"), read)?;
    }
    Ok(check)
}

fn every_group(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("fleet groups");
    for name in tx.rows("SELECT name FROM fleet_group ORDER BY name", &[], |row| row.text(0))? {
        let read = parsed_name(&name).and_then(|parsed| groups::by_name(tx, &parsed));
        check.read(&format!("group {name}"), read)?;
    }
    Ok(check)
}

fn every_set_aside(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("vehicles set aside");
    let sql = "SELECT s.vehicle_id, s.release_name, s.failures, (SELECT COUNT(*) FROM failed_attempt f \
               WHERE f.vehicle_id = s.vehicle_id AND f.release_name = s.release_name) FROM set_aside s \
               ORDER BY s.vehicle_id, s.release_name";
    let read = |row: &super::Row<'_>| Ok((row.text(0)?, row.text(1)?, row.count(2)?, row.count(3)?));
    for (vehicle, release, failures, attempts) in tx.rows(sql, &[], read)? {
        check.count((attempts < failures).then(|| {
            format!(
                "vehicle {vehicle}, release {release}: {failures} failures counted, {attempts} attempts kept"
            )
        }));
    }
    Ok(check)
}

fn every_user(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("console users");
    let sql = "SELECT name, password FROM console_user ORDER BY name";
    for (name, password) in tx.rows(sql, &[], |row| Ok((row.text(0)?, row.text(1)?)))? {
        check.read(&format!("user {name}"), console_users::by_name(tx, &name))?;
        check.count((!is_hash(&password)).then(|| format!("user {name}: the password is no argon2id hash")));
    }
    let sql = "SELECT COUNT(*) FROM console_session s \
               WHERE NOT EXISTS (SELECT 1 FROM console_user u WHERE u.name = s.user_name)";
    let strays = tx.row(sql, &[], |row| row.count(0))?.unwrap_or(0);
    check.count((strays > 0).then(|| format!("{strays} session(s) are of nobody")));
    Ok(check)
}

fn is_hash(password: &str) -> bool {
    password.starts_with("$argon2id$") && argon2::password_hash::phc::PasswordHash::new(password).is_ok()
}

fn every_token(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("tokens");
    let sql = "SELECT name, sha256 FROM operator_token ORDER BY name";
    for (name, digest) in tx.rows(sql, &[], |row| Ok((row.text(0)?, row.text(1)?)))? {
        let read = digest
            .parse::<Sha256>()
            .map_err(|_| StoreError::Damaged { expected: "a digest", found: "something else".to_owned() })
            .and_then(|digest| tokens::by_digest(tx, &digest));
        check.read(&format!("token {name}"), read)?;
    }
    Ok(check)
}

/// Whether the chain of the audit log holds from its first entry to its end.
fn audit_chain(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("audit log");
    let (mut chain, mut after) = (ChainCheck::new(Vec::new()), 0);
    loop {
        let entries = match audit::page(tx, after, AUDIT_AT_A_TIME) {
            Ok(entries) => entries,
            Err(error @ StoreError::Damaged { .. }) => {
                check.count(Some(format!("an entry after {after}: {error}")));
                return Ok(check);
            }
            Err(error) => return Err(error),
        };
        let Some(last) = entries.last().map(|entry| entry.seq) else { break };
        for entry in &entries {
            if let Err(broken) = chain.take(entry) {
                // What comes behind it proves nothing.
                check.count(Some(broken.to_string()));
                return Ok(check);
            }
            check.count(None);
        }
        after = last;
    }
    let head = audit::head(tx)?;
    match chain.end() {
        Ok(end) => {
            check.count((end != head).then(|| format!("the log ends with {end}, its end is noted as {head}")))
        }
        Err(broken) => check.count(Some(broken.to_string())),
    }
    Ok(check)
}

fn every_security_event(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("security events");
    let mut place = (UnixMillis(i64::MAX), String::new());
    loop {
        let events = match security_events::page(tx, &place, AUDIT_AT_A_TIME) {
            Ok(events) => events,
            Err(error @ StoreError::Damaged { .. }) => {
                check.count(Some(format!("a security event before {}: {error}", place.0.0)));
                return Ok(check);
            }
            Err(error) => return Err(error),
        };
        let Some(last) = events.last() else { return Ok(check) };
        place = (last.last_at, last.id.clone());
        for event in &events {
            let is_ordered = event.first_at <= event.last_at && event.times > 0;
            check.count((!is_ordered).then(|| {
                format!("security event {}: it ends before it begins, or never happened", event.id)
            }));
        }
    }
}

fn every_record(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("evidence");
    let sql = "SELECT DISTINCT vehicle_update_id FROM evidence_event ORDER BY vehicle_update_id";
    for id in tx.rows(sql, &[], |row| row.text(0))? {
        check.read(&format!("record of vehicle update {id}"), evidence::of_update(tx, &id).map(Some))?;
    }
    for name in
        tx.rows("SELECT campaign_name FROM campaign_statement ORDER BY campaign_name", &[], |row| {
            row.text(0)
        })?
    {
        let read = parsed_name(&name).and_then(|parsed| evidence::statement(tx, &parsed));
        check.read(&format!("statement of campaign {name}"), read)?;
    }
    let sql =
        "SELECT vehicle_type, rxswin, revision FROM rxswin_revision ORDER BY vehicle_type, rxswin, revision";
    let places = tx.rows(sql, &[], |row| Ok((row.text(0)?, row.text(1)?, row.integer(2)?)))?;
    for (vehicle_type, rxswin, revision) in places {
        let before = (vehicle_type, rxswin, revision.saturating_sub(1));
        let read = evidence::revisions(tx, &before, 1).map(|found| found.into_iter().next());
        check
            .read(&format!("RXSWIN {} of vehicle type {}, revision {revision}", before.1, before.0), read)?;
    }
    Ok(check)
}

fn every_webhook(tx: &Tx<'_>) -> Result<Check, StoreError> {
    let mut check = Check::new("webhooks");
    for name in tx.rows("SELECT name FROM webhook ORDER BY name", &[], |row| row.text(0))? {
        let read = parsed_name(&name).and_then(|parsed| webhooks::by_name(tx, &parsed));
        check.read(&format!("webhook {name}"), read)?;
    }
    Ok(check)
}

fn parsed_name(name: &str) -> Result<Text, StoreError> {
    name.parse().map_err(|_| StoreError::Damaged { expected: "a name", found: name.to_owned() })
}
