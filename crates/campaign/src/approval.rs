//! Approval by a second person: whose word counts, and for what.

use farrier_protocol::{Sha256, Text, UnixMillis};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which campaigns need the approval of a second person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalRule {
    /// Those that are planned so.
    #[default]
    AsPlanned,
    /// Every one.
    SecondPerson,
}

/// What somebody said of a campaign, or of one of its waves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalWord {
    /// The wave, from 1; `None` = the campaign as a whole.
    pub wave: Option<u32>,
    /// Whether it may go on.
    pub approved: bool,
    /// Who, as the audit log names them.
    pub by: String,
    /// When.
    pub at: UnixMillis,
    /// Why.
    pub remark: Text,
    /// SHA-256 of the plan that was looked at.
    pub plan_sha256: Sha256,
}

/// How the approval of a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalStanding {
    /// Nobody has to agree.
    NotNeeded,
    /// A second person has to look at it.
    Waiting,
    /// A second person agrees.
    Approved,
    /// Somebody does not agree.
    Rejected,
}

/// How the approval of a campaign that needs one stands: its last word about this plan counts; words about another do not.
pub fn approval_standing(plan_sha256: &Sha256, words: &[ApprovalWord]) -> ApprovalStanding {
    let mut about_it = words.iter().filter(|word| word.wave.is_none() && word.plan_sha256 == *plan_sha256);
    match about_it.next_back() {
        None => ApprovalStanding::Waiting,
        Some(word) if word.approved => ApprovalStanding::Approved,
        Some(_) => ApprovalStanding::Rejected,
    }
}

/// Whether somebody is another person than the first; where nobody knows who that was, nobody is.
pub fn is_second_person(first: Option<&str>, second: &str) -> bool {
    first.is_some_and(|first| first != second)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(approved: bool, wave: Option<u32>, plan: &[u8]) -> ApprovalWord {
        ApprovalWord {
            wave,
            approved,
            by: "token:anna".to_owned(),
            at: UnixMillis(1),
            remark: "looked at it".parse().unwrap(),
            plan_sha256: Sha256::of(plan),
        }
    }

    #[test]
    fn the_last_word_about_exactly_this_plan_counts() {
        let plan = Sha256::of(b"plan");
        let standing = |words: &[ApprovalWord]| approval_standing(&plan, words);
        let (yes, no) = (word(true, None, b"plan"), word(false, None, b"plan"));
        assert_eq!(standing(&[]), ApprovalStanding::Waiting);
        assert_eq!(standing(&[no.clone(), yes.clone()]), ApprovalStanding::Approved);
        assert_eq!(standing(&[yes.clone(), no]), ApprovalStanding::Rejected);
        assert_eq!(standing(&[word(true, None, b"another")]), ApprovalStanding::Waiting);
        assert_eq!(standing(&[word(true, Some(2), b"plan")]), ApprovalStanding::Waiting);
        assert_eq!(standing(&[yes, word(false, Some(2), b"plan")]), ApprovalStanding::Approved);
    }

    #[test]
    fn nobody_is_their_own_second_person() {
        assert!(is_second_person(Some("token:anna"), "token:ben"));
        assert!(!is_second_person(Some("token:anna"), "token:anna"));
        assert!(!is_second_person(None, "token:ben"));
    }
}
