//! A Redis Cluster is refused, with words that say what to use instead.

use std::time::Duration;

use crate::{
    harness::{Watcher, events, settings},
    support::brokers::RedisServer,
};

#[tokio::test]
async fn a_node_of_a_redis_cluster_is_refused_with_what_to_use_instead() {
    let server = RedisServer::start_with(&["--cluster-enabled", "yes"]).await;
    let watcher = Watcher::of(&settings(&server.url()));
    let told = |words: &str| words.contains("Redis Cluster") && words.contains("redis+sentinel://");
    watcher.until("the refusal", |seen| told(&seen.health().detail)).await;
    let failed = watcher.log.append(&events(0..1)).await.unwrap_err();
    assert!(told(&failed.detail), "{}", failed.detail);
    // Whether it has its slots or not makes no difference.
    server.cli(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    while !server.cli(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(told(&watcher.log.append(&events(0..1)).await.unwrap_err().detail));
    assert_eq!(watcher.losses(), 0, "it was never well");
}
