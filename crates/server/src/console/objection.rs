//! What somebody is told of what cannot be done: in their language, and beneath it what is known of it only in English.

use std::fmt;

use askama::filters::{Escaper, Html, HtmlSafe};

use super::texts::Texts;
use crate::api::Problem;

/// A sentence or a few. As a text it is HTML, with both parts escaped; so it may go out as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Objection {
    words: String,
    /// The precise detail, where the API has it in English alone.
    detail: Option<String>,
}

impl Objection {
    /// A refusal of the API: what its code means and what to do, and its detail.
    pub(super) fn of(t: &Texts, problem: &Problem) -> Self {
        let detail = problem.detail().to_owned();
        match t.refusal(problem.code()).filter(|_| !problem.is_localised()) {
            Some(words) => Self { words, detail: Some(detail) },
            None => Self { words: detail, detail: None },
        }
    }
}

/// What the console says of itself.
impl From<String> for Objection {
    fn from(words: String) -> Self {
        Self { words, detail: None }
    }
}

impl From<&str> for Objection {
    fn from(words: &str) -> Self {
        Self::from(words.to_owned())
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Html.write_escaped_str(&mut *f, &self.words)?;
        let Some(detail) = &self.detail else { return Ok(()) };
        f.write_str(" <span class=\"detail\" lang=\"en\">")?;
        Html.write_escaped_str(&mut *f, detail)?;
        f.write_str("</span>")
    }
}

impl HtmlSafe for Objection {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::texts::{ENGLISH, KOREAN};

    #[test]
    fn a_refusal_is_told_in_the_visitors_language_with_its_detail_beneath_as_it_is() {
        let problem = Problem::not_found("vehicle", "<b>V9");
        let english = "There is no vehicle &#60;b&#62;V9; list what there is and check the name.";
        assert_eq!(Objection::of(&ENGLISH, &problem).to_string(), english);
        let korean = "이 이름으로 찾을 수 있는 것이 없습니다. 목록에서 이름을 확인하십시오.";
        assert_eq!(
            Objection::of(&KOREAN, &problem).to_string(),
            format!("{korean} <span class=\"detail\" lang=\"en\">{english}</span>")
        );
    }

    #[test]
    fn what_the_console_says_itself_is_in_the_visitors_language_already() {
        let problem = Problem::invalid(KOREAN.field_missing).localised();
        assert_eq!(Objection::of(&KOREAN, &problem).to_string(), KOREAN.field_missing);
        let of_none = Problem::conflict("NOT_NOW", "지금은 <안> 됩니다.");
        assert_eq!(Objection::of(&KOREAN, &of_none).to_string(), "지금은 &#60;안&#62; 됩니다.");
    }
}
