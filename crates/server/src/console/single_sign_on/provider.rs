//! Speaks to the OpenID Connect provider: authorisation code flow with PKCE. What it says of a person is believed only from
//! an ID token that it signed for this console and for this attempt.

use std::fs;
use std::time::{Duration, SystemTime};

use axum::http;
use farrier_protocol::UnixMillis;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreErrorResponseType, CoreGenderClaim, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm, CoreProviderMetadata, CoreResponseType,
    CoreRevocableToken, CoreRevocationErrorResponse, CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AsyncHttpClient, AuthenticationFlow, AuthorizationCode, Client, ClientId, ClientSecret,
    CsrfToken, EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest,
    HttpResponse, IdTokenFields, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope,
    StandardErrorResponse, StandardTokenResponse, TokenResponse,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::settings::OidcSettings;
use super::{Begun, CALLBACK, OidcError, ProviderError};
use crate::tls::outgoing;

/// For one request to the provider.
const TIME: Duration = Duration::from_secs(10);
/// Octets of an answer of it.
const MOST_OCTETS: usize = 1024 * 1024;
/// How long its keys and addresses are believed; providers announce new keys before they sign with them.
const FRESH: Duration = Duration::from_secs(300);

/// All claims that are not of the standard: groups and roles are among them.
#[derive(Debug, Serialize, Deserialize)]
struct OtherClaims(Map<String, Value>);

impl AdditionalClaims for OtherClaims {}

type Tokens = StandardTokenResponse<
    IdTokenFields<
        OtherClaims,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

/// As the provider's metadata set it up.
type Relying = Client<
    OtherClaims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// The provider that people sign in with.
#[derive(Debug)]
pub(crate) struct Provider {
    settings: OidcSettings,
    issuer: IssuerUrl,
    callback: RedirectUrl,
    secret: Option<ClientSecret>,
    http: Asker,
    found: Mutex<Option<(Instant, CoreProviderMetadata)>>,
}

impl Provider {
    pub(crate) fn new(settings: &OidcSettings) -> Result<Self, OidcError> {
        let secret = settings.client_secret_file.as_ref().map(|path| {
            let text = fs::read_to_string(path)
                .map_err(|source| OidcError::Secret { path: path.clone(), source })?;
            Ok::<_, OidcError>(ClientSecret::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        });
        let address = |error: openidconnect::url::ParseError| OidcError::Address(error.to_string());
        Ok(Self {
            issuer: IssuerUrl::new(settings.issuer.clone()).map_err(address)?,
            callback: RedirectUrl::new(format!("{}{CALLBACK}", settings.console)).map_err(address)?,
            secret: secret.transpose()?,
            http: Asker(client(settings)?),
            found: Mutex::new(None),
            settings: settings.clone(),
        })
    }

    pub(in crate::console) fn settings(&self) -> &OidcSettings {
        &self.settings
    }

    /// Where a browser is sent to, and what must come back.
    pub(super) async fn begin(&self) -> Result<Begun, ProviderError> {
        let client = self.client().await?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let (address, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scope(Scope::new("profile".to_owned()))
            .add_scope(Scope::new("email".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        Ok(Begun {
            address: address.to_string(),
            state: state.into_secret(),
            nonce: nonce.secret().clone(),
            verifier: verifier.into_secret(),
        })
    }

    /// What the provider says of whoever came back with this code.
    pub(super) async fn claims(
        &self,
        code: String,
        begun: &Begun,
        now: UnixMillis,
    ) -> Result<Value, ProviderError> {
        let client = self.client().await?;
        let refused = |error: &dyn std::error::Error| ProviderError::Refused(told(error));
        let exchange = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| refused(&error))?
            .set_pkce_verifier(PkceCodeVerifier::new(begun.verifier.clone()));
        let tokens = exchange.request_async(&self.http).await.map_err(|error| refused(&error))?;
        let token = tokens.id_token().ok_or_else(|| ProviderError::Refused("no ID token came".to_owned()))?;
        let since_1970 = Duration::from_millis(u64::try_from(now.0).unwrap_or(0));
        let verifier =
            client.id_token_verifier().set_time_fn(move || (SystemTime::UNIX_EPOCH + since_1970).into());
        let claims =
            token.claims(&verifier, &Nonce::new(begun.nonce.clone())).map_err(|error| refused(&error))?;
        serde_json::to_value(claims).map_err(|error| refused(&error))
    }

    async fn client(&self) -> Result<Relying, ProviderError> {
        let metadata = self.metadata().await?;
        let client = ClientId::new(self.settings.client_id.clone());
        Ok(Relying::from_provider_metadata(metadata, client, self.secret.clone())
            .set_redirect_uri(self.callback.clone()))
    }

    /// The provider's addresses and keys. One request asks, others wait for its answer.
    async fn metadata(&self) -> Result<CoreProviderMetadata, ProviderError> {
        let mut found = self.found.lock().await;
        if let Some((at, metadata)) = &*found
            && at.elapsed() < FRESH
        {
            return Ok(metadata.clone());
        }
        let metadata = CoreProviderMetadata::discover_async(self.issuer.clone(), &self.http).await;
        let metadata = metadata.map_err(|error| ProviderError::Unreachable(told(&error)))?;
        // Only what nobody can make who has the public keys or the client's own secret.
        let signed: Vec<_> = metadata
            .id_token_signing_alg_values_supported()
            .iter()
            .filter(|one| is_signature(one))
            .cloned()
            .collect();
        let metadata = metadata.set_id_token_signing_alg_values_supported(signed);
        *found = Some((Instant::now(), metadata.clone()));
        Ok(metadata)
    }
}

/// Asks the provider, and reads no more than is to be expected of one.
#[derive(Debug)]
struct Asker(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Asker {
    type Error = AskError;
    type Future = BoxFuture<'c, Result<HttpResponse, AskError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = self.0.execute(request.try_into()?).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let (mut body, mut stream) = (Vec::new(), response.bytes_stream());
            while let Some(more) = stream.next().await {
                body.extend_from_slice(&more?);
                if body.len() > MOST_OCTETS {
                    return Err(AskError::TooLong);
                }
            }
            let mut answer = http::Response::new(body);
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            Ok(answer)
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the provider could not be asked")]
    Http(#[from] reqwest::Error),
    #[error("expected at most {MOST_OCTETS} octets, found more")]
    TooLong,
}

fn is_signature(algorithm: &CoreJwsSigningAlgorithm) -> bool {
    use CoreJwsSigningAlgorithm as Is;
    matches!(
        algorithm,
        Is::EcdsaP256Sha256
            | Is::EcdsaP384Sha384
            | Is::EdDsa
            | Is::RsaSsaPkcs1V15Sha256
            | Is::RsaSsaPkcs1V15Sha384
            | Is::RsaSsaPkcs1V15Sha512
            | Is::RsaSsaPssSha256
            | Is::RsaSsaPssSha384
            | Is::RsaSsaPssSha512
    )
}

/// An error with its causes, for the log.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn client(settings: &OidcSettings) -> Result<reqwest::Client, OidcError> {
    let tls = outgoing::trusting(settings.roots.as_deref(), "oidc.roots")?;
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(TIME)
        .no_proxy()
        .build()
        .map_err(|error| OidcError::Client(told(&error)))
}
