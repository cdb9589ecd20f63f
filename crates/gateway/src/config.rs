//! The settings of one gateway, read from a TOML file. Unknown keys are refused before anything is opened.

use std::path::{Path, PathBuf};
use std::time::Duration;

use farrier_protocol::{Binding, GatewayId, Text, Topics, VehicleId};
use farrier_vehicle_update::{Bounds, ReadinessPolicy};
use figment::Figment;
use figment::providers::{Format, Toml};
use serde::Deserialize;

/// Everything a gateway has to be told. Relative paths count from the folder of the file they stand in.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// The vehicle.
    pub vehicle_id: VehicleId,
    /// This gateway.
    pub gateway_id: GatewayId,
    /// Software version of this gateway, as the VCI carries it.
    pub fw_sw_version: Text,
    /// Region of the vehicle.
    #[serde(default)]
    pub region: Option<Text>,
    /// Bootloader version of this gateway.
    #[serde(default)]
    pub bootloader_ver: Option<Text>,
    /// The server's MQTT listener as `name:port`; its certificate must carry that name.
    pub server: String,
    /// First level of the MQTT topics.
    #[serde(default = "default_topic_prefix")]
    pub topic_prefix: String,
    /// This gateway's certificate and its issuers up to the root, PEM.
    pub certificate: PathBuf,
    /// The key of that certificate, PEM.
    pub private_key: PathBuf,
    /// The root certificate that the server's certificate goes back to, PEM.
    pub server_ca: PathBuf,
    /// The key that releases are signed with, public half, PEM.
    pub release_public_key: PathBuf,
    /// Folder of the journal and the packages; made if it is not there.
    pub state_dir: PathBuf,
    /// The ECUs and the ways to them.
    pub topology: PathBuf,
    /// The file that holds the vehicle's signals, TOML or (`.json`) JSON, read anew at each question.
    pub readiness_signals: PathBuf,
    /// Upper bound of the first wait before a reconnect or a repeated download, in milliseconds.
    #[serde(default = "default_backoff_min_ms")]
    pub backoff_min_ms: u64,
    /// Upper bound of any such wait, in milliseconds.
    #[serde(default = "default_backoff_max_ms")]
    pub backoff_max_ms: u64,
    /// MQTT keep alive, in seconds.
    #[serde(default = "default_keep_alive_s")]
    pub keep_alive_s: u16,
    /// Lets a key exchange without post-quantum protection happen, for servers without ML-KEM.
    #[serde(default)]
    pub allow_classical_key_exchange: bool,
    /// When the vehicle counts as ready; in the file the name of another TOML file, or a table.
    #[serde(default)]
    pub readiness_policy: ReadinessPolicy,
    /// How packages are fetched.
    #[serde(default)]
    pub download: DownloadLimits,
    /// How many bytes of installed images are kept as bases of later deltas; 0 = none.
    #[serde(default = "default_image_store_max_bytes")]
    pub image_store_max_bytes: u64,
    /// How the driver is asked before an install.
    #[serde(default)]
    pub consent: ConsentSettings,
    /// How often an update tries again.
    #[serde(default)]
    pub update_bounds: Bounds,
}

/// How packages are fetched.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DownloadLimits {
    /// Most bytes in a second; 0 = as fast as the network is.
    pub max_bytes_per_s: u64,
    /// A server that sends fewer bytes in a second on an average is asked anew.
    pub min_bytes_per_s: u64,
    /// Over which time that average counts, in seconds.
    pub min_rate_window_s: u64,
}

impl Default for DownloadLimits {
    fn default() -> Self {
        Self { max_bytes_per_s: 0, min_bytes_per_s: 256, min_rate_window_s: 30 }
    }
}

/// How the driver is asked before an install, and what is said (R156 7.2.2.2).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConsentSettings {
    /// Who asks.
    pub ask: Consent,
    /// How long an install takes, in seconds.
    pub duration_s: u64,
    /// What is not usable meanwhile.
    pub not_usable: String,
}

impl Default for ConsentSettings {
    fn default() -> Self {
        Self {
            ask: Consent::Auto,
            duration_s: 900,
            not_usable: "The vehicle cannot be driven while its control units restart.".to_owned(),
        }
    }
}

/// Who asks the driver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// Nobody: the driver agreed to updates in general.
    Auto,
    /// A program and its arguments: gets the question as JSON on its standard input; exit status 0 = agrees,
    /// 1 = does not.
    Command(Vec<String>),
    /// A Unix socket that takes the question as one line of JSON and answers `{"agrees": true}` or `false`.
    Socket(PathBuf),
}

fn default_image_store_max_bytes() -> u64 {
    4_000_000_000
}

fn default_topic_prefix() -> String {
    "ota".to_owned()
}

fn default_backoff_min_ms() -> u64 {
    5_000
}

fn default_backoff_max_ms() -> u64 {
    30_000
}

fn default_keep_alive_s() -> u16 {
    60
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the settings file {path}; name an existing TOML file")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what is expected.
    #[error("the settings file {path} is not usable; correct the named key")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key, what was expected and what was found.
        #[source]
        source: Box<figment::Error>,
    },
    /// The file that `readiness_policy` names is not what is expected.
    #[error("the readiness policy {path} is not usable; correct the named key")]
    Policy {
        /// The file.
        path: PathBuf,
        /// The key, what was expected and what was found.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value is against its rule.
    #[error("`{key}` must be {expected}, found {found}; correct it in the settings file")]
    Value {
        /// The key.
        key: &'static str,
        /// The rule.
        expected: &'static str,
        /// The value.
        found: String,
    },
}

impl GatewayConfig {
    /// Reads and checks a settings file.
    ///
    /// # Errors
    /// A file that cannot be read, a key that is unknown, missing or wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut figment = Figment::from(Toml::string(&text));
        if let Ok(policy) = figment.extract_inner::<PathBuf>("readiness_policy") {
            figment = figment.merge(("readiness_policy", read_policy(&folder.join(policy))?));
        }
        let mut config: Self = figment
            .extract()
            .map_err(|source| ConfigError::Invalid { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        if let Consent::Socket(socket) = &mut config.consent.ask {
            *socket = folder.join(&*socket);
        }
        for relative in [
            &mut config.certificate,
            &mut config.private_key,
            &mut config.server_ca,
            &mut config.release_public_key,
            &mut config.state_dir,
            &mut config.topology,
            &mut config.readiness_signals,
        ] {
            // `join` leaves an absolute path as it is.
            *relative = folder.join(&*relative);
        }
        Ok(config)
    }

    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The key whose value is against its rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.server_address()?;
        self.topics()?;
        if self.backoff_min_ms == 0 || self.backoff_min_ms > self.backoff_max_ms {
            return Err(ConfigError::Value {
                key: "backoff_min_ms",
                expected: "from 1 to backoff_max_ms",
                found: self.backoff_min_ms.to_string(),
            });
        }
        if self.keep_alive_s == 0 {
            return Err(ConfigError::Value {
                key: "keep_alive_s",
                expected: "at least 1",
                found: "0".to_owned(),
            });
        }
        self.check_download()?;
        if let Some((key, expected)) = self.readiness_policy.contradiction() {
            let found = "another value in readiness_policy".to_owned();
            return Err(ConfigError::Value { key, expected, found });
        }
        if matches!(&self.consent.ask, Consent::Command(program) if program.is_empty()) {
            return Err(ConfigError::Value {
                key: "consent.ask.command",
                expected: "a program and its arguments",
                found: "[]".to_owned(),
            });
        }
        Ok(())
    }

    fn check_download(&self) -> Result<(), ConfigError> {
        let limits = &self.download;
        if limits.max_bytes_per_s != 0 && limits.min_bytes_per_s >= limits.max_bytes_per_s {
            return Err(ConfigError::Value {
                key: "download.min_bytes_per_s",
                expected: "less than download.max_bytes_per_s",
                found: limits.min_bytes_per_s.to_string(),
            });
        }
        if limits.min_rate_window_s == 0 {
            return Err(ConfigError::Value {
                key: "download.min_rate_window_s",
                expected: "at least 1",
                found: "0".to_owned(),
            });
        }
        Ok(())
    }

    /// The vehicle and its gateway.
    pub fn binding(&self) -> Binding {
        Binding { vehicle_id: self.vehicle_id.clone(), gateway_id: self.gateway_id.clone() }
    }

    /// Name and port of the MQTT listener.
    pub(crate) fn server_address(&self) -> Result<(String, u16), ConfigError> {
        let address = self.server.rsplit_once(':').and_then(|(name, port)| {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            (!name.is_empty()).then(|| (name.to_owned(), port))
        });
        address.ok_or_else(|| ConfigError::Value {
            key: "server",
            expected: "name:port, such as ota.example.com:8883",
            found: format!("{:?}", self.server),
        })
    }

    /// The topics of this vehicle.
    pub(crate) fn topics(&self) -> Result<Topics, ConfigError> {
        Topics::new(&self.topic_prefix).map_err(|_| ConfigError::Value {
            key: "topic_prefix",
            expected: "one or more MQTT topic levels without wildcards",
            found: format!("{:?}", self.topic_prefix),
        })
    }

    /// The bounds of waits before another try.
    pub(crate) fn backoff(&self) -> crate::backoff::Backoff {
        crate::backoff::Backoff::new(
            Duration::from_millis(self.backoff_min_ms),
            Duration::from_millis(self.backoff_max_ms),
        )
    }
}

/// Checks a policy by itself, so that an error names its file.
fn read_policy(path: &Path) -> Result<toml::Table, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let unusable = |source| ConfigError::Policy { path: path.to_owned(), source: Box::new(source) };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    toml::from_str::<ReadinessPolicy>(&text).map_err(unusable)?;
    toml::from_str(&text).map_err(unusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        vehicle_id = "VEH_001"
        gateway_id = "CCU_001"
        fw_sw_version = "2.6.1"
        server = "localhost:8883"
        certificate = "cert.pem"
        private_key = "key.pem"
        server_ca = "/etc/farrier/ca.pem"
        release_public_key = "release.pub.pem"
        state_dir = "state"
        topology = "topology.toml"
        readiness_signals = "signals.toml"
    "#;

    fn read(text: &str) -> Result<GatewayConfig, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, text).unwrap();
        GatewayConfig::read(&path)
    }

    fn whole_text(error: &dyn std::error::Error) -> String {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    }

    #[test]
    fn relative_paths_count_from_the_folder_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, MINIMAL).unwrap();
        let config = GatewayConfig::read(&path).unwrap();
        assert_eq!(config.certificate, folder.path().join("cert.pem"));
        assert_eq!(config.server_ca, Path::new("/etc/farrier/ca.pem"));
        assert_eq!((config.backoff_min_ms, config.backoff_max_ms), (5_000, 30_000));
    }

    #[test]
    fn the_example_in_the_documentation_is_good_and_shows_the_defaults() {
        let example = read(include_str!("../../../docs/gateway.example.toml")).unwrap();
        let minimal = read(MINIMAL).unwrap();
        assert_eq!(example.readiness_policy, minimal.readiness_policy);
        assert_eq!(example.update_bounds, minimal.update_bounds);
        assert_eq!(example.download, minimal.download);
        assert_eq!(example.consent, minimal.consent);
        assert_eq!(example.image_store_max_bytes, minimal.image_store_max_bytes);
        assert_eq!(
            (example.topic_prefix, example.keep_alive_s, example.allow_classical_key_exchange),
            (minimal.topic_prefix, minimal.keep_alive_s, minimal.allow_classical_key_exchange)
        );
        assert_eq!(
            (example.backoff_min_ms, example.backoff_max_ms),
            (minimal.backoff_min_ms, minimal.backoff_max_ms)
        );
    }

    #[test]
    fn the_example_of_a_readiness_policy_is_good_and_shows_every_default() {
        let text = include_str!("../../../docs/readiness.example.toml");
        let example: ReadinessPolicy = toml::from_str(text).unwrap();
        assert_eq!(example, ReadinessPolicy::default());
        let keys: toml::Table = toml::from_str(text).unwrap();
        // One key for each field: without any of them the default would hide a missing line.
        assert_eq!(keys.len(), format!("{example:?}").matches(": ").count());
    }

    #[test]
    fn a_readiness_policy_is_read_from_the_file_that_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, format!("readiness_policy = \"policy.toml\"\n{MINIMAL}")).unwrap();
        assert!(GatewayConfig::read(&path).unwrap_err().to_string().contains("policy.toml"));
        std::fs::write(folder.path().join("policy.toml"), "max_speed_kmh = 5").unwrap();
        assert_eq!(GatewayConfig::read(&path).unwrap().readiness_policy.max_speed_kmh, 5.0);
        std::fs::write(folder.path().join("policy.toml"), "max_speed = 5").unwrap();
        let error = GatewayConfig::read(&path).unwrap_err();
        assert!(whole_text(&error).contains("max_speed"), "{}", whole_text(&error));
    }

    #[test]
    fn consent_is_asked_for_by_a_program_or_a_socket() {
        let asked =
            |line: &str| read(&format!("{MINIMAL}\n[consent]\n{line}")).map(|config| config.consent.ask);
        assert_eq!(asked("ask = \"auto\"").unwrap(), Consent::Auto);
        let command = asked("ask = { command = [\"ask\", \"-q\"] }").unwrap();
        assert_eq!(command, Consent::Command(vec!["ask".to_owned(), "-q".to_owned()]));
        assert!(
            matches!(asked("ask = { socket = \"hmi.sock\" }").unwrap(), Consent::Socket(path) if path.is_absolute())
        );
        assert!(asked("ask = { command = [] }").is_err());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = read(&format!("{MINIMAL}\nbandwith = 3")).unwrap_err();
        assert!(whole_text(&error).contains("bandwith"), "{}", whole_text(&error));
        let error = read(&format!("{MINIMAL}\n[readiness_policy]\nspeed = 3")).unwrap_err();
        assert!(whole_text(&error).contains("speed"), "{}", whole_text(&error));
    }

    #[test]
    fn a_missing_key_is_named() {
        let error = read(&MINIMAL.replace("topology =", "#")).unwrap_err();
        assert!(whole_text(&error).contains("topology"), "{}", whole_text(&error));
    }

    #[test]
    fn values_against_their_rule_are_refused() {
        for (from, to, named) in [
            ("localhost:8883", "localhost", "`server`"),
            ("localhost:8883", ":8883", "`server`"),
            ("localhost:8883", "localhost:0", "`server`"),
            ("VEH_001", "VEH 001", "identifier"),
        ] {
            let error = read(&MINIMAL.replace(from, to)).unwrap_err();
            assert!(whole_text(&error).contains(named), "{}", whole_text(&error));
        }
        let error = read(&format!("{MINIMAL}\nbackoff_min_ms = 40000")).unwrap_err();
        assert!(error.to_string().contains("`backoff_min_ms`"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error_and_not_an_empty_file() {
        let error = GatewayConfig::read(Path::new("no/such/file.toml")).unwrap_err();
        assert!(error.to_string().contains("no/such/file.toml"), "{error}");
    }
}
