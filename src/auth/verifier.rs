//! Signature first, claims after: what a forged token claims, its expiry included, is never believed or reported. Opaque
//! tokens: what their provider says.
//!
//! Refuses to know: where a token was found.

use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::dangerous::insecure_decode_claims;
use serde::Deserialize;

use super::{
    AuthenticationError, Identity, Issued, JwtSettings, OpaqueToken, PublishRight, Refusal, Revocations, Rights,
    Settings,
    answers::{Said, TokenDigest},
    asking,
    files::{self, Watch, Watched},
    issuer::{Issuer, Look},
    provider::Provider,
    published,
};
use crate::{
    clock::{self, Now},
    metrics::Metrics,
    proto::{AuthenticationErrorCode, UserId},
};

/// A longer token is refused unread. Headers and cookies that carry one end at about this size anyway.
pub const TOKEN_MAX_BYTES: usize = 8 * 1024;

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Verifier(Arc<Parts>);

#[derive(Clone)]
struct Parts {
    inner: Arc<Inner>,
    /// The files that keys are in, until somebody watches them.
    watches: Arc<Mutex<Vec<Watch>>>,
    metrics: Arc<Metrics>,
    revocations: Revocations,
}

enum Inner {
    Jwt(Vec<Arc<Issuer>>),
    Introspection(Arc<Provider>),
    Open(Option<UserId>),
}

/// Whether every token can be checked now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub ok: bool,
    /// For the operator.
    pub detail: String,
}

/// What can be said at once.
enum Verdict<'a> {
    Known(Result<Identity, AuthenticationError>),
    /// Its issuer may have published the key since.
    UnknownKey(&'a Arc<Issuer>, &'a str),
    /// Its provider has to be asked.
    Opaque(&'a Arc<Provider>, &'a str, TokenDigest),
}

impl Verifier {
    /// As [`Verifier::counted`], counting into metrics that nobody reads: for what ends soon.
    ///
    /// # Errors
    /// As [`Verifier::counted`].
    pub fn new(settings: Settings) -> Result<Self, String> {
        Self::counted(settings, Arc::new(Metrics::new("memory")))
    }

    /// Reads the files that keys are in. Keys that are published elsewhere are fetched by [`Verifier::run`].
    ///
    /// # Errors
    /// An algorithm, key or combination that cannot be used, in words for the operator.
    pub fn counted(settings: Settings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let mut watches = Vec::new();
        let inner = match settings {
            Settings::None { user } => Inner::Open(user),
            Settings::Jwt(settings) => Inner::Jwt(vec![issuer(*settings, &mut watches)?]),
            Settings::Issuers(all) => {
                Inner::Jwt(all.into_iter().map(|one| issuer(one, &mut watches)).collect::<Result<_, _>>()?)
            }
            Settings::Introspection(settings) => {
                let files =
                    Watched::all(settings.own_secret().and_then(|secret| secret.file.clone()).into_iter().collect());
                let provider = Arc::new(Provider::new(*settings, metrics.clone())?);
                let reloaded = provider.clone();
                watches.push(Watch::new(files, move || reloaded.reload()));
                Inner::Introspection(provider)
            }
        };
        let (inner, watches) = (Arc::new(inner), Arc::new(Mutex::new(watches)));
        Ok(Self(Arc::new(Parts { inner, watches, metrics, revocations: Revocations::default() })))
    }

    /// The same, which refuses what is revoked there.
    #[must_use]
    pub fn with_revocations(self, revocations: Revocations) -> Self {
        Self(Arc::new(Parts { revocations, ..(*self.0).clone() }))
    }

    /// What it refuses although the token is good otherwise.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.0.revocations
    }

    /// Keeps keys and secrets as fresh as their files and their issuers for as long as it is polled.
    pub async fn run(&self) {
        let watches = std::mem::take(&mut *self.0.watches.lock().unwrap_or_else(PoisonError::into_inner));
        let mut fetching = tokio::task::JoinSet::new();
        match &*self.0.inner {
            Inner::Jwt(issuers) => {
                for issuer in issuers {
                    fetching.spawn(published::run(issuer.clone(), self.0.metrics.clone()));
                }
            }
            Inner::Introspection(provider) => {
                let (every, at_a_time) = provider.pace();
                fetching.spawn(asking::run(self.clone(), every, at_a_time));
            }
            Inner::Open(_) => {}
        }
        fetching.spawn(files::run(watches, self.0.metrics.clone()));
        while let Some(ended) = fetching.join_next().await {
            // What has nothing to do ends at once; what broke must not pass in silence.
            if let Err(error) = ended {
                tracing::error!(%error, "keys are not kept fresh any more");
                return;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Who is this? Waits where keys have to be fetched, or a provider to be asked; else it is [`Verifier::verify`].
    ///
    /// # Errors
    /// The token is not good, or nobody can tell now.
    pub async fn identify(&self, token: Option<&str>, now: Now) -> Result<Identity, Refusal> {
        match self.judge(token, now) {
            Verdict::Known(outcome) => Ok(self.unless_revoked(outcome?)?),
            // Boxed: rare, and large beside the other.
            undecided => match Box::pin(self.find_out(undecided, now)).await {
                Ok(identity) => Ok(self.unless_revoked(identity)?),
                Err(refusal) => {
                    if matches!(refusal, Refusal::Unavailable) {
                        self.0.metrics.authentication_unavailable();
                    }
                    Err(refusal)
                }
            },
        }
    }

    fn unless_revoked(&self, identity: Identity) -> Result<Identity, AuthenticationError> {
        if self.0.revocations.is_revoked(&identity) { Err(AuthenticationError::revoked()) } else { Ok(identity) }
    }

    async fn find_out(&self, undecided: Verdict<'_>, now: Now) -> Result<Identity, Refusal> {
        match undecided {
            Verdict::Known(outcome) => Ok(outcome?),
            Verdict::Opaque(provider, token, digest) => {
                Ok(to_be_asked_about_again(provider.ask(token, digest, now).await?, token))
            }
            Verdict::UnknownKey(issuer, token) => {
                if let Some(published) = &issuer.published {
                    published.refreshed().await?;
                }
                match issuer.look(token, clock::now().unix_ms) {
                    Look::Known(outcome) => Ok(outcome?),
                    Look::UnknownKey => Err(unknown_key().into()),
                }
            }
        }
    }

    /// Who is this, as far as can be told at once? `token` is `None` when the client brought none; `unix_ms` is now, in
    /// milliseconds. A key that is not here is an unknown key, an opaque token that was not asked about lately a bad one.
    ///
    /// # Errors
    /// [`AuthenticationError`] with the code for the client.
    pub fn verify(&self, token: Option<&str>, unix_ms: u64) -> Result<Identity, AuthenticationError> {
        match self.judge(token, Now { unix_ms, ..clock::now() }) {
            Verdict::Known(outcome) => self.unless_revoked(outcome?),
            Verdict::UnknownKey(..) => Err(unknown_key()),
            Verdict::Opaque(..) => Err(AuthenticationError::invalid("the token is not known here")),
        }
    }

    fn judge<'a>(&'a self, token: Option<&'a str>, now: Now) -> Verdict<'a> {
        if let Inner::Open(user) = &*self.0.inner {
            return Verdict::Known(everything_for(user.as_ref()));
        }
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Verdict::Known(Err(AuthenticationError {
                code: AuthenticationErrorCode::AuthRequired,
                message: "no token was provided".to_owned(),
                is_guess: false,
            }));
        };
        if token.len() > TOKEN_MAX_BYTES {
            let message = format!("the token is longer than {TOKEN_MAX_BYTES} bytes");
            return Verdict::Known(Err(AuthenticationError::invalid(message)));
        }
        match &*self.0.inner {
            Inner::Jwt(issuers) => match issuer_of(issuers, token) {
                None => Verdict::Known(Err(AuthenticationError::invalid(
                    "the token comes from an issuer that this service does not know: claim `iss`",
                ))),
                Some(issuer) => match issuer.look(token, now.unix_ms) {
                    Look::Known(outcome) => Verdict::Known(outcome),
                    Look::UnknownKey if issuer.published.is_none() => Verdict::Known(Err(unknown_key())),
                    Look::UnknownKey => Verdict::UnknownKey(issuer, token),
                },
            },
            // Or a provider that forgives blanks would know one token under many names.
            Inner::Introspection(_) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Verdict::Known(Err(AuthenticationError::invalid("the token has characters that no token has")))
            }
            Inner::Introspection(provider) => {
                let digest = TokenDigest::of(token);
                let remembered = provider.remembered(&digest, now);
                let known = |said: Said| Verdict::Known(said.map(|identity| to_be_asked_about_again(identity, token)));
                remembered.map_or_else(|| Verdict::Opaque(provider, token, digest), known)
            }
            Inner::Open(user) => Verdict::Known(everything_for(user.as_ref())),
        }
    }

    /// A caller without a token is refused. Not so in mode `none`, where a token would not be looked at.
    #[must_use]
    pub fn needs_token(&self) -> bool {
        !matches!(*self.0.inner, Inner::Open(_))
    }

    /// Whether every token can be checked now.
    #[must_use]
    pub fn health(&self) -> Health {
        let detail = match &*self.0.inner {
            Inner::Jwt(issuers) => {
                let published = issuers.iter().filter_map(|issuer| issuer.published.as_ref());
                let missing: Vec<&str> = published.filter(|p| !p.has_keys()).map(published::Published::place).collect();
                (!missing.is_empty()).then(|| format!("no keys yet from {}", missing.join(", ")))
            }
            Inner::Introspection(provider) if !provider.is_answering() => {
                Some("the provider that knows tokens does not answer".to_owned())
            }
            Inner::Introspection(_) | Inner::Open(_) => None,
        };
        Health { ok: detail.is_none(), detail: detail.unwrap_or_else(|| "tokens can be checked".to_owned()) }
    }
}

/// What is remembered of a token does not hold it; who holds an identity for long needs it.
fn to_be_asked_about_again(mut identity: Identity, token: &str) -> Identity {
    identity.issued.get_or_insert_default().opaque = Some(OpaqueToken(token.into()));
    identity
}

/// One issuer, whose files are looked at before it reads them.
fn issuer(settings: JwtSettings, watches: &mut Vec<Watch>) -> Result<Arc<Issuer>, String> {
    let files = Watched::all(Issuer::files(&settings));
    let issuer = Arc::new(Issuer::new(settings)?);
    let reloaded = issuer.clone();
    watches.push(Watch::new(files, move || reloaded.reload()));
    Ok(issuer)
}

/// What a token says before anybody has checked it.
#[derive(Deserialize)]
struct Claimed {
    iss: Option<String>,
}

/// The issuer whose keys a token is checked with. Its `iss` is not verified yet: it only chooses, and the issuer's own
/// check of the claim follows the signature.
fn issuer_of<'a>(issuers: &'a [Arc<Issuer>], token: &str) -> Option<&'a Arc<Issuer>> {
    if let [only] = issuers {
        return Some(only);
    }
    let claimed = insecure_decode_claims::<Claimed>(token).ok().and_then(|claims| claims.iss);
    let named = claimed.and_then(|iss| issuers.iter().find(|issuer| issuer.names().contains(&iss)));
    named.or_else(|| issuers.iter().find(|issuer| issuer.names().is_empty()))
}

fn unknown_key() -> AuthenticationError {
    AuthenticationError::invalid("the token is signed with a key that its issuer does not publish")
}

/// Mode `none`: everyone is the configured user and may do everything.
fn everything_for(user: Option<&UserId>) -> Result<Identity, AuthenticationError> {
    let Some(user) = user else {
        return Err(AuthenticationError {
            code: AuthenticationErrorCode::NoUserAvailable,
            message: "tokens are not checked (auth.mode = \"none\") and no development user is configured: set \
                      auth.user (TASKCAST_AUTH_USER)"
                .to_owned(),
            is_guess: false,
        });
    };
    let (own, all, publish) = (true, true, PublishRight::everything());
    let rights = Rights { own, all, publish, cancel: true, revoke: true, ..Rights::default() };
    // Without a token there is none that could be revoked.
    let issued = Some(Box::new(Issued { at_ms: Some(u64::MAX), ..Issued::default() }));
    Ok(Identity { user: Some(user.clone()), rights, expires_at_ms: None, issued })
}
