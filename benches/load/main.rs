//! Load as a fleet of browsers and workers would bring it. `benches/README.md` says what is measured and how to read it.

mod binary;
mod crowd;
mod drive;
mod http;
mod lab;
mod options;
mod payload;
mod place;
mod plot;
mod processes;
mod report;
mod rivals;
mod scenarios;
mod server;
mod servers;
mod tally;
mod websocket;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    lab::Lab,
    options::Options,
    place::{Cores, Place},
    report::Report,
    servers::floor,
};

/// Errors end a scenario, in words.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ran = match arguments.split_first() {
        Some((first, rest)) if first == floor::SUBCOMMAND => floor::serve(rest).map(|()| true),
        _ => run(Options::parse()),
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("load: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// True if every scenario came to its end, whatever became of its targets.
fn run(options: Options) -> Outcome<bool> {
    let everybody = lab::everybody(&binary::built_beside());
    let is_known = |wanted: &&String| everybody.iter().any(|server| server.name() == *wanted) || *wanted == "list";
    if let Some(unknown) = options.server.iter().find(|wanted| !is_known(wanted)) {
        return Err(format!("there is no server `{unknown}`; `--server list` names them").into());
    }
    if options.server.iter().any(|server| server == "list") {
        for server in everybody {
            let missing = server.missing().map(|missing| format!(" (missing: {missing})")).unwrap_or_default();
            say(&format!("{}{missing}", server.name()));
        }
        return Ok(true);
    }
    let size = options.size();
    let all = [&size.fan_out_watchers, &size.latency_watchers, &size.idle_watchers];
    let watchers_max = all.into_iter().flatten().copied().chain([size.many_watchers]).max().unwrap_or_default();
    let out = options.out.clone();
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        // Building it takes minutes.
        None if options.smoke || !options.wants("taskcast") => binary::built_beside(),
        None => binary::release()?,
    };
    let place = Place::prepare(watchers_max)?;
    let mut lab = Lab::new(options, place, binary);
    lab.report.machine = machine(&lab.place);
    for line in &lab.report.machine {
        say(line);
    }
    let ran = scenarios::run(&mut lab);
    lab.report.write(&out)?;
    plot::draw(&lab.report, &out)?;
    say(&format!("\n{}", lab.report.text()));
    say(&format!("written: {0}/results.json, {0}/results.md and plots", out.display()));
    ran?;
    Ok(lab.report.failures.is_empty() && is_whole(&lab.report))
}

/// Neither taskcast nor the floor may lose anything.
fn is_whole(report: &Report) -> bool {
    // In whatever form: `floor-batch`, `taskcast, RabbitMQ`.
    let is_ours = |text: &str| ["taskcast", "floor"].iter().any(|own| text.starts_with(own));
    let has_mistakes = report.rows.iter().any(|row| is_ours(&row.server) && !row.remarks.is_empty());
    let is_skipped = report.skipped.iter().any(|skipped| is_ours(skipped));
    !has_mistakes && !is_skipped
}

fn machine(place: &Place) -> Vec<String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model.to_owned()));
    let pinned = match place.cores {
        Some(Cores { server, load }) => format!("server on core {server}; load, publisher and brokers on core {load}"),
        None => "NOT PINNED: there is only one core, so figures of time mean little".to_owned(),
    };
    let kernel = read("/proc/sys/kernel/osrelease");
    let profile = if cfg!(debug_assertions) { "debug build: figures mean nothing" } else { "release build" };
    vec![
        format!("{}, Linux {}, {profile}", model.unwrap_or_default(), kernel.trim()),
        pinned,
        format!("load average before: {}", read("/proc/loadavg").trim()),
    ]
}

/// For people, at once.
#[expect(clippy::print_stdout, reason = "a program for people")]
fn say(line: &str) {
    println!("{line}");
}
