//! The same slowness and the same crowds where the service speaks TLS: handshakes that are begun and never finished, heads and
//! frames a byte at a time inside, and ten thousand who hold what they began.

use std::{path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    bystander::{HALF_OPEN, Strikes, feels_nothing, hold_half_open, to_be_answered},
    harness::token,
    support::{self, brokers::Certificates},
    target::{MB, Target, soon},
    wire::{FINAL, TEXT, frame, handshake},
};

/// A target that speaks TLS, and who trusts it. Its own port is that of a tunnel, so that bystanders and honest clients need not
/// know; an attacker takes `port`.
struct Encrypted {
    target: Target,
    port: u16,
    client: Arc<ClientConfig>,
}

fn trusting(authority: &Path) -> Arc<ClientConfig> {
    support::install_crypto();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn localhost() -> ServerName<'static> {
    ServerName::try_from("localhost").unwrap()
}

/// Whoever connects there speaks TLS to `port`.
async fn tunnel(port: u16, client: Arc<ClientConfig>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let connector = TlsConnector::from(client.clone());
            tokio::spawn(async move {
                near.set_nodelay(true).unwrap();
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                far.set_nodelay(true).unwrap();
                if let Ok(mut far) = connector.connect(localhost(), far).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    address.port()
}

impl Encrypted {
    async fn start(alone: bool, more: &[(&str, &str)]) -> Self {
        let certificates = Certificates::make();
        let (certificate, key) =
            (certificates.certificate.display().to_string(), certificates.key.display().to_string());
        let files = [
            ("TASKCAST_HTTP_TLS_CERTIFICATE_FILE", certificate.as_str()),
            ("TASKCAST_HTTP_TLS_KEY_FILE", key.as_str()),
        ];
        let environment = [&files[..], more].concat();
        let mut target =
            if alone { Target::start_alone(&environment).await } else { Target::start(&environment).await };
        let client = trusting(&certificates.authority);
        let port = target.port;
        target.port = tunnel(port, client.clone()).await;
        Self { target, port, client }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        TlsConnector::from(self.client.clone()).connect(localhost(), stream).await.unwrap()
    }
}

/// The first flight of a client, good for as many connections as one likes.
fn client_hello(client: &Arc<ClientConfig>) -> Vec<u8> {
    let mut connection = ClientConnection::new(client.clone(), localhost()).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

/// Sends `drop` every 50 ms for as long as the other end keeps the connection.
async fn drip(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, drop: &[u8]) {
    let dripping = async {
        let mut bytes = [0; 4096];
        loop {
            match tokio::time::timeout(Duration::from_millis(50), stream.read(&mut bytes)).await {
                Ok(Ok(0) | Err(_)) => return,
                Ok(Ok(_)) => {}
                Err(_) if stream.write_all(drop).await.is_err() => return,
                Err(_) => {
                    let _ = stream.flush().await;
                }
            }
        }
    };
    soon("the end of the connection", dripping).await;
}

/// A handshake a byte at a time, a head a byte at a time inside TLS, silence inside TLS: each ends in time.
#[tokio::test]
async fn who_is_slow_inside_tls_or_on_the_way_there_is_let_go_in_time() {
    let encrypted = Encrypted::start(false, &[("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "600")]).await;
    let hello = client_hello(&encrypted.client);
    let begun = async |bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", encrypted.port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    };
    // Of a record so long that its end is never reached.
    let record = [22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb];
    let mut inside = encrypted.connect().await;
    inside.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await.unwrap();
    tokio::join!(
        drip(begun(&record).await, b"\0"),
        drip(begun(&hello).await, b""),
        drip(begun(&hello[..40]).await, b""),
        drip(encrypted.connect().await, b""),
        drip(inside, b"a"),
    );
    let given_up =
        encrypted.target.metric("taskcast_tls_handshakes_total{listener=\"public\",outcome=\"timed_out\"}").await;
    assert_eq!(given_up, 3);
    encrypted.target.stays_unharmed().await;
}

/// A frame a byte at a time inside TLS, each byte in a record of its own: no sign of life, however often one comes.
#[tokio::test]
async fn who_sends_a_frame_slowly_inside_tls_is_taken_for_dead() {
    let patience =
        [("TASKCAST_SESSIONS_HEARTBEAT_INTERVAL_MS", "300"), ("TASKCAST_SESSIONS_DEAD_PEER_TIMEOUT_MS", "1200")];
    let encrypted = Encrypted::start(false, &patience).await;
    let mut stream = encrypted.connect().await;
    let bearer = format!("Authorization: Bearer {}\r\n", token("u1"));
    stream.write_all(handshake("/ws/tasks/", &bearer).as_bytes()).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 1024]).await, Ok(1..)));
    stream.write_all(&frame(FINAL | TEXT, &[b' '; 10_000])[..8]).await.unwrap();
    drip(stream, b" ").await;
    encrypted.target.stays_unharmed().await;
}

/// As many handshakes as the service lets be under way.
const UNDER_WAY_MAX: usize = 2_048;

/// 10,000 connections that stay where they are: silent, in the middle of a `ClientHello`, and with a whole one whose answer, a
/// signature, is never finished. The same `ClientHello` serves for all, so it costs who sends it nothing.
#[tokio::test]
async fn ten_thousand_half_open_tls_handshakes_are_not_felt_by_others() {
    // What TLS holds of a handshake, for as many as may be under way.
    const BOUND: u64 = 160 * MB;
    let patient = [("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "60000")];
    let encrypted = Encrypted::start(true, &patient).await;
    let (port, hello) = (encrypted.port, client_hello(&encrypted.client));
    let attack = move |_, strikes: Arc<Strikes>| {
        let hello = hello.clone();
        async move {
            let mut held = hold_half_open(port, &hello, &strikes).await;
            // All that it still has to sign for are among the last; the flood of signatures is another test.
            let mut answered = 0;
            for stream in to_be_answered(&mut held).rev().take(UNDER_WAY_MAX) {
                answered += usize::from(matches!(stream.read(&mut [0; 1024]).await, Ok(1..)));
            }
            assert!(answered > 0, "an answer to a ClientHello");
            strikes.stand();
            std::future::pending::<()>().await;
        }
    };
    feels_nothing(&encrypted.target, BOUND, HALF_OPEN, attack).await;
    let crowded_out = "taskcast_tls_handshakes_total{listener=\"public\",outcome=\"crowded_out\"}";
    assert!(encrypted.target.metric(crowded_out).await > 4_000, "those that only hold places lose them");
    encrypted.target.stays_unharmed().await;
}

/// One handshake after the other, as fast as they are answered, none of which is finished: a signature for each.
#[tokio::test]
async fn a_flood_of_tls_handshakes_is_not_felt_by_others() {
    const BOUND: u64 = 96 * MB;
    let encrypted = Encrypted::start(true, &[]).await;
    let (port, hello) = (encrypted.port, client_hello(&encrypted.client));
    let attack = move |_, strikes: Arc<Strikes>| begin_handshakes(port, hello.clone(), strikes);
    feels_nothing(&encrypted.target, BOUND, 200, attack).await;
    encrypted.target.stays_unharmed().await;
}

async fn begin_handshakes(port: u16, hello: Vec<u8>, strikes: Arc<Strikes>) {
    strikes.stand();
    let strike = async || loop {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        let _ = stream.write_all(&hello).await;
        let _ = stream.read(&mut [0; 4096]).await;
        strikes.add(1);
    };
    tokio::join!(strike(), strike(), strike(), strike());
}
