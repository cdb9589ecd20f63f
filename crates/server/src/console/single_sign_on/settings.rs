//! Which OpenID Connect provider people may sign in with, and what its claims make of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::access::Scope;

/// What the provider is asked for by default, and how it is answered.
const NAME_CLAIM: &str = "preferred_username";
const SCOPE_CLAIM: &str = "groups";
/// Characters of a console user's name.
const LONGEST_NAME: usize = 64;

/// An OpenID Connect provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// The provider, as its discovery document names it.
    pub issuer: String,
    /// What the provider calls this console.
    pub client_id: String,
    /// A file with the secret that the provider has given to this console; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// The address by which browsers reach the console; the provider sends them back to `/sign-in/oidc/callback` below it.
    pub console: String,
    /// What the provider is called on the page.
    #[serde(default = "default_title")]
    pub title: String,
    /// The roots (PEM) that the provider's certificate must lead to; by default what this machine trusts.
    pub roots: Option<PathBuf>,
    /// The claim that names a person.
    #[serde(default = "default_name_claim")]
    pub name_claim: String,
    /// The claim, a text or a list of texts, that says what a person may do; a dot goes into an object.
    #[serde(default = "default_scope_claim")]
    pub scope_claim: String,
    /// Which values of it give which scope; where several do, the last of viewer, operator, release_manager, admin.
    scopes: BTreeMap<Scope, Vec<String>>,
}

fn default_title() -> String {
    "OpenID Connect".to_owned()
}

fn default_name_claim() -> String {
    NAME_CLAIM.to_owned()
}

fn default_scope_claim() -> String {
    SCOPE_CLAIM.to_owned()
}

impl OidcSettings {
    /// Key, what was expected and what was found, where a setting is against its rule, or the program was built without this.
    pub(crate) fn check(&self) -> Result<(), (&'static str, &'static str, String)> {
        self.check_of(cfg!(feature = "oidc"))
    }

    fn check_of(&self, is_built_in: bool) -> Result<(), (&'static str, &'static str, String)> {
        if !is_built_in {
            let expected = "no such section: this program was built without OpenID Connect; build it with \
                            `cargo build --release --features oidc`";
            return Err(("oidc", expected, self.issuer.clone()));
        }
        for (key, address) in [("oidc.issuer", &self.issuer), ("oidc.console", &self.console)] {
            if !is_safe(address) {
                return Err((key, "https:// and a host, or http:// and a loopback address", address.clone()));
            }
        }
        if self.console.ends_with('/') {
            return Err(("oidc.console", "no slash at the end", self.console.clone()));
        }
        if self.scopes.values().all(Vec::is_empty) {
            let expected =
                "at least one of viewer, operator, release_manager, admin with values of the claim";
            return Err(("oidc.scopes", expected, "nothing".to_owned()));
        }
        Ok(())
    }

    /// What the claims let a person do; `None`: nothing.
    pub(super) fn scope_of(&self, claims: &Value) -> Option<Scope> {
        let held = self.held(claims);
        let gives = |values: &Vec<String>| values.iter().any(|value| held.contains(&value.as_str()));
        self.scopes.iter().rev().find(|(_, values)| gives(values)).map(|(scope, _)| *scope)
    }

    /// The values of the claim that scopes come from.
    fn held<'c>(&self, claims: &'c Value) -> Vec<&'c str> {
        let whole = claims.get(&self.scope_claim);
        let inner = || self.scope_claim.split('.').try_fold(claims, |claims, key| claims.get(key));
        match whole.or_else(inner) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(value)) => vec![value],
            _ => Vec::new(),
        }
    }

    /// A person's name for the console; what such a name cannot have becomes a hyphen.
    pub(super) fn name_of(&self, claims: &Value) -> Option<String> {
        let name = claims.get(&self.name_claim)?.as_str()?;
        let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
        let name: String = name.chars().map(allowed).take(LONGEST_NAME).collect();
        let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        (!name.is_empty()).then(|| name.to_owned())
    }
}

/// Whether what is told to this address, or comes from it, cannot be read or changed on the way.
fn is_safe(address: &str) -> bool {
    let host_of = |rest: &str| rest.split('/').next().unwrap_or_default().to_owned();
    if let Some(rest) = address.strip_prefix("https://") {
        return !host_of(rest).is_empty();
    }
    let Some(rest) = address.strip_prefix("http://") else { return false };
    let host = host_of(rest);
    let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
    name == "localhost"
        || name == "[::1]"
        || name.parse().is_ok_and(|ip: std::net::Ipv4Addr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(more: &str) -> OidcSettings {
        let text = format!(
            "issuer = 'https://sso.example'\nclient_id = 'farrier'\nconsole = 'https://ota.example'\n{more}\n\
             [scopes]\nadmin = ['ota-admins']\nviewer = ['staff', 'guests']\noperator = ['ota']"
        );
        use figment::providers::{Format, Toml};
        figment::Figment::from(Toml::string(&text)).extract().unwrap()
    }

    #[test]
    fn the_scope_that_goes_furthest_counts_and_nothing_gives_none() {
        let (plain, nested) = (settings(""), settings("scope_claim = 'realm_access.roles'"));
        assert_eq!(plain.scope_of(&json!({"groups": ["staff", "ota-admins", "ota"]})), Some(Scope::Admin));
        assert_eq!(plain.scope_of(&json!({"groups": ["guests", "ota"]})), Some(Scope::Operator));
        assert_eq!(plain.scope_of(&json!({"groups": "staff"})), Some(Scope::Viewer));
        assert_eq!(nested.scope_of(&json!({"realm_access": {"roles": ["ota"]}})), Some(Scope::Operator));
        assert_eq!(nested.scope_of(&json!({"realm_access.roles": ["staff"]})), Some(Scope::Viewer));
        for claims in
            [json!({}), json!({"groups": ["ota-admin"]}), json!({"groups": 1}), json!({"groups": [["ota"]]})]
        {
            assert_eq!(plain.scope_of(&claims), None, "{claims}");
        }
    }

    #[test]
    fn a_program_that_was_built_without_it_says_so_whatever_is_set() {
        let refused = |settings: &OidcSettings, is_built_in| settings.check_of(is_built_in).unwrap_err();
        let mut good = settings("");
        good.check_of(true).unwrap();
        let (key, expected, found) = refused(&good, false);
        assert_eq!((key, found.as_str()), ("oidc", "https://sso.example"));
        assert!(expected.contains("--features oidc"), "{expected}");
        good.issuer = "http://sso.example".to_owned();
        assert_eq!(refused(&good, true).0, "oidc.issuer");
        assert_eq!(refused(&good, false).0, "oidc");
    }

    #[test]
    fn a_name_becomes_one_that_the_console_takes() {
        let name = |name: &str| settings("").name_of(&json!({"preferred_username": name}));
        assert_eq!(name("kim"), Some("kim".to_owned()));
        assert_eq!(name("kim@example.com"), Some("kim-example.com".to_owned()));
        assert_eq!(name("-김.kim"), Some("kim".to_owned()));
        assert_eq!((name(""), name("김")), (None, None));
        assert_eq!(name(&"k".repeat(300)).map(|name| name.len()), Some(64));
        assert_eq!(settings("").name_of(&json!({"preferred_username": 7})), None);
    }

    #[test]
    fn only_loopback_goes_without_encryption() {
        for safe in
            ["https://sso.example/realm", "http://127.0.0.1:8080", "http://localhost", "http://[::1]:1/x"]
        {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_one in
            ["http://sso.example", "http://127.0.0.1.evil.example", "https://", "ftp://x", "sso.example"]
        {
            assert!(!is_safe(unsafe_one), "{unsafe_one}");
        }
    }
}
