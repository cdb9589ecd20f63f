//! What operators are told of connections; why each ended is also looked at where that is tested.

use super::*;

#[tokio::test]
async fn operators_are_told_when_a_vehicle_connects_and_whether_it_left_or_was_lost() {
    for version in BOTH {
        let running = Running::start().await;
        let vehicle = running.vehicle(version).await;
        let begun = running.desk.sessions.lock().unwrap().clone();
        assert_eq!(
            begun.iter().map(|one| (one.client_id.as_str(), one.came_at)).collect::<Vec<_>>(),
            [("VEH_001_CCU_001", NOW)]
        );
        vehicle.leave().await;
        let lost = running.vehicle(version).await;
        drop(lost);
        while running.connections.is_connected(&own()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut stays = running.vehicle(version).await;
        assert_eq!(running.desk.ends(), [Some("LEFT"), Some("LOST"), None]);
        running.shutdown.cancel();
        stays.expect_closed(0x8b).await;
        drop(stays);
        running.server.await.unwrap();
        assert_eq!(running.desk.ends(), [Some("LEFT"), Some("LOST"), Some("SERVER_STOPPED")]);
    }
}
