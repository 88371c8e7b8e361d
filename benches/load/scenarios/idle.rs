//! What a connection costs that only listens: memory of the process over its empty self, divided. Each watches its own
//! tasks with a token of its own; then, in a fresh process, all watch one task, before and after its frames.

use std::time::Duration;

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{self, connect},
    lab::{Lab, remarks},
    processes::Memory,
    report::Row,
    server::Instance,
    servers::floor::Mode,
};

pub const NAME: &str = "idle";

const FRAMES_UNDER_WAY: usize = 8;
const KIB_MAX: f64 = 4.0;
const KIB_AFTER_FRAMES_MAX: f64 = 5.0;

/// Until what was in use during the handshakes is given back.
const REST: Duration = Duration::from_secs(2);
const REST_SMOKE: Duration = Duration::from_millis(50);

pub fn run(lab: &mut Lab) -> Outcome<()> {
    for (server, instance) in lab.start(&[Mode::Each])? {
        if let Err(error) = own_tasks(lab, &server, &*instance) {
            lab.report.skipped.push(format!("{server}, idle: {error}"));
        }
    }
    for (server, instance) in lab.start(&[Mode::Each])? {
        if let Err(error) = one_task(lab, &server, &*instance) {
            lab.report.skipped.push(format!("{server}, idle after frames: {error}"));
        }
    }
    Ok(())
}

fn own_tasks(lab: &mut Lab, server: &str, instance: &dyn Instance) -> Outcome<()> {
    let empty = instance.processes().memory();
    let most = lab.size.idle_watchers.iter().copied().max().unwrap_or_default();
    let mut crowd = Crowd::new(instance, drive::watchers(most, most))?;
    let mut connected = 0;
    for step in lab.size.idle_watchers.clone() {
        connect(&mut crowd, connected..step, |_| Ok(()))?;
        connected = step;
        rest(lab, &mut crowd)?;
        let each = add(lab, server, instance, format!("{step} watchers of own tasks"), &crowd, empty);
        if server == "taskcast" && step == most && lab.judges() {
            lab.report.at_most(NAME, format!("{step} idle: ≤ {KIB_MAX} KiB RSS each"), each, KIB_MAX);
        }
    }
    Ok(())
}

fn one_task(lab: &mut Lab, server: &str, instance: &dyn Instance) -> Outcome<()> {
    let empty = instance.processes().memory();
    let (count, frames) = (lab.size.many_watchers, lab.size.frames_before_idle);
    let mut crowd = Crowd::new(instance, drive::watchers(count, 1))?;
    drive::connect_all(&mut crowd)?;
    rest(lab, &mut crowd)?;
    add(lab, server, instance, format!("{count} watchers of one task"), &crowd, empty);
    drive::publish(&mut crowd, 1, FRAMES_UNDER_WAY, frames as usize)?;
    rest(lab, &mut crowd)?;
    let case = format!("{count} watchers of one task, after {frames} frames");
    let each = add(lab, server, instance, case, &crowd, empty);
    if server == "taskcast" && lab.judges() {
        let target = format!("{count} idle after {frames} frames: ≤ {KIB_AFTER_FRAMES_MAX} KiB RSS each");
        lab.report.at_most(NAME, target, each, KIB_AFTER_FRAMES_MAX);
        lab.report.at_most(NAME, "frames lost: none", crowd.tally.lost as f64, 0.0);
    }
    Ok(())
}

fn rest(lab: &Lab, crowd: &mut Crowd<'_>) -> Outcome<()> {
    drive::rest(crowd, if lab.judges() { REST } else { REST_SMOKE })
}

/// A row of what each of those costs who watch now.
fn add(lab: &mut Lab, server: &str, instance: &dyn Instance, case: String, crowd: &Crowd<'_>, empty: Memory) -> f64 {
    let (now, count) = (instance.processes().memory(), crowd.ready_count);
    let each = |now: u64, empty: u64| (now as f64 - empty as f64) / 1024.0 / count as f64;
    let resident = each(now.resident_bytes, empty.resident_bytes);
    let figures = vec![
        ("watchers", count as f64),
        ("RSS KiB each", resident),
        ("PSS KiB each", each(now.proportional_bytes, empty.proportional_bytes)),
        ("process MiB", now.resident_bytes as f64 / 1_048_576.0),
        ("empty MiB", empty.resident_bytes as f64 / 1_048_576.0),
    ];
    lab.add(Row { scenario: NAME, case, server: server.to_owned(), figures, remarks: remarks([&crowd.tally]) });
    resident
}
