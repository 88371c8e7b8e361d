//! Three nodes on one machine: losing one of them, and two.

use std::time::Duration;

use taskcast::log::{Log, Settings};

use crate::{
    harness::{Reader, append_at_last, event, open, serves, settings, soon},
    support::brokers::RabbitServer,
};

fn url(nodes: &[RabbitServer]) -> String {
    let hosts: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    format!("amqp://guest:guest@{}", hosts.join(","))
}

/// The node that takes the stream's events for all.
async fn leader(node: &RabbitServer, queue: &str) -> String {
    let queues = node.ctl(&["list_queues", "name", "leader"]).await;
    let line = queues.lines().find(|line| line.starts_with(queue)).unwrap_or_else(|| panic!("{queues}"));
    line.rsplit('\t').next().unwrap().to_owned()
}

/// Appends one event after the other in the background.
struct Stream {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<(Vec<usize>, Vec<String>)>,
}

impl Stream {
    fn start(log: &Log, first: usize) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let log = log.clone();
        let task = tokio::spawn(async move {
            let (mut confirmed, mut failures) = (Vec::new(), Vec::new());
            for number in first.. {
                if *stopped.borrow() {
                    break;
                }
                match log.append(&[event(number)]).await {
                    Ok(_) => confirmed.push(number),
                    Err(failed) => failures.push(failed.detail),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (confirmed, failures)
        });
        Self { stop, task }
    }

    async fn stop(self) -> (Vec<usize>, Vec<String>) {
        self.stop.send_replace(true);
        soon("the last append", self.task).await.unwrap()
    }
}

/// Everything that was confirmed is there, once, and in order.
async fn complete(reader: &Reader, confirmed: &[usize]) {
    let seen = reader.until(*confirmed.last().unwrap()).await;
    assert!(seen.restarts.is_empty(), "{:?}", seen.restarts);
    let copies = seen.copies();
    let missing: Vec<_> = confirmed.iter().filter(|number| !copies.contains_key(number)).collect();
    assert!(missing.is_empty(), "confirmed and not there: {missing:?}");
    let twice: Vec<_> = copies.iter().filter(|(_, copies)| **copies > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(seen.numbers.is_sorted());
}

/// Appends one event after the other until one is confirmed. What was not confirmed may be in the log all the same, so it
/// is not appended again.
async fn append_some(log: &Log, next: &mut usize) -> usize {
    let appending = async {
        loop {
            *next += 1;
            if log.append(&[event(*next)]).await.is_ok() {
                break *next;
            }
        }
    };
    let number = soon("an append", appending).await;
    *next += 1;
    number
}

#[tokio::test]
async fn a_cluster_that_loses_a_node_loses_nothing_and_with_one_left_says_no() {
    let mut nodes = RabbitServer::start_cluster().await;
    let settings = Settings { append_timeout: Duration::from_secs(3), ..settings(&url(&nodes)) };
    let (log, _) = open(&settings);
    let reader = Reader::of(&log);
    append_at_last(&log, 0..10).await;
    reader.has(0..10).await;
    let (mut next, mut all_confirmed): (usize, Vec<usize>) = (10, (0..10).collect());

    // The node that the reader is on, then the one that leads the stream.
    for loses_leader in [false, true] {
        let place = reader.health.borrow().detail.clone();
        let read_from = nodes.iter().position(|node| place.contains(&node.port().to_string())).unwrap();
        let led_by = leader(&nodes[read_from], &settings.key).await;
        let victim =
            if loses_leader { nodes.iter().position(|node| led_by.contains(&node.node())).unwrap() } else { read_from };
        let stream = Stream::start(&log, next);
        tokio::time::sleep(Duration::from_secs(1)).await;
        nodes[victim].kill();
        if victim == read_from {
            reader.lost("the loss of the reader's node").await;
            // The others need a moment to agree on a leader.
            let others: Vec<_> = (0..3)
                .filter(|node| *node != victim)
                .map(|node| Box::pin(serves(&nodes[node], &settings.key)))
                .collect();
            futures_util::future::select_all(others).await;
            reader.back("the loss of the reader's node").await;
        }
        tokio::time::sleep(Duration::from_secs(8)).await;
        let (confirmed, failures) = stream.stop().await;
        println!("loses_leader {loses_leader}: {} confirmed, {failures:?}", confirmed.len());
        next += confirmed.len() + failures.len();
        all_confirmed.extend(confirmed);
        all_confirmed.push(append_some(&log, &mut next).await);
        complete(&reader, &all_confirmed).await;
        nodes[victim].restart().await;
        // It has caught up with the others.
        serves(&nodes[victim], &settings.key).await;
    }

    // One of three cannot promise anything.
    nodes[0].kill();
    nodes[1].kill();
    let refusing = async {
        loop {
            next += 1;
            match log.append(&[event(next)]).await {
                Ok(_) => all_confirmed.push(next),
                Err(failed) => break failed,
            }
        }
    };
    soon("the refusal", refusing).await;
    let failed = log.append(&[event(next + 1)]).await.unwrap_err();
    assert_eq!(failed.appended, 0);
    assert!(failed.detail.contains("majority"), "{}", failed.detail);
    next += 2;
    nodes[0].start_again();
    nodes[1].start_again();
    all_confirmed.push(append_some(&log, &mut next).await);
    complete(&reader, &all_confirmed).await;
}
