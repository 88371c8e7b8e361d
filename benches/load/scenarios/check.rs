//! Does each server do what the others do? A few watchers get every event of theirs once, in order, and no other's.

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{self, Measured, measure},
    lab::Lab,
    report::Row,
    server::Instance,
    servers::floor::Mode,
};

pub const NAME: &str = "check";

const WATCHERS: usize = 20;
const TOPICS: usize = 4;
const EVENTS_PER_TOPIC: usize = 200;

/// Under way at a time.
const WINDOW: usize = 16;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let skipped_before = lab.report.skipped.len();
    let started = lab.start(&Mode::ALL);
    // What is here has to start; only what is not here may be skipped.
    let broken = lab.report.skipped.split_off(skipped_before);
    lab.report.failures.extend(broken.into_iter().map(|reason| format!("{NAME}: {reason}")));
    for (name, instance) in &started? {
        let expected = WATCHERS * EVENTS_PER_TOPIC;
        match publish(&**instance) {
            Ok(Measured { tally, .. }) => {
                let is_whole = tally.is_whole() && tally.delivered == expected as u64;
                // Only mistakes are remarks; the report says the versions.
                let remarks = if is_whole { String::new() } else { tally.mistakes() };
                let figures = vec![("frames", tally.delivered as f64), ("of", expected as f64)];
                let case = format!("{WATCHERS} watchers of {TOPICS} topics");
                lab.add(Row { scenario: NAME, case, server: name.clone(), figures, remarks });
                if !is_whole {
                    lab.report.failures.push(format!("{NAME}: {name}: {}", tally.mistakes()));
                }
            }
            Err(error) => lab.report.failures.push(format!("{NAME}: {name}: {error}")),
        }
    }
    Ok(())
}

fn publish(instance: &dyn Instance) -> Outcome<Measured> {
    let mut crowd = Crowd::new(instance, drive::watchers(WATCHERS, TOPICS))?;
    drive::connect_all(&mut crowd)?;
    measure(instance, &mut crowd, |crowd| drive::publish(crowd, TOPICS, WINDOW, TOPICS * EVENTS_PER_TOPIC))
}
