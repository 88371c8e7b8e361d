//! Everybody is cut off and comes back with a cursor at once, while events flow. Each must get what it missed and
//! nothing else: the tally knows what is due to whom.

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{self, Pacer, measure},
    lab::{Lab, median},
    report::Row,
    server::Server,
    servers::taskcast::cursor_of,
};

pub const NAME: &str = "resume-storm";

/// Beside those that were published while everybody was away, one for each.
const EVENTS_PER_SECOND: f64 = 1_000.0;
const RATIO_MAX: f64 = 1.5;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    if !lab.has_taskcast() {
        return Err("only taskcast is asked to resume".into());
    }
    let count = lab.size.many_watchers;
    let (mut plain, mut resumed, mut walls, mut mistakes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..lab.size.repeat {
        let instance = lab.taskcast().start(&lab.place)?;
        let mut crowd = Crowd::new(&*instance, drive::watchers(count, count))?;
        // One event for each, so that each has a task in its snapshot, in both storms.
        drive::publish(&mut crowd, count, 1_000, count)?;
        let first = measure(&*instance, &mut crowd, |crowd| drive::connect_all(crowd).map(drop))?;
        crowd.keeps_messages = true;
        drive::publish(&mut crowd, count, 1_000, count)?;
        crowd.keeps_messages = false;
        for number in 0..count {
            let cursor = cursor_of(crowd.last_message(number)).ok_or("a frame without a cursor")?;
            crowd.cut(number);
            crowd.resume(number, Some(cursor));
        }
        drive::until_idle(&*instance);
        // Missed by everybody.
        for topic in 0..count {
            crowd.publish(topic)?;
        }
        drive::rest(&mut crowd, lab.warm_up())?;
        let mut pacer = Pacer::new(EVENTS_PER_SECOND);
        let storm = measure(&*instance, &mut crowd, |crowd| {
            drive::connect(crowd, 0..count, |crowd| pacer.publish_due(crowd, count))?;
            drive::settle(crowd)
        })?;
        let tally = &storm.tally;
        mistakes += tally.lost + tally.repeated + tally.foreign + tally.ended;
        plain.push(first.cpu.server.as_secs_f64());
        resumed.push(storm.cpu.server.as_secs_f64());
        walls.push(storm.wall.as_secs_f64());
    }
    let ratio = median(plain.iter().zip(&resumed).map(|(plain, resumed)| resumed / plain).collect());
    let figures = vec![
        ("connects/s", count as f64 / median(walls)),
        ("CPU s", median(resumed)),
        ("plain storm CPU s", median(plain)),
        ("× plain", ratio),
        ("mistakes", mistakes as f64),
    ];
    let case = format!("{count} watchers with cursors, {EVENTS_PER_SECOND} events/s");
    lab.add(Row { scenario: NAME, case, server: "taskcast".to_owned(), figures, remarks: String::new() });
    if lab.judges() {
        lab.report.at_most(NAME, "frames lost or repeated: none", mistakes as f64, 0.0);
        lab.report.at_most(NAME, format!("CPU ≤ {RATIO_MAX} × the plain storm's"), ratio, RATIO_MAX);
    }
    Ok(())
}
