use super::*;
use crate::message::VehicleBody;
use crate::parse::ReceivedMessage;
use crate::topics::UpTopic;

fn digest(payload: &[u8]) -> String {
    let received = ReceivedMessage::parse(UpTopic::Vci, payload, None).unwrap();
    let VehicleBody::SendVci(vci) = received.message.body else { panic!("not a VCI") };
    vci_digest(&vci).to_string()
}

const SEED: &[u8] = include_bytes!("../../tests/vectors/accepted/send_vci_seed_1.json");
const EDGES: &[u8] = include_bytes!("../../tests/vectors/accepted/send_vci_edges.json");
const WITH_POWER: &[u8] = include_bytes!("../../tests/vectors/accepted/send_vci_with_power.json");

/// Digests that Python computed: `hashlib.sha256` of `json.dumps(inventory, sort_keys=True,
/// separators=(",", ":"), ensure_ascii=False)`, `ecu_inventory` sorted by `ecu_id` before.
#[test]
fn digests_are_those_of_an_independent_implementation() {
    for (vector, expected) in [
        (SEED, "52bc24e4d1c1bb7167c912a81a0b986f7affcb024d522acfcada37dc0c10f231"),
        (EDGES, "d8889baaf963dfcc41120ec14779b17e12a868f67642375ab945cb1449f0242b"),
        (WITH_POWER, "045c174c0431584fb82702f7a9fb1392881892d46447fc5c4c898d942998c844"),
    ] {
        assert_eq!(digest(vector), expected);
    }
}

#[test]
fn the_canonical_text_is_the_one_written_by_hand() {
    let payload =
        br#"{"msg_id":"M","proto_ver":"1.0","type":"SendVCI","vehicle_id":"V","gateway_id":"G","ts":1,
        "correlation_id":"S","power":{},"fw_sw_version":"2 \"\u00e9\" \\","ecu_inventory":[
        {"sw_version":"1","ecu_id":"b","functional_group":{"index":0,"zone":2,"domain_zone_bit":1}},
        {"functional_group":{"domain":"body","domain_zone_bit":0},"ecu_id":"B"}]}"#;
    let by_hand = concat!(
        r#"{"ecu_inventory":[{"ecu_id":"B","functional_group":{"domain":"body","domain_zone_bit":0}},"#,
        r#"{"ecu_id":"b","functional_group":{"domain_zone_bit":1,"index":0,"zone":2},"sw_version":"1"}],"#,
        r#""fw_sw_version":"2 \"é\" \\"}"#,
    );
    assert_eq!(digest(payload), Sha256::of(by_hand.as_bytes()).to_string());
}

#[test]
fn the_order_of_entries_and_the_power_snapshot_do_not_count_but_every_other_field_does() {
    let seed: serde_json::Value = serde_json::from_slice(SEED).unwrap();
    let of = |message: &serde_json::Value| digest(&serde_json::to_vec(message).unwrap());
    let mut turned = seed.clone();
    turned["ecu_inventory"].as_array_mut().unwrap().reverse();
    turned["power"] = serde_json::json!({"power.battery_12v_v": 12.4});
    turned["ts"] = 5.into();
    assert_eq!(of(&turned), of(&seed));
    for pointer in ["/region", "/fw_sw_version", "/bootloader_ver", "/ecu_inventory/1/sw_version"] {
        let mut changed = seed.clone();
        *changed.pointer_mut(pointer).unwrap() = "other".into();
        assert_ne!(of(&changed), of(&seed), "{pointer}");
    }
}
