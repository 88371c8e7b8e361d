//! Every field of a task survives its bytes, alone and beside any other state.

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Option<Arc<str>>> {
    prop::option::of("[a-zä€]{0,6}").prop_map(|text| text.map(Into::into))
}

fn number() -> impl Strategy<Value = Option<f64>> {
    prop::option::of(prop_oneof![Just(0.0), Just(-0.0), (0..200_u32).prop_map(f64::from), -1e300..1e300_f64])
}

fn task_id() -> impl Strategy<Value = Option<TaskId>> {
    prop::option::of("[a-z]{1,5}").prop_map(|id| id.map(|id| TaskId::parse(&id).unwrap()))
}

fn json() -> impl Strategy<Value = Option<JsonText>> {
    prop::option::of(prop::sample::select(vec!["1", "{\"a\":[1,2]}", "\"x y\"", "null"]))
        .prop_map(|json| json.map(|json| JsonText::parse(json).unwrap()))
}

fn error() -> impl Strategy<Value = Option<Arc<TaskError>>> {
    prop::option::of((text(), text(), text(), any::<Option<bool>>())).prop_map(|parts| {
        parts.map(|(code, message, kind, retryable)| Arc::new(TaskError { code, message, kind, retryable }))
    })
}

fn tags() -> impl Strategy<Value = Option<Arc<[Arc<str>]>>> {
    prop::option::of(prop::collection::vec("[a-z]{1,3}", 0..4))
        .prop_map(|tags| tags.map(|tags| tags.into_iter().map(Arc::from).collect()))
}

prop_compose! {
    fn words()(a in text(), b in text(), c in text(), d in text(), e in text(), f in text()) -> [Option<Arc<str>>; 6] {
        [a, b, c, d, e, f]
    }
}

prop_compose! {
    fn any_task()(
        (words, progress, current, total, weight) in (words(), number(), number(), number(), number()),
        (parent_id, root_id, owner) in (task_id(), task_id(), task_id()),
        (result, metadata, error, tags) in (json(), json(), error(), tags()),
        status in prop::sample::select(&Status::ALL[..]),
        attempt: u32,
        moments: [u64; 2],
        maybe: [Option<u64>; 3],
    ) -> Task {
        let [name, title, unit, step, message, worker] = words;
        Task {
            task_id: TaskId::parse("t").unwrap(),
            user_id: owner.map(|id| UserId::parse(id.as_str()).unwrap()),
            name, title, status, progress, current, total, unit, step, message, attempt, parent_id, root_id, weight,
            tags, result, error, metadata, worker,
            heartbeat_timeout_ms: maybe[0],
            created_at_ms: moments[0],
            started_at_ms: maybe[1],
            updated_at_ms: moments[1],
            completed_at_ms: maybe[2],
        }
    }
}

proptest! {
    #[test]
    fn a_task_comes_back_alone_and_as_a_difference(old in any_task(), new in any_task()) {
        let mut out = Vec::new();
        push_task(&mut out, &old, None);
        push_task(&mut out, &new, Some(&old));
        push_task(&mut out, &new, Some(&new));
        let mut reader = BinaryReader::new(&out);
        let id = &old.task_id;
        // The text form tells -0.0 from 0.0.
        let same = |read: &Task, wrote: &Task| format!("{read:?}") == format!("{wrote:?}");
        prop_assert!(same(&read_task(&mut reader, id, None).unwrap(), &old));
        prop_assert!(same(&read_task(&mut reader, id, Some(&old)).unwrap(), &new));
        prop_assert_eq!(reader.len(), 4, "no difference is the mask alone");
        prop_assert!(same(&read_task(&mut reader, id, Some(&new)).unwrap(), &new));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn no_bytes_make_a_task_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = read_task(&mut BinaryReader::new(&bytes), &TaskId::parse("t").unwrap(), None);
    }
}

#[test]
fn every_status_has_its_number() {
    // A checkpoint is read by later versions: these numbers never change.
    let names: Vec<_> = STATUSES.iter().map(|status| status.as_str()).collect();
    assert_eq!(
        names,
        [
            "queued",
            "running",
            "waiting",
            "retrying",
            "cancelling",
            "succeeded",
            "failed",
            "cancelled",
            "timed_out",
            "expired",
            "lost"
        ]
    );
}
