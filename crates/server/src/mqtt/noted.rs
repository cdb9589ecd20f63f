//! A connection as operators see it: the desk is told when it begins and, however it ends, once when it ends.

use std::sync::Arc;

use super::connection::Shared;
use crate::desk::{ClientSession, MessageDesk, SessionEnd, WhyGone};
use crate::store::new_id;

pub(super) struct Noted<D: MessageDesk> {
    shared: Arc<Shared<D>>,
    session: ClientSession,
}

impl<D: MessageDesk> Noted<D> {
    pub(super) fn begin(shared: &Arc<Shared<D>>, client_id: &str) -> Self {
        let came_at = (shared.clock)();
        let session = ClientSession { client_id: client_id.to_owned(), id: new_id(), came_at, end: None };
        shared.desk.session(session.clone());
        Self { shared: Arc::clone(shared), session }
    }

    pub(super) fn end(&mut self, why: WhyGone, detail: Option<&'static str>) {
        if self.session.end.is_none() {
            self.session.end = Some(SessionEnd { at: (self.shared.clock)(), why, detail });
            self.shared.desk.session(self.session.clone());
        }
    }
}

impl<D: MessageDesk> Drop for Noted<D> {
    fn drop(&mut self) {
        self.end(WhyGone::Cut, None);
    }
}
