//! When a vehicle connected and why it went, on its page and in the API.

use super::*;
use crate::desk::{ClientSession, SessionEnd, WhyGone};
use crate::store::sessions;
use crate::store::test_database::TestDatabase;

async fn noted(world: &World, number: u64, why: Option<WhyGone>) {
    let came_at = world.now.plus_seconds(number);
    let end =
        why.map(|why| SessionEnd { at: came_at.plus_seconds(1), why, detail: Some("sent <no> packet") });
    let session = ClientSession { client_id: "V1_CCU".to_owned(), id: format!("s{number}"), came_at, end };
    world.write(move |tx, _, _| sessions::write(tx, "node", &session)).await;
}

#[tokio::test]
async fn the_page_of_a_vehicle_tells_when_it_connected_and_why_it_went() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        Car::known(&world, "V1").await;
        let mut viewer = Browser::admin(&world).await.invite("eve", Scope::Viewer).await;
        let page = viewer.page("/vehicles/V1").await;
        assert!(!page.contains("Connected since") && !page.contains("Gone since"), "{page}");
        noted(&world, 1, Some(WhyGone::KeepAlive)).await;
        let page = viewer.page("/vehicles/V1").await;
        assert!(page.contains("<dt>Gone since</dt>"), "{page}");
        assert_eq!(
            page.matches("gone: its keep alive ran out").count(),
            2,
            "beside the facts and in the talk: {page}"
        );
        noted(&world, 3, Some(WhyGone::Violation)).await;
        noted(&world, 5, None).await;
        let page = viewer.page("/vehicles/V1").await;
        assert!(page.contains("<dt>Connected since</dt>") && !page.contains("Gone since"), "{page}");
        assert!(page.contains(
            "cut: it did what is not allowed</strong> <span class=\"muted\" lang=\"en\">sent &#60;no&#62; packet"
        ));
        // The newest stands first.
        let (came, gone) =
            (page.rfind("<strong>connected</strong>"), page.find("<strong>connected</strong>"));
        assert!(came > gone && gone < page.find("cut: it did"), "{page}");
        viewer.language = "ko";
        assert!(viewer.page("/vehicles/V1").await.contains("연결 유지(keep alive) 시간이 지났습니다"));
    }
}
