use super::*;

#[test]
fn the_document_in_docs_is_that_of_the_routes() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let document = operation::openapi(&routes::operations());
    let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
    if std::env::var_os("FARRIER_UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == text,
        "docs/openapi.json is not up to date: run the test again with FARRIER_UPDATE_OPENAPI=1"
    );
}

#[tokio::test]
async fn the_document_is_served_and_names_every_operation_with_its_scopes_and_refusals() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let document = operator.get("/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut described = 0;
    for operation in routes::operations() {
        let (method, path, needs) = operation.key();
        let entry = &document["paths"][format!("/api/v1{path}")][method.as_str().to_ascii_lowercase()];
        assert_eq!(entry["x-farrier-scopes"], json!(needs.scopes()), "{method} {path}");
        assert!(!entry["summary"].as_str().unwrap().is_empty(), "{method} {path}");
        for status in ["401", "403", "422", "503"] {
            assert!(entry["responses"][status].is_object(), "{method} {path} {status}");
        }
        let successes =
            entry["responses"].as_object().unwrap().keys().filter(|status| status.starts_with('2'));
        assert!(successes.count() > 0, "{method} {path}");
        described += 1;
    }
    let listed = document["paths"].as_object().unwrap().values();
    assert_eq!(listed.map(|methods| methods.as_object().unwrap().len()).sum::<usize>(), described);
}

/// Every `$ref` leads somewhere.
#[test]
fn the_document_is_whole() {
    let document = operation::openapi(&routes::operations());
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref") {
                    let pointer = target.as_str().unwrap().trim_start_matches('#');
                    assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
