//! A client of the operator API that shares nothing with the command line's.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use farrier_protocol::Sha256;
use reqwest::{Client, Method, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};

use crate::until;

/// Speaks to one server's operator API.
#[derive(Clone)]
pub struct Api {
    http: Client,
    base: String,
    token: String,
}

impl Api {
    /// With the token that the server wrote to this file.
    pub fn new(operator: SocketAddr, token_file: &Path) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        // Where the server has no certificate of its own authority, these tests let it speak plain HTTP.
        let ca = token_file.with_file_name("operator.ca.pem");
        let scheme = match CertificateDer::from_pem_file(ca) {
            Ok(root) => {
                roots.add(root).unwrap();
                "https"
            }
            Err(_) => "http",
        };
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            http: Client::builder().tls_backend_preconfigured(tls).no_proxy().build().unwrap(),
            base: format!("{scheme}://{operator}/api/v1"),
            token: std::fs::read_to_string(token_file).unwrap().trim().to_owned(),
        }
    }

    /// Where the API is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The text at an address of the operators' listener outside the API.
    pub async fn text(&self, path: &str) -> String {
        let root = self.base.trim_end_matches("/api/v1");
        let response = self.http.get(format!("{root}/{path}")).bearer_auth(&self.token).send().await.unwrap();
        assert!(response.status().is_success(), "GET {path}: {}", response.status());
        response.text().await.unwrap()
    }

    /// What the server says of its readiness, whether it is ready or not.
    pub async fn readiness(&self) -> Value {
        let root = self.base.trim_end_matches("/api/v1");
        self.http.get(format!("{root}/readyz")).send().await.unwrap().json().await.unwrap()
    }

    /// The answer, whatever it is.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let request = self.http.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.token);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        let status = response.status();
        (status, response.json().await.unwrap_or(Value::Null))
    }

    /// The answer of a GET that must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {answer}");
        answer
    }

    /// All items of a list, whatever its pages.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let page = self.get(&format!("{path}?limit=1000{next}")).await;
            items.extend(page["items"].as_array().expect("a page").iter().cloned());
            match page["next"].as_str() {
                Some(after) => next = format!("&after={after}"),
                None => return items,
            }
        }
    }

    /// The answer of a POST that must succeed.
    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    /// The answer of a POST that must succeed, and whether it is that of an earlier one with the same key.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> (bool, Value) {
        let request = self.http.post(format!("{}/{path}", self.base)).bearer_auth(&self.token);
        let response = request.header("idempotency-key", key).json(body).send().await.unwrap();
        assert!(response.status().is_success(), "POST {path}: {}", response.status());
        let is_replayed = response.headers().contains_key("idempotency-replayed");
        (is_replayed, response.json().await.unwrap())
    }

    /// Brings an image to the server, which signs it.
    pub async fn put_image(&self, image: &[u8]) -> Sha256 {
        let sha256 = Sha256::of(image);
        let url = format!("{}/images/{sha256}?size_bytes={}", self.base, image.len());
        let response = self.http.put(url).bearer_auth(&self.token).body(image.to_vec()).send().await.unwrap();
        let status = response.status();
        assert!(status.is_success(), "PUT image: {status} {}", response.text().await.unwrap());
        sha256
    }

    /// Makes a release of one image per hardware, and a campaign of the same name; starts it.
    pub async fn start_campaign(&self, name: &str, version: &str, images: &[(String, Vec<u8>)]) {
        self.create_release(name, version, images).await;
        self.run_campaign(name, name).await;
    }

    /// Makes a release of one image per hardware.
    pub async fn create_release(&self, name: &str, version: &str, images: &[(String, Vec<u8>)]) {
        let mut entries = Vec::new();
        for (hw_part_no, image) in images {
            let sha256 = self.put_image(image).await.to_string();
            entries.push(json!({ "hw_part_no": hw_part_no, "version": version, "sha256": sha256 }));
        }
        self.post("releases", json!({ "name": name, "images": entries })).await;
    }

    /// Makes a campaign for every vehicle and starts it.
    pub async fn run_campaign(&self, name: &str, release: &str) {
        self.post("campaigns", json!({ "name": name, "release": release })).await;
        self.post(&format!("campaigns/{name}/start"), json!({})).await;
    }

    /// The vehicle in the campaign, if it is taken in.
    pub async fn vehicle_update(&self, campaign: &str, vehicle: &str) -> Option<Value> {
        let updates = self.list(&format!("campaigns/{campaign}/vehicles")).await;
        updates.into_iter().find(|update| update["vehicle_id"] == vehicle)
    }

    /// Waits until the vehicle is in this state of the campaign; gives what the server then says of it.
    pub async fn reaches(&self, campaign: &str, vehicle: &str, state: &str) -> Value {
        const FINAL: [&str; 5] = ["succeeded", "rolled_back", "inconsistent", "unknown", "ineligible"];
        until(&format!("{vehicle} reaches {state}"), async || {
            let update = self.vehicle_update(campaign, vehicle).await?;
            let now = update["state"].as_str().expect("a state").to_owned();
            assert!(now == state || !FINAL.contains(&now.as_str()), "expected {state}, found {update}");
            (now == state).then_some(update)
        })
        .await
    }

    /// Waits until all bytes of an update are noted as served: that is noted once a second, and an update can be
    /// faster.
    pub async fn notes_that_all_is_served(&self, campaign: &str, vehicle: &str) {
        until(&format!("all bytes are noted as served to {vehicle}"), async || {
            let update = self.vehicle_update(campaign, vehicle).await?;
            (update["bytes_served"] == update["bytes_total"]).then_some(())
        })
        .await;
    }

    /// Waits until the server knows so many vehicles, with their inventories.
    pub async fn knows_vehicles(&self, count: usize) {
        until(&format!("the server knows {count} vehicles"), async || {
            let vehicles = self.list("vehicles").await;
            let known = vehicles.iter().filter(|vehicle| vehicle["ecu_count"].is_u64());
            (known.count() == count).then_some(())
        })
        .await;
    }

    /// Waits until the server sees the vehicle connected or not.
    pub async fn sees_connected(&self, vehicle: &str, connected: bool) {
        until(&format!("{vehicle} connected: {connected}"), async || {
            let (_, answer) = self.ask(Method::GET, &format!("vehicles/{vehicle}"), None).await;
            (answer["connected"] == connected).then_some(())
        })
        .await;
    }
}
