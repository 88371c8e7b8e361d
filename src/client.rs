//! The way out: one HTTP question to an issuer, a provider or a collector, with a limit for its time and its size. Redirects are
//! not followed: where secrets and tokens are sent was configured, and is not for an answer to choose.
//!
//! Refuses to know: what is asked, and what an answer means.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Connections that are kept for the next question, and how long. Less than what servers usually keep them for.
const IDLE_MAX: usize = 8;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer's head.
const HEAD_MAX_BYTES: usize = 32 * 1024;

/// How those outside are spoken to.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// For a whole question, from the name's lookup to the answer's last byte.
    pub timeout: Duration,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub tls_ca_file: Option<PathBuf>,
}

/// Asks.
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    /// `Cache-Control: max-age`; zero for `no-store` and `no-cache`.
    pub max_age: Option<Duration>,
    /// `Retry-After`, if it is in seconds.
    pub retry_after: Option<Duration>,
    pub body: Bytes,
}

/// Why nothing did, in words for the operator, without what was sent.
#[derive(Debug)]
pub enum Failure {
    TimedOut,
    Other(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// Sent with each of several requests. Their values may be secret: whatever shows a request hides them.
#[derive(Clone, Debug)]
pub struct Headers(HeaderMap);

impl Headers {
    /// Later ones win.
    ///
    /// # Errors
    /// One that is no header; its value is not shown.
    pub fn new(given: &[(String, String)]) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
            let (known, mut value) = parsed.ok_or_else(|| format!("{name:?} with its value is no header"))?;
            value.set_sensitive(true);
            headers.insert(known, value);
        }
        Ok(Self(headers))
    }
}

impl Client {
    /// # Errors
    /// A file of certificate authorities that cannot be used.
    pub fn new(settings: &ClientSettings) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = &settings.tls_ca_file {
            trust(&mut roots, path).map_err(|why| format!("{}: {why}", path.display()))?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(settings.timeout));
        // Which addresses may be plain `http` is decided where they are configured.
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_max_buf_size(HEAD_MAX_BYTES)
            .build(connector);
        Ok(Self { pool, timeout: settings.timeout })
    }

    /// Asks once.
    ///
    /// # Errors
    /// No answer, in time or at all, or a body that is longer than `body_max_bytes`.
    pub async fn ask(&self, request: Request<Full<Bytes>>, body_max_bytes: usize) -> Result<Answer, Failure> {
        let asked = async {
            let response = self.pool.request(request).await.map_err(|error| Failure::Other(chain(&error)))?;
            let (status, max_age) = (response.status().as_u16(), max_age(&response));
            let retry_after = retry_after(&response);
            let body = Limited::new(response.into_body(), body_max_bytes).collect().await;
            let body = body.map_err(|error| Failure::Other(format!("the answer cannot be read: {error}")))?.to_bytes();
            Ok(Answer { status, max_age, retry_after, body })
        };
        tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(Failure::TimedOut))
    }
}

impl Client {
    /// Tells something, and reads the answer.
    ///
    /// # Errors
    /// As [`Client::ask`]; an address that is none.
    pub async fn post(
        &self,
        address: &str,
        headers: &Headers,
        body: Vec<u8>,
        answer_max_bytes: usize,
    ) -> Result<Answer, Failure> {
        let request = Request::post(address).body(Full::new(body.into()));
        let mut request = request.map_err(|error| Failure::Other(error.to_string()))?;
        *request.headers_mut() = headers.0.clone();
        self.ask(request, answer_max_bytes).await
    }
}

fn trust(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())? {
        roots.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn max_age(response: &Response<Incoming>) -> Option<Duration> {
    let values = response.headers().get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    for directive in values.flat_map(|value| value.split(',')).map(|directive| directive.trim().to_ascii_lowercase()) {
        match directive.split_once('=') {
            None if ["no-store", "no-cache"].contains(&directive.as_str()) => return Some(Duration::ZERO),
            Some(("max-age", seconds)) => {
                found = seconds.trim_matches('"').parse().ok().map(Duration::from_secs).or(found);
            }
            _ => {}
        }
    }
    found
}

fn retry_after(response: &Response<Incoming>) -> Option<Duration> {
    let value = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// An error with what is behind it, where the reason usually is.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&str, &str)]) -> Result<Headers, String> {
        let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Headers::new(&given)
    }

    #[test]
    fn values_of_headers_are_not_shown_and_later_ones_win() {
        let headers = headers(&[("X-Key", "first"), ("x-key", "hunter2")]).unwrap();
        assert_eq!(headers.0.get_all("x-key").iter().collect::<Vec<_>>(), ["hunter2"]);
        assert!(!format!("{headers:?}").contains("hunter2"), "{headers:?}");
    }

    #[test]
    fn what_is_no_header_is_refused_without_its_value() {
        for (name, value) in [("", "hunter2"), ("a b", "hunter2"), ("a", "hunter2\r\nb: c")] {
            let why = headers(&[(name, value)]).unwrap_err();
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
