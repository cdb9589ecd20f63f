use super::*;

fn text(value: &str) -> Text {
    value.parse().unwrap()
}

fn texts(values: &[&str]) -> Vec<Text> {
    values.iter().map(|value| text(value)).collect()
}

fn image(hardware: &str, supplier: Option<&str>, region: Option<&str>, version: &str) -> Image {
    let named = format!("{hardware} {supplier:?} {region:?}");
    let all = Image::new(text(hardware), text(version), Sha256::of(named.as_bytes()), 1_000);
    Image { supplier: supplier.map(text), region: region.map(text), ..all }
}

fn order(first: &str, then: &str) -> Rule {
    Rule::Order { first: text(first), then: text(then) }
}

fn ruled(scheme: Option<VersionScheme>, rules: Vec<Rule>) -> Result<Release, InvalidRelease> {
    let images = ["HW-1", "HW-2", "HW-3"].map(|hardware| image(hardware, None, None, "2.0")).to_vec();
    Release::with_rules(images, ReleaseRules { scheme, rules, ..ReleaseRules::default() })
}

#[test]
fn of_the_images_that_fit_the_one_made_for_the_fewest_is_chosen() {
    let images = vec![
        image("HW-1", None, None, "all"),
        image("HW-1", Some("S"), None, "s"),
        image("HW-1", None, Some("KR"), "kr"),
        image("HW-1", Some("S"), Some("KR"), "s-kr"),
        image("HW-2", None, Some("KR"), "kr"),
    ];
    let release = Release::new(images).unwrap();
    let chosen = |hardware, supplier: Option<&str>, region: Option<&str>| {
        let (supplier, region) = (supplier.map(text), region.map(text));
        release
            .image_for(&text(hardware), supplier.as_ref(), region.as_ref())
            .map(|image| image.version.to_string())
    };
    for (hardware, supplier, region, expected) in [
        ("HW-1", None, None, Some("all")),
        ("HW-1", Some("T"), Some("EU"), Some("all")),
        ("HW-1", Some("S"), Some("EU"), Some("s")),
        ("HW-1", Some("S"), None, Some("s")),
        ("HW-1", Some("T"), Some("KR"), Some("kr")),
        ("HW-1", Some("S"), Some("KR"), Some("s-kr")),
        ("HW-2", Some("S"), Some("KR"), Some("kr")),
        ("HW-2", Some("S"), Some("EU"), None),
        ("HW-2", Some("S"), None, None),
        ("HW-3", None, None, None),
    ] {
        assert_eq!(
            chosen(hardware, supplier, region).as_deref(),
            expected,
            "{hardware} {supplier:?} {region:?}"
        );
    }
}

#[test]
fn images_that_leave_a_choice_are_no_release() {
    let (supplier, region) = (image("HW-1", Some("S"), None, "1"), image("HW-1", None, Some("KR"), "1"));
    let both = image("HW-1", Some("S"), Some("KR"), "1");
    let elsewhere = image("HW-2", None, Some("KR"), "1");
    let ambiguous =
        InvalidRelease::Ambiguous { hw_part_no: text("HW-1"), supplier: text("S"), region: text("KR") };
    assert_eq!(Release::new(vec![region.clone(), supplier.clone()]), Err(ambiguous));
    assert!(Release::new(vec![supplier.clone(), region.clone(), both.clone()]).is_ok());
    assert!(Release::new(vec![supplier, elsewhere]).is_ok());
    let twice = InvalidRelease::HardwareTwice { hw_part_no: text("HW-1") };
    assert_eq!(Release::new(vec![both.clone(), region, both]), Err(twice));
}

#[test]
fn a_release_changes_the_rxswins_of_all_its_images() {
    let with = |image: Image, rxswins: &[&str]| Image { rxswins: texts(rxswins), ..image };
    let images = vec![
        with(image("HW-1", None, None, "1"), &["R79", "R155"]),
        with(image("HW-2", None, None, "1"), &["R79"]),
    ];
    let release = Release::new(images).unwrap();
    assert_eq!(release.rxswins().into_iter().map(Text::as_str).collect::<Vec<_>>(), ["R155", "R79"]);
}

#[test]
fn versions_must_have_a_place_in_the_declared_scheme() {
    let with = |scheme, version| {
        let rules = ReleaseRules { scheme: Some(scheme), ..ReleaseRules::default() };
        Release::with_rules(vec![image("HW-1", None, None, version)], rules)
    };
    assert!(with(VersionScheme::Semver, "2.0.0-rc.1").is_ok());
    assert!(with(VersionScheme::Date, "2026-11-30").is_ok());
    assert_eq!(
        with(VersionScheme::Semver, "2.0").unwrap_err().to_string(),
        "expected a semantic version such as 1.4.0 or 1.4.0-rc.1, found 2.0 as the version of the image for HW-1; \
         correct it or declare another scheme"
    );
}

#[test]
fn rules_that_cannot_be_kept_are_refused_with_what_to_do() {
    let needs = |updating: Option<&[&str]>, at_least: &str| Rule::Needs {
        hw_part_no: text("HW-9"),
        when_updating: updating.map(texts),
        at_least: text(at_least),
    };
    let conflicts = |from: Option<&str>, to: Option<&str>| Rule::Conflicts {
        hw_part_no: text("HW-9"),
        from: from.map(text),
        to: to.map(text),
    };
    let together = |parts: &[&str]| Rule::Together { hw_part_nos: texts(parts) };
    let bootloader = |part: &str| Rule::MinimumBootloader { hw_part_no: text(part), version: text("1.0") };
    let earlier = |part: &str, versions: &[&str]| Rule::EarlierVersions {
        hw_part_no: text(part),
        versions: texts(versions),
    };
    let dotted = Some(VersionScheme::Dotted);
    let no_scheme = "found none; declare how versions are written: semver, dotted or date";
    let no_image = "expected an image for HW-9 with the rule that";
    let not_dotted = "expected numbers between dots such as 3.12.7, found";
    let cases = [
        (None, needs(None, "1.0"), Some(no_scheme)),
        (dotted, needs(None, "1.0"), None),
        (dotted, needs(Some(&["HW-1"]), "1.0"), None),
        (dotted, needs(None, "1.x"), Some(not_dotted)),
        (dotted, needs(Some(&["HW-1", "HW-9"]), "1.0"), Some(no_image)),
        (dotted, needs(Some(&[]), "1.0"), Some("expected hardware in when_updating")),
        (None, conflicts(None, None), None),
        (None, conflicts(None, Some("1")), Some(no_scheme)),
        (None, conflicts(Some("1"), None), Some(no_scheme)),
        (dotted, conflicts(Some("1"), Some("1.0")), None),
        (dotted, conflicts(Some("1.1"), Some("1.0")), Some("expected a version in from that is not later")),
        (dotted, conflicts(Some("1.1"), Some("rc")), Some(not_dotted)),
        (None, together(&["HW-1", "HW-2"]), None),
        (None, together(&["HW-1", "HW-9"]), Some(no_image)),
        (None, together(&["HW-1", "HW-1"]), Some("expected two different hardware part numbers")),
        (None, order("HW-1", "HW-2"), None),
        (None, order("HW-9", "HW-2"), Some(no_image)),
        (dotted, bootloader("HW-1"), None),
        (dotted, bootloader("HW-9"), Some(no_image)),
        (None, bootloader("HW-1"), Some(no_scheme)),
        (None, earlier("HW-1", &["any", "thing"]), None),
        (dotted, earlier("HW-1", &["1.0", "thing"]), Some(not_dotted)),
        (None, earlier("HW-9", &["1.0"]), Some(no_image)),
        (None, earlier("HW-1", &[]), Some("expected at least one version")),
    ];
    for (scheme, rule, expected) in cases {
        let found = ruled(scheme, vec![rule.clone()]).err().map(|error| error.to_string());
        match (&found, expected) {
            (Some(found), Some(expected)) => assert!(found.contains(expected), "{rule:?}: {found}"),
            (found, expected) => assert_eq!(found.as_deref(), expected, "{rule:?}"),
        }
    }
    let many = vec![order("HW-1", "HW-2"); RULES_AT_MOST + 1];
    assert_eq!(ruled(None, many), Err(InvalidRelease::TooManyRules { found: RULES_AT_MOST + 1 }));
}

#[test]
fn order_rules_in_a_circle_are_refused_with_that_circle() {
    let found = |rules: Vec<Rule>| ruled(None, rules).err().map(|error| error.to_string());
    let expected = |circle: &str| {
        Some(format!(
            "expected an order of installation, found the circle {circle}; remove one of these order rules"
        ))
    };
    assert_eq!(found(vec![order("HW-1", "HW-1")]), expected("HW-1 before HW-1"));
    let leading_in = [order("HW-1", "HW-2"), order("HW-2", "HW-3"), order("HW-3", "HW-2")];
    assert_eq!(found(leading_in.to_vec()), expected("HW-2 before HW-3 before HW-2"));
    let leading_out = [order("HW-3", "HW-1"), order("HW-3", "HW-2"), order("HW-2", "HW-3")];
    assert_eq!(found(leading_out.to_vec()), expected("HW-3 before HW-2 before HW-3"));
    let all = [order("HW-1", "HW-2"), order("HW-3", "HW-1"), order("HW-2", "HW-3")];
    assert_eq!(found(all.to_vec()), expected("HW-1 before HW-2 before HW-3 before HW-1"));

    let release =
        ruled(None, vec![order("HW-3", "HW-2"), order("HW-2", "HW-1"), order("HW-3", "HW-1")]).unwrap();
    let levels = ["HW-3", "HW-2", "HW-1", "HW-9"].map(|part| release.install_level(&text(part)));
    assert_eq!(levels, [0, 1, 2, 0]);
}

#[test]
fn rules_are_written_in_json_and_nothing_unknown_is_taken() {
    let written = serde_json::json!({
        "scheme": "dotted",
        "allow_downgrade": true,
        "release_counter": 7,
        "notes": "Fixes the wipers.",
        "rules": [
            {"rule": "needs", "hw_part_no": "HW-9", "when_updating": ["HW-1"], "at_least": "1.0"},
            {"rule": "conflicts", "hw_part_no": "HW-8", "from": "1.0", "to": null},
            {"rule": "together", "hw_part_nos": ["HW-1", "HW-2"]},
            {"rule": "order", "first": "HW-1", "then": "HW-2"},
            {"rule": "minimum_bootloader", "hw_part_no": "HW-1", "version": "3"},
            {"rule": "earlier_versions", "hw_part_no": "HW-1", "versions": ["1.0", "1.1"]}
        ]
    });
    let rules: ReleaseRules = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&rules).unwrap(), written);
    let phrases: Vec<_> = rules.rules.iter().map(Rule::phrase).collect();
    assert_eq!(
        phrases,
        [
            "an update of HW-1 needs HW-9 at 1.0 or later",
            "no HW-8 may run 1.0 or later",
            "HW-1 and HW-2 are updated together",
            "HW-1 is installed before HW-2",
            "an update of HW-1 needs its bootloader at 3 or later",
            "HW-1 is updated only from 1.0 or 1.1",
        ]
    );

    let read = |json: &str| serde_json::from_str::<ReleaseRules>(json);
    assert_eq!(read("{}").unwrap(), ReleaseRules::default());
    assert!(read(r#"{"rules": [{"rule": "needs", "hw_part_no": "HW-9", "at_least": "1.0"}]}"#).is_ok());
    for unknown in [
        r#"{"rulez": []}"#,
        r#"{"scheme": "calver"}"#,
        r#"{"rules": [{"rule": "order", "first": "a", "then": "b", "more": 1}]}"#,
        r#"{"rules": [{"rule": "order", "first": "a"}]}"#,
        r#"{"rules": [{"rule": "magic"}]}"#,
        r#"{"rules": [{"rule": "order", "first": "", "then": "b"}]}"#,
    ] {
        assert!(read(unknown).is_err(), "{unknown}");
    }
    let schema = serde_json::to_string(&schemars::schema_for!(ReleaseRules)).unwrap();
    assert!(schema.contains("minimum_bootloader") && schema.contains(r#""maxItems":256"#), "{schema}");
}
