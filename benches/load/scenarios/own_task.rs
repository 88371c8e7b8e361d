//! Everybody watches a task of their own: thousands of events a second, each for one watcher.

use crate::{Outcome, drive, lab::Lab, report::Row, servers::floor::Mode, tally::quantile};

pub const NAME: &str = "own-task";

const RATIO_MAX: f64 = 2.0;
const P99_MS_MAX: f64 = 10.0;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let (count, rate) = (lab.size.many_watchers, lab.size.events_per_second);
    let instances = lab.start(&[Mode::Each])?;
    // Twice as long as others: each task has an event every other second.
    let results = lab.contest(&instances, &drive::watchers(count, count), |crowd, lasting| {
        drive::pace(crowd, count, rate, lasting * 2)
    });
    let floor = results.iter().find(|results| results.server == Mode::Each.server());
    for server in &results {
        let at = |share: f64| server.median(|round| quantile(&round.tally.each, share).as_secs_f64() * 1e3);
        let ratio = floor.map(|floor| server.ratio(floor, drive::Measured::cpu_us_per_frame));
        let mut figures = vec![
            ("frames/s", server.median(drive::Measured::frames_per_second)),
            ("CPU µs/frame", server.median(drive::Measured::cpu_us_per_frame)),
            (
                "broker µs/frame",
                server.median(|round| round.cpu.broker.as_secs_f64() * 1e6 / round.tally.delivered as f64),
            ),
            ("p50 ms", at(0.5)),
            ("p99 ms", at(0.99)),
            ("p99.9 ms", at(0.999)),
        ];
        figures.extend(ratio.map(|ratio| (Mode::Each.ratio(), ratio)));
        let case = format!("{count} watchers, {rate} events/s");
        lab.add(Row { scenario: NAME, case, server: server.server.clone(), figures, remarks: server.remarks() });
        if server.server == "taskcast" && lab.judges() {
            let lost: u64 = server.rounds.iter().map(|round| round.tally.lost + round.tally.repeated).sum();
            lab.report.at_most(NAME, "frames lost or repeated: none", lost as f64, 0.0);
            lab.report.at_most(NAME, format!("p99 ≤ {P99_MS_MAX} ms"), at(0.99), P99_MS_MAX);
            if let Some(ratio) = ratio {
                lab.report.at_most(NAME, format!("CPU per frame ≤ {RATIO_MAX} × the floor's"), ratio, RATIO_MAX);
            }
        }
    }
    Ok(())
}
