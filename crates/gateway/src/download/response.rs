//! What an HTTP answer means for a package of which the first bytes may be here already.

use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode, Url};

use super::{DownloadError, Failed, Source};

/// Where the body of an answer belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// After the bytes that are here.
    FromLength,
    /// It is the whole package.
    Whole,
    /// Nowhere: the server does not have this range.
    OutOfRange,
}

/// Judges status and headers before a byte of the body is read.
pub(super) fn body_of(response: &Response, source: &Source, length: u64) -> Result<Body, Failed> {
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            match range.and_then(content_range) {
                Some((first, total)) if first == length && total.is_none_or(|total| total == source.size) => {
                    Ok(Body::FromLength)
                }
                Some((_, Some(total))) if total > source.size => Err(too_long(source)),
                Some(_) | None => {
                    Err(Failed::Again(format!("expected bytes from {length} on, found range {range:?}")))
                }
            }
        }
        StatusCode::OK if response.content_length().is_some_and(|announced| announced > source.size) => {
            Err(too_long(source))
        }
        StatusCode::OK => Ok(Body::Whole),
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(Body::OutOfRange),
        _ => expect_ok(response, &source.url).map(|()| Body::Whole),
    }
}

/// Anything but 200: what the server says about itself passes, what it says about the request does not.
pub(super) fn expect_ok(response: &Response, url: &Url) -> Result<(), Failed> {
    let status = response.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let passes = status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS;
    if passes {
        return Err(Failed::Again(format!("the server answers {status}")));
    }
    Err(Failed::End(DownloadError::Status { url: url.to_string(), status }))
}

fn too_long(source: &Source) -> Failed {
    Failed::End(DownloadError::TooLong { url: source.url.to_string(), size: source.size })
}

/// First byte and total of `bytes 0-9/100`; the total may be `*`.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((first.parse().ok()?, total))
}
