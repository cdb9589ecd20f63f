//! Entity tags (RFC 9110 §8.8 and §13): which state of a resource was shown, and whether it is still that one.
//!
//! A tag has two parts, `"SETTLED.SHOWN"`. The first is of what operators decide, the second of all that is shown. A change goes by
//! the first, so that a campaign's progress refuses nobody; a client that asks whether there is anything new goes by both.

use data_encoding::HEXLOWER;
use farrier_protocol::Sha256;
use serde_json::Value;

use super::problem::Problem;
use crate::store::{StoreError, Tx};

/// A kind of resource with a tag, found by the first name in its address.
#[derive(Clone, Copy)]
pub(super) struct Resource {
    /// From here on no other operator changes it until the transaction ends.
    pub(super) lock: fn(&Tx<'_>, &str) -> Result<(), StoreError>,
    /// What operators decide of it; none where there is no such thing.
    pub(super) settled: fn(&Tx<'_>, &str) -> Result<Option<Value>, StoreError>,
}

/// The digest of what operators decide.
pub(super) fn settled_part(settled: &Value) -> String {
    short(&Sha256::of(settled.to_string().as_bytes()))
}

/// The tag of a resource as it is shown.
pub(super) fn shown_tag(settled_part: &str, shown: &[u8]) -> String {
    format!("\"{settled_part}.{}\"", short(&Sha256::of(shown)))
}

/// The tag of a resource that was changed and not shown.
pub(super) fn settled_tag(settled_part: &str) -> String {
    format!("\"{settled_part}\"")
}

/// 128 bits are enough: nobody gains by two states with one tag but whoever made both.
fn short(digest: &Sha256) -> String {
    HEXLOWER.encode(digest.as_bytes().get(..16).unwrap_or_default())
}

/// The tags that a client named in If-Match or If-None-Match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`: whatever there is.
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    is_weak: bool,
    /// Between the quotes.
    opaque: String,
}

/// Tags in one header.
const MOST_TAGS: usize = 32;

impl Tags {
    /// Reads a header; all its lines joined by commas.
    pub(super) fn read(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let (mut tags, mut rest) = (Vec::new(), text.trim());
        loop {
            let (tag, after) = Tag::read(rest)?;
            tags.push(tag);
            rest = after.trim_start();
            if rest.is_empty() {
                return Some(Self::These(tags));
            }
            rest = rest.strip_prefix(',')?.trim_start();
            if tags.len() >= MOST_TAGS {
                return None;
            }
        }
    }

    /// For If-Match: strong tags only, by the part that operators decide.
    pub(super) fn has_settled(&self, settled_part: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| {
                !tag.is_weak && tag.opaque.split('.').next().is_some_and(|part| part == settled_part)
            }),
        }
    }

    /// For If-None-Match: weak tags too, as something between may have weakened ours.
    pub(super) fn has_shown(&self, shown_tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| shown_tag.trim_matches('"') == tag.opaque),
        }
    }
}

impl Tag {
    /// The first tag of a text, and what comes behind.
    fn read(text: &str) -> Option<(Self, &str)> {
        let (is_weak, text) = match text.strip_prefix("W/") {
            Some(text) => (true, text),
            None => (false, text),
        };
        let (opaque, rest) = text.strip_prefix('"')?.split_once('"')?;
        let is_visible = |c: char| c == '!' || ('#'..='~').contains(&c) || c >= '\u{80}';
        opaque.chars().all(is_visible).then(|| (Self { is_weak, opaque: opaque.to_owned() }, rest))
    }
}

/// What is said where a resource is not as the client has seen it.
pub(super) fn refused(settled_part: &str) -> Problem {
    let tag = settled_tag(settled_part);
    let detail = format!(
        "Expected the state that If-Match names, found {tag}: it was changed meanwhile. Get it again, look at it, and \
         send the change with its new ETag."
    );
    Problem::precondition_failed(tag, detail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn tags_are_read_as_the_standard_writes_them() {
        let opaque = |text: &str| match Tags::read(text) {
            Some(Tags::These(tags)) => tags.into_iter().map(|tag| (tag.is_weak, tag.opaque)).collect(),
            Some(Tags::Any) => vec![(false, "*".to_owned())],
            None => Vec::new(),
        };
        assert_eq!(opaque("*"), [(false, "*".to_owned())]);
        assert_eq!(
            opaque("\"a\", W/\"b,c\" ,\"\""),
            [(false, "a".to_owned()), (true, "b,c".to_owned()), (false, String::new())]
        );
        for wrong in ["", "a", "\"a", "w/\"a\"", "\"a\",", "\"a\" \"b\"", "\"a b\"", "*, \"a\"", "\"a\"b"] {
            assert_eq!(Tags::read(wrong), None, "{wrong}");
        }
        assert_eq!(Tags::read(&vec!["\"a\""; MOST_TAGS + 1].join(",")), None);
    }

    #[test]
    fn a_change_goes_by_what_operators_decide_and_a_question_by_all() {
        let part = settled_part(&serde_json::json!({"paused": false}));
        let tag = shown_tag(&part, b"shown");
        let read = |text: &str| Tags::read(text).unwrap();
        assert!(read(&tag).has_settled(&part) && read(&settled_tag(&part)).has_settled(&part));
        assert!(read(&shown_tag(&part, b"later")).has_settled(&part));
        assert!(!read(&format!("W/{tag}")).has_settled(&part));
        assert!(read("*").has_settled(&part) && read("*").has_shown(&tag));
        assert!(read(&tag).has_shown(&tag) && read(&format!("\"x\", W/{tag}")).has_shown(&tag));
        assert!(!read(&shown_tag(&part, b"later")).has_shown(&tag));
        assert!(!read(&settled_tag(&part)).has_shown(&tag));
    }

    proptest! {
        #[test]
        fn no_header_makes_the_reader_fail_and_own_tags_are_always_read(text in ".{0,80}", shown in "[ -~]{0,20}") {
            let _ = Tags::read(&text);
            let part = settled_part(&Value::String(text));
            let tag = shown_tag(&part, shown.as_bytes());
            let tags = Tags::read(&tag);
            prop_assert!(tags.as_ref().is_some_and(|tags| tags.has_shown(&tag) && tags.has_settled(&part)));
        }
    }
}
