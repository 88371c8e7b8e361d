//! Connections come and go, tasks begin, end and are let go of, for as long as one likes: memory, file descriptors and
//! the number of tasks stay as they are.

use std::{fs, sync::Arc, time::Duration};

use taskcast::clock;

use super::{
    Settings,
    load::{settle, shape},
};
use crate::{
    checker,
    clients::{Client, Mutation, Plan, Watches},
    publisher::{Publisher, Road},
    script::{Random, Script},
    table::Row,
    world::{Kind, Shape, World, until},
};

/// One round of workers.
const ROUND: Duration = Duration::from_secs(5);
const EVENTS_PER_ROUND: usize = 1_000;
const USERS: usize = 20;
/// Clients that come and go at any time; each stays for a random time up to [`STAY_MAX`].
const CHURNING: usize = 60;
const STAY_MAX: Duration = Duration::from_secs(2);
const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);
/// What the last quarter may have more than the second one: an allocator is not a ruler, and neither is chance.
const GROWTH: f64 = 1.1;
const SLACK_BYTES: f64 = 8e6;
const SLACK_COUNT: f64 = 60.0;
/// Descriptors of an idle replica may differ by its connections to the broker and to who asks for metrics.
const IDLE_SLACK: u64 = 8;
/// For connections to end that nobody uses.
const REST: Duration = Duration::from_secs(10);

/// What a replica holds, at a moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    bytes: u64,
    descriptors: u64,
    tasks: u64,
}

pub async fn run(settings: Settings) -> Row {
    let lasting = settings.minutes.map_or(settings.pick(30, 300), |minutes| 60 * minutes);
    let environment = vec![
        ("TASKCAST_TASKS_RETAIN_ENDED_SECONDS", "3".to_owned()),
        ("TASKCAST_TASKS_RETAIN_IDLE_SECONDS", "3".to_owned()),
        ("TASKCAST_TASKS_RESUME_WINDOW", "2000".to_owned()),
        ("TASKCAST_LOG_MAX_EVENTS", "2000".to_owned()),
        // The proxy keeps connections for its next requests.
        ("TASKCAST_HTTP_KEEP_ALIVE_TIMEOUT_MS", "1000".to_owned()),
        ("TASKCAST_HTTP_HEADER_TIMEOUT_MS", "1000".to_owned()),
    ];
    let world = World::start(&Shape { environment, ..shape(Kind::Redis) }).await;
    let mut random = Random::new(settings.seed);
    let idle = [descriptors(&world, 0), descriptors(&world, 1)];
    let mut row = Row::default();
    let until_at = clock::now().instant + Duration::from_secs(lasting);
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    let mut connections = 0;
    while clock::now().instant < until_at {
        let round = row.events / EVENTS_PER_ROUND;
        let script = Arc::new(Script::new(&format!("round-{round}"), USERS, EVENTS_PER_ROUND, &mut random));
        let steady: Vec<Client> = (0..USERS).map(|owner| client(&world, &script, owner, &mut random)).collect();
        until("the steady clients are in", async || {
            steady.iter().all(|client| client.account.lock().expect("no panic under the lock").greetings > 0)
        })
        .await;
        let road = Road::Post { port: world.proxy_port };
        let all = (0..script.parts.len()).collect();
        let publisher = Publisher::start(road, script.clone(), all, ROUND, random.fork());
        connections += churn(&world, &script, &mut random, &mut samples).await;
        publisher.finish().await;
        settle(&steady, ROUND).await;
        checker::check_clients(&mut row, &steady);
        row.events += script.events();
        connections += steady.len();
    }
    row.clients = connections;
    for (place, samples) in samples.iter().enumerate() {
        judge(&mut row, place, samples);
    }
    until("all connections are gone", async || {
        world.metric(0, "taskcast_connections ").await == Some(0)
            && world.metric(1, "taskcast_connections ").await == Some(0)
    })
    .await;
    for (place, before) in idle.into_iter().enumerate() {
        let after = at_rest(&world, place, before + IDLE_SLACK).await;
        row.measure(&format!("replica {place} when idle: descriptors"), &format!("{before} before, {after} after"));
        row.promise(after <= before + IDLE_SLACK, || format!("replica {place} kept {after} descriptors, not {before}"));
    }
    row
}

/// One round of coming and going; how many came.
async fn churn(world: &World, script: &Arc<Script>, random: &mut Random, samples: &mut [Vec<Sample>; 2]) -> usize {
    let end = clock::now().instant + ROUND;
    let mut clients = Vec::new();
    let (mut came, mut due) = (0, clock::now().instant);
    while clock::now().instant < end {
        let now = clock::now().instant;
        clients.retain(|(until, _)| *until > now);
        while clients.len() < CHURNING {
            let stay = STAY_MAX.mul_f64(random.share());
            clients.push((now + stay, client(world, script, came % USERS, random)));
            came += 1;
        }
        if now >= due {
            due = now + SAMPLE_INTERVAL;
            for (place, samples) in samples.iter_mut().enumerate() {
                samples.push(sample(world, place).await);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    came
}

fn client(world: &World, script: &Arc<Script>, owner: usize, random: &mut Random) -> Client {
    let plan = Plan {
        port: world.proxy_port,
        script: script.clone(),
        owner,
        watches: Watches::Own,
        mutation: Mutation::None,
        returns: true,
    };
    Client::start(plan, random.fork())
}

async fn sample(world: &World, place: usize) -> Sample {
    let bytes = resident_bytes(&world.pid(place).expect("it runs").to_string());
    let tasks = world.metric(place, "taskcast_tasks{").await.unwrap_or_default();
    Sample { bytes, descriptors: descriptors(world, place), tasks }
}

fn descriptors(world: &World, place: usize) -> u64 {
    let pid = world.pid(place).expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).map(|files| files.count() as u64).expect("a process of ours")
}

/// The descriptors of a replica, once they are no more than so many, or after a while.
async fn at_rest(world: &World, place: usize, most: u64) -> u64 {
    let deadline = clock::now().instant + REST;
    while descriptors(world, place) > most && clock::now().instant < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    descriptors(world, place)
}

/// Of a process, or of `self`.
pub fn resident_bytes(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process of ours");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says so");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// One number of a sample.
type Part = fn(&Sample) -> u64;

/// The second quarter against the last one, by their medians; the first quarter is the warm-up.
fn judge(row: &mut Row, place: usize, samples: &[Sample]) {
    let quarter = samples.len() / 4;
    let median = |samples: &[Sample], of: Part| {
        let mut numbers: Vec<u64> = samples.iter().map(of).collect();
        numbers.sort_unstable();
        numbers.get(numbers.len() / 2).copied().unwrap_or_default() as f64
    };
    let measures: [(&str, Part, f64, f64); 3] = [
        ("resident MB", |sample| sample.bytes, SLACK_BYTES, 1e6),
        ("descriptors", |sample| sample.descriptors, SLACK_COUNT, 1.0),
        ("tasks", |sample| sample.tasks, SLACK_COUNT, 1.0),
    ];
    for (what, of, slack, unit) in measures {
        let before = median(&samples[quarter..2 * quarter], of);
        let after = median(&samples[samples.len() - quarter..], of);
        row.measure(&format!("replica {place} {what}"), &format!("{:.1} then {:.1}", before / unit, after / unit));
        row.promise(after > 0.0, || format!("nothing was measured of {what}"));
        row.promise(after <= before * GROWTH + slack, || {
            format!("{what} of replica {place} grew: {before} to {after}")
        });
    }
}
