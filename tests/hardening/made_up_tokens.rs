//! Opaque tokens that nobody issued, by the thousand: each is a question to the provider, which others ask too.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    harness::http,
    support::identity_provider::{IdentityProvider, Reply},
    target::{MB, Target},
};

/// Asks with one made-up token after the other, over a connection of its own.
async fn make_up(port: u16, count: &AtomicU64) {
    loop {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        let mut answer = [0; 2048];
        loop {
            let number = count.fetch_add(1, Ordering::Relaxed);
            let request = format!(
                "GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer made-up-{number}\r\n\r\n"
            );
            if stream.write_all(request.as_bytes()).await.is_err() || !matches!(stream.read(&mut answer).await, Ok(1..))
            {
                break;
            }
        }
    }
}

/// Somebody makes up tokens, faster than the provider can answer. Who is known is let in all the while; who is not known
/// yet is, too, sooner or later; and nothing that is remembered of made-up tokens grows without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_tokens_by_the_thousand_keep_nobody_out() {
    const BOUND: u64 = 64 * MB;
    let provider = IdentityProvider::start(Reply::status(401)).await;
    provider.reply_by(|request| {
        let is_good = request.contains("token=good");
        Reply::json(&json!({"active": is_good, "sub": "u1", "exp": 4_000_000_000_u64}))
            .after(Duration::from_millis(100))
    });
    let settings = [
        ("TASKCAST_AUTH_MODE", "introspection"),
        ("TASKCAST_AUTH_INTROSPECTION_URL", &*provider.url("/introspect")),
        ("TASKCAST_AUTH_REQUEST_TIMEOUT_MS", "1000"),
        ("TASKCAST_LOG_LEVEL", "warn"),
    ];
    let mut target = Target::start(&settings).await;
    let ask = async |token: &str| {
        http(target.port, "GET", "/api/v1/tasks", &[("Authorization", &format!("Bearer {token}"))], "").await.0
    };
    assert_eq!(ask("good-0").await, 200);
    let count = Arc::<AtomicU64>::default();
    let shared = count.clone();
    let port = target.port;
    let flood = tokio::spawn(async move { join_all((0..200).map(|_| make_up(port, &shared))).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut outcomes = Vec::new();
    for round in 1..=10 {
        assert_eq!(ask("good-0").await, 200, "who is known");
        outcomes.push(ask(&format!("good-{round}")).await);
    }
    flood.abort();
    println!(
        "{outcomes:?} beside {} made-up tokens, {} of them asked about",
        count.load(Ordering::Relaxed),
        provider.count()
    );
    assert!(outcomes.iter().filter(|status| **status == 200).count() >= 3, "{outcomes:?}");
    assert!(target.peak() < BOUND, "{} MB", target.peak() / MB);
    target.stands().await;
}
