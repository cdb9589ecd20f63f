use proptest::prelude::*;

use super::*;

/// What `serde_json` would hold; of repeated keys the last counts there.
fn as_serde(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Number(text) => serde_json::from_str(text).unwrap(),
        Value::String(text) => text.as_ref().into(),
        Value::Array(items) => items.iter().map(as_serde).collect(),
        Value::Object(object) => {
            object.members.iter().map(|member| (member.key.to_string(), as_serde(&member.value))).collect()
        }
    }
}

fn agrees_with_serde_json(text: &[u8]) {
    match (scan(text), serde_json::from_slice::<serde_json::Value>(text)) {
        (Ok(node), Ok(value)) => assert_eq!(as_serde(&node), value),
        (Err(_), Err(_)) => {}
        // A number that no f64 holds is JSON all the same; the field that takes it refuses it.
        (Ok(_), Err(error)) => assert!(error.to_string().contains("number out of range"), "{error}"),
        (Err(malformed), Ok(_)) => assert!(malformed.found.contains("nested deeper"), "{malformed:?}"),
    }
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn depth_32_is_read_and_33_is_not() {
    assert!(scan(nested(32).as_bytes()).is_ok());
    let malformed = scan(nested(33).as_bytes()).unwrap_err();
    assert!(malformed.found.contains("deeper than 32"), "{malformed:?}");
}

#[test]
fn a_text_of_opening_brackets_ends_at_the_bound() {
    assert!(scan("[".repeat(262_144).as_bytes()).is_err());
    assert!(scan("{\"a\":".repeat(50_000).as_bytes()).is_err());
}

#[test]
fn what_rfc_8259_forbids_is_refused() {
    let refused: [&[u8]; 26] = [
        b"",
        b" ",
        b"\xEF\xBB\xBF{}",
        b"{} x",
        b"{}{}",
        b"[1,]",
        b"[,1]",
        b"{\"a\":1,}",
        b"{a:1}",
        b"{'a':1}",
        b"01",
        b"-",
        b"+1",
        b".5",
        b"1.",
        b"1e",
        b"0x10",
        b"NaN",
        b"Infinity",
        b"\"\xFF\"",
        b"\"a\nb\"",
        b"\"\\x\"",
        b"\"\\ud800\"",
        b"\"\\udc00\\ud800\"",
        b"\"\\ud800\\u0041\"",
        b"tru",
    ];
    for text in refused {
        assert!(scan(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        agrees_with_serde_json(text);
    }
}

#[test]
fn what_rfc_8259_allows_is_read() {
    for text in [
        " \t\r\n{ } ",
        "-0",
        "1e999",
        "-1.5E-3",
        r#""\ud83d\ude00 \u0000 \/""#,
        "\"\u{7f}\u{feff}\"",
        "[[],{}]",
    ] {
        assert!(scan(text.as_bytes()).is_ok(), "{text}");
        agrees_with_serde_json(text.as_bytes());
    }
}

#[test]
fn order_repetition_raw_numbers_and_places_are_kept() {
    let node = scan(br#"{"b":8.0,"a":[1],"b":2}"#).unwrap();
    let object = node.value.as_object().unwrap();
    let seen: Vec<_> =
        object.members.iter().map(|m| (m.key.as_ref(), m.start, m.value.start, m.repeated)).collect();
    assert_eq!(seen, [("b", 1, 5, false), ("a", 9, 13, false), ("b", 17, 21, true)]);
    assert_eq!(object.end, 22);
    assert!(matches!(&object.member("b").unwrap().value.value, Value::Number(raw) if raw == "8.0"));
}

#[test]
fn hostile_objects_are_marked_quickly() {
    let text = format!("{{{}\"a\":0}}", "\"a\":0,".repeat(40_000));
    let node = scan(text.as_bytes()).unwrap();
    let object = node.value.as_object().unwrap();
    assert_eq!(object.members.iter().filter(|member| member.repeated).count(), 40_000);
}

fn json_value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<u64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn every_json_value_is_read_as_serde_json_reads_it(value in json_value()) {
        agrees_with_serde_json(&serde_json::to_vec(&value).unwrap());
        agrees_with_serde_json(&serde_json::to_vec_pretty(&value).unwrap());
    }

    #[test]
    fn nearly_json_is_judged_as_serde_json_judges_it(text in r#"[\[\]{}",:\\u0-9deEfalstrn.+\- D\n]{0,40}"#) {
        agrees_with_serde_json(text.as_bytes());
    }

    #[test]
    fn pieces_of_json_are_judged_as_serde_json_judges_them(
        pieces in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"a\"", "\"\\u00e9\"", "1", "-0", "1.5e3", "true", "null", " ", "\"",
            "1e999", "\\ud800", "é", "\u{1}",
        ]), 0..14),
    ) {
        agrees_with_serde_json(pieces.concat().as_bytes());
    }

    #[test]
    fn a_damaged_value_is_judged_as_serde_json_judges_it(
        value in json_value(), at in any::<prop::sample::Index>(), octet in any::<u8>(),
    ) {
        let mut text = serde_json::to_vec(&value).unwrap();
        let at = at.index(text.len());
        text[at] = octet;
        agrees_with_serde_json(&text);
    }

    #[test]
    fn no_octets_make_the_scanner_panic(text in prop::collection::vec(any::<u8>(), 0..200)) {
        agrees_with_serde_json(&text);
    }
}
