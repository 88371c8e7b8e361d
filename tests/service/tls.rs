//! TLS on both listeners of the real binary: served, watched, asked for its health, and with a certificate that is
//! replaced while it runs.

use std::{fs, path::Path, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{
    harness::{PATIENCE, SECRET, Service, binary, http, http_whole, token, token_with, until},
    support::{self, brokers::Certificates},
};

const OPERATIONS_TOKEN: &str = "a-token-of-the-operators";

/// The files of a listener, which a test may replace, and who trusts them.
struct Tls {
    folder: tempfile::TempDir,
    connector: TlsConnector,
}

fn connector(authority: &Path) -> TlsConnector {
    support::install_crypto();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

impl Tls {
    fn new(certificates: &Certificates) -> Self {
        let tls = Self { folder: tempfile::tempdir().unwrap(), connector: connector(&certificates.authority) };
        tls.put(&certificates.certificate, &certificates.key);
        tls
    }

    fn put(&self, certificate: &Path, key: &Path) {
        fs::copy(certificate, self.at("tls.crt")).unwrap();
        fs::copy(key, self.at("tls.key")).unwrap();
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Both listeners with this certificate; ready.
    async fn serve(&self, more: &[(&str, &str)]) -> Service {
        let (certificate, key) = (self.at("tls.crt").display().to_string(), self.at("tls.key").display().to_string());
        let mut environment = vec![
            ("TASKCAST_HTTP_TLS_CERTIFICATE_FILE", certificate.as_str()),
            ("TASKCAST_HTTP_TLS_KEY_FILE", key.as_str()),
            ("TASKCAST_OPERATIONS_TLS_CERTIFICATE_FILE", certificate.as_str()),
            ("TASKCAST_OPERATIONS_TLS_KEY_FILE", key.as_str()),
            ("TASKCAST_OPERATIONS_TOKEN", OPERATIONS_TOKEN),
        ];
        environment.extend(more);
        let service = Service::start_unready(&environment).await;
        until("it is ready", async || self.get(service.operations_port, "/readyz", "").await.0 == 200).await;
        service
    }

    async fn connect(&self, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
    }

    async fn ask(&self, port: u16, request: &str) -> (u16, String) {
        let exchange = async {
            let mut stream = self.connect(port).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer").unwrap_or_default();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    async fn get(&self, port: u16, path: &str, token: &str) -> (u16, String) {
        let authorization = if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") };
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{authorization}connection: close\r\n\r\n");
        self.ask(port, &request).await
    }

    async fn publish(&self, port: u16, event: &Value) {
        let (token, body) = (token_with("worker", &[], true), event.to_string());
        let request = format!(
            "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, answer) = self.ask(port, &request).await;
        assert_eq!(status, 202, "{answer}");
    }

    /// A client of u1 that has read its snapshot.
    async fn attach(&self, port: u16) -> Socket {
        let mut request = format!("wss://localhost:{port}/ws/tasks/").into_client_request().unwrap();
        request.headers_mut().insert("Authorization", format!("Bearer {}", token("u1")).parse().unwrap());
        let stream = self.connect(port).await.unwrap();
        let mut socket = tokio_tungstenite::client_async(request, stream).await.unwrap().0;
        until_type(&mut socket, "active_tasks").await;
        socket
    }

    async fn metric(&self, service: &Service, part: &str) -> u64 {
        let (_, text) = self.get(service.operations_port, "/metrics", OPERATIONS_TOKEN).await;
        let series = text.lines().filter(|line| !line.starts_with('#') && line.contains(part));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64
    }
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

async fn next(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a frame").expect("a frame").unwrap();
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

async fn until_type(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let frame = next(socket).await;
        if frame["type"] == kind {
            return frame;
        }
    }
}

#[tokio::test]
async fn a_browser_and_an_operator_are_served_over_tls() {
    let tls = Tls::new(&Certificates::make());
    let service = tls.serve(&[]).await;
    let mut browser = tls.attach(service.port).await;
    for progress in [10, 20, 30] {
        tls.publish(service.port, &json!({"task_id": "t", "user_id": "u1", "progress": progress})).await;
        assert_eq!(until_type(&mut browser, "task_progress").await["progress"], json!(progress));
    }
    browser.send(Message::text(r#"{"type":"ping","id":"p"}"#)).await.unwrap();
    assert_eq!(until_type(&mut browser, "pong").await["id"], "p");
    // Without TLS there is nothing to be had.
    let (status, _, body) = http_whole(service.port, "GET", "/", &[], "").await;
    assert_eq!((status, body.contains("speaks TLS")), (400, true), "{body}");
    assert_eq!(tls.get(service.operations_port, "/livez", "").await.0, 200);
    assert_eq!(tls.get(service.operations_port, "/metrics", "").await.0, 401);
    assert_eq!(tls.get(service.operations_port, "/metrics", "another-token-of-theirs").await.0, 401);
    assert_eq!(tls.get(service.operations_port, "/metrics", OPERATIONS_TOKEN).await.0, 200);
    browser.close(None).await.unwrap();
    let served = async || tls.metric(&service, "taskcast_closes_total{code=\"1000\"}").await;
    until("the close was read", async || served().await == 1).await;
}

#[tokio::test]
async fn who_is_refused_at_the_door_hears_why_inside_tls() {
    let tls = Tls::new(&Certificates::make());
    let service =
        tls.serve(&[("TASKCAST_LIMITS_DENY_NETWORKS", "127.0.0.0/8"), ("TASKCAST_ORIGINS", "https://app.test")]).await;
    let request = "GET /api/v1/tasks HTTP/1.1\r\nhost: localhost\r\norigin: https://app.test\r\n\r\n";
    let mut stream = tls.connect(service.port).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    // A peer that ends without its last word of TLS is an error of the library's.
    let _ = reading.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("network-refused"), "{answer}");
    assert!(answer.contains("access-control-allow-origin: https://app.test"), "{answer}");
    assert!(tls.metric(&service, "taskcast_limit_refusals_total{limit=\"networks\"}").await >= 1);
    let (status, _, body) = http_whole(service.port, "GET", "/", &[], "").await;
    assert_eq!((status, body.contains("speaks TLS")), (400, true), "{body}");
}

#[tokio::test]
async fn a_slow_reader_over_tls_holds_up_nobody_and_comes_to_the_end() {
    let tls = Tls::new(&Certificates::make());
    // On a busy machine it is slower than the default allows.
    let service = tls.serve(&[("TASKCAST_SESSIONS_WRITE_TIMEOUT_MS", "600000")]).await;
    let (mut slow, mut quick) = (tls.attach(service.port).await, tls.attach(service.port).await);
    // More than sockets and buffers between the two take.
    let filler = "x".repeat(4_000);
    for number in 1..100 {
        let event =
            |part| json!({"task_id": format!("t{part}"), "user_id": "u1", "current": number, "message": filler});
        tls.publish(service.port, &(0..100).map(event).collect()).await;
        while until_type(&mut quick, "task_progress").await["current"] != json!(number) {}
    }
    tls.publish(service.port, &json!({"task_id": "t0", "user_id": "u1", "status": "succeeded"})).await;
    assert_eq!(until_type(&mut quick, "task_completed").await["task_id"], "t0");
    let mut taken = 0;
    while next(&mut slow).await["type"] != "task_completed" {
        taken += 1;
    }
    assert!(taken < 99 * 100, "{taken}: nothing was folded, so it was not slow");
}

#[tokio::test]
async fn a_drain_says_goodbye_over_tls_too() {
    let tls = Tls::new(&Certificates::make());
    let service = tls.serve(&[("TASKCAST_DRAIN_SECONDS", "1")]).await;
    let mut browser = tls.attach(service.port).await;
    let ended = tokio::spawn(service.terminate());
    until_type(&mut browser, "server_draining").await;
    let code = loop {
        let message = tokio::time::timeout(PATIENCE, browser.next()).await.expect("a close").unwrap().unwrap();
        if let Message::Close(frame) = message {
            break frame.map(|frame| u16::from(frame.code));
        }
    };
    assert_eq!((code, ended.await.unwrap()), (Some(1012), Some(0)));
}

#[tokio::test]
async fn the_health_check_asks_over_tls_and_brings_the_token_where_probes_need_it() {
    let tls = Tls::new(&Certificates::make());
    let service = tls.serve(&[]).await;
    let operations_port = service.operations_port;
    let healthy = |more: &[(&str, &str)]| {
        let mut command = binary();
        command.arg("healthcheck").env("TASKCAST_AUTH_SECRET", SECRET);
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{operations_port}"));
        command.env("TASKCAST_OPERATIONS_TLS_CERTIFICATE_FILE", tls.at("tls.crt"));
        command.env("TASKCAST_OPERATIONS_TLS_KEY_FILE", tls.at("tls.key"));
        command.envs(more.iter().copied()).output().unwrap()
    };
    assert_eq!(healthy(&[]).status.code(), Some(0));
    // The pair is being replaced: the service still has the one before.
    fs::write(tls.at("tls.key"), "half a key").unwrap();
    assert_eq!(healthy(&[]).status.code(), Some(0));
    drop(service);
    let refused = healthy(&[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not ready: https://"), "{refused:?}");
}

#[tokio::test]
async fn probes_need_the_token_where_that_is_asked_for() {
    let service = Service::start_unready(&[
        ("TASKCAST_OPERATIONS_TOKEN", OPERATIONS_TOKEN),
        ("TASKCAST_OPERATIONS_TOKEN_FOR_PROBES", "true"),
    ])
    .await;
    assert_eq!(service.operations("/livez").await.0, 401);
    assert_eq!(service.operations("/readyz").await.0, 401);
    let healthy = |token: &str| {
        let mut command = binary();
        command.arg("healthcheck").env("TASKCAST_OPERATIONS_TOKEN_FOR_PROBES", "true");
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{}", service.operations_port));
        command.env("TASKCAST_OPERATIONS_TOKEN", token).output().unwrap().status.code()
    };
    until("it is ready", async || healthy(OPERATIONS_TOKEN) == Some(0)).await;
    assert_eq!(healthy("another-token-of-theirs"), Some(1));
}

#[tokio::test]
async fn the_token_of_the_operators_follows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, format!("{OPERATIONS_TOKEN}\n")).unwrap();
    let service = Service::start(&[("TASKCAST_OPERATIONS_TOKEN_FILE", &file.display().to_string())]).await;
    let asks = async |token: &str| {
        let bearer = format!("Bearer {token}");
        http(service.operations_port, "GET", "/metrics", &[("Authorization", &bearer)], "").await.0
    };
    assert_eq!((asks(OPERATIONS_TOKEN).await, asks("another-token-of-theirs").await), (200, 401));
    fs::write(&file, "too short").unwrap();
    fs::write(&file, "another-token-of-theirs").unwrap();
    until("the new one is good", async || asks("another-token-of-theirs").await == 200).await;
    assert_eq!(asks(OPERATIONS_TOKEN).await, 401);
}

#[tokio::test]
async fn a_certificate_that_is_replaced_is_used_without_a_restart_and_a_bad_one_never() {
    let (first, second) = (Certificates::make(), Certificates::make());
    let mut tls = Tls::new(&first);
    let service = tls.serve(&[]).await;
    let mut open = tls.attach(service.port).await;
    // A certificate with the key of another one.
    tls.put(&second.certificate, &first.key);
    let reloads = "taskcast_tls_certificate_reloads_total{listener=\"public\",outcome=";
    until("the bad pair was refused", async || tls.metric(&service, &format!("{reloads}\"refused\"")).await == 1).await;
    assert_eq!(tls.get(service.port, "/", "").await.0, 200);
    tls.put(&second.certificate, &second.key);
    tls.connector = connector(&second.authority);
    until("the new one is shown", async || tls.get(service.port, "/", "").await.0 == 200).await;
    until("to operators too", async || tls.get(service.operations_port, "/livez", "").await.0 == 200).await;
    assert_eq!(tls.metric(&service, &format!("{reloads}\"replaced\"")).await, 1);
    let expires = tls.metric(&service, "taskcast_tls_certificate_expires_timestamp_seconds{listener=\"public\"}").await;
    let days = expires.saturating_sub(taskcast::clock::now().unix_ms / 1000) / 86_400;
    assert_eq!(days, 1, "the certificates of the tests are good for two days");
    // Who was connected does not notice.
    tls.publish(service.port, &json!({"task_id": "t", "user_id": "u1", "progress": 1})).await;
    assert_eq!(until_type(&mut open, "task_progress").await["task_id"], "t");
}

/// Most of it is the library's: keys, and buffers that it keeps once they were used.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_idle_connection_over_tls_takes_some_kibibytes_more() {
    const CONNECTIONS: u64 = 300;
    const KIBIBYTES_MAX: u64 = 24;
    let tls = Tls::new(&Certificates::make());
    let service = tls.serve(&[]).await;
    let resident = async || tls.metric(&service, "process_resident_memory_bytes").await / 1024;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(tls.attach(service.port).await);
    }
    let before = resident().await;
    for _ in 0..CONNECTIONS {
        open.push(tls.attach(service.port).await);
    }
    let each = resident().await.saturating_sub(before) / CONNECTIONS;
    assert!((1..=KIBIBYTES_MAX).contains(&each), "{each} KiB for each idle connection over TLS");
}
