//! A certificate that follows its files, and real handshakes with it.

use std::{fs, path::Path};

use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, pki_types::CertificateDer};
use rustls::{SupportedProtocolVersion, pki_types::pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

/// A self-signed certificate of localhost and its key.
pub fn pem() -> Pem {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    Pem { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
}

pub fn pem_of_another() -> Pem {
    pem()
}

fn write(folder: &Path, pem: &Pem) -> Files {
    let files = Files { certificate: folder.join("tls.crt"), key: folder.join("tls.key") };
    fs::write(&files.certificate, &pem.certificate).unwrap();
    fs::write(&files.key, &pem.key).unwrap();
    files
}

/// Who trusts this certificate only, speaks these protocols and versions.
fn client(pem: &Pem, alpn: &[&[u8]], versions: &[&'static SupportedProtocolVersion]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&pem.certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_protocol_versions(versions).unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// One handshake and one word each way; what the client knows of the connection.
async fn meet(acceptor: &Acceptor, connector: &TlsConnector) -> std::io::Result<(Option<ProtocolVersion>, Vec<u8>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = acceptor.clone();
    let served = tokio::spawn(async move {
        let mut stream = acceptor.accept(listener.accept().await?.0).await?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await?;
        stream.write_all(&word).await?;
        stream.shutdown().await
    });
    let stream = TcpStream::connect(address).await?;
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
    stream.write_all(b"echo").await?;
    let mut word = [0; 4];
    stream.read_exact(&mut word).await?;
    served.await.unwrap()?;
    let connection: &ClientConnection = stream.get_ref().1;
    Ok((connection.protocol_version(), connection.alpn_protocol().unwrap_or_default().to_vec()))
}

const BOTH: &[&SupportedProtocolVersion] = rustls::ALL_VERSIONS;

#[tokio::test]
async fn a_listener_speaks_both_versions_and_http_1_1_only() {
    let (folder, pem) = (tempfile::tempdir().unwrap(), pem());
    let acceptor = Certificate::open(write(folder.path(), &pem)).unwrap().acceptor().unwrap();
    let modern = meet(&acceptor, &client(&pem, &[b"h2", b"http/1.1"], BOTH)).await.unwrap();
    assert_eq!(modern, (Some(ProtocolVersion::TLSv1_3), b"http/1.1".to_vec()));
    let older = meet(&acceptor, &client(&pem, &[], &[&rustls::version::TLS12])).await.unwrap();
    assert_eq!(older, (Some(ProtocolVersion::TLSv1_2), Vec::new()));
    assert!(meet(&acceptor, &client(&pem, &[b"h2"], BOTH)).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_taken_for_new_connections_and_a_bad_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (pem(), pem_of_another());
    let mut certificate = Certificate::open(write(folder.path(), &first)).unwrap();
    let acceptor = certificate.acceptor().unwrap();
    let trusts = async |pem: &Pem| meet(&acceptor, &client(pem, &[], BOTH)).await.is_ok();
    assert_eq!(certificate.look(), Look::Same);

    // The certificate is there before its key, as it often is for a moment.
    let mixed = Pem { certificate: second.certificate.clone(), key: first.key.clone() };
    write(folder.path(), &mixed);
    assert_eq!(certificate.look(), Look::Changing);
    write(folder.path(), &second);
    assert_eq!(certificate.look(), Look::Changing);
    assert!(trusts(&first).await && !trusts(&second).await);
    assert_eq!(certificate.look(), Look::Replaced);
    assert!(trusts(&second).await && !trusts(&first).await);
    assert_eq!(certificate.look(), Look::Same);

    // One that stays bad is told once, and what was held still serves.
    write(folder.path(), &mixed_of(&first, &second));
    assert_eq!(certificate.look(), Look::Changing);
    let Look::Refused(why) = certificate.look() else { panic!("it was taken") };
    assert!(why.contains("tls.key") && why.contains("not that of"), "{why}");
    assert_eq!(certificate.look(), Look::Same);
    assert!(trusts(&second).await);

    fs::remove_file(folder.path().join("tls.key")).unwrap();
    assert_eq!(certificate.look(), Look::Changing);
    let Look::Refused(why) = certificate.look() else { panic!("it was taken") };
    assert!(why.contains("cannot read"), "{why}");
    assert_eq!(certificate.look(), Look::Same);

    // Back to the one that is held.
    write(folder.path(), &second);
    assert_eq!(certificate.look(), Look::Changing);
    assert_eq!(certificate.look(), Look::Replaced);
    assert!(trusts(&second).await);
}

fn mixed_of(key: &Pem, certificate: &Pem) -> Pem {
    Pem { certificate: certificate.certificate.clone(), key: key.key.clone() }
}

#[test]
fn the_end_of_a_certificate_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 2);
    let certificate = params.self_signed(&key).unwrap();
    let pem = Pem { certificate: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() };
    let certificate = Certificate::open(write(folder.path(), &pem)).unwrap();
    assert_eq!(certificate.expires_at_s(), Some(1_893_542_400));
}

#[test]
fn a_pair_that_cannot_be_used_is_no_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let files = write(folder.path(), &mixed_of(&pem(), &pem_of_another()));
    let why = Certificate::open(files.clone()).err().unwrap();
    assert!(why.contains("tls.key"), "{why}");
    fs::remove_file(&files.certificate).unwrap();
    assert!(Certificate::open(files).err().unwrap().contains("cannot read"));
    let endless = Files { certificate: "/dev/zero".into(), key: "/dev/zero".into() };
    assert!(Certificate::open(endless).err().unwrap().contains("longer than any certificate"));
}
