//! In place of the provider in a build without the feature `oidc`: there is none.

use farrier_protocol::UnixMillis;
use serde_json::Value;

use super::settings::OidcSettings;
use super::{Begun, OidcError, ProviderError};

/// Nobody.
#[derive(Debug)]
pub(crate) enum Provider {}

impl Provider {
    /// The settings are refused before; see `OidcSettings::check`.
    pub(crate) fn new(_: &OidcSettings) -> Result<Self, OidcError> {
        Err(OidcError::NotBuilt)
    }

    pub(in crate::console) fn settings(&self) -> &OidcSettings {
        match *self {}
    }

    pub(super) async fn begin(&self) -> Result<Begun, ProviderError> {
        match *self {}
    }

    pub(super) async fn claims(&self, _: String, _: &Begun, _: UnixMillis) -> Result<Value, ProviderError> {
        match *self {}
    }
}
