//! What today's front ends read, and the binary form.

use serde_json::json;

use crate::harness::{Client, Service, token, until};

/// The old hook of the field switches on these types and reads these fields, and on nothing else.
#[tokio::test]
async fn the_celery_dialect_speaks_to_the_old_hook() {
    let service = Service::start(&[]).await;
    let mut hook = service.attach(&format!("/ws/tasks/?token={}&dialect=celery", token("u1")), "u1").await;
    service
        .publish(&json!({
            "task_id": "t", "user_id": "u1", "name": "export", "current": 30, "total": 120, "step": "Reading rows",
        }))
        .await;
    let progress = hook.until("task_progress").await;
    let read = |field: &str| progress[field].clone();
    assert_eq!(read("status"), "PROGRESS");
    assert_eq!((read("progress"), read("processed_items"), read("total_items")), (json!(25), json!(30), json!(120)));
    assert_eq!(read("current_step"), "Reading rows");
    hook.say(&json!({"type": "get_task_status", "task_id": "t"})).await;
    let status = hook.until("task_status").await;
    assert_eq!((&status["status"]["task_id"], &status["status"]["status"]), (&json!("t"), &json!("PROGRESS")));
    hook.say(&json!({"type": "get_task_status", "task_id": "nobody's"})).await;
    assert!(hook.until("task_status").await["status"].is_null());
    hook.say(&json!({"type": "get_active_tasks"})).await;
    let list = hook.until("active_tasks").await;
    assert_eq!(list["tasks"][0]["task_name"], "export");
    assert!(list["tasks"][0]["created_at"].is_string());
    hook.say(&json!({"type": "cancel_task", "task_id": "t"})).await;
    assert_eq!(hook.until("task_cancelled").await["success"], false, "the token may not");
    hook.say(&json!({"type": "no such thing"})).await;
    assert!(hook.until("error").await["message"].is_string());
    service.publish(&json!({"task_id": "t", "status": "failed", "error": {"message": "disk full"}})).await;
    let end = hook.until("task_completed").await;
    assert_eq!((&end["status"], &end["error_message"]), (&json!("FAILURE"), &json!("disk full")));
    assert!(end["result_data"].is_object());
}

#[tokio::test]
async fn the_subprotocol_brings_protobuf_and_the_token_is_never_echoed() {
    let service = Service::start(&[]).await;
    let protocols = format!("taskcast.v1.proto, bearer.{}", token("u1"));
    let mut client = Client::connect(service.port, "/ws/tasks/", &[("Sec-WebSocket-Protocol", &protocols)]).await;
    let greeting = client.binary().await;
    let text = String::from_utf8_lossy(&greeting);
    assert!(text.contains("u1"), "{text}");
    client.binary().await;
    service.publish(&json!({"task_id": "the-task", "user_id": "u1", "progress": 1})).await;
    assert!(String::from_utf8_lossy(&client.binary().await).contains("the-task"));
}

#[tokio::test]
async fn a_subscriber_that_comes_before_the_first_event_gets_it() {
    let service = Service::start(&[]).await;
    let mut early = service.attach("/ws/tasks/later/", "u1").await;
    let mut group = service.attach("/ws/groups/later/", "u1").await;
    service.publish(&json!({"task_id": "later", "user_id": "u1", "status": "queued"})).await;
    assert_eq!(early.until("task_progress").await["status"], "queued");
    assert_eq!(group.until("task_progress").await["status"], "queued");
    service.publish(&json!({"task_id": "child", "user_id": "u1", "parent_id": "later", "progress": 3})).await;
    assert_eq!(group.until("task_progress").await["task_id"], "child");
    until("the child is there", async || service.get("/api/v1/tasks/child", "u1").await.0 == 200).await;
    early.settle().await;
    assert!(!early.bars().contains_key("child"));
}
