//! A measurement: what a connection over TLS costs the service before its first request, beside one without TLS.

#![expect(clippy::print_stdout, reason = "what was measured is told")]

use std::{fs, sync::Arc};

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::Resumption,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{harness::Service, support};

const CONNECTIONS: u32 = 2_000;

/// One request, which is the same everywhere, to the end of its answer; a ticket is read with it.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
}

/// CPU that the process has used, in ticks of 10 ms: fields 14 and 15 of proc(5)'s `stat`.
fn ticks(service: &Service) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", service.id())).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Microseconds of CPU for each connection.
async fn cost(service: &Service, connect: impl AsyncFn(TcpStream)) -> f64 {
    let before = ticks(service);
    for _ in 0..CONNECTIONS {
        connect(TcpStream::connect(("127.0.0.1", service.port)).await.unwrap()).await;
    }
    (ticks(service) - before) as f64 * 10_000.0 / f64::from(CONNECTIONS)
}

async fn encrypted(
    algorithm: &'static SignatureAlgorithm,
    version: &'static SupportedProtocolVersion,
    resumes: bool,
) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(algorithm).unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (crt, pem) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    fs::write(&crt, certificate.pem()).unwrap();
    fs::write(&pem, key.serialize_pem()).unwrap();
    let files = [
        ("TASKCAST_HTTP_TLS_CERTIFICATE_FILE", crt.display().to_string()),
        ("TASKCAST_HTTP_TLS_KEY_FILE", pem.display().to_string()),
    ];
    let service = Service::start(&files.each_ref().map(|(name, path)| (*name, path.as_str()))).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.pem().as_bytes()).unwrap()).unwrap();
    let client = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
    let mut client = client.with_no_client_auth();
    if !resumes {
        client.resumption = Resumption::disabled();
    }
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("localhost").unwrap();
    cost(&service, async |stream| exchange(connector.connect(name.clone(), stream).await.unwrap()).await).await
}

#[tokio::test]
#[ignore = "a measurement: cargo test --release --test service how_many_tls -- --ignored --nocapture"]
async fn how_many_tls_handshakes_one_core_makes_in_a_second() {
    support::install_crypto();
    let service = Service::start(&[]).await;
    let plain = cost(&service, async |stream| exchange(stream).await).await;
    println!("without TLS: {plain:.0} µs of CPU for a connection with one request");
    for (name, algorithm, version, resumes) in [
        ("ECDSA P-256, TLS 1.3", &PKCS_ECDSA_P256_SHA256, &TLS13, false),
        ("ECDSA P-256, TLS 1.3, resumed", &PKCS_ECDSA_P256_SHA256, &TLS13, true),
        ("ECDSA P-256, TLS 1.2", &PKCS_ECDSA_P256_SHA256, &TLS12, false),
        ("RSA 2048, TLS 1.3", &PKCS_RSA_SHA256, &TLS13, false),
    ] {
        let handshake = encrypted(algorithm, version, resumes).await - plain;
        println!("{name}: {handshake:.0} µs more, {:.0} handshakes per second of a core", 1e6 / handshake);
    }
}
