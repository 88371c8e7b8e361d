//! One task and many watchers, as fast as it goes: what a delivered frame costs. With one event under way at a time each
//! watcher gets each frame by itself; with 32 under way frames queue up, and a server may write them together.

use crate::{
    Outcome, drive,
    lab::{Lab, Results},
    report::Row,
    servers::floor::Mode,
    tally::quantile,
};

pub const NAME: &str = "fan-out";

/// Called `queued` in the tables.
const EVENTS_QUEUED: usize = 32;

/// How events come, how many are under way at a time, and the forms of the floor that do the same.
const KINDS: [(&str, usize, &[Mode]); 2] =
    [("each", 1, &[Mode::Each, Mode::Long]), ("queued", EVENTS_QUEUED, &[Mode::Batch])];

/// Beside the floor that writes as many bytes: what taskcast adds to the kernel's work.
const EACH_RATIO_MAX: f64 = 1.15;
const QUEUED_US_MAX: f64 = 0.3;
const JUDGED_WATCHERS: usize = 1_000;
/// From the fewest to the most watchers.
const GROWTH_MAX: f64 = 1.2;

pub fn case(watchers: usize, kind: &str) -> String {
    format!("{watchers} watchers, {kind}")
}

pub fn run(lab: &mut Lab) -> Outcome<()> {
    for (kind, window, floors) in KINDS {
        lab.place.events_waiting_max = window * 2;
        let instances = lab.start(floors)?;
        for watchers in lab.size.fan_out_watchers.clone() {
            let results = lab.contest(&instances, &drive::watchers(watchers, 1), |crowd, lasting| {
                drive::saturate(crowd, 1, window, lasting)
            });
            report(lab, &results, watchers, kind, floors);
        }
        if lab.judges() {
            judge_growth(lab, kind);
        }
    }
    Ok(())
}

fn report(lab: &mut Lab, results: &[Results], watchers: usize, kind: &str, floors: &[Mode]) {
    let reference = |floor: Mode| results.iter().find(|results| results.server == floor.server());
    for server in results {
        let cost = server.median(drive::Measured::cpu_us_per_frame);
        let mut figures = vec![
            ("frames/s", server.median(drive::Measured::frames_per_second)),
            ("CPU µs/frame", cost),
            (
                "of it user",
                // The kernel tells it in hundredths of a second, so of all rounds together.
                server.sum(|round| round.cpu.server_user.as_secs_f64() * 1e6)
                    / server.sum(|round| round.tally.delivered as f64),
            ),
            (
                "broker µs/event",
                server.median(|round| round.cpu.broker.as_secs_f64() * 1e6 / round.tally.published as f64),
            ),
            ("p99 ms", server.median(|round| quantile(&round.tally.last, 0.99).as_secs_f64() * 1e3)),
            ("bytes/frame", server.median(|round| round.tally.bytes as f64 / round.tally.delivered as f64)),
        ];
        let ratio = |floor: Mode| Some(server.ratio(reference(floor)?, drive::Measured::cpu_us_per_frame));
        figures.extend(floors.iter().filter_map(|floor| Some((floor.ratio(), ratio(*floor)?))));
        lab.add(Row {
            scenario: NAME,
            case: case(watchers, kind),
            server: server.server.clone(),
            figures,
            remarks: server.remarks(),
        });
        if server.server == "taskcast" && watchers == JUDGED_WATCHERS && lab.judges() {
            if kind == "each" {
                let target =
                    format!("{JUDGED_WATCHERS} watchers, each: CPU per frame ≤ {EACH_RATIO_MAX} × floor-long's");
                if let Some(ratio) = ratio(Mode::Long) {
                    lab.report.at_most(NAME, target, ratio, EACH_RATIO_MAX);
                }
            } else {
                let target = format!("{JUDGED_WATCHERS} watchers, queued: ≤ {QUEUED_US_MAX} µs of CPU per frame");
                lab.report.at_most(NAME, target, cost, QUEUED_US_MAX);
            }
        }
    }
}

fn judge_growth(lab: &mut Lab, kind: &str) {
    let sizes = &lab.size.fan_out_watchers;
    let (Some(&fewest), Some(&most)) = (sizes.iter().min(), sizes.iter().max()) else { return };
    let cost = |watchers: usize| lab.report.figure(NAME, &case(watchers, kind), "taskcast", "CPU µs/frame");
    if let (Some(few), Some(many)) = (cost(fewest), cost(most))
        && fewest < most
    {
        let target = format!("{kind}: CPU per frame with {most} watchers ≤ {GROWTH_MAX} × with {fewest}");
        lab.report.at_most(NAME, target, many / few, GROWTH_MAX);
    }
}
