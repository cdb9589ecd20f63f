//! The address of a PostgreSQL database: what it may say, and whether the way there is safe.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use postgres::config::{Config, Host, SslMode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::store::StoreError;

/// For the connection to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection whose other end has vanished is given up after about this time.
const VANISHED: Duration = Duration::from_secs(20);

/// Why an address cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct AddressError {
    expected: String,
    /// Without the password.
    found: String,
}

/// Where a PostgreSQL database is, who asks, and how the connection is protected:
/// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE`.
#[derive(Clone, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PostgresAddress {
    config: Config,
    shown: String,
    root_certificates: Option<PathBuf>,
}

impl PostgresAddress {
    /// Host, port and database, for people: never the password.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Whether all that is said can be read on the way, by others than this machine.
    pub(crate) fn is_readable_by_others(&self) -> bool {
        self.root_certificates.is_none() && !self.is_on_this_machine()
    }

    fn is_on_this_machine(&self) -> bool {
        let is_local = |host: &Host| match host {
            Host::Tcp(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Host::Unix(_) => true,
        };
        self.config.get_hosts().iter().all(is_local)
            && self.config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
    }

    /// What protects the connection; `None` where it goes in the clear.
    pub(crate) fn tls(&self) -> Result<Option<MakeRustlsConnect>, StoreError> {
        let Some(path) = &self.root_certificates else { return Ok(None) };
        let refused = || StoreError::Certificates { path: path.clone() };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path).map_err(|_| refused())? {
            roots.add(certificate.map_err(|_| refused())?).map_err(|_| refused())?;
        }
        if roots.is_empty() {
            return Err(refused());
        }
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let config = ClientConfig::builder_with_provider(std::sync::Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| refused())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl TryFrom<String> for PostgresAddress {
    type Error = AddressError;

    fn try_from(address: String) -> Result<Self, AddressError> {
        address.parse()
    }
}

impl FromStr for PostgresAddress {
    type Err = AddressError;

    fn from_str(address: &str) -> Result<Self, AddressError> {
        let refused = |expected: &str, found: &str| {
            Err(AddressError { expected: expected.to_owned(), found: found.to_owned() })
        };
        let form = "postgres://USER@HOST:PORT/DATABASE";
        let scheme = address.split("://").next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            return refused(form, "another scheme");
        }
        let (base, query) = address.split_once('?').unwrap_or((address, ""));
        let (mut mode, mut root_certificates, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => root_certificates = Some(PathBuf::from(value)),
                Some(_) | None => rest.push(pair),
            }
        }
        let is_protected = match (mode, &root_certificates) {
            (None | Some("disable"), None) => false,
            (Some("require" | "verify-full"), Some(_)) => true,
            (Some("require" | "verify-full"), None) => {
                let expected =
                    "sslrootcert=FILE beside sslmode: the authority that issued PostgreSQL's certificate";
                return refused(expected, "none");
            }
            (None | Some("disable"), Some(_)) => {
                return refused("sslmode=verify-full beside sslrootcert", "another sslmode or none");
            }
            (Some(other), _) => {
                let expected =
                    "sslmode disable, require or verify-full (the last two check certificate and host name)";
                return refused(expected, other);
            }
        };
        let bare = if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) };
        // The parser's own words may quote what it could not read, and that may be the password.
        let Ok(mut config) = bare.parse::<Config>() else {
            return refused(form, "an address that cannot be read");
        };
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return refused("a host in the address", "none");
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return refused("a database in the address", "none");
        }
        config
            .ssl_mode(if is_protected { SslMode::Require } else { SslMode::Disable })
            .application_name("farrier")
            .connect_timeout(CONNECT)
            .keepalives_idle(VANISHED / 2)
            .keepalives_interval(VANISHED / 10)
            .keepalives_retries(5)
            .tcp_user_timeout(VANISHED);
        let shown = shown(&config);
        Ok(Self { config, shown, root_certificates })
    }
}

fn shown(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => Path::display(path).to_string(),
        None => config.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("postgres://{host}:{port}/{}", config.get_dbname().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<PostgresAddress, AddressError> {
        address.parse()
    }

    #[test]
    fn the_password_is_in_no_error_and_not_in_what_is_shown() {
        let address = read("postgres://u:geheim@db.example:6000/farrier").unwrap();
        assert_eq!(address.shown(), "postgres://db.example:6000/farrier");
        assert_eq!(format!("{address:?}"), address.shown());
        for bad in [
            "postgres://u:geheim@db.example:port/farrier",
            "postgres://u:geheim@db.example/farrier?sslmode=prefer",
            "postgres://u:geheim@db.example/farrier?geheim",
            "postgres://u:geheim@db.example/farrier?unknown=geheim",
            "mysql://u:geheim@db.example/farrier",
            "postgres://u:geheim@db.example",
        ] {
            let error = read(bad).err().unwrap();
            assert!(!error.to_string().contains("geheim"), "{error}");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        for local in [
            "postgres://u@127.0.0.1/d",
            "postgres://u@localhost/d",
            "postgres://u@[::1]/d",
            "postgres://u@%2Fvar%2Frun%2Fpostgresql/d",
            "postgresql:///d?host=/var/run/postgresql&user=u",
            "postgres://u@db.example/d?sslmode=verify-full&sslrootcert=ca.pem",
            "postgres://u@db.example/d?sslmode=require&sslrootcert=ca.pem",
        ] {
            assert!(!read(local).unwrap().is_readable_by_others(), "{local}");
        }
        for remote in ["postgres://u@db.example/d", "postgres://u@127.0.0.1,db.example/d?sslmode=disable"] {
            assert!(read(remote).unwrap().is_readable_by_others(), "{remote}");
        }
    }

    #[test]
    fn encryption_without_knowing_the_other_end_is_refused() {
        for unchecked in [
            "postgres://u@db.example/d?sslmode=require",
            "postgres://u@db.example/d?sslmode=prefer",
            "postgres://u@db.example/d?sslmode=verify-ca&sslrootcert=ca.pem",
            "postgres://u@db.example/d?sslrootcert=ca.pem",
        ] {
            assert!(read(unchecked).is_err(), "{unchecked}");
        }
    }
}
