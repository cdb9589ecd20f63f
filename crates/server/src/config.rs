//! What an operator can set about the server: one typed struct, checked before a socket opens.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use farrier_campaign::{ApprovalRule, DeltaSettings, LEAST_BYTES_PER_SECOND, Settings};
use farrier_protocol::{LongText, Topics};
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

use crate::console::OidcSettings;
use crate::mqtt::{MqttMode, MqttSettings};
use crate::store::PostgresAddress;
use crate::tls::ExpiryAlarms;
use crate::webhooks::WebhookSettings;

/// The settings of a server. Every key may stand in the configuration file; unknown ones are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Where the store, the images and the operator's first token are kept.
    pub data: PathBuf,
    /// A PostgreSQL database, which several servers may share, in place of the SQLite file in the data folder.
    pub store: Option<PostgresAddress>,
    /// Speak to a PostgreSQL server on another machine although the connection is not encrypted.
    pub allow_plaintext_store: bool,
    /// Where the images are kept; servers that share a store share it. By default `images` in the data folder.
    pub images: Option<PathBuf>,
    /// What this server is called among those that share its store; by default a name that it makes for itself.
    pub node: Option<String>,
    /// A folder made by `farrier pki init`, for one machine; else `tls` names files.
    pub pki: Option<PathBuf>,
    /// Certificates and keys of the vehicles' listeners, in place of `pki`.
    pub tls: Option<TlsPaths>,
    /// Certificate and key of the operators' listener; with `pki` the server issues itself one.
    pub operator_tls: Option<OperatorTlsPaths>,
    /// Private key that signs images that come without a signature; with `pki` that folder's.
    pub release_key: Option<PathBuf>,
    /// Public key by which signatures that come with images are checked; with `pki` that folder's.
    pub release_public_key: Option<PathBuf>,
    /// Where and how vehicles speak MQTT.
    pub mqtt: MqttSettings,
    /// Where vehicles fetch files.
    pub https: SocketAddr,
    /// How quickly they get them.
    pub files: FilesSettings,
    /// Where operators speak to the API.
    pub operator: SocketAddr,
    /// What all topics begin with.
    pub topic_prefix: String,
    /// Who enrols vehicles.
    pub enroll: Enroll,
    /// What the paths of packages stand below; by default `https://localhost` and the HTTPS port.
    pub base_url: Option<String>,
    /// Also take key exchanges that a quantum computer could break, for gateways without ML-KEM.
    pub allow_classical_key_exchange: bool,
    /// Go by the last list of revoked certificates although its time is over.
    pub allow_expired_revocation_list: bool,
    /// How long before certificates and lists end an alarm is raised.
    pub expiry_alarms: ExpiryAlarms,
    /// Speak plain HTTP to operators, also to those on other machines.
    pub allow_plaintext_operator: bool,
    /// Let everybody who reaches the operators' listener read /metrics.
    pub allow_metrics_without_token: bool,
    /// Largest range, in KiB, that one GET of a vehicle asks for.
    pub max_kb_per_msg: u64,
    /// Whether vehicles are asked to report UPDATE_FAILED.
    pub failure_report: bool,
    /// Every deadline, pause and number of tries.
    pub deadlines: Settings,
    /// Which deltas are made and sent.
    pub deltas: DeltaSettings,
    /// What holds for every campaign.
    pub campaigns: CampaignSettings,
    /// What webhooks may do.
    pub webhooks: WebhookSettings,
    /// An OpenID Connect provider that people may sign in to the console with; needs the feature `oidc`.
    pub oidc: Option<OidcSettings>,
}

/// How packages leave.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesSettings {
    /// Bytes of packages that this server process sends to all vehicles together in a second, at most; 1024 or more.
    pub bytes_per_second: Option<u64>,
}

/// Failed attempts after which vehicles can be set aside at most.
const MOST_FAILURES: u32 = 100;

/// What holds for every campaign.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CampaignSettings {
    /// Which need the approval of a second person before they start.
    pub approval: ApprovalRule,
    /// A vehicle whose attempts with one release failed so often, in all campaigns together, is set aside for that release
    /// until an operator takes it back; 0 = none ever is.
    pub set_aside_after: u32,
}

impl Default for CampaignSettings {
    fn default() -> Self {
        Self { approval: ApprovalRule::default(), set_aside_after: 3 }
    }
}

/// The PEM files of the vehicles' listeners.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPaths {
    /// The server's certificate, then its intermediates.
    pub certificate_chain: PathBuf,
    /// The server's private key.
    pub private_key: PathBuf,
    /// The roots that vehicles' certificates must lead to.
    pub client_roots: PathBuf,
    /// The lists of revoked certificates.
    pub revoked: PathBuf,
}

/// The PEM files of the operators' listener.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorTlsPaths {
    /// The certificate, then its intermediates.
    pub certificate_chain: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
}

/// Who enrols vehicles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Enroll {
    /// Only operators.
    Operator,
    /// A vehicle with a certificate of our authority enrols itself by its first WakeUp.
    Auto,
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("cannot read {path}: expected a configuration file; check the path")]
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold settings.
    #[error("{path} cannot be used: {found}; mend the key or remove it")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with which key.
        found: String,
    },
    /// A setting is against its rule.
    #[error("setting {key}: expected {expected}, found {found}")]
    Refused {
        /// The setting.
        key: &'static str,
        /// Its rule.
        expected: String,
        /// What was there.
        found: String,
    },
}

impl Default for ServerConfig {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            data: PathBuf::from("farrier-data"),
            store: None,
            allow_plaintext_store: false,
            images: None,
            node: None,
            pki: None,
            tls: None,
            operator_tls: None,
            release_key: None,
            release_public_key: None,
            mqtt: MqttSettings::default(),
            https: loopback(8443),
            files: FilesSettings::default(),
            operator: loopback(8080),
            topic_prefix: "ota".to_owned(),
            enroll: Enroll::Operator,
            base_url: None,
            allow_classical_key_exchange: false,
            allow_expired_revocation_list: false,
            expiry_alarms: ExpiryAlarms::default(),
            allow_plaintext_operator: false,
            allow_metrics_without_token: false,
            max_kb_per_msg: 1024,
            failure_report: false,
            deadlines: Settings::default(),
            deltas: DeltaSettings::default(),
            campaigns: CampaignSettings::default(),
            webhooks: WebhookSettings::default(),
            oidc: None,
        }
    }
}

impl ServerConfig {
    /// The settings for one machine with a folder made by `farrier pki init`.
    pub fn for_one_machine(data: impl Into<PathBuf>, pki: impl Into<PathBuf>) -> Self {
        Self { data: data.into(), pki: Some(pki.into()), ..Self::default() }
    }

    /// The defaults, overlaid by the file where one is given.
    ///
    /// # Errors
    /// Names the file, the key, and what is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = file else { return Ok(Self::default()) };
        if !path.is_file() {
            return Err(ConfigError::Unreadable { path: path.to_owned() });
        }
        Figment::from(Toml::file_exact(path))
            .extract()
            .map_err(|error| ConfigError::Invalid { path: path.to_owned(), found: error.to_string() })
    }

    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// Names the first setting that is against its rule.
    pub fn check(&self) -> Result<Topics, ConfigError> {
        let refused = |key, expected: &str, found: String| {
            Err(ConfigError::Refused { key, expected: expected.to_owned(), found })
        };
        if self.pki.is_some() == self.tls.is_some() {
            let found = if self.pki.is_some() { "both" } else { "neither" };
            return refused("pki", "either a pki folder or tls files", found.to_owned());
        }
        let operators_have_tls = self.pki.is_some() || self.operator_tls.is_some();
        if !self.operator.ip().is_loopback() && !operators_have_tls && !self.allow_plaintext_operator {
            let expected = "a loopback address, since operators' connections are not encrypted: name a certificate \
                            in [operator_tls], or take --allow-plaintext-operator";
            return refused("operator", expected, self.operator.to_string());
        }
        if let Some(store) = &self.store
            && store.is_readable_by_others()
            && !self.allow_plaintext_store
        {
            let expected = "this machine, or sslmode=verify-full with sslrootcert, since the connection is not \
                            encrypted (--allow-plaintext-store takes others)";
            return refused("store", expected, store.shown().to_owned());
        }
        if let Some(node) = &self.node
            && !is_name(node)
        {
            return refused("node", "1 to 64 characters [A-Za-z0-9._-]", format!("{node:?}"));
        }
        if self.operator_tls.is_some() && self.allow_plaintext_operator {
            let expected = "either a certificate for operators or plain HTTP (--allow-plaintext-operator)";
            return refused("operator_tls", expected, "both".to_owned());
        }
        if self.max_kb_per_msg == 0 {
            return refused("max_kb_per_msg", "at least 1", "0".to_owned());
        }
        if let Some(base_url) = &self.base_url {
            let usable = base_url.starts_with("https://") && base_url.parse::<LongText>().is_ok();
            if !usable || base_url.ends_with('/') {
                let expected = "https:// and a host, at most 512 characters, no slash at the end";
                return refused("base_url", expected, base_url.clone());
            }
        }
        if self.deltas.at_most_percent > 100 {
            let found = self.deltas.at_most_percent.to_string();
            return refused("deltas.at_most_percent", "0 to 100", found);
        }
        if let Some(limit) = self.files.bytes_per_second.filter(|limit| *limit < LEAST_BYTES_PER_SECOND) {
            let expected = format!("at least {LEAST_BYTES_PER_SECOND}, or no such key");
            return refused("files.bytes_per_second", &expected, limit.to_string());
        }
        if self.campaigns.set_aside_after > MOST_FAILURES {
            let found = self.campaigns.set_aside_after.to_string();
            return refused("campaigns.set_aside_after", "0 to 100 failed attempts", found);
        }
        self.check_deadlines()?;
        if let Some(oidc) = &self.oidc {
            oidc.check().map_err(|(key, expected, found)| ConfigError::Refused {
                key,
                expected: expected.to_owned(),
                found,
            })?;
        }
        self.mqtt.limits.check().map_err(|(key, expected, found)| ConfigError::Refused {
            key,
            expected: expected.to_owned(),
            found,
        })?;
        match self.mqtt.mode {
            MqttMode::Endpoint => {}
            MqttMode::Broker => self.mqtt.broker.check()?,
        }
        Topics::new(&self.topic_prefix).map_err(|error| ConfigError::Refused {
            key: "topic_prefix",
            expected: error.expected.to_owned(),
            found: error.found,
        })
    }

    fn check_deadlines(&self) -> Result<(), ConfigError> {
        let settings = &self.deadlines;
        let at_least_one = [
            ("deadlines.vci_deadline_s", settings.vci_deadline_s),
            ("deadlines.readiness_deadline_s", settings.readiness_deadline_s),
            ("deadlines.update_deadline_s", settings.update_deadline_s),
            ("deadlines.rollback_deadline_s", settings.rollback_deadline_s),
            ("deadlines.verify_deadline_s", settings.verify_deadline_s),
            ("deadlines.silence_pause_s", settings.silence_pause_s),
            ("deadlines.question_tries", u64::from(settings.question_tries)),
            ("deadlines.boot_loop.reboots", settings.boot_loop.reboots as u64),
        ];
        match at_least_one.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => {
                Err(ConfigError::Refused { key, expected: "at least 1".to_owned(), found: "0".to_owned() })
            }
            None => Ok(()),
        }
    }
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(text: &str) -> Result<ServerConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("server.toml");
        std::fs::write(&path, text).unwrap();
        ServerConfig::load(Some(&path))
    }

    #[test]
    fn a_file_sets_what_it_names_and_leaves_the_rest() {
        let config = loaded(
            "pki = 'p'\nenroll = 'auto'\n[mqtt]\nlisten = '127.0.0.1:0'\n[mqtt.limits]\nban_s = 7\n\
             [deadlines]\nvci_deadline_s = 5\n[deadlines.boot_loop]\nreboots = 3\n",
        )
        .unwrap();
        assert_eq!((config.mqtt.listen.port(), config.https.port()), (0, 8443));
        assert_eq!((config.mqtt.limits.ban_s, config.mqtt.limits.packet_kib), (7, 512));
        assert_eq!(config.enroll, Enroll::Auto);
        assert_eq!(config.deadlines.vci_deadline_s, 5);
        assert_eq!(config.deadlines.readiness_deadline_s, 60);
        assert_eq!(config.deadlines.boot_loop.reboots, 3);
        config.check().unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        for text in ["pik = 'p'\n", "[deadlines]\nvci_deadlines_s = 5\n", "[mqtt.limits]\npik = 1\n"] {
            let error = loaded(text).unwrap_err().to_string();
            assert!(error.contains("pik") || error.contains("vci_deadlines_s"), "{error}");
        }
    }

    #[test]
    fn the_store_is_read_from_its_address_and_its_password_is_never_shown() {
        let config = loaded("store = 'postgres://u:geheim@localhost/farrier'\n").unwrap();
        assert!(!format!("{config:?}").contains("geheim"));
        let error = loaded("store = 'postgres://u:geheim@localhost'\n").unwrap_err().to_string();
        assert!(error.contains("a database") && !error.contains("geheim"), "{error}");
    }

    #[test]
    fn a_provider_to_sign_in_with_is_checked_and_needs_a_build_that_can() {
        let checked = |issuer: &str, scopes: &str| {
            let text = format!(
                "pki = 'p'\n[oidc]\nissuer = '{issuer}'\nclient_id = 'farrier'\nconsole = 'https://ota.example'\n\
                 [oidc.scopes]\n{scopes}"
            );
            loaded(&text).unwrap().check().map(|_| ()).map_err(|error| error.to_string())
        };
        let scopes = "viewer = ['staff']";
        if cfg!(feature = "oidc") {
            checked("https://sso.example", scopes).unwrap();
            assert!(checked("http://sso.example", scopes).unwrap_err().contains("oidc.issuer"));
            assert!(checked("https://sso.example", "viewer = []").unwrap_err().contains("oidc.scopes"));
        } else {
            assert!(checked("https://sso.example", scopes).unwrap_err().contains("--features oidc"));
        }
        assert!(loaded("[oidc]\nissuer = 'https://sso.example'\n").is_err());
        assert!(loaded("[oidc.scopes]\nroot = ['staff']\n").is_err());
    }

    #[test]
    fn a_file_that_is_missing_is_named() {
        let error = ServerConfig::load(Some(Path::new("/nowhere/server.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/server.toml"));
    }

    #[test]
    fn settings_against_their_rules_are_refused_before_anything_opens() {
        let good = ServerConfig::for_one_machine("d", "p");
        good.check().unwrap();
        let refused = |change: fn(&mut ServerConfig)| {
            let mut config = good.clone();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(refused(|c| c.pki = None).contains("pki"));
        let without_certificate = refused(|c| {
            let path = PathBuf::from("x");
            c.pki = None;
            c.tls = Some(TlsPaths {
                certificate_chain: path.clone(),
                private_key: path.clone(),
                client_roots: path.clone(),
                revoked: path,
            });
            c.operator = "0.0.0.0:80".parse().unwrap();
        });
        assert!(without_certificate.contains("--allow-plaintext-operator"), "{without_certificate}");
        assert!(without_certificate.contains("[operator_tls]"), "{without_certificate}");
        assert!(
            refused(|c| c.store = Some("postgres://u:geheim@db.example/d".parse().unwrap()))
                .contains("--allow-plaintext-store")
        );
        assert!(refused(|c| c.node = Some("a b".to_owned())).contains("node"));
        assert!(refused(|c| c.max_kb_per_msg = 0).contains("max_kb_per_msg"));
        assert!(refused(|c| c.base_url = Some("http://host".to_owned())).contains("base_url"));
        assert!(refused(|c| c.topic_prefix = "a/+".to_owned()).contains("topic_prefix"));
        assert!(refused(|c| c.deltas.at_most_percent = 101).contains("at_most_percent"));
        assert!(refused(|c| c.campaigns.set_aside_after = 101).contains("set_aside_after"));
        assert!(refused(|c| c.deadlines.vci_deadline_s = 0).contains("vci_deadline_s"));
        assert!(refused(|c| c.files.bytes_per_second = Some(1_023)).contains("files.bytes_per_second"));
        assert!(refused(|c| c.mqtt.limits.ban_s = 0).contains("mqtt.limits.ban_s"));
        assert!(refused(|c| c.mqtt.limits.packet_kib = 16).contains("257 to 4096"));
        assert!(refused(|c| c.mqtt.limits.kib_burst = 100).contains("mqtt.limits.kib_burst"));
        let mut open = good.clone();
        open.operator = "0.0.0.0:80".parse().unwrap();
        open.allow_plaintext_operator = true;
        open.check().unwrap();
    }
}
