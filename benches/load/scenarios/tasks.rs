//! What a retained task costs: the process with so many tasks that nobody watches, over its empty self.

use std::rc::Rc;

use crate::{Outcome, drive, lab::Lab, report::Row, servers::brokers::Broker};

pub const NAME: &str = "tasks";

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let most = lab.size.retained_tasks.iter().copied().max().unwrap_or_default();
    let mut taskcast = lab.taskcast();
    taskcast.settings.push(("TASKCAST_TASKS_MAX", (2 * most).to_string()));
    let broker = Rc::new(Broker::redis(&lab.place)?);
    let instance = taskcast.launch(&lab.place, Rc::clone(&broker))?;
    instance.until_ready()?;
    let empty = instance.processes.memory().resident_bytes;
    for step in lab.size.retained_tasks.clone() {
        // Those that are there already hear the same again, which changes nothing.
        let before = instance.events();
        broker.fill(step, step)?;
        instance.until_events(before + step as f64)?;
        drive::until_idle(&instance);
        let resident = instance.processes.memory().resident_bytes;
        let figures = vec![
            ("tasks", step as f64),
            ("bytes each", (resident as f64 - empty as f64) / step as f64),
            ("process MiB", resident as f64 / 1_048_576.0),
            ("empty MiB", empty as f64 / 1_048_576.0),
        ];
        let case = format!("{step} tasks");
        lab.add(Row { scenario: NAME, case, server: "taskcast".to_owned(), figures, remarks: String::new() });
    }
    Ok(())
}
