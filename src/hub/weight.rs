//! What a task weighs in memory: an estimate from its frames alone, so that replicas that read the same log come to the
//! same sum, whoever watches. So each frame counts as if one client had asked for it in JSON.
//!
//! Refuses to know: the allocator, who watches.

use std::sync::Arc;

use crate::proto::{JsonText, Task, TaskFrame, TaskId, UserId};

/// A slot, its place in the table, in the list of ended tasks and among the topics, without what is counted below.
const SLOT_BYTES: usize = 400;

/// A place in a topic's list; the topic is often of this task alone.
const LISTING_BYTES: usize = 160;

/// A frame's JSON besides its texts: names, numbers, the cursor, the header.
const JSON_BYTES: usize = 480;

/// What an allocation takes besides its content: reference counts, the allocator's header, rounding.
const ALLOCATION_BYTES: usize = 24;

/// The slot of a task, besides its frames. `event_ids_bytes` is what the rules remember.
pub(super) fn of_slot(task: &Task, event_ids_bytes: usize) -> usize {
    let listings = usize::from(task.user_id.is_some())
        + usize::from(task.root_id.is_some() || task.parent_id.is_some())
        + task.tags.as_ref().map_or(0, |tags| tags.len());
    SLOT_BYTES + text(task.task_id.as_str()) + listings * LISTING_BYTES + event_ids_bytes
}

/// A frame in a ring, without the texts that it shares with the one before it.
pub(super) fn of_frame(frame: &TaskFrame, before: Option<&TaskFrame>) -> usize {
    let (mut own, mut all) = (0, 0);
    let (task, known) = (&frame.task, before.map(|before| &before.task));
    let mut count = |text_of: fn(&Task) -> Option<&str>| {
        let Some(piece) = text_of(task) else { return };
        let is_shared = known.and_then(text_of).is_some_and(|known| std::ptr::eq(known, piece));
        all += piece.len();
        own += if is_shared { 0 } else { text(piece) };
    };
    count(|task| Some(task.task_id.as_str()));
    count(|task| task.user_id.as_ref().map(UserId::as_str));
    count(|task| task.parent_id.as_ref().map(TaskId::as_str));
    count(|task| task.root_id.as_ref().map(TaskId::as_str));
    count(|task| task.name.as_deref());
    count(|task| task.title.as_deref());
    count(|task| task.unit.as_deref());
    count(|task| task.step.as_deref());
    count(|task| task.message.as_deref());
    count(|task| task.worker.as_deref());
    count(|task| task.result.as_ref().map(JsonText::as_str));
    count(|task| task.metadata.as_ref().map(JsonText::as_str));
    let error_is_shared = before.is_some_and(|before| same(before.task.error.as_ref(), frame.task.error.as_ref()));
    if let Some(error) = &frame.task.error {
        let texts = [&error.code, &error.message, &error.kind].into_iter().flatten().map(|text| text.len());
        let bytes = texts.clone().sum::<usize>();
        all += bytes;
        own += if error_is_shared { 0 } else { size_of_val(&**error) + bytes + 4 * ALLOCATION_BYTES };
    }
    let tags_are_shared = before.is_some_and(|before| same(before.task.tags.as_ref(), frame.task.tags.as_ref()));
    if let Some(tags) = &frame.task.tags {
        let bytes = tags.iter().map(|tag| tag.len()).sum::<usize>();
        all += bytes;
        own += if tags_are_shared { 0 } else { bytes + tags.len() * (16 + ALLOCATION_BYTES) + ALLOCATION_BYTES };
    }
    size_of::<TaskFrame>() + ALLOCATION_BYTES + own + JSON_BYTES + all
}

/// A text of its own on the heap.
pub(super) fn text(text: &str) -> usize {
    text.len() + ALLOCATION_BYTES
}

fn same<T: ?Sized>(before: Option<&Arc<T>>, now: Option<&Arc<T>>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if Arc::ptr_eq(before, now))
}
