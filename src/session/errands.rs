//! What a session waits for that others do: a request to cancel on its way to the log, a token at the verifier, be it a
//! fresh one or its own again. One of each at a time.
//!
//! Refuses to know: what comes of it.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll},
};

use super::{
    machine::{Cancel, Session},
    refresh::Refresh,
};
use crate::{
    auth::{Identity, OpaqueToken, Refusal, Verifier},
    clock::{self, Now},
    input::Publisher,
    proto::RequestId,
};

/// What a session has for others to do, until there is room for it.
#[derive(Default)]
pub(super) struct Waiting(Option<Box<Queue>>);

/// Boxed: an idle session has none.
#[derive(Default)]
struct Queue {
    cancels: VecDeque<Cancel>,
    refresh: Option<Refresh>,
    /// Its own token, which is to be asked about again.
    own: Option<OpaqueToken>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn cancels(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.cancels.len())
    }

    pub(super) fn cancel(&mut self, cancel: Cancel) {
        self.0.get_or_insert_default().cancels.push_back(cancel);
    }

    /// `None` when another one waits already.
    pub(super) fn refresh(&mut self, refresh: Refresh) -> Option<()> {
        let queue = self.0.get_or_insert_default();
        queue.refresh.is_none().then(|| queue.refresh = Some(refresh))
    }

    fn take_cancel(&mut self) -> Option<Cancel> {
        let cancel = self.0.as_mut()?.cancels.pop_front();
        self.tidy();
        cancel
    }

    pub(super) fn take_refresh(&mut self) -> Option<Refresh> {
        let refresh = self.0.as_mut()?.refresh.take();
        self.tidy();
        refresh
    }

    pub(super) fn ask_again(&mut self, own: OpaqueToken) {
        self.0.get_or_insert_default().own = Some(own);
    }

    pub(super) fn take_own(&mut self) -> Option<OpaqueToken> {
        let own = self.0.as_mut()?.own.take();
        self.tidy();
        own
    }

    fn tidy(&mut self) {
        self.0.take_if(|queue| queue.cancels.is_empty() && queue.refresh.is_none() && queue.own.is_none());
    }
}

type Errand<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;
type Verified = Result<Identity, Refusal>;

/// What is under way. Boxed: an idle connection has none.
#[derive(Default)]
pub(super) struct Errands(Option<Box<UnderWay>>);

#[derive(Default)]
struct UnderWay {
    /// The log bounds how long that takes.
    cancelling: Errand<(Box<Cancel>, bool)>,
    verifying: Errand<Done>,
}

/// What has been done. Boxed: every open connection keeps room for one.
pub(super) enum Done {
    Cancelled(Box<Cancel>, bool),
    Verified(Option<RequestId>, Box<Verified>),
    Asked(OpaqueToken, Box<Verified>),
}

impl Errands {
    /// Sends off what the session has, as far as there is room.
    pub(super) fn send(&mut self, session: &mut Session) {
        if session.waiting.is_empty() {
            return;
        }
        let under_way = self.0.get_or_insert_default();
        if under_way.cancelling.is_none()
            && let Some(cancel) = session.waiting.take_cancel()
        {
            under_way.cancelling = Some(Box::pin(append(session.shared.publisher.clone(), cancel)));
        }
        if under_way.verifying.is_some() {
            return;
        }
        let verifier = || session.shared.verifier.clone();
        if let Some(refresh) = session.waiting.take_refresh() {
            under_way.verifying = Some(Box::pin(verify(verifier(), refresh)));
        } else if let Some(own) = session.waiting.take_own() {
            under_way.verifying = Some(Box::pin(ask_again(verifier(), own)));
        }
    }

    /// The next one that is done; never, while there is none. Cancel safe.
    pub(super) async fn done(&mut self) -> Done {
        poll_fn(|cx| {
            let done = self.0.as_mut().map_or(Poll::Pending, |under_way| under_way.poll(cx));
            self.0.take_if(|under_way| under_way.is_empty());
            done
        })
        .await
    }
}

impl UnderWay {
    fn is_empty(&self) -> bool {
        self.cancelling.is_none() && self.verifying.is_none()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Done> {
        if let Some(verifying) = &mut self.verifying
            && let Poll::Ready(done) = verifying.as_mut().poll(cx)
        {
            self.verifying = None;
            return Poll::Ready(done);
        }
        if let Some(cancelling) = &mut self.cancelling
            && let Poll::Ready((cancel, success)) = cancelling.as_mut().poll(cx)
        {
            self.cancelling = None;
            return Poll::Ready(Done::Cancelled(cancel, success));
        }
        Poll::Pending
    }
}

impl Session {
    pub(super) fn on_done(&mut self, done: Done, now: Now) {
        match done {
            Done::Cancelled(cancel, success) => self.on_cancelled(*cancel, success, now),
            Done::Verified(id, verified) => self.on_verified(id, *verified, now),
            Done::Asked(own, answer) => self.on_asked(&own, *answer, now),
        }
    }
}

async fn append(publisher: Publisher, cancel: Cancel) -> (Box<Cancel>, bool) {
    let appended = publisher.publish(std::slice::from_ref(&cancel.event)).await;
    (Box::new(cancel), appended.is_ok())
}

async fn verify(verifier: Verifier, refresh: Refresh) -> Done {
    Done::Verified(refresh.id, Box::new(verifier.identify(Some(&refresh.token), clock::now()).await))
}

async fn ask_again(verifier: Verifier, own: OpaqueToken) -> Done {
    let answer = verifier.identify(Some(own.as_str()), clock::now()).await;
    Done::Asked(own, Box::new(answer))
}
