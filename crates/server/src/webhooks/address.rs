//! Where a webhook goes to: the form of its address, and which addresses of machines the server connects to for it.
//! Whoever may make webhooks must not be able to reach by the server what only the server can reach.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use axum::http::Uri;

use super::WebhookSettings;

/// Characters of an address.
pub(crate) const MOST_CHARACTERS: usize = 512;

/// An address of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    text: String,
    pub(super) is_tls: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// What the Host header says.
    pub(super) authority: String,
    pub(super) path_and_query: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "expected https:// and a host, without user, password and fragment, at most {MOST_CHARACTERS} characters, \
                 found {text:?}"
            )
        };
        let is_plain =
            text.len() <= MOST_CHARACTERS && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let uri: Uri = text.parse().ok().filter(|_| is_plain).ok_or_else(refused)?;
        let authority = uri.authority().ok_or_else(refused)?;
        let (is_tls, usual_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            Some(_) | None => return Err(refused()),
        };
        let port = match authority.port() {
            Some(port) => port.as_str().parse().ok().filter(|port| *port != 0).ok_or_else(refused)?,
            None => usual_port,
        };
        let host = authority.host().trim_matches(['[', ']']);
        // A port that is no number would be taken for a part of something else.
        let has_no_port = authority.port().is_none();
        let is_whole = authority.as_str().ends_with(authority.host()) == has_no_port;
        if host.is_empty() || authority.as_str().contains('@') || !is_whole {
            return Err(refused());
        }
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            text: text.to_owned(),
            is_tls,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            path_and_query: path_and_query.to_owned(),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Target {
    /// The machine that it goes to.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether the settings let a webhook go there, as far as its address tells.
    pub(crate) fn check(&self, settings: &WebhookSettings) -> Result<(), String> {
        if !self.is_tls && !settings.allow_insecure_http {
            return Err(
                "expected https://, found http://; webhooks.allow_insecure_http in the server's settings allows it".to_owned()
            );
        }
        match self.host.parse::<IpAddr>() {
            Ok(address) if !may_connect(address, settings) => Err(format!(
                "expected a public address, found {address}; webhooks.allow_private_targets in the server's settings allows it"
            )),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// Whether the server connects to this address for a webhook.
pub(super) fn may_connect(address: IpAddr, settings: &WebhookSettings) -> bool {
    settings.allow_private_targets || is_public(address)
}

/// What the registries of special-purpose addresses (RFC 6890 and its updates) do not keep for something else.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || address.is_documentation()
        || (a == 198 && (18..20).contains(&b))
        || a >= 224)
}

/// Only global unicast (2000::/3), and of it nothing that stands for an address of IPv4 or is kept for tunnels and
/// documentation.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    (0x2000..0x4000).contains(&a)
        && a != 0x2002
        && !(a == 0x2001 && b < 0x0200)
        && !(a == 0x2001 && b == 0x0db8)
        && !(a == 0x3fff && b < 0x1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_address_of_a_webhook_is_refused() {
        let long = format!("https://a/{}", "x".repeat(MOST_CHARACTERS));
        for text in [
            "",
            "a",
            "/a",
            "ftp://a/",
            "https://",
            "https:///a",
            "https://u:p@a/",
            "https://a/#b",
            "https://a/ b",
            "https://ä/",
            "https://a:0/",
            "https://a:65536/",
            "https://a:b/",
            "https://@a/",
            &long,
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        let target: Target = "https://[2606:4700::1]:8443/a?b=c".parse().unwrap();
        assert_eq!((target.host.as_str(), target.port, target.is_tls), ("2606:4700::1", 8443, true));
        assert_eq!(
            (target.authority.as_str(), target.path_and_query.as_str()),
            ("[2606:4700::1]:8443", "/a?b=c")
        );
        assert_eq!(target.to_string(), "https://[2606:4700::1]:8443/a?b=c");
        let target: Target = "http://hooks.example".parse().unwrap();
        assert_eq!((target.port, target.path_and_query.as_str()), (80, "/"));
    }

    #[test]
    fn only_public_addresses_are_connected_to_unless_the_settings_say_otherwise() {
        let closed = WebhookSettings::default();
        let open = WebhookSettings { allow_private_targets: true, ..WebhookSettings::default() };
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(!may_connect(address, &closed), "{address}");
            assert!(may_connect(address, &open), "{address}");
        }
        for address in [
            "8.8.8.8",
            "100.63.255.255",
            "172.32.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2001:4860::8888",
        ] {
            assert!(may_connect(address.parse().unwrap(), &closed), "{address}");
        }
        for (text, says) in [
            ("http://8.8.8.8/", "allow_insecure_http"),
            ("https://127.0.0.1/", "allow_private_targets"),
            ("https://[::1]/", "allow_private_targets"),
        ] {
            let error = text.parse::<Target>().unwrap().check(&closed).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
        "https://hooks.example/".parse::<Target>().unwrap().check(&closed).unwrap();
    }
}
