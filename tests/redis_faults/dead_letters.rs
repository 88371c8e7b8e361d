//! The dead letters under what goes wrong between them and Redis: missing rights, a long way.

use std::time::Duration;

use bytes::Bytes;
use taskcast::{
    log::{DeadLetter, Record},
    proto::{ContentType, Event, Position},
};

use crate::{
    harness::{Watcher, now, settings},
    proxy::Proxy,
    support::brokers::RedisServer,
};

fn letters(numbers: std::ops::Range<u64>) -> Vec<DeadLetter> {
    let letter = |major| {
        let position = Position { major, minor: 0 };
        let payload = Bytes::from(format!("poison {major}"));
        let record = Record { position, appended_at_ms: None, content_type: ContentType::Json, payload, trace: None };
        DeadLetter::new(&record, &Event::decode(ContentType::Json, &record.payload).unwrap_err())
    };
    numbers.map(letter).collect()
}

#[tokio::test]
async fn the_rights_that_the_words_name_are_enough_for_dead_letters() {
    let server = RedisServer::start().await;
    let settings = settings(&server.url_as("taskcast", "swordfish"));
    let (keys, letters_key) = (format!("~{}", settings.key), format!("{}:dead-letters", settings.key));
    let log_only = "+@stream +@connection +@transaction +type +info +role +time +wait";
    let user = ["ACL", "SETUSER", "taskcast", "on", ">swordfish", &keys];
    server.cli(&user.into_iter().chain(log_only.split(' ')).collect::<Vec<_>>()).await;
    let watcher = Watcher::well(&settings, 0..1).await;
    let words = watcher.log.set_aside(&letters(100..105)).await.unwrap_err();
    let rights = words.split('`').nth(1).unwrap_or_else(|| panic!("no rights in {words}"));
    let user = ["ACL", "SETUSER", "taskcast", "reset", "on", ">swordfish"];
    server.cli(&user.into_iter().chain(rights.split(' ')).collect::<Vec<_>>()).await;
    watcher.log.set_aside(&letters(100..105)).await.unwrap();
    let may = server.cli(&["ACL", "DRYRUN", "taskcast", "MEMORY", "USAGE", &letters_key]).await;
    assert_eq!(may, "OK");
    // Those of another log are moved away.
    server.cli(&["DEL", &settings.key]).await;
    watcher.log.set_aside(&letters(1..4)).await.unwrap();
    assert_eq!(watcher.log.dead_letters(100).await.unwrap().len(), 8);
    watcher.log.remove_dead_letters(&letters(100..105)).await.unwrap();
    assert_eq!(watcher.log.dead_letters(100).await.unwrap(), letters(1..4));
}

#[tokio::test]
async fn many_dead_letters_are_removed_over_a_long_way() {
    let server = RedisServer::start().await;
    let proxy = Proxy::before(server.port()).await;
    let there = settings(&proxy.url());
    let watcher = Watcher::of(&there);
    let letters = letters(1..401);
    watcher.log.set_aside(&letters).await.unwrap();
    proxy.delay(Duration::from_millis(100));
    let began = now();
    watcher.log.remove_dead_letters(&letters).await.unwrap();
    // One turn for each of them would take 40 s.
    assert!(now().saturating_duration_since(began) < Duration::from_secs(15));
    assert!(watcher.log.dead_letters(1_000).await.unwrap().is_empty());
}
