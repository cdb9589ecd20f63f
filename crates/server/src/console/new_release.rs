//! `/new-release`: images are uploaded and put together under a name. The form keeps all that was typed until the API takes it, and
//! says beside each field what is wrong with it.

use std::collections::BTreeMap;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use farrier_campaign::{Image, Rule, VersionScheme};
use farrier_protocol::{LongText, Sha256, Text};
use serde::Deserialize;

use super::format::{Time, bytes, percent, time};
use super::objection::Objection;
use super::page::{Failed, Frame, with_status};
use super::session::Visitor;
use super::switch::Switch;
use super::texts::Texts;
use super::{Console, form, release_rules};
use crate::access::Permission;
use crate::api::releases::{self as operations, NewImage, NewRelease};
use crate::api::{self, Document, Problem};
use crate::store::releases::NamedRelease;
use crate::store::{Tx, releases, uploads};

/// Unfinished uploads, unused images and earlier releases that are shown.
const SHOWN: u32 = 100;
/// Rows of images that one form has.
const MOST_IMAGES: usize = 500;

/// A release as it is being typed.
#[derive(Debug, Clone, Default)]
struct Typed {
    name: String,
    scheme: String,
    counter: String,
    notes: String,
    allows_downgrade: bool,
    images: Vec<TypedImage>,
    /// As JSON.
    rules: String,
    rule: String,
    rule_a: String,
    rule_b: String,
}

#[derive(Debug, Clone, Default)]
struct TypedImage {
    sha256: String,
    hw_part_no: String,
    version: String,
    supplier: String,
    region: String,
    rxswins: String,
}

impl TypedImage {
    fn of(sha256: &Sha256) -> Self {
        Self { sha256: sha256.to_string(), ..Self::default() }
    }

    /// An image that nobody has said anything of is not in the release.
    fn is_left_out(&self) -> bool {
        [&self.hw_part_no, &self.version, &self.supplier, &self.region, &self.rxswins]
            .iter()
            .all(|field| field.trim().is_empty())
    }
}

impl From<&Image> for TypedImage {
    fn from(image: &Image) -> Self {
        let or_none = |text: &Option<Text>| text.as_ref().map(ToString::to_string).unwrap_or_default();
        Self {
            sha256: image.sha256.to_string(),
            hw_part_no: image.hw_part_no.to_string(),
            version: image.version.to_string(),
            supplier: or_none(&image.supplier),
            region: or_none(&image.region),
            rxswins: image.rxswins.iter().map(Text::as_str).collect::<Vec<_>>().join(", "),
        }
    }
}

impl Typed {
    /// Images and rules of an earlier release, under no name yet.
    fn like(earlier: &NamedRelease) -> Self {
        let rules = earlier.release.rules();
        Self {
            scheme: rules.scheme.map(scheme_name).unwrap_or_default().to_owned(),
            counter: rules
                .release_counter
                .map(|number| number.saturating_add(1).to_string())
                .unwrap_or_default(),
            allows_downgrade: rules.allow_downgrade,
            images: earlier.release.images().iter().map(TypedImage::from).collect(),
            rules: written(&rules.rules),
            ..Self::default()
        }
    }

    /// What came with the form, and what its button asks for. Each digest begins a further image.
    fn read(fields: Vec<(String, String)>) -> (Self, String) {
        let (mut typed, mut asked) = (Self::default(), String::new());
        for (name, value) in fields {
            match name.as_str() {
                "do" => asked = value,
                "name" => typed.name = value,
                "scheme" => typed.scheme = value,
                "counter" => typed.counter = value,
                "notes" => typed.notes = value,
                "allow_downgrade" => typed.allows_downgrade = true,
                "rules" => typed.rules = value,
                "rule" => typed.rule = value,
                "rule_a" => typed.rule_a = value,
                "rule_b" => typed.rule_b = value,
                "sha256" if typed.images.len() < MOST_IMAGES => {
                    typed.images.push(TypedImage { sha256: value, ..TypedImage::default() });
                }
                field => {
                    let Some(image) = typed.images.last_mut() else { continue };
                    match field {
                        "hw_part_no" => image.hw_part_no = value,
                        "version" => image.version = value,
                        "supplier" => image.supplier = value,
                        "region" => image.region = value,
                        "rxswins" => image.rxswins = value,
                        _ => {}
                    }
                }
            }
        }
        (typed, asked)
    }

    fn rules(&self, t: &Texts) -> Result<Vec<Rule>, Objection> {
        if self.rules.trim().is_empty() {
            return Ok(Vec::new());
        }
        // What is wrong with JSON is known in English alone.
        serde_json::from_str(&self.rules)
            .map_err(|error| Objection::of(t, &Problem::invalid(format!("{error}."))))
    }

    /// The release as the API takes it, with the number of the row that each of its images comes from.
    fn release(&self, t: &Texts) -> Result<(NewRelease, Vec<usize>), Faults> {
        let (mut faults, mut rows, mut images) = (Faults::default(), Vec::new(), Vec::new());
        let name = self.name.trim();
        if let Err(problem) = api::name(name, "release") {
            faults.add("/name", Objection::of(t, &problem));
        }
        for (row, image) in self.images.iter().enumerate().filter(|(_, image)| !image.is_left_out()) {
            let read = ReadImage { row, faults: &mut faults, t }.read(image);
            images.extend(read);
            rows.push(row);
        }
        let counter = self.counter.trim();
        let release_counter = (!counter.is_empty()).then(|| counter.parse::<u64>());
        let release_counter = release_counter.transpose().map_err(|_| Objection::from(t.expected_number));
        let notes = self.notes.trim();
        let notes = (!notes.is_empty()).then(|| form::read::<LongText>(t, notes, t.a_long_text));
        let notes = notes.transpose().map_err(Objection::from);
        let version_scheme = scheme(t, &self.scheme);
        let new = NewRelease {
            name: name.to_owned(),
            images,
            version_scheme: faults.unless("/version_scheme", version_scheme),
            allow_downgrade: self.allows_downgrade,
            release_counter: faults.unless("/release_counter", release_counter),
            notes: faults.unless("/notes", notes),
            rules: faults.unless("/rules", self.rules(t)),
        };
        if faults.0.is_empty() { Ok((new, rows)) } else { Err(faults) }
    }
}

/// Reads the fields of one row.
struct ReadImage<'f> {
    row: usize,
    faults: &'f mut Faults,
    t: &'f Texts,
}

impl ReadImage<'_> {
    fn read(&mut self, image: &TypedImage) -> Option<NewImage> {
        let sha256 =
            form::read::<Sha256>(self.t, &image.sha256, self.t.of_forms.a_sha256).map_err(Objection::from);
        let sha256 = self.faults.found(&format!("/images/{}", self.row), sha256);
        let hw_part_no = self.text("hw_part_no", &image.hw_part_no);
        let version = self.text("version", &image.version);
        let supplier = self.optional("supplier", &image.supplier);
        let region = self.optional("region", &image.region);
        let mut rxswins = Vec::new();
        for one in image.rxswins.split([',', '\n']).map(str::trim).filter(|one| !one.is_empty()) {
            rxswins.extend(self.text("rxswins", one));
        }
        Some(NewImage {
            hw_part_no: hw_part_no?,
            supplier,
            region,
            version: version?,
            sha256: sha256?,
            rxswins,
        })
    }

    fn text(&mut self, field: &str, value: &str) -> Option<Text> {
        let read = match value.trim() {
            "" => Err(Objection::from(self.t.field_missing)),
            value => form::read(self.t, value, self.t.of_forms.a_short_text).map_err(Objection::from),
        };
        self.faults.found(&format!("/images/{}/{field}", self.row), read)
    }

    fn optional(&mut self, field: &str, value: &str) -> Option<Text> {
        if value.trim().is_empty() { None } else { self.text(field, value) }
    }
}

/// What is wrong, by where it is.
#[derive(Debug, Default)]
struct Faults(BTreeMap<String, Objection>);

impl Faults {
    fn add(&mut self, at: &str, what: Objection) {
        self.0.entry(at.to_owned()).or_insert(what);
    }

    fn found<T>(&mut self, at: &str, value: Result<T, Objection>) -> Option<T> {
        value.map_err(|what| self.add(at, what)).ok()
    }

    fn unless<T: Default>(&mut self, at: &str, value: Result<T, Objection>) -> T {
        self.found(at, value).unwrap_or_default()
    }

    /// A refusal of the API, where its pointer says.
    fn of(t: &Texts, problem: &Problem, rows: &[usize]) -> Self {
        let pointer = problem.pointer().unwrap_or_default();
        let mut parts = pointer.trim_start_matches('/').split('/');
        let at =
            match (parts.next(), parts.next().and_then(|index| index.parse::<usize>().ok()), parts.next()) {
                (Some("images"), Some(index), field) => {
                    let row = rows.get(index).copied().unwrap_or(index);
                    format!("/images/{row}/{}", field.unwrap_or("hw_part_no"))
                }
                (Some("rules"), _, _) => "/rules".to_owned(),
                (_, _, _) => pointer.to_owned(),
            };
        Self(BTreeMap::from([(at, Objection::of(t, problem))]))
    }

    fn at(&self, place: &str) -> Option<Objection> {
        self.0.get(place).cloned()
    }
}

const SCHEMES: [(&str, VersionScheme, &str); 3] = [
    ("semver", VersionScheme::Semver, "semver: 1.4.0, 1.4.0-rc.1"),
    ("dotted", VersionScheme::Dotted, "dotted: 3.12.07"),
    ("date", VersionScheme::Date, "date: 2026-11-30"),
];

fn scheme(t: &Texts, name: &str) -> Result<Option<VersionScheme>, Objection> {
    match SCHEMES.iter().find(|(known, _, _)| *known == name) {
        Some((_, scheme, _)) => Ok(Some(*scheme)),
        None if name.is_empty() => Ok(None),
        None => Err(form::unfit(t, t.of_forms.a_scheme, name).into()),
    }
}

fn scheme_name(scheme: VersionScheme) -> &'static str {
    SCHEMES.iter().find(|(_, of, _)| *of == scheme).map_or("", |(name, _, _)| name)
}

fn written(rules: &[Rule]) -> String {
    if rules.is_empty() { String::new() } else { serde_json::to_string_pretty(rules).unwrap_or_default() }
}

/// One field of a row.
struct Field {
    name: &'static str,
    label: &'static str,
    value: String,
    fault: Option<Objection>,
}

struct ImageRow {
    /// From 0.
    number: usize,
    sha256: String,
    size: String,
    fields: Vec<Field>,
    /// About the image itself.
    fault: Option<Objection>,
}

impl ImageRow {
    /// Enough of the digest to tell images apart.
    fn short(&self) -> &str {
        self.sha256.get(..12).unwrap_or(&self.sha256)
    }
}

struct UploadRow {
    sha256: String,
    short: String,
    has: String,
    of: String,
    percent: u64,
    begun_by: String,
    expires: Time,
}

#[derive(Template)]
#[template(path = "release_new.html")]
struct NewReleasePage {
    frame: Frame,
    typed: Typed,
    images: Vec<ImageRow>,
    /// What a row of an image that is uploaded now has.
    empty: ImageRow,
    uploads: Vec<UploadRow>,
    /// From which images and rules can be taken over.
    earlier: Vec<String>,
    schemes: Vec<(&'static str, &'static str)>,
    rules: Vec<String>,
    simple_rules: Vec<(&'static str, String)>,
    /// Whether images have to bring their signatures.
    wants_signatures: bool,
    fault_of_name: Option<Objection>,
    fault_of_images: Option<Objection>,
    fault_of_scheme: Option<Objection>,
    fault_of_counter: Option<Objection>,
    fault_of_notes: Option<Objection>,
    fault_of_rules: Option<Objection>,
    fault_of_rule: Option<Objection>,
    /// What has no place of its own.
    fault: Option<Objection>,
}

#[derive(Deserialize)]
pub(super) struct Asked {
    /// The release to take images and rules over from.
    #[serde(default)]
    from: String,
}

/// `GET /new-release`
pub(super) async fn page(
    State(console): State<Console>,
    visitor: Visitor,
    Query(Asked { from }): Query<Asked>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Release)?;
    let begun = console.api.read(move |tx| {
        let mut typed = match from.as_str() {
            "" => Typed::default(),
            from => {
                let name = api::name(from, "release")?;
                let earlier = releases::by_name(tx, &name)?;
                Typed::like(&earlier.ok_or_else(|| Problem::not_found("release", name.as_str()))?)
            }
        };
        let unused = releases::images_without_release(tx, SHOWN)?;
        typed.images.extend(unused.iter().map(|(sha256, _, _)| TypedImage::of(sha256)));
        Ok(typed)
    });
    let typed = begun.await.map_err(|problem| visitor.failed(problem))?;
    show(&console, &visitor, typed, &Faults::default()).await
}

async fn show(
    console: &Console,
    visitor: &Visitor,
    typed: Typed,
    faults: &Faults,
) -> Result<Response, Failed> {
    let (t, now) = (visitor.guest.language.texts(), console.api.now());
    let digests: Vec<_> = typed.images.iter().map(|image| image.sha256.clone()).collect();
    let seen = console.api.read(move |tx| {
        let sizes: Vec<_> = digests.iter().map(|sha256| size_of(tx, t, sha256)).collect::<Result<_, _>>()?;
        let uploads: Vec<_> = uploads::page(tx, "", SHOWN)?
            .iter()
            .map(|upload| UploadRow {
                sha256: upload.sha256.to_string(),
                short: upload.sha256.to_string().chars().take(12).collect(),
                has: bytes(upload.offset_bytes),
                of: bytes(upload.size_bytes),
                percent: percent(upload.offset_bytes, upload.size_bytes),
                begun_by: upload.begun_by_actor(),
                expires: time(t, upload.expires_at, now),
            })
            .collect();
        Ok((sizes, uploads, releases::newest_names(tx, SHOWN)?))
    });
    let (sizes, uploads, earlier) = seen.await.map_err(|problem| visitor.failed(problem))?;
    let images = typed.images.iter().zip(sizes).enumerate();
    let images = images.map(|(number, (image, size))| image_row(t, number, image, size, faults)).collect();
    let places = ["/name", "/images", "/version_scheme", "/release_counter", "/notes", "/rules", "/rule"];
    let is_placed = |place: &str| places.contains(&place) || place.starts_with("/images/");
    let unplaced = faults.0.iter().find(|(place, _)| !is_placed(place)).map(|(_, what)| what.clone());
    let status = if faults.0.is_empty() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let page = NewReleasePage {
        frame: Frame { switch: Switch::of("release-form", "/new-release"), ..visitor.frame() },
        images,
        empty: image_row(t, 0, &TypedImage::default(), String::new(), &Faults::default()),
        uploads,
        earlier: earlier.iter().map(ToString::to_string).collect(),
        schemes: SCHEMES.map(|(name, _, words)| (name, words)).to_vec(),
        rules: typed.rules(t).unwrap_or_default().iter().map(|rule| release_rules::words(t, rule)).collect(),
        simple_rules: release_rules::simple(t),
        wants_signatures: !console.api.signature.can_sign(),
        fault_of_name: faults.at("/name"),
        fault_of_images: faults.at("/images"),
        fault_of_scheme: faults.at("/version_scheme"),
        fault_of_counter: faults.at("/release_counter"),
        fault_of_notes: faults.at("/notes"),
        fault_of_rules: faults.at("/rules"),
        fault_of_rule: faults.at("/rule"),
        fault: unplaced,
        typed,
    };
    Ok(with_status(status, &page))
}

/// How large an image is that is stored; words where it is not.
fn size_of(tx: &Tx<'_>, t: &Texts, sha256: &str) -> Result<String, Problem> {
    let Ok(sha256) = sha256.parse() else { return Ok(t.not_uploaded.to_owned()) };
    let image = releases::image(tx, &sha256)?;
    Ok(image.map_or_else(|| t.not_uploaded.to_owned(), |image| bytes(image.size_bytes)))
}

fn image_row(
    t: &'static Texts,
    number: usize,
    image: &TypedImage,
    size: String,
    faults: &Faults,
) -> ImageRow {
    let field = |name: &'static str, label: &'static str, value: &str| Field {
        name,
        label,
        value: value.to_owned(),
        fault: faults.at(&format!("/images/{number}/{name}")),
    };
    ImageRow {
        number,
        sha256: image.sha256.clone(),
        size,
        fields: vec![
            field("hw_part_no", t.hardware, &image.hw_part_no),
            field("version", t.version, &image.version),
            field("supplier", t.supplier, &image.supplier),
            field("region", t.region, &image.region),
            field("rxswins", t.rxswins, &image.rxswins),
        ],
        fault: faults.at(&format!("/images/{number}")),
    }
}

/// `POST /new-release`: makes the release, or changes the form as one of its buttons says.
pub(super) async fn change(
    State(console): State<Console>,
    visitor: Visitor,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Failed> {
    visitor.must(Permission::Release)?;
    let (mut typed, asked) = Typed::read(fields);
    if visitor.guest.only_switches {
        return show(&console, &visitor, typed, &Faults::default()).await;
    }
    let (verb, number) = asked.split_once(':').unwrap_or((asked.as_str(), ""));
    let number = number.parse::<usize>().ok();
    let (t, mut faults) = (visitor.guest.language.texts(), Faults::default());
    match (verb, number) {
        ("again", Some(row)) => {
            if let Some(image) = typed.images.get(row).cloned().filter(|_| typed.images.len() < MOST_IMAGES) {
                typed.images.insert(row.saturating_add(1), TypedImage { hw_part_no: String::new(), ..image });
            }
        }
        ("remove", Some(row)) if row < typed.images.len() => drop(typed.images.remove(row)),
        ("add-rule", _) => match release_rules::make(t, &typed.rule, &typed.rule_a, &typed.rule_b) {
            Ok(rule) => match typed.rules(t) {
                Ok(rules) => {
                    typed.rules = written(&[rules, vec![rule]].concat());
                    (typed.rule_a, typed.rule_b) = (String::new(), String::new());
                }
                Err(what) => faults.add("/rules", what),
            },
            Err(what) => faults.add("/rule", what.into()),
        },
        ("remove-rule", Some(number)) => {
            let mut rules = typed.rules(t).unwrap_or_default();
            if number < rules.len() {
                rules.remove(number);
                typed.rules = written(&rules);
            }
        }
        (_, _) => return create(&console, &visitor, typed).await,
    }
    show(&console, &visitor, typed, &faults).await
}

async fn create(console: &Console, visitor: &Visitor, typed: Typed) -> Result<Response, Failed> {
    let t = visitor.guest.language.texts();
    let faults = match typed.release(t) {
        Err(faults) => faults,
        Ok((new, rows)) => {
            let name = new.name.clone();
            match operations::create(State(console.api.clone()), visitor.caller(), Document(new)).await {
                Ok(_) => return Ok(Redirect::to(&format!("/releases/{name}")).into_response()),
                Err(problem) => Faults::of(t, &problem, &rows),
            }
        }
    };
    show(console, visitor, typed, &faults).await
}
