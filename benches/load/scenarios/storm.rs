//! Everybody connects at once, with a token: how many a second, and for how much CPU.

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{self, Measured, measure},
    lab::{Lab, Results},
    report::Row,
    servers::floor::Mode,
};

pub const NAME: &str = "storm";

const CONNECTS_PER_SECOND_MIN: f64 = 5_000.0;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    let count = lab.size.many_watchers;
    let instances = lab.start(&[Mode::Each])?;
    let mut results: Vec<Results> =
        instances.iter().map(|(server, _)| Results { server: server.clone(), rounds: Vec::new() }).collect();
    for _ in 0..lab.size.repeat {
        for ((server, instance), results) in instances.iter().zip(&mut results) {
            let round = || -> Outcome<Measured> {
                let mut crowd = Crowd::new(&**instance, drive::watchers(count, count))?;
                measure(&**instance, &mut crowd, |crowd| drive::connect_all(crowd).map(drop))
            };
            match round() {
                Ok(measured) => results.rounds.push(measured),
                Err(error) => lab.report.skipped.push(format!("{server}, storm: {error}")),
            }
            // The next round, and the next server, must not meet the goodbyes of this one.
            drive::until_idle(&**instance);
        }
    }
    for server in results.iter().filter(|server| !server.rounds.is_empty()) {
        let per_second = server.median(|round| count as f64 / round.wall.as_secs_f64());
        let figures = vec![
            ("connects/s", per_second),
            ("CPU s", server.median(|round| round.cpu.server.as_secs_f64())),
            ("connects/CPU s", server.median(|round| count as f64 / round.cpu.server.as_secs_f64())),
        ];
        let case = format!("{count} watchers of own tasks");
        lab.add(Row { scenario: NAME, case, server: server.server.clone(), figures, remarks: server.remarks() });
        if server.server == "taskcast" && lab.judges() {
            let target = format!("≥ {CONNECTS_PER_SECOND_MIN} connects and verified tokens/s on one core");
            lab.report.at_least(NAME, target, per_second, CONNECTS_PER_SECOND_MIN);
        }
    }
    Ok(())
}
