use farrier_campaign::{EcuFacts, SortableVersion, VehicleFacts, VehicleTest, VersionOrder};
use farrier_protocol::{Binding, SendVci, UnixMillis, vci_digest};
use serde_json::json;

use super::*;
use crate::store::Store;
use crate::store::test_database::TestDatabase;
use crate::store::vehicles::{EnrolledBy, Said};

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Numbers that look random and are the same for the same seed (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn of<'a>(&mut self, values: &[&'a str]) -> &'a str {
        values[self.below(values.len())]
    }

    fn maybe<'a>(&mut self, values: &[&'a str]) -> Option<&'a str> {
        (self.below(4) > 0).then(|| self.of(values))
    }
}

const REGIONS: &[&str] = &["KR", "kr", "EU", "서울", "K%", "K_"];
const TYPES: &[&str] = &["T1", "T2", "t1"];
const ZONES: &[&str] = &["Asia/Seoul", "Europe/Berlin", "UTC"];
const TAGS: &[&str] = &["prototype", "Prototype", "proto", "시험", "a", "b"];
const PARTS: &[&str] = &["HW-1", "HW-2", "hw-1", "HW-1\"", "HW'1"];
const VERSIONS: &[&str] =
    &["1.2", "1.10", "1.2.0", "1.2-rc.1", "1.2-alpha", "2026.01.05", "3", "none", "10", "9", "1.2-Beta"];

/// What the store is told of a vehicle.
struct Told {
    vehicle_id: String,
    gateway_id: &'static str,
    vin: Option<String>,
    region: Option<&'static str>,
    time_zone: Option<&'static str>,
    vehicle_type: Option<&'static str>,
    tags: Vec<&'static str>,
    vci: Option<SendVci>,
}

impl Told {
    fn by(dice: &mut Dice, number: usize) -> Self {
        let mut tags: Vec<_> = (0..dice.below(4)).map(|_| dice.of(TAGS)).collect();
        tags.sort_unstable();
        tags.dedup();
        Self {
            vehicle_id: format!("{}{number}", dice.of(&["VEH_", "veh-", "V.", "Z"])),
            gateway_id: dice.of(&["CCU_1", "ccu_1", "G"]),
            vin: (dice.below(3) > 0).then(|| format!("KMHXX00XXXX{number:06}")),
            region: dice.maybe(REGIONS).filter(|_| dice.below(2) == 0),
            time_zone: dice.maybe(ZONES),
            vehicle_type: dice.maybe(TYPES),
            tags,
            vci: (dice.below(6) > 0).then(|| vci(dice)),
        }
    }

    fn facts(&self) -> VehicleFacts<'_> {
        let reported = self.vci.as_ref().and_then(|vci| vci.region.as_ref()).map(Text::as_str);
        VehicleFacts {
            vehicle_id: &self.vehicle_id,
            gateway_id: self.gateway_id,
            vin: self.vin.as_deref(),
            region: self.region.or(reported),
            time_zone: self.time_zone,
            vehicle_type: self.vehicle_type,
            tags: self.tags.clone(),
            ecus: self.vci.iter().flat_map(|vci| &vci.ecu_inventory).map(EcuFacts::from).collect(),
        }
    }
}

fn vci(dice: &mut Dice) -> SendVci {
    let ecus: Vec<_> = (0..1 + dice.below(4))
        .map(|number| {
            let place = match dice.below(3) {
                0 => json!({"domain_zone_bit": 0, "domain": dice.of(&["body", "chassis"]), "index": 1}),
                1 => json!({"domain_zone_bit": 1, "zone": dice.of(&["front", "rear"]), "index": 1}),
                _ => json!({"domain_zone_bit": 1, "zone": dice.below(3), "index": 1}),
            };
            json!({
                "ecu_id": format!("e{number}"), "supplier_code": dice.maybe(&["S", "T"]),
                "hw_part_no": dice.maybe(PARTS), "sw_part_no": dice.maybe(&["SW", "sw"]),
                "sw_version": dice.maybe(VERSIONS), "bootloader_ver": dice.maybe(VERSIONS),
                "calibration_id": dice.maybe(&["C1", "C2"]), "mac_address": dice.maybe(&["02:00:00:00:00:0a"]),
                "ip_address": dice.maybe(&["10.0.0.1", "fd00::1"]), "can_id": dice.maybe(&["0x7E0", "0x7e0"]),
                "functional_group": place,
            })
        })
        .map(|mut ecu| {
            ecu.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            ecu
        })
        .collect();
    let mut vci = json!({"correlation_id": "SRV-1", "fw_sw_version": "1", "ecu_inventory": ecus});
    if let Some(region) = dice.maybe(REGIONS) {
        vci["region"] = json!(region);
    }
    serde_json::from_value(vci).unwrap()
}

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn text_test(dice: &mut Dice, values: &[&str]) -> TextTest {
    let some = |dice: &mut Dice| (0..dice.below(4)).map(|_| text(dice.of(values))).collect();
    match dice.below(7) {
        0 => TextTest::Is(text(dice.of(values))),
        1 => TextTest::IsNot(text(dice.of(values))),
        2 => TextTest::In(some(dice)),
        3 => TextTest::NotIn(some(dice)),
        4 => {
            let value = dice.of(values);
            let length = 1 + dice.below(value.chars().count());
            TextTest::StartsWith(text(&value.chars().take(length).collect::<String>()))
        }
        5 => TextTest::Known,
        _ => TextTest::Unknown,
    }
}

fn ecu_test(dice: &mut Dice) -> EcuTest {
    if dice.below(3) == 0 {
        let orders = [VersionOrder::Below, VersionOrder::AtMost, VersionOrder::Above, VersionOrder::AtLeast];
        let versions: Vec<_> = VERSIONS.iter().copied().filter(|version| *version != "none").collect();
        return EcuTest::Version {
            field: VersionField::ALL[dice.below(VersionField::ALL.len())],
            order: orders[dice.below(orders.len())],
            than: SortableVersion::new(text(dice.of(&versions))).unwrap(),
        };
    }
    let field = EcuField::ALL[dice.below(EcuField::ALL.len())];
    let values: &[&str] = match field {
        EcuField::Id => &["e0", "e1", "e3", "E0"],
        EcuField::SupplierCode => &["S", "T"],
        EcuField::HwPartNo => PARTS,
        EcuField::SwPartNo => &["SW", "sw"],
        EcuField::SwVersion | EcuField::BootloaderVer => VERSIONS,
        EcuField::CalibrationId => &["C1", "C2"],
        EcuField::MacAddress => &["02:00:00:00:00:0a", "02:00:00:00:00:0A"],
        EcuField::IpAddress => &["10.0.0.1", "fd00::1"],
        EcuField::CanId => &["0x7E0", "0x7e0"],
        EcuField::Domain => &["body", "chassis"],
        EcuField::Zone => &["front", "rear", "0", "2"],
    };
    EcuTest::Text { field, test: text_test(dice, values) }
}

fn selection(dice: &mut Dice, depth: usize) -> Selection {
    let parts = |dice: &mut Dice| (0..2 + dice.below(2)).map(|_| selection(dice, depth - 1)).collect();
    match dice.below(if depth == 0 { 4 } else { 7 }) {
        0 if dice.below(8) == 0 => Selection::All,
        0 | 1 => {
            let field = VehicleField::ALL[dice.below(VehicleField::ALL.len())];
            let values: &[&str] = match field {
                VehicleField::Vehicle => &["VEH_1", "veh-2", "V.3", "Z4"],
                VehicleField::Gateway => &["CCU_1", "ccu_1", "G"],
                VehicleField::Vin => &["KMHXX00XXXX000001", "KMHXX00XXXX000017"],
                VehicleField::Region => REGIONS,
                VehicleField::TimeZone => ZONES,
                VehicleField::VehicleType => TYPES,
            };
            Selection::Vehicle(VehicleTest { field, test: text_test(dice, values) })
        }
        2 => Selection::Tag(text_test(dice, TAGS)),
        3 => Selection::HasEcu((0..dice.below(4)).map(|_| ecu_test(dice)).collect()),
        4 => Selection::Not(Box::new(selection(dice, depth - 1))),
        5 => Selection::And(parts(dice)),
        _ => Selection::Or(parts(dice)),
    }
}

fn enrol(tx: &Tx<'_>, told: &Told) -> Result<(), StoreError> {
    let binding = Binding {
        vehicle_id: told.vehicle_id.parse().unwrap(),
        gateway_id: told.gateway_id.parse().unwrap(),
    };
    vehicles::enrol(tx, &binding, EnrolledBy::Operator, NOW)?;
    let said = Said {
        vin: told.vin.as_ref().map(|vin| vin.parse().unwrap()),
        region: told.region.map(text),
        time_zone: told.time_zone.map(|zone| zone.parse().unwrap()),
        vehicle_type: told.vehicle_type.map(|kind| kind.parse().unwrap()),
    };
    vehicles::set_said(tx, &binding.vehicle_id, &said)?;
    for tag in &told.tags {
        vehicles::add_tag(tx, &binding.vehicle_id, &tag.parse().unwrap())?;
    }
    let vehicle = vehicles::by_id(tx, &binding.vehicle_id)?.unwrap();
    told.vci.as_ref().map_or(Ok(()), |vci| vehicles::set_vci(tx, &vehicle, vci, vci_digest(vci), NOW))
}

async fn filled(database: &TestDatabase, seed: u64, number: usize) -> (Store, std::sync::Arc<Vec<Told>>) {
    let store = database.open(std::sync::Arc::new(|_| {}));
    let mut dice = Dice(seed);
    let fleet: std::sync::Arc<Vec<_>> =
        (0..number).map(|number| Told::by(&mut dice, number)).collect::<Vec<_>>().into();
    let told = std::sync::Arc::clone(&fleet);
    store.write(move |tx| told.iter().try_for_each(|told| enrol(tx, told))).await.unwrap();
    (store, fleet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sql_has_the_vehicles_that_the_selection_has() {
    for database in TestDatabase::both() {
        let (store, fleet) = filled(&database, 0x5eed, 120).await;
        let compared = store.read(move |tx| {
            let mut dice = Dice(0xfa11);
            for round in 0..400 {
                let selection = selection(&mut dice, 3);
                let mut expected: Vec<_> = fleet
                    .iter()
                    .filter(|told| selection.matches(&told.facts()))
                    .map(|told| told.vehicle_id.as_str())
                    .collect();
                expected.sort_unstable();
                let mut found: Vec<String> = Vec::new();
                loop {
                    let after = found.last().cloned().unwrap_or_default();
                    let more = ids(tx, &selection, &after, 50)?;
                    if more.is_empty() {
                        break;
                    }
                    found.extend(more.iter().map(ToString::to_string));
                }
                found.sort_unstable();
                assert_eq!(found, expected, "round {round}: {selection:?}");
                assert_eq!(count(tx, &selection)?, u64::try_from(expected.len()).unwrap());
                let one = &fleet[dice.below(fleet.len())];
                let is_matched = matches(tx, &selection, &one.vehicle_id.parse().unwrap())?;
                assert_eq!(is_matched, selection.matches(&one.facts()), "round {round}: {selection:?}");
            }
            Ok::<_, StoreError>(())
        });
        compared.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hardware_below_a_version_is_found_by_its_index() {
    for database in TestDatabase::both() {
        let (store, _) = filled(&database, 0x5eed, 40).await;
        let lines = store.write(|tx| {
            if tx.is_shared() {
                // A table of a few rows is read as a whole, whatever indexes it has.
                tx.exec("SET LOCAL enable_seqscan = off", &[])?;
                tx.exec("SET LOCAL enable_bitmapscan = off", &[])?;
            }
            plan(tx, &r#"ecu.hw_part_no = "HW-1" and ecu.sw_version < "2""#.parse().unwrap())
        });
        let lines = lines.await.unwrap().join("\n");
        let expected = if database.url().is_some() {
            "using vehicle_ecu_hardware"
        } else {
            "vehicle_ecu_hardware (hw_part_no=? AND sw_version_key>? AND sw_version_key<?)"
        };
        assert!(lines.contains(expected), "expected {expected} in:\n{lines}");
    }
}

#[tokio::test]
async fn an_inventory_is_written_anew_only_where_it_changes_and_its_history_is_bounded() {
    for database in TestDatabase::both() {
        let (store, _) = filled(&database, 1, 0).await;
        let numbers = store.write(|tx| {
            let binding = Binding { vehicle_id: "V1".parse().unwrap(), gateway_id: "G".parse().unwrap() };
            vehicles::enrol(tx, &binding, EnrolledBy::Operator, NOW)?;
            let mut vci = vci(&mut Dice(7));
            for round in 0..60_u64 {
                let now = NOW.plus_seconds(round);
                // Each is told twice.
                vci.fw_sw_version = text(&(round / 2).to_string());
                let vehicle = vehicles::by_id(tx, &binding.vehicle_id)?.unwrap();
                vehicles::set_vci(tx, &vehicle, &vci, vci_digest(&vci), now)?;
            }
            let kept = crate::store::inventories::configurations(tx, &binding.vehicle_id, i64::MAX, 100)?;
            assert_eq!((kept[0].first_seen_at, kept[0].last_seen_at), (NOW.plus_seconds(58), None));
            assert_eq!(kept[1].last_seen_at, Some(NOW.plus_seconds(57)));
            assert_eq!(kept[1].vci.fw_sw_version.as_str(), "28");
            for round in 60..100_u64 {
                vci.fw_sw_version = text(&round.to_string());
                let vehicle = vehicles::by_id(tx, &binding.vehicle_id)?.unwrap();
                vehicles::set_vci(tx, &vehicle, &vci, vci_digest(&vci), NOW.plus_seconds(round))?;
            }
            let kept = crate::store::inventories::configurations(tx, &binding.vehicle_id, i64::MAX, 100)?;
            Ok::<_, StoreError>(kept.iter().map(|configuration| configuration.number).collect::<Vec<_>>())
        });
        assert_eq!(numbers.await.unwrap(), (21..=70).rev().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn inventories_that_an_older_version_wrote_can_be_searched_when_the_store_is_opened() {
    for database in TestDatabase::both() {
        let (store, fleet) = filled(&database, 3, 450).await;
        store.close().await;
        database.run(
            "DELETE FROM vehicle_ecu; UPDATE vehicle SET indexed_digest = NULL, reported_region = NULL; \
             UPDATE vehicle_inventory SET vci = '{}' WHERE vehicle_id = (SELECT MIN(vehicle_id) FROM vehicle_inventory)"
                .to_owned(),
        );
        let store = database.open(std::sync::Arc::new(|_| {}));
        let known: Selection = "ecu.id is known".parse().unwrap();
        let counted = store.read(move |tx| count(tx, &known)).await.unwrap();
        let with_vci = fleet.iter().filter(|told| told.vci.is_some()).count();
        assert_eq!(counted, u64::try_from(with_vci - 1).unwrap(), "the damaged one alone is missing");
    }
}
