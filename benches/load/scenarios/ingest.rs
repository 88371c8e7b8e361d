//! As many events as a server takes, for few watchers: what an event costs that hardly anybody sees.

use std::rc::Rc;

use crate::{
    Outcome, drive,
    lab::Lab,
    report::Row,
    server::Instance,
    servers::{brokers::Broker, floor::Mode},
};

pub const NAME: &str = "ingest";

const WATCHERS: usize = 10;
const EVENTS_UNDER_WAY: usize = 512;

pub fn run(lab: &mut Lab) -> Outcome<()> {
    // A server must keep what is under way for its slowest watcher.
    lab.place.events_waiting_max = EVENTS_UNDER_WAY;
    let mut instances = lab.start(&[Mode::Each])?;
    if lab.has_taskcast() && lab.with_rabbitmq(NAME) {
        let running = lab.taskcast().launch(&lab.place, Rc::new(Broker::rabbitmq()?))?;
        running.until_ready()?;
        let instance: Box<dyn Instance> = Box::new(running);
        instances.push(("taskcast, RabbitMQ".to_owned(), instance));
    }
    let results = lab.contest(&instances, &drive::watchers(WATCHERS, WATCHERS), |crowd, lasting| {
        drive::saturate(crowd, WATCHERS, EVENTS_UNDER_WAY, lasting)
    });
    for server in &results {
        let per_event = |time: f64, events: u64| time * 1e6 / events as f64;
        let figures = vec![
            ("events/s", server.median(|round| round.tally.completed as f64 / round.wall.as_secs_f64())),
            ("CPU µs/event", server.median(|round| per_event(round.cpu.server.as_secs_f64(), round.tally.completed))),
            (
                "broker µs/event",
                server.median(|round| per_event(round.cpu.broker.as_secs_f64(), round.tally.completed)),
            ),
        ];
        let case = format!("{WATCHERS} watchers, {EVENTS_UNDER_WAY} events under way");
        lab.add(Row { scenario: NAME, case, server: server.server.clone(), figures, remarks: server.remarks() });
    }
    Ok(())
}
