//! Says what will happen before it happens, and asks for what has to be said with it.

use askama::Template;

use super::form::{Field, Kind};
use super::page::Frame;

#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) frame: Frame,
    pub(super) title: String,
    /// One sentence each.
    pub(super) consequences: Vec<String>,
    pub(super) fields: Vec<Field>,
    /// What the button says.
    pub(super) verb: &'static str,
    pub(super) is_grave: bool,
    pub(super) back: String,
}
