//! A task as compact bytes: only what differs from another state of the same task, so that a ring of frames costs little
//! more than its newest one, and shares its texts again once it is read.
//!
//! Refuses to know: where such bytes are kept.

use std::sync::Arc;

use super::{
    JsonText, Status, TAGS_MAX, Task, TaskError, TaskId, UserId,
    binary::{BinaryReader, Corrupt, push_bytes, push_difference, push_number, push_option},
};

/// What a field's bit stands for, in this order, for ever: a new field goes to the end.
const FIELDS: u32 = 24;

/// Status by number, for ever: a new one goes to the end of this list, not into its middle.
const STATUSES: [Status; 11] = Status::ALL;

/// A number that is mostly whole and small.
fn push_decimal(out: &mut Vec<u8>, number: f64) {
    if number >= 0.0 && number.fract() == 0.0 && number < 1e15 && number.to_bits() != (-0.0_f64).to_bits() {
        push_number(out, (number as u64) << 1);
    } else {
        out.push(1);
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn read_decimal(reader: &mut BinaryReader<'_>) -> Result<f64, Corrupt> {
    let whole = reader.number()?;
    if whole & 1 == 0 {
        return Ok((whole >> 1) as f64);
    }
    let number = f64::from_le_bytes(reader.array()?);
    if number.is_finite() { Ok(number) } else { Err(Corrupt("a number is not finite")) }
}

/// Writes the fields that differ, each behind a bit.
struct Differences<'a> {
    out: &'a mut Vec<u8>,
    mask: u32,
    bit: u32,
}

impl Differences<'_> {
    fn field(&mut self, differs: bool, push: impl FnOnce(&mut Vec<u8>)) {
        if differs {
            self.mask |= 1 << self.bit;
            push(self.out);
        }
        self.bit += 1;
    }

    /// What is shared is not written again; what is merely equal is, so that what is shared once it is read is what was.
    fn shared<T: ?Sized>(&mut self, new: Option<&T>, old: Option<&T>, push: impl FnOnce(&mut Vec<u8>, &T)) {
        let is_shared = match (new, old) {
            (None, None) => true,
            (Some(new), Some(old)) => std::ptr::eq(new, old),
            _ => false,
        };
        self.field(!is_shared, |out| push_option(out, new, push));
    }

    fn text(&mut self, new: Option<&str>, old: Option<&str>) {
        self.shared(new, old, |out, text| push_bytes(out, text.as_bytes()));
    }

    fn decimal(&mut self, new: Option<f64>, old: Option<f64>) {
        self.field(new.map(f64::to_bits) != old.map(f64::to_bits), |out| push_option(out, new, push_decimal));
    }

    fn moment(&mut self, new: Option<u64>, old: Option<u64>, base: u64) {
        self.field(new != old, |out| push_option(out, new, |out, ms| push_difference(out, ms, base)));
    }
}

/// Writes how `task` differs from `before`: an earlier state of the same task, or nothing.
#[expect(clippy::too_many_lines, reason = "a table: one entry per field")]
pub fn push_task(out: &mut Vec<u8>, task: &Task, before: Option<&Task>) {
    let blank;
    let before = if let Some(before) = before {
        before
    } else {
        blank = blank_task(task.task_id.clone());
        &blank
    };
    let mask_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let mut fields = Differences { out, mask: 0, bit: 0 };
    // Every field is named, so that a new one cannot be forgotten here.
    let Task {
        task_id: _,
        user_id,
        name,
        title,
        status,
        progress,
        current,
        total,
        unit,
        step,
        message,
        attempt,
        parent_id,
        root_id,
        weight,
        tags,
        result,
        error,
        metadata,
        worker,
        heartbeat_timeout_ms,
        created_at_ms,
        started_at_ms,
        updated_at_ms,
        completed_at_ms,
    } = task;
    fields.text(user_id.as_ref().map(UserId::as_str), before.user_id.as_ref().map(UserId::as_str));
    fields.text(name.as_deref(), before.name.as_deref());
    fields.text(title.as_deref(), before.title.as_deref());
    fields.field(*status != before.status, |out| {
        out.push(STATUSES.iter().position(|known| known == status).unwrap_or_default() as u8);
    });
    fields.decimal(*progress, before.progress);
    fields.decimal(*current, before.current);
    fields.decimal(*total, before.total);
    fields.text(unit.as_deref(), before.unit.as_deref());
    fields.text(step.as_deref(), before.step.as_deref());
    fields.text(message.as_deref(), before.message.as_deref());
    fields.field(*attempt != before.attempt, |out| push_number(out, u64::from(*attempt)));
    fields.text(parent_id.as_ref().map(TaskId::as_str), before.parent_id.as_ref().map(TaskId::as_str));
    fields.text(root_id.as_ref().map(TaskId::as_str), before.root_id.as_ref().map(TaskId::as_str));
    fields.decimal(*weight, before.weight);
    fields.shared(tags.as_deref(), before.tags.as_deref(), |out, tags| {
        push_number(out, tags.len() as u64);
        for tag in tags {
            push_bytes(out, tag.as_bytes());
        }
    });
    fields.text(result.as_ref().map(JsonText::as_str), before.result.as_ref().map(JsonText::as_str));
    fields.shared(error.as_deref(), before.error.as_deref(), push_error);
    fields.text(metadata.as_ref().map(JsonText::as_str), before.metadata.as_ref().map(JsonText::as_str));
    fields.text(worker.as_deref(), before.worker.as_deref());
    fields.moment(*heartbeat_timeout_ms, before.heartbeat_timeout_ms, 0);
    fields.field(*created_at_ms != before.created_at_ms, |out| push_number(out, *created_at_ms));
    fields.moment(*started_at_ms, before.started_at_ms, *created_at_ms);
    fields.field(*updated_at_ms != before.updated_at_ms, |out| {
        push_difference(out, *updated_at_ms, before.updated_at_ms);
    });
    fields.moment(*completed_at_ms, before.completed_at_ms, *created_at_ms);
    let mask = fields.mask;
    out[mask_at..mask_at + 4].copy_from_slice(&mask.to_le_bytes());
}

fn push_error(out: &mut Vec<u8>, error: &TaskError) {
    for text in [&error.code, &error.message, &error.kind] {
        push_option(out, text.as_deref(), |out, text| push_bytes(out, text.as_bytes()));
    }
    push_option(out, error.retryable, |out, retryable| out.push(u8::from(retryable)));
}

/// Reads what [`push_task`] wrote, given the same earlier state, or the task's id.
///
/// # Errors
/// Bytes that it cannot have written.
pub fn read_task(reader: &mut BinaryReader<'_>, task_id: &TaskId, before: Option<&Task>) -> Result<Task, Corrupt> {
    let mut task = before.cloned().unwrap_or_else(|| blank_task(task_id.clone()));
    let mask = u32::from_le_bytes(reader.array()?);
    if mask >> FIELDS != 0 {
        return Err(Corrupt("a task has fields that this version does not know"));
    }
    for bit in (0..FIELDS).filter(|bit| mask & (1 << bit) != 0) {
        read_field(reader, &mut task, bit)?;
    }
    Ok(task)
}

fn read_field(reader: &mut BinaryReader<'_>, task: &mut Task, bit: u32) -> Result<(), Corrupt> {
    let created_at_ms = task.created_at_ms;
    let updated_at_ms = task.updated_at_ms;
    match bit {
        0 => task.user_id = reader.option(|r| UserId::parse(r.text()?).map_err(|_| Corrupt("not a user's id")))?,
        1 => task.name = reader.option(BinaryReader::shared_text)?,
        2 => task.title = reader.option(BinaryReader::shared_text)?,
        3 => task.status = *STATUSES.get(usize::from(reader.byte()?)).ok_or(Corrupt("not a status"))?,
        4 => task.progress = reader.option(read_decimal)?,
        5 => task.current = reader.option(read_decimal)?,
        6 => task.total = reader.option(read_decimal)?,
        7 => task.unit = reader.option(BinaryReader::shared_text)?,
        8 => task.step = reader.option(BinaryReader::shared_text)?,
        9 => task.message = reader.option(BinaryReader::shared_text)?,
        10 => task.attempt = reader.small()?,
        11 => task.parent_id = reader.option(read_task_id)?,
        12 => task.root_id = reader.option(read_task_id)?,
        13 => task.weight = reader.option(read_decimal)?,
        14 => task.tags = reader.option(read_tags)?,
        15 => task.result = reader.option(read_json)?,
        16 => task.error = reader.option(read_error)?,
        17 => task.metadata = reader.option(read_json)?,
        18 => task.worker = reader.option(BinaryReader::shared_text)?,
        19 => task.heartbeat_timeout_ms = reader.option(|r| r.difference(0))?,
        20 => task.created_at_ms = reader.number()?,
        21 => task.started_at_ms = reader.option(|r| r.difference(created_at_ms))?,
        22 => task.updated_at_ms = reader.difference(updated_at_ms)?,
        _ => task.completed_at_ms = reader.option(|r| r.difference(created_at_ms))?,
    }
    Ok(())
}

/// # Errors
/// Not the id of a task.
pub fn read_task_id(reader: &mut BinaryReader<'_>) -> Result<TaskId, Corrupt> {
    TaskId::parse(reader.text()?).map_err(|_| Corrupt("not a task's id"))
}

fn read_json(reader: &mut BinaryReader<'_>) -> Result<JsonText, Corrupt> {
    JsonText::parse(reader.text()?).ok_or(Corrupt("not JSON"))
}

fn read_tags(reader: &mut BinaryReader<'_>) -> Result<Arc<[Arc<str>]>, Corrupt> {
    let count: usize = reader.small()?;
    if count > TAGS_MAX {
        return Err(Corrupt("a task has too many tags"));
    }
    (0..count).map(|_| reader.shared_text()).collect()
}

fn read_error(reader: &mut BinaryReader<'_>) -> Result<Arc<TaskError>, Corrupt> {
    Ok(Arc::new(TaskError {
        code: reader.option(BinaryReader::shared_text)?,
        message: reader.option(BinaryReader::shared_text)?,
        kind: reader.option(BinaryReader::shared_text)?,
        retryable: reader.option(|r| r.byte().map(|byte| byte != 0))?,
    }))
}

fn blank_task(task_id: TaskId) -> Task {
    Task {
        task_id,
        user_id: None,
        name: None,
        title: None,
        status: Status::Queued,
        progress: None,
        current: None,
        total: None,
        unit: None,
        step: None,
        message: None,
        attempt: 0,
        parent_id: None,
        root_id: None,
        weight: None,
        tags: None,
        result: None,
        error: None,
        metadata: None,
        worker: None,
        heartbeat_timeout_ms: None,
        created_at_ms: 0,
        started_at_ms: None,
        updated_at_ms: 0,
        completed_at_ms: None,
    }
}

#[cfg(test)]
#[path = "task_binary_tests.rs"]
mod tests;
