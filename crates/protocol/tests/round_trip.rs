//! Whatever can be built can be written and is read back as the same; whatever octets come in, reading
//! them ends with a verdict.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test states what it expects by unwrapping"
)]

use farrier_protocol::*;
use proptest::prelude::*;

fn id<T: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9][A-Za-z0-9._-]{0,63}".prop_map(|id| id.parse().unwrap())
}

fn text() -> impl Strategy<Value = Text> {
    let text = prop_oneof![r"\PC{1,20}", r#"["\\/é😀 ]{1,20}"#, r"\PC{128}"];
    text.prop_filter_map("control characters", |text| text.parse().ok())
}

fn long_text() -> impl Strategy<Value = LongText> {
    r"\PC{1,512}".prop_filter_map("control characters", |text| text.parse().ok())
}

fn sha256() -> impl Strategy<Value = Sha256> {
    any::<[u8; 32]>().prop_map(Into::into)
}

fn opt<S: Strategy>(of: S) -> impl Strategy<Value = Option<S::Value>>
where
    S::Value: Clone,
{
    prop::option::of(of)
}

fn millis() -> impl Strategy<Value = UnixMillis> {
    any::<i64>().prop_map(UnixMillis)
}

fn number() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("a number of JSON", |number| number.is_finite())
}

fn one_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn list<S: Strategy>(of: S, least: usize) -> impl Strategy<Value = Vec<S::Value>> {
    prop::collection::vec(of, least..6)
}

fn wake_up() -> BoxedStrategy<VehicleBody> {
    let thumbprint = "[0-9a-f]{64}".prop_map(|text| text.parse().unwrap());
    (text(), any::<u64>(), any::<u64>(), thumbprint, opt(sha256()))
        .prop_map(|(boot_id, boot_seq, uptime_ms, client_cert_thumbprint, vci_digest)| {
            VehicleBody::WakeUp(WakeUp { boot_id, boot_seq, uptime_ms, client_cert_thumbprint, vci_digest })
        })
        .boxed()
}

fn functional_group() -> impl Strategy<Value = FunctionalGroup> {
    let placement = prop_oneof![
        text().prop_map(Placement::Domain),
        text().prop_map(|name| Placement::Zone(Zone::Name(name))),
        any::<u16>().prop_map(|number| Placement::Zone(Zone::Number(number))),
    ];
    (placement, opt(any::<u8>())).prop_map(|(placement, index)| FunctionalGroup { placement, index })
}

fn ecu_entry() -> impl Strategy<Value = EcuEntry> {
    let mac = "([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}".prop_map(|text| text.parse().unwrap());
    let ip = any::<std::net::IpAddr>().prop_map(|address| address.to_string().parse().unwrap());
    let can = (0_u32..=0x1FFF_FFFF).prop_map(|id| format!("0x{id:X}").parse().unwrap());
    let texts = prop::array::uniform6(opt(text()));
    (id(), texts, opt(mac), opt(ip), opt(can), functional_group()).prop_map(
        |(ecu_id, texts, mac_address, ip_address, can_id, functional_group)| {
            let [supplier_code, hw_part_no, sw_part_no, sw_version, bootloader_ver, calibration_id] = texts;
            EcuEntry {
                ecu_id,
                supplier_code,
                hw_part_no,
                sw_part_no,
                sw_version,
                bootloader_ver,
                calibration_id,
                mac_address,
                ip_address,
                can_id,
                functional_group,
            }
        },
    )
}

fn charging() -> impl Strategy<Value = ChargingStatus> {
    one_of(&[ChargingStatus::Charging, ChargingStatus::Charged, ChargingStatus::NotCharging])
}

fn send_vci() -> BoxedStrategy<VehicleBody> {
    let power = (opt(number()), opt(number()), opt(charging())).prop_map(
        |(battery_12v_v, battery_48v_v, charging_status)| PowerSnapshot {
            battery_12v_v,
            battery_48v_v,
            charging_status,
        },
    );
    (id(), opt(text()), text(), opt(text()), list(ecu_entry(), 1), opt(power))
        .prop_map(|(correlation_id, region, fw_sw_version, bootloader_ver, ecu_inventory, power)| {
            VehicleBody::SendVci(SendVci {
                correlation_id,
                region,
                fw_sw_version,
                bootloader_ver,
                ecu_inventory,
                power,
            })
        })
        .boxed()
}

fn condition_values() -> impl Strategy<Value = ConditionValues> {
    let switch = || opt(one_of(&[OnOff::On, OnOff::Off]));
    let gear = one_of(&[GearPosition::P, GearPosition::R, GearPosition::N, GearPosition::D]);
    let plan = one_of(&[DataPlanStatus::Ok, DataPlanStatus::LimitReached]);
    let numbers = prop::array::uniform10(opt(number()));
    (numbers, opt(charging()), opt(plan), switch(), switch(), opt(gear)).prop_map(
        |(numbers, charging_status, data_plan_status, ignition_status, parking_brake, gear_position)| {
            let [a, b, c, d, e, f, g, h, i, j] = numbers;
            ConditionValues {
                battery_12v_v: a,
                battery_48v_v: b,
                charging_status,
                temp_ccu_c: c,
                temp_ecu_max_c: d,
                cpu_usage_percent: e,
                memory_available_mb: f,
                storage_available_gb: g,
                bandwidth_mbps: h,
                signal_strength: i,
                data_plan_status,
                speed_kmh: j,
                ignition_status,
                parking_brake,
                gear_position,
            }
        },
    )
}

fn readiness_report() -> BoxedStrategy<VehicleBody> {
    let reasons = opt(list(one_of(NotReadyReason::ALL), 0));
    (id(), any::<bool>(), condition_values(), reasons, opt(any::<u64>()))
        .prop_map(|(correlation_id, ready, requested_fields, not_ready_reasons, retry_after_s)| {
            VehicleBody::ReadinessReport(ReadinessReport {
                correlation_id,
                ready,
                requested_fields,
                not_ready_reasons,
                retry_after_s,
            })
        })
        .boxed()
}

fn update_success_result() -> BoxedStrategy<VehicleBody> {
    let operation = one_of(Operation::ALL);
    (id(), operation, opt(any::<u64>()), opt(any::<bool>()), any::<u64>(), any::<bool>())
        .prop_map(|(correlation_id, operation, duration_s, rebooted, ecu_count, verified_integrity)| {
            VehicleBody::UpdateSuccessResult(UpdateSuccessResult {
                correlation_id,
                operation,
                duration_s,
                rebooted,
                ecu_count,
                verified_integrity,
            })
        })
        .boxed()
}

fn error_response() -> BoxedStrategy<VehicleBody> {
    let (ecus, packages) = (opt(list(id(), 0)), opt(list(id(), 0)));
    (id(), one_of(ErrorCode::ALL), long_text(), ecus, packages, opt(any::<u64>()))
        .prop_map(|(correlation_id, code, detail, failed_ecus, pkg_ids, retry_after_s)| {
            VehicleBody::ErrorResponse(ErrorResponse {
                correlation_id,
                code,
                detail,
                failed_ecus,
                pkg_ids,
                retry_after_s,
            })
        })
        .boxed()
}

fn vehicle_message() -> impl Strategy<Value = VehicleMessage> {
    let body =
        prop_oneof![wake_up(), send_vci(), readiness_report(), update_success_result(), error_response()];
    (id(), any::<u32>(), id(), id(), millis(), body).prop_map(
        |(msg_id, minor, vehicle_id, gateway_id, ts, body)| VehicleMessage {
            msg_id,
            proto_ver: ProtoVer { minor },
            vehicle_id,
            gateway_id,
            ts,
            body,
        },
    )
}

fn request_vci() -> BoxedStrategy<ServerBody> {
    let fields = list(one_of(VciField::ALL), 1);
    (opt(id()), fields, opt(any::<u64>()), opt(millis()), opt(one_of(VciReason::ALL)))
        .prop_map(|(correlation_id, fields, deadline_s, expires_at_ms, reason)| {
            ServerBody::RequestVci(RequestVci { correlation_id, fields, deadline_s, expires_at_ms, reason })
        })
        .boxed()
}

fn request_download_readiness() -> BoxedStrategy<ServerBody> {
    let package = (id(), id(), text(), opt(text()), any::<u64>(), sha256()).prop_map(
        |(pkg_id, target_component, target_version, delta_from, size_bytes, hash_sha256)| OfferedPackage {
            pkg_id,
            target_component,
            target_version,
            delta_from,
            size_bytes,
            hash_sha256,
        },
    );
    let transfer = (any::<bool>(), any::<u64>()).prop_map(|(allow_chunking, max_kb_per_msg)| Transfer {
        protocol: TransferProtocol::Https,
        allow_chunking,
        max_kb_per_msg,
    });
    let conditions = list(one_of(Condition::ALL), 0);
    let deadlines = (opt(any::<u64>()), opt(millis()));
    (opt(id()), opt(text()), list(package, 1), transfer, conditions, deadlines)
        .prop_map(|(correlation_id, region_filter, packages, transfer, readiness_requirements, deadlines)| {
            ServerBody::RequestDownloadReadiness(RequestDownloadReadiness {
                correlation_id,
                region_filter,
                packages,
                transfer,
                readiness_requirements,
                deadline_s: deadlines.0,
                expires_at_ms: deadlines.1,
            })
        })
        .boxed()
}

fn package() -> impl Strategy<Value = Package> {
    let names = (id(), id(), text(), long_text(), text());
    let image = (any::<u64>(), sha256());
    // A delta travels as other bytes than its image; a full image is what travels.
    let delta = opt((text(), any::<u64>(), sha256()));
    (names, image, delta, any::<u64>()).prop_map(|(names, image, delta, install_order)| {
        let (pkg_id, target_component, target_version, url, hw_part_no) = names;
        let (image_size_bytes, image_sha256) = image;
        let (delta_from, size_bytes, hash_sha256) = match delta {
            Some((from, size_bytes, hash)) => (Some(from), size_bytes, hash),
            None => (None, image_size_bytes, image_sha256),
        };
        Package {
            pkg_id,
            target_component,
            target_version,
            delta_from,
            size_bytes,
            hash_sha256,
            url,
            image_sha256,
            image_size_bytes,
            hw_part_no,
            install_order,
        }
    })
}

fn start_download() -> BoxedStrategy<ServerBody> {
    let transfer =
        (any::<bool>(), any::<u64>(), long_text()).prop_map(|(allow_chunking, max_kb_per_msg, base_url)| {
            DownloadTransfer { protocol: TransferProtocol::Https, allow_chunking, max_kb_per_msg, base_url }
        });
    let update = (text(), opt(text()), any::<bool>());
    let deadlines = (millis(), opt(any::<u64>()));
    (id(), deadlines, update, transfer, list(package(), 1), opt(any::<u64>()))
        .prop_map(|(correlation_id, deadlines, update, transfer, packages, director_targets_version)| {
            ServerBody::StartDownload(StartDownload {
                correlation_id,
                expires_at_ms: deadlines.0,
                deadline_s: deadlines.1,
                update_id: update.0,
                campaign_id: update.1,
                failure_report: update.2,
                transfer,
                packages,
                director_targets_version,
            })
        })
        .boxed()
}

fn start_rollback() -> BoxedStrategy<ServerBody> {
    (opt(id()), text(), millis(), opt(any::<u64>()))
        .prop_map(|(correlation_id, update_id, expires_at_ms, deadline_s)| {
            ServerBody::StartRollback(StartRollback { correlation_id, update_id, expires_at_ms, deadline_s })
        })
        .boxed()
}

fn cancel_update() -> BoxedStrategy<ServerBody> {
    (opt(id()), text(), text(), opt(millis()), opt(any::<u64>()))
        .prop_map(|(correlation_id, update_id, reason, expires_at_ms, deadline_s)| {
            ServerBody::CancelUpdate(CancelUpdate {
                correlation_id,
                update_id,
                reason,
                expires_at_ms,
                deadline_s,
            })
        })
        .boxed()
}

fn message_rejected() -> BoxedStrategy<ServerBody> {
    (opt(id()), one_of(RefusalCode::ALL), long_text())
        .prop_map(|(correlation_id, code, detail)| {
            ServerBody::MessageRejected(MessageRejected { correlation_id, code, detail })
        })
        .boxed()
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let body = prop_oneof![
        request_vci(),
        request_download_readiness(),
        start_download(),
        start_rollback(),
        cancel_update(),
        message_rejected(),
    ];
    (id(), any::<u32>(), id(), id(), opt(millis()), body).prop_map(
        |(msg_id, minor, vehicle_id, gateway_id, ts, body)| ServerMessage {
            msg_id,
            proto_ver: ProtoVer { minor },
            vehicle_id,
            gateway_id,
            ts,
            body,
        },
    )
}

/// A message as it travels, for the tests that damage it.
fn written() -> impl Strategy<Value = (CheckTopic, Vec<u8>)> {
    prop_oneof![
        vehicle_message().prop_map(|message| (CheckTopic::Up(message.topic()), message.to_json())).boxed(),
        server_message().prop_map(|message| (CheckTopic::Down, message.to_json())).boxed(),
    ]
}

fn direction() -> impl Strategy<Value = CheckTopic> {
    let mut all: Vec<CheckTopic> = UpTopic::ALL.iter().copied().map(CheckTopic::Up).collect();
    all.push(CheckTopic::Down);
    prop::sample::select(all)
}

/// A refusal that people can read: it never carries the body.
fn is_presentable(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Accepted { .. } => true,
        Verdict::Refused(refusal) => {
            refusal.expected.len() + refusal.found.len() < 2000
                && refusal.pointer.len() < 32 * 520
                && refusal.detail().as_str().parse::<LongText>().is_ok()
        }
    }
}

proptest! {
    #[test]
    fn a_vehicles_message_is_read_back_as_it_was(message in vehicle_message()) {
        let payload = message.to_json();
        let received = ReceivedMessage::parse(message.topic(), &payload, Some(&message.binding()));
        prop_assert_eq!(received.unwrap().message, message);
    }

    #[test]
    fn a_servers_message_is_read_back_as_it_was(message in server_message()) {
        prop_assert_eq!(ServerMessage::parse(&message.to_json()).unwrap(), message);
    }

    #[test]
    fn what_is_written_satisfies_its_schema((topic, payload) in written()) {
        let message: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        let message_type: MessageType = message["type"].as_str().unwrap().parse().unwrap();
        prop_assert_eq!(message_type.direction(), topic);
        let validator = jsonschema::draft202012::new(&message_schema(message_type)).unwrap();
        let errors: Vec<_> = validator.iter_errors(&message).map(|error| error.to_string()).collect();
        prop_assert!(errors.is_empty(), "{:?}", errors);
    }

    #[test]
    fn any_octets_get_a_verdict(topic in direction(), payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let is_refused = matches!(check_message(topic, &payload, None), Verdict::Refused(_));
        prop_assert!(is_refused);
    }

    #[test]
    fn a_damaged_message_gets_a_verdict(
        (topic, mut payload) in written(),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, any::<Vec<u8>>()), 1..4),
        elsewhere in direction(),
    ) {
        for (at, length, put) in cuts {
            let at = at.index(payload.len() + 1);
            let end = (at + length).min(payload.len());
            payload.splice(at..end, put);
        }
        for topic in [topic, elsewhere] {
            prop_assert!(is_presentable(&check_message(topic, &payload, None)));
        }
    }

    #[test]
    fn a_field_that_is_removed_or_replaced_gets_a_verdict_that_names_it_or_none(
        (topic, payload) in written(), at in any::<prop::sample::Index>(), put in prop::option::of(any::<i8>()),
    ) {
        let mut message: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&payload).unwrap();
        let key = message.keys().nth(at.index(message.len())).unwrap().clone();
        match put {
            Some(put) => message.insert(key.clone(), put.into()),
            None => message.remove(&key),
        };
        match check_message(topic, &serde_json::to_vec(&message).unwrap(), None) {
            Verdict::Accepted { .. } => {}
            // A report of readiness may be inconsistent before and after.
            Verdict::Refused(refusal) if refusal.code == RefusalCode::ReadinessInconsistent => {}
            Verdict::Refused(refusal) if refusal.code == RefusalCode::VciDuplicateEcu => {}
            Verdict::Refused(refusal) if refusal.code == RefusalCode::IntegrityNotVerified => {}
            Verdict::Refused(refusal) => prop_assert_eq!(refusal.pointer, format!("/{}", key)),
        }
    }
}
