//! How the server reaches the broker, and by which TLS.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use crate::config::ConfigError;

/// The `[mqtt.broker]` section.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerSettings {
    /// `mqtts://host:port`.
    pub url: String,
    /// What the broker calls this server, the same after a restart; by default `farrier-` and the node's name.
    pub client_id: Option<String>,
    /// The roots that the broker's certificate must lead to, PEM.
    pub ca: Option<PathBuf>,
    /// This server's certificate for the broker, then its intermediates, PEM.
    pub certificate_chain: Option<PathBuf>,
    /// Its private key, PEM.
    pub private_key: Option<PathBuf>,
    /// Also take key exchanges that a quantum computer could break, for brokers without ML-KEM.
    pub allow_classical_key_exchange: bool,
    /// Take an unencrypted connection (`mqtt://`): whoever reads it knows all, whoever changes it commands the fleet.
    pub allow_plaintext_broker: bool,
    /// The name of the shared subscription: the same for all servers of a store.
    pub share: String,
    /// Messages that are being taken at a time.
    pub unacknowledged: u16,
    /// How often the broker hears of this server at least.
    pub keep_alive_s: u16,
    /// For how long the broker keeps what this server has not acknowledged, once it is away. Some brokers also keep
    /// a share of what comes meanwhile for it, which other servers then do not get.
    pub session_expiry_s: u32,
}

impl Default for BrokerSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            client_id: None,
            ca: None,
            certificate_chain: None,
            private_key: None,
            allow_classical_key_exchange: false,
            allow_plaintext_broker: false,
            share: "farrier".to_owned(),
            unacknowledged: 256,
            keep_alive_s: 30,
            session_expiry_s: 60,
        }
    }
}

/// Why the settings for the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A setting is against its rule.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// A file is not there, or not PEM of the kind that is needed.
    #[error("cannot use {path} for the broker: expected {expected} in PEM; check the path and the file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What is wrong.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The TLS library refuses the combination.
    #[error(
        "the certificates and the key for the broker cannot be used together; name files that were issued together"
    )]
    Unusable(#[source] Box<rustls::Error>),
}

/// Where the broker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokerAddress {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_encrypted: bool,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(to, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(to, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

fn refused(key: &'static str, expected: &str, found: impl Into<String>) -> ConfigError {
    ConfigError::Refused { key, expected: expected.to_owned(), found: found.into() }
}

impl BrokerSettings {
    /// Checks what can be checked without opening anything.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        self.address()?;
        let is_name = |name: &str| {
            (1..=64).contains(&name.len())
                && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-._".contains(&octet))
        };
        let name = "1 to 64 letters, digits, '-', '.' or '_'";
        if let Some(client_id) = self.client_id.as_ref().filter(|client_id| !is_name(client_id)) {
            return Err(refused("mqtt.broker.client_id", name, client_id));
        }
        if !is_name(&self.share) {
            return Err(refused("mqtt.broker.share", name, &self.share));
        }
        if self.unacknowledged == 0 {
            return Err(refused("mqtt.broker.unacknowledged", "at least 1", "0"));
        }
        if self.keep_alive_s == 0 {
            return Err(refused(
                "mqtt.broker.keep_alive_s",
                "at least 1: a dead connection has to be found out",
                "0",
            ));
        }
        Ok(())
    }

    pub(super) fn address(&self) -> Result<BrokerAddress, ConfigError> {
        let expected = "mqtts:// and a host, with its port unless that is 8883";
        let unusable = || refused("mqtt.broker.url", expected, &self.url);
        let (is_encrypted, rest) = match (self.url.strip_prefix("mqtts://"), self.url.strip_prefix("mqtt://"))
        {
            (Some(rest), _) => (true, rest),
            (None, Some(_)) if !self.allow_plaintext_broker => {
                let expected =
                    "mqtts:// (mqtt.broker.allow_plaintext_broker takes an unencrypted connection too)";
                return Err(refused("mqtt.broker.url", expected, &self.url));
            }
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(unusable()),
        };
        let usual_port = if is_encrypted { 8883 } else { 1883 };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| unusable())?),
            Some(_) | None => (rest, usual_port),
        };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_host = |octet: u8| octet.is_ascii_alphanumeric() || b"-.:".contains(&octet);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err(unusable());
        }
        Ok(BrokerAddress { host: host.to_owned(), port, is_encrypted })
    }

    /// TLS 1.3, mutual, with the groups of protocol.md §2.
    pub(super) fn tls(&self) -> Result<ClientConfig, BrokerError> {
        let named = |key: &'static str, path: &Option<PathBuf>| {
            path.clone().ok_or_else(|| refused(key, "a PEM file", "nothing"))
        };
        let (ca, chain) = (
            named("mqtt.broker.ca", &self.ca)?,
            named("mqtt.broker.certificate_chain", &self.certificate_chain)?,
        );
        let key_path = named("mqtt.broker.private_key", &self.private_key)?;
        let mut kx_groups = vec![kx_group::X25519MLKEM768, kx_group::MLKEM768];
        if self.allow_classical_key_exchange {
            kx_groups.extend([kx_group::X25519, kx_group::SECP256R1]);
        }
        let provider = CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
            ],
            kx_groups,
            ..aws_lc_rs::default_provider()
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(&ca)? {
            roots.add(root).map_err(|error| BrokerError::Unusable(Box::new(error)))?;
        }
        let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|source| BrokerError::Unreadable {
            path: key_path,
            expected: "a private key",
            source,
        })?;
        let chain = certificates(&chain)?;
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .map_err(|error| BrokerError::Unusable(Box::new(error)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BrokerError> {
    let unreadable = |source| BrokerError::Unreadable {
        path: path.to_owned(),
        expected: "one or more certificates",
        source,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(unreadable)?.collect();
    let found = found.map_err(unreadable)?;
    if found.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(url: &str, allow_plaintext_broker: bool) -> Result<String, String> {
        let settings = BrokerSettings { url: url.to_owned(), allow_plaintext_broker, ..Default::default() };
        settings.check().map_err(|error| error.to_string())?;
        Ok(settings.address().unwrap().to_string())
    }

    #[test]
    fn a_broker_is_named_by_its_url() {
        for (url, read_as) in [
            ("mqtts://broker.example", "mqtts://broker.example:8883"),
            ("mqtts://broker.example:1234", "mqtts://broker.example:1234"),
            ("mqtts://[::1]:1234", "mqtts://[::1]:1234"),
            ("mqtts://[::1]", "mqtts://[::1]:8883"),
            ("mqtts://10.0.0.7", "mqtts://10.0.0.7:8883"),
        ] {
            assert_eq!(address(url, false).unwrap(), read_as);
        }
        for url in
            ["", "broker", "https://broker", "mqtts://", "mqtts://a:b", "mqtts://u:p@host", "mqtts://a/b"]
        {
            assert!(address(url, true).unwrap_err().contains("mqtt.broker.url"), "{url}");
        }
    }

    #[test]
    fn an_unencrypted_broker_needs_its_flag() {
        assert!(address("mqtt://broker", false).unwrap_err().contains("allow_plaintext_broker"));
        assert_eq!(address("mqtt://broker", true).unwrap(), "mqtt://broker:1883");
    }

    #[test]
    fn files_that_are_not_there_are_named() {
        let mut settings = BrokerSettings { url: "mqtts://broker".to_owned(), ..Default::default() };
        assert!(settings.tls().unwrap_err().to_string().contains("mqtt.broker.ca"));
        settings.ca = Some("/nowhere/ca.pem".into());
        settings.certificate_chain = Some("/nowhere/cert.pem".into());
        settings.private_key = Some("/nowhere/key.pem".into());
        assert!(settings.tls().unwrap_err().to_string().contains("/nowhere/ca.pem"));
    }

    #[test]
    fn names_that_a_broker_would_misread_are_refused() {
        let good = BrokerSettings { url: "mqtts://broker".to_owned(), ..Default::default() };
        good.check().unwrap();
        for share in ["", "a/b", "+", "#"] {
            let settings = BrokerSettings { share: share.to_owned(), ..good.clone() };
            assert!(settings.check().unwrap_err().to_string().contains("mqtt.broker.share"));
        }
        let settings = BrokerSettings { client_id: Some("a b".to_owned()), ..good.clone() };
        assert!(settings.check().unwrap_err().to_string().contains("mqtt.broker.client_id"));
    }
}
