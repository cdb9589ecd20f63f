//! The way between the gateway and one zonal gateway: hands each DoIP frame over, or does what the point of
//! the case asks for. The product knows nothing of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use farrier_simulator::ecu::{EcuHandle, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::instants::{Instants, Way};

const HEADER: usize = 8;
const DIAGNOSTIC_MESSAGE: u16 = 0x8001;
const TESTER_PRESENT: u8 = 0x3E;
const NEGATIVE_RESPONSE: u8 = 0x7F;
const RESPONSE_PENDING: u8 = 0x78;
const GENERAL_PROGRAMMING_FAILURE: u8 = 0x72;

/// Listens for the gateway and leads it to `target`; the address. Lives as long as its runtime.
pub(super) async fn open(
    target: SocketAddr,
    ecus: HashMap<u16, EcuHandle>,
    instants: Arc<Instants>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ecus = Arc::new(ecus);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if !instants.is_dead() {
                tokio::spawn(lead(client, target, ecus.clone(), instants.clone()));
            }
        }
    });
    address
}

async fn lead(
    client: TcpStream,
    target: SocketAddr,
    ecus: Arc<HashMap<u16, EcuHandle>>,
    instants: Arc<Instants>,
) {
    let Ok(entity) = TcpStream::connect(target).await else { return };
    client.set_nodelay(true).unwrap();
    entity.set_nodelay(true).unwrap();
    let (from_client, to_client) = client.into_split();
    let (from_entity, to_entity) = entity.into_split();
    let to_client = Mutex::new(to_client);
    tokio::select! {
        () = requests(from_client, to_entity, &to_client, &ecus, &instants) => {}
        () = answers(from_entity, &to_client, &instants) => {}
    }
}

async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).await.ok()?;
    let length = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
    frame.resize(HEADER + length, 0);
    from.read_exact(&mut frame[HEADER..]).await.ok()?;
    Some(frame)
}

/// Source, target and UDS message of a diagnostic message.
fn diagnostic(frame: &[u8]) -> Option<(u16, u16, &[u8])> {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    (word(2) == DIAGNOSTIC_MESSAGE && frame.len() > 12).then(|| (word(8), word(10), &frame[12..]))
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    back: &Mutex<OwnedWriteHalf>,
    ecus: &HashMap<u16, EcuHandle>,
    instants: &Instants,
) {
    while let Some(frame) = frame(&mut from).await {
        let request = diagnostic(&frame).filter(|(_, _, uds)| uds[0] != TESTER_PRESENT);
        let Some((tester, ecu, uds)) = request else {
            if instants.is_dead() || to.write_all(&frame).await.is_err() {
                return;
            }
            continue;
        };
        match instants.request(ecu) {
            Way::Forward | Way::ForwardLast => {}
            Way::Drop if instants.is_dead() => return,
            Way::Drop => continue,
            Way::Refuse => {
                let refusal = refusal(ecu, tester, uds[0]);
                if back.lock().await.write_all(&refusal).await.is_err() {
                    return;
                }
                continue;
            }
            Way::CutPower => {
                ecus[&ecu].cut_power().await;
                ecus[&ecu].restore_power().await;
                continue;
            }
            Way::CutPowerAfterwards => ecus[&ecu]
                .set_faults(Faults { loses_power_instead_of_answer: Some(1), ..ecus[&ecu].faults() }),
        }
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

async fn answers(mut from: OwnedReadHalf, to: &Mutex<OwnedWriteHalf>, instants: &Instants) {
    while let Some(frame) = frame(&mut from).await {
        let is_pending = |uds: &[u8]| uds[0] == NEGATIVE_RESPONSE && uds.get(2) == Some(&RESPONSE_PENDING);
        let answer = diagnostic(&frame).filter(|(_, _, uds)| !is_pending(uds));
        let way = answer.map_or(Way::Forward, |(ecu, _, _)| instants.answer(ecu));
        if way == Way::Drop || instants.is_dead() || to.lock().await.write_all(&frame).await.is_err() {
            return;
        }
        if way == Way::ForwardLast {
            instants.answered();
            return;
        }
    }
}

fn refusal(ecu: u16, tester: u16, service: u8) -> Vec<u8> {
    let mut frame = vec![0x02, 0xFD, 0x80, 0x01, 0, 0, 0, 7];
    frame.extend(ecu.to_be_bytes());
    frame.extend(tester.to_be_bytes());
    frame.extend([NEGATIVE_RESPONSE, service, GENERAL_PROGRAMMING_FAILURE]);
    frame
}
