use super::*;

fn delivery(attempts: u64) -> Delivery {
    Delivery {
        id: "d".to_owned(),
        event_id: "e".to_owned(),
        kind: "webhook.test".to_owned(),
        body: "{}".to_owned(),
        state: DeliveryState::Waiting,
        attempts,
        created_at: UnixMillis(0),
        give_up_at: UnixMillis(86_400_000),
        next_at: Some(UnixMillis(0)),
        last: None,
    }
}

#[test]
fn pauses_grow_to_an_hour_and_what_fails_together_does_not_come_again_together() {
    let pauses: Vec<_> = (0..7).map(|attempts| pause_ms(attempts, 0.5)).collect();
    assert_eq!(pauses, [5_000, 20_000, 80_000, 320_000, 1_280_000, 3_600_000, 3_600_000]);
    assert_eq!((pause_ms(0, 0.0), pause_ms(0, 1.0)), (3_750, 6_250));
    assert_eq!(pause_ms(u64::MAX, 1.0), 4_500_000);
}

#[test]
fn only_a_success_ends_a_delivery_well() {
    for status in [200, 204, 299] {
        assert_eq!(verdict(Some(status), &delivery(0), UnixMillis(0), 0.5), (DeliveryState::Delivered, None));
    }
    assert_eq!(verdict(Some(410), &delivery(0), UnixMillis(0), 0.5), (DeliveryState::Failed, None));
    for status in [None, Some(199), Some(301), Some(404), Some(429), Some(500)] {
        let again = (DeliveryState::Waiting, Some(UnixMillis(5_000)));
        assert_eq!(verdict(status, &delivery(0), UnixMillis(0), 0.5), again);
        let late = UnixMillis(86_399_000);
        assert_eq!(verdict(status, &delivery(0), late, 0.5), (DeliveryState::Failed, None));
    }
}
