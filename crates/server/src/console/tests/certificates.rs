//! Vehicles whose certificates end.

use super::*;
use crate::desk::Certificate;
use crate::store::test_database::TestDatabase;

const DAY_S: u64 = 86_400;

#[tokio::test]
async fn vehicles_whose_certificates_end_are_counted_and_each_page_says_what_to_do() {
    for database in TestDatabase::both() {
        let world = World::on(database);
        let mut cars = Vec::new();
        for number in 0..60_u64 {
            let mut car = Car::new(&format!("V{number:02}"));
            // Five end far off, the rest within 30 days, the last first, several at the same moment.
            let days = if number < 5 { 31 + number } else { 29 - number % 7 };
            let ends_at = world.now.plus_seconds(days * DAY_S);
            car.peer.certificate = Some(Certificate { serial: format!("ab{number:02}"), ends_at });
            car.wake_up(&world).await;
            cars.push(car);
        }
        Car::at_a_broker("V60").wake_up(&world).await;
        let mut admin = Browser::admin(&world).await;
        let page = admin.page("/").await;
        let sentence = "55 vehicles have a certificate that ends within 30 days, or has ended.";
        assert!(page.contains(&format!("href=\"/attention/certificate-ends\">{sentence}")), "{page}");
        let mut listed = Vec::new();
        let mut path = "/attention/certificate-ends".to_owned();
        for _ in 0..2 {
            let list = admin.page(&path).await;
            assert!(list.contains(sentence) && list.contains("bind the vehicle anew"), "{list}");
            assert!(list.contains("<th scope=\"col\">Ends</th>"), "{list}");
            let found = list.split("href=\"/vehicles/").skip(1).filter_map(|rest| rest.get(..3));
            listed.extend(found.map(str::to_owned));
            if let Some(next) = list.split("certificate-ends?after=").nth(1) {
                path = format!("/attention/certificate-ends?after={}", next.split('"').next().unwrap());
            }
        }
        let days = |id: &str| id[1..].parse::<u64>().unwrap() % 7;
        assert!(listed.is_sorted_by_key(|id| (std::cmp::Reverse(days(id)), id.clone())), "{listed:?}");
        listed.sort();
        assert_eq!(listed, (5..60).map(|number| format!("V{number:02}")).collect::<Vec<_>>());

        let page = admin.page("/vehicles/V07").await;
        assert!(page.contains("ab07") && page.contains("badge warn\">ends soon"), "{page}");
        assert!(page.contains("issue its gateway a new certificate"), "{page}");
        assert!(!admin.page("/vehicles/V00").await.contains("issue its gateway"));
        let unknown = admin.page("/vehicles/V60").await;
        assert!(
            unknown.contains("has not seen the certificate") && !unknown.contains("ends soon"),
            "{unknown}"
        );
        admin.later(i64::try_from(29 * DAY_S * 1_000 + 1).unwrap());
        assert!(admin.sign_in("alice", PASSWORD).await.status.is_redirection());
        let page = admin.page("/vehicles/V07").await;
        assert!(page.contains("badge bad\">has ended") && page.contains("cannot connect any more"), "{page}");
        assert!(admin.page("/attention/certificate-ends").await.contains("Its certificate has ended"));
        admin.language = "ko";
        assert!(admin.page("/").await.contains("차량 60대의 인증서가 30일 안에 만료되거나"));
    }
}
