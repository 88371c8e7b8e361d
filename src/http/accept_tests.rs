//! The accept loop over real sockets, with routes of its own.

use tokio::io::BufReader;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::task::yield_now;
use warp::Filter;

use super::*;

/// A listener with a route `/peer` that tells the caller's port, `/slow` that waits for `release`, and a limit.
struct Server {
    address: std::net::SocketAddr,
    metrics: Arc<Metrics>,
    tracker: TaskTracker,
    stop: CancellationToken,
    release: CancellationToken,
}

/// Everybody is let in.
fn limits(metrics: &Arc<Metrics>, room: Room, header_timeout: Duration, keep_alive_timeout: Duration) -> Limits {
    let entrance = Entrance::open(metrics.clone(), clock::now());
    Limits { entrance, room, header_max_bytes: 65_536, header_timeout, keep_alive_timeout }
}

impl Server {
    fn start(connections_max: usize, header_timeout: Duration, keep_alive_timeout: Duration) -> Self {
        Self::start_with(Room::Bounded(connections_max), header_timeout, keep_alive_timeout)
    }

    fn start_with(room: Room, header_timeout: Duration, keep_alive_timeout: Duration) -> Self {
        let (stop, release, tracker) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let metrics = Arc::new(Metrics::new("memory"));
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = warp::path!("peer").and(warp::ext::get::<Peer>()).map(|peer: Peer| {
            let mut response = Response::new(peer.0.port().to_string().into());
            response.extensions_mut().insert(Route("/peer"));
            response
        });
        let held = release.clone();
        let slow = warp::path!("slow").then(move || {
            let held = held.clone();
            async move {
                held.cancelled().await;
                Response::new("slow".to_owned().into())
            }
        });
        let routes = peer.or(slow).unify().boxed();
        let limits = limits(&metrics, room, header_timeout, keep_alive_timeout);
        tracker.spawn(serve(listener, None, routes, limits, metrics.clone(), tracker.clone(), stop.clone()));
        Self { address, metrics, tracker, stop, release }
    }

    async fn connect(&self) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect(self.address).await.unwrap())
    }
}

async fn ask(stream: &mut BufReader<TcpStream>, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// One response: its status line and its body.
async fn answer(stream: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> (String, String) {
    let (mut status, mut length) = (String::new(), 0);
    stream.read_line(&mut status).await.unwrap();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (status.trim().to_owned(), String::from_utf8(body).unwrap())
}

const PATIENT: Duration = Duration::from_mins(1);
const BRIEF: Duration = Duration::from_millis(50);

#[tokio::test]
async fn requests_on_one_connection_know_their_peer_and_are_counted_by_route() {
    let server = Server::start(5, PATIENT, PATIENT);
    let mut stream = server.connect().await;
    let port = stream.get_ref().local_addr().unwrap().port().to_string();
    for _ in 0..2 {
        ask(&mut stream, "/peer?token=sesame").await;
        assert_eq!(answer(&mut stream).await, ("HTTP/1.1 200 OK".to_owned(), port.clone()));
    }
    let rendered = server.metrics.render().unwrap();
    assert!(rendered.contains(r#"taskcast_http_requests_total{route="/peer",status="200"} 2"#), "{rendered}");
    assert!(!rendered.contains("sesame"), "{rendered}");
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_503_and_a_freed_place_is_given_away_again() {
    let server = Server::start(1, PATIENT, PATIENT);
    let mut first = server.connect().await;
    ask(&mut first, "/peer").await;
    answer(&mut first).await;

    let mut second = server.connect().await;
    ask(&mut second, "/peer").await;
    let (status, body) = answer(&mut second).await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["type"], "urn:taskcast:problem:over-capacity");
    assert!(server.metrics.render().unwrap().contains(r#"outcome="over_capacity"} 1"#));

    drop(first);
    let a_place = async {
        let mut place_is_free = false;
        while !place_is_free {
            let mut third = server.connect().await;
            ask(&mut third, "/peer").await;
            place_is_free = answer(&mut third).await.0.contains("200");
        }
    };
    // A permit that leaked is a failure, not a test that never ends.
    tokio::time::timeout(Duration::from_secs(20), a_place).await.expect("the place stayed taken");
}

#[tokio::test]
async fn where_the_oldest_makes_room_whoever_asks_is_answered_however_many_hold_places() {
    let server = Server::start_with(Room::OldestLeaves(3), PATIENT, PATIENT);
    let mut held = Vec::new();
    // Silent, in the middle of a head, and idle behind an answer.
    for head in ["", "GET /peer HT", "GET /peer HTTP/1.1\r\nhost: x\r\n\r\n"].repeat(4) {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let mut asks = server.connect().await;
    ask(&mut asks, "/peer").await;
    assert_eq!(answer(&mut asks).await.0, "HTTP/1.1 200 OK");
    // All but the last two had to go.
    let last_two = held.split_off(10);
    for mut gone in held {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = tokio::time::timeout(PATIENT / 2, gone.read_to_end(&mut rest)).await.expect("its place is lost");
    }
    let rendered = server.metrics.render().unwrap();
    assert!(rendered.contains(r#"taskcast_limit_refusals_total{limit="operations_connections_max"} 10"#), "{rendered}");
    drop(last_two);
}

#[tokio::test]
async fn a_peer_that_never_ends_its_head_is_dropped() {
    let server = Server::start(2, BRIEF, PATIENT);
    for head in ["GET /peer HTTP/1.1\r\nhost:", "G", ""] {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Without the timeout it would hang here.
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(!String::from_utf8_lossy(&rest).contains("200 OK"), "{head}");
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_takes_less_than_a_kibibyte() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let (stream, permit) = (TcpStream::connect(address).await.unwrap(), Arc::new(Semaphore::new(1)));
    let routes = warp::any().map(|| Response::new(String::new().into())).boxed();
    let metrics = Arc::new(Metrics::new("memory"));
    let limits = limits(&metrics, Room::Bounded(1), PATIENT, PATIENT);
    let turns = Semaphore::new(1);
    let refusals = Refusals::new(crate::http::OriginPolicy::default());
    let shared =
        Arc::new(Shared { routes, limits, refusals, metrics, turns, tls: None, stop: CancellationToken::new() });
    let visitor = shared.limits.entrance.greet(address, clock::now()).unwrap();
    let bytes = size_of_val(&serve_connection(stream, visitor, permit.try_acquire_owned().unwrap(), shared));
    assert!(bytes < 1024, "{bytes} bytes before hyper sees it");
}

#[tokio::test]
async fn who_sends_a_head_bit_by_bit_holds_up_nobody() {
    let server = Server::start(3 * TURNS, PATIENT, PATIENT);
    let mut slow = Vec::new();
    for _ in 0..2 * TURNS {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /peer HT").await.unwrap();
        slow.push(stream);
    }
    let mut stream = server.connect().await;
    ask(&mut stream, "/peer").await;
    let answered = tokio::time::timeout(Duration::from_secs(20), answer(&mut stream)).await;
    assert_eq!(answered.expect("an answer").0, "HTTP/1.1 200 OK");
    for stream in &mut slow {
        stream.write_all(b"TP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(answer(stream).await.0, "HTTP/1.1 200 OK");
    }
}

#[tokio::test]
async fn whoever_else_has_work_waits_for_a_few_requests_and_not_for_a_storm() {
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let mut clients: Vec<_> = (0..8 * TURNS).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
    let answered = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = answered.clone();
    let routes = warp::any().map(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Response::new(String::new().into())
    });
    let (metrics, tracker, stop) = (Arc::new(Metrics::new("memory")), TaskTracker::new(), CancellationToken::new());
    let limits = limits(&metrics, Room::Bounded(clients.len()), PATIENT, PATIENT);
    tokio::spawn(serve(listener, None, routes.boxed(), limits, metrics, tracker.clone(), stop));
    while tracker.len() < clients.len() {
        yield_now().await;
    }
    let all = clients.len();
    let other = tokio::spawn(async move {
        let (mut before, mut most) = (0, 0);
        while before < all {
            behind_others().await;
            let now = answered.load(std::sync::atomic::Ordering::Relaxed);
            most = most.max(now - before);
            before = now;
        }
        most
    });
    for _ in 0..all {
        yield_now().await;
    }
    // All of them before the runtime sees the first.
    for client in &mut clients {
        std::io::Write::write_all(client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    }
    let most = other.await.unwrap();
    assert!(most <= 3 * TURNS, "{most} in a row");
}

#[tokio::test]
async fn a_connection_that_waits_for_its_next_request_outlives_the_header_timeout() {
    let server = Server::start(2, BRIEF, PATIENT);
    let mut reused = server.connect().await;
    ask(&mut reused, "/peer").await;
    answer(&mut reused).await;
    // One that never asks is the clock: once it is dropped, the header timeout is over for the other one too.
    assert_eq!(server.connect().await.read(&mut [0; 1]).await.unwrap(), 0);
    ask(&mut reused, "/peer").await;
    assert_eq!(answer(&mut reused).await.0, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn a_connection_without_a_next_request_is_closed_in_the_end() {
    let server = Server::start(1, PATIENT, BRIEF);
    let mut idle = server.connect().await;
    ask(&mut idle, "/peer").await;
    answer(&mut idle).await;
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
}

#[tokio::test]
async fn stopping_closes_idle_connections_and_finishes_requests_under_way() {
    let server = Server::start(5, PATIENT, PATIENT);
    let mut silent = server.connect().await;
    let (mut idle, mut busy, mut last) = (server.connect().await, server.connect().await, server.connect().await);
    ask(&mut idle, "/peer").await;
    answer(&mut idle).await;
    ask(&mut busy, "/slow").await;
    // A request on the last connection is answered after the others were accepted, as accepting goes in order.
    ask(&mut last, "/peer").await;
    answer(&mut last).await;

    server.stop.cancel();
    let mut nothing = [0; 1];
    let ended = tokio::time::timeout(PATIENT / 2, silent.read(&mut nothing)).await;
    assert_eq!(ended.expect("a connection that says nothing hears of it").unwrap(), 0);
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap(), 0);
    server.release.cancel();
    assert_eq!(answer(&mut busy).await.1, "slow");
    assert_eq!(busy.read(&mut [0; 1]).await.unwrap(), 0);
    server.tracker.close();
    server.tracker.wait().await;
    assert!(TcpStream::connect(server.address).await.is_err());
}
