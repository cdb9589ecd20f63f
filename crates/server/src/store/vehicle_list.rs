//! Vehicles that are looked for by more than a query: by where they stand, in either order of their ids, a page at a time. What few
//! vehicles have is found from them, what many have by going through the vehicles: neither goes through the whole fleet.

use farrier_campaign::Selection;

use super::selection::SelectionSql;
use super::tx::Value;
use super::vehicles::{self, Vehicle};
use super::{StoreError, Tx, campaigns};

/// Where a vehicle has to stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// It has an update in this state.
    pub(crate) state: Option<String>,
    pub(crate) is_quarantined: bool,
    pub(crate) is_set_aside: bool,
}

/// A state that so many updates have at most is looked for from the updates.
const FEW: u64 = 2_000;

/// The vehicles after an id, in the order of the ids, or against it those before one; the first page comes after nothing.
pub(crate) fn page(
    tx: &Tx<'_>,
    selection: &Selection,
    filter: &Filter,
    (after, is_backwards): (&str, bool),
    limit: u32,
) -> Result<Vec<Vehicle>, StoreError> {
    let selected = SelectionSql::of(tx, selection);
    let mut number = selected.next_number();
    let mut next = || {
        let this = number;
        number = number.saturating_add(1);
        this
    };
    let mut sql = format!("{} v WHERE {}", vehicles::SELECT, selected.sql);
    let mut values: Vec<Value<'_>> = Vec::new();
    if filter.is_quarantined {
        sql.push_str(" AND v.quarantined_at IS NOT NULL");
    }
    if filter.is_set_aside {
        sql.push_str(" AND v.vehicle_id IN (SELECT s.vehicle_id FROM set_aside s)");
    }
    if let Some(state) = &filter.state {
        let known = campaigns::counts_of_all(tx)?.get(state).copied().unwrap_or(0);
        let number = next();
        values.push(state.into());
        sql.push_str(&if known <= FEW {
            format!(
                " AND v.vehicle_id IN (SELECT u.vehicle_id FROM vehicle_update u WHERE u.campaign_name IN \
                 (SELECT c.name FROM campaign c) AND u.state = ${number})"
            )
        } else {
            format!(
                " AND EXISTS (SELECT 1 FROM vehicle_update u WHERE u.vehicle_id = v.vehicle_id AND u.state = ${number})"
            )
        });
    }
    if !after.is_empty() {
        let (side, number) = (if is_backwards { "<" } else { ">" }, next());
        values.push(after.into());
        sql.push_str(&format!(" AND v.vehicle_id {side} ${number}"));
    }
    let number = next();
    values.push(i64::from(limit).into());
    let order = if is_backwards { "DESC" } else { "ASC" };
    sql.push_str(&format!(" ORDER BY v.vehicle_id {order} LIMIT ${number}"));
    tx.rows_of(&sql, &selected.with(&values), vehicles::read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::set_aside;
    use crate::store::test_database::TestDatabase;
    use crate::testbed::{Car, World};

    #[tokio::test]
    async fn vehicles_are_found_by_where_they_stand_in_either_order() {
        for database in TestDatabase::both() {
            let world = World::on(database);
            let mut cars = Vec::new();
            for vehicle in ["V1", "V2", "V3", "V4"] {
                cars.push(Car::known(&world, vehicle).await);
            }
            world.campaign_for_all().await;
            let (second, third) = (cars[1].binding.vehicle_id.clone(), cars[2].binding.vehicle_id.clone());
            world
                .write(move |tx, _, now| {
                    vehicles::quarantine(tx, &second, now, now)?;
                    let attempt = set_aside::FailedAttempt {
                        attempt_id: &crate::testbed::text("a1"),
                        vehicle_id: &third,
                        release: &crate::testbed::text("R2"),
                        campaign: &crate::testbed::text("C2"),
                        code: "UPDATE_FAILED",
                    };
                    set_aside::set_aside(tx, attempt, 1, now).map(|_| ())
                })
                .await;
            let found = |query: &'static str, filter: Filter, after: &'static str, backwards: bool| {
                let world = &world;
                async move {
                    let selection = query.parse().unwrap();
                    let read = move |tx: &Tx<'_>| page(tx, &selection, &filter, (after, backwards), 2);
                    let found = world.read(read).await;
                    found.iter().map(|vehicle| vehicle.binding.vehicle_id.to_string()).collect::<Vec<_>>()
                }
            };
            let none = Filter::default;
            assert_eq!(found("all", none(), "", false).await, ["V1", "V2"]);
            assert_eq!(found("all", none(), "V2", false).await, ["V3", "V4"]);
            assert_eq!(found("all", none(), "", true).await, ["V4", "V3"]);
            assert_eq!(found("not vehicle = \"V3\"", none(), "V4", true).await, ["V2", "V1"]);
            let quarantined = Filter { is_quarantined: true, ..none() };
            assert_eq!(found("all", quarantined.clone(), "", false).await, ["V2"]);
            assert_eq!(found("vehicle = \"V1\"", quarantined, "", false).await, Vec::<String>::new());
            assert_eq!(found("all", Filter { is_set_aside: true, ..none() }, "", false).await, ["V3"]);
            let state = |name: &str| Filter { state: Some(name.to_owned()), ..none() };
            assert_eq!(found("all", state("succeeded"), "", false).await, Vec::<String>::new());
            let of_first = cars[0].state(&world).await;
            assert!(found("all", state(of_first), "", false).await.contains(&"V1".to_owned()));
            assert!(!found("all", state(of_first), "V1", false).await.contains(&"V1".to_owned()));
        }
    }
}
