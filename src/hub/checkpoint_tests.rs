//! A hub that was restored from an image and applied the rest is, for whoever asks, the one that applied everything; and
//! whatever bytes it is given instead, it refuses them without a panic.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{tests::*, *};
use crate::proto::{Corrupt, Status, Task, TaskFrame, Topic};

fn chunks_of(hub: &Hub) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let mut image = hub.export().expect("an event");
    let taken = image.encode(|chunk| {
        chunks.push(chunk);
        Ok::<_, ()>(())
    });
    assert_eq!(taken, Ok(()));
    chunks
}

fn restore(chunks: &[Vec<u8>], settings: Settings) -> Result<Hub, Corrupt> {
    let hub = Hub::new(settings, Arc::new(Metrics::new("memory")));
    let mut reader = hub.image_reader();
    for chunk in chunks {
        reader.chunk(chunk)?;
    }
    hub.import(reader.finish()?);
    hub.set_replayed(true);
    Ok(hub)
}

/// Small enough that rings and the trail overflow and tasks are let go.
fn tight() -> Settings {
    Settings { max: 9, max_bytes: 20_000, max_per_owner: 4, ring_frames: 3, resume_window: 25, ..settings() }
}

/// What a worker may say, with everything that the rules remember.
#[derive(Clone, Debug)]
struct Said {
    task: usize,
    status: Option<Status>,
    percent: f64,
    attempt: Option<u32>,
    seq: Option<u64>,
    event_id: Option<u8>,
    timestamp_ms: Option<u64>,
    words: Option<u8>,
    malformed: bool,
}

fn any_said() -> impl Strategy<Value = Said> {
    let status = prop::option::weighted(0.4, prop::sample::select(&Status::ALL[..]));
    let memory = (
        prop::option::weighted(0.2, 1..3_u32),
        prop::option::weighted(0.4, 0..20_u64),
        prop::option::weighted(0.4, 0..6_u8),
        prop::option::weighted(0.4, 0..400_u64),
    );
    (0..12_usize, status, 0.0..120.0_f64, memory, prop::option::of(0..4_u8), prop::bool::weighted(0.05)).prop_map(
        |(task, status, percent, (attempt, seq, event_id, timestamp_ms), words, malformed)| Said {
            task,
            status,
            percent: percent.min(100.0),
            attempt,
            seq,
            event_id,
            timestamp_ms,
            words,
            malformed,
        },
    )
}

fn arrival_of(at: u64, said: &Said) -> Arrival {
    let mut event = progress(&format!("t{}", said.task), &format!("u{}", said.task % 3), said.percent);
    event.status = said.status;
    event.attempt = said.attempt;
    event.seq = said.seq;
    event.event_id = said.event_id.map(|id| format!("e{id}").into());
    event.timestamp_ms = said.timestamp_ms;
    event.message = said.words.map(|words| format!("words {words}").into());
    event.tags = said.words.map(|words| vec![format!("tag{words}").into()].into());
    event.root_id = said.words.filter(|words| *words == 3).map(|_| id("t0"));
    let event = (!said.malformed).then_some(event);
    Arrival { cursor: cursor(at), appended_at_ms: Some(at), event }
}

/// Everything that a client can learn of a task's frame, but for when it was applied.
fn shown(frame: &TaskFrame) -> String {
    format!("{} {} {:?}", frame.cursor, frame.is_key, frame.task)
}

fn all_shown<'a>(frames: impl IntoIterator<Item = &'a Arc<TaskFrame>>) -> Vec<String> {
    frames.into_iter().map(|frame| shown(frame)).collect()
}

fn topics() -> Vec<Topic> {
    let owners = (0..3).map(|n| Topic::Owner(user(&format!("u{n}"))));
    let tags = (0..4).map(|n| Topic::Tag(format!("tag{n}").into()));
    owners.chain(tags).chain([Topic::Root(id("t0")), Topic::Task(id("t1")), Topic::All]).collect()
}

/// Sees only what carries a tag, which tasks come under and leave.
const TAGGED: fn(&Task) -> bool = |task| task.tags.iter().flat_map(|tags| tags.iter()).any(|tag| &**tag == "tag1");

/// What a client that comes with the cursor of any position gets, of every topic.
fn answers(hub: &Hub, through: u64) -> Vec<String> {
    let last = Position { major: through, minor: 0 };
    let mut answers = Vec::new();
    for topic in &topics() {
        answers.extend(all_shown(&hub.tasks(std::slice::from_ref(topic))));
        for at in 0..=through + 1 {
            for (every, sees) in [(false, ALL), (true, ALL), (false, TAGGED)] {
                let missed = hub.missed(&vec![topic.clone()].into(), cursor(at), last, every, usize::MAX, sees);
                let missed = missed.map(|missed| (all_shown(&missed.frames), missed.hidden));
                answers.push(format!("{topic:?} {at} {every} {missed:?}"));
            }
        }
    }
    answers
}

/// The same answers; but who watches a tag may have to begin anew, since an image does not tell who left one.
fn answers_alike(restored: &Hub, other: &Hub, through: u64) -> Result<(), TestCaseError> {
    let (restored, other) = (answers(restored, through), answers(other, through));
    prop_assert_eq!(restored.len(), other.len());
    for (restored, other) in restored.iter().zip(&other) {
        let begins_anew = restored.starts_with("Tag") && restored.ends_with("Err(Trimmed)");
        prop_assert!(begins_anew || restored == other, "{restored}\ninstead of {other}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_restored_hub_that_applies_the_rest_answers_like_one_that_applied_all(
        all in prop::collection::vec(any_said(), 2..90),
        cut in 0.0..1.0_f64,
        batch in 1..9_usize,
        pull_at in 0..90_usize,
    ) {
        let cut = 1 + (cut * (all.len() - 1) as f64) as usize;
        let arrivals: Vec<_> = all.iter().enumerate().map(|(n, said)| arrival_of(n as u64 + 1, said)).collect();
        let whole = hub_with(tight());
        let before = hub_with(tight());
        arrivals[..cut].chunks(batch).for_each(|batch| before.apply(batch, LATE));
        arrivals[..cut].chunks(batch).for_each(|batch| whole.apply(batch, LATE));
        let chunks = chunks_of(&before);
        let restored = restore(&chunks, tight()).unwrap();
        prop_assert_eq!(chunks_of(&restored), chunks, "the same state gives the same bytes");
        prop_assert_eq!(restored.bytes(), before.bytes(), "and weighs the same");
        answers_alike(&restored, &before, cut as u64)?;

        let mut clients = [&whole, &restored].map(|hub| Client::attach(hub, Topic::All));
        for (n, batch) in arrivals[cut..].chunks(batch).enumerate() {
            for (client, hub) in clients.iter_mut().zip([&whole, &restored]) {
                hub.apply(batch, LATE);
                if (n + pull_at).is_multiple_of(3) {
                    client.pull(hub, 4, n % 2 == 0);
                }
            }
        }
        let [a, b] = clients;
        prop_assert_eq!(all_shown(&a.seen), all_shown(&b.seen), "the same pulls");
        answers_alike(&restored, &whole, all.len() as u64)?;
        prop_assert_eq!(chunks_of(&restored), chunks_of(&whole));
        // Retention comes to the same, too.
        for hub in [&whole, &restored] {
            let _ = hub.sweep(60_040, 0);
        }
        prop_assert_eq!(chunks_of(&restored), chunks_of(&whole));
        prop_assert_eq!((restored.len(), restored.bytes()), (whole.len(), whole.bytes()));
    }

    #[test]
    fn forged_bytes_are_refused_or_make_a_hub_that_answers(
        all in prop::collection::vec(any_said(), 2..30),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let hub = hub_with(tight());
        let arrivals: Vec<_> = all.iter().enumerate().map(|(n, said)| arrival_of(n as u64 + 1, said)).collect();
        hub.apply(&arrivals, LATE);
        let mut chunks = chunks_of(&hub);
        for (index, bits) in flips {
            let number = index.index(chunks.len());
            let byte = index.index(chunks[number].len());
            chunks[number][byte] ^= bits;
        }
        // Checksums stand before this; what passes them all the same must do no harm.
        if let Ok(forged) = restore(&chunks, tight()) {
            prop_assert!(forged.len() <= tight().max);
            let _ = answers(&forged, all.len() as u64);
            forged.apply(&[arrival(1_000, progress("t1", "u1", 5.0))], LATE);
            let _ = forged.sweep(LATE, 0);
        }
    }
}

fn a_hub() -> Hub {
    let hub = hub_with(settings());
    let mut batch: Vec<_> = (1..60).map(|n| arrival(n, progress(&format!("t{}", n % 7), "u1", n as f64))).collect();
    batch.push(arrival(60, status("t0", "u1", Status::Failed)));
    hub.apply(&batch, LATE);
    hub
}

#[test]
fn every_truncation_is_refused() {
    let chunks = chunks_of(&a_hub());
    for number in 0..chunks.len() {
        assert!(restore(&chunks[..number], settings()).is_err(), "without chunk {number} and what follows");
        for length in 0..chunks[number].len() {
            let mut cut = chunks.clone();
            cut[number].truncate(length);
            assert!(restore(&cut, settings()).is_err(), "chunk {number} cut to {length} bytes");
        }
    }
}

#[test]
fn an_image_of_more_tasks_than_allowed_is_refused() {
    let chunks = chunks_of(&a_hub());
    assert!(restore(&chunks, Settings { max: 7, ..settings() }).is_ok());
    let refused = restore(&chunks, Settings { max: 6, ..settings() }).err().expect("a refusal");
    assert!(refused.0.contains("tasks.max"), "{refused}");
}

#[test]
fn a_shorter_ring_and_a_shorter_window_than_those_of_the_image_hold_as_if_they_always_had() {
    let short = Settings { ring_frames: 2, resume_window: 10, ..settings() };
    let restored = restore(&chunks_of(&a_hub()), short.clone()).unwrap();
    let always = hub_with(short);
    let mut batch: Vec<_> = (1..60).map(|n| arrival(n, progress(&format!("t{}", n % 7), "u1", n as f64))).collect();
    batch.push(arrival(60, status("t0", "u1", Status::Failed)));
    always.apply(&batch, LATE);
    answers_alike(&restored, &always, 60).unwrap();
}

#[test]
fn a_ring_costs_little_more_than_its_newest_frame() {
    let hub = hub_with(settings());
    let mut first = progress("t1", "u1", 1.0);
    first.message = Some("x".repeat(2_000).into());
    hub.apply(&[arrival(1, first)], LATE);
    for at in 2..=50 {
        hub.apply(&[arrival(at, progress("t1", "u1", at as f64))], LATE);
    }
    let bytes: usize = chunks_of(&hub).iter().map(Vec::len).sum();
    assert!(bytes < 2_000 + 50 * 40, "{bytes} bytes for 50 frames");
    let restored = restore(&chunks_of(&hub), settings()).unwrap();
    let Missed { frames, .. } =
        restored.missed(&vec![Topic::All].into(), cursor(1), cursor(50).position, true, 100, ALL).unwrap();
    let texts: BTreeSet<_> = frames.iter().filter_map(|frame| frame.task.message.as_ref()).map(Arc::as_ptr).collect();
    assert_eq!((frames.len(), texts.len()), (49, 1), "and its texts are shared again");
}

#[test]
fn after_a_gap_tasks_stay_and_cursors_from_before_are_trimmed() {
    let hub = a_hub();
    let before = all_shown(&hub.tasks(&[Topic::All]));
    let generation = hub.progress().generation;
    hub.restart_after_gap();
    let progress_now = hub.progress();
    assert_eq!((progress_now.generation, progress_now.replayed), (generation + 1, false));
    assert_eq!(progress_now.reset, Some(ResumeFailure::Trimmed));
    assert_eq!(all_shown(&hub.tasks(&[Topic::All])), before);
    assert_eq!(hub.check(cursor(60)), Err(ResumeFailure::Trimmed));
    // The log still held this one, and it was applied before.
    hub.apply(&[arrival(60, status("t0", "u1", Status::Succeeded)), arrival(90, progress("t1", "u1", 99.0))], LATE);
    hub.set_replayed(true);
    assert_eq!(hub.task(&id("t0")).unwrap().task.status, Status::Failed);
    assert_eq!(hub.check(cursor(90)), Ok(()));
    assert_eq!(hub.check(cursor(60)), Err(ResumeFailure::Trimmed));
}

#[test]
fn an_image_of_nothing_is_not_made() {
    assert!(hub_with(settings()).export().is_none());
}

#[test]
fn an_image_is_of_the_moment_at_which_it_was_taken() {
    let hub = a_hub();
    let before = chunks_of(&hub);
    let mut image = hub.export().unwrap();
    let mut later = status("t1", "u1", Status::Failed);
    later.event_id = Some("e1".into());
    hub.apply(&[arrival(70, later), arrival(71, progress("new", "u1", 1.0))], LATE);
    let mut chunks = Vec::new();
    let taken = image.encode(|chunk| {
        chunks.push(chunk);
        Ok::<_, ()>(())
    });
    assert_eq!((taken, chunks), (Ok(()), before));
    assert_eq!(hub.task(&id("t1")).unwrap().task.status, Status::Failed);
}

#[test]
#[expect(clippy::print_stdout, reason = "a measurement")]
#[ignore = "a measurement: cargo test --lib how_long -- --ignored --nocapture"]
fn how_long_the_applier_stands_still_for_an_image_of_100_000_tasks() {
    let hub = hub_with(Settings { max: 100_000, ring_frames: 16, resume_window: 500_000, ..settings() });
    let seconds = |what: &str, since: std::time::Instant| {
        println!("{what}: {:.1} ms", (crate::clock::now().instant - since).as_secs_f64() * 1_000.0);
    };
    let batch_at = |from: u64| -> Vec<_> {
        let task = |n: u64| format!("task-{}", n % 100_000);
        (from..from + 256)
            .map(|n| arrival(n, progress(&task(n), &format!("u{}", n % 500), n as f64 / 20_000.0)))
            .collect()
    };
    let mut at = 1;
    while at < 1_600_000 {
        hub.apply(&batch_at(at), LATE);
        at += 256;
    }
    let started = crate::clock::now().instant;
    hub.apply(&batch_at(at), LATE);
    seconds("a batch of 256", started);
    let started = crate::clock::now().instant;
    let mut image = hub.export().unwrap();
    seconds("export", started);
    let started = crate::clock::now().instant;
    hub.apply(&batch_at(at + 256), LATE);
    seconds("a batch of 256 beside the image", started);
    let (started, mut bytes) = (crate::clock::now().instant, 0);
    let taken = image.encode(|chunk| {
        bytes += chunk.len();
        Ok::<_, ()>(())
    });
    assert_eq!(taken, Ok(()));
    seconds("encode", started);
    println!("{bytes} bytes, {} tasks", image.len());
}
