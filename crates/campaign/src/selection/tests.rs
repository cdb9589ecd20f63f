use proptest::prelude::*;

use super::parser::{MAX_DEPTH, MAX_QUERY_BYTES, MAX_TESTS};
use super::*;

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn selection(query: &str) -> Selection {
    query.parse().unwrap_or_else(|error: QueryError| panic!("{}", error.render(query)))
}

fn vehicle(field: VehicleField, test: TextTest) -> Selection {
    Selection::Vehicle(VehicleTest { field, test })
}

fn region(name: &str) -> Selection {
    vehicle(VehicleField::Region, TextTest::Is(text(name)))
}

fn ecu(field: EcuField, value: &str) -> EcuTest {
    EcuTest::Text { field, test: TextTest::Is(text(value)) }
}

fn version(order: VersionOrder, than: &str) -> EcuTest {
    EcuTest::Version {
        field: VersionField::SwVersion,
        order,
        than: SortableVersion::new(text(than)).unwrap(),
    }
}

const EXAMPLE: &str = r#"region = "KR" and ecu.hw_part_no = "HW-PT-0001" and ecu.sw_version < "3.2.6" and not tag = "prototype""#;

#[test]
fn a_query_becomes_what_it_says() {
    let prototype = || Selection::Not(Box::new(Selection::Tag(TextTest::Is(text("prototype")))));
    let powertrain = || ecu(EcuField::HwPartNo, "HW-PT-0001");
    for (query, expected) in [
        (" ALL ", Selection::All),
        (
            EXAMPLE,
            Selection::And(vec![
                region("KR"),
                Selection::HasEcu(vec![powertrain(), version(VersionOrder::Below, "3.2.6")]),
                prototype(),
            ]),
        ),
        (
            r#"region="KR"AND(region="EU"Or vin IS Unknown)"#,
            Selection::And(vec![
                region("KR"),
                Selection::Or(vec![region("EU"), vehicle(VehicleField::Vin, TextTest::Unknown)]),
            ]),
        ),
        (
            r#"region = "a" or region = "b" and region = "c""#,
            Selection::Or(vec![region("a"), Selection::And(vec![region("b"), region("c")])]),
        ),
        (
            r#"not region = "a" and region = "b""#,
            Selection::And(vec![Selection::Not(Box::new(region("a"))), region("b")]),
        ),
        (
            r#"tag not in ("a", "b\"\\") and vehicle starts with "VEH_""#,
            Selection::And(vec![
                Selection::Tag(TextTest::NotIn(vec![text("a"), text("b\"\\")])),
                vehicle(VehicleField::Vehicle, TextTest::StartsWith(text("VEH_"))),
            ]),
        ),
        ("((gateway is known))", vehicle(VehicleField::Gateway, TextTest::Known)),
    ] {
        assert_eq!(selection(query), expected, "{query}");
    }
}

#[test]
fn ecu_comparisons_speak_of_one_ecu_only_side_by_side() {
    let a = || ecu(EcuField::HwPartNo, "A");
    let b = || ecu(EcuField::Id, "B");
    let one = || Selection::HasEcu(vec![a(), b()]);
    let each = |test| Selection::HasEcu(vec![test]);
    for (query, expected) in [
        (r#"ecu.hw_part_no = "A" and ecu.id = "B""#, one()),
        (r#"(ecu.hw_part_no = "A" and ecu.id = "B")"#, one()),
        (r#"ecu.hw_part_no = "A" and (ecu.id = "B")"#, Selection::And(vec![each(a()), each(b())])),
        (
            r#"ecu.hw_part_no = "A" and not ecu.id = "B""#,
            Selection::And(vec![each(a()), Selection::Not(Box::new(each(b())))]),
        ),
        (r#"not (ecu.hw_part_no = "A" and ecu.id = "B")"#, Selection::Not(Box::new(one()))),
        (r#"ecu.hw_part_no = "A" or ecu.id = "B""#, Selection::Or(vec![each(a()), each(b())])),
        (
            r#"ecu.hw_part_no = "A" and ecu.id = "B" or region = "KR""#,
            Selection::Or(vec![one(), region("KR")]),
        ),
        (
            r#"ecu.hw_part_no = "A" and region = "KR" and (ecu.id = "B")"#,
            Selection::And(vec![each(a()), region("KR"), each(b())]),
        ),
    ] {
        assert_eq!(selection(query), expected, "{query}");
    }
}

const FIELDS: &str = "a field (`vehicle`, `gateway`, `vin`, `region`, `time_zone`, `vehicle_type`, `tag`, `ecu.id`, `ecu.supplier_code`, \
                      `ecu.hw_part_no`, `ecu.sw_part_no`, `ecu.sw_version`, `ecu.bootloader_ver`, `ecu.calibration_id`, \
                      `ecu.mac_address`, `ecu.ip_address`, `ecu.can_id`, `ecu.domain`, `ecu.zone`)";
const NO_ORDER: &str = "`=`, `!=`, `in`, `not in`, `starts with` or `is` \
                        (only `ecu.sw_version` and `ecu.bootloader_ver` have an order)";
const ORDER: &str = "`=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `starts with` or `is`";
const VERSION: &str = "a version of dotted numbers, such as \"3.2.6\" or \"3.2.6-rc.1\"";
const TEXT: &str = "a text in double quotes";
const A_TEXT: &str = "a text of 1 to 128 characters without control characters";
const APART: &str = "all comparisons of one ECU side by side, and those of another ECU in parentheses";

#[test]
fn errors_say_what_was_expected_what_was_found_and_where() {
    let end = "the end of the query";
    for (query, column, expected, found) in [
        ("", 1, "a field, `not` or `(`", end),
        ("  ", 3, "a field, `not` or `(`", end),
        ("and", 1, "a field, `not` or `(`", "`and`"),
        ("\"KR\" = region", 1, "a field, `not` or `(`", "the text \"KR\""),
        ("regoin = \"KR\"", 1, FIELDS, "`regoin` (did you mean `region`?)"),
        ("colour = \"red\"", 1, FIELDS, "`colour`"),
        ("REGION = \"KR\"", 1, FIELDS, "`REGION` (did you mean `region`?)"),
        ("region", 7, NO_ORDER, end),
        ("region < \"KR\"", 8, NO_ORDER, "`<`"),
        ("tag >= \"1\"", 5, NO_ORDER, "`>=`"),
        ("ecu.sw_version \"1\"", 16, ORDER, "the text \"1\""),
        ("ecu.sw_version < \"v3\"", 18, VERSION, "\"v3\""),
        ("ecu.sw_version < 3.2.6", 18, TEXT, "`3.2.6`"),
        ("region = KR", 10, TEXT, "`KR`"),
        ("region == \"KR\"", 9, TEXT, "`=`"),
        ("region = 'KR'", 10, "a field, a keyword, an operator or a text in double quotes", "`\\'`"),
        ("region = \"KR", 10, "a `\"` that ends the text which begins here", end),
        ("region = \"KR\\", 10, "a `\"` that ends the text which begins here", end),
        ("region = \"K\\R\"", 12, "`\\\"` or `\\\\`", "`\\R`"),
        ("region = \"\"", 10, A_TEXT, "\"\""),
        ("region = \"K\nR\"", 10, A_TEXT, "\"K\\nR\""),
        ("region in \"KR\"", 11, "`(` and a list of texts", "the text \"KR\""),
        ("region in ()", 12, TEXT, "`)`"),
        ("region in (\"a\" \"b\")", 16, "`,` or `)`", "the text \"b\""),
        ("region in (\"a\",", 16, TEXT, end),
        ("region not = \"a\"", 12, "`in`", "`=`"),
        ("region starts \"a\"", 15, "`with`", "the text \"a\""),
        ("region is \"a\"", 11, "`known` or `unknown`", "the text \"a\""),
        ("(region = \"a\"", 14, "`and`, `or` or `)`", end),
        ("region = \"a\")", 13, "`and`, `or` or the end of the query", "`)`"),
        ("region = \"a\" vin = \"b\"", 14, "`and`, `or` or the end of the query", "`vin`"),
        ("region = \"a\" and", 17, "a field, `not` or `(`", end),
        ("vin is known or all", 17, "a field, `not` or `(`", "`all`"),
        ("all and vin is known", 5, "nothing after `all`, which means every vehicle", "`and`"),
        (
            "region = \"한국\" & vin is known",
            15,
            "a field, a keyword, an operator or a text in double quotes",
            "`&`",
        ),
        ("ecu.id = \"a\" and vin is known and ecu.zone = \"b\"", 35, APART, "one that stands apart"),
        ("ecu.id = \"a\" and (vin is known) and ecu.zone = \"b\"", 37, APART, "one that stands apart"),
    ] {
        let error = query_error(query);
        let got = (error.column, error.expected.to_string(), error.found.to_string());
        let wanted = (column, expected.to_owned(), found.to_owned());
        assert_eq!(got, wanted, "{query}\n{}", error.render(query));
    }
}

fn query_error(query: &str) -> QueryError {
    Selection::from_str(query).expect_err(query)
}

#[test]
fn an_error_is_shown_beneath_its_line() {
    let query = "region = \"한국\" and\n\tregoin = 3";
    let error = query_error(query);
    assert_eq!((error.position, error.line, error.column), (23, 2, 2));
    let found = "`regoin` (did you mean `region`?)";
    assert_eq!(error.to_string(), format!("expected {FIELDS}, found {found} at line 2, column 2"));
    assert_eq!(error.render(query), format!(" regoin = 3\n ^\n{error}"));

    let query = "region = KR";
    let rendered = "region = KR\n         ^\nexpected a text in double quotes, found `KR` at column 10";
    assert_eq!(query_error(query).render(query), rendered);
}

#[test]
fn queries_have_bounds() {
    let nested = |depth: usize| format!("{}vin is known{}", "(".repeat(depth), ")".repeat(depth));
    assert_eq!(selection(&nested(MAX_DEPTH)), selection("vin is known"));
    let error = query_error(&nested(2000));
    assert_eq!(
        error.to_string(),
        "expected at most 32 parentheses and `not`s around a comparison, found `(` at column 33"
    );
    let nots = |depth: usize| format!("{}vin is known", "not ".repeat(depth));
    selection(&nots(MAX_DEPTH));
    assert_eq!(query_error(&nots(1000)).column, 4 * MAX_DEPTH + 1);

    let tests = |count: usize| vec!["tag=\"a\""; count].join("or ");
    selection(&tests(MAX_TESTS));
    assert_eq!(query_error(&tests(MAX_TESTS + 1)).expected.to_string(), "at most 256 comparisons");

    selection(&format!("region = \"{}\"", "한".repeat(128)));
    let error = query_error(&format!("region = \"{}\"", "a".repeat(129)));
    assert_eq!((error.column, error.expected.to_string()), (10, A_TEXT.to_owned()));

    let blanks = |length: usize| format!("all{}", " ".repeat(length - 3));
    selection(&blanks(MAX_QUERY_BYTES));
    let error = query_error(&blanks(MAX_QUERY_BYTES + 1));
    assert_eq!(error.to_string(), "expected at most 4096 bytes of query, found 4097 bytes at column 4097");
    assert!(query_error(&"한".repeat(5000)).position <= MAX_QUERY_BYTES);

    // It would not be read again as it is stored.
    let dense = format!("tag in({}\"z\")", "\"abc\",".repeat(680));
    assert!(dense.len() <= MAX_QUERY_BYTES);
    assert!(query_error(&dense).expected.to_string().ends_with("spaces between all words included"));
}

#[test]
fn the_canonical_query_has_no_superfluous_words() {
    for (query, canonical) in [
        (EXAMPLE, EXAMPLE),
        ("((NOT (vin IS known)))", "not vin is known"),
        (
            r#"tag in("a","b")or(vin is known and tag!="c")"#,
            r#"tag in ("a", "b") or vin is known and tag != "c""#,
        ),
        (r#"(ecu.id = "a") and (ecu.zone = "b")"#, r#"ecu.id = "a" and (ecu.zone = "b")"#),
        (
            r#"not (ecu.id = "a" and ecu.sw_version >= "1")"#,
            r#"not (ecu.id = "a" and ecu.sw_version >= "1")"#,
        ),
    ] {
        assert_eq!(selection(query).to_string(), canonical);
    }
}

#[test]
fn a_selection_is_stored_as_its_query() {
    let json = serde_json::to_string(&selection(EXAMPLE)).unwrap();
    assert_eq!(json, serde_json::to_string(EXAMPLE).unwrap());
    assert_eq!(serde_json::from_str::<Selection>(&json).unwrap(), selection(EXAMPLE));
    let error = serde_json::from_str::<Selection>("\"region\"").unwrap_err().to_string();
    assert!(error.starts_with("expected `=`"), "{error}");
}

fn facts() -> VehicleFacts<'static> {
    let powertrain = EcuFacts {
        ecu_id: "PT",
        hw_part_no: Some("HW-PT-0001"),
        sw_version: Some("3.2.5"),
        domain: Some("powertrain"),
        ..EcuFacts::default()
    };
    let door = EcuFacts {
        ecu_id: "DOOR",
        hw_part_no: Some("HW-DOOR"),
        sw_version: Some("R12"),
        bootloader_ver: Some("2.0"),
        zone: Some("2".into()),
        ..EcuFacts::default()
    };
    VehicleFacts {
        vehicle_id: "VEH_001",
        gateway_id: "CCU_001",
        region: Some("KR"),
        tags: vec!["press", "winter test"],
        ecus: vec![powertrain, door],
        ..VehicleFacts::default()
    }
}

#[test]
fn a_vehicle_matches_by_what_is_known_of_it() {
    for (query, expected) in [
        ("all", true),
        (EXAMPLE, true),
        (r#"vehicle = "VEH_001" and gateway in ("x", "CCU_001")"#, true),
        (r#"region = "kr""#, false),
        (r#"region != "EU" and region not in ("EU", "US")"#, true),
        (r#"region starts with "K""#, true),
        (r#"region is unknown or vin is known"#, false),
        // An absent value satisfies no comparison, and so the `not` of every one.
        (r#"vin = "a" or vin != "a" or vin in ("a") or vin not in ("a") or vin starts with "a""#, false),
        (r#"not vin = "a" and not vin != "a" and vin is unknown"#, true),
        (r#"tag = "press" and tag = "winter test" and tag != "prototype""#, true),
        (r#"tag != "press""#, false),
        (r#"tag in ("a", "press")"#, true),
        (r#"tag not in ("a", "press")"#, false),
        (r#"tag starts with "winter""#, true),
        ("tag is known", true),
        ("tag is unknown", false),
        (r#"ecu.id = "PT" and ecu.domain = "powertrain""#, true),
        (r#"ecu.id = "PT" and ecu.zone = "2""#, false),
        (r#"ecu.id = "PT" and (ecu.zone = "2")"#, true),
        (r#"ecu.id != "PT" and ecu.hw_part_no = "HW-PT-0001""#, false),
        (r#"ecu.zone != "2""#, false),
        (r#"not ecu.zone = "3""#, true),
        ("ecu.id = \"PT\" and ecu.zone is unknown", true),
        (r#"ecu.sw_version < "3.10""#, true),
        (r#"ecu.sw_version <= "3.2.5.0""#, true),
        (r#"ecu.sw_version < "3.2.5-rc.1""#, false),
        (r#"ecu.sw_version = "3.2.5.0""#, false),
        // R12 is no version: it is neither below nor above one.
        (r#"ecu.id = "DOOR" and ecu.sw_version < "9""#, false),
        (r#"ecu.id = "DOOR" and ecu.sw_version >= "0""#, false),
        (r#"ecu.bootloader_ver > "1.9" and ecu.bootloader_ver >= "2""#, true),
    ] {
        assert_eq!(selection(query).matches(&facts()), expected, "{query}");
    }
}

#[test]
fn a_vehicle_whose_inventory_is_not_known_has_no_ecu() {
    let facts = VehicleFacts { ecus: Vec::new(), ..facts() };
    assert!(!selection("ecu.zone is unknown").matches(&facts));
    assert!(selection("not ecu.id is known").matches(&facts));
}

#[test]
fn the_facts_of_an_ecu_are_those_of_its_entry() {
    let entry: farrier_protocol::EcuEntry = serde_json::from_str(
        r#"{"ecu_id": "PT", "supplier_code": "S", "hw_part_no": "H", "sw_part_no": "P", "sw_version": "1",
            "bootloader_ver": "2", "calibration_id": "C", "mac_address": "02:00:00:00:00:01", "ip_address": "10.0.0.1",
            "can_id": "0x7E0", "functional_group": {"domain_zone_bit": 1, "zone": 7}}"#,
    )
    .unwrap();
    let expected = EcuFacts {
        ecu_id: "PT",
        supplier_code: Some("S"),
        hw_part_no: Some("H"),
        sw_part_no: Some("P"),
        sw_version: Some("1"),
        bootloader_ver: Some("2"),
        calibration_id: Some("C"),
        mac_address: Some("02:00:00:00:00:01"),
        ip_address: Some("10.0.0.1"),
        can_id: Some("0x7E0"),
        domain: None,
        zone: Some("7".into()),
    };
    assert_eq!(EcuFacts::from(&entry), expected);
}

#[test]
fn a_selection_is_explained_in_plain_english() {
    for (query, explained) in [
        ("all", "every vehicle"),
        (r#"region = "KR""#, "vehicles for which this holds:\n  region is \"KR\""),
        (
            EXAMPLE,
            "vehicles for which all of these hold:\n  region is \"KR\"\n  \
             one ECU has hw_part_no \"HW-PT-0001\" and sw_version below 3.2.6\n  it has no tag \"prototype\"",
        ),
        (
            r#"not vin = "a" or not (region != "KR" and tag is known) or not ecu.zone != "2""#,
            "vehicles for which at least one of these holds:\n  vin is not \"a\", or is unknown\n  \
             not all of these hold:\n    region is known and not \"KR\"\n    it has a tag\n  \
             no ECU has a known zone other than \"2\"",
        ),
        (
            r#"not (tag in ("a", "b") or tag starts with "c" or not not vehicle != "V")"#,
            "vehicles for which none of these holds:\n  it has one of the tags \"a\", \"b\"\n  \
             it has a tag that begins with \"c\"\n  vehicle is not \"V\"",
        ),
        (
            r#"ecu.id in ("a", "b") and ecu.domain is unknown and ecu.sw_version >= "1" and ecu.sw_version <= "2""#,
            "vehicles for which this holds:\n  one ECU has one of the ids \"a\", \"b\" and no known domain \
             and sw_version at least 1 and sw_version at most 2",
        ),
    ] {
        assert_eq!(selection(query).explain(), explained);
    }
}

fn texts() -> impl Strategy<Value = Text> {
    // Few letters, so that selections also match the vehicle below.
    prop_oneof!["[ab]", "[a\"\\\\ ]{1,3}", "\\PC{1,8}"].prop_map(|letters| text(&letters))
}

fn text_tests() -> impl Strategy<Value = TextTest> {
    let lists = || prop::collection::vec(texts(), 1..4);
    prop_oneof![
        texts().prop_map(TextTest::Is),
        texts().prop_map(TextTest::IsNot),
        lists().prop_map(TextTest::In),
        lists().prop_map(TextTest::NotIn),
        texts().prop_map(TextTest::StartsWith),
        Just(TextTest::Known),
        Just(TextTest::Unknown),
    ]
}

fn ecu_tests() -> impl Strategy<Value = EcuTest> {
    use VersionOrder::{Above, AtLeast, AtMost, Below};
    let of_texts = (prop::sample::select(EcuField::ALL), text_tests());
    let of_versions = (
        prop::sample::select(VersionField::ALL),
        prop::sample::select(vec![Below, AtMost, Above, AtLeast]),
        "[0-9]{1,3}(\\.[0-9]{1,2}){0,2}(-rc)?",
    );
    prop_oneof![
        of_texts.prop_map(|(field, test)| EcuTest::Text { field, test }),
        of_versions.prop_map(|(field, order, than)| {
            EcuTest::Version { field, order, than: SortableVersion::new(text(&than)).unwrap() }
        }),
    ]
}

fn parts() -> impl Strategy<Value = Selection> {
    let of_vehicles = (prop::sample::select(VehicleField::ALL), text_tests());
    let single = prop_oneof![
        of_vehicles.prop_map(|(field, test)| vehicle(field, test)),
        text_tests().prop_map(Selection::Tag),
        prop::collection::vec(ecu_tests(), 1..3).prop_map(Selection::HasEcu),
    ];
    single.prop_recursive(4, 16, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Selection::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Selection::Or),
            inner.prop_map(|part| Selection::Not(Box::new(part))),
        ]
    })
}

/// Words of the language in any order, so that errors come from everywhere.
fn gibberish() -> impl Strategy<Value = String> {
    let words = vec![
        "region",
        "tag",
        "ecu.id",
        "ecu.sw_version",
        "=",
        "!=",
        "<",
        "(",
        ")",
        ",",
        "\"1.2\"",
        "\"a\"",
        "\"",
        "\\",
        "not",
        "and",
        "or",
        "in",
        "is",
        "known",
        "starts",
        "with",
        "all",
        "한",
        "\n",
        "\u{0}",
    ];
    prop::collection::vec(prop::sample::select(words), 0..12).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn the_canonical_query_is_read_as_what_it_was_written_from(original in parts()) {
        prop_assert_eq!(selection(&original.to_string()), original);
    }

    #[test]
    fn not_selects_the_others(original in parts()) {
        let opposite = Selection::Not(Box::new(original.clone()));
        prop_assert_ne!(original.matches(&facts()), opposite.matches(&facts()));
        prop_assert!(!opposite.explain().is_empty());
    }

    #[test]
    fn any_text_is_a_query_or_an_error_within_it(query in prop_oneof![gibberish(), any::<String>()]) {
        match Selection::from_str(&query) {
            Ok(read) => prop_assert_eq!(selection(&read.to_string()), read),
            Err(error) => {
                prop_assert!(query.is_char_boundary(error.position));
                prop_assert_eq!(error.render(&query).lines().count(), 3);
            }
        }
    }
}
