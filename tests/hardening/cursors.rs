//! Cursors that nobody was given: forged, of another log, of another time.

use futures_util::future::join_all;
use serde_json::json;
use taskcast::clock;

use crate::{
    harness::{Client, token},
    target::{Target, soon},
};

const FAILURES: [&str; 3] = ["malformed", "another_log", "trimmed"];

/// A cursor is told to everybody, and comes back from anybody: negative, beyond all numbers, in another notation, with
/// another proof, of a position that does not exist, of megabytes. It is refused honestly, with a whole snapshot behind it,
/// and shows nobody what is not theirs.
#[tokio::test]
async fn a_forged_cursor_opens_nothing_and_the_snapshot_follows() {
    let target = Target::start(&[]).await;
    target.has_task("mine", Some("u1")).await;
    target.has_task("foreign", Some("u2")).await;
    let mut honest = target.attach("/ws/tasks/", "u1").await;
    honest.settle().await;
    let cursor = honest.cursor();
    let parts: Vec<&str> = cursor.split('.').collect();
    let [format, major, minor, proof] = parts[..] else { panic!("{cursor}") };
    let other_proof = format!("{:08x}", u32::from_str_radix(proof, 16).unwrap() ^ 1);
    let max = "f".repeat(16);
    let forged = [
        format!("{format}.{major}.{minor}.{other_proof}"),
        format!("{format}.{major}.{minor}.00000000"),
        format!("{format}.0.0.{proof}"),
        format!("{format}.{max}.{max}.{proof}"),
        format!("{format}.{major}.{max}.{proof}"),
        format!("{format}.-{major}.{minor}.{proof}"),
        format!("{format}.{major}.-1.{proof}"),
        format!("{format}.{max}0.{minor}.{proof}"),
        format!("{format}.{major}.{minor}.{max}"),
        format!("2.{major}.{minor}.{proof}"),
        format!("{cursor}.0"),
        format!("{cursor}%00"),
        format!("%2b{cursor}"),
        format!("{format}.{major}.{minor}"),
        "..%2f..%2f".to_owned(),
        "%ff%fe".to_owned(),
        "0-0".to_owned(),
        "%24".to_owned(),
        "9".repeat(8000),
    ];
    let began = clock::now().instant;
    let outcomes = join_all(forged.iter().map(async |cursor| {
        let headers = [("Authorization", &*format!("Bearer {}", token("u1")))];
        let mut client = Client::connect(target.port, &format!("/ws/tasks/?cursor={cursor}"), &headers).await;
        let greeting = client.until("connection_established").await;
        assert_eq!(greeting["resumed"], false, "{cursor}: {greeting}");
        let failure = greeting["resume_failure"].as_str().unwrap_or_default().to_owned();
        assert!(FAILURES.contains(&failure.as_str()), "{cursor}: {greeting}");
        let page = client.until("active_tasks").await;
        assert_eq!(page["tasks"].as_array().unwrap().len(), 1, "{page}");
        assert_eq!(page["tasks"][0]["task_id"], "mine");
    }));
    soon("every answer", outcomes).await;
    assert!(began.elapsed().as_secs() < 8, "a cursor from the future holds nobody up: {:?}", began.elapsed());
    // The honest one still resumes: so the above can fail.
    let headers = [("Authorization", &*format!("Bearer {}", token("u1")))];
    let mut client = Client::connect(target.port, &format!("/ws/tasks/?cursor={cursor}"), &headers).await;
    assert_eq!(client.until("connection_established").await["resumed"], true);
    target.stays_unharmed().await;
}

/// Somebody else's cursor, which is genuine: it says how far somebody read, and gives none of what they read.
#[tokio::test]
async fn a_genuine_cursor_of_another_user_shows_nothing_of_theirs() {
    let target = Target::start(&[]).await;
    target.has_task("theirs", Some("u2")).await;
    let mut other = target.attach("/ws/tasks/", "u2").await;
    other.settle().await;
    let cursor = other.cursor();
    target.publish(&json!({"task_id": "theirs", "user_id": "u2", "status": "succeeded"})).await;
    other.until_end_of("theirs").await;
    let headers = [("Authorization", &*format!("Bearer {}", token("u1")))];
    let mut thief = Client::connect(target.port, &format!("/ws/tasks/?cursor={cursor}"), &headers).await;
    assert_eq!(thief.until("connection_established").await["resumed"], true);
    thief.settle().await;
    assert!(!format!("{:?}", thief.frames).contains("theirs"), "{:?}", thief.frames);
    target.stays_unharmed().await;
}
