//! The fault suite: real brokers, replicas of the real binary behind a real haproxy, hundreds of WebSocket clients; and
//! while workers publish, things break. A checker compares what each client ended with against what was published, and
//! one table says what was found. `tests/run faults` runs it in full, `tests/run` the small size.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test's set-up fails by panicking, and this one's result is what it prints"
)]

#[path = "../support/mod.rs"]
mod support;

mod checker;
mod clients;
mod kubelet;
mod manifests;
mod network;
mod publisher;
mod scenarios;
mod script;
mod table;
mod world;

use std::{os::unix::process::CommandExt, process::ExitCode};

use scenarios::{Settings, Size};
use taskcast::clock;

const USAGE: &str = "Usage: faults [--size small|full] [--seed N] [--minutes N] [SCENARIO...]

--size     small (the default) or full
--seed     of everything random; printed, and drawn when not given
--minutes  how long the soak takes

Exits with 1 when a promise is broken. The table is also written to target/faults.json.
Scenarios:";

const JSON_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/faults.json");

/// Set for the process that has raised its limit of open files.
const RAISED: &str = "TESTS_FAULTS_RAISED";

struct Arguments {
    settings: Settings,
    names: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, events, retained] = &arguments[..]
        && first == "--volume-inside"
    {
        let number = |text: &String| text.parse().expect("a number");
        println!("{}", scenarios::volume_inside(number(events), number(retained)));
        return ExitCode::SUCCESS;
    }
    let arguments = match parse(&arguments) {
        Ok(arguments) => arguments,
        Err(complaint) => {
            eprintln!("{complaint}\n{USAGE} {}", scenarios::ALL.join(" "));
            return ExitCode::from(64);
        }
    };
    if std::env::var_os(RAISED).is_none() {
        raise_open_files();
    }
    support::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&arguments))
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut settings = Settings { size: Size::Small, seed: clock::now().unix_ms, minutes: None };
    let mut names = Vec::new();
    let mut left = arguments.iter();
    while let Some(argument) = left.next() {
        let mut number = || left.next().and_then(|text| text.parse().ok()).ok_or(format!("{argument} wants a number"));
        match argument.as_str() {
            "--seed" => settings.seed = number()?,
            "--minutes" => settings.minutes = Some(number()?),
            "--size" => {
                settings.size = match left.next().map(String::as_str) {
                    Some("small") => Size::Small,
                    Some("full") => Size::Full,
                    _ => return Err("--size wants small or full".to_owned()),
                }
            }
            name if scenarios::ALL.contains(&name) => names.push(name.to_owned()),
            other => return Err(format!("unknown: {other}")),
        }
    }
    if names.is_empty() {
        let small = settings.size == Size::Small;
        let left_out = |name: &str| small && scenarios::FULL_ONLY.contains(&name);
        names = scenarios::ALL.iter().filter(|name| !left_out(name)).map(ToString::to_string).collect();
    }
    Ok(Arguments { settings, names })
}

/// Thousands of sockets need more than the usual soft limit; a shell can raise it, and starts this again.
fn raise_open_files() {
    let program = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -S -n \"$(ulimit -H -n)\" 2>/dev/null; exec \"$0\" \"$@\""]).arg(program);
    command.args(std::env::args_os().skip(1)).env(RAISED, "1");
    let error = command.exec();
    panic!("sh does not run: {error}");
}

async fn run(arguments: &Arguments) -> ExitCode {
    let Arguments { settings, names } = arguments;
    println!("faults: size {:?}, seed {} (--seed {})", settings.size, settings.seed, settings.seed);
    let mut rows = Vec::new();
    for name in names {
        eprintln!("faults: {name} ...");
        let row = scenarios::run(name, *settings).await;
        eprintln!("faults: {name}: {} after {:.0?}", if row.broken.is_empty() { "kept" } else { "BROKEN" }, row.took);
        for broken in &row.broken {
            eprintln!("faults: {name}: {broken}");
        }
        rows.push(row);
        // After each, so that a run which is ended half-way has told something.
        write_json(*settings, &rows);
    }
    println!("\n{}", table::render(&rows));
    println!("faults: also in {JSON_PATH}");
    let broken = rows.iter().filter(|row| !row.broken.is_empty()).count();
    println!("faults: {} scenarios, {broken} with a broken promise", rows.len());
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write_json(settings: Settings, rows: &[table::Row]) {
    let rows: Vec<_> = rows.iter().map(table::Row::json).collect();
    let whole = serde_json::json!({
        "size": format!("{:?}", settings.size).to_lowercase(), "seed": settings.seed, "scenarios": rows,
    });
    if let Err(error) = std::fs::write(JSON_PATH, format!("{whole:#}\n")) {
        eprintln!("faults: {JSON_PATH}: {error}");
    }
}
