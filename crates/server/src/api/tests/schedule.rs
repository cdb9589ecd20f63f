use farrier_protocol::UnixMillis;

use super::*;
use crate::testbed::START;

#[tokio::test]
async fn a_schedule_is_checked_told_and_kept_in_each_vehicles_own_time() {
    let world = World::new();
    let operator = Operator::of(&world).await;
    let car = Car::known(&world, "V1").await;
    world.release("R2", "2").await;
    let with = |rollout: Value| json!({"name": "C2", "release": "R2", "rollout": rollout});
    for (rollout, pointer) in [
        (json!({"windows": [{"from": "22:00", "to": "22:00"}]}), "/rollout/windows/0/to"),
        (json!({"windows": [{"from": "24:00", "to": "22:00"}]}), "/rollout/windows/0/from"),
        (json!({"windows": [{"from": "22:60", "to": "05:00"}]}), "22:60"),
        (json!({"windows": [{"from": "22:00", "to": "05:00", "days": ["someday"]}]}), "someday"),
        (json!({"windows": vec![json!({"from": "22:00", "to": "05:00"}); 22]}), "/rollout/windows"),
        (json!({"time_zone": "Asia/Soul"}), "/rollout/time_zone"),
        (json!({"not_before": 2, "not_after": 1}), "/rollout/not_after"),
        (json!({"spread_s": 86_401}), "/rollout/spread_s"),
        (json!({"bytes_per_second": 1_023}), "/rollout/bytes_per_second"),
    ] {
        let (status, body) = operator.post("/campaigns", with(rollout)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert!(body.to_string().contains(pointer.trim_start_matches("/rollout")), "{pointer}: {body}");
    }
    let rollout = json!({"windows": [{"days": ["fri"], "from": "17:00", "to": "18:00"}], "spread_s": 0});
    let (status, body) = operator.post("/campaigns", with(rollout)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let sentence = "Updates begin Fri 17:00-18:00 by the vehicle's clock (UTC where it has no time zone).";
    assert_eq!(body["schedule_sentence"], sentence);
    operator.post("/campaigns/C2/start", json!({})).await;
    let body = operator.get("/campaigns/C2/vehicles").await["items"][0].take();
    let opens_at = START.plus_seconds(9 * 3_600);
    assert_eq!(
        body["waiting_on"],
        json!({"kind": "window", "opens_at": opens_at, "until": opens_at}),
        "{body}"
    );
    let sentence = "The vehicle's maintenance window is closed and opens in 9 h 0 min; the vehicle's turn in it comes in 9 h 0 min.";
    assert_eq!(body["sentence"], sentence);
    assert_eq!(due(&world).await, Some(opens_at));
    // In Seoul it is 17:00: whoever corrects where the vehicle is opens its window.
    let (status, _) =
        operator.call("PATCH", "/api/v1/vehicles/V1", json!({"time_zone": "Asia/Seoul"}).to_string()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(car.state(&world).await, "collecting_vci");
}

/// When the runner looks at an update next.
async fn due(world: &World) -> Option<UnixMillis> {
    world.read(crate::store::updates::next_due).await
}
