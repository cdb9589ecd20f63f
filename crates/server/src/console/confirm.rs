//! Says what will happen before it happens, and asks for what has to be said with it.

use askama::Template;

use super::form::{Field, Kind};
use super::objection::Objection;
use super::page::Frame;

#[derive(Template)]
#[template(path = "confirm.html")]
pub(super) struct ConfirmPage {
    pub(super) frame: Frame,
    pub(super) title: String,
    /// Why it was refused, where no field is at fault.
    pub(super) refused: Option<Objection>,
    /// One sentence each.
    pub(super) consequences: Vec<String>,
    pub(super) fields: Vec<Field>,
    /// What goes with it as it was seen.
    pub(super) with: Vec<(&'static str, String)>,
    /// What the button says.
    pub(super) verb: &'static str,
    pub(super) is_grave: bool,
    pub(super) back: String,
}

impl ConfirmPage {
    /// Of something that asks for nothing else, and is not grave.
    pub(super) fn new(
        frame: Frame,
        title: String,
        consequence: String,
        verb: &'static str,
        back: String,
    ) -> Self {
        Self {
            frame,
            title,
            refused: None,
            consequences: vec![consequence],
            fields: Vec::new(),
            with: Vec::new(),
            verb,
            is_grave: false,
            back,
        }
    }
}
