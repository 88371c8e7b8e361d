//! What permessage-deflate (RFC 7692) would bring and cost: `cargo bench --bench deflate`. ARCHITECTURE.md has the
//! decision that rests on it.
//!
//! Two ways to compress what one event brings to many watchers. *Shared*: compressed once, without a context from earlier
//! frames (`server_no_context_takeover`), so all watchers get the same bytes. *Per connection*: each with a context of its
//! own, so each compresses for itself. Times are CPU time of this thread where the system tells it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement says what it found, or fails")]

use std::{
    fs,
    hint::black_box,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, OnceLock},
};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use taskcast::{
    clock::{self, Now},
    proto::{Cursor, Encoding, JsonText, Position, ServerMessage, Status, Task, TaskFrame, TaskId, UserId, payload},
};

/// Frames of each measurement, how often it is done, the median counting, and how long at least: the system counts CPU
/// time in steps of some milliseconds.
const FRAMES: usize = 2_000;
const ROUNDS: usize = 3;
const ROUND_SECONDS_MIN: f64 = 0.2;

const PAGE_TASKS: usize = 50;
const CONTEXTS: usize = 200;
const WATCHERS: f64 = 1_000.0;

/// The argument that asks for memory alone, before the window bits.
const MEMORY: &str = "--memory";

/// The headers of Ethernet (with what stands around a packet), IPv4 and TCP with timestamps.
const PACKET_BYTES: f64 = 38.0 + 20.0 + 32.0;

fn main() {
    // This program itself, asked for the memory of contexts: in a process that has freed others it cannot be told.
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == MEMORY) {
        println!("{}", memory(arguments[at + 1].parse().unwrap()));
        return;
    }
    let small: Vec<_> = (0..FRAMES).map(|step| frame(0, step, false)).collect();
    let full: Vec<_> = (0..FRAMES).map(|step| frame(0, step, true)).collect();
    let mixed: Vec<_> = (0..FRAMES).map(|step| frame(step % PAGE_TASKS, step / PAGE_TASKS, true)).collect();
    let pages: Vec<_> = (0..FRAMES / PAGE_TASKS).map(page).collect();
    let corpora = [
        ("progress of a bare task, JSON", payloads(&small, Encoding::Json)),
        ("progress of a described task, JSON", payloads(&full, Encoding::Json)),
        ("the same, protobuf", payloads(&full, Encoding::Protobuf)),
        ("50 described tasks in turn, JSON", payloads(&mixed, Encoding::Json)),
        ("a page with 50 of them, JSON", encoded(&pages, Encoding::Json)),
        ("the page in protobuf", encoded(&pages, Encoding::Protobuf)),
    ];
    let write = write_cost();
    println!("A write of 600 bytes to one of many connections over loopback takes {write:.2} µs of CPU.\n");
    shared(&corpora, write);
    per_connection(&corpora[..4], write);
}

// ---- what is compressed --------------------------------------------------------------------------------------------

/// The task after its `step`th event, as a worker that has `described` it or not would leave it.
fn frame(task: usize, step: usize, described: bool) -> Arc<TaskFrame> {
    let now_ms = 1_767_225_600_000 + 200 * step as u64 + task as u64;
    let mixed = (step as u64 * 64 + task as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Ids are random, as UUIDs are.
    let id = u128::from(task as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let text = |text: &str| described.then(|| Arc::from(text));
    let task = Task {
        task_id: TaskId::parse(&format!("{id:032x}")).unwrap(),
        user_id: UserId::parse("user-4711").ok(),
        name: text("reports.export"),
        title: text("Export invoices of the last quarter"),
        status: Status::Running,
        progress: Some((step % 1_000) as f64 / 10.0),
        current: described.then_some(step as f64),
        total: described.then_some(1_000.0),
        unit: text("rows"),
        step: described.then(|| format!("Reading part {}", step / 40).into()),
        message: Some(format!("Row {step} of 1000").into()),
        attempt: 1,
        parent_id: None,
        root_id: None,
        weight: None,
        tags: described.then(|| vec![Arc::from("export"), Arc::from("tenant-17")].into()),
        result: None,
        error: None,
        metadata: described.then(|| JsonText::parse(r#"{"file":"invoices.csv","queue":"default"}"#).unwrap()),
        worker: text("celery@worker-7c9f"),
        heartbeat_timeout_ms: None,
        created_at_ms: 1_767_225_600_000,
        started_at_ms: Some(1_767_225_600_104),
        updated_at_ms: now_ms,
        completed_at_ms: None,
    };
    let cursor = Cursor { position: Position { major: now_ms, minor: 0 }, proof: (mixed >> 32) as u32 };
    Arc::new(TaskFrame::new(task, cursor, false, now_ms + 3))
}

/// A page of a snapshot.
fn page(number: usize) -> ServerMessage {
    let tasks: Vec<_> =
        (0..PAGE_TASKS).map(|task| frame(number * PAGE_TASKS + task, 7 * task + number, true)).collect();
    let cursor = tasks.last().map(|frame| frame.cursor);
    ServerMessage::ActiveTasks { tasks, cursor, more: false, reset: None, id: None }
}

fn payloads(frames: &[Arc<TaskFrame>], encoding: Encoding) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| payload(&frame.bytes(encoding)).to_vec()).collect()
}

fn encoded(pages: &[ServerMessage], encoding: Encoding) -> Vec<Vec<u8>> {
    pages.iter().map(|page| payload(&page.encode(encoding, 1_767_225_600_000)).to_vec()).collect()
}

// ---- compressing ---------------------------------------------------------------------------------------------------

/// One message as RFC 7692 section 7.2.1 has it: flushed, and without the four bytes that every flush ends with.
fn deflate(compress: &mut Compress, message: &[u8], out: &mut Vec<u8>) {
    out.clear();
    // More than a message can grow by, so one call takes it all.
    out.reserve(message.len() + message.len() / 8 + 64);
    let before = compress.total_in();
    compress.compress_vec(message, out, FlushCompress::Sync).unwrap();
    assert_eq!(compress.total_in() - before, message.len() as u64, "one call takes the whole message");
    assert!(out.ends_with(&[0, 0, 0xff, 0xff]), "a flush ends so");
    out.truncate(out.len() - 4);
}

/// As [`deflate`], by a compressor that is told to forget; and what comes out can be read again.
fn check(messages: &[Vec<u8>], level: u32) {
    let mut compress = Compress::new(Compression::new(level), false);
    for message in messages {
        let (mut out, mut back) = (Vec::new(), Vec::with_capacity(message.len() + 64));
        compress.reset();
        deflate(&mut compress, message, &mut out);
        out.extend([0, 0, 0xff, 0xff]);
        Decompress::new(false).decompress_vec(&out, &mut back, FlushDecompress::Sync).unwrap();
        assert_eq!(&back, message);
    }
}

/// Of a frame, in the mean.
struct Cost {
    bytes: f64,
    micros: f64,
}

/// Compresses each of the messages alone.
fn measure_shared(messages: &[Vec<u8>], level: u32) -> Cost {
    let mut compress = Compress::new(Compression::new(level), false);
    let mut out = Vec::new();
    let mut bytes = 0;
    let micros = median_micros(messages.len(), || {
        bytes = 0;
        for message in messages {
            compress.reset();
            deflate(&mut compress, message, &mut out);
            bytes += black_box(&out).len();
        }
    });
    Cost { bytes: bytes as f64 / messages.len() as f64, micros }
}

/// Compresses each of the messages with each of many contexts in turn, as a fan-out would: so none is in a near cache.
fn measure_contexts(messages: &[Vec<u8>], window_bits: u8) -> Cost {
    let mut contexts: Vec<_> = (0..CONTEXTS).map(|_| context(window_bits)).collect();
    let mut out = Vec::new();
    let (mut bytes, mut count) = (0, 0);
    let mut next = messages.iter().cycle();
    let micros = median_micros(CONTEXTS, || {
        let Some(message) = next.next() else { return };
        for compress in &mut contexts {
            deflate(compress, message, &mut out);
            bytes += black_box(&out).len();
            count += 1;
        }
    });
    Cost { bytes: bytes as f64 / f64::from(count), micros }
}

/// What one of `count` things takes that `all` does.
fn median_micros(count: usize, mut all: impl FnMut()) -> f64 {
    let mut times = [0.0; ROUNDS].map(|_: f64| {
        let began = cpu_time();
        let mut done = 0;
        while done == 0 || cpu_time() - began < ROUND_SECONDS_MIN {
            all();
            done += count;
        }
        (cpu_time() - began) * 1e6 / done as f64
    });
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2]
}

fn mean_bytes(messages: &[Vec<u8>]) -> f64 {
    messages.iter().map(Vec::len).sum::<usize>() as f64 / messages.len() as f64
}

fn shared(corpora: &[(&str, Vec<Vec<u8>>)], write: f64) {
    println!("Shared: compressed once for all watchers, without a context.\n");
    println!(
        "| frames | bytes | level | compressed | of it | of the packet | µs per event | CPU added, 1,000 watchers |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    for (name, messages) in corpora {
        for level in [1, 6, 9] {
            check(messages, level);
            let cost = measure_shared(messages, level);
            // A page is put together for one session, so there is nobody to share it with.
            let watchers = if name.contains("page") { "–".to_owned() } else { added(cost.micros / WATCHERS, write) };
            let row = row(&cost, mean_bytes(messages));
            println!("| {name} | {:.0} | {level} | {row} | {:.1} | {watchers} |", mean_bytes(messages), cost.micros);
        }
    }
}

fn per_connection(corpora: &[(&str, Vec<Vec<u8>>)], write: f64) {
    println!("\nPer connection: each with a context of its own, level 1.\n");
    println!(
        "| frames | window bits | KiB per connection | compressed | of it | of the packet | µs per frame | CPU added |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|--:|");
    let contexts = [9, 10, 12, 15].map(|bits| (bits, memory_alone(bits)));
    for (name, messages) in corpora {
        for (bits, memory) in contexts {
            let cost = measure_contexts(messages, bits);
            let (row, added) = (row(&cost, mean_bytes(messages)), added(cost.micros, write));
            println!("| {name} | {bits} | {memory:.0} | {row} | {:.1} | {added} |", cost.micros);
        }
    }
}

fn row(cost: &Cost, plain: f64) -> String {
    let of_it = 100.0 * cost.bytes / plain;
    let of_packet = 100.0 * (cost.bytes + PACKET_BYTES) / (plain + PACKET_BYTES);
    format!("{:.0} | {of_it:.0} % | {of_packet:.0} %", cost.bytes)
}

/// To the write of a frame to one watcher.
fn added(micros: f64, write: f64) -> String {
    format!("{:.1} %", 100.0 * micros / write)
}

fn context(window_bits: u8) -> Compress {
    Compress::new_with_window_bits(Compression::new(1), false, window_bits)
}

// ---- the machine ---------------------------------------------------------------------------------------------------

/// KiB that one context takes once it has worked.
fn memory(window_bits: u8) -> f64 {
    let messages: Vec<_> = (0..200).map(|step| frame(0, step, true).bytes(Encoding::Json)).collect();
    let mut out = Vec::new();
    let before = resident_bytes();
    let mut contexts: Vec<Compress> = (0..CONTEXTS).map(|_| context(window_bits)).collect();
    for compress in &mut contexts {
        // Enough to fill any window.
        for message in &messages {
            deflate(compress, message, &mut out);
        }
    }
    (resident_bytes() - before) / CONTEXTS as f64 / 1024.0
}

fn memory_alone(window_bits: u8) -> f64 {
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program).args([MEMORY, &window_bits.to_string()]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(f64::NAN) * 4096.0
}

/// Seconds that this thread has computed so far; elsewhere than on Linux those that have passed.
fn cpu_time() -> f64 {
    static BEGAN: OnceLock<Now> = OnceLock::new();
    let elapsed = BEGAN.get_or_init(clock::now).instant.elapsed().as_secs_f64();
    let schedule = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    schedule.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).map_or(elapsed, |ns| ns / 1e9)
}

/// Microseconds of CPU for one write of a frame to each of many TCP connections over loopback; the median.
fn write_cost() -> f64 {
    const CONNECTIONS: usize = 100;
    const FRAME: [u8; 600] = [7; 600];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut near: Vec<TcpStream> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut far: Vec<TcpStream> = near.iter().map(|_| listener.accept().unwrap().0).collect();
    let reading = std::thread::spawn(move || {
        // Each in turn, as they are written, until the other ends are gone.
        while far.iter_mut().all(|socket| socket.read_exact(&mut FRAME.clone()).is_ok()) {}
    });
    for socket in &near {
        socket.set_nodelay(true).unwrap();
    }
    let micros = median_micros(CONNECTIONS, || near.iter_mut().for_each(|socket| socket.write_all(&FRAME).unwrap()));
    drop(near);
    reading.join().unwrap();
    micros
}
