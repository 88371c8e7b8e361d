//! The rules of a task, one by one, then against any sequence of events.

use proptest::prelude::*;

use super::*;
use crate::proto::{TaskId, UserId};

fn event() -> Event {
    Event::new(TaskId::parse("t1").unwrap())
}

fn with(status: Option<Status>, progress: Option<f64>) -> Event {
    Event { status, progress, ..event() }
}

/// Applies events one after the other to a task, as a slot does.
struct Played {
    task: Option<Task>,
    memory: Memory,
}

impl Played {
    fn new(events: &[Event]) -> Self {
        let mut played = Self { task: None, memory: Memory::default() };
        for event in events {
            let _ = played.play(event);
        }
        played
    }

    fn play(&mut self, event: &Event) -> Result<bool, Outcome> {
        let step = match &self.task {
            None => first(event, 1_000),
            Some(task) => next(task, &self.memory, event, 1_000)?,
        };
        self.memory.remember(event, &step);
        self.task = Some(step.task);
        Ok(step.is_key)
    }

    fn task(&self) -> &Task {
        self.task.as_ref().unwrap()
    }
}

#[test]
fn progress_without_a_status_means_running() {
    assert_eq!(Played::new(&[with(None, Some(5.0))]).task().status, Status::Running);
    assert_eq!(Played::new(&[event()]).task().status, Status::Queued);
    assert_eq!(Played::new(&[event(), with(None, Some(5.0))]).task().status, Status::Running);
}

#[test]
fn a_count_is_set_against_the_total_that_is_known() {
    let counts = |current, total| Event { current, total, ..with(None, None) };
    let mut played = Played::new(&[counts(None, Some(20.0)), counts(Some(5.0), None)]);
    assert_eq!(played.task().progress, Some(25.0));
    played.play(&counts(Some(15.0), None)).unwrap();
    assert_eq!(played.task().progress, Some(75.0));
    // A bar does not go back because there is more to do than was known.
    played.play(&counts(None, Some(30.0))).unwrap();
    assert_eq!(played.task().progress, Some(75.0));
    played.play(&counts(Some(27.0), None)).unwrap();
    assert_eq!(played.task().progress, Some(90.0));
    assert_eq!(Played::new(&[counts(Some(5.0), None)]).task().progress, None);
}

#[test]
fn a_late_started_after_progress_changes_nothing_that_shows() {
    let mut played = Played::new(&[with(None, Some(40.0))]);
    assert_eq!(played.play(&with(Some(Status::Running), None)), Ok(false));
    assert_eq!(played.task().progress, Some(40.0));
}

#[test]
fn a_late_queued_is_stale() {
    let mut played = Played::new(&[with(None, Some(40.0))]);
    assert_eq!(played.play(&with(Some(Status::Queued), None)), Err(Outcome::Stale));
}

#[test]
fn lower_progress_is_stale_unless_it_is_known_to_be_newer() {
    let mut played = Played::new(&[with(None, Some(40.0))]);
    assert_eq!(played.play(&with(None, Some(30.0))), Err(Outcome::Stale));
    let mut numbered = Played::new(&[Event { seq: Some(1), ..with(None, Some(40.0)) }]);
    assert_eq!(numbered.play(&Event { seq: Some(2), ..with(None, Some(30.0)) }), Ok(false));
    assert_eq!(numbered.task().progress, Some(40.0), "but the bar does not fall");
}

#[test]
fn a_growing_total_keeps_the_bar_and_moves_the_count() {
    let count = |current: f64, total: f64| Event {
        current: Some(current),
        total: Some(total),
        ..with(None, Some(current / total * 100.0))
    };
    let played = Played::new(&[count(50.0, 100.0), count(60.0, 200.0)]);
    assert_eq!(played.task().progress, Some(50.0));
    assert_eq!((played.task().current, played.task().total), (Some(60.0), Some(200.0)));
}

#[test]
fn a_new_step_or_attempt_resets_progress() {
    let step = |name: &str, progress| Event { step: Some(name.into()), ..with(None, Some(progress)) };
    let mut played = Played::new(&[step("load", 80.0), step("save", 10.0)]);
    assert_eq!(played.task().progress, Some(10.0));
    assert_eq!(played.play(&Event { attempt: Some(2), ..event() }), Ok(true));
    assert_eq!((played.task().progress, played.task().attempt), (Some(0.0), 2));
    assert_eq!(played.play(&Event { attempt: Some(1), ..with(None, Some(90.0)) }), Err(Outcome::Stale));
}

#[test]
fn no_bar_is_full_before_success_and_every_bar_is_full_after() {
    let mut played = Played::new(&[with(None, Some(100.0))]);
    assert_eq!(played.task().progress, Some(LIVE_PROGRESS_MAX));
    played.play(&with(Some(Status::Succeeded), None)).unwrap();
    assert_eq!(played.task().progress, Some(100.0));
    let failed = Played::new(&[with(Some(Status::Failed), Some(100.0))]);
    assert_eq!(failed.task().progress, Some(LIVE_PROGRESS_MAX));
}

#[test]
fn nothing_changes_after_an_end_but_a_higher_attempt_re_opens_a_failure() {
    let mut failed = Played::new(&[with(Some(Status::Failed), Some(40.0))]);
    assert_eq!(failed.play(&with(Some(Status::Failed), None)), Err(Outcome::Duplicate));
    assert_eq!(failed.play(&with(None, Some(50.0))), Err(Outcome::IllegalEnded));
    assert_eq!(failed.play(&with(Some(Status::Succeeded), None)), Err(Outcome::IllegalEnded));
    assert_eq!(failed.play(&Event { attempt: Some(2), ..event() }), Ok(true));
    assert_eq!(failed.task().status, Status::Running);
    for end in [Status::Succeeded, Status::Cancelled, Status::Expired] {
        let mut ended = Played::new(&[with(Some(end), None)]);
        assert_eq!(ended.play(&Event { attempt: Some(2), ..event() }), Err(Outcome::IllegalEnded), "{end:?}");
    }
}

#[test]
fn anything_newer_re_opens_a_lost_task() {
    let mut lost = Played::new(&[with(None, Some(97.0)), with(Some(Status::Lost), None)]);
    assert_eq!(lost.task().status, Status::Lost);
    assert_eq!(lost.play(&with(None, Some(98.0))), Ok(true));
    assert_eq!((lost.task().status, lost.task().completed_at_ms), (Status::Running, None));
    assert!(lost.play(&with(Some(Status::Succeeded), None)).unwrap());
}

#[test]
fn a_worker_that_has_not_noticed_the_cancellation_does_not_undo_it() {
    let mut played = Played::new(&[with(None, Some(10.0)), with(Some(Status::Cancelling), None)]);
    assert_eq!(played.play(&with(Some(Status::Running), Some(20.0))), Ok(false));
    assert_eq!((played.task().status, played.task().progress), (Status::Cancelling, Some(20.0)));
}

#[test]
fn the_same_event_id_or_seq_is_a_duplicate() {
    let mut played = Played::new(&[Event { event_id: Some("a".into()), seq: Some(4), ..with(None, Some(10.0)) }]);
    let again = Event { event_id: Some("a".into()), ..with(None, Some(20.0)) };
    assert_eq!(played.play(&again), Err(Outcome::Duplicate));
    assert_eq!(played.play(&Event { seq: Some(4), ..with(None, Some(20.0)) }), Err(Outcome::Duplicate));
    assert_eq!(played.play(&Event { seq: Some(3), ..with(None, Some(20.0)) }), Err(Outcome::Stale));
}

#[test]
fn the_owner_and_the_group_are_settled_by_the_first_to_name_them() {
    let user = |id: &str| UserId::parse(id).ok();
    let mut played = Played::new(&[event(), Event { user_id: user("u1"), ..event() }]);
    assert_eq!(played.play(&Event { user_id: user("u2"), ..event() }), Err(Outcome::IllegalOwner));
    let root = |id: &str| Event { root_id: TaskId::parse(id).ok(), ..event() };
    played.play(&root("r1")).unwrap();
    played.play(&root("r2")).unwrap();
    assert_eq!(played.task().group().as_str(), "r1");
}

#[test]
fn an_end_counts_whatever_its_clock_says_and_other_early_news_does_not() {
    let dated = |timestamp_ms, event: Event| Event { timestamp_ms: Some(timestamp_ms), ..event };
    let mut played = Played::new(&[dated(50_000, with(None, Some(40.0)))]);
    let step_back = Event { step: Some("earlier".into()), ..with(None, Some(90.0)) };
    assert_eq!(played.play(&dated(40_000, step_back)), Err(Outcome::Stale));
    assert_eq!(played.play(&dated(40_000, with(None, Some(41.0)))), Ok(false), "it moves the task forward");
    assert_eq!(played.play(&dated(30_000, with(Some(Status::Failed), None))), Ok(true));
}

#[test]
fn a_fast_clock_in_the_web_server_does_not_hold_up_the_worker() {
    let dated = |timestamp_ms, event: Event| Event { timestamp_ms: Some(timestamp_ms), ..event };
    let mut played =
        Played::new(&[dated(200_000, with(Some(Status::Queued), None)), dated(80_000, with(None, Some(1.0)))]);
    let step = Event { step: Some("load".into()), ..with(None, Some(5.0)) };
    assert_eq!(played.play(&dated(81_000, step)), Ok(false));
    assert_eq!(played.play(&dated(82_000, with(Some(Status::Waiting), None))), Ok(true));
}

fn any_event() -> impl Strategy<Value = Event> {
    let status = prop::option::weighted(0.4, prop::sample::select(&Status::ALL[..]));
    let progress = prop::option::weighted(0.7, 0.0..=100.0_f64);
    let step = prop::option::weighted(0.2, prop::sample::select(&["load", "save"][..]));
    let attempt = prop::option::weighted(0.2, 1..4_u32);
    let seq = prop::option::weighted(0.2, 0..20_u64);
    let owner = prop::option::weighted(0.2, prop::sample::select(&["u1", "u2"][..]));
    let time = prop::option::weighted(0.3, 0..50_u64);
    (status, progress, step, attempt, seq, owner, time).prop_map(
        |(status, progress, step, attempt, seq, owner, time)| Event {
            status,
            progress,
            step: step.map(Into::into),
            attempt,
            seq,
            user_id: owner.and_then(|id| UserId::parse(id).ok()),
            timestamp_ms: time.map(|seconds| seconds * 1000),
            ..event()
        },
    )
}

/// What must hold from one state of a task to the next, said as plainly as the design says it.
fn check_law(before: &Task, after: &Task, is_key: bool) {
    let same_attempt = before.attempt == after.attempt;
    assert!(before.attempt <= after.attempt, "attempts only rise");
    assert!(before.user_id.is_none() || before.user_id == after.user_id, "an owner stays");
    assert!(after.progress.is_none_or(|p| (p < 100.0) == (after.status != Status::Succeeded)), "100 is success");
    if same_attempt && before.step == after.step {
        assert!(before.progress <= after.progress, "no bar falls: {before:?} {after:?}");
    }
    if same_attempt && before.status.is_terminal() {
        assert_eq!(before.status, Status::Lost, "an end is an end");
    }
    if before.status.is_terminal() && !same_attempt {
        assert!(matches!(before.status, Status::Failed | Status::TimedOut | Status::Lost));
    }
    assert_eq!(after.completed_at_ms.is_some(), after.status.is_terminal());
    assert_eq!(is_key, before.status != after.status || !same_attempt, "what must not be folded away");
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_a_law(events in prop::collection::vec(any_event(), 1..60)) {
        let mut played = Played::new(&events[..1]);
        for event in &events[1..] {
            let before = played.task().clone();
            if let Ok(is_key) = played.play(event) {
                check_law(&before, played.task(), is_key);
            } else {
                prop_assert_eq!(&before, played.task());
            }
        }
    }

    #[test]
    fn an_end_is_never_refused_for_being_late(events in prop::collection::vec(any_event(), 1..30)) {
        let mut played = Played::new(&events);
        let was_live = !played.task().status.is_terminal();
        let attempt = Some(played.task().attempt);
        let end = Event { status: Some(Status::Succeeded), attempt, timestamp_ms: Some(0), ..event() };
        let outcome = played.play(&end);
        prop_assert_eq!(was_live || outcome.is_ok(), outcome.is_ok());
    }

    #[test]
    fn what_was_said_twice_changes_nothing_the_second_time(events in prop::collection::vec(any_event(), 1..30)) {
        let mut played = Played::new(&events);
        let before = played.task().clone();
        if let Some(last) = events.last() {
            // What was refused may be due now that nothing else came; what was applied is not applied again.
            if played.play(last).is_ok() {
                let once = played.task().clone();
                prop_assert_ne!(played.play(last), Ok(true), "the same news twice is no change of status");
                prop_assert_eq!(&once, played.task());
            } else {
                prop_assert_eq!(&before, played.task());
            }
        }
    }

    #[test]
    fn an_end_holds_in_whatever_order_the_events_of_its_attempt_come(
        (events, end) in a_run_with_an_end().prop_flat_map(|(events, end)| (Just(events).prop_shuffle(), Just(end)))
    ) {
        let played = Played::new(&events);
        prop_assert_eq!(Some(played.task().status), end);
        prop_assert!(played.task().completed_at_ms.is_some());
    }

    #[test]
    fn progress_alone_comes_to_the_same_in_any_order(
        (ordered, shuffled) in prop::collection::vec((1..4_u32, 0.0..=100.0_f64), 1..30)
            .prop_flat_map(|events| (Just(events.clone()), Just(events).prop_shuffle()))
    ) {
        let play = |run: Vec<(u32, f64)>| {
            let say = |(attempt, percent)| Event { attempt: Some(attempt), ..with(None, Some(percent)) };
            let played = Played::new(&run.into_iter().map(say).collect::<Vec<_>>());
            (played.task().attempt, played.task().progress, played.task().status)
        };
        let attempt = ordered.iter().map(|(attempt, _)| *attempt).max();
        let most = ordered.iter().filter(|(of, _)| Some(*of) == attempt).map(|(_, percent)| *percent).fold(0.0, f64::max);
        let expected = (attempt.unwrap_or(1), Some(most.min(LIVE_PROGRESS_MAX)), Status::Running);
        prop_assert_eq!(play(ordered), expected);
        prop_assert_eq!(play(shuffled), expected);
    }
}

/// Live events of one attempt, and one end that its worker numbered last, if it numbers at all.
fn a_run_with_an_end() -> impl Strategy<Value = (Vec<Event>, Option<Status>)> {
    let ends = prop::sample::select(&[Status::Succeeded, Status::Failed, Status::Cancelled, Status::TimedOut][..]);
    let is_live = |event: &Event| event.status.is_none_or(|status| !status.is_terminal());
    let live = prop::collection::vec(any_event().prop_filter("live", is_live), 0..20);
    (live, ends, any::<bool>()).prop_map(|(mut events, end, numbers)| {
        for event in &mut events {
            (event.attempt, event.user_id) = (None, None);
        }
        let seq = numbers.then_some(u64::MAX);
        events.push(Event { seq, ..with(Some(end), None) });
        (events, Some(end))
    })
}
