//! The accept loop: connections under a limit, each served HTTP/1.1 by hyper with a timeout for its first request and
//! another for its idle times, and let go in order when told to stop. warp's own server has none of these.
//!
//! Refuses to know: what is routed where.

use std::{
    convert::Infallible,
    future::{self, Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;
use warp::{
    filters::BoxedFilter,
    http::Request,
    hyper::{self, body::Incoming, server::conn::http1, service::Service},
    reply::Response,
};

use super::{
    Peer, RETRY_AFTER_SECONDS,
    crowd::{Crowd, Member},
    entrance::{Entrance, Visitor},
    event_stream::{self, Lending},
    handshake::Handshakes,
    lent::{Lender, Lent},
    long_poll,
    refusal::Refusals,
    routes::Route,
    socket,
    upgrade::Permit,
};
use crate::{
    clock,
    limits::Refusal,
    metrics::{Handshake, Limit, Metrics},
};

/// Connections that wait in the kernel to be accepted. The usual 128 are full in a few milliseconds when everyone comes
/// back at once, and who finds no room there is not told: its kernel tries again after a second, then after two, then
/// four. Linux allows no more than `net.core.somaxconn`, which is 4096 unless somebody changed it.
const BACKLOG: u32 = 16 * 1024;

/// Connections whose first request is looked at, at a time. When thousands bring theirs in the same moment the others
/// wait without being scheduled, so that the reader of the log, sessions and probes find a short queue before them.
const TURNS: usize = 64;

/// The pause after `accept` failed, as it does without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be, and who goes when there is one more.
#[derive(Clone, Copy)]
pub(super) enum Room {
    /// The one that comes.
    Bounded(usize),
    /// The one that has been there longest.
    OldestLeaves(usize),
}

/// Who is let in, how many connections, and how patiently.
pub(super) struct Limits {
    pub entrance: Entrance,
    pub room: Room,
    /// The longest head of a request, in bytes.
    pub header_max_bytes: usize,
    /// From accepting a connection to the end of its first request's head: who opens connections and says nothing
    /// keeps no place for long.
    pub header_timeout: Duration,
    /// From a response to the end of the next request's head. Longer, as reverse proxies keep connections for reuse,
    /// and one that is closed from here just when it is reused costs a request.
    pub keep_alive_timeout: Duration,
}

/// Binds a listener for [`serve`].
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // What is left of connections before a restart does not keep the port. Elsewhere than on Unix this means another
    // thing: that two may listen on one port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What every connection of a listener shares.
struct Shared {
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    refusals: Refusals,
    metrics: Arc<Metrics>,
    turns: Semaphore,
    /// `None`: plain.
    tls: Option<Handshakes>,
    stop: CancellationToken,
}

/// Accepts until `stop` is cancelled.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Handshakes>,
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let (places, crowd) = match limits.room {
        Room::Bounded(max) => (max.min(Semaphore::MAX_PERMITS), None),
        Room::OldestLeaves(max) => (Semaphore::MAX_PERMITS, Some(Crowd::new(max))),
    };
    let places = Arc::new(Semaphore::new(places));
    let refusals = Refusals::new(limits.entrance.origins().clone());
    let turns = Semaphore::new(TURNS);
    let shared =
        Arc::new(Shared { routes, limits, refusals, metrics: metrics.clone(), turns, tls, stop: stop.clone() });
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let admitted = match places.clone().try_acquire_owned() {
            Ok(place) => shared.limits.entrance.greet(address, clock::now()).map(|visitor| (place, visitor)),
            Err(_) => Err(over_capacity(&metrics)),
        };
        match admitted {
            Ok((place, visitor)) => {
                socket::prepare(&stream);
                let serving = serve_connection(stream, visitor, place, shared.clone());
                match &crowd {
                    None => tracker.spawn(serving.in_current_span()),
                    Some(crowd) => tracker.spawn(make_room(crowd.enter(), serving, metrics.clone()).in_current_span()),
                };
            }
            Err(refused) => {
                if let Some(place) = shared.refusals.place() {
                    let shared = shared.clone();
                    tracker.spawn(async move { shared.turn_away(stream, refused, place).await }.in_current_span());
                }
            }
        }
    }
}

/// Serves until a newer connection needs the place.
async fn make_room(place: Member, serving: impl Future<Output = ()>, metrics: Arc<Metrics>) {
    if place.stay(serving).await.is_none() {
        metrics.limit_refused(Limit::OperationsConnections);
    }
}

/// All places of the listener are taken.
fn over_capacity(metrics: &Metrics) -> Refusal {
    metrics.handshake(Handshake::OverCapacity);
    metrics.limit_refused(Limit::Connections);
    Refusal { limit: Limit::Connections, retry_after: Some(Duration::from_secs(RETRY_AFTER_SECONDS.into())) }
}

/// Errors of one connection that died in the backlog are nothing; others last a while and would spin the loop.
async fn pause_after(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        tracing::error!(%error, "cannot accept connections; is the limit of open files too low?");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Serves a connection from its first byte on. Until then it costs next to nothing, however many there are: hyper takes
/// 16 KiB for its buffers as soon as it looks at one.
async fn serve_connection(
    mut stream: TcpStream,
    mut visitor: Visitor,
    place: OwnedSemaphorePermit,
    shared: Arc<Shared>,
) {
    if visitor.must_introduce {
        // Boxed, as few do.
        match Box::pin(shared.introduce(&mut stream, visitor)).await {
            Ok(introduced) => visitor = introduced,
            Err(refused) => {
                if let (Some(refused), Some(place)) = (refused, shared.refusals.place()) {
                    Box::pin(shared.turn_away(stream, refused, place)).await;
                }
                return;
            }
        }
    }
    let asked = Arc::new(Notify::new());
    let mut silence = pin!(silence(&asked, shared.limits.header_timeout));
    let mut first_byte = [0];
    let has_begun = tokio::select! {
        biased;
        // Not `readable`, which may say so when there is nothing to read yet.
        peeked = stream.peek(&mut first_byte) => matches!(peeked, Ok(1..)),
        () = silence.as_mut() => {
            shared.metrics.limit_refused(Limit::HeaderTime);
            false
        }
        // A browser opens connections that it may never use.
        () = shared.stop.cancelled() => false,
    };
    if !has_begun {
        tracing::debug!(peer = %visitor.peer, "a connection ended before it brought anything");
        return;
    }
    let permit = Permit::new(place, visitor.place.take());
    let requests = |visitor, permit, lender| Requests {
        routes: TowerToHyperService::new(warp::service(shared.routes.clone())),
        asked: asked.clone(),
        shared: shared.clone(),
        visitor,
        permit,
        lender,
    };
    let Some(tls) = &shared.tls else {
        let turn = shared.turns.acquire().await;
        let lent = Lent::new(stream);
        let requests = requests(visitor, permit, Lender::Plain(lent.clone()));
        return begin(Box::pin(serve_requests(lent, requests, &shared, silence)), turn).await;
    };
    // Boxed: larger than what a plain connection takes until its first byte.
    Box::pin(async {
        let shaken = {
            let given_up = pin!(async {
                tokio::select! {
                    () = silence.as_mut() => {}
                    () = shared.stop.cancelled() => {}
                }
            });
            tls.shake_hands(stream, first_byte[0], &shared.turns, given_up).await
        };
        if let Some(stream) = shaken {
            let turn = shared.turns.acquire().await;
            let lent = Lent::new(stream);
            let requests = requests(visitor, permit, Lender::Encrypted(lent.clone()));
            begin(Box::pin(serve_requests(lent, requests, &shared, silence)), turn).await;
        }
    })
    .await;
}

/// Serves with a first look, in its turn, at what a connection brought.
async fn begin(mut serving: Pin<Box<impl Future<Output = ()>>>, turn: Result<SemaphorePermit<'_>, AcquireError>) {
    // A request that is there whole is answered at once. Who sends theirs bit by bit holds up nobody.
    let first = poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx))).await;
    // All who have other work come before whoever has the next turn.
    behind_others().await;
    drop(turn);
    if first.is_pending() {
        serving.await;
    }
}

impl Shared {
    /// Says why somebody is not let in.
    async fn turn_away(&self, stream: TcpStream, refused: Refusal, place: OwnedSemaphorePermit) {
        let telling = async {
            match &self.tls {
                Some(tls) => self.refusals.say_over_tls(tls, &self.turns, stream, refused).await,
                None => self.refusals.say(stream, refused).await,
            }
        };
        self.stop.run_until_cancelled(telling).await;
        drop(place);
    }

    /// Waits for what a trusted proxy has to say first.
    async fn introduce(&self, stream: &mut TcpStream, visitor: Visitor) -> Result<Visitor, Option<Refusal>> {
        let introduction = self.limits.entrance.introduce(stream, visitor, self.limits.header_timeout, clock::now);
        self.stop.run_until_cancelled(introduction).await.ok_or(None)?
    }

    /// Resets, timeouts and malformed requests: the peer's doing.
    fn ended_early(&self, error: &hyper::Error, peer: SocketAddr) {
        if error.is_parse_too_large() {
            self.metrics.limit_refused(Limit::HeaderBytes);
        } else if error.is_timeout() {
            self.metrics.limit_refused(Limit::HeaderTime);
        }
        tracing::debug!(%error, %peer, "a connection ended early");
    }
}

/// Ends when everyone who is ready by now has been polled. tokio's own yield waits for a look at the sockets besides, which
/// may come in the middle of a long queue, or when it is empty.
pub(super) async fn behind_others() {
    let mut was_polled = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut was_polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Serves requests on one connection until it is closed, upgraded or told to stop, or `silence` ends.
async fn serve_requests<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    requests: Requests<S>,
    shared: &Shared,
    mut silence: Pin<&mut impl Future<Output = ()>>,
) where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    let peer = requests.visitor.peer;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.keep_alive_timeout)
        .max_buf_size(shared.limits.header_max_bytes);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), requests).with_upgrades());
    let mut stopping = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = shared.stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = silence.as_mut() => {
                shared.metrics.limit_refused(Limit::HeaderTime);
                tracing::debug!(%peer, "a connection brought no request in time");
                return;
            }
        }
    };
    if let Err(error) = ended {
        shared.ended_early(&error, peer);
    }
}

/// Ends when no request has come within `limit`; never once one has.
async fn silence(asked: &Notify, limit: Duration) {
    if timeout(limit, asked.notified()).await.is_ok() {
        future::pending::<()>().await;
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

/// hyper's service for one connection: tells each request where it came from, and times and counts each response.
struct Requests<S> {
    routes: S,
    /// Told of each request.
    asked: Arc<Notify>,
    shared: Arc<Shared>,
    visitor: Visitor,
    permit: Permit,
    lender: Lender,
}

impl<S> Service<Request<Incoming>> for Requests<S>
where
    S: Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let now = clock::now();
        let started = now.instant;
        self.asked.notify_one();
        let client = match self.shared.limits.entrance.client(&self.visitor, request.headers(), now) {
            Ok(client) => client,
            Err(refused) => return self.refuse(refused, &request, started),
        };
        // The path only: the query may hold a token.
        let span = tracing::debug_span!(
            "request",
            method = %request.method(),
            path = request.uri().path(),
            peer = %self.visitor.peer,
            client = %client.caller.address()
        );
        request.extensions_mut().insert(Peer(self.visitor.peer));
        request.extensions_mut().insert(client);
        request.extensions_mut().insert(self.permit.clone());
        if [event_stream::PATHS, long_poll::PATHS].iter().any(|paths| request.uri().path().starts_with(paths)) {
            let lending = Lending { lender: self.lender.clone(), version: request.version() };
            request.extensions_mut().insert(lending);
        }
        let answer = self.routes.call(request);
        let metrics = self.shared.metrics.clone();
        let reported = async move {
            let response = answer.await?;
            report(&response, started, &metrics);
            Ok(response)
        };
        Box::pin(reported.instrument(span))
    }
}

impl<S> Requests<S> {
    /// Answers without asking what it is that they want.
    fn refuse(&self, refused: Refusal, request: &Request<Incoming>, started: Instant) -> Answer {
        let (method, path) = (request.method(), request.uri().path());
        let mut response = self.shared.refusals.response(refused, method, path, request.headers());
        response.extensions_mut().insert(Route("refused"));
        report(&response, started, &self.shared.metrics);
        Box::pin(future::ready(Ok(response)))
    }
}

fn report(response: &Response, started: Instant, metrics: &Metrics) {
    let route = response.extensions().get::<Route>().map_or("unknown", |route| route.0);
    let status = response.status().as_u16();
    let took = clock::now().instant.saturating_duration_since(started);
    metrics.http_request(route, status, took);
    tracing::debug!(route, status, took_ms = took.as_millis(), "answered");
}

#[cfg(test)]
#[path = "accept_tests.rs"]
mod tests;
