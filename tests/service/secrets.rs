//! What the service logs, whatever it is asked to log: never a password; and what its user must be allowed.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    harness::{SECRET, Service, binary, until},
    support::{
        brokers::{RabbitServer, RedisServer, free_port},
        unique,
    },
};

#[tokio::test]
async fn no_level_of_the_log_shows_the_password_that_is_sent_to_rabbitmq() {
    let url = RabbitServer::shared().await.url();
    for level in ["trace", "debug,lapin=trace,lapin::io_loop=trace"] {
        let mut command = tokio::process::Command::from(binary());
        command.arg("serve").env("TASKCAST_LOG", &url).env("TASKCAST_LOG_LEVEL", level);
        command.env("TASKCAST_LOG_KEY", unique("events")).env("TASKCAST_LOG_EXCHANGE", unique("exchange"));
        command.env("TASKCAST_AUTH_SECRET", SECRET).env("TASKCAST_LISTEN", format!("127.0.0.1:{}", free_port()));
        command.env("TASKCAST_OPERATIONS_LISTEN", format!("127.0.0.1:{}", free_port()));
        let mut service = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(service.stderr.take().unwrap()).lines();
        loop {
            let line = lines.next_line().await.unwrap().expect("it connects before it ends");
            // As text, and as the library shows bytes: of user and password, each behind a zero.
            assert!(!line.contains("guest\\0guest") && !line.contains("103, 117, 101, 115, 116"), "{line}");
            if line.contains("the log is connected") {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_user_of_redis_with_the_rights_of_the_readme_is_refused_nothing() {
    let redis = RedisServer::start().await;
    let line = include_str!("../../README.md").lines().find(|line| line.starts_with("ACL SETUSER taskcast")).unwrap();
    redis.cli(&line.split(' ').collect::<Vec<_>>()).await;
    let url = redis.url().replace("redis://", "redis://taskcast:password@");
    let mut service = Service::start(&[("TASKCAST_LOG", &url), ("TASKCAST_CHECKPOINT_INTERVAL_SECONDS", "1")]).await;
    redis.cli(&["XADD", "taskcast:events", "*", "event", "poison"]).await;
    until("the dead letter", async || service.metric("taskcast_dead_letters_total{").await == 1).await;
    let written = "taskcast_checkpoint_writes_total{outcome=\"written\"}";
    until("a checkpoint", async || service.metric(written).await >= 1).await;
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    service.kill_and_restart().await;
    assert_eq!(service.metric("taskcast_checkpoint_loads_total{outcome=\"loaded\"}").await, 1);
    assert_eq!(redis.cli(&["ACL", "LOG"]).await, "", "nothing was refused");
}
