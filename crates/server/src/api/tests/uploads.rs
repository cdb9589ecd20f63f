use futures_util::stream;

use super::*;

impl Operator {
    async fn part(&self, sha256: &Sha256, at: u64, body: impl Into<Body>) -> (StatusCode, Value) {
        self.call("PATCH", &format!("/api/v1/uploads/{sha256}?offset_bytes={at}"), body).await
    }

    fn in_parts(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.dir.path().join("images")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    }
}

fn image(octets: usize) -> (Vec<u8>, Sha256) {
    let image: Vec<u8> = (0..octets).map(|number| (number % 251) as u8).collect();
    let sha256 = Sha256::of(&image);
    (image, sha256)
}

#[tokio::test]
async fn an_image_comes_in_parts_and_is_stored_once_it_is_whole() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (octets, sha256) = image(1_000);
    let new = json!({"sha256": sha256, "size_bytes": 1_000});
    let (status, begun) = operator.post("/uploads", new.clone()).await;
    assert_eq!((status, &begun["offset_bytes"]), (StatusCode::CREATED, &json!(0)), "{begun}");
    let (status, body) = operator.part(&sha256, 0, octets[..400].to_vec()).await;
    assert_eq!(
        (status, &body["offset_bytes"], &body["is_stored"]),
        (StatusCode::OK, &json!(400), &json!(false))
    );
    // Another client that knows only the file, and another server on the same folder, find out where to go on.
    let (status, again) = operator.post("/uploads", new.clone()).await;
    assert_eq!((status, &again["offset_bytes"]), (StatusCode::OK, &json!(400)));
    assert_eq!(operator.get(&format!("/uploads/{sha256}")).await["offset_bytes"], 400);
    assert_eq!(operator.get("/uploads").await["items"][0]["sha256"], json!(sha256));
    for at in [0, 399, 401] {
        let wrong = operator.part(&sha256, at, octets[400..].to_vec()).await;
        refused(wrong, StatusCode::CONFLICT, "UPLOAD_OFFSET", "byte 400");
    }
    let differs = operator.post("/uploads", json!({"sha256": sha256, "size_bytes": 999})).await;
    refused(differs, StatusCode::CONFLICT, "UPLOAD_DIFFERS", "1000");
    let (status, body) = operator.part(&sha256, 400, octets[400..].to_vec()).await;
    assert_eq!((status, &body["is_stored"]), (StatusCode::OK, &json!(true)), "{body}");
    let stored = world.read(move |tx| crate::store::releases::image(tx, &sha256)).await.unwrap();
    assert_eq!(stored.size_bytes, 1_000);
    assert_eq!(std::fs::read(operator.dir.path().join(format!("images/{sha256}"))).unwrap(), octets);
    assert_eq!(operator.in_parts(), Vec::<String>::new());
    let (status, known) = operator.post("/uploads", new).await;
    assert_eq!((status, &known["is_stored"]), (StatusCode::OK, &json!(true)));
    let over = operator.part(&sha256, 1_000, "").await;
    refused(over, StatusCode::NOT_FOUND, "NOT_FOUND", "upload");
}

#[tokio::test]
async fn a_line_that_breaks_loses_only_what_had_not_come() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (octets, sha256) = image(1_000);
    operator.post("/uploads", json!({"sha256": sha256, "size_bytes": 1_000})).await;
    let first = Ok(octets[..300].to_vec());
    let broken = stream::iter([first, Err(std::io::Error::other("cut"))]);
    let answer = operator.part(&sha256, 0, Body::from_stream(broken)).await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "whole");
    assert_eq!(operator.get(&format!("/uploads/{sha256}")).await["offset_bytes"], 300);
    // What a crash left behind the acknowledged octets counts for nothing.
    let file = operator.dir.path().join(format!("images/.parts-{sha256}"));
    let mut left = std::fs::read(&file).unwrap();
    left.extend_from_slice(&[0xff; 50]);
    std::fs::write(&file, left).unwrap();
    assert_eq!(operator.part(&sha256, 300, octets[300..500].to_vec()).await.1["offset_bytes"], 500);
    // A file that lost octets which were acknowledged is found out, and they are asked for again.
    std::fs::File::options().write(true).open(&file).unwrap().set_len(100).unwrap();
    let lost = operator.part(&sha256, 500, octets[500..].to_vec()).await;
    refused(lost, StatusCode::CONFLICT, "UPLOAD_OFFSET", "byte 100");
    let (status, body) = operator.part(&sha256, 100, octets[100..].to_vec()).await;
    assert_eq!((status, &body["is_stored"]), (StatusCode::OK, &json!(true)), "{body}");
}

#[tokio::test]
async fn other_octets_than_the_digest_says_are_refused_and_removed() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (octets, sha256) = image(10);
    let new = json!({"sha256": sha256, "size_bytes": 10});
    operator.post("/uploads", new.clone()).await;
    let more = operator.part(&sha256, 0, octets.repeat(2)).await;
    refused(more, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "expected 10");
    let wrong = operator.part(&sha256, 0, vec![7; 10]).await;
    refused(wrong, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "SHA-256");
    assert_eq!(operator.in_parts(), Vec::<String>::new());
    assert_eq!(operator.call("GET", &format!("/api/v1/uploads/{sha256}"), "").await.0, StatusCode::NOT_FOUND);
    assert!(world.read(move |tx| crate::store::releases::image(tx, &sha256)).await.is_none());
    assert_eq!(operator.post("/uploads", new).await.1["offset_bytes"], 0);
    assert_eq!(operator.part(&sha256, 0, octets).await.1["is_stored"], true);
}

#[tokio::test]
async fn one_writes_at_a_time() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let (octets, sha256) = image(10);
    operator.post("/uploads", json!({"sha256": sha256, "size_bytes": 10})).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let slow = Body::from_stream(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|part| (part, receiver))
    }));
    let path = format!("/api/v1/uploads/{sha256}?offset_bytes=0");
    let (slow, ()) = tokio::join!(operator.call("PATCH", &path, slow), async {
        sender.send(Ok(octets[..5].to_vec())).await.unwrap();
        // The first has the file when it has taken this.
        sender.send(Ok(octets[5..6].to_vec())).await.unwrap();
        sender.reserve().await.unwrap();
        refused(operator.part(&sha256, 0, octets.clone()).await, StatusCode::CONFLICT, "UPLOAD_BUSY", "wait");
        let ended = operator.call("DELETE", &format!("/api/v1/uploads/{sha256}"), "").await;
        refused(ended, StatusCode::CONFLICT, "UPLOAD_BUSY", "wait");
        drop(sender);
    });
    assert_eq!((slow.0, &slow.1["offset_bytes"]), (StatusCode::OK, &json!(6)), "{}", slow.1);
    let (status, ended) = operator.call("DELETE", &format!("/api/v1/uploads/{sha256}"), "").await;
    assert_eq!((status, &ended["offset_bytes"]), (StatusCode::OK, &json!(6)));
    assert_eq!(operator.in_parts(), Vec::<String>::new());
}

#[tokio::test]
async fn uploads_are_bounded_and_expire() {
    let mut world = World::new();
    let operator = Operator::of(&world).await;
    let new =
        |number: u32, size: u64| json!({"sha256": Sha256::of(&number.to_be_bytes()), "size_bytes": size});
    for size in [0, (64 << 30) + 1] {
        let answer = operator.post("/uploads", new(1, size)).await;
        refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "size_bytes");
    }
    let unsigned = json!({"sha256": Sha256::of(b""), "size_bytes": 1, "signature": "no base64!"});
    let answer = operator.post("/uploads", unsigned).await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_REQUEST", "base64");
    for number in 0..16 {
        assert_eq!(operator.post("/uploads", new(number, 10)).await.0, StatusCode::CREATED);
    }
    let more = operator.post("/uploads", new(16, 10)).await;
    refused(more, StatusCode::CONFLICT, "UPLOAD_TOO_MANY", "16 uploads");
    let first = Sha256::of(&0_u32.to_be_bytes());
    operator.part(&first, 0, "half").await;
    world.now = START.plus_seconds(86_400);
    let later = Operator::of(&world).await;
    assert_eq!(later.post("/uploads", new(16, 10)).await.0, StatusCode::CREATED);
    assert_eq!(later.get("/uploads").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_signature_that_came_with_the_upload_is_checked_at_its_end() {
    let world = World::new();
    let operator = Operator::with(&world, false).await;
    let (octets, sha256) = image(10);
    let new = json!({"sha256": sha256, "size_bytes": 10, "signature": "MAA="});
    operator.post("/uploads", new).await;
    let answer = operator.part(&sha256, 0, octets).await;
    refused(answer, StatusCode::CONFLICT, "SIGNATURE_REQUIRED", "release key");
    assert_eq!(operator.in_parts(), Vec::<String>::new());
    assert_eq!(operator.get("/uploads").await["items"], json!([]));
}

/// Two servers that share the store and the folder: parts go to either, and a third that starts meanwhile removes nothing.
#[tokio::test]
async fn parts_of_one_upload_go_to_any_server_of_the_store() {
    let world = World::new();
    let one = Operator::of(&world).await;
    let two = one.beside(&world).await;
    let (octets, sha256) = image(1_000);
    one.post("/uploads", json!({"sha256": sha256, "size_bytes": 1_000})).await;
    for (number, from) in (0..1_000).step_by(250).enumerate() {
        let server = if number % 2 == 0 { &two } else { &one };
        let (status, body) = server.part(&sha256, from as u64, octets[from..from + 250].to_vec()).await;
        assert_eq!((status, &body["offset_bytes"]), (StatusCode::OK, &json!(from + 250)), "{body}");
        one.beside(&world).await;
    }
    assert_eq!(std::fs::read(one.dir.path().join(format!("images/{sha256}"))).unwrap(), octets);
}
