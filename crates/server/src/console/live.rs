//! The parts of pages that change by themselves: rendered at most once a second, and once for all who look at them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse;
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::language::Language;
use crate::api::Problem;
use crate::measurements;
use crate::store::locked;

/// Between two looks.
const PACE: Duration = Duration::from_secs(1);
/// Tells a browser, and what stands between, that the stream is alive.
const KEPT_ALIVE: Duration = Duration::from_secs(15);
/// A stream ends after this, and the browser opens it anew: so nobody goes on looking who has signed out since.
const STREAM: Duration = Duration::from_secs(60);
/// Streams at a time.
const STREAMS: usize = 500;

/// Which part of which page, for whom it looks the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) path: String,
    pub(super) language: Language,
}

/// The parts that somebody looks at.
pub(super) struct Live {
    parts: Mutex<BTreeMap<Part, watch::Sender<Arc<str>>>>,
    stopping: CancellationToken,
}

impl Live {
    pub(super) fn new(stopping: CancellationToken) -> Self {
        Self { parts: Mutex::default(), stopping }
    }

    /// A stream of a part, rendered anew by `render` as long as anybody looks; `None` where too many look at something.
    pub(super) fn stream<R, F>(self: &Arc<Self>, part: Part, render: R) -> Option<Response>
    where
        R: Fn() -> F + Send + 'static,
        F: Future<Output = Result<String, Problem>> + Send + 'static,
    {
        let changes = self.follow(part, render)?;
        let (ends_at, stopping) = (Instant::now() + STREAM, self.stopping.clone());
        let events =
            futures_util::stream::unfold((changes, stopping), move |(mut changes, stopping)| async move {
                let changed = tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    () = tokio::time::sleep_until(ends_at) => false,
                    () = stopping.cancelled() => false,
                };
                if !changed {
                    return None;
                }
                let event = Event::default().data(&*changes.borrow_and_update());
                Some((Ok::<_, Infallible>(event), (changes, stopping)))
            });
        Some(Sse::new(events).keep_alive(KeepAlive::new().interval(KEPT_ALIVE)).into_response())
    }

    fn follow<R, F>(self: &Arc<Self>, part: Part, render: R) -> Option<watch::Receiver<Arc<str>>>
    where
        R: Fn() -> F + Send + 'static,
        F: Future<Output = Result<String, Problem>> + Send + 'static,
    {
        let mut parts = locked(&self.parts);
        if viewers(&parts) >= STREAMS {
            return None;
        }
        if let Some(known) = parts.get(&part) {
            let mut changes = known.subscribe();
            // Whoever comes gets what there is.
            changes.mark_changed();
            return Some(changes);
        }
        let (sender, changes) = watch::channel(Arc::from(""));
        parts.insert(part.clone(), sender);
        tokio::spawn(Arc::clone(self).keep(part, render));
        Some(changes)
    }

    async fn keep<R, F>(self: Arc<Self>, part: Part, render: R)
    where
        R: Fn() -> F + Send + 'static,
        F: Future<Output = Result<String, Problem>> + Send + 'static,
    {
        while !self.stopping.is_cancelled() {
            // What is gone, or cannot be read, is not shown any more; browsers ask anew and are told why.
            let Ok(rendered) = render().await else { break };
            measurements::console_render();
            if !self.tell(&part, &rendered) {
                return;
            }
            tokio::time::sleep(PACE).await;
        }
        locked(&self.parts).remove(&part);
    }

    /// Tells whoever looks, if it is new; `false` where nobody looks any more, and the part is forgotten.
    fn tell(&self, part: &Part, rendered: &str) -> bool {
        let mut parts = locked(&self.parts);
        measurements::console_viewers(viewers(&parts));
        let Some(sender) = parts.get(part).filter(|sender| sender.receiver_count() > 0) else {
            parts.remove(part);
            return false;
        };
        sender.send_if_modified(|shown| {
            let is_new = **shown != *rendered;
            if is_new {
                *shown = Arc::from(rendered);
            }
            is_new
        });
        true
    }
}

fn viewers(parts: &BTreeMap<Part, watch::Sender<Arc<str>>>) -> usize {
    parts.values().map(watch::Sender::receiver_count).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn part() -> Part {
        Part { path: "/campaigns/winter".to_owned(), language: Language::English }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_rendered_once_for_all_who_look_and_not_when_nobody_does() {
        let live = Arc::new(Live::new(CancellationToken::new()));
        let looks = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&looks);
        let render = move || {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            async move { Ok(format!("look {}", number / 2)) }
        };
        let mut first = live.follow(part(), render.clone()).unwrap();
        first.changed().await.unwrap();
        assert_eq!(&**first.borrow_and_update(), "look 0");
        let mut second = live.follow(part(), render).unwrap();
        second.changed().await.unwrap();
        assert_eq!(&**second.borrow_and_update(), "look 0");
        // The second look finds nothing new, the third does.
        first.changed().await.unwrap();
        second.changed().await.unwrap();
        assert_eq!((&**first.borrow(), &**second.borrow()), ("look 1", "look 1"));
        assert_eq!(looks.load(Ordering::Relaxed), 3);
        drop((first, second));
        tokio::time::sleep(PACE * 3).await;
        assert!(looks.load(Ordering::Relaxed) <= 4);
        assert!(locked(&live.parts).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_look_than_there_are_places() {
        let live = Arc::new(Live::new(CancellationToken::new()));
        let render = || async { Ok("same".to_owned()) };
        let all: Vec<_> = (0..STREAMS).map(|_| live.follow(part(), render).unwrap()).collect();
        assert!(live.follow(part(), render).is_none());
        drop(all);
        assert!(live.follow(part(), render).is_some());
    }
}
