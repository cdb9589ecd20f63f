//! Signing in with a stand-in for an OpenID Connect provider that signs what it is told to.

use std::collections::BTreeMap;
use std::sync::Mutex;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Form;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farrier_protocol::Sha256;
use figment::providers::{Format, Toml};
use serde_json::{Value, json};

use super::*;
use crate::console::OidcSettings;

/// What the provider knows of an attempt.
#[derive(Default)]
struct Attempt {
    /// What the ID token says beyond what every one says.
    claims: Value,
    challenge: String,
    nonce: String,
}

struct StandIn {
    url: String,
    key: EcdsaKeyPair,
    attempts: Mutex<BTreeMap<String, Attempt>>,
    now: i64,
}

fn key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

impl StandIn {
    async fn start(world: &World) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let attempts = Mutex::new(BTreeMap::new());
        let stand_in = Arc::new(Self { url, key: key(), attempts, now: world.now.0 / 1000 });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(metadata))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&stand_in));
        tokio::spawn(async move { axum::serve(listener, router).await });
        stand_in
    }

    fn settings(&self) -> OidcSettings {
        let text = format!(
            "issuer = '{}'\nclient_id = 'farrier'\nconsole = 'https://ota.example'\ntitle = 'Example SSO'\n\
             [scopes]\nadmin = ['ota-admins']\noperator = ['ota']\nviewer = ['staff']",
            self.url
        );
        figment::Figment::from(Toml::string(&text)).extract().unwrap()
    }

    /// Whoever is at this browser signs in with the provider; gives where the browser comes back to.
    fn signs_in(&self, address: &str, code: &str, claims: Value) -> String {
        let asked = parameters(address.split_once('?').unwrap().1);
        assert!(address.starts_with(&format!("{}/authorize?", self.url)));
        assert_eq!(asked["redirect_uri"], "https://ota.example/sign-in/oidc/callback");
        assert_eq!((&*asked["response_type"], &*asked["client_id"]), ("code", "farrier"));
        assert_eq!((&*asked["code_challenge_method"], &*asked["scope"]), ("S256", "openid profile email"));
        let (challenge, nonce) = (asked["code_challenge"].clone(), asked["nonce"].clone());
        self.attempts.lock().unwrap().insert(code.to_owned(), Attempt { claims, challenge, nonce });
        format!("/sign-in/oidc/callback?code={code}&state={}&iss={}", asked["state"], encoded(&self.url))
    }
}

fn parameters(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| {
            let plain = value.replace('+', " ");
            let mut octets = Vec::new();
            let mut rest = plain.as_bytes();
            while let [first, tail @ ..] = rest {
                if *first == b'%' {
                    octets.push(u8::from_str_radix(std::str::from_utf8(&tail[..2]).unwrap(), 16).unwrap());
                    rest = &tail[2..];
                } else {
                    octets.push(*first);
                    rest = tail;
                }
            }
            (name.to_owned(), String::from_utf8(octets).unwrap())
        })
        .collect()
}

async fn metadata(State(stand_in): State<Arc<StandIn>>) -> axum::Json<Value> {
    let url = &stand_in.url;
    axum::Json(json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256", "HS256", "none"],
    }))
}

async fn keys(State(stand_in): State<Arc<StandIn>>) -> axum::Json<Value> {
    let point = stand_in.key.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    axum::Json(json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1", "x": x, "y": y}]}))
}

async fn token(
    State(stand_in): State<Arc<StandIn>>,
    Form(asked): Form<BTreeMap<String, String>>,
) -> Result<axum::Json<Value>, (StatusCode, axum::Json<Value>)> {
    let attempt = stand_in.attempts.lock().unwrap().remove(&asked["code"]);
    let verified = URL_SAFE_NO_PAD.encode(Sha256::of(asked["code_verifier"].as_bytes()).as_bytes());
    let Some(attempt) = attempt.filter(|attempt| attempt.challenge == verified) else {
        return Err((StatusCode::BAD_REQUEST, axum::Json(json!({"error": "invalid_grant"}))));
    };
    let mut claims = json!({
        "iss": stand_in.url, "aud": "farrier", "nonce": attempt.nonce, "sub": "248289761001",
        "iat": stand_in.now, "exp": stand_in.now + 300,
    });
    let mut header = json!({"alg": "ES256", "kid": "1"});
    let mut signs_itself = true;
    for (name, value) in attempt.claims.as_object().unwrap() {
        match name.as_str() {
            "alg" => header["alg"] = value.clone(),
            "by another" => signs_itself = false,
            name => claims[name] = value.clone(),
        }
    }
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let another = key();
    let by = if signs_itself { &stand_in.key } else { &another };
    let signature = by.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let signature = match header["alg"].as_str() {
        Some("none") => String::new(),
        _ => URL_SAFE_NO_PAD.encode(signature.as_ref()),
    };
    Ok(axum::Json(json!({
        "access_token": "a", "token_type": "Bearer", "id_token": format!("{signed}.{signature}"),
    })))
}

/// A console with an admin of its own, and a browser that nobody is signed in with.
async fn console(world: &World) -> (Arc<StandIn>, Browser) {
    let stand_in = StandIn::start(world).await;
    let provider = Provider::new(&stand_in.settings()).unwrap();
    let mut admin = Browser::with(world, Some(provider));
    let link = admin.console.first_link().await.unwrap().unwrap();
    admin.welcome(&link, "alice").await.leads_to();
    let browser = admin.another();
    (stand_in, browser)
}

async fn sign_in_with(stand_in: &StandIn, browser: &mut Browser, claims: Value) -> Answer {
    let address = browser.get("/sign-in/oidc").await.leads_to().to_owned();
    let back = stand_in.signs_in(&address, "code-1", claims);
    browser.get(&back).await
}

#[tokio::test]
async fn whoever_the_provider_names_comes_in_with_the_scope_that_it_gives() {
    let world = World::new();
    let (stand_in, mut browser) = console(&world).await;
    let door = browser.get("/vehicles").await.leads_to().to_owned();
    let page = browser.page(&door).await;
    assert!(page.contains("Sign in with Example SSO"));
    let to_provider = page.split("href=\"/sign-in/oidc").nth(1).unwrap().split('"').next().unwrap();
    let address = browser.get(&format!("/sign-in/oidc{to_provider}")).await.leads_to().to_owned();
    let kim = json!({"preferred_username": "kim@example.com", "groups": ["staff", "ota"]});
    let back = stand_in.signs_in(&address, "code-1", kim.clone());
    assert_eq!(browser.get(&back).await.leads_to(), "/vehicles");
    let page = browser.page("/").await;
    assert!(page.contains("kim-example.com") && page.contains("operator"), "{page}");
    assert!(audited(&world).await.contains(&("user:kim-example.com".to_owned(), "user.created".to_owned())));

    // Later the provider calls the same person otherwise, and lets them do less.
    let mut later = browser.another();
    let renamed = json!({"preferred_username": "kim.lee", "groups": ["staff"]});
    assert_eq!(sign_in_with(&stand_in, &mut later, renamed).await.leads_to(), "/");
    let page = later.page("/").await;
    assert!(
        page.contains("kim-example.com") && !page.contains("kim.lee") && page.contains("viewer"),
        "{page}"
    );
    let changed = ("user:kim-example.com".to_owned(), "user.scope_changed".to_owned());
    assert!(audited(&world).await.contains(&changed));
}

#[tokio::test]
async fn who_comes_back_otherwise_than_they_went_stays_outside() {
    let world = World::new();
    let (stand_in, mut browser) = console(&world).await;
    let kim = || json!({"preferred_username": "kim", "groups": ["ota"]});
    let address = browser.get("/sign-in/oidc").await.leads_to().to_owned();
    let back = stand_in.signs_in(&address, "code-1", kim());
    let stays_outside = |answer: Answer, browser: &Browser| {
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}", answer.body);
        assert!(browser.cookie.is_empty());
    };
    let mut other = browser.another();
    stays_outside(other.get(&back).await, &other);
    stays_outside(browser.get("/sign-in/oidc/callback?code=code-1&state=").await, &browser);
    stays_outside(browser.get("/sign-in/oidc/callback?code=code-1&state=x").await, &browser);
    stays_outside(browser.get(&back.replace("iss=http", "iss=https")).await, &browser);
    stays_outside(browser.get(&back.replace("code=code-1", "error=access_denied")).await, &browser);
    stays_outside(browser.get(&back.replace("code-1", "code-2")).await, &browser);
    assert_eq!(browser.get(&back).await.leads_to(), "/");
    let mut again = browser.another();
    again.on_the_way = browser.on_the_way.clone();
    stays_outside(again.get(&back).await, &again);
}

#[tokio::test]
async fn a_token_that_proves_nothing_lets_nobody_in() {
    let world = World::new();
    let (stand_in, mut browser) = console(&world).await;
    let now = stand_in.now;
    for wrong in [
        json!({"aud": "another"}),
        json!({"iss": "https://evil.example"}),
        json!({"nonce": "another"}),
        json!({"exp": now - 1}),
        json!({"alg": "none"}),
        json!({"alg": "HS256"}),
        json!({"by another": true}),
    ] {
        let mut claims = json!({"preferred_username": "kim", "groups": ["ota-admins"]});
        claims.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
        let answer = sign_in_with(&stand_in, &mut browser, claims).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}: {}", answer.body);
        assert!(browser.cookie.is_empty(), "{wrong}");
    }
}

#[tokio::test]
async fn a_person_without_a_group_or_name_or_with_that_of_another_stays_outside() {
    let world = World::new();
    let (stand_in, mut browser) = console(&world).await;
    for (claims, status, told) in [
        (json!({"preferred_username": "kim", "groups": ["none"]}), StatusCode::FORBIDDEN, "groups"),
        (json!({"groups": ["ota"]}), StatusCode::FORBIDDEN, "preferred_username"),
        (json!({"preferred_username": "alice", "groups": ["ota"]}), StatusCode::CONFLICT, "alice"),
    ] {
        let answer = sign_in_with(&stand_in, &mut browser, claims).await;
        assert_eq!((answer.status, browser.cookie.as_str()), (status, ""), "{}", answer.body);
        assert!(answer.body.contains(told), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_user_of_the_provider_has_no_password_here_and_can_be_shut_out() {
    let world = World::new();
    let (stand_in, mut browser) = console(&world).await;
    let kim = || json!({"preferred_username": "kim", "groups": ["ota"]});
    sign_in_with(&stand_in, &mut browser, kim()).await.leads_to();
    let mut admin = browser.another();
    admin.sign_in("alice", PASSWORD).await.leads_to();
    let link = admin.post("/settings/users/kim/link", &[]).await;
    assert_eq!(link.status, StatusCode::CONFLICT, "{}", link.body);
    assert!(
        link.body.contains("SINGLE_SIGN_ON") && link.body.contains("has no password here"),
        "{}",
        link.body
    );
    assert_eq!(browser.another().sign_in("kim", "").await.status, StatusCode::UNAUTHORIZED);
    admin.post("/settings/users/kim/disable", &[]).await.leads_to();
    assert_eq!(browser.get("/").await.leads_to(), "/sign-in");
    let mut again = browser.another();
    assert_eq!(sign_in_with(&stand_in, &mut again, kim()).await.status, StatusCode::FORBIDDEN);
    assert!(again.cookie.is_empty());
}

#[tokio::test]
async fn a_provider_that_is_away_is_told_and_another_way_in_stays() {
    let world = World::new();
    let (stand_in, _) = console(&world).await;
    let mut settings = stand_in.settings();
    // Nobody listens there: the port was given back.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    settings.issuer = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let mut browser = Browser::with(&world, Some(Provider::new(&settings).unwrap()));
    let answer = browser.get("/sign-in/oidc").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.body.contains("name=\"password\""), "{}", answer.body);
    browser.sign_in("alice", PASSWORD).await.leads_to();
}
