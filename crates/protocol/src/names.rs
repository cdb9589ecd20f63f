//! Closed sets of names on the wire, each name written once.

/// Defines an enum whose variants are names on the wire.
///
/// Gives it `ALL` (in the order of the contract), `name()`, `Display` and `FromStr`, and the same
/// names in JSON and in its schema.
macro_rules! wire_names {
    ($(#[$doc:meta])* $enum:ident, $set:literal { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $enum {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant,)*
        }

        impl $enum {
            /// Every member of the set, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl std::fmt::Display for $enum {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $enum {
            type Err = $crate::ids::InvalidValue;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                match name {
                    $($name => Ok(Self::$variant),)*
                    other => Err($crate::ids::InvalidValue::new($set, other)),
                }
            }
        }
    };
}

pub(crate) use wire_names;
