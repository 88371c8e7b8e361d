//! Verifiers, keys and tokens, with verbs.

use std::{process::Command, sync::Arc, time::Duration};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use taskcast::{
    auth::{
        Address, ClientSettings, Identity, JwtSettings, Key, KeySetPlace, KeySetSettings, Refusal, Settings, Verifier,
    },
    clock,
    metrics::Metrics,
};

use crate::support::identity_provider::Reply;

/// Nothing that is awaited here takes longer unless something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A verifier that runs, and what it counts.
pub struct Running {
    pub verifier: Verifier,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub fn start(settings: Settings) -> Self {
        let metrics = Arc::new(Metrics::new("memory"));
        let verifier = Verifier::counted(settings, metrics.clone()).unwrap();
        let kept = verifier.clone();
        Self { verifier, metrics, task: tokio::spawn(async move { kept.run().await }) }
    }

    /// Who it is, or the code, or `later`.
    pub async fn outcome(&self, token: &str) -> String {
        outcome(&self.verifier.identify(Some(token), clock::now()).await)
    }

    /// Asks again and again until this is the outcome.
    pub async fn until(&self, token: &str, expected: &str) {
        until(expected, async || self.outcome(token).await == expected).await;
    }

    /// The sum of a metric's series whose text holds `part`.
    pub fn metric(&self, part: &str) -> u64 {
        crate::support::metric(&self.metrics.render().unwrap(), part)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn outcome(result: &Result<Identity, Refusal>) -> String {
    match result {
        Ok(identity) => identity.user.as_ref().map_or("nobody".to_owned(), ToString::to_string),
        Err(Refusal::Token(error)) => error.code.as_str().to_owned(),
        Err(Refusal::Unavailable) => "later".to_owned(),
    }
}

pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let asked = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

pub fn client() -> ClientSettings {
    ClientSettings { timeout: Duration::from_secs(2), tls_ca_file: None }
}

pub fn key_set(url: &str) -> Key {
    let place = KeySetPlace::Url(Address(url.parse().unwrap()));
    let (refresh, keep) = (Duration::from_secs(3600), Duration::from_secs(3600));
    Key::KeySet(Box::new(KeySetSettings { place, refresh, keep, client: client() }))
}

pub fn issuer(key: Key) -> JwtSettings {
    JwtSettings {
        key,
        algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
        user_claim: None,
        audience: Vec::new(),
        issuer: Vec::new(),
        leeway: Duration::ZERO,
        max_age_without_expiry: None,
    }
}

pub fn published(url: &str) -> Settings {
    Settings::Jwt(Box::new(issuer(key_set(url))))
}

/// A key pair, made by openssl now.
pub struct Pair {
    pub algorithm: Algorithm,
    pub private: EncodingKey,
    pub public_pem: Vec<u8>,
}

impl Pair {
    pub fn rsa() -> Self {
        Self::make("-algorithm RSA -pkeyopt rsa_keygen_bits:2048", Algorithm::RS256, EncodingKey::from_rsa_pem)
    }

    pub fn elliptic() -> Self {
        Self::make("-algorithm EC -pkeyopt ec_paramgen_curve:P-256", Algorithm::ES256, EncodingKey::from_ec_pem)
    }

    pub fn edwards() -> Self {
        Self::make("-algorithm ED25519", Algorithm::EdDSA, EncodingKey::from_ed_pem)
    }

    fn make(kind: &str, algorithm: Algorithm, read: fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let output =
                Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
            assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        };
        openssl(&format!("genpkey {kind} -out key.pem"));
        openssl("pkey -in key.pem -pubout -out public.pem");
        let private = read(&std::fs::read(folder.path().join("key.pem")).unwrap()).unwrap();
        Self { algorithm, private, public_pem: std::fs::read(folder.path().join("public.pem")).unwrap() }
    }

    /// As an issuer publishes it.
    pub fn jwk(&self, name: &str) -> Value {
        let mut jwk = serde_json::to_value(Jwk::from_encoding_key(&self.private, self.algorithm).unwrap()).unwrap();
        jwk["kid"] = json!(name);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A token of `u1` that names its key.
    pub fn token(&self, name: &str) -> String {
        self.sign(Some(name), &claims())
    }

    pub fn sign(&self, name: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = name.map(str::to_owned);
        encode(&header, claims, &self.private).unwrap()
    }
}

pub fn claims() -> Value {
    json!({"sub": "u1", "exp": clock::now().unix_ms / 1000 + 600})
}

pub fn set(keys: &[Value]) -> Reply {
    Reply::json(&json!({ "keys": keys }))
}
