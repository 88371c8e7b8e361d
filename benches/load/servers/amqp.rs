//! As much of AMQP 0.9.1 as it takes to publish: everything is sent ahead of its answers, which nobody reads.
//!
//! A client library would cost the core of the load more than RabbitMQ takes.

use taskcast::clock;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
const CHANNEL: u16 = 1;
const FRAME_MAX: u32 = 131_072;
const CHANNEL_MAX: u16 = 2047;

/// The flag of the only property that is sent.
const TIMESTAMP: u16 = 1 << 6;

/// Class and method of the specification.
const START_OK: (u16, u16) = (10, 11);
const TUNE_OK: (u16, u16) = (10, 31);
const OPEN: (u16, u16) = (10, 40);
const CHANNEL_OPEN: (u16, u16) = (20, 10);
const PUBLISH: (u16, u16) = (60, 40);

/// What a connection begins with, as `guest` of the virtual host `/`.
pub fn opening() -> Vec<u8> {
    let mut out = b"AMQP\x00\x00\x09\x01".to_vec();
    let login = b"\x00guest\x00guest";
    let mut start = vec![0; 4];
    short(b"PLAIN", &mut start);
    start.extend_from_slice(&(login.len() as u32).to_be_bytes());
    start.extend_from_slice(login);
    short(b"en_US", &mut start);
    method(0, START_OK, &start, &mut out);
    let tune = [&CHANNEL_MAX.to_be_bytes()[..], &FRAME_MAX.to_be_bytes(), &[0, 0]].concat();
    method(0, TUNE_OK, &tune, &mut out);
    let mut open = Vec::new();
    short(b"/", &mut open);
    open.extend_from_slice(&[0, 0]);
    method(0, OPEN, &open, &mut out);
    method(CHANNEL, CHANNEL_OPEN, &[0], &mut out);
    out
}

pub fn publish(exchange: &str, routing_key: &str, body: &[u8], out: &mut Vec<u8>) {
    let mut arguments = vec![0, 0];
    short(exchange.as_bytes(), &mut arguments);
    short(routing_key.as_bytes(), &mut arguments);
    arguments.push(0);
    method(CHANNEL, PUBLISH, &arguments, out);
    let mut header = vec![0, 60, 0, 0];
    header.extend_from_slice(&(body.len() as u64).to_be_bytes());
    // As workers are told to: RabbitMQ does not date what it stores.
    header.extend_from_slice(&TIMESTAMP.to_be_bytes());
    header.extend_from_slice(&(clock::now().unix_ms / 1000).to_be_bytes());
    frame(HEADER, CHANNEL, &header, out);
    frame(BODY, CHANNEL, body, out);
}

fn short(text: &[u8], out: &mut Vec<u8>) {
    out.push(text.len() as u8);
    out.extend_from_slice(text);
}

fn method(channel: u16, (class, method): (u16, u16), arguments: &[u8], out: &mut Vec<u8>) {
    let body = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
    frame(METHOD, channel, &body, out);
}

fn frame(kind: u8, channel: u16, body: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.push(FRAME_END);
}
