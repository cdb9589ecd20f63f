//! Turns a scanned document into the types of this crate through their `serde` derives, so that the
//! types alone say which fields there are. Stops at the first fault in document order and says where.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor};

use crate::ids::shortened;
use crate::json::{Member, Node, Object, Value};
use crate::refusal::{Refusal, RefusalCode};
use crate::rules::fault_between_fields;

/// A broken rule and where it stands in the document.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Offset in the document; unknown until the fault reaches the value it was found in.
    position: Option<usize>,
    /// Segments of the pointer, innermost first.
    path: Vec<String>,
    code: RefusalCode,
    expected: String,
    found: String,
}

impl Fault {
    pub(crate) fn new(
        code: RefusalCode,
        position: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            position: Some(position),
            path: Vec::new(),
            code,
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// The required member `key` of `object` is absent: it counts as standing at the object's end.
    pub(crate) fn missing(object: &Object, key: &str) -> Self {
        let (expected, found) = (format!("the required field {key:?}"), "no such field");
        Self::new(RefusalCode::MissingField, object.end, expected, found).under(key)
    }

    fn unplaced(expected: String, found: String) -> Self {
        Self { position: None, path: Vec::new(), code: RefusalCode::InvalidField, expected, found }
    }

    /// The same fault, seen from the container that holds the value under `segment`.
    pub(crate) fn under(mut self, segment: impl Into<String>) -> Self {
        self.path.push(segment.into());
        self
    }

    fn or_at(mut self, position: usize) -> Self {
        self.position.get_or_insert(position);
        self
    }

    pub(crate) fn position(&self) -> usize {
        self.position.unwrap_or(usize::MAX)
    }

    /// The one of two faults that stands first; this one, where they stand at the same place.
    pub(crate) fn or_earlier(self, other: Option<Self>) -> Self {
        match other {
            Some(other) if other.position() < self.position() => other,
            Some(_) | None => self,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let pointer: String = fault.path.iter().rev().map(|segment| pointer_segment(segment)).collect();
        Self::new(fault.code, pointer, fault.expected, fault.found)
    }
}

/// One segment of a JSON pointer (RFC 6901), with its slash.
///
/// Keys of this protocol have at most 64 characters; an unknown one that is longer than 128 is cut, so
/// that a refusal never carries the body that it refuses.
fn pointer_segment(key: &str) -> String {
    let mut shown: String = key.chars().take(128).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    format!("/{}", shown.replace('~', "~0").replace('/', "~1"))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}, found {}", self.expected, self.found)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::unplaced(message.to_string(), "something else".to_owned())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unplaced(expected.to_string(), describe(found))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::unplaced(expected.to_string(), describe(found))
    }

    fn unknown_variant(found: &str, expected: &'static [&'static str]) -> Self {
        Self::unplaced(format!("one of {}", expected.join(", ")), shortened(found))
    }

    fn missing_field(field: &'static str) -> Self {
        let mut fault = Self::unplaced(format!("the required field {field:?}"), "no such field".to_owned());
        fault.code = RefusalCode::MissingField;
        fault.under(field)
    }
}

/// What stood there, in words, shortened.
fn describe(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => shortened(text),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => format!("{number:?}"),
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        Unexpected::Char(_)
        | Unexpected::Bytes(_)
        | Unexpected::Option
        | Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant => "another value".to_owned(),
        Unexpected::Other(text) => text.to_owned(),
    }
}

/// Which members of an object are read, beside those that the type knows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Others {
    /// There are none; an unknown member is a fault.
    Refused,
    /// A later minor version may have added some.
    Ignored,
    /// Some belong to another type that is read from the same object; the rest are refused or ignored.
    BelongElsewhere {
        /// The members of the other type; `None`: all that this type does not know.
        named: Option<&'static [&'static str]>,
        /// What becomes of the rest.
        rest_ignored: bool,
    },
}

/// Reads a value of type `T`; `others` is for the outermost object.
pub(crate) fn decode<'de, T: Deserialize<'de>>(node: &'de Node<'de>, others: Others) -> Result<T, Fault> {
    T::deserialize(NodeDeserializer { node, others })
}

#[derive(Clone, Copy)]
struct NodeDeserializer<'de> {
    node: &'de Node<'de>,
    others: Others,
}

impl NodeDeserializer<'_> {
    /// What becomes of unknown members of the objects within.
    fn others_within(&self) -> Others {
        match self.others {
            Others::Refused | Others::BelongElsewhere { rest_ignored: false, .. } => Others::Refused,
            Others::Ignored | Others::BelongElsewhere { rest_ignored: true, .. } => Others::Ignored,
        }
    }

    fn refuse(&self, expected: impl Into<String>) -> Fault {
        Fault::new(RefusalCode::InvalidField, self.node.start, expected, self.node.value.describe())
    }

    /// An integer is digits and nothing else: `8.0`, `1e2` and a negative zero are none.
    fn integer<T: std::str::FromStr>(&self, least: i128, most: i128) -> Result<T, Fault> {
        let refused = || self.refuse(format!("an integer from {least} to {most}"));
        match &self.node.value {
            Value::Number(text) => text.parse().map_err(|_| refused()),
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Err(refused())
            }
        }
    }

    fn float(&self) -> Result<f64, Fault> {
        let refused = || self.refuse("a number that fits 64 bits");
        match &self.node.value {
            Value::Number(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                Ok(_) | Err(_) => Err(refused()),
            },
            Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                Err(refused())
            }
        }
    }
}

/// Integers of one width: bounds in words, then the visitor.
macro_rules! deserialize_integer {
    ($($method:ident => $visit:ident: $int:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let number = self.integer::<$int>(<$int>::MIN.into(), <$int>::MAX.into())?;
            visitor.$visit(number).map_err(|fault: Fault| fault.or_at(self.node.start))
        })*
    };
}

impl<'de> de::Deserializer<'de> for NodeDeserializer<'de> {
    type Error = Fault;

    deserialize_integer! {
        deserialize_u8 => visit_u8: u8;
        deserialize_u16 => visit_u16: u16;
        deserialize_u64 => visit_u64: u64;
        deserialize_i64 => visit_i64: i64;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.float()?)
    }

    /// Hands the value over as what it is; a number that is no 64-bit integer goes as a float.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let within = self.others_within();
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(text) => match (text.parse(), text.parse()) {
                (Ok(number), _) if text != "-0" => visitor.visit_u64(number),
                (_, Ok(number)) if text != "-0" => visitor.visit_i64(number),
                (_, _) => visitor.visit_f64(self.float()?),
            },
            Value::String(text) => visitor.visit_borrowed_str(text.as_ref()),
            Value::Array(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), within }),
            Value::Object(object) => visitor.visit_map(Members::new(object, None, self.others, within)),
        }
        .map_err(|fault: Fault| fault.or_at(self.node.start))
    }

    /// Null is no way to leave a field out: whatever stands there must be of the field's type.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(name) = self.node.value.as_str() else {
            return Err(self.refuse(format!("one of {}", variants.join(", "))));
        };
        let name: StrDeserializer<'_, Fault> = name.into_deserializer();
        visitor.visit_enum(name).map_err(|fault| fault.or_at(self.node.start))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Some(object) = self.node.value.as_object() else {
            return Err(self.refuse("an object"));
        };
        let between = fault_between_fields(name, object);
        let members = Members::new(object, Some(fields), self.others, self.others_within());
        match (visitor.visit_map(members), between) {
            (Ok(value), None) => Ok(value),
            (Ok(_), Some(between)) => Err(between),
            // Only a missing field has no place of its own by now.
            (Err(fault), between) => Err(fault.or_at(object.end).or_earlier(between)),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i128 u32 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items<'de> {
    items: std::iter::Enumerate<std::slice::Iter<'de, Node<'de>>>,
    within: Others,
}

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let item = seed.deserialize(NodeDeserializer { node, others: self.within });
        item.map(Some).map_err(|fault| fault.or_at(node.start).under(index.to_string()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Members<'de> {
    members: std::slice::Iter<'de, Member<'de>>,
    /// The members that the type knows; `None`: it takes any.
    known: Option<&'static [&'static str]>,
    others: Others,
    within: Others,
    value: Option<&'de Member<'de>>,
}

/// What to do with a member.
enum Use {
    Read,
    /// Another type reads it.
    Leave,
    /// Nobody reads it.
    Ignore,
    Refuse,
}

impl<'de> Members<'de> {
    fn new(
        object: &'de Object<'de>,
        known: Option<&'static [&'static str]>,
        others: Others,
        within: Others,
    ) -> Self {
        Self { members: object.members.iter(), known, others, within, value: None }
    }

    fn use_of(&self, key: &str) -> Use {
        if self.known.is_none_or(|known| known.contains(&key)) {
            return Use::Read;
        }
        match self.others {
            Others::BelongElsewhere { named: None, .. } => Use::Leave,
            Others::BelongElsewhere { named: Some(named), .. } if named.contains(&key) => Use::Leave,
            Others::Ignored | Others::BelongElsewhere { rest_ignored: true, .. } => Use::Ignore,
            Others::Refused | Others::BelongElsewhere { rest_ignored: false, .. } => Use::Refuse,
        }
    }

    fn unknown(&self, member: &Member) -> Fault {
        let known = self.known.unwrap_or_default().join(", ");
        let (expected, found) = (format!("no field but {known}"), shortened(&member.key));
        Fault::new(RefusalCode::UnknownField, member.start, expected, found).under(member.key.as_ref())
    }
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        while let Some(member) = self.members.next() {
            if member.repeated {
                return Err(repeated(member));
            }
            match self.use_of(&member.key) {
                Use::Read => {
                    self.value = Some(member);
                    let key: StrDeserializer<'_, Fault> = member.key.as_ref().into_deserializer();
                    return seed.deserialize(key).map(Some);
                }
                Use::Leave => {}
                Use::Ignore => {
                    refuse_repeated_within(&member.value).map_err(|fault| fault.under(member.key.as_ref()))?
                }
                Use::Refuse => return Err(self.unknown(member)),
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some(member) = self.value.take() else {
            return Err(de::Error::custom("a value after its key"));
        };
        let value = NodeDeserializer { node: &member.value, others: self.within };
        seed.deserialize(value).map_err(|fault| fault.or_at(member.value.start).under(member.key.as_ref()))
    }
}

fn repeated(member: &Member) -> Fault {
    let (expected, found) = ("each key once", "the same key again");
    Fault::new(RefusalCode::InvalidField, member.start, expected, found).under(member.key.as_ref())
}

/// A value that nobody reads may hold anything, except a key twice.
fn refuse_repeated_within(node: &Node) -> Result<(), Fault> {
    match &node.value {
        Value::Object(object) => object.members.iter().try_for_each(|member| {
            if member.repeated {
                return Err(repeated(member));
            }
            refuse_repeated_within(&member.value).map_err(|fault| fault.under(member.key.as_ref()))
        }),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            refuse_repeated_within(item).map_err(|fault| fault.under(index.to_string()))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Reads a list of `LEAST` to `MOST` items; its length is judged before its items are read.
pub(crate) fn list<'de, D, T, const LEAST: usize, const MOST: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: de::Deserializer<'de>,
    T: Deserialize<'de>,
{
    from.deserialize_seq(ListVisitor::<T, LEAST, MOST>(std::marker::PhantomData))
}

/// As `list`, of a field that may be absent.
pub(crate) fn optional_list<'de, D, T, const LEAST: usize, const MOST: usize>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error>
where
    D: de::Deserializer<'de>,
    T: Deserialize<'de>,
{
    list::<D, T, LEAST, MOST>(from).map(Some)
}

struct ListVisitor<T, const LEAST: usize, const MOST: usize>(std::marker::PhantomData<T>);

impl<'de, T: Deserialize<'de>, const LEAST: usize, const MOST: usize> Visitor<'de>
    for ListVisitor<T, LEAST, MOST>
{
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match MOST {
            usize::MAX => write!(f, "an array of at least {LEAST}"),
            _ => write!(f, "an array of {LEAST} to {MOST}"),
        }
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let refused = |length: usize, expected: &Self| {
            let found = format!("an array of {length}");
            de::Error::invalid_value(Unexpected::Other(&found), expected)
        };
        match seq.size_hint() {
            Some(length) if !(LEAST..=MOST).contains(&length) => return Err(refused(length, &self)),
            Some(_) | None => {}
        }
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
            if items.len() > MOST {
                return Err(refused(items.len(), &self));
            }
        }
        if items.len() < LEAST { Err(refused(items.len(), &self)) } else { Ok(items) }
    }
}
