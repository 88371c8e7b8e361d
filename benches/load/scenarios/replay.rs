//! A start with a long log and no checkpoint: how fast it is read, over what an empty start takes.

use std::{rc::Rc, time::Duration};

use crate::{
    Outcome,
    drive::since,
    lab::Lab,
    payload::now_ns,
    report::Row,
    server::Instance,
    servers::{
        brokers::Broker,
        taskcast::{Running, Taskcast},
    },
};

pub const NAME: &str = "replay";

const TASKS: usize = 10_000;
const PER_SECOND_MIN: f64 = 300_000.0;
const POLL: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a start took and what it cost, until the log was read to its end.
struct Start {
    running: Running,
    wall: Duration,
    cpu: Duration,
    broker: Duration,
}

pub fn run(lab: &mut Lab) -> Outcome<()> {
    redis(lab)?;
    if lab.with_rabbitmq(NAME) {
        rabbitmq(lab)?;
    }
    Ok(())
}

fn redis(lab: &mut Lab) -> Outcome<()> {
    let events = lab.size.replay_redis_events;
    let broker = Rc::new(Broker::redis(&lab.place)?);
    let empty = start(lab, &broker)?;
    let (empty_wall, empty_cpu) = (empty.wall, empty.cpu);
    drop(empty);
    broker.fill(events, TASKS)?;
    let per_second = report(lab, &broker, events, "Redis", empty_wall, empty_cpu)?;
    if lab.judges() {
        lab.report.at_least(NAME, format!("Redis: ≥ {PER_SECOND_MIN} events/s"), per_second, PER_SECOND_MIN);
    }
    Ok(())
}

fn rabbitmq(lab: &mut Lab) -> Outcome<()> {
    let events = lab.size.replay_rabbitmq_events;
    let broker = Rc::new(Broker::rabbitmq()?);
    // The first one makes the stream. One event has to be in it, as only silence tells the end of an empty one.
    let first = start(lab, &broker)?;
    let publisher = broker.fill(1, 1)?;
    first.running.until_events(1.0)?;
    drop((first, publisher));
    let empty = start(lab, &broker)?;
    let publisher = broker.fill(events, TASKS)?;
    // Nobody else knows when RabbitMQ has stored the last of them.
    empty.running.until_events(events as f64)?;
    drop(publisher);
    let (empty_wall, empty_cpu) = (empty.wall, empty.cpu);
    drop(empty);
    report(lab, &broker, events, "RabbitMQ", empty_wall, empty_cpu)?;
    Ok(())
}

fn report(
    lab: &mut Lab,
    broker: &Rc<Broker>,
    events: usize,
    name: &str,
    empty_wall: Duration,
    empty_cpu: Duration,
) -> Outcome<f64> {
    let full = start(lab, broker)?;
    let (wall, cpu) = (full.wall.saturating_sub(empty_wall), full.cpu.saturating_sub(empty_cpu));
    let per_second = events as f64 / wall.as_secs_f64();
    let figures = vec![
        ("events/s", per_second),
        ("CPU µs/event", cpu.as_secs_f64() * 1e6 / events as f64),
        ("broker µs/event", full.broker.as_secs_f64() * 1e6 / events as f64),
        ("start s", full.wall.as_secs_f64()),
        ("empty start s", empty_wall.as_secs_f64()),
    ];
    let case = format!("{events} events from {name}");
    lab.add(Row { scenario: NAME, case, server: "taskcast".to_owned(), figures, remarks: String::new() });
    let replayed = full.running.metric("taskcast_replayed_events");
    if replayed < events as f64 {
        return Err(format!("{replayed} of {events} events from {name} were replayed").into());
    }
    Ok(per_second)
}

fn start(lab: &Lab, broker: &Rc<Broker>) -> Outcome<Start> {
    let mut taskcast: Taskcast = lab.taskcast();
    taskcast.settings.push(("TASKCAST_CHECKPOINT_INTERVAL_SECONDS", "0".to_owned()));
    let start_ns = now_ns();
    let running = taskcast.launch(&lab.place, Rc::clone(broker))?;
    // The broker was there before: what it did until now does not count.
    let broker_before = running.processes.cpu().broker;
    while !running.is_replayed() {
        std::thread::sleep(POLL);
        if since(start_ns) > PATIENCE || !running.processes.are_alive() {
            return Err("the log was not replayed".into());
        }
    }
    let (wall, cpu) = (since(start_ns), running.processes().cpu());
    Ok(Start { running, wall, cpu: cpu.server, broker: cpu.broker.saturating_sub(broker_before) })
}
