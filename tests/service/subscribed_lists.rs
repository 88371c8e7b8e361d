//! What a subscription to a group begins with, and how a client knows that it has all of it, also of what changes meanwhile:
//! `clients/js` relies on this order.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, Service, token_with, until};

const MEMBERS: usize = 300;
const ROUNDS: usize = 20;

fn member(n: usize, progress: usize) -> Value {
    // So long that the list takes many pages.
    json!({"task_id": format!("m{n}"), "user_id": "u1", "root_id": "many", "progress": progress, "message": "x".repeat(500)})
}

/// Until the last of them, and so all, is known.
async fn publish(service: &Service, events: &[Value]) {
    let (status, answer) = service.post(&json!(events).to_string(), "application/json").await;
    assert_eq!(status, 202, "{answer}");
    let last = events.last().unwrap();
    let path = format!("/api/v1/tasks/{}", last["task_id"].as_str().unwrap());
    until("the events are applied", async || {
        service.get(&path, "u1").await.1["progress"].as_f64() == last["progress"].as_f64()
    })
    .await;
}

/// Subscribes, asks as soon as that is answered, and reads until the list is known to be whole: behind the answer it has begun, or there is none;
/// it ends with a page without `more`. What was told until then, and how many tasks its pages had.
async fn told_when_whole(client: &mut Client, root: &str) -> (BTreeSet<String>, usize) {
    client.say(&json!({"type": "subscribe", "root_id": root, "id": "s"})).await;
    let (mut told, mut listed, mut has_more, mut is_listing) = (BTreeSet::new(), 0, false, false);
    let mut note = |task: &Value| {
        told.insert(task["task_id"].as_str().unwrap().to_owned());
    };
    loop {
        let frame = client.next().await;
        match frame["type"].as_str().unwrap() {
            "subscribed" => client.say(&json!({"type": "ping", "id": "p"})).await,
            "active_tasks" => {
                let tasks = frame["tasks"].as_array().unwrap();
                tasks.iter().for_each(&mut note);
                listed += tasks.len();
                has_more = frame["more"] == true;
                if is_listing && !has_more {
                    return (told, listed);
                }
            }
            "task_progress" => note(&frame),
            "pong" if !has_more => return (told, listed),
            "pong" => is_listing = true,
            _ => {}
        }
    }
}

#[tokio::test]
async fn behind_the_answer_to_a_question_a_subscribed_list_has_begun_or_is_empty() {
    let service = Service::start(&[("TASKCAST_SESSIONS_PAGE_MAX_BYTES", "4096")]).await;
    publish(&service, &(0..MEMBERS).map(|n| member(n, 0)).collect::<Vec<_>>()).await;
    let bearer = format!("Bearer {}", token_with("u9", &["own", "all"], false));
    let mut pages = 0;
    for round in 0..ROUNDS {
        let moved: Vec<_> = (0..MEMBERS).step_by(7).map(|n| member((n + round) % MEMBERS, round + 1)).collect();
        publish(&service, &moved).await;
        let mut client = Client::connect(service.port, "/ws/tasks/", &[("Authorization", &bearer)]).await;
        client.until("active_tasks").await;
        let all: Vec<_> = (0..MEMBERS).rev().map(|n| member(n, round + 1)).collect();
        let ((told, _), ()) = tokio::join!(told_when_whole(&mut client, "many"), publish(&service, &all));
        assert_eq!(told.len(), MEMBERS, "round {round}");
        let (_, listed) = told_when_whole(&mut client, &format!("none-{round}")).await;
        assert_eq!(listed, 0, "round {round}");
        pages += client.frames.iter().filter(|frame| frame["type"] == "active_tasks" && frame["more"] == true).count();
    }
    assert!(pages > ROUNDS, "{pages}");
}
