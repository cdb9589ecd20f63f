//! The page that says what will happen before it happens.

use askama::Template;

use super::page::Frame;

#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) frame: Frame,
    pub(super) title: String,
    pub(super) consequence: String,
    /// What the button says.
    pub(super) verb: &'static str,
    pub(super) is_grave: bool,
    /// Whether a reason is asked for.
    pub(super) asks_why: bool,
    pub(super) back: String,
}
