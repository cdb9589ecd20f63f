//! Rules between the fields of one object, which no single field's type can hold.
//! They are judged on the document, since a refusal names the field that stands first.

use crate::decode::Fault;
use crate::json::{Member, Object, Value};
use crate::refusal::RefusalCode;

/// The first broken rule between the fields of the type that `serde` calls `type_name`.
pub(crate) fn fault_between_fields(type_name: &str, object: &Object) -> Option<Fault> {
    match type_name {
        "FunctionalGroupFields" => placement(object),
        "Package" => full_image(object),
        _ => None,
    }
}

/// `domain_zone_bit` 0: `domain` and no `zone`; 1: the reverse.
fn placement(object: &Object) -> Option<Fault> {
    let bit = match &object.member("domain_zone_bit")?.value.value {
        Value::Number(bit) => bit.as_ref(),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let (required, forbidden) = match bit {
        "0" => ("domain", "zone"),
        "1" => ("zone", "domain"),
        _ => return None,
    };
    let forbidden = object.member(forbidden).map(|member| {
        invalid(
            member,
            format!("no such field where domain_zone_bit is {bit}"),
            member.value.value.describe(),
        )
    });
    match object.member(required) {
        Some(_) => forbidden,
        None => Some(Fault::missing(object, required).or_earlier(forbidden)),
    }
}

/// What travels as a full image is the image: the same hash, the same size.
fn full_image(object: &Object) -> Option<Fault> {
    if object.member("delta_from").is_some() {
        return None;
    }
    let hash = differing(object, "image_sha256", "hash_sha256");
    let size = differing(object, "image_size_bytes", "size_bytes");
    match hash {
        Some(hash) => Some(hash.or_earlier(size)),
        None => size,
    }
}

/// A fault at `field` where it is not equal to `other`; absent or mistyped ones are judged elsewhere.
fn differing(object: &Object, field: &str, other: &str) -> Option<Fault> {
    let member = object.member(field)?;
    let equal = match (&member.value.value, &object.member(other)?.value.value) {
        (Value::String(one), Value::String(two)) => one.eq_ignore_ascii_case(two),
        (Value::Number(one), Value::Number(two)) => one == two,
        (_, _) => true,
    };
    let expected = || format!("the value of {other}, since this is a full image (no delta_from)");
    (!equal).then(|| invalid(member, expected(), member.value.value.describe()))
}

fn invalid(member: &Member, expected: String, found: String) -> Fault {
    Fault::new(RefusalCode::InvalidField, member.value.start, expected, found).under(member.key.as_ref())
}
