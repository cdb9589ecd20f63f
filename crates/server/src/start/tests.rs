use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::pki::Pki;

/// A folder with an authority, and settings for it with free ports.
fn prepared() -> (tempfile::TempDir, ServerConfig) {
    let dir = tempfile::tempdir().unwrap();
    Pki::init(&dir.path().join("pki"), false, wall_clock()).unwrap();
    let config = on_free_ports(&dir, "data");
    (dir, config)
}

fn on_free_ports(dir: &tempfile::TempDir, data: &str) -> ServerConfig {
    let mut config = ServerConfig::for_one_machine(dir.path().join(data), dir.path().join("pki"));
    for address in [&mut config.mqtt.listen, &mut config.https, &mut config.operator] {
        address.set_port(0);
    }
    config
}

async fn error(config: ServerConfig) -> String {
    Server::start(config).await.err().unwrap().to_string()
}

#[tokio::test]
async fn a_server_says_where_it_listens_and_leaves_nothing_behind_when_it_stops() {
    let (dir, config) = prepared();
    let server = Server::start(config.clone()).await.unwrap();
    let listening = dir.path().join("data/listening.json");
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(&listening).unwrap()).unwrap();
    assert_eq!(addresses["operator"], format!("https://{}", server.operator));
    assert_eq!(addresses["mqtt"], server.mqtt.unwrap().to_string());
    let token = std::fs::read_to_string(&server.operator_token).unwrap();
    assert_eq!(token.trim().len(), "farrier_".len() + 64);
    let mode = std::fs::metadata(&server.operator_token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    tokio::net::TcpStream::connect(server.operator).await.unwrap();
    let operator = server.operator;
    server.stop().await;
    assert!(!listening.exists());
    tokio::net::TcpStream::connect(operator).await.unwrap_err();

    let again = Server::start(config).await.unwrap();
    assert_eq!(std::fs::read_to_string(&again.operator_token).unwrap(), token);
    again.stop().await;
}

#[tokio::test]
async fn a_data_folder_belongs_to_one_server() {
    let (_dir, config) = prepared();
    let server = Server::start(config.clone()).await.unwrap();
    assert!(error(config).await.contains("in use by another server"));
    server.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_left_listening() {
    let (dir, config) = prepared();
    let server = Server::start(config).await.unwrap();
    let mut second = on_free_ports(&dir, "other");
    second.https = server.mqtt.unwrap();
    let error = error(second).await;
    assert!(error.contains(&server.mqtt.unwrap().to_string()) && error.contains("https"), "{error}");
    assert!(!dir.path().join("other/listening.json").exists());
    server.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let (dir, config) = prepared();
    let mut without_pki = config.clone();
    without_pki.pki = Some(dir.path().join("none"));
    assert!(error(without_pki).await.contains("pki init"));
    let mut without_key = config.clone();
    without_key.release_public_key = Some(dir.path().join("none.pem"));
    assert!(error(without_key).await.contains("none.pem"));
}
