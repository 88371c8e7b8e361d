//! Handshakes over real sockets: how long, how many, and what does not speak TLS.

use std::net::SocketAddr;

use futures_util::FutureExt;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject};
use tokio_rustls::{TlsConnector, client};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::{Filter, reply::Response};

use super::*;
use crate::{
    clock,
    http::entrance::Entrance,
    http::{Peer, accept},
    tls::{Certificate, Files},
};

/// A listener that speaks TLS and tells every caller its port.
struct Server {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    tracker: TaskTracker,
    connector: TlsConnector,
}

fn tls() -> (Acceptor, TlsConnector) {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let files = Files { certificate: folder.path().join("tls.crt"), key: folder.path().join("tls.key") };
    std::fs::write(&files.certificate, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    let acceptor = Certificate::open(files).unwrap().acceptor().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (acceptor, TlsConnector::from(Arc::new(client)))
}

impl Server {
    fn start(header_timeout: Duration) -> Self {
        let (acceptor, connector) = tls();
        let metrics = Arc::new(Metrics::new("memory"));
        let listener = accept::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let routes = warp::path!("peer").and(warp::ext::get::<Peer>());
        let routes = routes.map(|peer: Peer| Response::new(peer.0.port().to_string().into())).boxed();
        let entrance = Entrance::open(metrics.clone(), clock::now());
        let (room, keep_alive_timeout) = (accept::Room::Bounded(100), PATIENT);
        let limits = accept::Limits { entrance, room, header_max_bytes: 65_536, header_timeout, keep_alive_timeout };
        let handshakes = Handshakes::new(acceptor, Listener::Public, metrics.clone());
        let serving =
            accept::serve(listener, Some(handshakes), routes, limits, metrics.clone(), tracker.clone(), stop.clone());
        tracker.spawn(serving);
        Self { address, metrics, stop, tracker, connector }
    }

    async fn connect(&self) -> client::TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        self.connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
    }

    fn counted(&self, outcome: &str) -> bool {
        let series = format!(r#"taskcast_tls_handshakes_total{{listener="public",outcome="{outcome}"}} 1"#);
        self.metrics.render().unwrap().contains(&series)
    }
}

const PATIENT: Duration = Duration::from_mins(1);
const BRIEF: Duration = Duration::from_millis(50);

/// All that comes until the connection ends; a reset is an end too.
async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut rest = Vec::new();
    let _ = timeout(PATIENT, stream.read_to_end(&mut rest)).await.expect("an end");
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test]
async fn a_request_inside_tls_is_answered_and_knows_its_peer() {
    let server = Server::start(PATIENT);
    let mut stream = server.connect().await;
    let port = stream.get_ref().0.local_addr().unwrap().port().to_string();
    stream.write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with(&port), "{answer}");
    assert!(server.counted("accepted"));
}

#[tokio::test]
async fn whoever_does_not_speak_tls_is_told_so_in_plain_words() {
    let server = Server::start(PATIENT);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /peer HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("use https:// or wss://."), "{answer}");
    let length = answer.split("\r\n\r\n").nth(1).unwrap().len();
    assert!(answer.contains(&format!("content-length: {length}\r\n")), "{answer}");
    assert!(server.counted("not_tls"));
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_in_time_ends() {
    let server = Server::start(BRIEF);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // The head of a record whose end never comes.
    stream.write_all(&[HANDSHAKE_RECORD, 3, 1, 1, 0]).await.unwrap();
    rest(&mut stream).await;
    assert!(server.counted("timed_out"));
}

#[tokio::test]
async fn what_is_no_handshake_ends_it_with_an_alert() {
    let server = Server::start(PATIENT);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(&[HANDSHAKE_RECORD, 3, 1, 0, 4, 1, 2, 3, 4]).await.unwrap();
    rest(&mut stream).await;
    assert!(server.counted("failed"));
}

#[tokio::test]
async fn who_says_nothing_inside_tls_is_dropped_too() {
    // Long enough for an honest handshake.
    let server = Server::start(Duration::from_secs(2));
    let mut stream = server.connect().await;
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_stop_waits_for_no_handshake() {
    let server = Server::start(PATIENT);
    let mut half = TcpStream::connect(server.address).await.unwrap();
    half.write_all(&[HANDSHAKE_RECORD]).await.unwrap();
    let mut silent = server.connect().await;
    server.stop.cancel();
    server.tracker.close();
    timeout(PATIENT, server.tracker.wait()).await.expect("all ended");
    assert_eq!((rest(&mut half).await, rest(&mut silent).await), (String::new(), String::new()));
}

#[tokio::test]
async fn the_oldest_handshake_makes_room_for_the_newest() {
    let (acceptor, _) = tls();
    let handshakes = Handshakes::new(acceptor, Listener::Public, Arc::new(Metrics::new("memory")));
    let under_way = &handshakes.under_way;
    let (mut first, mut second) = (under_way.enter(), under_way.enter());
    // Those that end give their place back.
    for _ in 0..2 * UNDER_WAY_MAX {
        drop(under_way.enter());
    }
    assert!(first.crowded_out().now_or_never().is_none());
    let _held: Vec<_> = (0..UNDER_WAY_MAX - 1).map(|_| under_way.enter()).collect();
    assert!(first.crowded_out().now_or_never().is_some());
    assert!(second.crowded_out().now_or_never().is_none());
}
