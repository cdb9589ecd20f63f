//! The API's document for people: pages made from the OpenAPI document and the list of codes, which need nothing from elsewhere, no
//! script and no token, as they say nothing of the fleet.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::Path;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::problem::Problem;
use super::problems::{self, Meaning};

/// Where the document is shown.
pub(super) const PATH: &str = "/api/docs";
/// Its style.
pub(super) const STYLE: &str = "/api/docs/style.css";

/// Nothing but our own style; nobody may put the page into theirs.
const POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// A schema within a schema is shown so deep; deeper ones are named by their type.
const DEEPEST: usize = 12;

/// The pages, made once.
#[derive(Clone)]
pub(super) struct Rendered {
    page: Arc<str>,
}

impl Rendered {
    pub(super) fn of(document: &Value) -> Self {
        Self { page: page_of(document).into() }
    }
}

/// `GET /api/docs`
pub(super) async fn page(Extension(rendered): Extension<Rendered>) -> Response {
    html(rendered.page.to_string())
}

/// `GET /api/docs/style.css`
pub(super) async fn style() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, include_str!("docs/style.css")).into_response()
}

/// `GET /api/v1/problems`
pub(super) async fn problems() -> Response {
    let mut main = String::from("<h1>Problem codes</h1>\n");
    let intro = "A refusal is a problem document (RFC 9457). Its code is stable, and is what programs go by.";
    let _ = writeln!(main, "<p>{intro}</p>\n{}", table_of_codes());
    html(framed("Problem codes", &main))
}

/// `GET /api/v1/problems/{code}`
pub(super) async fn problem(Path(code): Path<String>) -> Result<Response, Problem> {
    let found = problems::ALL.iter().find(|meaning| meaning.code == code);
    let meaning = found.ok_or_else(|| Problem::not_found("problem code", &code))?;
    let mut main = format!("<h1><code>{}</code></h1>\n<dl>", escaped(meaning.code));
    for (name, text) in [
        ("Status", status(meaning)),
        ("Meaning", meaning.means.to_owned()),
        ("What to do", meaning.what_to_do.to_owned()),
    ] {
        let _ = write!(main, "<dt>{name}</dt><dd>{}</dd>", escaped(&text));
    }
    let _ = writeln!(main, "</dl>\n<p><a href=\"{}\">All codes</a></p>", problems::PATH);
    Ok(html(framed(meaning.code, &main)))
}

fn html(page: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page).into_response()
}

/// For text and for quoted attributes.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Text of the document: words between backticks are code.
fn prose(text: &str) -> String {
    let parts = text.split('`').map(escaped).enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { format!("<code>{part}</code>") } else { part }).collect()
}

fn framed(title: &str, main: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} – Farrier operator API</title>\n<link rel=\"stylesheet\" href=\"{STYLE}\">\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">To the content</a>\n\
         <header><a href=\"{PATH}\">Farrier operator API</a> <a href=\"{}\">Problem codes</a></header>\n\
         <main id=\"main\">\n{main}</main>\n</body>\n</html>\n",
        escaped(title),
        problems::PATH,
    )
}

fn status(meaning: &Meaning) -> String {
    meaning.status.to_string()
}

fn table_of_codes() -> String {
    let mut table = String::from(
        "<div class=\"wide\" role=\"region\" aria-label=\"All codes\" tabindex=\"0\"><table><caption>All codes</caption><thead><tr><th scope=\"col\">Code</th><th scope=\"col\">Status</th>\
         <th scope=\"col\">Meaning</th><th scope=\"col\">What to do</th></tr></thead><tbody>\n",
    );
    for meaning in problems::ALL {
        let _ = writeln!(
            table,
            "<tr id=\"{code}\"><th scope=\"row\"><a href=\"{path}/{code}\"><code>{code}</code></a></th><td>{status}</td>\
             <td>{means}</td><td>{what}</td></tr>",
            code = escaped(meaning.code),
            path = problems::PATH,
            status = meaning.status.as_u16(),
            means = escaped(meaning.means),
            what = escaped(meaning.what_to_do),
        );
    }
    table + "</tbody></table></div>\n"
}

/// One operation of the document.
struct Shown<'d> {
    method: String,
    path: &'d str,
    operation: &'d Value,
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn entries<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The whole document on one page, so that the browser's own search finds everything.
fn page_of(document: &Value) -> String {
    let mut groups: BTreeMap<&str, Vec<Shown<'_>>> = BTreeMap::new();
    for (path, methods) in entries(document, "paths") {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let group = path.split('/').nth(3).unwrap_or_default();
            let method = method.to_ascii_uppercase();
            groups.entry(group).or_default().push(Shown { method, path, operation });
        }
    }
    let info = document.get("info").unwrap_or(&Value::Null);
    let mut main =
        format!("<h1>{}</h1>\n<p>{}</p>\n", escaped(text(info, "title")), prose(text(info, "description")));
    main.push_str(
        "<p>The same as OpenAPI 3.1, for programs: <code>GET /api/v1/openapi.json</code>, with a token. \
         All that is here is on this page: the browser’s own search finds it.</p>\n<nav aria-label=\"Operations\"><h2>Operations</h2>\n",
    );
    for (group, operations) in &groups {
        let _ = writeln!(main, "<h3><a href=\"#of-{0}\">{0}</a></h3>\n<ul>", escaped(group));
        for shown in operations {
            let _ = writeln!(
                main,
                "<li><a href=\"#{}\"><code>{} {}</code></a> {}</li>",
                escaped(text(shown.operation, "operationId")),
                escaped(&shown.method),
                escaped(shown.path),
                prose(text(shown.operation, "summary")),
            );
        }
        main.push_str("</ul>\n");
    }
    main.push_str("</nav>\n");
    for (group, operations) in &groups {
        let _ =
            writeln!(main, "<section aria-labelledby=\"of-{0}\"><h2 id=\"of-{0}\">{0}</h2>", escaped(group));
        for shown in operations {
            main.push_str(&article(shown));
        }
        main.push_str("</section>\n");
    }
    main.push_str("<section aria-labelledby=\"schemas\"><h2 id=\"schemas\">What answers are made of</h2>\n");
    let components = document.get("components").unwrap_or(&Value::Null);
    for (name, schema) in entries(components, "schemas") {
        let name = escaped(name);
        let _ = writeln!(main, "<article id=\"schema-{name}\"><h3><code>{name}</code></h3>");
        main.push_str(&schema_of(schema, 0));
        main.push_str("</article>\n");
    }
    main.push_str("</section>\n<section aria-labelledby=\"codes\"><h2 id=\"codes\">Problem codes</h2>\n");
    main.push_str(&table_of_codes());
    main.push_str("</section>\n");
    framed("All operations", &main)
}

fn article(shown: &Shown<'_>) -> String {
    let operation = shown.operation;
    let mut article = String::new();
    let _ = writeln!(
        article,
        "<article id=\"{}\"><h3><span class=\"method\">{}</span> <code>{}</code></h3>\n<p>{}</p>\n<p class=\"note\">{}</p>",
        escaped(text(operation, "operationId")),
        escaped(&shown.method),
        escaped(shown.path),
        prose(text(operation, "summary")),
        prose(text(operation, "description")),
    );
    let parameters = items(operation, "parameters");
    if !parameters.is_empty() {
        article.push_str("<h4>Parameters</h4>\n<ul class=\"fields\">\n");
        for parameter in parameters {
            let schema = parameter.get("schema").unwrap_or(&Value::Null);
            let required = parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
            let _ = writeln!(
                article,
                "<li><code>{}</code> <span class=\"kind\">in {}, {}{}</span> {} {}</li>",
                escaped(text(parameter, "name")),
                escaped(text(parameter, "in")),
                kind(schema),
                if required { ", required" } else { "" },
                prose(text(parameter, "description")),
                bounds(schema),
            );
        }
        article.push_str("</ul>\n");
    }
    let body = operation.get("requestBody").unwrap_or(&Value::Null);
    for (content_type, content) in entries(body, "content") {
        let _ = writeln!(article, "<h4>Body: <code>{}</code></h4>", escaped(content_type));
        article.push_str(&schema_of(content.get("schema").unwrap_or(&Value::Null), 0));
    }
    article.push_str("<h4>Answers</h4>\n<ul class=\"fields\">\n");
    for (status, answer) in entries(operation, "responses") {
        let schema = entries(answer, "content").next().and_then(|(_, content)| content.get("schema"));
        let _ = writeln!(
            article,
            "<li><code>{}</code> {} {}</li>",
            escaped(status),
            prose(text(answer, "description")),
            schema.map(kind).map(|kind| format!("<span class=\"kind\">{kind}</span>")).unwrap_or_default(),
        );
    }
    article.push_str("</ul>\n");
    let _ = writeln!(
        article,
        "<h4>With curl</h4>\n<pre tabindex=\"0\"><code>{}</code></pre>\n</article>",
        escaped(&curl(shown))
    );
    article
}

/// A command that asks it; what is in capitals is to be filled in.
fn curl(shown: &Shown<'_>) -> String {
    let parts = shown.path.split('/').map(|part| match part.strip_prefix('{') {
        Some(name) => name.trim_end_matches('}').to_ascii_uppercase(),
        None => part.to_owned(),
    });
    let mut path = parts.collect::<Vec<_>>().join("/");
    let asked = items(shown.operation, "parameters").iter().filter(|parameter| {
        text(parameter, "in") == "query" && parameter.get("required").and_then(Value::as_bool) == Some(true)
    });
    for (number, parameter) in asked.enumerate() {
        let value = example(parameter.get("schema").unwrap_or(&Value::Null), 0);
        let _ = write!(path, "{}{}={value}", if number == 0 { '?' } else { '&' }, text(parameter, "name"));
    }
    let mut command = format!(
        "curl --cacert operator.ca.pem -X {} \\\n  -H \"Authorization: Bearer $FARRIER_TOKEN\"",
        shown.method
    );
    let content = shown.operation.get("requestBody").unwrap_or(&Value::Null);
    for (content_type, content) in entries(content, "content") {
        let _ = write!(command, " \\\n  -H 'Content-Type: {content_type}'");
        if content_type == "application/json" {
            let example = example(content.get("schema").unwrap_or(&Value::Null), 0);
            let _ = write!(command, " \\\n  --data '{}'", example.to_string().replace('\'', "'\\''"));
        } else {
            command.push_str(" \\\n  --data-binary @FILE");
        }
    }
    for parameter in items(shown.operation, "parameters") {
        if text(parameter, "name").eq_ignore_ascii_case("idempotency-key") {
            command.push_str(" \\\n  -H \"Idempotency-Key: $(uuidgen)\"");
        }
    }
    let _ = write!(command, " \\\n  \"https://SERVER:8080{path}\"");
    command
}

/// A document with what is required, and what can stand there.
fn example(schema: &Value, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    for key in ["const", "default"] {
        if let Some(value) = schema.get(key) {
            return value.clone();
        }
    }
    if let Some(first) = items(schema, "enum").first() {
        return first.clone();
    }
    for key in ["oneOf", "anyOf"] {
        if let Some(first) = items(schema, key).first() {
            return example(first, depth.saturating_add(1));
        }
    }
    match types(schema).first().copied() {
        Some("object") => {
            let required = items(schema, "required");
            let fields =
                entries(schema, "properties").filter(|(name, _)| required.iter().any(|one| one == *name));
            fields.map(|(name, field)| (name.clone(), example(field, depth.saturating_add(1)))).collect()
        }
        Some("array") => {
            let needs_one = schema.get("minItems").and_then(Value::as_u64).unwrap_or(0) > 0;
            let item = schema.get("items").filter(|_| needs_one);
            item.map(|item| example(item, depth.saturating_add(1))).into_iter().collect()
        }
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or_else(|| Value::from(1)),
        Some("boolean") => Value::Bool(false),
        Some(_) | None => Value::from("..."),
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(some)) => some.iter().filter_map(Value::as_str).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// In a few words what a schema allows; named ones are links.
fn kind(schema: &Value) -> String {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = escaped(target.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escaped(&value.to_string()));
    }
    for key in ["enum", "oneOf", "anyOf"] {
        let some = items(schema, key);
        if !some.is_empty() {
            let shown = some.iter().map(|one| match key {
                "enum" => format!("<code>{}</code>", escaped(&one.to_string())),
                _ => kind(one),
            });
            return shown.collect::<Vec<_>>().join(" or ");
        }
    }
    match types(schema).as_slice() {
        ["array"] => format!("list of {}", schema.get("items").map_or_else(String::new, kind)),
        [] => "anything".to_owned(),
        some => escaped(&some.join(" or ")),
    }
}

/// The rules of a value, in the document's own words.
fn bounds(schema: &Value) -> String {
    const RULES: [&str; 10] = [
        "format",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
        "uniqueItems",
        "default",
    ];
    let rules = RULES.iter().filter_map(|rule| {
        let value = schema.get(*rule).filter(|value| !value.is_null())?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(format!("{rule} <code>{}</code>", escaped(&value)))
    });
    let rules: Vec<_> = rules.collect();
    if rules.is_empty() {
        String::new()
    } else {
        format!("<span class=\"rules\">{}</span>", rules.join(", "))
    }
}

/// A schema with all that is in it.
fn schema_of(schema: &Value, depth: usize) -> String {
    let mut shown = String::new();
    let description = text(schema, "description");
    if depth == 0 {
        let _ = writeln!(
            shown,
            "<p>{} <span class=\"kind\">{}</span> {}</p>",
            prose(description),
            kind(schema),
            bounds(schema)
        );
    }
    if depth > DEEPEST {
        return shown;
    }
    let required = items(schema, "required");
    let mut fields = String::new();
    for (name, field) in entries(schema, "properties") {
        let is_required = required.iter().any(|one| one == name);
        let _ = writeln!(
            fields,
            "<li><code>{}</code> <span class=\"kind\">{}{}</span> {} {}{}</li>",
            escaped(name),
            kind(field),
            if is_required { ", required" } else { "" },
            prose(text(field, "description")),
            bounds(field),
            schema_of(field, depth.saturating_add(1)),
        );
    }
    if !fields.is_empty() {
        let _ = writeln!(shown, "<ul class=\"fields\">\n{fields}</ul>");
    }
    if let Some(item) = schema.get("items") {
        shown.push_str(&schema_of(item, depth.saturating_add(1)));
    }
    for key in ["oneOf", "anyOf"] {
        let some = items(schema, key);
        let is_worth_it = |one: &Value| one.get("properties").is_some() || one.get("description").is_some();
        if some.iter().any(is_worth_it) {
            shown.push_str("<ul class=\"fields\">\n");
            for one in some {
                let _ = writeln!(
                    shown,
                    "<li><span class=\"kind\">{}</span> {} {}{}</li>",
                    kind(one),
                    prose(text(one, "description")),
                    bounds(one),
                    schema_of(one, depth.saturating_add(1)),
                );
            }
            shown.push_str("</ul>\n");
        }
    }
    shown
}
