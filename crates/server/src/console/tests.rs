mod certificates;
mod charts;
mod connections;
mod evidence;
mod records;
mod releases;
mod settings;
#[cfg(feature = "oidc")]
mod single_sign_on;
mod waves;

use std::sync::atomic::{AtomicI64, Ordering};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use farrier_protocol::{UnixMillis, UpTopic};
use futures_util::StreamExt;
use tower::ServiceExt;

use super::*;
use crate::access::Scope;
use crate::api::tests::api_over;
use crate::store::vehicles::{self, Said};
use crate::store::{audit, console_users};
use crate::testbed::{Car, World, text};

mod plan;
mod vehicle;
mod words;

const PASSWORD: &str = "correct horse battery";
/// What the world's campaign is called.
const CAMPAIGN: &str = "C2";

/// A browser at a console over a world.
struct Browser {
    console: Console,
    router: Router,
    cookie: String,
    /// While it is with a provider.
    on_the_way: String,
    language: &'static str,
    clock: Arc<AtomicI64>,
    _dir: Arc<tempfile::TempDir>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn leads_to(&self) -> &str {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.body);
        self.headers["location"].to_str().unwrap()
    }
}

impl Browser {
    fn at(world: &World) -> Self {
        Self::with(world, None)
    }

    /// At a console that people can also sign in to with a provider.
    fn with(world: &World, oidc: Option<Provider>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicI64::new(world.now.0));
        let read = Arc::clone(&clock);
        let api =
            api_over(world, dir.path(), true, Arc::new(move || UnixMillis(read.load(Ordering::Relaxed))));
        let console = Console::new(api, true, oidc);
        let router = router(console.clone());
        Self {
            console,
            router,
            cookie: String::new(),
            on_the_way: String::new(),
            language: "en",
            clock,
            _dir: Arc::new(dir),
        }
    }

    /// Another browser at the same console.
    fn another(&self) -> Self {
        Self {
            console: self.console.clone(),
            router: self.router.clone(),
            cookie: String::new(),
            on_the_way: String::new(),
            language: "en",
            clock: Arc::clone(&self.clock),
            _dir: Arc::clone(&self._dir),
        }
    }

    fn later(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::Relaxed);
    }

    async fn send(&mut self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        for set in headers.get_all("set-cookie") {
            let set = set.to_str().unwrap();
            if let Some(way) = set.strip_prefix("__Host-farrier-oidc=") {
                assert!(way.contains("; Path=/; HttpOnly; SameSite=Lax; Max-Age="), "{set}");
                assert!(way.ends_with("; Secure"), "{set}");
                self.on_the_way = format!("; {}", set.split(';').next().unwrap());
            }
            if set.starts_with("__Host-farrier=") {
                assert!(set.contains("; Path=/; HttpOnly; SameSite=Lax; Secure"), "{set}");
                self.cookie = set.split(';').next().unwrap().to_owned();
            }
        }
        let body = axum::body::to_bytes(response.into_body(), 10_000_000).await.unwrap();
        Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }

    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let request = Request::builder().method(method).uri(path).header("accept-language", self.language);
        let cookies = format!("{}{}", self.cookie, self.on_the_way);
        if cookies.is_empty() { request } else { request.header("cookie", cookies.trim_start_matches("; ")) }
    }

    async fn get(&mut self, path: &str) -> Answer {
        let request = self.request("GET", path).body(Body::empty()).unwrap();
        self.send(request).await
    }

    /// A page that must be there.
    async fn page(&mut self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        answer.body
    }

    async fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Answer {
        let encoded: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        let request = self.request("POST", path).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(encoded.join("&"))).unwrap()).await
    }

    /// Uses a link that was made for somebody, or for the first admin.
    async fn welcome(&mut self, link: &str, name: &str) -> Answer {
        self.post(link, &[("name", name), ("password", PASSWORD), ("again", PASSWORD)]).await
    }

    async fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        self.post("/sign-in", &[("name", name), ("password", password)]).await
    }

    /// The first admin, signed in.
    async fn admin(world: &World) -> Self {
        let mut browser = Self::at(world);
        let link = browser.console.first_link().await.unwrap().unwrap();
        assert_eq!(browser.welcome(&link, "alice").await.leads_to(), "/");
        browser
    }

    /// Somebody whom this admin invites, signed in.
    async fn invite(&mut self, name: &str, scope: Scope) -> Self {
        let page = self.post("/settings/users", &[("name", name), ("scope", scope.name())]).await.body;
        let link = page.split("/welcome/").nth(1).unwrap();
        let link: String = link.chars().take_while(char::is_ascii_hexdigit).collect();
        let mut other = self.another();
        assert_eq!(other.welcome(&format!("/welcome/{link}"), name).await.leads_to(), "/");
        other
    }
}

fn encoded(value: &str) -> String {
    value
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// A campaign with a vehicle that gets it.
async fn world_with_a_campaign() -> (World, Car) {
    let world = World::new();
    world.campaign_for_all().await;
    let car = Car::known(&world, "V1").await;
    (world, car)
}

async fn audited(world: &World) -> Vec<(String, String)> {
    let entries = world.read(|tx| audit::page(tx, 0, 1_000)).await;
    entries.into_iter().map(|entry| (entry.actor, entry.action)).collect()
}

#[tokio::test]
async fn the_first_admin_comes_in_by_a_link_that_is_good_once() {
    let world = World::new();
    let mut browser = Browser::at(&world);
    let link = browser.console.first_link().await.unwrap().unwrap();
    assert!(browser.page(&link).await.contains("name=\"password\""));
    for (name, password, again) in
        [("", PASSWORD, PASSWORD), ("alice", "short", "short"), ("alice", PASSWORD, "other")]
    {
        let answer = browser.post(&link, &[("name", name), ("password", password), ("again", again)]).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.body.contains(&format!("value=\"{name}\"")), "what was typed stays");
    }
    assert_eq!(browser.welcome(&link, "alice").await.leads_to(), "/");
    assert!(browser.page("/").await.contains("alice"));
    let mut other = browser.another();
    assert_eq!(other.welcome(&link, "mallory").await.status, StatusCode::NOT_FOUND);
    assert_eq!(browser.console.first_link().await.unwrap(), None);
    assert!(audited(&world).await.contains(&("user:alice".to_owned(), "user.created".to_owned())));
}

#[tokio::test]
async fn the_first_admins_link_is_good_for_an_hour() {
    let world = World::new();
    let mut browser = Browser::at(&world);
    let link = browser.console.first_link().await.unwrap().unwrap();
    browser.later(3_600_001);
    assert_eq!(browser.welcome(&link, "alice").await.status, StatusCode::NOT_FOUND);
    let newer = browser.console.first_link().await.unwrap().unwrap();
    let newest = browser.console.first_link().await.unwrap().unwrap();
    assert_eq!(browser.welcome(&newer, "alice").await.status, StatusCode::NOT_FOUND, "the newest one counts");
    browser.welcome(&newest, "alice").await.leads_to();
}

#[tokio::test]
async fn whoever_is_not_signed_in_is_led_to_the_door_and_back() {
    let world = World::new();
    let mut browser = Browser::admin(&world).await;
    browser.post("/sign-out", &[]).await.leads_to();
    assert_eq!(browser.cookie, "__Host-farrier=");
    let door = browser.get("/vehicles?q=V1").await.leads_to().to_owned();
    let to = door.strip_prefix("/sign-in?to=").unwrap();
    assert!(browser.page(&door).await.contains(to));
    let answer = browser.post("/sign-in", &[("name", "alice"), ("password", PASSWORD), ("to", to)]).await;
    assert_eq!(answer.leads_to(), "/vehicles?q=V1");
    let part =
        browser.another().request("GET", "/live").header("hx-request", "true").body(Body::empty()).unwrap();
    assert_eq!(browser.another().send(part).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_guessing_has_an_end() {
    let world = World::new();
    let browser = Browser::admin(&world).await;
    let mut other = browser.another();
    for _ in 0..8 {
        let answer = other.sign_in("alice", "wrong horse battery").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.body.contains("value=\"alice\"") && !answer.body.contains("wrong horse"));
    }
    let answer = other.sign_in("alice", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(other.cookie.is_empty());
}

#[tokio::test]
async fn a_session_ends_when_nobody_is_there_and_everywhere_at_once_when_asked() {
    let world = World::new();
    let mut browser = Browser::admin(&world).await;
    browser.later(11 * 3_600_000);
    browser.page("/").await;
    browser.later(11 * 3_600_000);
    browser.page("/").await;
    browser.later(12 * 3_600_000);
    assert_eq!(browser.get("/").await.leads_to(), "/sign-in");
    let mut here = browser.another();
    here.sign_in("alice", PASSWORD).await.leads_to();
    let mut there = browser.another();
    there.sign_in("alice", PASSWORD).await.leads_to();
    here.post("/sign-out-everywhere", &[]).await.leads_to();
    assert_eq!(there.get("/").await.leads_to(), "/sign-in");
}

#[tokio::test]
async fn who_is_disabled_is_out_at_once_but_never_the_last_admin() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    let mut bob = admin.invite("bob", Scope::Operator).await;
    bob.page("/campaigns").await;
    assert_eq!(bob.post("/settings/users/alice/disable", &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(admin.post("/settings/users/alice/disable", &[]).await.status, StatusCode::CONFLICT);
    assert_eq!(
        admin.post("/settings/users/alice/scope", &[("scope", "viewer")]).await.status,
        StatusCode::CONFLICT
    );
    admin.post("/settings/users/bob/disable", &[]).await.leads_to();
    assert_eq!(bob.get("/campaigns").await.status, StatusCode::SEE_OTHER);
    assert_eq!(bob.sign_in("bob", PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    admin.post("/settings/users/bob/enable", &[]).await.leads_to();
    bob.sign_in("bob", PASSWORD).await.leads_to();
    admin.post("/settings/users/bob/scope", &[("scope", "admin")]).await.leads_to();
    let scope = world.read(|tx| console_users::by_name(tx, "bob")).await.unwrap().scope;
    assert_eq!(scope, Scope::Admin);
}

#[tokio::test]
async fn every_page_is_there_for_a_viewer_in_every_language_and_has_nothing_inline() {
    let (world, car) = world_with_a_campaign().await;
    car.send_octets(&world, UpTopic::Wakeup, "{\"<b>\":1}".into()).await;
    let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
    for language in ["en", "ko"] {
        viewer.language = language;
        for path in [
            "/".to_owned(),
            "/campaigns".to_owned(),
            format!("/campaigns/{CAMPAIGN}"),
            format!("/campaigns/{CAMPAIGN}?state=waiting"),
            "/attention/silent".to_owned(),
            "/vehicles".to_owned(),
            "/vehicles?q=region+%3D+%22KR%22".to_owned(),
            "/vehicles/V1".to_owned(),
            "/releases".to_owned(),
            "/audit".to_owned(),
            "/security-events".to_owned(),
            "/refused-messages".to_owned(),
            "/settings".to_owned(),
        ] {
            let answer = viewer.get(&path).await;
            let html = answer.body;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {html}");
            assert!(html.contains(&format!("<html lang=\"{language}\"")), "{path}");
            let policy = answer.headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"),
                "{policy}"
            );
            for inline in [
                " style=",
                "<style",
                "<script>",
                " onclick=",
                " onload=",
                "javascript:",
                "http://",
                "https://",
            ] {
                assert!(!html.contains(inline), "{path} has {inline}");
            }
            assert!(!html.contains("—"), "{path} lacks a word: {html}");
            assert!(!html.contains("<b>"), "{path} has what a vehicle sent, as HTML");
        }
    }
}

#[tokio::test]
async fn what_vehicles_say_of_themselves_is_text_whatever_it_looks_like() {
    let (world, car) = world_with_a_campaign().await;
    let mut browser = Browser::admin(&world).await;
    for region in ["<b>KR", "<time title=\"x\"><b>KR", "&lt;b>\"KR"] {
        let (vehicle_id, said) =
            (car.binding.vehicle_id.clone(), Said { region: Some(text(region)), ..Said::default() });
        world.write(move |tx, _, _| vehicles::set_said(tx, &vehicle_id, &said)).await;
        for path in ["/vehicles/V1", "/vehicles"] {
            let page = browser.page(path).await;
            assert!(!page.contains(region) && !page.contains("<b>") && page.contains("KR"), "{path}: {page}");
        }
    }
}

#[tokio::test]
async fn an_operator_acts_on_a_campaign_and_a_viewer_cannot() {
    let (world, _car) = world_with_a_campaign().await;
    let path = format!("/campaigns/{CAMPAIGN}");
    let mut admin = Browser::admin(&world).await;
    let mut viewer = admin.invite("eve", Scope::Viewer).await;
    let mut operator = admin.invite("bob", Scope::Operator).await;
    assert_eq!(viewer.get(&format!("{path}/pause")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(viewer.post(&format!("{path}/pause"), &[]).await.status, StatusCode::FORBIDDEN);
    assert!(operator.page(&format!("{path}/pause")).await.contains("waits until the campaign is resumed"));
    assert_eq!(operator.post(&format!("{path}/pause"), &[]).await.leads_to(), path);
    assert!(operator.page(&path).await.contains("paused"));
    assert_eq!(operator.get(&format!("{path}/pause")).await.status, StatusCode::CONFLICT);
    operator.post(&format!("{path}/resume"), &[]).await.leads_to();
    let without_reason = operator.post(&format!("{path}/abort"), &[("reason", " ")]).await;
    assert_eq!(without_reason.status, StatusCode::UNPROCESSABLE_ENTITY);
    operator.post(&format!("{path}/abort"), &[("reason", "<wrong> release")]).await.leads_to();
    assert!(operator.page(&path).await.contains("aborted"));
    let by_bob = audited(&world).await.into_iter().filter(|(actor, _)| actor == "user:bob");
    let actions: Vec<_> = by_bob.map(|(_, action)| action).collect();
    assert_eq!(
        actions,
        ["user.created", "user.signed_in", "campaign.paused", "campaign.resumed", "campaign.aborted"]
    );
}

#[tokio::test]
async fn what_another_site_sends_changes_nothing() {
    let (world, _car) = world_with_a_campaign().await;
    let browser = Browser::admin(&world).await;
    let path = format!("/campaigns/{CAMPAIGN}/pause");
    for (name, value) in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example"), ("x", "y")] {
        let mut forged = browser.another();
        forged.cookie.clone_from(&browser.cookie);
        let request = forged.request("POST", &path).header(name, value).header("host", "ota.example");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = forged.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{name}");
        assert!(answer.body.contains("FROM_ELSEWHERE"));
    }
    assert!(audited(&world).await.iter().all(|(_, action)| action != "campaign.paused"));
}

#[tokio::test]
async fn a_campaigns_live_part_tells_what_changes() {
    let (world, _car) = world_with_a_campaign().await;
    let mut browser = Browser::admin(&world).await;
    let path = format!("/campaigns/{CAMPAIGN}");
    let request = browser.request("GET", &format!("{path}/live")).body(Body::empty()).unwrap();
    let response = browser.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut events = response.into_body().into_data_stream();
    let first = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.contains("data: ") && first.contains("running"), "{first}");
    browser.post(&format!("{path}/pause"), &[]).await.leads_to();
    let second = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(second.contains("paused"), "{second}");
}

#[tokio::test]
async fn vehicles_are_found_by_id_or_query_and_a_wrong_query_is_explained_where_it_was_typed() {
    let (world, _car) = world_with_a_campaign().await;
    let mut browser = Browser::admin(&world).await;
    assert_eq!(browser.get("/vehicles?q=V1").await.leads_to(), "/vehicles/V1");
    let found = browser.page("/vehicles?q=region+%3D+%22KR%22").await;
    assert!(found.contains("1 vehicle matches.") && found.contains("href=\"/vehicles/V1\""), "{found}");
    let wrong = browser.page("/vehicles?q=regoin+%3D+%22KR%22").await;
    assert!(wrong.contains("value=\"regoin = &#34;KR&#34;\"") && wrong.contains("aria-invalid"), "{wrong}");
    assert_eq!(browser.get("/vehicles/V9").await.status, StatusCode::NOT_FOUND);
}
