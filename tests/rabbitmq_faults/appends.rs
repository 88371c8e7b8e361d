//! Appends: a yes is always true, a no comes in time and in words, and nothing is in the log twice.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lapin::{
    options::{QueueBindOptions, QueueDeleteOptions},
    types::FieldTable,
};
use taskcast::{
    clock,
    log::{Log, Settings},
};
use tokio::task::JoinSet;

use crate::{
    harness::{Reader, append_at_last, event, events, open, settings, with_url},
    proxy::Proxy,
    support::{brokers::RabbitServer, unique},
};

#[tokio::test]
async fn an_alarm_stops_appends_in_words_and_nobody_who_reads() {
    let server = RabbitServer::start().await;
    let settings = Settings { append_timeout: Duration::from_secs(1), ..settings(&server.url()) };
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    log.append(&events(0..10)).await.unwrap();
    reader.has(0..10).await;
    let mut next = 10;
    let alarms = [
        (["set_vm_memory_high_watermark", "0.000001"], ["set_vm_memory_high_watermark", "0.6"], "memory"),
        (["set_disk_free_limit", "900GB"], ["set_disk_free_limit", "50MB"], "disk"),
    ];
    for (raise, clear, what) in alarms {
        server.ctl(&raise).await;
        for _ in 0..4 {
            let began = clock::now().instant;
            let failed = log.append(&events(next..next + 1)).await.unwrap_err();
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
            assert!(failed.detail.contains("alarm") && failed.detail.contains(what), "{}", failed.detail);
            assert_eq!(failed.appended, 0);
            next += 1;
        }
        // Whoever comes now reads all the same.
        let other = Reader::of(&open(&settings).0);
        other.replayed().await;
        other.until(9).await;
        assert!(reader.health.borrow().connected);
        server.ctl(&clear).await;
        append_at_last(&log, next..next + 1).await;
        let seen = reader.until(next).await;
        next += 1;
        assert!(seen.copies().values().all(|copies| *copies == 1), "{seen:?}");
        // Of those that were refused, at most the first was on its way already.
        let refused = seen.numbers.iter().filter(|number| (next - 5..next - 1).contains(*number)).count();
        assert!(refused <= 1, "{seen:?}");
    }
    assert!(reader.seen.borrow().restarts.is_empty());
}

#[tokio::test]
async fn an_append_that_waits_for_the_end_of_an_alarm_is_made_then_and_once() {
    let server = RabbitServer::start().await;
    let (log, _) = open(&Settings { append_timeout: Duration::from_secs(30), ..settings(&server.url()) });
    let reader = Reader::of(&log);
    append_at_last(&log, 0..1).await;
    server.ctl(&["set_vm_memory_high_watermark", "0.000001"]).await;
    let mut appends = JoinSet::new();
    for number in 1..40 {
        let log = log.clone();
        appends.spawn(async move { log.append(&[event(number)]).await.is_ok() });
    }
    assert!(
        tokio::time::timeout(Duration::from_secs(1), appends.join_next()).await.is_err(),
        "the broker takes nothing"
    );
    server.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    assert!(appends.join_all().await.into_iter().all(|appended| appended));
    append_at_last(&log, 40..41).await;
    let mut numbers = reader.until(40).await.numbers;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..41).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dead_connection_fails_no_append_that_a_fresh_one_can_make() {
    let server = RabbitServer::shared().await;
    let proxy = Proxy::before(server.port()).await;
    let settings = settings(&server.url());
    let (log, _) = open(&with_url(&settings, &proxy.url()));
    let reader = Reader::of(&open(&settings).0);
    log.append(&events(0..1)).await.unwrap();
    for number in 1..4 {
        // What was confirmed a moment ago is trusted a moment longer.
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.cut();
        proxy.heal();
        log.append(&events(number..number + 1)).await.unwrap();
    }
    reader.has(0..4).await;
    // Closed by the broker, too.
    let user = unique("user");
    server.ctl(&["add_user", &user, "hunter2"]).await;
    server.ctl(&["set_permissions", &user, ".*", ".*", ".*"]).await;
    let (log, _) = open(&with_url(&settings, &server.url_as(&user, "hunter2")));
    log.append(&events(4..5)).await.unwrap();
    server.ctl(&["close_all_user_connections", &user, "test"]).await;
    log.append(&events(5..6)).await.unwrap();
    let seen = reader.until(5).await;
    assert!(seen.copies().values().all(|copies| *copies == 1), "{seen:?}");
}

/// Appends one by one from several tasks until told to stop; gives what was confirmed.
struct Appending {
    tasks: JoinSet<Vec<usize>>,
    stop: Arc<AtomicUsize>,
}

impl Appending {
    fn start(log: &Log, next: &Arc<AtomicUsize>) -> Self {
        let (mut tasks, stop) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..8 {
            let (log, next, stop) = (log.clone(), next.clone(), stop.clone());
            tasks.spawn(async move {
                let mut confirmed = Vec::new();
                while stop.load(Ordering::SeqCst) == 0 {
                    let first = next.fetch_add(3, Ordering::SeqCst);
                    match log.append(&events(first..first + 3)).await {
                        Ok(_) => confirmed.extend(first..first + 3),
                        Err(failed) => confirmed.extend(first..first + failed.appended),
                    }
                }
                confirmed
            });
        }
        Self { tasks, stop }
    }

    async fn stop(self) -> BTreeSet<usize> {
        self.stop.store(1, Ordering::SeqCst);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

#[tokio::test]
async fn what_is_confirmed_is_in_the_log_however_often_the_binding_goes() {
    let server = RabbitServer::shared().await;
    let settings = settings(&server.url());
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    append_at_last(&log, 0..1).await;
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let next = Arc::new(AtomicUsize::new(1));
    let appending = Appending::start(&log, &next);
    let (queue, exchange) = (settings.key.as_str(), settings.exchange.as_str());
    for round in 0..40 {
        // Without a binding, and with one that takes some of a batch and leaves the rest.
        channel.queue_unbind(queue.into(), exchange.into(), "task.#".into(), FieldTable::default()).await.unwrap();
        for number in (0..3_000).filter(|number| number % 3 == round % 3) {
            if number > next.load(Ordering::SeqCst) && number < next.load(Ordering::SeqCst) + 60 {
                let key = format!("task.t{number}");
                let bind = QueueBindOptions::default();
                channel
                    .queue_bind(queue.into(), exchange.into(), key.as_str().into(), bind, FieldTable::default())
                    .await
                    .unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let confirmed = appending.stop().await;
    let last = next.fetch_add(1, Ordering::SeqCst);
    append_at_last(&log, last..last + 1).await;
    let seen = reader.until(last).await;
    let copies = seen.copies();
    let missing: Vec<_> = confirmed.iter().filter(|number| !copies.contains_key(number)).collect();
    assert!(missing.is_empty(), "confirmed and not there: {missing:?}");
    let twice: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(confirmed.len() > 100, "{}", confirmed.len());
    assert!(seen.restarts.is_empty());
}

#[tokio::test]
async fn what_is_confirmed_after_a_queue_was_deleted_is_in_the_next_one() {
    let server = RabbitServer::shared().await;
    let settings = settings(&server.url());
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    append_at_last(&log, 0..1).await;
    let channel = server.connect().await.unwrap().create_channel().await.unwrap();
    let next = Arc::new(AtomicUsize::new(1));
    for round in 1..5 {
        let meanwhile = Appending::start(&log, &next);
        tokio::time::sleep(Duration::from_millis(100)).await;
        channel.queue_delete(settings.key.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
        // Only what begins after the deletion has to be in the queue that comes after it.
        let after = Appending::start(&log, &next);
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        meanwhile.stop().await;
        let confirmed = after.stop().await;
        assert!(!confirmed.is_empty());
        let last = next.fetch_add(1, Ordering::SeqCst);
        append_at_last(&log, last..last + 1).await;
        reader.restarts(round).await;
        let seen = reader.until(last).await;
        let copies = seen.copies();
        let missing: Vec<_> = confirmed.iter().filter(|number| !copies.contains_key(number)).collect();
        assert!(missing.is_empty(), "confirmed and not there in round {round}: {missing:?}");
        assert!(copies.values().all(|copies| *copies == 1));
        assert_eq!(seen.restarts.len(), round);
    }
}
