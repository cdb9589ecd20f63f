//! Lists in pages: `limit` and `after` in, `items` and `next` out.

use data_encoding::BASE64URL_NOPAD;
use farrier_protocol::UnixMillis;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

const DEFAULT_LIMIT: u32 = 100;

/// Which part of a list.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// How many at most; 100 where it is absent.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<u32>,
    /// The `next` of the page before; the first page where it is absent.
    after: Option<String>,
}

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Where the next page begins: to be given as `after`. Absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl PageQuery {
    pub(super) fn of(limit: Option<u32>, after: Option<String>) -> Self {
        Self { limit, after }
    }

    pub(super) fn limit(&self) -> Result<u32, Problem> {
        limit(self.limit)
    }

    /// The key after which the page begins, if it is not the first.
    pub(super) fn after<K: DeserializeOwned>(&self) -> Result<Option<K>, Problem> {
        self.after.as_deref().map(|text| cursor(text, "after")).transpose()
    }

    /// The name after which the page begins; all names come after the empty one.
    pub(super) fn after_name(&self) -> Result<String, Problem> {
        Ok(self.after()?.unwrap_or_default())
    }

    /// The place before which a page of the newest begins.
    pub(super) fn before_time(&self) -> Result<(UnixMillis, String), Problem> {
        Ok(self.after()?.unwrap_or((UnixMillis(i64::MAX), String::new())))
    }
}

pub(super) fn limit(given: Option<u32>) -> Result<u32, Problem> {
    match given.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=1000 => Ok(limit),
        found => Err(Problem::invalid(format!("limit: expected 1 to 1000, found {found}."))),
    }
}

/// Reads a place that [`place`] wrote. No text of the store has the character NUL; a database need not even be able
/// to compare it.
pub(crate) fn cursor<K: DeserializeOwned>(text: &str, name: &str) -> Result<K, Problem> {
    let key = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let key = key.filter(|key| !key.windows(6).any(|part| part == b"\\u0000"));
    key.and_then(|key| serde_json::from_slice(&key).ok()).ok_or_else(|| {
        Problem::invalid(format!("{name}: expected the `next` of an earlier page, found something else."))
    })
}

/// A place in a list, for those who only hand it back.
pub(crate) fn place<K: Serialize>(key: &K) -> String {
    // Keys are names and numbers: JSON can hold them.
    BASE64URL_NOPAD.encode(&serde_json::to_vec(key).unwrap_or_default())
}

/// Cuts what was read with a limit of one more than asked for.
pub(super) fn page<R, T, K: Serialize>(
    mut rows: Vec<R>,
    limit: u32,
    key: impl Fn(&R) -> K,
    shown: impl FnMut(&R) -> Result<T, Problem>,
) -> Result<Page<T>, Problem> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| has_more).map(|last| place(&key(last)));
    Ok(Page { items: rows.iter().map(shown).collect::<Result<_, _>>()?, next })
}
