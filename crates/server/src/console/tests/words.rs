//! What the console says in Korean, and that switching language or theme loses nothing that was typed.

use std::collections::BTreeMap;

use serde_json::json;

use super::plan::{inputs, sent, world_with_cars};
use super::*;
use crate::store::test_database::TestDatabase;

/// The inputs of a page's form, by its id.
fn typed_in(page: &str, form: &str) -> BTreeMap<String, String> {
    let rest =
        page.split(&format!("id=\"{form}\"")).nth(1).unwrap_or_else(|| panic!("no form {form}: {page}"));
    inputs(rest.split("</form>").next().unwrap())
}

/// The addresses that a page's buttons send its form to, to switch it.
fn switches(page: &str, form: &str) -> Vec<String> {
    let button = format!("<button form=\"{form}\" formaction=\"");
    let buttons = page.split(&button).skip(1);
    buttons.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

impl Browser {
    async fn switched(&mut self, to: &str, form: &BTreeMap<String, String>) -> Answer {
        let form: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.post(to, &form).await
    }
}

fn cookies(answer: &Answer) -> Vec<&str> {
    let all = answer.headers.get_all("set-cookie").iter();
    all.map(|set| set.to_str().unwrap().split(';').next().unwrap()).collect()
}

#[tokio::test]
async fn switching_in_the_middle_of_planning_loses_nothing() {
    for database in TestDatabase::both() {
        let world = world_with_cars(World::on(database)).await;
        let mut browser = Browser::admin(&world).await;
        let first = browser.page("/plan").await;
        let to = switches(&first, "plan");
        let all = ["language=en", "language=ko", "theme=system", "theme=light", "theme=dark"];
        assert_eq!(to, all.map(|one| format!("/plan?{one}")));
        assert!(!first.contains("action=\"/language\""), "the other switch would lose it");
        let mut form: BTreeMap<String, String> = sent(&first, "next").into_iter().collect();
        form.remove("go");
        form.insert("name".to_owned(), "가나 <b>".to_owned());
        form.insert("whom".to_owned(), "where".to_owned());
        form.insert("query".to_owned(), "region = \"KR\" and\r\ntag = ".to_owned());
        // Nothing that is wrong stands in the way, and nothing is said of it before it is looked at.
        let answer = browser.switched("/plan?language=ko", &form).await;
        assert_eq!((answer.status, cookies(&answer)), (StatusCode::OK, vec!["farrier-language=ko"]));
        let page = answer.body;
        assert!(page.contains("<html lang=\"ko\"") && page.contains("단계 1: 릴리스와 차량"), "{page}");
        assert!(!page.contains("name-fault"), "{page}");
        assert_eq!(typed_in(&page, "plan"), form);

        // What was told is told again, in the other language.
        let told = browser.press(&page, "next", &[]).await;
        assert_eq!(told.status, StatusCode::UNPROCESSABLE_ENTITY);
        let told = browser.switched("/plan?language=ko", &typed_in(&told.body, "plan")).await;
        assert!(
            told.body.contains("id=\"query-fault\"") && told.body.contains("다음이 와야 합니다"),
            "{}",
            told.body
        );
        let told = browser.switched("/plan?theme=dark", &typed_in(&told.body, "plan")).await;
        assert_eq!(cookies(&told), ["farrier-theme=dark"]);
        assert!(told.body.contains("data-theme=\"dark\"") && told.body.contains("id=\"query-fault\""));

        // The last step, and its question, stay what they are.
        let page = browser.page("/plan?release=R2").await;
        let page = browser.pressed(&page, "to-review", &[("name", "winter")]).await;
        let answer = browser.switched("/plan?language=ko", &typed_in(&page, "plan")).await;
        assert!(
            answer.body.contains("모의 실행") && answer.body.contains("value=\"create\""),
            "{}",
            answer.body
        );
        let asked = browser.pressed(&page, "start", &[]).await;
        let answer = browser.switched("/plan?language=ko", &typed_in(&asked, "plan")).await;
        assert!(answer.body.contains("캠페인 winter을(를) 시작하시겠습니까?"), "{}", answer.body);
        assert_eq!(browser.press(&answer.body, "start-now", &[]).await.leads_to(), "/campaigns/winter");
    }
}

#[tokio::test]
async fn switching_loses_nothing_of_other_longer_forms_and_does_nothing_else() {
    let world = world_with_cars(World::new()).await;
    let mut browser = Browser::admin(&world).await;
    browser.post("/groups", &[("name", "pilots"), ("query", "tag = \"pilot\"")]).await.leads_to();
    let audited_before = audited(&world).await;
    for (path, id, action, typed) in [
        ("/new-release", "release-form", "/new-release", &[("name", "two words"), ("rules", "[")][..]),
        ("/import", "import", "/import", &[("text", "vehicle_id\nV7\n")][..]),
        ("/groups", "group", "/groups", &[("name", "new"), ("query", "regoin = ")][..]),
        ("/groups/pilots", "group", "/groups/pilots", &[("query", "regoin = "), ("note", "<b>")][..]),
    ] {
        let page = browser.page(path).await;
        assert!(switches(&page, id).contains(&format!("{action}?language=ko")), "{path}: {page}");
        let mut form = typed_in(&page, id);
        form.extend(typed.iter().map(|(name, value)| ((*name).to_owned(), value.replace('\n', "\r\n"))));
        let answer = browser.switched(&format!("{action}?language=ko"), &form).await;
        assert_eq!(
            (answer.status, cookies(&answer)),
            (StatusCode::OK, vec!["farrier-language=ko"]),
            "{path}"
        );
        assert!(answer.body.contains("<html lang=\"ko\""), "{path}");
        assert_eq!(typed_in(&answer.body, id), form, "{path}");
    }
    assert_eq!(audited(&world).await, audited_before);

    // Whoever has no form to switch with has the switch of all pages.
    let mut viewer = browser.invite("eve", Scope::Viewer).await;
    let page = viewer.page("/groups").await;
    assert!(switches(&page, "group").is_empty() && page.contains("action=\"/language\""), "{page}");
}

#[tokio::test]
async fn another_site_switches_nothing() {
    let world = World::new();
    let browser = Browser::admin(&world).await;
    let request = browser.request("POST", "/plan?language=ko").header("sec-fetch-site", "cross-site");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = browser.another().send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((answer.status, cookies(&answer)), (StatusCode::FORBIDDEN, vec![]));
}

/// What a page says that is neither marked as English nor code: the texts between its tags.
fn said(html: &str) -> Vec<String> {
    let mut said = Vec::new();
    // Elements whose content is left out, each with how many of its name are open in it.
    let mut hidden: Option<(String, usize)> = None;
    let body = html.split("<body").nth(1).unwrap_or(html);
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        let closes = tag.starts_with('/');
        hidden = match hidden {
            Some((of, depth)) if of == name && closes && depth == 0 => None,
            Some((of, depth)) if of == name && closes => Some((of, depth - 1)),
            Some((of, depth)) if of == name => Some((of, depth + 1)),
            Some(hidden) => Some(hidden),
            None if !closes
                && (tag.contains("lang=\"en\"") || ["code", "pre", "textarea"].contains(&name.as_str())) =>
            {
                Some((name, 0))
            }
            None => None,
        };
        if hidden.is_none() {
            said.push(text.trim().to_owned());
            let attribute = |name: &str| tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next();
            said.extend(["aria-label", "alt"].into_iter().filter_map(attribute).map(str::to_owned));
        }
    }
    said.retain(|text| !text.is_empty());
    said
}

/// Three words of English one after the other: a sentence that nobody has put into Korean.
fn english(text: &str) -> bool {
    let is_word = |word: &&str| {
        let word = word.trim_matches([',', '.', ';', ':', '(', ')', '“', '”']);
        word.len() > 1
            && word.bytes().all(|b| b.is_ascii_alphabetic())
            && word.bytes().skip(1).all(|b| b.is_ascii_lowercase())
    };
    text.split_whitespace().collect::<Vec<_>>().windows(3).any(|words| words.iter().all(is_word))
}

fn is_korean(path: &str, html: &str) {
    let sentences: Vec<_> = said(html).into_iter().filter(|text| english(text)).collect();
    assert!(sentences.is_empty(), "{path}: {sentences:?}");
}

#[test]
fn what_is_english_on_a_korean_page_is_found() {
    let page =
        "<body><p>The server is not ready</p><p lang=\"en\">It is <b>so</b> as it is</p><p>서버 OTA</p>";
    let found: Vec<_> = said(page).into_iter().filter(|text| english(text)).collect();
    assert_eq!(found, ["The server is not ready"]);
}

#[tokio::test]
async fn no_page_in_korean_has_an_english_sentence() {
    let (world, car) = world_with_a_campaign().await;
    car.send_octets(&world, UpTopic::Wakeup, "{\"<b>\":1}".into()).await;
    let mut admin = Browser::admin(&world).await;
    admin
        .post("/groups", &[("name", "pilots"), ("query", "tag = \"pilot\" or not vin is known")])
        .await
        .leads_to();
    admin.language = "ko";
    for path in [
        "/",
        "/campaigns",
        "/campaigns/C2",
        "/campaigns/C2?state=waiting",
        "/campaigns/C2/pause",
        "/campaigns/C2/abort",
        "/attention/silent",
        "/attention/set-aside",
        "/attention/inconsistent",
        "/attention/unknown",
        "/attention/quarantined",
        "/attention/service-required",
        "/vehicles",
        "/vehicles?q=region+%3D+%22KR%22",
        "/vehicles?q=regoin+%3D+%22KR%22",
        "/vehicles?q=ecu.id+%3D",
        "/vehicles/V1",
        "/vehicles/V1/ask-inventory",
        "/vehicles/V1/rebind",
        "/vehicles/V1/C2/cancel",
        "/groups",
        "/groups/pilots",
        "/groups/pilots/delete",
        "/import",
        "/releases",
        "/new-release",
        "/plan",
        "/plan?like=C2",
        "/evidence",
        "/evidence/rxswins",
        "/evidence?q=nothing",
        "/audit",
        "/audit/1",
        "/audit?from=x",
        "/security-events",
        "/refused-messages",
        "/refused-messages?vehicle=%3F",
        "/settings",
        "/settings/webhooks",
        "/settings/certificates",
        "/settings/health",
        "/vehicles/V9",
        "/campaigns/C9",
        "/releases/none",
        "/nothing-of-this-name",
        "/campaigns/C2/open-wave",
        "/campaigns/C2/retry?code=BUSY",
        "/selected?query=tag+in+(",
        "/selected?query=not+(tag+%3D+%22a%22+or+vin+is+known)",
    ] {
        let answer = admin.get(path).await;
        if answer.status != StatusCode::SEE_OTHER {
            is_korean(path, &format!("<body>{}", answer.body));
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_told_in_korean_with_the_precise_detail_in_english_marked_as_such() {
    let (world, _car) = world_with_a_campaign().await;
    let mut admin = Browser::admin(&world).await;
    admin.language = "ko";
    for (path, form, told) in [
        ("/campaigns/C2/abort", vec![("reason", " ")], "값을 입력하십시오: 줄 바꿈 없이 1~128자의 글"),
        ("/vehicles/V1/C2/cancel", vec![("reason", "")], "값을 입력하십시오: 줄 바꿈 없이 1~128자의 글"),
        ("/vehicles/V1/rebind", vec![("gateway_id", "?"), ("reason", "x")], "게이트웨이 ID"),
        ("/vehicles/V1/release", vec![], "격리된 차량이 아닙니다."),
        ("/groups", vec![("name", "x"), ("query", "regoin = 1")], "`regoin`(혹시 `region`입니까?)"),
        ("/groups", vec![("name", "?"), ("query", "all")], "입력한 내용이 규칙에 맞지 않습니다."),
        ("/settings/users", vec![("name", "alice"), ("scope", "god")], "입력한 값: “god”"),
        ("/settings/users/alice/disable", vec![], "먼저 다른 관리자를 만드십시오."),
        ("/settings/tokens", vec![("name", "?"), ("scope", "viewer")], "입력한 내용이 규칙에 맞지 않습니다."),
        (
            "/settings/webhooks",
            vec![("name", "w"), ("url", "ftp://x"), ("types", "*")],
            "입력한 내용이 규칙에",
        ),
        ("/import", vec![("text", "vehicle_id\n\"V1"), ("go", "try")], "따옴표가 닫히지 않은 채"),
        ("/import", vec![("text", "colour\nred"), ("go", "try")], "파일의 열 이름: “colour”"),
        ("/import", vec![("text", "vehicle_id,vin\nV1,?"), ("go", "try")], "아무것도 가져오지 않았습니다."),
        ("/new-release", vec![("name", "?"), ("rules", "["), ("do", "create")], "입력한 내용이 규칙에"),
        ("/new-release", vec![("rule", "needs"), ("rule_a", ""), ("do", "add-rule")], "1~128자의 글"),
        (
            "/plan",
            vec![("name", "?"), ("release", "R9"), ("step", "vehicles"), ("go", "next")],
            "입력한 내용이 규칙에",
        ),
        (
            "/plan",
            vec![("name", "n"), ("release", "R9"), ("step", "vehicles"), ("go", "next")],
            "목록에서 이름을",
        ),
    ] {
        let answer = admin.post(path, &form).await;
        assert!(answer.status.is_client_error(), "{path} {form:?}: {} {}", answer.status, answer.body);
        assert!(answer.body.contains(told), "{path} {form:?}: {}", answer.body);
        is_korean(path, &answer.body);
    }
    // The detail names what the meaning of a code cannot.
    let missing = admin.get("/vehicles/V9").await.body;
    assert!(missing.contains("<span class=\"detail\" lang=\"en\">There is no vehicle V9;"), "{missing}");
    // In English it is told as ever, once.
    admin.language = "en";
    let missing = admin.get("/vehicles/V9").await.body;
    assert!(
        missing.contains("role=\"alert\">There is no vehicle V9;") && !missing.contains("lang=\"en\">There")
    );
}

#[tokio::test]
async fn a_dry_run_says_in_korean_who_gets_what_and_who_is_left_out_and_why() {
    let world = world_with_cars(World::new()).await;
    let mut browser = Browser::admin(&world).await;
    // Of other hardware, and one that nobody has seen.
    browser.post("/import", &[("text", "vehicle_id,gateway_id\nV8,G8"), ("go", "import")]).await;
    browser.language = "ko";
    let page = browser.page("/plan?release=R2").await;
    let page = browser.pressed(&page, "to-review", &[("name", "winter")]).await;
    is_korean("/plan", &page);
    for (go, told) in [
        ("list:would_update:", "ECU 2개를 업데이트합니다. 전송량은 2.0 KB입니다."),
        ("list:inventory_unknown:", "차량이 아직 구성을 알리지 않았습니다."),
    ] {
        let listed = browser.pressed(&page, go, &[]).await;
        assert!(listed.contains(told), "{listed}");
        is_korean(go, &listed);
    }
    // As data the same goes on to programs in English.
    let api = axum::extract::State(browser.console.api.clone());
    let asked = serde_json::from_value(json!({ "release": "R2" })).unwrap();
    let answer = crate::api::dry_run::dry_run(api, crate::api::Document(asked)).await.unwrap();
    let answer = serde_json::to_value(&answer.0).unwrap();
    assert_eq!(answer["items"][0]["sentence"], "2 ECU(s) would be updated by 2000 bytes.");
    assert!(answer["items"][0].get("outlook").is_none() && answer["outcome"]["reasons"] == json!([]));
}
