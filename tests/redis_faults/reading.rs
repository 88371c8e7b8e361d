//! The reader of the log: it says within 2 s what is wrong and that it is well again, and skips nothing.

use std::time::Duration;

use taskcast::log::RestartReason;

use crate::{
    harness::{NOTICE, Watcher, events, now, settings, xadd},
    proxy::Proxy,
    support::brokers::RedisServer,
};

#[tokio::test]
async fn a_killed_redis_is_noticed_and_read_on_when_it_is_back() {
    let mut server = RedisServer::start().await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    for round in 1..4 {
        let killed = now();
        server.kill();
        watcher.turns(false, killed).await;
        server.restart().await;
        let back = now();
        xadd(&server, &settings.key, 4 + round).await;
        watcher.turns(true, back).await;
        watcher.reads(0..5 + round).await;
    }
    assert!(watcher.seen().restarts.is_empty());
    assert!(watcher.metric("taskcast_log_reconnects_total") >= 3);
}

#[tokio::test]
async fn a_paused_redis_is_noticed_and_read_on_without_a_gap() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    for (round, pause) in [3, 8].into_iter().enumerate() {
        let paused = now();
        server.pause();
        let health = watcher.turns(false, paused).await;
        assert!(health.detail.contains("has not answered"), "{}", health.detail);
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let lag = watcher.metric("taskcast_log_lag_seconds");
        assert!(lag + 1 >= pause, "the lag grows while the log is away: {lag}");
        assert_eq!(watcher.losses(), round + 1, "it does not look well in between");
        let resumed = now();
        server.resume();
        xadd(&server, &settings.key, 5 + round).await;
        watcher.turns(true, resumed).await;
        watcher.reads(0..6 + round).await;
        watcher.until("the replay", |seen| seen.health().replayed && seen.health().caught_up).await;
        assert_eq!(watcher.metric("taskcast_log_lag_seconds"), 0);
    }
    assert!(watcher.seen().restarts.is_empty());
    assert_eq!(watcher.metric("taskcast_log_stalls_total"), 2);
}

#[tokio::test]
async fn a_redis_that_turns_everybody_away_is_quoted() {
    let server = RedisServer::start().await;
    let held = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    // The command's own connection is the second one, and ends with it.
    server.cli(&["CONFIG", "SET", "maxclients", "1"]).await;
    let watcher = Watcher::of(&settings(&server.url()));
    watcher.until("the reason", |seen| seen.health().detail.contains("raise its maxclients")).await;
    drop(held);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_is_another_log_within_seconds() {
    let mut server = RedisServer::start().await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    let killed = now();
    server.kill();
    watcher.turns(false, killed).await;
    server.restart_empty().await;
    let back = now();
    watcher.turns(true, back).await;
    watcher.until("the restart", |seen| seen.restarts == [RestartReason::Replaced]).await;
    watcher.log.append(&events(0..2)).await.unwrap();
    watcher.reads(0..2).await;
}

#[tokio::test]
async fn a_stream_that_is_deleted_under_the_reader_is_another_log_at_once() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    for (round, command) in [&["DEL", &settings.key][..], &["FLUSHALL"]].into_iter().enumerate() {
        let deleted = now();
        server.cli(command).await;
        watcher.until("the restart", |seen| seen.restarts.len() == round + 1).await;
        assert!(deleted.elapsed() < NOTICE, "{command:?} was noticed after {:?}", deleted.elapsed());
        watcher.log.append(&events(0..5)).await.unwrap();
        watcher.reads(0..5).await;
    }
    assert_eq!(watcher.seen().restarts, [RestartReason::Replaced; 2]);
    assert_eq!(watcher.losses(), 0, "Redis served all the time");
}

#[tokio::test]
async fn a_connection_that_goes_silent_is_replaced_by_one_that_works() {
    let server = RedisServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = settings(&proxy.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    let cut = now();
    proxy.forget();
    xadd(&server, &settings.key, 5).await;
    watcher.until("the silence", |seen| seen.healths.iter().any(|(at, health)| *at > cut && !health.connected)).await;
    watcher.turns(true, cut).await;
    watcher.reads(0..6).await;
    assert!(watcher.seen().restarts.is_empty());
}

#[tokio::test]
async fn a_network_that_was_gone_is_noticed_both_ways() {
    let server = RedisServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = settings(&proxy.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    let cut = now();
    proxy.silence();
    watcher.turns(false, cut).await;
    xadd(&server, &settings.key, 5).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(watcher.losses(), 1);
    let healed = now();
    proxy.heal();
    watcher.turns(true, healed).await;
    watcher.reads(0..6).await;
    assert!(watcher.seen().restarts.is_empty());
}

#[tokio::test]
async fn revoked_credentials_are_told_to_the_operator_until_they_are_back() {
    let server = RedisServer::start().await;
    let user = ["ACL", "SETUSER", "taskcast", "on", ">swordfish", "~*", "&*", "+@all"];
    server.cli(&user).await;
    let settings = settings(&server.url_as("taskcast", "swordfish"));
    let watcher = Watcher::well(&settings, 0..5).await;
    for revoke in [&["ACL", "SETUSER", "taskcast", "resetpass"][..], &["ACL", "DELUSER", "taskcast"]] {
        let revoked = now();
        server.cli(revoke).await;
        if revoke[1] == "SETUSER" {
            server.cli(&["CLIENT", "KILL", "USER", "taskcast"]).await;
        }
        watcher.turns(false, revoked).await;
        let told = |detail: &str| detail.contains("refuses the user or password") && detail.contains("ACL SETUSER");
        watcher.until("the words", |seen| told(&seen.health().detail)).await;
        let failed = watcher.log.append(&events(9..10)).await.unwrap_err();
        assert!(told(&failed.detail) && !failed.detail.contains("swordfish"), "{}", failed.detail);
        server.cli(&user).await;
        watcher.turns(true, now()).await;
    }
    let revoked = now();
    server.cli(&["ACL", "SETUSER", "taskcast", "-xread"]).await;
    let health = watcher.turns(false, revoked).await;
    assert!(health.detail.contains("refuses a command") && health.detail.contains("+@stream"), "{}", health.detail);
    server.cli(&user).await;
    watcher.turns(true, now()).await;
    watcher.log.append(&events(5..6)).await.unwrap();
    watcher.reads(0..6).await;
    assert!(watcher.seen().restarts.is_empty());
}

#[tokio::test]
async fn the_rights_that_the_words_name_are_enough() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url_as("taskcast", "swordfish"));
    let keys = format!("~{}", settings.key);
    let named = "+@stream +@connection +@transaction +type +info +role +time +wait";
    let rights = ["ACL", "SETUSER", "taskcast", "on", ">swordfish", &keys];
    let rights: Vec<&str> = rights.into_iter().chain(named.split(' ')).collect();
    server.cli(&rights).await;
    let watcher = Watcher::well(&settings, 0..5).await;
    watcher.log.append(&events(5..10)).await.unwrap();
    watcher.reads(0..10).await;
    assert_eq!(watcher.losses(), 0);
    server.cli(&["ACL", "SETUSER", "taskcast", "-@stream"]).await;
    watcher.until("the words", |seen| seen.health().detail.contains(named)).await;
}

#[tokio::test]
async fn a_user_without_transactions_is_told_what_to_allow() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url_as("taskcast", "swordfish"));
    xadd(&server, &settings.key, 0).await;
    let user = ["ACL", "SETUSER", "taskcast", "on", ">swordfish", "~*", "+@all", "-@transaction"];
    server.cli(&user).await;
    let watcher = Watcher::of(&settings);
    watcher.until("the words", |seen| seen.health().detail.contains("+@transaction")).await;
    server.cli(&["ACL", "SETUSER", "taskcast", "+@transaction"]).await;
    watcher.reads(0..1).await;
}

#[tokio::test]
async fn a_key_that_turns_into_something_else_is_told_until_it_is_gone() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    let turned = now();
    server.cli(&["EVAL", "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')", "1", &settings.key]).await;
    let health = watcher.turns(false, turned).await;
    assert!(health.detail.contains("holds a list, not a stream; rename it"), "{}", health.detail);
    server.cli(&["DEL", &settings.key]).await;
    watcher.turns(true, now()).await;
    watcher.log.append(&events(0..3)).await.unwrap();
    watcher.until("the restart", |seen| seen.restarts == [RestartReason::Replaced]).await;
    watcher.reads(0..3).await;
}

#[tokio::test]
async fn a_redis_that_is_held_up_for_less_than_a_second_is_left_in_peace() {
    let server = RedisServer::start_with(&["--enable-debug-command", "yes"]).await;
    let settings = settings(&server.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    let mut longer = 0;
    for number in 5..10 {
        let asked = now();
        server.cli(&["DEBUG", "SLEEP", "0.8"]).await;
        longer += usize::from(asked.elapsed() > Duration::from_secs(1));
        xadd(&server, &settings.key, number).await;
    }
    watcher.reads(0..10).await;
    // A machine that holds it up for longer is another matter.
    assert!(longer < 5 && watcher.losses() <= longer, "{longer}: {:?}", watcher.seen().healths);
    assert!(watcher.metric("taskcast_log_reconnects_total") <= longer as u64);
}

#[tokio::test]
async fn a_network_that_is_too_slow_is_told_once_and_read_all_the_same() {
    let server = RedisServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = settings(&proxy.url());
    let watcher = Watcher::well(&settings, 0..5).await;
    let slowed = now();
    // Just beyond what is waited for: each answer alone may seem to be in time.
    proxy.delay(Duration::from_millis(1_350));
    watcher.turns(false, slowed).await;
    for number in 5..9 {
        xadd(&server, &settings.key, number).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    watcher.reads(0..9).await;
    assert_eq!(watcher.losses(), 1, "{:?}", watcher.seen().healths);
    proxy.heal();
    watcher.until("being well", |seen| seen.health().connected).await;
    assert!(watcher.seen().restarts.is_empty());
}
