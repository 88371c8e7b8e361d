//! Lists asked for by who wants to make them expensive.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    harness::{http, token, until},
    target::{MB, Target},
    wire::{Wire, text},
};

/// Fills the table with the largest tasks that a user may have.
async fn large_tasks(target: &Target, count: usize) {
    let result = "x".repeat(32_000);
    for part in 0..count / 20 {
        let events: Vec<_> = (0..20)
            .map(|n| json!({"task_id": format!("large{part}-{n}"), "user_id": "attacker", "result": result}))
            .collect();
        target.publish(&json!(events)).await;
    }
    until("the tasks are there", async || target.metric("taskcast_tasks{").await >= count as u64).await;
}

/// The largest page there is, of the largest tasks there are, for many at a time who do not read it: each request would have
/// a copy of megabytes made, and held.
#[tokio::test]
async fn pages_of_the_largest_tasks_take_no_more_memory_than_a_page_may() {
    const TASKS: usize = 400;
    const READERS: u64 = 40;
    // A page, and what hyper and the kernel hold of it, for each.
    const BOUND: u64 = READERS * 2 * MB;
    let target = Target::start(&[]).await;
    large_tasks(&target, TASKS).await;
    let bearer = format!("Bearer {}", token("attacker"));
    // Their JSON is kept with the tasks from the first time on.
    let (mut shown, mut before) = (0, String::new());
    loop {
        let path = format!("/api/v1/tasks?limit=500{before}");
        let (status, body) = http(target.port, "GET", &path, &[("Authorization", &bearer)], "").await;
        assert!(status == 200 && body.len() as u64 <= 11 * MB / 10, "{} bytes", body.len());
        let page: Value = serde_json::from_str(&body).unwrap();
        shown += page["tasks"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    assert_eq!(shown, TASKS, "who follows `next` sees them all");
    let held = target.resident();
    let request = format!("GET /api/v1/tasks?limit=500 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {bearer}\r\n\r\n");
    let readers = join_all((0..READERS).map(async |_| {
        let mut wire = Wire::connect(target.port).await;
        wire.send(request.as_bytes()).await;
        // The beginning of the answer, and no more.
        wire.until(b"\r\n\r\n").await;
        wire
    }));
    let readers = readers.await;
    let grown = target.resident().saturating_sub(held);
    assert!(grown < BOUND, "{} MB more", grown / MB);
    drop(readers);
    target.stays_unharmed().await;
}

/// `get_active_tasks` a thousand times in one breath: a question of thirty bytes, an answer of megabytes. So many wait, the
/// others are refused at once, and nobody is answered for longer than they read.
#[tokio::test]
async fn asking_for_lists_in_one_breath_gets_a_few_of_them() {
    const QUESTIONS: usize = 200;
    let target = Target::start(&[]).await;
    large_tasks(&target, 100).await;
    let mut wire = Wire::open_as(target.port, &token("attacker")).await;
    while !wire.frame_with("\"active_tasks\"").await.contains("\"more\":false") {}
    wire.send(&text("{\"type\":\"get_active_tasks\"}").repeat(QUESTIONS)).await;
    wire.send(&text("{\"type\":\"ping\",\"id\":\"end\"}")).await;
    wire.frame_with("\"end\"").await;
    let refused = target.metric("taskcast_client_messages_total{outcome=\"LIMIT_REACHED\"}").await as usize;
    assert!((QUESTIONS / 2..QUESTIONS).contains(&refused), "{refused} of {QUESTIONS} refused");
    target.stays_unharmed().await;
}
