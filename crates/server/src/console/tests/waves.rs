//! The time line of a campaign's waves on its page, and what stands in rows below each other on a narrow screen.

use farrier_campaign::{Opening, Rollout, StopRule, Wave, WaveSize};

use super::*;
use crate::store::test_database::TestDatabase;

fn three_waves() -> Rollout {
    let wave = |size, opens| Wave { size, opens, stop: StopRule::default() };
    let waves = vec![
        wave(WaveSize::Vehicles(1), Opening::AtOnce),
        wave(WaveSize::Vehicles(1), Opening::ByHand),
        wave(WaveSize::Rest, Opening::AfterSuccessPercent(90)),
    ];
    Rollout { waves, ..Rollout::default() }
}

#[tokio::test]
async fn waves_are_drawn_along_the_time_with_their_pauses_and_what_opens_the_next() {
    for database in TestDatabase::both() {
        let mut world = World::on(database);
        let cars =
            [Car::known(&world, "V1").await, Car::known(&world, "V2").await, Car::known(&world, "V3").await];
        world.release("R2", "2").await;
        world.campaign_by_waves("winter", "R2", Some(&[&cars[0], &cars[1], &cars[2]]), three_waves()).await;
        world.run_due().await;
        let mut admin = Browser::admin(&world).await;
        let mut viewer = admin.invite("eve", Scope::Viewer).await;
        let page = viewer.page("/campaigns/winter").await;
        assert!(page.contains("3 vehicles</p>") && !page.contains("3 Vehicles"), "{page}");
        for said in [
            "role=\"img\" aria-labelledby=\"time-line-title time-line-desc\"",
            "<desc id=\"time-line-desc\">Wave 1: 0 of 1 ended",
            "<strong>Wave 1</strong> <span class=\"badge run\">open</span>",
            "<strong>Wave 2</strong> <span class=\"badge idle\">closed</span> <span>1 vehicle</span>",
            "opens by an operator",
            "opens when 90 % of the wave before run the release",
            "class=\"later\"",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(!page.contains("class=\"sign"), "it was not paused yet: {page}");
        // Half an hour later it is paused for ten minutes.
        admin.later(1_800_000);
        assert_eq!(admin.post("/campaigns/winter/pause", &[]).await.leads_to(), "/campaigns/winter");
        let page = admin.page("/campaigns/winter").await;
        assert!(page.contains("class=\"sign paused\""), "{page}");
        assert!(page.contains("opens by an operator; not before the campaign is resumed"), "{page}");
        admin.later(600_000);
        assert_eq!(admin.post("/campaigns/winter/resume", &[]).await.leads_to(), "/campaigns/winter");
        let page = admin.page("/campaigns/winter").await;
        assert!(page.contains(" UTC, for 10 min</title>") && page.contains("url(#hatched-paused)"), "{page}");
        assert!(page.contains("<li><svg class=\"sign paused\""), "it is said in words too: {page}");
        assert!(page.contains("open since 20") && page.contains(" UTC, for 40 min</p>"), "{page}");
        admin.language = "ko";
        let page = admin.page("/campaigns/winter").await;
        assert!(page.contains("열림 조건: 운영자가 직접") && page.contains("차량 3대</p>"), "{page}");
        assert!(!page.contains(" style="));
        admin.post("/campaigns/winter/abort", &[("reason", "wrong release")]).await.leads_to();
        admin.language = "en";
        let page = admin.page("/campaigns/winter").await;
        assert!(page.contains("class=\"sign aborted\"") && page.contains("was never opened"), "{page}");
    }
}

#[tokio::test]
async fn a_wave_is_shown_with_all_its_rules_and_none_has_no_column_for_them() {
    let mut world = World::new();
    let car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    let mut rollout = three_waves();
    for wave in &mut rollout.waves {
        wave.stop = StopRule { failures: None, failed_percent: None, inconsistent: false };
    }
    world.campaign_by_waves("plain", "R2", Some(&[&car]), rollout.clone()).await;
    rollout.waves[1].stop = StopRule { failures: Some(3), failed_percent: Some(50), inconsistent: true };
    world.campaign_by_waves("strict", "R2", Some(&[&car]), rollout).await;
    world.run_due().await;
    let mut admin = Browser::admin(&world).await;
    let column = "<th scope=\"col\">Stop rule</th>";
    assert!(!admin.page("/campaigns/plain").await.contains(column));
    let page = admin.page("/campaigns/strict").await;
    let all = "Vehicles with a mix of software: 0; the first one stops it.<br>Failed: 0 of 3 at which it stops.<br>\
               Failed: 0 %; it stops at 50 %.</td>";
    assert!(page.contains(column) && page.contains(all), "{page}");
}

#[tokio::test]
async fn a_draft_shows_its_waves_without_times_and_no_table_of_nothing() {
    let world = World::new();
    let mut admin = Browser::admin(&world).await;
    Car::known(&world, "V1").await;
    Car::known(&world, "V2").await;
    world.release("R2", "2").await;
    let plan = crate::store::campaigns::Campaign {
        rollout: three_waves(),
        ..charts::draft(&world, "spring", Default::default(), Rollout::default())
    };
    world.write(move |tx, _, _| crate::store::campaigns::create(tx, &plan, &[])).await;
    let page = admin.page("/campaigns/spring").await;
    assert!(page.contains("id=\"in-time\"") && page.contains("class=\"later\" x=\"66.6%\""), "{page}");
    assert!(!page.contains("aria-labelledby=\"waves\"") && !page.contains("class=\"lanes\""), "{page}");
}

#[tokio::test]
async fn every_value_of_a_table_that_stacks_names_its_column() {
    let (world, _car) = world_with_a_campaign().await;
    let mut admin = Browser::admin(&world).await;
    for path in ["/", "/campaigns", &format!("/campaigns/{CAMPAIGN}"), "/vehicles", "/releases", "/audit"] {
        let page = admin.page(path).await;
        let tables: Vec<_> = page.split("class=\"scroll stacks\"").skip(1).collect();
        assert!(!tables.is_empty(), "{path}: {page}");
        for table in tables {
            let (head, body) = table.split_once("<tbody>").unwrap();
            let names: Vec<_> = head.split("<th scope=\"col\"").skip(2).map(text_of).collect();
            let body = body.split("</table>").next().unwrap();
            for row in body.split("<tr>").skip(1) {
                let labels: Vec<_> =
                    row.split("data-label=\"").skip(1).map(|cell| cell.split('"').next().unwrap()).collect();
                assert_eq!(labels, names, "{path}: {row}");
            }
        }
    }
}

/// The text after the end of a tag that has been opened.
fn text_of(cell: &str) -> &str {
    cell.split_once('>').unwrap().1.split('<').next().unwrap()
}
