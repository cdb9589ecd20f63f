//! What the fuzz target `messages` runs: any octets on any topic, judged alone and against a command.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a property that does not hold is a panic")]

use crate::json::{Node, scan};
use crate::*;

/// The commands that answers are checked against, by the second octet of the input.
const COMMANDS: [&str; 7] = [
    include_str!("../tests/vectors/accepted/request_vci.json"),
    include_str!("../tests/vectors/accepted/request_vci_with_power.json"),
    include_str!("../tests/vectors/accepted/request_download_readiness.json"),
    include_str!("../tests/vectors/accepted/start_download.json"),
    include_str!("../tests/vectors/accepted/start_rollback.json"),
    include_str!("../tests/vectors/accepted/cancel_update.json"),
    include_str!("../tests/vectors/accepted/message_rejected.json"),
];

/// The longest part of a refusal: longer ones would carry what they refuse.
const MOST_OCTETS_OF_A_REFUSAL: usize = 16 * 1024;

/// The first octet chooses the topic, the second the command that is answered, the rest is the payload.
///
/// - every payload is accepted or refused; a refusal is short, can be sent, and points to what is there or is missing;
/// - what is accepted is written and read again as the same message, by its own sender only;
/// - what is an answer to a command is also a message by itself;
/// - the digest of an inventory does not depend on the order of its ECUs.
pub fn messages(data: &[u8]) {
    let [topic, command, payload @ ..] = data else { return };
    let command =
        COMMANDS.get(usize::from(command % 8)).map(|json| ServerMessage::parse(json.as_bytes()).unwrap());
    let topics = UpTopic::ALL.iter().map(|topic| Direction::Up(*topic)).chain([Direction::Down]);
    let topic = topics.cycle().nth(usize::from(*topic)).unwrap();

    let answered = check_message(topic, payload, command.as_ref());
    is_presentable(&answered, payload);
    let alone = check_message(topic, payload, None);
    is_presentable(&alone, payload);
    assert!(is_accepted(&alone) || !is_accepted(&answered), "{alone:?}, {answered:?}");
    match topic {
        Direction::Up(topic) => up(topic, payload, is_accepted(&alone)),
        Direction::Down => down(payload, is_accepted(&alone)),
    }
}

fn is_accepted(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Accepted { .. })
}

fn is_presentable(verdict: &Verdict, payload: &[u8]) {
    let Verdict::Refused(refusal) = verdict else { return };
    for text in [&refusal.pointer, &refusal.expected, &refusal.found] {
        assert!(text.len() <= MOST_OCTETS_OF_A_REFUSAL, "{refusal:?}");
    }
    points_into(refusal, payload);
    let rejected = ServerMessage {
        msg_id: "SRV_1".parse().unwrap(),
        proto_ver: ProtoVer::CURRENT,
        vehicle_id: "VEH_001".parse().unwrap(),
        gateway_id: "CCU_001".parse().unwrap(),
        ts: None,
        body: ServerBody::MessageRejected(MessageRejected {
            correlation_id: None,
            code: refusal.code,
            detail: refusal.detail(),
        }),
    };
    assert_eq!(ServerMessage::parse(&rejected.to_json()).unwrap(), rejected);
}

/// All but the last step of a pointer is there; the last may be what is missing.
fn points_into(refusal: &Refusal, payload: &[u8]) {
    let Some((parents, last)) = refusal.pointer.rsplit_once('/') else {
        return assert!(refusal.pointer.is_empty(), "{refusal:?}");
    };
    // A key that is longer than any of the protocol is cut.
    if refusal.pointer.contains('…') {
        return;
    }
    let document = scan(payload).unwrap();
    let parent = parents.split('/').skip(1).try_fold(&document, child);
    let is_there = parent.map(|parent| child(parent, last).is_some());
    let may_be_missing = matches!(
        refusal.code,
        RefusalCode::MissingField | RefusalCode::VciFieldMissing | RefusalCode::ReadinessInconsistent
    );
    assert!(is_there.is_some_and(|is_there| is_there || may_be_missing), "{refusal:?}");
}

fn child<'a>(node: &'a Node<'a>, step: &str) -> Option<&'a Node<'a>> {
    let key = step.replace("~1", "/").replace("~0", "~");
    match (node.value.as_object(), node.value.as_array()) {
        (Some(object), _) => object.member(&key).map(|member| &member.value),
        (None, Some(items)) => items.get(key.parse::<usize>().ok()?),
        (None, None) => None,
    }
}

fn up(topic: UpTopic, payload: &[u8], accepted: bool) {
    let Ok(received) = ReceivedMessage::parse(topic, payload, None) else {
        return assert!(!accepted);
    };
    let message = received.message;
    let again = ReceivedMessage::parse(topic, &message.to_json(), Some(&message.binding())).unwrap();
    assert_eq!(again.message, message);
    assert_eq!(again.message.to_json(), message.to_json());
    let other = Binding { gateway_id: "somebody-else".parse().unwrap(), ..message.binding() };
    if other != message.binding() {
        let refused = ReceivedMessage::parse(topic, payload, Some(&other)).unwrap_err();
        assert_eq!(refused.refusal.code, RefusalCode::IdentityMismatch);
        assert_eq!(refused.msg_id.as_ref(), Some(&message.msg_id));
    }
    if let VehicleBody::SendVci(vci) = &message.body {
        let mut turned = vci.clone();
        turned.ecu_inventory.reverse();
        // An inventory that names an ECU twice is refused, so that its order does not matter.
        assert!(!accepted || vci_digest(&turned) == vci_digest(vci));
    }
}

fn down(payload: &[u8], accepted: bool) {
    let Ok(message) = ServerMessage::parse(payload) else {
        return assert!(!accepted);
    };
    assert_eq!(ServerMessage::parse(&message.to_json()).unwrap(), message);
    for received_at in [i64::MIN, 0, i64::MAX] {
        let _ = message.expires_at(UnixMillis(received_at));
    }
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inputs_of_messages_hold() {
        replay::replay("messages", messages);
    }
}
