//! What a token may do. Owns scopes and permissions; leaves tokens to the store and requests to the API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a token was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scope {
    /// Sees everything, changes nothing.
    Viewer,
    /// Enrols and releases vehicles, plans, starts and ends campaigns.
    Operator,
    /// Brings images and makes releases.
    ReleaseManager,
    /// Everything, and makes and revokes tokens.
    Admin,
}

/// What one operation of the API needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// To look.
    View,
    /// To change what vehicles do.
    Operate,
    /// To change what vehicles could get.
    Release,
    /// To change who may do what.
    Administer,
}

impl Scope {
    pub(crate) const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::ReleaseManager, Self::Admin];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::ReleaseManager => "release_manager",
            Self::Admin => "admin",
        }
    }

    pub(crate) fn may(self, permission: Permission) -> bool {
        match permission {
            Permission::View => true,
            Permission::Operate => matches!(self, Self::Operator | Self::Admin),
            Permission::Release => matches!(self, Self::ReleaseManager | Self::Admin),
            Permission::Administer => matches!(self, Self::Admin),
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|scope| scope.name() == name).ok_or(())
    }
}

impl Permission {
    /// The scopes that have it.
    pub(crate) fn scopes(self) -> Vec<Scope> {
        Scope::ALL.into_iter().filter(|scope| scope.may(self)).collect()
    }
}
