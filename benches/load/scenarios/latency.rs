//! Ten events a second to all watchers of one task: how long until each has it, and until the last one has it.

use crate::{Outcome, drive, lab::Lab, report::Row, servers::floor::Mode, tally::quantile};

pub const NAME: &str = "latency";

const EVENTS_PER_SECOND: f64 = 10.0;
/// p99 until the last watcher has an event, beside the median that the floor needs.
const RATIO_MAX: f64 = 5.0;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let instances = lab.start(&[Mode::Each])?;
    let most = lab.size.latency_watchers.iter().copied().max();
    for count in lab.size.latency_watchers.clone() {
        let results = lab.contest(&instances, &drive::watchers(count, 1), |crowd, lasting| {
            drive::pace(crowd, 1, EVENTS_PER_SECOND, lasting * 2)
        });
        let floor = results.iter().find(|results| results.server == Mode::Each.server());
        let floor_last = floor.map(|floor| floor.median(|round| quantile(&round.tally.last, 0.5).as_secs_f64() * 1e3));
        for server in &results {
            let each = |share: f64| server.median(|round| quantile(&round.tally.each, share).as_secs_f64() * 1e3);
            let last = |share: f64| server.median(|round| quantile(&round.tally.last, share).as_secs_f64() * 1e3);
            let mut figures = vec![
                ("p50 ms", each(0.5)),
                ("p99 ms", each(0.99)),
                ("p99.9 ms", each(0.999)),
                ("last p50 ms", last(0.5)),
                ("last p99 ms", last(0.99)),
                ("CPU µs/frame", server.median(drive::Measured::cpu_us_per_frame)),
            ];
            let ratio = floor_last.map(|floor| last(0.99) / floor);
            figures.extend(ratio.map(|ratio| ("last p99 × floor's p50", ratio)));
            let case = format!("{count} watchers, {EVENTS_PER_SECOND} events/s");
            lab.add(Row { scenario: NAME, case, server: server.server.clone(), figures, remarks: server.remarks() });
            if server.server == "taskcast"
                && lab.judges()
                && Some(count) == most
                && let Some(ratio) = ratio
            {
                let target =
                    format!("{count} watchers: p99 until the last one has it ≤ {RATIO_MAX} × what the floor needs");
                lab.report.at_most(NAME, target, ratio, RATIO_MAX);
            }
        }
    }
    Ok(())
}
