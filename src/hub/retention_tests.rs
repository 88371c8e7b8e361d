//! Sweeps against a look at every task.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{super::tests::*, *};
use crate::{
    hub::{Arrival, Settings},
    proto::TaskId,
};

const STATUSES: [Status; 4] = [Status::Running, Status::Waiting, Status::Succeeded, Status::Failed];

#[derive(Debug, Clone)]
enum Act {
    Say {
        task: usize,
        status: Option<Status>,
        heartbeat_timeout_ms: Option<u64>,
        attempt: u32,
    },
    /// The log was away until now.
    Listen,
    Sweep,
}

fn any_act() -> impl Strategy<Value = Act> {
    let status = prop::option::weighted(0.4, prop::sample::select(&STATUSES[..]));
    let heartbeat = prop::option::weighted(0.4, 0..4_000_u64);
    let said = (0..20_usize, status, heartbeat, 1..3_u32).prop_map(|(task, status, heartbeat_timeout_ms, attempt)| {
        Act::Say { task, status, heartbeat_timeout_ms, attempt }
    });
    prop_oneof![6 => said, 1 => Just(Act::Listen), 3 => Just(Act::Sweep)]
}

/// What a look at every task finds: who is to be let go, and who is to be judged.
fn looked_for(hub: &Hub, now_ms: u64, listening_ms: u64) -> (BTreeSet<TaskId>, BTreeSet<TaskId>) {
    let (mut old, mut silent) = (BTreeSet::new(), BTreeSet::new());
    for slot in hub.slots() {
        let state = slot.lock();
        let task = &state.current().task;
        let is_over = task.status.is_terminal();
        let kept = if is_over { hub.0.settings.retain_ended } else { hub.0.settings.retain_idle };
        let since_ms = state.heard_at_ms.max(listening_ms);
        let is_silent = task.heartbeat_timeout_ms.is_some_and(|limit| now_ms.saturating_sub(since_ms) > limit);
        if now_ms.saturating_sub(state.heard_at_ms) > kept.as_millis() as u64 {
            old.insert(slot.id.clone());
        } else if !is_over && is_silent && state.judged_at_ms.is_none_or(|at| now_ms - at > JUDGE_AGAIN_AFTER_MS) {
            silent.insert(slot.id.clone());
        }
    }
    (old, silent)
}

fn sweep_all(hub: &Hub, now_ms: u64, listening_ms: u64) -> BTreeSet<TaskId> {
    let mut verdicts = hub.sweep(now_ms, listening_ms);
    while hub.is_sweep_due(now_ms) {
        verdicts.extend(hub.sweep(now_ms, listening_ms));
    }
    verdicts.into_iter().map(|verdict| verdict.task_id).collect()
}

fn ids(hub: &Hub) -> BTreeSet<TaskId> {
    hub.slots().map(|slot| slot.id.clone()).collect()
}

proptest! {
    #[test]
    fn a_sweep_finds_what_a_look_at_every_task_would(acts in prop::collection::vec((any_act(), 0..2_000_u64), 1..120)) {
        let hub = hub_with(Settings {
            retain_ended: Duration::from_secs(5),
            retain_idle: Duration::from_secs(15),
            ..settings()
        });
        let (mut now_ms, mut listening_ms) = (100_000, 100_000);
        for (at, (act, after_ms)) in (1..).zip(acts) {
            now_ms += after_ms;
            match act {
                Act::Say { task, status, heartbeat_timeout_ms, attempt } => {
                    let event = Event {
                        status,
                        heartbeat_timeout_ms,
                        attempt: Some(attempt),
                        ..progress(&format!("t{task}"), "u1", 1.0)
                    };
                    hub.apply(&[arrival(at, event)], now_ms);
                }
                Act::Listen => listening_ms = now_ms,
                Act::Sweep => {
                    let (old, silent) = looked_for(&hub, now_ms, listening_ms);
                    let kept: BTreeSet<_> = ids(&hub).difference(&old).cloned().collect();
                    prop_assert_eq!(sweep_all(&hub, now_ms, listening_ms), silent);
                    prop_assert_eq!(ids(&hub), kept);
                    prop_assert_eq!(looked_for(&hub, now_ms, listening_ms), Default::default(), "nothing is left");
                }
            }
            prop_assert_eq!(lock(&hub.0.deadlines).len(), hub.len(), "each task stands there once");
        }
    }
}

#[test]
fn a_sweep_looks_at_what_is_due_and_at_a_piece_of_it_at_a_time() {
    let hub = hub_with(settings());
    let many = 10 * SWEPT_AT_ONCE as u64;
    let batch: Vec<_> = (1..=many).map(|n| arrival(n, progress(&format!("t{n}"), "u1", 1.0))).collect();
    hub.apply(&batch, 1_000);
    hub.apply(&[arrival(many + 1, progress("late", "u1", 1.0))], 500_000);
    assert!(!hub.is_sweep_due(3_600_001));
    assert!(hub.is_sweep_due(3_601_001));
    for swept in 1..=10 {
        let _ = hub.sweep(3_601_001, 0);
        assert_eq!(hub.len(), 10 * SWEPT_AT_ONCE + 1 - swept * SWEPT_AT_ONCE);
    }
    assert!(!hub.is_sweep_due(3_601_001), "what is due later is not looked at");
}

#[test]
fn an_event_puts_a_deadline_off_and_an_end_brings_it_forward() {
    let hub = hub_with(settings());
    hub.apply(&[arrival(1, progress("t1", "u1", 1.0))], 1_000);
    hub.apply(&[Arrival { appended_at_ms: Some(900_000), ..arrival(2, progress("t1", "u1", 2.0)) }], 900_000);
    assert!(hub.is_sweep_due(3_601_001), "too early, which costs one look");
    let _ = hub.sweep(3_601_001, 0);
    assert!(hub.len() == 1 && !hub.is_sweep_due(3_601_001));
    let end = status("t1", "u1", Status::Failed);
    hub.apply(&[Arrival { appended_at_ms: Some(3_700_000), ..arrival(3, end) }], 3_700_000);
    assert!(!hub.is_sweep_due(3_760_000) && hub.is_sweep_due(3_760_001));
    let _ = hub.sweep(3_760_001, 0);
    assert!(hub.is_empty());
}
