use serde_json::{Value, json};

use super::*;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Bench {
    model: Model,
    gateway: Gateway,
    commands: u32,
}

impl Bench {
    fn new(outcome: Outcome) -> Self {
        let nature =
            Nature { outcome, is_not_ready: false, away: None, lies: false, work: Duration::from_millis(1) };
        let model = Model::new(4, "1.0.0", "T").unwrap();
        let binding = Binding { vehicle_id: "V1".parse().unwrap(), gateway_id: "G1".parse().unwrap() };
        let thumbprint = Thumbprint::of_certificate(b"certificate");
        let gateway = Gateway::new(binding, thumbprint, nature, model.first_versions());
        Self { model, gateway, commands: 0 }
    }

    /// The one answer, as it travels.
    fn told(&mut self, message_type: &str, body: Value) -> Value {
        let answers = self.all_told(message_type, body);
        assert!(answers.len() <= 1, "{answers:?}");
        answers.into_iter().next().unwrap_or_default()
    }

    fn all_told(&mut self, message_type: &str, body: Value) -> Vec<Value> {
        self.commands += 1;
        let mut command = json!({
            "msg_id": format!("SRV-{}", self.commands), "proto_ver": "1.0", "type": message_type,
            "vehicle_id": "V1", "gateway_id": "G1", "ts": NOW.0,
        });
        command.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let command = ServerMessage::parse(command.to_string().as_bytes()).unwrap();
        written(self.gateway.take(&self.model, command, NOW))
    }

    fn start(&mut self, failure_report: bool) {
        let package = |number: u8| {
            json!({
                "pkg_id": format!("P{number}"), "target_component": format!("ecu_{number:03}"),
                "target_version": "2.0.0", "size_bytes": 4, "hash_sha256": "00".repeat(32), "url": "/p",
                "image_sha256": "00".repeat(32), "image_size_bytes": 4,
                "hw_part_no": format!("HW-T-{number:03}"), "install_order": 1,
            })
        };
        let answer = self.told(
            "StartDownload",
            json!({
                "correlation_id": "M", "expires_at_ms": NOW.0 + 60_000, "update_id": "U1",
                "failure_report": failure_report,
                "transfer": {"protocol": "HTTPS", "allow_chunking": true, "max_kb_per_msg": 64, "base_url": "https://h"},
                "packages": (1..=4).map(package).collect::<Vec<_>>(),
            }),
        );
        assert_eq!(answer, Value::Null);
    }

    /// What it says when what is under way is done.
    fn advance(&mut self) -> String {
        let said = written(self.gateway.advance(NOW));
        said.iter().map(|message| first_of(message, &["operation", "code"])).collect()
    }

    fn versions(&mut self) -> Vec<String> {
        let vci = self.told("RequestVCI", json!({"fields": ["ecu_id", "sw_version"]}));
        let ecus = vci["ecu_inventory"].as_array().unwrap();
        ecus.iter().map(|ecu| ecu["sw_version"].as_str().unwrap().to_owned()).collect()
    }
}

fn written(messages: Vec<VehicleMessage>) -> Vec<Value> {
    messages.iter().map(|message| serde_json::from_slice(&message.to_json()).unwrap()).collect()
}

fn first_of(message: &Value, keys: &[&str]) -> String {
    keys.iter().find_map(|key| message[*key].as_str()).unwrap_or_default().to_owned()
}

const CANCEL: &str = "CancelUpdate";

fn cancel() -> Value {
    json!({"update_id": "U1", "reason": "enough"})
}

#[test]
fn an_update_goes_its_way_and_can_be_undone_once() {
    let mut bench = Bench::new(Outcome::Updates);
    assert_eq!(bench.gateway.truth().runs, Runs::Untouched);
    bench.start(true);
    assert_eq!(bench.gateway.to_download().unwrap().packages.len(), 4);
    assert_eq!(bench.gateway.work_takes(), Some(Duration::ZERO));
    assert_eq!(bench.advance(), "download");
    assert_eq!(bench.told("RequestVCI", json!({"fields": ["ecu_id"]}))["code"], "BUSY");
    assert_eq!(bench.advance(), "install");
    assert_eq!(bench.told(CANCEL, cancel())["code"], "CANCEL_REFUSED");
    assert_eq!(bench.advance(), "commit");
    assert_eq!((bench.gateway.truth().runs, bench.gateway.work_takes()), (Runs::New, None));
    assert_eq!(bench.versions(), ["2.0.0"; 4]);
    assert_eq!(bench.told(CANCEL, cancel())["code"], "CANCEL_REFUSED");
    let rollback = json!({"update_id": "U1", "expires_at_ms": NOW.0 + 1_000});
    assert_eq!(bench.told("StartRollback", rollback.clone()), Value::Null);
    assert_eq!(bench.advance(), "rollback");
    assert_eq!(bench.versions(), ["1.0.0"; 4]);
    assert_eq!(bench.told("StartRollback", rollback)["code"], "ROLLBACK_UNAVAILABLE");
}

#[test]
fn what_is_cancelled_before_the_swap_changes_nothing() {
    let mut bench = Bench::new(Outcome::Updates);
    bench.start(true);
    assert_eq!(bench.advance(), "download");
    assert_eq!(bench.told(CANCEL, cancel())["code"], "CANCELLED");
    assert_eq!(bench.advance(), "");
    let truth = bench.gateway.truth();
    assert!(truth.has_cancelled && truth.runs == Runs::Earlier, "{truth:?}");
}

#[test]
fn each_failure_leaves_what_it_says_and_is_told_where_the_server_wants_to_be() {
    for (outcome, failure_report, said, runs) in [
        (Outcome::FailsWhileWriting, true, "download UPDATE_FAILED", Runs::Earlier),
        (Outcome::FailsWhileWriting, false, "download ", Runs::Earlier),
        (Outcome::FailsInTrial, true, "download install UPDATE_FAILED", Runs::Earlier),
        (Outcome::FailsBetweenBanks, false, "download install SERVICE_REQUIRED", Runs::Mixed),
    ] {
        let mut bench = Bench::new(outcome);
        bench.start(failure_report);
        let mut words = Vec::new();
        while bench.gateway.work_takes().is_some() {
            words.push(bench.advance());
        }
        assert_eq!((words.join(" ").as_str(), bench.gateway.truth().runs), (said, runs), "{outcome:?}");
    }
}

#[test]
fn silence_lasts_for_good_or_until_after_the_deadline() {
    let mut bench = Bench::new(Outcome::SilentForGood { stays_connected: true });
    bench.start(true);
    assert_eq!(bench.gateway.take_pause(), Some(Pause::Silent { stays_connected: true }));
    assert!(bench.gateway.truth().is_silent && bench.gateway.work_takes().is_none());

    let late_by = Duration::from_secs(5);
    let mut bench = Bench::new(Outcome::SilentUntilLate { updates: true, late_by });
    bench.start(true);
    assert_eq!(bench.advance(), "");
    assert_eq!(bench.gateway.take_pause(), Some(Pause::SilentUntil(NOW.plus_seconds(65))));
    let told = written(bench.gateway.come_back_late(NOW.plus_seconds(65)));
    assert_eq!(first_of(&told[0], &["operation"]), "commit");
    assert_eq!((bench.gateway.truth().runs, bench.versions()), (Runs::New, vec!["2.0.0".to_owned(); 4]));
}

#[test]
fn a_command_is_taken_once_and_not_after_its_time() {
    let mut bench = Bench::new(Outcome::Updates);
    let vci = json!({"fields": ["ecu_id"], "expires_at_ms": NOW.0 - 1});
    assert_eq!(bench.told("RequestVCI", vci)["code"], "EXPIRED");
    bench.commands -= 1;
    assert_eq!(bench.told("RequestVCI", json!({"fields": ["ecu_id"]})), Value::Null, "the same id again");
}

#[test]
fn a_vehicle_that_is_not_ready_is_ready_afterwards_and_takes_no_delta() {
    let mut bench = Bench::new(Outcome::Updates);
    bench.gateway.nature.is_not_ready = true;
    let request = |delta_from: Option<&str>| {
        let mut package = json!({
            "pkg_id": "P1", "target_component": "ecu_001", "target_version": "2.0.0", "size_bytes": 4,
            "hash_sha256": "00".repeat(32),
        });
        if let Some(base) = delta_from {
            package["delta_from"] = json!(base);
        }
        json!({
            "packages": [package], "readiness_requirements": ["power.battery_12v_v"],
            "transfer": {"protocol": "HTTPS", "allow_chunking": true, "max_kb_per_msg": 64},
        })
    };
    let asked = "RequestDownloadReadiness";
    assert_eq!(bench.told(asked, request(Some("1.0.0")))["code"], "DELTA_BASE_MISMATCH");
    let first = bench.told(asked, request(None));
    assert_eq!((&first["ready"], &first["not_ready_reasons"]), (&json!(false), &json!(["POWER_LOW"])));
    assert_eq!(bench.told(asked, request(None))["ready"], true);
}

#[test]
fn a_liar_is_known_for_what_it_runs() {
    let mut bench = Bench::new(Outcome::Updates);
    bench.gateway.nature.lies = true;
    bench.start(true);
    while bench.gateway.work_takes().is_some() {
        bench.advance();
    }
    assert_eq!((bench.versions(), bench.gateway.truth().runs), (vec!["2.0.0".to_owned(); 4], Runs::Earlier));
}
