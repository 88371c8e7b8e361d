//! What is measured. Each file is one scenario, with the targets that it judges.

mod check;
mod fan_out;
mod idle;
mod ingest;
mod latency;
mod own_task;
mod replay;
mod resume_storm;
mod soak;
mod storm;
mod tasks;

use crate::{Outcome, lab::Lab, place::EVENTS_WAITING_DEFAULT};

type Run = fn(&mut Lab) -> Outcome<()>;

/// In the order in which they run. Those that are not `always` run when they are named.
const SCENARIOS: &[(&str, Run, bool)] = &[
    (fan_out::NAME, fan_out::run, true),
    (own_task::NAME, own_task::run, true),
    (latency::NAME, latency::run, true),
    (idle::NAME, idle::run, true),
    (tasks::NAME, tasks::run, true),
    (storm::NAME, storm::run, true),
    (resume_storm::NAME, resume_storm::run, true),
    (replay::NAME, replay::run, true),
    (ingest::NAME, ingest::run, true),
    (check::NAME, check::run, false),
    (soak::NAME, soak::run, false),
];

/// What no other server is asked to do.
const OF_TASKCAST: &[&str] = &[tasks::NAME, resume_storm::NAME, replay::NAME, soak::NAME];

const NO_TASKCAST: &str = "only taskcast does this, and it is not among the servers";

fn can_run(lab: &Lab, name: &str) -> bool {
    lab.has_taskcast() || !OF_TASKCAST.contains(&name)
}

/// Runs those that are asked for. One that fails does not keep the others from running.
///
/// # Errors
/// A name that is none.
pub fn run(lab: &mut Lab) -> Outcome<()> {
    let wanted = lab.options().scenarios.clone();
    let names: Vec<&str> = SCENARIOS.iter().map(|(name, _, _)| *name).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !names.contains(&wanted.as_str())) {
        return Err(format!("there is no scenario `{unknown}`; there are {}", names.join(", ")).into());
    }
    for (name, scenario, always) in SCENARIOS {
        let is_wanted = if wanted.is_empty() { *always } else { wanted.iter().any(|wanted| wanted == name) };
        if !is_wanted {
            continue;
        }
        crate::say(&format!("\n== {name}"));
        if wanted.is_empty() && !can_run(lab, name) {
            crate::say(NO_TASKCAST);
            lab.report.skipped.push(format!("{name}: {NO_TASKCAST}"));
            continue;
        }
        // What the one before wanted is not what this one measures.
        lab.place.events_waiting_max = EVENTS_WAITING_DEFAULT;
        let ran = if can_run(lab, name) { scenario(lab) } else { Err(NO_TASKCAST.into()) };
        if let Err(error) = ran {
            lab.report.failures.push(format!("{name}: {error}"));
            crate::say(&format!("{name} failed: {error}"));
        }
        lab.show(name);
        // Whatever becomes of the next one, this one was worth its time.
        lab.report.write(&lab.options().out)?;
    }
    Ok(())
}
