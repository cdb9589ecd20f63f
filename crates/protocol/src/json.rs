//! A strict JSON scanner (RFC 8259) that keeps what refusals are judged by: document order, repeated
//! keys, the raw text of numbers and where each value stands.
//!
//! It is our own because `serde_json` gives none of these: its maps lose order and repetition, its
//! numbers lose `8.0` and refuse `1e999`, its errors know lines and not fields. It is tested against
//! `serde_json`. Callers bound the size of the text first; the tree is never larger than a fixed
//! multiple of it.

use std::borrow::Cow;

use crate::ids::shortened;

/// Containers that may stand in one another, the outermost counted (protocol.md §7).
pub(crate) const MAX_DEPTH: usize = 32;

/// A value and where it stands. What is written without escapes is borrowed from the text.
#[derive(Debug, Clone)]
pub(crate) struct Node<'t> {
    /// Offset of its first octet: the order of offsets is the document's order.
    pub(crate) start: usize,
    pub(crate) value: Value<'t>,
}

/// A JSON value.
#[derive(Debug, Clone)]
pub(crate) enum Value<'t> {
    Null,
    Bool(bool),
    /// As it was written.
    Number(Cow<'t, str>),
    String(Cow<'t, str>),
    Array(Vec<Node<'t>>),
    Object(Object<'t>),
}

/// An object with its members in document order.
#[derive(Debug, Clone)]
pub(crate) struct Object<'t> {
    pub(crate) members: Vec<Member<'t>>,
    /// Offset of the closing brace: where an absent member would stand.
    pub(crate) end: usize,
}

/// A member of an object.
#[derive(Debug, Clone)]
pub(crate) struct Member<'t> {
    pub(crate) key: Cow<'t, str>,
    /// Offset of the key.
    pub(crate) start: usize,
    /// Whether an earlier member of the object has the same key.
    pub(crate) repeated: bool,
    pub(crate) value: Node<'t>,
}

/// Why a text is not JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) found: String,
}

impl Node<'_> {
    /// The same without the text that it was read from.
    pub(crate) fn into_owned(self) -> Node<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        let value = match self.value {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Number(text) => Value::Number(owned(text)),
            Value::String(text) => Value::String(owned(text)),
            Value::Array(items) => Value::Array(items.into_iter().map(Node::into_owned).collect()),
            Value::Object(Object { members, end }) => {
                let owned = |member: Member<'_>| Member {
                    key: owned(member.key),
                    start: member.start,
                    repeated: member.repeated,
                    value: member.value.into_owned(),
                };
                Value::Object(Object { members: members.into_iter().map(owned).collect(), end })
            }
        };
        Node { start: self.start, value }
    }
}

impl<'t> Object<'t> {
    /// The first member of this name.
    pub(crate) fn member(&self, key: &str) -> Option<&Member<'t>> {
        self.members.iter().find(|member| member.key == key)
    }
}

impl<'t> Value<'t> {
    /// Names the kind of value for people; never quotes it in full.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Number(text) => format!("the number {}", shortened(text).trim_matches('"')),
            Self::String(text) => format!("the string {}", shortened(text)),
            Self::Array(items) => format!("an array of {}", items.len()),
            Self::Object(_) => "an object".to_owned(),
        }
    }

    pub(crate) fn as_object(&self) -> Option<&Object<'t>> {
        match self {
            Self::Object(object) => Some(object),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Array(_) => None,
        }
    }

    pub(crate) fn as_array(&self) -> Option<&[Node<'t>]> {
        match self {
            Self::Array(items) => Some(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) | Self::Object(_) => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }
}

/// Reads exactly one JSON value; nothing but white space may stand around it.
pub(crate) fn scan(text: &[u8]) -> Result<Node<'_>, Malformed> {
    let text = std::str::from_utf8(text).map_err(|error| Malformed {
        found: format!("octets that are not UTF-8 at offset {}", error.valid_up_to()),
    })?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_white_space();
    let node = scanner.value(0)?;
    scanner.skip_white_space();
    if scanner.at < text.len() { Err(scanner.unexpected("the end")) } else { Ok(node) }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'t> Scanner<'t> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let taken = self.peek() == Some(byte);
        if taken {
            self.at += 1;
        }
        taken
    }

    fn skip_while(&mut self, wanted: impl Fn(u8) -> bool) -> usize {
        let from = self.at;
        while self.peek().is_some_and(&wanted) {
            self.at += 1;
        }
        self.at - from
    }

    fn skip_white_space(&mut self) {
        self.skip_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
    }

    fn since(&self, from: usize) -> &'t str {
        self.text.get(from..self.at).unwrap_or_default()
    }

    fn unexpected(&self, wanted: &str) -> Malformed {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(found) => format!("{found:?}"),
            None => "the end".to_owned(),
        };
        Malformed { found: format!("{found} instead of {wanted} at offset {}", self.at) }
    }

    fn value(&mut self, depth: usize) -> Result<Node<'t>, Malformed> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.object(self.deeper(depth)?)?,
            Some(b'[') => self.array(self.deeper(depth)?)?,
            Some(b'"') => Value::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(_) | None => return Err(self.unexpected("a value")),
        };
        Ok(Node { start, value })
    }

    fn deeper(&self, depth: usize) -> Result<usize, Malformed> {
        if depth < MAX_DEPTH {
            return Ok(depth + 1);
        }
        let found = format!("values nested deeper than {MAX_DEPTH} at offset {}", self.at);
        Err(Malformed { found })
    }

    fn word(&mut self, word: &str, value: Value<'t>) -> Result<Value<'t>, Malformed> {
        for byte in word.bytes() {
            if !self.take(byte) {
                return Err(self.unexpected(word));
            }
        }
        Ok(value)
    }

    fn array(&mut self, depth: usize) -> Result<Value<'t>, Malformed> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_white_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            self.skip_white_space();
            items.push(self.value(depth)?);
            self.skip_white_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or ']'"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value<'t>, Malformed> {
        self.at += 1;
        let mut members = Vec::new();
        self.skip_white_space();
        if self.peek() != Some(b'}') {
            loop {
                members.push(self.member(depth)?);
                self.skip_white_space();
                if self.peek() == Some(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.unexpected("',' or '}'"));
                }
            }
        }
        let end = self.at;
        self.at += 1;
        mark_repeated(&mut members);
        Ok(Value::Object(Object { members, end }))
    }

    fn member(&mut self, depth: usize) -> Result<Member<'t>, Malformed> {
        self.skip_white_space();
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a key"));
        }
        let key = self.string()?;
        self.skip_white_space();
        if !self.take(b':') {
            return Err(self.unexpected("':'"));
        }
        self.skip_white_space();
        let value = self.value(depth)?;
        Ok(Member { key, start, repeated: false, value })
    }

    fn number(&mut self) -> Result<Value<'t>, Malformed> {
        let from = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'-') {
                self.take(b'+');
            }
            self.digits()?;
        }
        Ok(Value::Number(Cow::Borrowed(self.since(from))))
    }

    fn digits(&mut self) -> Result<(), Malformed> {
        match self.skip_while(|byte| byte.is_ascii_digit()) {
            0 => Err(self.unexpected("a digit")),
            1.. => Ok(()),
        }
    }

    fn string(&mut self) -> Result<Cow<'t, str>, Malformed> {
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let from = self.at;
            self.skip_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1F));
            text += self.since(from);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.to_mut().push(self.escape()?),
                Some(_) | None => return Err(self.unexpected("the rest of a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Malformed> {
        self.at += 1;
        let escaped = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            Some(_) | None => return Err(self.unexpected("an escape")),
        };
        self.at += 1;
        Ok(escaped)
    }

    /// Reads `uXXXX`, or two of them where they are a surrogate pair; a lone surrogate is no character.
    fn unicode_escape(&mut self) -> Result<char, Malformed> {
        let lone = |at| Malformed { found: format!("a lone surrogate at offset {at}") };
        let at = self.at;
        self.at += 1;
        let mut units = vec![self.hex_unit()?];
        if matches!(units.as_slice(), [0xD800..=0xDBFF]) {
            if !(self.take(b'\\') && self.take(b'u')) {
                return Err(lone(at));
            }
            units.push(self.hex_unit()?);
        }
        let mut decoded = char::decode_utf16(units);
        match (decoded.next(), decoded.next()) {
            (Some(Ok(character)), None) => Ok(character),
            (_, _) => Err(lone(at)),
        }
    }

    fn hex_unit(&mut self) -> Result<u16, Malformed> {
        let from = self.at;
        while self.at < from + 4 && self.peek().is_some_and(|byte| byte.is_ascii_hexdigit()) {
            self.at += 1;
        }
        match self.at - from {
            4 => u16::from_str_radix(self.since(from), 16).map_err(|_| self.unexpected("a hex digit")),
            _ => Err(self.unexpected("a hex digit")),
        }
    }
}

/// Marks every member whose key an earlier one has; sorting keeps this quick for hostile objects too.
fn mark_repeated(members: &mut [Member<'_>]) {
    let mut order: Vec<usize> = (0..members.len()).collect();
    let key = |index: &usize| members.get(*index).map(|member| member.key.as_ref());
    order.sort_by(|a, b| key(a).cmp(&key(b)).then(a.cmp(b)));
    let again: Vec<usize> = order
        .iter()
        .zip(order.iter().skip(1))
        .filter(|(earlier, later)| key(earlier) == key(later))
        .map(|(_, later)| *later)
        .collect();
    for index in again {
        if let Some(member) = members.get_mut(index) {
            member.repeated = true;
        }
    }
}

#[cfg(test)]
mod tests;
