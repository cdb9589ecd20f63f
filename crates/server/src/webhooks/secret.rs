//! The secret that a webhook signs with, and the signature, as Standard Webhooks has them
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac;
use data_encoding::BASE64;
use farrier_protocol::UnixMillis;

const PREFIX: &str = "whsec_";
const OCTETS: usize = 32;

/// A key of 256 random bits; shown once, never in logs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret([u8; OCTETS]);

impl Secret {
    pub(crate) fn new() -> Result<Self, Unspecified> {
        let mut octets = [0_u8; OCTETS];
        aws_lc_rs::rand::fill(&mut octets)?;
        Ok(Self(octets))
    }

    /// As operators get it and the store keeps it.
    pub(crate) fn shown(&self) -> String {
        format!("{PREFIX}{}", BASE64.encode(&self.0))
    }

    /// `v1,` and base64 of HMAC-SHA256 over id, time in seconds, and body, with dots between them.
    pub(crate) fn sign(&self, event_id: &str, at: UnixMillis, body: &str) -> String {
        let signed = format!("{event_id}.{}.{body}", at.0.div_euclid(1000));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), signed.as_bytes());
        format!("v1,{}", BASE64.encode(tag.as_ref()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

impl FromStr for Secret {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let octets = BASE64.decode(text.strip_prefix(PREFIX).ok_or(())?.as_bytes()).map_err(|_| ())?;
        octets.try_into().map(Self).map_err(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected signature is Python's: `base64.b64encode(hmac.new(bytes(range(32)), b"msg_1.1614265330.{\"a\":1}",
    /// "sha256").digest())`.
    #[test]
    fn a_signature_is_what_the_recipe_in_the_documentation_gives() {
        let secret = Secret(std::array::from_fn(|index| u8::try_from(index).unwrap()));
        assert_eq!(secret.shown(), "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        assert_eq!(secret.shown().parse::<Secret>().unwrap(), secret);
        assert_eq!(
            secret.sign("msg_1", UnixMillis(1_614_265_330_999), "{\"a\":1}"),
            "v1,glGkvNcadkg5eS0kC1lHn//MXDsMAhfgJN70uXXgt2s="
        );
        assert_eq!(format!("{secret:?}"), "Secret(not shown)");
        assert!("whsec_AAEC".parse::<Secret>().is_err() && "AAEC".parse::<Secret>().is_err());
    }
}
