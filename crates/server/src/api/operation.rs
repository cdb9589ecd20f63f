//! One operation of the API: what it is called, what it needs, takes and answers, and who carries it out. The
//! router and the OpenAPI document are made from the same list, so neither can know what the other does not.

use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::Api;
use super::asked::{self, Besides};
use super::etag::Resource;
use super::page::{Page, PageQuery};
use super::problem::ProblemDocument;
use super::request;
use crate::access::Permission;

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What a request carries.
enum Body {
    Nothing,
    Json(SchemaOf),
    /// JSON documents, each in a line.
    Lines,
    Octets,
    /// Octets, or none: what came before may be all.
    Part,
}

/// One method of one address.
pub(super) struct Operation {
    method: Method,
    path: &'static str,
    summary: &'static str,
    needs: Permission,
    query: Option<SchemaOf>,
    header: Option<(&'static str, &'static str)>,
    body: Body,
    answers: Vec<(u16, &'static str, Option<SchemaOf>)>,
    /// Beside them, an answer that is no JSON: status, when, media type.
    octets: Option<(u16, &'static str, &'static str)>,
    conflicts: bool,
    resource: Option<Resource>,
    shows_a_secret: bool,
    streams: bool,
    handler: MethodRouter<Api>,
}

impl Operation {
    fn new<H, T>(method: Method, filter: MethodFilter, path: &'static str, handler: H) -> Self
    where
        H: Handler<T, Api>,
        T: 'static,
    {
        Self {
            method,
            path,
            summary: "",
            needs: Permission::Administer,
            query: None,
            header: None,
            body: Body::Nothing,
            answers: Vec::new(),
            octets: None,
            conflicts: false,
            resource: None,
            shows_a_secret: false,
            streams: false,
            handler: on(filter, handler),
        }
    }

    pub(super) fn get<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::GET, MethodFilter::GET, path, handler)
    }

    pub(super) fn post<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::POST, MethodFilter::POST, path, handler)
    }

    pub(super) fn put<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::PUT, MethodFilter::PUT, path, handler)
    }

    pub(super) fn patch<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::PATCH, MethodFilter::PATCH, path, handler)
    }

    pub(super) fn delete<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(Method::DELETE, MethodFilter::DELETE, path, handler)
    }

    /// Who may, and what it does, in a few words.
    pub(super) fn needs(mut self, permission: Permission, summary: &'static str) -> Self {
        (self.needs, self.summary) = (permission, summary);
        self
    }

    pub(super) fn takes_query<Q: JsonSchema>(mut self) -> Self {
        self.query = Some(|generator| Q::json_schema(generator));
        self
    }

    pub(super) fn takes<B: JsonSchema>(mut self) -> Self {
        self.body = Body::Json(|generator| generator.subschema_for::<B>());
        self
    }

    /// A body of any octets, and one optional header beside it. The handler bounds the body by itself.
    pub(super) fn takes_octets(mut self, header: (&'static str, &'static str)) -> Self {
        self = self.takes_part();
        (self.body, self.header) = (Body::Octets, Some(header));
        self
    }

    /// A body of any octets, which may be none, and which the handler bounds by itself.
    pub(super) fn takes_part(mut self) -> Self {
        self.body = Body::Part;
        self.handler = self.handler.layer(axum::extract::DefaultBodyLimit::disable());
        self
    }

    pub(super) fn takes_lines(mut self) -> Self {
        self.body = Body::Lines;
        self
    }

    pub(super) fn answers<A: JsonSchema>(mut self, status: u16, when: &'static str) -> Self {
        self.answers.push((status, when, Some(|generator| generator.subschema_for::<A>())));
        self
    }

    /// An answer of octets.
    pub(super) fn answers_octets(
        mut self,
        status: u16,
        when: &'static str,
        media_type: &'static str,
    ) -> Self {
        self.octets = Some((status, when, media_type));
        self
    }

    /// A page of a list.
    pub(super) fn lists<A: JsonSchema>(self) -> Self {
        self.takes_query::<PageQuery>().answers::<Page<A>>(200, "A page of the list.")
    }

    /// Whoever accepts `text/event-stream` gets a stream, which goes on after the place that the header names.
    pub(super) fn streams(mut self, header: (&'static str, &'static str)) -> Self {
        (self.streams, self.header) = (true, Some(header));
        self
    }

    /// It can be refused because of what there is.
    pub(super) fn can_conflict(mut self) -> Self {
        self.conflicts = true;
        self
    }

    /// It shows or changes one resource, which the first name in its address names: with an ETag, and If-Match or
    /// If-None-Match.
    pub(super) fn of(mut self, resource: Resource) -> Self {
        self.resource = Some(resource);
        self
    }

    /// Its answer shows a secret, and is never kept.
    pub(super) fn shows_a_secret(mut self) -> Self {
        self.shows_a_secret = true;
        self
    }

    /// Whether it can be asked to be done once only: what changes nothing needs no key, and the other methods do the same
    /// however often they are sent.
    pub(super) fn is_keyed(&self) -> bool {
        self.method == Method::POST && self.needs != Permission::View
    }

    /// The address, and what serves this method of it.
    pub(super) fn into_route(self, api: &Api) -> (&'static str, MethodRouter<Api>) {
        let besides = Besides {
            method: self.method.clone(),
            resource: self.resource,
            is_keyed: self.is_keyed(),
            is_secret: self.shows_a_secret,
        };
        let besides = middleware::from_fn_with_state((api.clone(), besides), asked::besides);
        let permission = middleware::from_fn_with_state(self.needs, request::permitted);
        (self.path, self.handler.route_layer(besides).route_layer(permission))
    }

    #[cfg(test)]
    pub(super) fn key(&self) -> (Method, &'static str, Permission) {
        (self.method.clone(), self.path, self.needs)
    }

    fn document(&self, requests: &mut SchemaGenerator, answers: &mut SchemaGenerator) -> Value {
        let scopes: Vec<_> = self.needs.scopes().iter().map(|scope| scope.name()).collect();
        let mut responses = Map::new();
        for (status, when, schema) in &self.answers {
            let mut response = json!({"description": when});
            if let (Some(_), Some(fields)) = (self.resource, response.as_object_mut()) {
                let etag = json!({
                    "description": "Which state of it this is; absent where it is gone.",
                    "schema": {"type": "string"},
                });
                fields.insert("headers".to_owned(), json!({"ETag": etag}));
            }
            if let (Some(schema), Some(fields)) = (schema, response.as_object_mut()) {
                let mut content = json!({"application/json": {"schema": schema(answers)}});
                if let (true, Some(types)) = (self.streams, content.as_object_mut()) {
                    types.insert("text/event-stream".to_owned(), json!({"schema": {"type": "string"}}));
                }
                fields.insert("content".to_owned(), content);
            }
            responses.insert(status.to_string(), response);
        }
        if self.is_conditional_get() {
            let when = "It is as If-None-Match names it; nothing is sent.";
            responses.insert("304".to_owned(), json!({"description": when}));
        }
        if let Some((status, when, media_type)) = self.octets {
            let content = json!({media_type: {"schema": {"type": "string", "format": "binary"}}});
            responses.insert(status.to_string(), json!({"description": when, "content": content}));
        }
        for (status, when) in self.refusals() {
            let problem = answers.subschema_for::<ProblemDocument>();
            let content = json!({"application/problem+json": {"schema": problem}});
            responses.insert(status.to_string(), json!({"description": when, "content": content}));
        }
        let mut document = json!({
            "operationId": self.operation_id(),
            "summary": self.summary,
            "description": format!("Needs a token with one of the scopes {}.", scopes.join(", ")),
            "x-farrier-scopes": scopes,
            "parameters": self.parameters(requests),
            "responses": responses,
        });
        if let (Some(body), Some(fields)) = (self.request_body(requests), document.as_object_mut()) {
            fields.insert("requestBody".to_owned(), body);
        }
        document
    }

    /// `post_campaigns_name_start`
    fn operation_id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let words: Vec<_> = std::iter::once(self.method.as_str().to_ascii_lowercase())
            .chain(words.map(str::to_owned))
            .collect();
        words.join("_")
    }

    fn refusals(&self) -> Vec<(u16, &'static str)> {
        let mut refusals = vec![
            (401, "No token, or one that is unknown, revoked or expired."),
            (403, "The token's scope does not reach."),
            (422, "Something in the request is against its rule; `detail` names it."),
            (503, "The store cannot be read or written at the moment."),
        ];
        let takes_document = matches!(self.body, Body::Json(_) | Body::Lines);
        let named = [
            (
                self.path.contains('{') || takes_document,
                (404, "Something that the request names is not there."),
            ),
            (self.conflicts || self.is_keyed(), (409, "It does not go with what there is; `code` says why.")),
            (
                self.resource.is_some() && !self.is_conditional_get(),
                (412, "It was changed since it was as If-Match names it; `ETag` says how it is now."),
            ),
            (takes_document || self.is_keyed(), (413, "The document is larger than 1 MiB.")),
        ];
        refusals.extend(named.into_iter().filter_map(|(can_be, refusal)| can_be.then_some(refusal)));
        refusals
    }

    fn is_conditional_get(&self) -> bool {
        self.resource.is_some() && self.method == Method::GET
    }

    /// What may be asked beside: once only, only if it is as it was seen, only if it is new.
    fn besides(&self) -> Vec<Value> {
        let mut parameters = Vec::new();
        let mut header = |name: &str, description: &str, schema: Value| {
            parameters.push(json!({
                "name": name, "in": "header", "required": false, "description": description, "schema": schema,
            }));
        };
        if self.is_keyed() {
            let means = if self.shows_a_secret {
                "A key of your own: sent again within a day with the same key and body, the request does nothing again. Its \
                 answer shows a secret and is not kept: 409 IDEMPOTENCY_SECRET."
            } else {
                "A key of your own: sent again within a day with the same key and body, the request does nothing again and \
                 gets the first answer, with `Idempotency-Replayed: true`. Requests that are refused are not kept."
            };
            let schema =
                json!({"type": "string", "pattern": "^[!-~]{1,255}$", "minLength": 1, "maxLength": 255});
            header("Idempotency-Key", means, schema);
        }
        if self.is_conditional_get() {
            let means = "ETags that you know: if it is still so, the answer is 304.";
            header("If-None-Match", means, json!({"type": "string"}));
        } else if self.resource.is_some() {
            let means = "Change it only if it is still as one of these ETags says, or `*`. What only vehicles change does not count.";
            header("If-Match", means, json!({"type": "string"}));
        }
        parameters
    }

    fn parameters(&self, requests: &mut SchemaGenerator) -> Vec<Value> {
        let names = self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<_> = names
            .map(|name| {
                let pattern = match name {
                    "sha256" => "^[0-9A-Fa-f]{64}$",
                    _ => "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
                };
                json!({
                    "name": name, "in": "path", "required": true,
                    "schema": {"type": "string", "pattern": pattern},
                })
            })
            .collect();
        if let Some(query) = self.query {
            let schema = query(requests).to_value();
            let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
            let properties = schema.get("properties").and_then(Value::as_object);
            for (name, property) in properties.into_iter().flatten() {
                parameters.push(json!({
                    "name": name, "in": "query", "required": required.contains(&json!(name)),
                    "description": property.get("description"), "schema": without_null(property),
                }));
            }
        }
        if let Some((name, description)) = self.header {
            parameters.push(json!({
                "name": name, "in": "header", "required": false, "description": description,
                "schema": {"type": "string"},
            }));
        }
        parameters.extend(self.besides());
        parameters
    }

    fn request_body(&self, requests: &mut SchemaGenerator) -> Option<Value> {
        let (content_type, schema) = match self.body {
            Body::Nothing => return None,
            Body::Json(schema) => ("application/json", schema(requests).to_value()),
            Body::Lines => ("text/plain", json!({"type": "string"})),
            Body::Octets | Body::Part => {
                ("application/octet-stream", json!({"type": "string", "format": "binary"}))
            }
        };
        let is_required = !matches!(self.body, Body::Part);
        Some(json!({"required": is_required, "content": {content_type: {"schema": schema}}}))
    }
}

/// A query cannot say `null`: what is absent is absent.
fn without_null(property: &Value) -> Value {
    let mut property = property.clone();
    if let Some(fields) = property.as_object_mut() {
        fields.remove("description");
        if let Some(Value::Array(types)) = fields.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                fields.insert("type".to_owned(), only);
            }
        }
    }
    property
}

/// The OpenAPI document of these operations.
pub(super) fn openapi(operations: &[Operation]) -> Value {
    let mut requests = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .into_generator();
    let mut answers = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .for_serialize()
        .into_generator();
    let mut paths = Map::new();
    for operation in operations {
        let path = paths.entry(format!("/api/v1{}", operation.path)).or_insert_with(|| json!({}));
        if let Some(methods) = path.as_object_mut() {
            let method = operation.method.as_str().to_ascii_lowercase();
            methods.insert(method, operation.document(&mut requests, &mut answers));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Farrier operator API",
            "version": "1.0",
            "description": "Plans and follows updates of vehicles. Every answer has `x-request-id`; what is refused \
                            is answered by a problem document (RFC 9457) whose `code` is stable, and whose `type` is \
                            the address of what it means.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": answers.take_definitions(true),
        },
    })
}
