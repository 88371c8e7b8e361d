//! Reads what a client receives, as a client of another make would: frames of RFC 6455, JSON by its names, protobuf by
//! its numbers. Shares nothing with what wrote them.
//!
//! Refuses to know: what a message means to whom it was sent.

use serde_json::Value;

use super::model::Facts;
use crate::proto::{Cursor, Status};

/// What a client understood.
#[derive(Debug)]
pub(super) enum Heard {
    Greeting { resumed: bool, cursor: Option<Cursor> },
    Page { tasks: Vec<Facts>, cursor: Option<Cursor>, more: bool, reset: bool },
    Frame { facts: Facts, cursor: Cursor, completed: bool },
    Removed(String),
    Unsubscribed,
    Other,
}

/// Takes the first whole frame off `bytes`: its opcode and payload.
pub(super) fn take_frame(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    assert_eq!(second & 0x80, 0, "a server masks nothing");
    assert_eq!(first & 0xf0, 0x80, "whole, and no extension");
    let (header, length) = match second {
        126 => (4, bytes.get(2..4)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
        127 => (10, bytes.get(2..10)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
        short => (2, usize::from(short)),
    };
    if bytes.len() < header + length {
        return None;
    }
    let payload = bytes[header..header + length].to_vec();
    bytes.drain(..header + length);
    Some((first & 0x0f, payload))
}

pub(super) fn read(opcode: u8, payload: &[u8]) -> Heard {
    match opcode {
        1 => json(&serde_json::from_slice(payload).expect("JSON")),
        2 => protobuf(payload),
        9 => Heard::Other,
        other => panic!("a frame of type {other}"),
    }
}

fn cursor(text: &str) -> Cursor {
    text.parse().expect("a cursor")
}

// ---- JSON ----------------------------------------------------------------------------------------------------------

fn json(message: &Value) -> Heard {
    let cursor = message["cursor"].as_str().map(cursor);
    match message["type"].as_str().expect("a type") {
        "connection_established" => Heard::Greeting { resumed: message["resumed"] == true, cursor },
        "active_tasks" => Heard::Page {
            tasks: message["tasks"].as_array().expect("tasks").iter().map(json_task).collect(),
            cursor,
            more: message["more"] == true,
            reset: message["reset"].is_string(),
        },
        kind @ ("task_progress" | "task_completed") => Heard::Frame {
            facts: json_task(message),
            cursor: cursor.expect("a cursor on each frame"),
            completed: kind == "task_completed",
        },
        "task_removed" => Heard::Removed(message["task_id"].as_str().expect("an id").to_owned()),
        "unsubscribed" => Heard::Unsubscribed,
        _ => Heard::Other,
    }
}

fn json_task(task: &Value) -> Facts {
    let text = |name: &str| task[name].as_str().map(str::to_owned);
    Facts {
        task_id: text("task_id").expect("an id"),
        mark: text("message").expect("every event here has a message"),
        status: Status::ALL.into_iter().find(|known| task["status"] == known.as_str()).expect("a status"),
        progress: task["progress"].as_f64(),
        step: text("step"),
        attempt: task["attempt"].as_u64().expect("an attempt") as u32,
        user: text("user_id"),
        root: text("root_id"),
        tags: task["tags"].as_array().into_iter().flatten().map(|tag| tag.as_str().unwrap().to_owned()).collect(),
    }
}

// ---- protobuf ------------------------------------------------------------------------------------------------------

/// A field: its number, and its value as a number or as bytes.
struct Field<'a>(u64, u64, &'a [u8]);

fn fields(mut bytes: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => fields.push(Field(key >> 3, varint(&mut bytes), &[])),
            1 => fields.push(Field(key >> 3, u64::from_le_bytes(taken(&mut bytes, 8).try_into().unwrap()), &[])),
            2 => {
                let length = varint(&mut bytes) as usize;
                fields.push(Field(key >> 3, 0, taken(&mut bytes, length)));
            }
            other => panic!("wire type {other}"),
        }
    }
    fields
}

fn taken<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = taken(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("an endless number")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn protobuf(payload: &[u8]) -> Heard {
    // `timestamp_ms` and `id` stand beside the one message.
    let whole = fields(payload);
    let Field(number, _, body) = whole.iter().find(|field| field.0 > 2).expect("a message");
    let body = fields(body);
    let number_of = |wanted: u64| body.iter().find(|field| field.0 == wanted).map_or(0, |field| field.1);
    let bytes_of = |wanted: u64| body.iter().find(|field| field.0 == wanted).map(|field| field.2);
    let cursor_at = |wanted: u64| bytes_of(wanted).map(|bytes| cursor(&text(bytes)));
    match number {
        3 => Heard::Greeting { resumed: number_of(6) == 1, cursor: cursor_at(5) },
        4 => Heard::Page {
            tasks: body.iter().filter(|field| field.0 == 1).map(|field| protobuf_task(field.2)).collect(),
            cursor: cursor_at(2),
            more: number_of(3) == 1,
            reset: number_of(4) != 0,
        },
        5 | 6 => Heard::Frame {
            facts: protobuf_task(bytes_of(1).expect("a task")),
            cursor: cursor_at(2).expect("a cursor on each frame"),
            completed: *number == 6,
        },
        7 => Heard::Removed(text(bytes_of(1).expect("an id"))),
        11 => Heard::Unsubscribed,
        _ => Heard::Other,
    }
}

fn protobuf_task(bytes: &[u8]) -> Facts {
    let fields = fields(bytes);
    let bytes_of = |wanted: u64| fields.iter().find(|field| field.0 == wanted).map(|field| text(field.2));
    let number_of = |wanted: u64| fields.iter().find(|field| field.0 == wanted).map(|field| field.1);
    Facts {
        task_id: bytes_of(1).expect("an id"),
        mark: bytes_of(11).expect("every event here has a message"),
        status: Status::ALL[number_of(5).expect("a status") as usize - 1],
        progress: number_of(6).map(f64::from_bits),
        step: bytes_of(10),
        attempt: number_of(12).expect("an attempt") as u32,
        user: bytes_of(2),
        root: bytes_of(14),
        tags: fields.iter().filter(|field| field.0 == 16).map(|field| text(field.2)).collect(),
    }
}
