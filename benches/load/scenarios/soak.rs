//! Minutes of `own-task`: does anything grow, is anything lost?

use std::time::Duration;

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{self, Pacer, measure, since},
    lab::{Lab, remarks},
    payload::now_ns,
    report::Row,
    server::Server,
    tally::quantile,
};

pub const NAME: &str = "soak";

/// Memory is compared from here on: before, rings fill.
const SETTLED: f64 = 0.25;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let (count, rate) = (lab.size.many_watchers, lab.size.events_per_second);
    let lasting = if lab.judges() { Duration::from_secs(60 * lab.options().minutes) } else { lab.seconds() };
    let instance = lab.taskcast().start(&lab.place)?;
    let mut crowd = Crowd::new(&*instance, drive::watchers(count, count))?;
    drive::connect_all(&mut crowd)?;
    let (mut settled, mut largest) = (None, 0);
    let measured = measure(&*instance, &mut crowd, |crowd| {
        let (start, mut pacer, mut looked) = (now_ns(), Pacer::new(rate), now_ns());
        while since(start) < lasting {
            pacer.publish_due(crowd, count)?;
            crowd.turn(pacer.until_next().min(drive::TURN))?;
            if since(looked) > Duration::from_secs(1) {
                looked = now_ns();
                let resident = instance.processes().memory().resident_bytes;
                largest = largest.max(resident);
                if settled.is_none() && since(start).as_secs_f64() > SETTLED * lasting.as_secs_f64() {
                    settled = Some(resident);
                }
            }
        }
        drive::settle(crowd)
    })?;
    let mebibytes = |bytes: u64| bytes as f64 / 1_048_576.0;
    let figures = vec![
        ("minutes", measured.wall.as_secs_f64() / 60.0),
        ("frames", measured.tally.delivered as f64),
        ("CPU µs/frame", measured.cpu_us_per_frame()),
        ("p99 ms", quantile(&measured.tally.each, 0.99).as_secs_f64() * 1e3),
        ("p99.9 ms", quantile(&measured.tally.each, 0.999).as_secs_f64() * 1e3),
        ("settled MiB", mebibytes(settled.unwrap_or_default())),
        ("largest MiB", mebibytes(largest)),
    ];
    let remarks = remarks([&measured.tally]);
    let case = format!("{count} watchers, {rate} events/s");
    lab.add(Row { scenario: NAME, case, server: "taskcast".to_owned(), figures, remarks });
    if lab.judges() {
        let wrong = measured.tally.lost + measured.tally.repeated + measured.tally.ended;
        lab.report.at_most(NAME, "frames lost or repeated, connections ended: none", wrong as f64, 0.0);
    }
    Ok(())
}
