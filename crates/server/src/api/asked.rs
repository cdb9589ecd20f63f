//! What a client asks for beside the thing itself: that it is changed only as the client has seen it (If-Match), told only if it
//! is new (If-None-Match), and done only once (Idempotency-Key). Owned here for all operations: a handler that reads and
//! writes by [`Api`] knows nothing of it, for the checks are made within the transaction that it writes in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use farrier_protocol::{Sha256, UnixMillis};

use super::Api;
use super::etag::{self, Resource, Tags};
use super::problem::Problem;
use super::request::{Caller, unread};
use crate::store::idempotency::{self, Key, Taken};
use crate::store::{Store, StoreError, Tx, locked};

/// Names a request, so that it is done once however often it is sent.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The longest answer that is kept for a request that comes again, in octets.
const MOST_KEPT: usize = 256 * 1024;

/// What may be asked beside an operation.
#[derive(Clone)]
pub(super) struct Besides {
    pub(super) method: Method,
    pub(super) resource: Option<Resource>,
    /// Whether it takes an Idempotency-Key.
    pub(super) is_keyed: bool,
    /// Whether its answer may not be kept, as it shows a secret.
    pub(super) is_secret: bool,
}

/// What one request asks beside the thing itself, and what has become of it.
pub(super) struct Asked {
    resource: Option<(Resource, String)>,
    if_match: Option<Tags>,
    key: Option<Key>,
    keeps_answer: bool,
    /// A transaction of this request is durable: what comes after belongs to it.
    has_written: AtomicBool,
    /// Another request with the same key was quicker.
    was_late: AtomicBool,
    /// The answer is stored.
    is_kept: AtomicBool,
    /// What operators decide of the resource, after the change.
    settled: Mutex<Option<String>>,
}

tokio::task_local! {
    static ASKED: Arc<Asked>;
}

/// What the request asks that is worked on now, if it asks anything.
pub(super) fn current() -> Option<Arc<Asked>> {
    ASKED.try_with(Arc::clone).ok()
}

/// Runs a job of the request that is worked on, if what it asks beside is so. `shown` is the answer that the job's result
/// makes, where it is known by then.
pub(super) async fn write<T, E>(
    store: &Store,
    asked: Option<Arc<Asked>>,
    now: UnixMillis,
    job: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
    shown: impl FnOnce(&T) -> Option<(StatusCode, String)> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + From<Problem> + Send + 'static,
{
    let Some(asked) = asked else { return store.write(job).await };
    let within = Arc::clone(&asked);
    let done = store.write(move |tx| {
        within.before(tx, now)?;
        let done = job(tx)?;
        within.after(tx, shown(&done))?;
        Ok::<_, E>(done)
    });
    let done = done.await?;
    asked.has_written.store(true, Ordering::Release);
    Ok(done)
}

impl Asked {
    /// Checks what was asked, unless this request has written already.
    fn before(&self, tx: &Tx<'_>, now: UnixMillis) -> Result<(), Problem> {
        if self.has_written.load(Ordering::Acquire) {
            return Ok(());
        }
        if let Some(key) = &self.key {
            match idempotency::take(tx, key, now)? {
                Taken::Now => {}
                Taken::Before => {
                    self.was_late.store(true, Ordering::Release);
                    return Err(in_progress());
                }
                Taken::TooMany => return Err(too_many_keys()),
            }
        }
        let Some((resource, name)) = &self.resource else { return Ok(()) };
        (resource.lock)(tx, name)?;
        // What is not there is the handler's to refuse.
        if let (Some(tags), Some(settled)) = (&self.if_match, (resource.settled)(tx, name)?) {
            let part = etag::settled_part(&settled);
            if !tags.has_settled(&part) {
                return Err(etag::refused(&part));
            }
        }
        Ok(())
    }

    fn after(&self, tx: &Tx<'_>, shown: Option<(StatusCode, String)>) -> Result<(), Problem> {
        if let Some((resource, name)) = &self.resource {
            let settled = (resource.settled)(tx, name)?;
            *locked(&self.settled) = settled.as_ref().map(etag::settled_part);
        }
        if let (Some(key), Some((status, answer)), true) = (&self.key, shown, self.keeps_answer)
            && answer.len() <= MOST_KEPT
        {
            idempotency::keep(tx, key, status.as_u16(), &answer)?;
            self.is_kept.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Does what a request asks beside the thing itself.
pub(super) async fn besides(
    State((api, besides)): State<(Api, Besides)>,
    caller: Caller,
    params: RawPathParams,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let name = params.iter().next().map(|(_, name)| name.to_owned());
    let resource = besides.resource.zip(name);
    if besides.method == Method::GET {
        return match resource {
            Some(resource) => if_new(&api, resource, request, next).await,
            None => Ok(next.run(request).await),
        };
    }
    let if_match = match &resource {
        Some(_) => if_match(request.headers())?,
        None => None,
    };
    let (key, request) = match key_of(request.headers())?.filter(|_| besides.is_keyed) {
        None => (None, request),
        Some(given) => {
            let (fingerprint, request) = fingerprinted(request).await?;
            (Some(Key { token: caller.token, given, fingerprint }), request)
        }
    };
    if let Some(key) = &key
        && let Some(answer) = earlier(&api, key, besides.is_secret).await?
    {
        return Ok(answer);
    }
    let asked = Arc::new(Asked {
        resource,
        if_match,
        key: key.clone(),
        keeps_answer: !besides.is_secret,
        has_written: AtomicBool::new(false),
        was_late: AtomicBool::new(false),
        is_kept: AtomicBool::new(false),
        settled: Mutex::default(),
    });
    let mut response = ASKED.scope(Arc::clone(&asked), next.run(request)).await;
    if let Some(key) = key {
        if asked.was_late.load(Ordering::Acquire)
            && let Some(answer) = earlier(&api, &key, besides.is_secret).await?
        {
            return Ok(answer);
        }
        let is_missing = asked.has_written.load(Ordering::Acquire) && !asked.is_kept.load(Ordering::Acquire);
        if is_missing && asked.keeps_answer && response.status().is_success() {
            response = kept(&api, key, response).await?;
        }
    }
    let settled = locked(&asked.settled).take();
    if let Some(value) = settled.and_then(|part| HeaderValue::try_from(etag::settled_tag(&part)).ok()) {
        response.headers_mut().entry(header::ETAG).or_insert(value);
    }
    Ok(response)
}

/// Shows a resource with its tag, or says that there is nothing new.
async fn if_new(
    api: &Api,
    (resource, name): (Resource, String),
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let known = joined(request.headers(), &header::IF_NONE_MATCH).and_then(|text| Tags::read(&text));
    // Before it is shown: a tag that is older than what is shown refuses a change for nothing, a newer one loses another's.
    let settled = api.read(move |tx| Ok((resource.settled)(tx, &name)?)).await?;
    let response = next.run(request).await;
    let Some(settled) = settled.filter(|_| response.status() == StatusCode::OK) else { return Ok(response) };
    let (mut parts, body) = response.into_parts();
    let octets = to_bytes(body, usize::MAX).await.map_err(|_| Problem::unavailable())?;
    let tag = etag::shown_tag(&etag::settled_part(&settled), &octets);
    let is_known = known.is_some_and(|known| known.has_shown(&tag));
    let value = HeaderValue::try_from(tag).map_err(|_| Problem::unavailable())?;
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, value)]).into_response());
    }
    parts.headers.insert(header::ETAG, value);
    Ok(Response::from_parts(parts, Body::from(octets)))
}

/// The answer to the earlier request with the same key, if there was one.
async fn earlier(api: &Api, key: &Key, is_secret: bool) -> Result<Option<Response>, Problem> {
    let (looked_for, now) = (key.clone(), api.now());
    let Some(found) = api.read(move |tx| Ok(idempotency::asked(tx, &looked_for, now)?)).await? else {
        return Ok(None);
    };
    if found.fingerprint != key.fingerprint {
        return Err(Problem::key_reused());
    }
    let Some((status, answer)) = found.answer else {
        return Err(if is_secret { shown_once() } else { in_progress() });
    };
    let status = StatusCode::from_u16(status).map_err(|_| Problem::unavailable())?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (REPLAYED, HeaderValue::from_static("true")),
    ];
    Ok(Some((status, headers, answer).into_response()))
}

/// Keeps an answer that was not known within the transaction.
async fn kept(api: &Api, key: Key, response: Response) -> Result<Response, Problem> {
    let (parts, body) = response.into_parts();
    let octets = to_bytes(body, usize::MAX).await.map_err(|_| Problem::unavailable())?;
    if octets.len() <= MOST_KEPT
        && let Ok(answer) = String::from_utf8(octets.to_vec())
    {
        let status = parts.status.as_u16();
        api.store.write::<_, Problem>(move |tx| Ok(idempotency::keep(tx, &key, status, &answer)?)).await?;
    }
    Ok(Response::from_parts(parts, Body::from(octets)))
}

/// A header's lines as one.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

fn if_match(headers: &HeaderMap) -> Result<Option<Tags>, Problem> {
    let Some(text) = joined(headers, &header::IF_MATCH) else { return Ok(None) };
    let tags = Tags::read(&text).ok_or_else(|| {
        Problem::invalid(
            "If-Match: expected * or up to 32 entity tags as ETag gave them, found something else.",
        )
    })?;
    Ok(Some(tags))
}

fn key_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(first) = given.next() else { return Ok(None) };
    let is_key = |key: &&str| (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    let key = first.to_str().ok().filter(is_key).filter(|_| given.next().is_none());
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        Problem::invalid(
            "Idempotency-Key: expected one key of 1 to 255 printable ASCII characters without spaces, found something else.",
        )
    })
}

/// The digest of what makes a request what it is.
async fn fingerprinted(request: Request) -> Result<(Sha256, Request), Problem> {
    let (parts, body) = request.into_parts();
    let octets = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await.map_err(unread)?;
    let mut text = format!("{} {}\n", parts.method, parts.uri).into_bytes();
    text.extend_from_slice(&octets);
    Ok((Sha256::of(&text), Request::from_parts(parts, Body::from(octets))))
}

fn in_progress() -> Problem {
    let detail = "A request with this Idempotency-Key is under way, or was done and its answer is lost; look at what there is. \
                  To ask for it once more, use another key.";
    Problem::conflict("IDEMPOTENCY_IN_PROGRESS", detail)
}

fn shown_once() -> Problem {
    let detail = "This was done by an earlier request with this Idempotency-Key, and its answer has a secret, which is shown \
                  once. If it is lost, revoke what was made, and make another with another key and another name.";
    Problem::conflict("IDEMPOTENCY_SECRET", detail)
}

fn too_many_keys() -> Problem {
    let detail = "This token has used 10000 Idempotency-Keys within a day, and no more are remembered; wait, or send fewer.";
    Problem::conflict("IDEMPOTENCY_TOO_MANY", detail)
}
