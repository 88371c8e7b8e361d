//! Appends under faults: a success always means that Redis has the event, an event is never there twice, and nobody
//! waits longer than configured.

use std::time::Duration;

use taskcast::log::{Outgoing, Settings};
use tokio::task::JoinHandle;

use crate::{
    harness::{Watcher, event, events, now, payloads, settings, stored},
    proxy::Proxy,
    support::brokers::RedisServer,
};

fn patient(url: &str) -> Settings {
    Settings { append_timeout: Duration::from_secs(20), ..settings(url) }
}

fn texts(numbers: std::ops::Range<usize>) -> Vec<String> {
    payloads(numbers).into_iter().map(|payload| String::from_utf8(payload.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn a_full_redis_refuses_with_words_and_takes_events_again_once_there_is_room() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "noeviction"]).await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    server.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    // One, and several in a transaction.
    for count in [1, 3] {
        let tried = now();
        let failed = watcher.log.append(&events(5..5 + count)).await.unwrap_err();
        assert!(
            failed.detail.contains("out of memory (OOM)") && failed.detail.contains("raise its maxmemory"),
            "{failed}"
        );
        assert!(!failed.detail.contains("all the same"), "{failed}");
        assert!(tried.elapsed() < settings.append_timeout, "waiting helps nobody: {:?}", tried.elapsed());
    }
    assert!(watcher.seen().health().connected);
    server.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    watcher.log.append(&events(5..8)).await.unwrap();
    watcher.reads(0..8).await;
    assert_eq!(watcher.losses(), 0);
}

#[tokio::test]
async fn an_append_during_an_outage_waits_as_long_as_configured_and_no_longer() {
    let mut server = RedisServer::start().await;
    let settings = Settings { append_timeout: Duration::from_millis(700), ..settings(&server.url()) };
    let watcher = Watcher::well(&settings, 0..5).await;
    let tried = now();
    server.pause();
    watcher.log.append(&events(5..6)).await.unwrap_err();
    server.resume();
    server.kill();
    let paused = tried.elapsed();
    watcher.log.append(&events(5..6)).await.unwrap_err();
    let down = tried.elapsed().saturating_sub(paused);
    for took in [paused, down] {
        assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    }
    assert_eq!(watcher.metric("taskcast_append_failures_total"), 2);
}

#[tokio::test]
async fn a_connection_that_died_at_rest_fails_no_append() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    for number in 1..20 {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
        watcher.log.append(&events(number..number + 1)).await.unwrap();
    }
    assert_eq!(stored(&server, &settings.key).await, texts(0..20));
}

/// Appends one after the other, as fast as they are confirmed.
fn appending(watcher: &Watcher, numbers: std::ops::Range<usize>) -> JoinHandle<()> {
    let log = watcher.log.clone();
    tokio::spawn(async move {
        for number in numbers {
            log.append(&[event(number)]).await.unwrap();
        }
    })
}

#[tokio::test]
async fn no_append_fails_or_is_doubled_while_connections_are_killed_under_it() {
    let server = RedisServer::start().await;
    let settings = patient(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    let appending = [appending(&watcher, 1_000..1_400), appending(&watcher, 2_000..2_400)];
    while !appending.iter().all(JoinHandle::is_finished) {
        server.cli(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    }
    for appending in appending {
        appending.await.unwrap();
    }
    let mut stored = stored(&server, &settings.key).await;
    stored.sort();
    let mut wanted = [texts(0..1), texts(1_000..1_400), texts(2_000..2_400)].concat();
    wanted.sort();
    assert_eq!(stored, wanted);
}

#[tokio::test]
async fn no_append_fails_or_is_lost_or_doubled_while_redis_is_killed_under_it() {
    let mut server = RedisServer::start().await;
    let settings = patient(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    let appending = appending(&watcher, 1..3_000);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.restart().await;
    }
    appending.await.unwrap();
    assert_eq!(stored(&server, &settings.key).await, texts(0..3_000));
    watcher.reads(0..3_000).await;
    assert!(watcher.seen().restarts.is_empty());
}

/// Makes sure of the connection right before: what comes next is sent over it without a question.
async fn append_at_once(watcher: &Watcher, before: &Outgoing, cut: impl FnOnce(), after: &[Outgoing]) {
    watcher.log.append(std::slice::from_ref(before)).await.unwrap();
    let log = watcher.log.clone();
    cut();
    log.append(after).await.unwrap();
}

#[tokio::test]
async fn an_append_whose_answer_is_lost_is_found_and_not_repeated() {
    let server = RedisServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = patient(&proxy.url());
    for count in [1, 3] {
        let settings = Settings { key: format!("{}-{count}", settings.key), ..settings.clone() };
        let watcher = Watcher::well(&settings, 0..1).await;
        // The answer to the question whether it lives comes late: the event is on its way when the answers stop.
        let sent = async {
            append_at_once(&watcher, &event(1), || proxy.silence_answers(), &events(2..2 + count)).await;
        };
        let heals = async {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            proxy.forget();
            proxy.heal_new();
        };
        tokio::join!(sent, heals);
        assert_eq!(stored(&server, &settings.key).await, texts(0..2 + count));
    }
}

#[tokio::test]
async fn an_append_that_is_still_on_its_way_is_stopped_before_it_is_repeated() {
    let server = RedisServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = patient(&proxy.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    append_at_once(&watcher, &event(1), || proxy.forget(), &events(2..5)).await;
    assert_eq!(stored(&server, &settings.key).await, texts(0..5));
    // What was held back arrives now, on connections that Redis has closed.
    proxy.heal();
    watcher.log.append(&events(5..6)).await.unwrap();
    watcher.reads(0..6).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stored(&server, &settings.key).await, texts(0..6));
}

/// Starts an append, waits until it has been refused for a while, puts things right, and expects it to succeed.
async fn is_taken_up(server: &RedisServer, wrong: &[&str], words: &str, right: &[&str]) {
    let settings = patient(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    let hasty = Settings { append_timeout: Duration::from_secs(3), ..settings.clone() };
    server.cli(wrong).await;
    let failed = Watcher::of(&hasty).log.append(&events(7..9)).await.unwrap_err();
    assert!(failed.detail.contains(words), "{wrong:?}: {failed}");
    let log = watcher.log.clone();
    let appending = tokio::spawn(async move { log.append(&events(1..3)).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!appending.is_finished(), "{wrong:?}");
    server.cli(right).await;
    appending.await.unwrap().unwrap();
    assert_eq!(stored(server, &settings.key).await, texts(0..3));
}

#[tokio::test]
async fn a_demoted_redis_takes_events_again_once_it_is_promoted() {
    let (server, primary) = (RedisServer::start().await, RedisServer::start().await);
    let port = primary.port().to_string();
    // Paused, it does not get to empty the replica.
    primary.pause();
    let demote = ["REPLICAOF", "127.0.0.1", &port];
    is_taken_up(&server, &demote, "is a replica (READONLY), which takes no events", &["REPLICAOF", "NO", "ONE"]).await;
}

#[tokio::test]
async fn a_redis_without_enough_replicas_takes_events_once_fewer_will_do() {
    let server = RedisServer::start().await;
    let (wrong, right) =
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]);
    is_taken_up(&server, &wrong, "min-replicas-to-write", &right).await;
}

#[tokio::test]
async fn a_redis_that_cannot_save_says_so_at_once_and_takes_events_when_it_can() {
    let server = RedisServer::start_with(&["--enable-protected-configs", "yes", "--save", "3600 1"]).await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    let gone = tempfile::tempdir().unwrap();
    server.cli(&["CONFIG", "SET", "dir", &gone.path().display().to_string()]).await;
    drop(gone);
    server.cli(&["BGSAVE"]).await;
    while !server.cli(&["INFO", "persistence"]).await.contains("rdb_last_bgsave_status:err") {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for count in [1, 3] {
        let failed = watcher.log.append(&events(1..1 + count)).await.unwrap_err();
        assert!(failed.detail.contains("cannot save to its disk"), "{failed}");
    }
    assert!(watcher.seen().health().connected);
    server.cli(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
    watcher.log.append(&events(1..3)).await.unwrap();
    watcher.reads(0..3).await;
    assert_eq!(watcher.losses(), 0);
}

#[tokio::test]
async fn a_redis_that_is_busy_with_a_script_is_told_and_takes_events_when_it_is_done() {
    let server = RedisServer::start_with(&["--busy-reply-threshold", "50"]).await;
    let settings = patient(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    let script = async { server.cli(&["EVAL", "while true do end", "0"]).await };
    let rest = async {
        let seen = watcher.until("the script", |seen| seen.health().detail.contains("busy with a script")).await;
        assert!(!seen.health().connected);
        let log = watcher.log.clone();
        let appending = tokio::spawn(async move { log.append(&events(1..3)).await });
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!appending.is_finished());
        server.cli(&["SCRIPT", "KILL"]).await;
        appending.await.unwrap().unwrap();
        watcher.turns(true, now()).await;
    };
    tokio::join!(script, rest);
    watcher.reads(0..3).await;
    assert!(watcher.seen().restarts.is_empty());
}

#[tokio::test]
async fn a_redis_that_loads_its_data_is_told_and_used_when_that_is_done() {
    let delay =
        ["--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no"];
    let mut server = RedisServer::start_with(&delay).await;
    let settings = patient(&server.url());
    let watcher = Watcher::well(&settings, 0..1).await;
    server.cli(&["EVAL", "for i = 1, 1500 do redis.call('SET', i, string.rep('x', 1000)) end", "0"]).await;
    server.cli(&["BGREWRITEAOF"]).await;
    // Only from a snapshot is a Redis loaded slowly enough, and yet talks meanwhile.
    let is_rewritten = |told: &str| told.contains("aof_rewrites:1") && told.contains("aof_rewrite_in_progress:0");
    while !is_rewritten(&server.cli(&["INFO", "persistence"]).await) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let used = async {
        watcher.until("the loading", |seen| seen.health().detail.contains("is loading its data")).await;
        watcher.log.append(&events(1..3)).await.unwrap();
        watcher.turns(true, now()).await;
    };
    tokio::join!(server.restart(), used);
    watcher.reads(0..3).await;
    assert!(watcher.seen().restarts.is_empty());
}
