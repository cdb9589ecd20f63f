use std::collections::BTreeSet;

use super::*;

impl Operator {
    /// Status, type and text, without a token.
    async fn page(&self, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let octets = axum::body::to_bytes(body, 10_000_000).await.unwrap();
        let kind = parts.headers["content-type"].to_str().unwrap().to_owned();
        if kind.starts_with("text/html") {
            let policy = parts.headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'; style-src 'self'"), "{policy}");
        }
        (parts.status, kind, String::from_utf8(octets.to_vec()).unwrap())
    }
}

#[tokio::test]
async fn the_document_is_shown_whole_and_asks_nothing_of_others() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (status, kind, page) = operator.page("/api/docs").await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/html; charset=utf-8"));
    let document = operation::openapi(&routes::operations());
    let ids: BTreeSet<_> = page.split(" id=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            assert!(ids.contains(operation["operationId"].as_str().unwrap()), "{operation}");
        }
    }
    for schema in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(ids.contains(format!("schema-{schema}").as_str()), "{schema}");
    }
    for target in page.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        match target.strip_prefix('#') {
            Some(id) => assert!(ids.contains(id), "{target} leads nowhere"),
            None => assert!(operator.page(target).await.0 == StatusCode::OK, "{target} leads nowhere"),
        }
    }
    assert_eq!(ids.len(), page.matches(" id=\"").count(), "ids are unique");
    for foreign in ["<script", " style=", "src=", "http://", "//cdn"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for (open, close) in
        [("<ul", "</ul>"), ("<li>", "</li>"), ("<article", "</article>"), ("<section", "</section>")]
    {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }
    let style = operator.page("/api/docs/style.css").await;
    assert!(style.1.starts_with("text/css") && !style.2.contains("url("));
}

/// Every code that the sources name has a meaning, and every meaning is of a code that they name.
#[tokio::test]
async fn every_code_has_a_page() {
    let mut named = BTreeSet::new();
    let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.extend((!path.ends_with("tests")).then_some(path));
                continue;
            }
            if path.ends_with("problems.rs") || path.ends_with("tests.rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap_or_default();
            for made in
                ["conflict(", "busy(", "invalid_at(", "StatusCode::UNPROCESSABLE_ENTITY,", "Self::new("]
            {
                for rest in source.split(made).skip(1) {
                    // The first text among the arguments, where it is a code.
                    let arguments: String = rest.chars().take(120).collect();
                    let text = arguments.split('"').nth(1).unwrap_or_default();
                    let is_code = text.len() > 3 && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
                    named.extend(is_code.then(|| text.to_owned()));
                }
            }
        }
    }
    let known: BTreeSet<_> = problems::ALL.iter().map(|meaning| meaning.code.to_owned()).collect();
    assert_eq!(named, known);
    assert_eq!(known.len(), problems::ALL.len());
    let world = World::new();
    let operator = Operator::of(&world).await;
    let list = operator.page("/api/v1/problems").await.2;
    for meaning in problems::ALL {
        let (status, _, page) = operator.page(&format!("/api/v1/problems/{}", meaning.code)).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains(meaning.code) && list.contains(meaning.code));
    }
    // The type of a refusal leads to its page.
    let (_, refused) = operator.call("GET", "/api/v1/vehicles/V9", "").await;
    let page = operator.page(refused["type"].as_str().unwrap()).await;
    assert_eq!((page.0, refused["type"].as_str()), (StatusCode::OK, Some("/api/v1/problems/NOT_FOUND")));
    assert_eq!(operator.page("/api/v1/problems/%3Cb%3E").await.0, StatusCode::NOT_FOUND);
}
