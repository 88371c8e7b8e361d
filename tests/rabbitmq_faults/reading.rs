//! The reader: told in time, misses nothing, knows another log when it meets one.

use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use taskcast::log::{RestartReason, TailItem};

use crate::{
    harness::{PATIENCE, Reader, append_at_last, events, metric, open, serves, settings, soon, with_url},
    proxy::Proxy,
    support::{brokers::RabbitServer, unique},
};

#[tokio::test]
async fn a_broker_that_is_killed_restarted_or_emptied_is_noticed_and_read_again() {
    let mut server = RabbitServer::start().await;
    let settings = settings(&server.url());
    let (log, metrics) = open(&settings);
    let reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.has(0..10).await;

    server.stop().await;
    reader.lost("a stop").await;
    server.start_again();
    serves(&server, &settings.key).await;
    reader.back("a stop").await;
    append_at_last(&log, 10..20).await;
    reader.has(0..20).await;
    reader.replayed().await;

    server.kill();
    let down = reader.lost("a kill").await;
    assert!(down.detail.contains(&server.port().to_string()), "{}", down.detail);
    assert_eq!(metric(&metrics, "taskcast_log_connected"), 0);
    server.start_again();
    serves(&server, &settings.key).await;
    reader.back("a kill").await;
    append_at_last(&log, 20..30).await;
    reader.has(0..30).await;
    assert!(reader.seen.borrow().restarts.is_empty());

    server.kill();
    reader.lost("the end").await;
    server.start_empty();
    serves(&server, &settings.key).await;
    reader.back("the end").await;
    assert_eq!(reader.restarts(1).await, [RestartReason::Replaced]);
    reader.replayed().await;
    append_at_last(&log, 0..5).await;
    reader.has(0..5).await;
}

#[tokio::test]
async fn a_broker_that_stops_answering_is_noticed_and_goes_on_where_it_was() {
    let server = RabbitServer::start().await;
    let settings = taskcast::log::Settings {
        append_timeout: Duration::from_secs(1),
        ..settings(&format!("{}?heartbeat=1", server.url()))
    };
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.has(0..10).await;
    // Shorter than the heartbeat takes to notice, and longer.
    for (round, pause) in [Duration::ZERO, Duration::from_secs(4)].into_iter().enumerate() {
        let next = 10 + round;
        server.pause();
        let said = reader.lost("silence").await;
        assert!(said.detail.contains("no longer answers"), "{}", said.detail);
        let failed = log.append(&events(next..next + 1)).await.unwrap_err();
        assert_eq!(failed.appended, 0);
        tokio::time::sleep(pause).await;
        server.resume();
        reader.back("silence").await;
        // The append that failed had not been sent: the connection was asked first.
        append_at_last(&log, next..next + 1).await;
        reader.has(0..next + 1).await;
    }
    assert!(reader.seen.borrow().restarts.is_empty());
}

#[tokio::test]
async fn a_connection_that_is_dead_without_knowing_is_left_for_a_fresh_one() {
    let server = RabbitServer::shared().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = settings(&proxy.url());
    let (log, _) = open(&settings);
    let direct = open(&with_url(&settings, &server.url())).0;
    let reader = Reader::of(&log);
    direct.append(&events(0..10)).await.unwrap();
    reader.has(0..10).await;
    reader.replayed().await;
    proxy.cut();
    reader.lost("a cut").await;
    direct.append(&events(10..20)).await.unwrap();
    // Long enough for some attempts, each of which hangs.
    let began = proxy.accepted();
    soon("attempts", async {
        while proxy.accepted() < began + 4 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    proxy.heal();
    reader.back("a cut").await;
    reader.has(0..20).await;
    assert!(reader.seen.borrow().restarts.is_empty());
    // Every connection that was given up was closed, long before a heartbeat would miss it.
    let closed =
        tokio::time::timeout(Duration::from_secs(5), async { proxy.held().wait_for(|held| *held <= 1).await.is_ok() });
    assert_eq!(closed.await, Ok(true), "{} connections are held", *proxy.held().borrow());
}

#[tokio::test]
async fn a_broker_that_is_slow_but_answers_is_not_taken_for_dead() {
    let server = RabbitServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let (log, metrics) = open(&settings(&proxy.url()));
    let reader = Reader::of(&log);
    log.append(&events(0..1)).await.unwrap();
    reader.has(0..1).await;
    let mut heard = proxy.heard();
    // It works a tenth of the time, or as long as an answer takes it.
    for _ in 0..8 {
        server.pause();
        tokio::time::sleep(Duration::from_millis(600)).await;
        heard.mark_unchanged();
        server.resume();
        soon("an answer", heard.changed()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(metric(&metrics, "taskcast_log_reconnects_total"), 0);
    assert!(reader.health.borrow().connected);
}

#[tokio::test]
async fn a_queue_that_is_deleted_is_made_again_and_is_another_log() {
    let server = RabbitServer::shared().await;
    let settings = settings(&server.url());
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    log.append(&events(0..5)).await.unwrap();
    reader.has(0..5).await;
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let lost = reader.lost("the deletion");
    let delete = channel.queue_delete(settings.key.as_str().into(), QueueDeleteOptions::default());
    let (said, deleted) = tokio::join!(lost, delete);
    deleted.unwrap();
    assert!(said.detail.contains("deleted"), "{}", said.detail);
    reader.back("the deletion").await;
    assert_eq!(reader.restarts(1).await, [RestartReason::Replaced]);
    // Other events, and more of them.
    append_at_last(&log, 0..20).await;
    reader.has(0..20).await;
    reader.replayed().await;
    assert_eq!(reader.seen.borrow().restarts.len(), 1);
}

#[tokio::test]
async fn a_queue_that_is_filled_again_before_the_reader_is_back_is_another_log() {
    let server = RabbitServer::shared().await;
    let settings = settings(&server.url());
    let proxy = Proxy::before(server.port()).await;
    let reader = Reader::of(&open(&with_url(&settings, &proxy.url())).0);
    let direct = open(&settings).0;
    direct.append(&events(0..5)).await.unwrap();
    reader.has(0..5).await;
    proxy.cut();
    reader.lost("the cut").await;
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    channel.queue_delete(settings.key.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    append_at_last(&direct, 100..120).await;
    proxy.heal();
    reader.back("the cut").await;
    assert_eq!(reader.restarts(1).await, [RestartReason::Replaced]);
    assert_eq!(reader.until(119).await.numbers, (100..120).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_exchange_that_is_deleted_is_made_again_without_a_restart() {
    let server = RabbitServer::shared().await;
    let settings = settings(&server.url());
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    log.append(&events(0..5)).await.unwrap();
    reader.has(0..5).await;
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    channel
        .exchange_delete(settings.exchange.as_str().into(), lapin::options::ExchangeDeleteOptions::default())
        .await
        .unwrap();
    let said = reader.lost("the deletion").await;
    assert!(said.detail.contains(&settings.exchange), "{}", said.detail);
    reader.back("the deletion").await;
    append_at_last(&log, 5..6).await;
    reader.has(0..6).await;
    assert!(reader.seen.borrow().restarts.is_empty());
}

#[tokio::test]
async fn revoked_credentials_are_said_in_words_and_good_ones_are_used_at_once() {
    let server = RabbitServer::shared().await;
    let user = unique("user");
    let grant = async || {
        server.ctl(&["set_permissions", &user, ".*", ".*", ".*"]).await;
    };
    server.ctl(&["add_user", &user, "hunter2"]).await;
    grant().await;
    let settings = settings(&server.url_as(&user, "hunter2"));
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    log.append(&events(0..1)).await.unwrap();
    reader.has(0..1).await;
    let says = async |what: &str| {
        let said = reader.health(what, PATIENCE, |health| !health.connected && health.detail.contains(what)).await;
        assert!(!said.detail.contains("hunter2"), "{}", said.detail);
        let failed = log.append(&events(0..1)).await.unwrap_err();
        assert!(failed.detail.contains(what) && !failed.detail.contains("hunter2"), "{}", failed.detail);
    };

    server.ctl(&["change_password", &user, "swordfish"]).await;
    assert!(reader.health.borrow().connected, "RabbitMQ leaves connections alone that are there");
    server.ctl(&["close_all_user_connections", &user, "test"]).await;
    reader.lost("the new password").await;
    says("refuses the user or password").await;
    server.ctl(&["change_password", &user, "hunter2"]).await;
    reader.back("the new password").await;

    server.ctl(&["clear_permissions", &user]).await;
    server.ctl(&["close_all_user_connections", &user, "test"]).await;
    reader.lost("the loss of permissions").await;
    says("does not let this user in").await;
    grant().await;
    reader.back("the loss of permissions").await;

    server.ctl(&["delete_user", &user]).await;
    reader.lost("the loss of the user").await;
    says("refuses the user or password").await;
    server.ctl(&["add_user", &user, "hunter2"]).await;
    grant().await;
    reader.back("the loss of the user").await;
    append_at_last(&log, 1..2).await;
    reader.has(0..2).await;
}

#[tokio::test]
async fn lag_is_known_right_after_an_outage_and_gone_when_all_is_read() {
    let server = RabbitServer::shared().await;
    let settings = settings(&server.url());
    let proxy = Proxy::before(server.port()).await;
    let (log, metrics) = open(&with_url(&settings, &proxy.url()));
    let direct = open(&settings).0;
    direct.append(&events(0..10)).await.unwrap();
    let mut tail = log.tail();
    let mut health = log.health();
    let mut got = 0;
    while got < 10 {
        got += count(soon("records", tail.next()).await);
    }
    proxy.cut();
    soon("the cut", health.wait_for(|health| !health.connected)).await.unwrap();
    for batch in 0..6 {
        direct.append(&events(10 + batch * 500..510 + batch * 500)).await.unwrap();
    }
    proxy.heal();
    // Read slowly, so that there is something to see.
    let lag = || metric(&metrics, "taskcast_log_lag_events");
    let mut most = 0;
    while got < 3_010 {
        got += count(soon("records", tail.next()).await);
        most = most.max(lag());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!((100..=3_000).contains(&most), "{most}");
    soon("the end of the lag", async {
        while lag() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

fn count(item: TailItem) -> usize {
    match item {
        TailItem::Records(records) => records.len(),
        TailItem::Restarted(reason) => panic!("{reason:?}"),
    }
}
