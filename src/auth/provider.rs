//! Opaque tokens: a provider is asked whose they are, over RFC 7662 or in the name of the token. One question per token
//! is under way at a time, whoever waits for it; answers are remembered for a while; a provider that fails is left alone
//! for a while. Without an answer nobody is let in, and nobody is told that the token is bad.
//!
//! Refuses to know: how HTTP is spoken, what an answer's claims mean.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use headers::authorization::Credentials as _;
use http_body_util::Full;
use hyper::{
    Request, Uri,
    header::{self, HeaderValue},
};
use tokio::sync::{Semaphore, watch};
use url::form_urlencoded;

use super::{
    AuthenticationError, Credentials, Identity, IntrospectionSettings, Question, Refusal,
    answers::{Answers, Said, TokenDigest},
    breaker::Breaker,
    key_set,
    reading::{self, Reading},
};
use crate::{
    client::{Answer, Client, Failure},
    clock,
    metrics::{Introspection, Metrics},
};

/// A longer answer about one token is none.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Tokens that wait for an answer at most.
const WAITING_MAX: usize = 1024;

/// Asks about tokens, and remembers.
pub(super) struct Provider {
    uri: Uri,
    settings: IntrospectionSettings,
    /// This service's own, as it is now.
    secret: RwLock<Vec<u8>>,
    client: Client,
    permits: Semaphore,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

/// The answer, once it is there.
type Awaited = watch::Receiver<Option<Result<Said, ()>>>;

struct State {
    answers: Answers,
    /// Questions under way. A receiver whose sender is gone without a word was left alone.
    asked: HashMap<TokenDigest, Awaited>,
    breaker: Breaker,
}

impl Provider {
    /// # Errors
    /// What cannot be used, in words for the operator.
    pub fn new(settings: IntrospectionSettings, metrics: Arc<Metrics>) -> Result<Self, String> {
        let state =
            State { answers: Answers::new(settings.answers), asked: HashMap::new(), breaker: Breaker::default() };
        let provider = Self {
            uri: settings.url.0.as_str().parse().map_err(|error| format!("{}: {error}", settings.url))?,
            secret: RwLock::default(),
            client: Client::new(&settings.client)?,
            permits: Semaphore::new(settings.concurrency_max),
            state: Mutex::new(state),
            settings,
            metrics,
        };
        provider.reload()?;
        Ok(provider)
    }

    /// Takes this service's own secret as it is now.
    pub fn reload(&self) -> Result<(), String> {
        if let Some(secret) = self.settings.own_secret() {
            let secret = key_set::secret_of_any_length(secret)?;
            *self.secret.write().unwrap_or_else(PoisonError::into_inner) = secret;
        }
        Ok(())
    }

    /// How often it is to be asked again about those who stay, and about how many at a time: half of what may be asked, so
    /// that others come in meanwhile.
    pub fn pace(&self) -> (Duration, usize) {
        (self.settings.answers.good_for, self.settings.concurrency_max.div_ceil(2))
    }

    pub fn is_answering(&self) -> bool {
        self.lock().breaker.is_closed()
    }

    /// Nothing under this lock waits.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said of the token not long ago. That it ended meanwhile nobody has said: its end may have moved.
    pub fn remembered(&self, token: &TokenDigest, now: clock::Now) -> Option<Said> {
        let said = self.lock().answers.get(token, now.instant)?;
        if said.as_ref().is_ok_and(|identity| identity.expires_at_ms.is_some_and(|at| at <= now.unix_ms)) {
            return None;
        }
        self.metrics.introspection_remembered();
        Some(said)
    }

    /// Asks, or waits for the answer to whoever asked before.
    ///
    /// # Errors
    /// The token is not good, or nobody can tell now.
    pub async fn ask(self: &Arc<Self>, token: &str, digest: TokenDigest, now: clock::Now) -> Result<Identity, Refusal> {
        let (mut answer, is_first) = self.join(token, digest, now.instant)?;
        let said = answer.wait_for(Option::is_some).await.ok().and_then(|said| said.clone());
        let said = said.and_then(Result::ok).ok_or(Refusal::Unavailable)?;
        said.map_err(|error| {
            // Many may wait for one answer, and it is one guess; and what was good once is none.
            let is_known = error.was_inactive() && (!is_first || self.lock().answers.was_good(&digest, now.instant));
            Refusal::Token(AuthenticationError { is_guess: error.is_guess && !is_known, ..error })
        })
    }

    /// The answer to come, and whether nobody has asked before.
    fn join(self: &Arc<Self>, token: &str, digest: TokenDigest, now: Instant) -> Result<(Awaited, bool), Refusal> {
        let mut state = self.lock();
        if let Some(under_way) = state.asked.get(&digest) {
            return Ok((under_way.clone(), false));
        }
        if state.asked.len() >= WAITING_MAX {
            self.metrics.introspected(Introspection::Busy);
            return Err(Refusal::Unavailable);
        }
        if !state.breaker.admits(now) {
            self.metrics.introspected(Introspection::Spared);
            return Err(Refusal::Unavailable);
        }
        let (sender, receiver) = watch::channel(None);
        state.asked.insert(digest, receiver.clone());
        // A task of its own: who asked may leave, and others wait for the same answer.
        let asking = Asking { provider: self.clone(), digest, outcome: None };
        let token = token.to_owned();
        tokio::spawn(async move { asking.run(&token, sender).await });
        Ok((receiver, true))
    }

    /// Sends one question and reads its answer; with it its size.
    async fn question(&self, token: &str) -> Result<(Said, usize), Fault> {
        // Who waits here longer than an answer may take would not be answered in time either.
        let permit = tokio::time::timeout(self.settings.client.timeout, self.permits.acquire()).await;
        let Ok(Ok(_permit)) = permit else { return Err(Fault::Busy) };
        let Some(request) = self.request(token) else {
            return Ok((Err(AuthenticationError::invalid("the token cannot be a token")), 0));
        };
        let began = clock::now().instant;
        let answer = self.client.ask(request, ANSWER_MAX_BYTES).await;
        self.metrics.introspection_took(clock::now().instant - began);
        let answer = answer.map_err(|failure| match failure {
            Failure::TimedOut => Fault::TimedOut,
            Failure::Other(why) => Fault::Failed(why),
        })?;
        let said = self.read(&answer).map_err(Fault::Failed)?;
        Ok((said, answer.body.len()))
    }

    /// `None`: the token cannot stand in a header.
    fn request(&self, token: &str) -> Option<Request<Full<Bytes>>> {
        let request = Request::builder().uri(&self.uri).header(header::ACCEPT, "application/json");
        let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner).clone();
        let sensitive = |text: String| {
            let mut value = HeaderValue::try_from(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let request = match &self.settings.question {
            Question::Present { scheme } => {
                let request = request.header(header::AUTHORIZATION, sensitive(format!("{scheme} {token}"))?);
                return request.body(Full::default()).ok();
            }
            Question::Introspect(Credentials::None) => request,
            Question::Introspect(Credentials::Basic { id, .. }) => {
                // RFC 6749 section 2.3.1: as in a form, then as in a header.
                let encoded = |bytes: &[u8]| form_urlencoded::byte_serialize(bytes).collect::<String>();
                let basic = headers::Authorization::basic(&encoded(id.as_bytes()), &encoded(&secret));
                request.header(header::AUTHORIZATION, basic.0.encode())
            }
            Question::Introspect(Credentials::Bearer(_)) => {
                let secret = String::from_utf8(secret).ok()?;
                request.header(header::AUTHORIZATION, sensitive(format!("Bearer {secret}"))?)
            }
        };
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .finish();
        let request = request.method("POST").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        request.body(Full::from(form)).ok()
    }

    /// # Errors
    /// The answer is none.
    fn read(&self, answer: &Answer) -> Result<Said, String> {
        let reading = Reading { settings: &self.settings, unix_ms: clock::now().unix_ms };
        match (&self.settings.question, answer.status) {
            (Question::Introspect(_), 200) => reading.introspected(&answer.body),
            (Question::Present { .. }, 200) => reading.presented(&answer.body),
            (Question::Present { .. }, 401 | 403) => Ok(Err(reading::inactive())),
            // What the provider says of this request says nothing of others. A 404 or 405 is of the address, which is
            // everybody's.
            (Question::Present { .. }, 400 | 410 | 413 | 414 | 422 | 431) => {
                Ok(Err(AuthenticationError::invalid("whoever knows tokens refuses this one")))
            }
            (Question::Introspect(_), status @ (401 | 403)) => {
                Err(format!("status {status}: it does not accept this service's own credentials"))
            }
            (_, status) => Err(format!("the answer's status is {status}, not 200")),
        }
    }
}

/// Why there is no answer.
enum Fault {
    /// All places for questions are taken.
    Busy,
    TimedOut,
    Failed(String),
}

/// One question. However it ends, nobody waits for it any more, and the breaker knows.
struct Asking {
    provider: Arc<Provider>,
    digest: TokenDigest,
    outcome: Option<Result<(Said, usize), Fault>>,
}

impl Asking {
    async fn run(mut self, token: &str, sender: watch::Sender<Option<Result<Said, ()>>>) {
        let outcome = self.provider.question(token).await;
        let said = outcome.as_ref().map(|(said, _)| said.clone()).map_err(|_| ());
        self.outcome = Some(outcome);
        // First remembered, then told: who comes in between finds the answer.
        drop(self);
        let _ = sender.send(Some(said));
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let provider = &self.provider;
        let now = clock::now().instant;
        let outcome =
            self.outcome.take().unwrap_or_else(|| Err(Fault::Failed("the question was broken off".to_owned())));
        let counted = match &outcome {
            Ok((Ok(_), _)) => Introspection::Good,
            Ok((Err(_), _)) => Introspection::Bad,
            Err(Fault::Busy) => Introspection::Busy,
            Err(Fault::TimedOut) => Introspection::TimedOut,
            Err(Fault::Failed(_)) => Introspection::Failed,
        };
        provider.metrics.introspected(counted);
        let mut state = provider.lock();
        state.asked.remove(&self.digest);
        if let Ok((said, bytes)) = &outcome {
            state.answers.put(self.digest, said, *bytes, now);
        }
        // That strangers ask about too many tokens says nothing of the provider; but who was sent to try it has to report.
        let tells = !matches!(outcome, Err(Fault::Busy)) || state.breaker.is_trying();
        let is_news = tells && state.breaker.record(outcome.is_ok(), now);
        let is_closed = state.breaker.is_closed();
        provider.metrics.introspection_state(state.answers.len(), !is_closed);
        drop(state);
        if is_news && let Err(fault) = &outcome {
            let why = match fault {
                Fault::Busy => "too many questions are waiting",
                Fault::TimedOut => "no answer in time",
                Fault::Failed(why) => why,
            };
            tracing::warn!(
                reason = why,
                left_alone = !is_closed,
                "a token cannot be checked: the provider does not answer"
            );
        }
    }
}
