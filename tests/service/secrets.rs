//! What the service logs, whatever it is asked to log: never a password.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{
    harness::{SECRET, binary},
    support::{
        brokers::{RabbitServer, free_port},
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
