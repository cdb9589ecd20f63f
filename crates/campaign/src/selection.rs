//! A selection of vehicles, and the query language in which operators write it; a fleet group is a saved one.
//! Owns the language and its meaning for one vehicle; finding vehicles in a store is the server's.
//!
//! ```text
//! query      = "all" | either
//! either     = both { "or" both }
//! both       = single { "and" single }
//! single     = "not" single | "(" either ")" | comparison
//! comparison = field ( "=" text | "!=" text | [ "not" ] "in" "(" text { "," text } ")"
//!                    | "starts" "with" text | "is" ( "known" | "unknown" )
//!                    | ( "<" | "<=" | ">" | ">=" ) version )
//! ```
//!
//! Comparisons of ECU fields that stand side by side in one `and` chain speak of one and the same ECU. Where
//! something else stands between them the query is refused: whether they mean one ECU would be a guess.

mod explain;
mod facts;
mod fields;
mod lexer;
mod parser;
mod query_error;
mod write;

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use farrier_protocol::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use facts::{EcuFacts, VehicleFacts};
pub use fields::{EcuField, VehicleField, VersionField};
pub use query_error::{ExpectedInQuery, FoundInQuery, QueryError};
pub use write::Quoted;

use crate::version_key::version_key;

/// Which vehicles are meant. There are two truth values: a comparison with a value that is not known is false,
/// and its `Not` is true; SQL's NULL must not get into it.
///
/// Every selection that was read from a query can be read again from its `Display`. One put together in code
/// can be, if its `And`s and `Or`s have two parts or more, its `HasEcu`s and `In`s one or more, if `All` has
/// no selection around it, and if it keeps the bounds of queries.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub enum Selection {
    /// Every vehicle.
    All,
    /// Those that all parts have.
    And(Vec<Selection>),
    /// Those that at least one part has.
    Or(Vec<Selection>),
    /// Those that this does not have.
    Not(Box<Selection>),
    /// Those of which one field satisfies a test.
    Vehicle(VehicleTest),
    /// Those whose tags satisfy a test. `Is`, `In`, `StartsWith` and `Known`: there is such a tag;
    /// `IsNot`, `NotIn` and `Unknown`: there is no such tag.
    Tag(TextTest),
    /// Those that have an ECU that satisfies all of these tests.
    HasEcu(Vec<EcuTest>),
}

/// A test of a field of the vehicle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VehicleTest {
    /// The field.
    pub field: VehicleField,
    /// What its value must be.
    pub test: TextTest,
}

/// A test of a text that may be absent. An absent one satisfies `Unknown` and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextTest {
    /// `= "x"`: exactly this text.
    Is(Text),
    /// `!= "x"`: known, and another text.
    IsNot(Text),
    /// `in ("x", "y")`: one of these.
    In(Vec<Text>),
    /// `not in ("x", "y")`: known, and none of these.
    NotIn(Vec<Text>),
    /// `starts with "x"`: has this beginning, letter case and all.
    StartsWith(Text),
    /// `is known`.
    Known,
    /// `is unknown`.
    Unknown,
}

/// A test of one ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EcuTest {
    /// Of a field as a text.
    Text {
        /// The field.
        field: EcuField,
        /// What its value must be.
        test: TextTest,
    },
    /// Of a field as a version; a value that is absent or no version does not satisfy it.
    Version {
        /// The field.
        field: VersionField,
        /// On which side it must be.
        order: VersionOrder,
        /// Of which version.
        than: SortableVersion,
    },
}

/// On which side of another version a version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VersionOrder {
    /// `<`.
    Below,
    /// `<=`.
    AtMost,
    /// `>`.
    Above,
    /// `>=`.
    AtLeast,
}

impl VersionOrder {
    /// The operator, in queries as in SQL.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Above => ">",
            Self::AtLeast => ">=",
        }
    }

    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Below => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Above => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// A text that is a version, so that others can be compared with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SortableVersion {
    text: Text,
    key: String,
}

impl SortableVersion {
    /// The version that this text is, if it is one.
    pub fn new(text: Text) -> Option<Self> {
        version_key(text.as_str()).map(|key| Self { text, key })
    }

    /// The version as it was written.
    pub fn as_str(&self) -> &str {
        self.text.as_str()
    }

    /// Its [`version_key`].
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl FromStr for Selection {
    type Err = QueryError;

    fn from_str(query: &str) -> Result<Self, QueryError> {
        parser::parse(query)
    }
}

/// The canonical query.
impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write::query(self, f)
    }
}

impl Serialize for Selection {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
