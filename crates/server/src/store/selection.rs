//! Finds the vehicles that a selection has: a `Selection` as SQL, which says of each vehicle what `Selection::matches`
//! says.

use farrier_campaign::{EcuField, EcuTest, Selection, TextTest, VehicleField, VersionField};
use farrier_protocol::{Text, VehicleId};

use super::tx::Value;
use super::vehicles::Vehicle;
use super::{StoreError, Tx, vehicles};

/// A condition on the row `v` of `vehicle` that is true or false, never NULL, and its parameters from `$1` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SelectionSql {
    pub(super) sql: String,
    parameters: Vec<String>,
    /// PostgreSQL looks itself for the best way to a subquery; SQLite goes the way that is written.
    plans_subqueries: bool,
}

impl SelectionSql {
    pub(crate) fn of(tx: &Tx<'_>, selection: &Selection) -> Self {
        let mut compiled =
            Self { sql: String::new(), parameters: Vec::new(), plans_subqueries: tx.is_shared() };
        compiled.sql = compiled.condition(selection);
        compiled
    }

    /// The parameters, and behind them others.
    pub(super) fn with<'a>(&'a self, others: &[Value<'a>]) -> Vec<Value<'a>> {
        self.parameters.iter().map(Value::from).chain(others.iter().copied()).collect()
    }

    /// The number of the first parameter that stands behind those of the selection.
    pub(super) fn next_number(&self) -> usize {
        self.parameters.len().saturating_add(1)
    }

    fn bind(&mut self, value: &str) -> String {
        self.parameters.push(value.to_owned());
        format!("${}", self.parameters.len())
    }

    fn bind_all(&mut self, values: &[Text]) -> String {
        let names: Vec<_> = values.iter().map(|value| self.bind(value.as_str())).collect();
        names.join(", ")
    }

    fn condition(&mut self, selection: &Selection) -> String {
        match selection {
            Selection::All => "TRUE".to_owned(),
            Selection::And(parts) => self.joined(parts, " AND ", "TRUE"),
            Selection::Or(parts) => self.joined(parts, " OR ", "FALSE"),
            Selection::Not(part) => format!("(NOT {})", self.condition(part)),
            Selection::Vehicle(test) => self.text(vehicle_column(test.field), &test.test),
            Selection::Tag(test) => self.tag(test),
            Selection::HasEcu(tests) => self.ecu(tests),
        }
    }

    fn joined(&mut self, parts: &[Selection], by: &str, of_none: &str) -> String {
        let parts: Vec<_> = parts.iter().map(|part| self.condition(part)).collect();
        if parts.is_empty() { of_none.to_owned() } else { format!("({})", parts.join(by)) }
    }

    fn text(&mut self, column: &str, test: &TextTest) -> String {
        let known = format!("{column} IS NOT NULL");
        match test {
            TextTest::Is(text) => format!("({known} AND {column} = {})", self.bind(text.as_str())),
            TextTest::IsNot(text) => format!("({known} AND {column} <> {})", self.bind(text.as_str())),
            TextTest::In(texts) if texts.is_empty() => "FALSE".to_owned(),
            TextTest::NotIn(texts) if texts.is_empty() => known,
            TextTest::In(texts) => format!("({known} AND {column} IN ({}))", self.bind_all(texts)),
            TextTest::NotIn(texts) => format!("({known} AND {column} NOT IN ({}))", self.bind_all(texts)),
            TextTest::StartsWith(text) => {
                let length = text.as_str().chars().count();
                format!("({known} AND substr({column}, 1, {length}) = {})", self.bind(text.as_str()))
            }
            TextTest::Known => known,
            TextTest::Unknown => format!("{column} IS NULL"),
        }
    }

    fn tag(&mut self, test: &TextTest) -> String {
        let (is_there, positive) = match test {
            TextTest::Is(_) | TextTest::In(_) | TextTest::StartsWith(_) | TextTest::Known => {
                (true, test.clone())
            }
            TextTest::IsNot(text) => (false, TextTest::Is(text.clone())),
            TextTest::NotIn(texts) => (false, TextTest::In(texts.clone())),
            TextTest::Unknown => (false, TextTest::Known),
        };
        let condition = self.text("t.tag", &positive);
        let exists = self.exists("vehicle_tag t", "t", &condition, is_sought(&positive));
        if is_there { exists } else { format!("(NOT {exists})") }
    }

    fn ecu(&mut self, tests: &[EcuTest]) -> String {
        let conditions: Vec<_> = tests.iter().map(|test| self.ecu_condition(test)).collect();
        let condition = if conditions.is_empty() { "TRUE".to_owned() } else { conditions.join(" AND ") };
        self.exists("vehicle_ecu e", "e", &condition, tests.iter().any(leads_by_index))
    }

    fn ecu_condition(&mut self, test: &EcuTest) -> String {
        match test {
            EcuTest::Text { field, test } => self.text(ecu_column(*field), test),
            EcuTest::Version { field, order, than } => {
                // The column compares by bytes.
                let column = match field {
                    VersionField::SwVersion => "e.sw_version_key",
                    VersionField::BootloaderVer => "e.bootloader_ver_key",
                };
                let key = self.bind(than.key());
                format!("({column} IS NOT NULL AND {column} {} {key})", order.symbol())
            }
        }
    }

    /// SQLite goes from what is sought to the vehicles, where an index leads to it, else from each vehicle to what it
    /// has.
    fn exists(&self, table: &str, alias: &str, condition: &str, is_sought: bool) -> String {
        if is_sought && !self.plans_subqueries {
            format!("v.vehicle_id IN (SELECT {alias}.vehicle_id FROM {table} WHERE {condition})")
        } else {
            format!("EXISTS (SELECT 1 FROM {table} WHERE {alias}.vehicle_id = v.vehicle_id AND {condition})")
        }
    }
}

/// Whether one value, or a few, are sought.
fn is_sought(test: &TextTest) -> bool {
    match test {
        TextTest::Is(_) | TextTest::In(_) => true,
        TextTest::IsNot(_)
        | TextTest::NotIn(_)
        | TextTest::StartsWith(_)
        | TextTest::Known
        | TextTest::Unknown => false,
    }
}

fn leads_by_index(test: &EcuTest) -> bool {
    match test {
        EcuTest::Text { field: EcuField::Id | EcuField::HwPartNo | EcuField::SwPartNo, test } => {
            is_sought(test)
        }
        EcuTest::Text {
            field:
                EcuField::SupplierCode
                | EcuField::SwVersion
                | EcuField::BootloaderVer
                | EcuField::CalibrationId
                | EcuField::MacAddress
                | EcuField::IpAddress
                | EcuField::CanId
                | EcuField::Domain
                | EcuField::Zone,
            ..
        }
        | EcuTest::Version { .. } => false,
    }
}

fn vehicle_column(field: VehicleField) -> &'static str {
    match field {
        VehicleField::Vehicle => "v.vehicle_id",
        VehicleField::Gateway => "v.gateway_id",
        VehicleField::Vin => "v.vin",
        VehicleField::Region => "COALESCE(v.region, v.reported_region)",
        VehicleField::TimeZone => "v.time_zone",
        VehicleField::VehicleType => "v.vehicle_type",
    }
}

fn ecu_column(field: EcuField) -> &'static str {
    match field {
        EcuField::Id => "e.ecu_id",
        EcuField::SupplierCode => "e.supplier_code",
        EcuField::HwPartNo => "e.hw_part_no",
        EcuField::SwPartNo => "e.sw_part_no",
        EcuField::SwVersion => "e.sw_version",
        EcuField::BootloaderVer => "e.bootloader_ver",
        EcuField::CalibrationId => "e.calibration_id",
        EcuField::MacAddress => "e.mac_address",
        EcuField::IpAddress => "e.ip_address",
        EcuField::CanId => "e.can_id",
        EcuField::Domain => "e.domain",
        EcuField::Zone => "e.zone",
    }
}

/// The selection's vehicles after an id, by id.
pub(crate) fn page(
    tx: &Tx<'_>,
    selection: &Selection,
    after: &str,
    limit: u32,
) -> Result<Vec<Vehicle>, StoreError> {
    vehicles::page_of(tx, &SelectionSql::of(tx, selection), after, limit)
}

/// The ids of the selection's vehicles after an id, in their order.
pub(crate) fn ids(
    tx: &Tx<'_>,
    selection: &Selection,
    after: &str,
    limit: u32,
) -> Result<Vec<VehicleId>, StoreError> {
    let selected = SelectionSql::of(tx, selection);
    let number = selected.next_number();
    let sql = format!(
        "SELECT v.vehicle_id FROM vehicle v WHERE {} AND v.vehicle_id > ${number} ORDER BY v.vehicle_id LIMIT ${}",
        selected.sql,
        number.saturating_add(1)
    );
    let parameters = selected.with(&[after.into(), i64::from(limit).into()]);
    tx.rows_of(&sql, &parameters, |row| row.parsed(0, "a vehicle id"))
}

/// How many vehicles the selection has.
pub(crate) fn count(tx: &Tx<'_>, selection: &Selection) -> Result<u64, StoreError> {
    let selected = SelectionSql::of(tx, selection);
    let sql = format!("SELECT COUNT(*) FROM vehicle v WHERE {}", selected.sql);
    let counted = tx.rows_of(&sql, &selected.with(&[]), |row| row.count(0))?;
    Ok(counted.first().copied().unwrap_or(0))
}

#[cfg_attr(not(test), expect(dead_code, reason = "campaigns ask it of one vehicle"))]
/// Whether the selection has this vehicle.
pub(crate) fn matches(
    tx: &Tx<'_>,
    selection: &Selection,
    vehicle_id: &VehicleId,
) -> Result<bool, StoreError> {
    let selected = SelectionSql::of(tx, selection);
    let number = selected.next_number();
    let sql = format!("SELECT 1 FROM vehicle v WHERE v.vehicle_id = ${number} AND {}", selected.sql);
    let found = tx.rows_of(&sql, &selected.with(&[vehicle_id.as_str().into()]), |_| Ok(()))?;
    Ok(!found.is_empty())
}

/// How the database goes through the selection's vehicles, in its own words.
pub(crate) fn plan(tx: &Tx<'_>, selection: &Selection) -> Result<Vec<String>, StoreError> {
    let selected = SelectionSql::of(tx, selection);
    let (explain, column) = if tx.is_shared() { ("EXPLAIN", 0) } else { ("EXPLAIN QUERY PLAN", 3) };
    let sql =
        format!("{explain} SELECT v.vehicle_id FROM vehicle v WHERE {} ORDER BY v.vehicle_id", selected.sql);
    tx.rows_of(&sql, &selected.with(&[]), |row| row.text(column))
}

#[cfg(test)]
mod tests;
