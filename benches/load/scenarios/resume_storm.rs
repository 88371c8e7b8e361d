//! Everybody is cut off and comes back with a cursor, as many handshakes at a time as in `storm`, while events flow. Each must
//! get what it missed and nothing else: the tally knows what is due to whom.

use std::{mem, rc::Rc, time::Duration};

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{self, Pacer, measure, since},
    lab::{Lab, median, remarks},
    payload::now_ns,
    report::Row,
    servers::{
        brokers::Broker,
        taskcast::{Running, cursor_of},
    },
    tally::Tally,
};

pub const NAME: &str = "resume-storm";

/// Beside those that were published while everybody was away, one for each.
const EVENTS_PER_SECOND: f64 = 1_000.0;
const RATIO_MAX: f64 = 1.5;
const EVENTS_UNDER_WAY: usize = 1_000;
const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets what was published reach the server, which nobody watches just now.
fn flow(crowd: &mut Crowd<'_>, instance: &Running, events: f64) -> Outcome<()> {
    let start = now_ns();
    while instance.events() < events {
        crowd.turn(POLL)?;
        if since(start) > PATIENCE {
            return Err(format!("{events} events did not arrive").into());
        }
    }
    Ok(())
}

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let count = lab.size.many_watchers;
    let (mut plain, mut resumed, mut walls, mut tallies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..lab.size.repeat {
        let instance = lab.taskcast().launch(&lab.place, Rc::new(Broker::redis(&lab.place)?))?;
        instance.until_ready()?;
        let mut crowd = Crowd::new(&instance, drive::watchers(count, count))?;
        // One event for each, so that each has a task in its snapshot; the resumed ones will have one to catch up with.
        drive::publish(&mut crowd, count, EVENTS_UNDER_WAY, count)?;
        flow(&mut crowd, &instance, count as f64)?;
        let first = measure(&instance, &mut crowd, |crowd| drive::connect_all(crowd).map(drop))?;
        crowd.keeps_messages = true;
        drive::publish(&mut crowd, count, EVENTS_UNDER_WAY, count)?;
        crowd.keeps_messages = false;
        tallies.push(mem::replace(&mut crowd.tally, Tally::new()));
        for number in 0..count {
            let cursor = cursor_of(crowd.last_message(number)).ok_or("a frame without a cursor")?;
            crowd.cut(number);
            crowd.resume(number, Some(cursor));
        }
        drive::until_idle(&instance);
        // Missed by everybody.
        let before = instance.events();
        for topic in 0..count {
            crowd.publish(topic)?;
        }
        flow(&mut crowd, &instance, before + count as f64)?;
        let mut pacer = Pacer::new(EVENTS_PER_SECOND);
        let storm = measure(&instance, &mut crowd, |crowd| {
            drive::connect(crowd, 0..count, |crowd| pacer.publish_due(crowd, count))?;
            drive::settle(crowd)
        })?;
        plain.push(first.cpu.server.as_secs_f64());
        resumed.push(storm.cpu.server.as_secs_f64());
        walls.push(storm.wall.as_secs_f64());
        tallies.extend([first.tally, storm.tally]);
    }
    let mistakes: u64 = tallies.iter().map(Tally::mistakes_total).sum();
    let ratio = median(plain.iter().zip(&resumed).map(|(plain, resumed)| resumed / plain).collect());
    let figures = vec![
        ("connects/s", count as f64 / median(walls)),
        ("CPU s", median(resumed)),
        ("plain storm CPU s", median(plain)),
        ("× plain", ratio),
        ("mistakes", mistakes as f64),
    ];
    let case = format!("{count} watchers with cursors, {EVENTS_PER_SECOND} events/s");
    lab.add(Row { scenario: NAME, case, server: "taskcast".to_owned(), figures, remarks: remarks(&tallies) });
    if lab.judges() {
        lab.report.at_most(NAME, "frames lost or repeated: none", mistakes as f64, 0.0);
        lab.report.at_most(NAME, format!("CPU ≤ {RATIO_MAX} × the plain storm's"), ratio, RATIO_MAX);
    }
    Ok(())
}
