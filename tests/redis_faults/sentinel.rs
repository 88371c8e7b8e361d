//! A primary, a replica and three sentinels: the log follows a failover, skips nothing silently, and never reads or
//! writes a primary of yesterday.

use std::time::Duration;

use taskcast::log::{RestartReason, Settings};

use crate::{
    harness::{PATIENCE, Watcher, event, events, now, settings, stored, xadd},
    support::brokers::{RedisServer, free_port},
};

const NAME: &str = "my-primary";

struct Group {
    primary: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl Group {
    async fn start() -> Self {
        let primary = RedisServer::start().await;
        // Replication has a user of its own, so that it can be cut off while everyone else goes on.
        primary.cli(&["ACL", "SETUSER", "replica", "on", ">swordfish", "+@all"]).await;
        let port = primary.port().to_string();
        let login = ["--masteruser", "replica", "--masterauth", "swordfish"];
        let arguments = ["--replicaof", "127.0.0.1", &port].into_iter().chain(login);
        let replica = RedisServer::start_with(&arguments.collect::<Vec<&str>>()).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(RedisServer::sentinel(NAME, primary.port(), 2).await);
        }
        let group = Self { primary, replica, sentinels };
        for sentinel in &group.sentinels {
            let knows = ["num-slaves\n1\n", "num-other-sentinels\n2\n", "flags\nmaster\n"];
            eventually("the sentinels to find each other", async || {
                let told = sentinel.cli(&["SENTINEL", "MASTER", NAME]).await;
                knows.iter().all(|known| told.contains(known))
            })
            .await;
        }
        eventually("replication", async || group.primary.cli(&["INFO", "replication"]).await.contains("state=online"))
            .await;
        group
    }

    fn settings(&self) -> Settings {
        self.settings_as("")
    }

    fn settings_as(&self, credentials: &str) -> Settings {
        let hosts: Vec<String> = self.sentinels.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect();
        let url = format!("redis+sentinel://{credentials}{}/{NAME}", hosts.join(","));
        Settings { append_timeout: Duration::from_secs(20), ..settings(&url) }
    }

    /// Everything that the primary has confirmed is on the replica too.
    async fn replicated(&self, key: &str) {
        eventually("replication", async || stored(&self.primary, key).await == stored(&self.replica, key).await).await;
    }

    async fn promoted(&self) {
        let port = self.replica.port().to_string();
        eventually("the promotion", async || {
            let told = self.sentinels[0].cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            told.lines().nth(1) == Some(&port)
        })
        .await;
    }
}

async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let begun = now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_failover_is_followed_without_a_gap_and_the_old_primary_is_not_read_when_it_is_back() {
    let mut group = Group::start().await;
    let settings = group.settings();
    let watcher = Watcher::well(&settings, 0..10).await;
    assert!(watcher.seen().health().detail.contains(&group.primary.port().to_string()));
    group.replicated(&settings.key).await;
    let killed = now();
    group.primary.kill();
    for number in 10..20 {
        watcher.log.append(&[event(number)]).await.unwrap();
        if number == 10 {
            println!("the first append after the primary was killed took {} ms", killed.elapsed().as_millis());
        }
    }
    watcher.reads(0..20).await;
    assert!(killed.elapsed() < Duration::from_secs(15), "{:?}", killed.elapsed());
    let health = watcher.seen().health().clone();
    assert!(health.detail.contains(&group.replica.port().to_string()), "{}", health.detail);

    // It starts as the primary that it was, with a log that is older, and takes what it is given.
    group.primary.restart().await;
    xadd(&group.primary, &settings.key, 666).await;
    let other = Watcher::of(&settings);
    for number in 20..30 {
        watcher.log.append(&[event(number)]).await.unwrap();
        other.log.append(&[event(number + 10)]).await.unwrap();
    }
    watcher.until("the events", |seen| seen.payloads.len() == 40).await;
    other.until("the events", |seen| seen.payloads.len() == 40).await;
    assert!(!other.seen().payloads.contains(&event(666).payload));
    assert!(watcher.seen().restarts.is_empty() && other.seen().restarts.is_empty());
    assert_eq!(stored(&group.replica, &settings.key).await.len(), 40);
}

#[tokio::test]
async fn a_failover_that_lost_confirmed_events_is_another_log() {
    let mut group = Group::start().await;
    let settings = group.settings();
    let watcher = Watcher::well(&settings, 0..10).await;
    group.replicated(&settings.key).await;
    // The replica is cut off; what is confirmed from here on is on the primary alone.
    group.primary.cli(&["ACL", "SETUSER", "replica", "off"]).await;
    group.primary.cli(&["CLIENT", "KILL", "TYPE", "replica"]).await;
    watcher.log.append(&events(10..15)).await.unwrap();
    watcher.reads(0..15).await;
    group.primary.kill();
    let seen = watcher.until("the restart", |seen| !seen.restarts.is_empty()).await;
    assert_eq!(seen.restarts, [RestartReason::Replaced]);
    watcher.until("what is left", |seen| seen.payloads.len() == 10).await;
    watcher.log.append(&events(10..12)).await.unwrap();
    watcher.reads(0..12).await;
    assert_eq!(watcher.seen().restarts.len(), 1);
}

#[tokio::test]
async fn a_primary_that_was_paused_through_its_failover_is_left_and_loses_nothing() {
    let group = Group::start().await;
    let settings = group.settings();
    let watcher = Watcher::well(&settings, 0..10).await;
    group.replicated(&settings.key).await;
    let paused = now();
    group.primary.pause();
    watcher.turns(false, paused).await;
    group.promoted().await;
    watcher.log.append(&events(10..12)).await.unwrap();
    watcher.reads(0..12).await;
    // It goes on as the primary that it takes itself for, with connections that are open on both ends.
    group.primary.resume();
    for number in 12..60 {
        watcher.log.append(&[event(number)]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    watcher.reads(0..60).await;
    assert_eq!(stored(&group.replica, &settings.key).await.len(), 60);
    assert!(watcher.seen().restarts.is_empty());
}

#[tokio::test]
async fn a_primary_that_only_the_sentinels_have_lost_is_left_all_the_same() {
    let group = Group::start().await;
    for server in [&group.primary, &group.replica] {
        server.cli(&["ACL", "SETUSER", "taskcast", "on", ">swordfish", "~*", "&*", "+@all"]).await;
    }
    let settings = group.settings_as("taskcast:swordfish@");
    let watcher = Watcher::well(&settings, 0..10).await;
    group.replicated(&settings.key).await;
    // The sentinels are locked out, so that nobody tells it of its successor. Everyone else still reaches it.
    group.primary.cli(&["ACL", "SETUSER", "default", "resetpass", ">hush"]).await;
    group.primary.cli(&["--no-auth-warning", "-a", "hush", "CLIENT", "KILL", "USER", "default"]).await;
    group.promoted().await;
    let port = group.replica.port().to_string();
    watcher.until("the new primary", |seen| seen.health().detail.contains(&port)).await;
    for number in 10..30 {
        watcher.log.append(&[event(number)]).await.unwrap();
    }
    watcher.reads(0..30).await;
    assert_eq!(stored(&group.replica, &settings.key).await.len(), 30);
    assert!(watcher.seen().restarts.is_empty());
}

#[tokio::test]
async fn a_primary_that_hands_over_on_request_is_followed() {
    let group = Group::start().await;
    let settings = group.settings();
    let watcher = Watcher::well(&settings, 0..10).await;
    group.replicated(&settings.key).await;
    group.sentinels[0].cli(&["SENTINEL", "FAILOVER", NAME]).await;
    let port = group.replica.port().to_string();
    watcher.until("the new primary", |seen| seen.health().detail.contains(&port)).await;
    for number in 10..40 {
        watcher.log.append(&[event(number)]).await.unwrap();
    }
    watcher.reads(0..40).await;
    assert_eq!(stored(&group.replica, &settings.key).await.len(), 40);
}

#[tokio::test]
async fn sentinels_that_are_away_stop_nobody_who_is_connected_and_a_majority_is_enough() {
    let mut group = Group::start().await;
    let settings = group.settings();
    group.sentinels[0].kill();
    let watcher = Watcher::well(&settings, 0..5).await;
    for sentinel in &group.sentinels[1..] {
        sentinel.pause();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    watcher.log.append(&events(5..10)).await.unwrap();
    watcher.reads(0..10).await;
    assert_eq!(watcher.losses(), 0);
    let hasty = Settings { append_timeout: Duration::from_secs(1), ..settings };
    let failed = Watcher::of(&hasty).log.append(&events(10..11)).await.unwrap_err();
    assert!(failed.detail.contains("only 0 of 3 sentinels tell"), "{failed}");
}

#[tokio::test]
async fn a_mistake_in_where_the_sentinels_are_is_told_to_the_operator() {
    let group = Group::start().await;
    let (sentinel, primary) = (group.sentinels[0].port(), group.primary.port());
    for (url, words) in [
        (format!("redis+sentinel://u:hunter2@127.0.0.1:{sentinel}/nobody"), "knows no primary named nobody"),
        (format!("redis+sentinel://127.0.0.1:{primary}/{NAME}"), "is not a sentinel"),
        (format!("redis+sentinel://u:hunter2@127.0.0.1:{sentinel}/{NAME}"), "refuses the user or password"),
        (format!("redis+sentinel://127.0.0.1:{}/{NAME}", free_port()), "refused"),
    ] {
        let hasty = Settings { append_timeout: Duration::from_millis(500), ..settings(&url) };
        let watcher = Watcher::of(&hasty);
        watcher.until(words, |seen| seen.health().detail.contains(words)).await;
        let failed = watcher.log.append(&events(0..1)).await.unwrap_err();
        assert!(failed.detail.contains(words) && !failed.detail.contains("hunter2"), "{failed}");
    }
}

#[tokio::test]
async fn an_append_that_must_be_on_a_replica_is_not_confirmed_without_one() {
    let group = Group::start().await;
    let settings = Settings { wait_replicas: 1, ..group.settings() };
    let watcher = Watcher::well(&settings, 0..5).await;
    assert_eq!(stored(&group.replica, &settings.key).await.len(), 5, "confirmed means replicated");
    let hasty = Settings { append_timeout: Duration::from_secs(3), ..settings.clone() };
    let hasty = Watcher::of(&hasty);
    group.replica.pause();
    let tried = now();
    let failed = hasty.log.append(&events(5..6)).await.unwrap_err();
    assert!(failed.detail.contains("log.wait_replicas = 1"), "{failed}");
    assert!(failed.detail.contains("may be in the log all the same"), "{failed}");
    assert!(tried.elapsed() < Duration::from_secs(8), "{:?}", tried.elapsed());
    let log = watcher.log.clone();
    let waiting = tokio::spawn(async move { log.append(&events(6..7)).await });
    watcher.reads(0..7).await;
    assert!(!waiting.is_finished());
    group.replica.resume();
    waiting.await.unwrap().unwrap();
    assert_eq!(stored(&group.replica, &settings.key).await.len(), 7);
}
