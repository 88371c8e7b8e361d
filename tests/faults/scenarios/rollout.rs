//! A rollout of the Deployment as production renders it: as many replicas, probed, replaced, drained and counted as its
//! manifests say, behind a proxy that hears of it when an ingress would, while clients are connected and workers publish.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream::FuturesUnordered};
use taskcast::clock;
use tokio::{task::JoinHandle, time::sleep};

use super::{
    Settings, Size,
    load::{Crowd, Load, shape},
};
use crate::{
    clients::Departure,
    kubelet::{Exit, Pod},
    manifests::{PodTimes, Rollout},
    table::Row,
    world::{Kind, Members, PATIENCE, Shape, until},
};

/// From a change of a pod's readiness to a proxy that acts on it: ingress-nginx takes up changes once in 3.3 s.
const PROXY_HEARS_AFTER: Duration = Duration::from_millis(3_300);

/// The small size takes this much less time to drain and for a new pod to count; what races with the proxy is as long as ever.
pub(super) const SMALL_IS_FASTER: u32 = 5;

/// From the start of a process to its first good answer, generously.
const STARTS_WITHIN: Duration = Duration::from_secs(3);

/// Events flow for so much longer than a rollout in full size is meant to take.
const SLACK: Duration = Duration::from_secs(20);

/// Before the first pod is replaced.
const CALM: Duration = Duration::from_secs(2);

const SLOT: Duration = Duration::from_secs(1);

pub async fn run(settings: Settings) -> Row {
    let mut rollout = Rollout::read().await;
    quicken(&mut rollout, settings.pick(SMALL_IS_FASTER, 1));
    // In the small size a tenth of each.
    let (clients, events_per_second) = settings.pick((200, 50), (2_000, 500));
    let load = async |shape: Shape, over: Duration| {
        let crowd = Crowd { clients, events: events_per_second * over.as_secs() as usize, all_every: 200 };
        Load::begin_sized(settings, &shape, over, crowd).await
    };
    rehearse(settings, &rollout, load).await
}

/// With this load, which is told what to run on and for how long to publish.
pub(super) async fn rehearse(
    settings: Settings,
    rollout: &Rollout,
    begin: impl AsyncFnOnce(Shape, Duration) -> Load,
) -> Row {
    let times = rollout.times.clone();
    let leaves_within = times.pre_stop + times.drain + STARTS_WITHIN;
    let over = CALM + rollout.replicas as u32 * (times.min_ready + STARTS_WITHIN) + leaves_within;
    let over = over + settings.pick(Duration::ZERO, SLACK);
    let shape = Shape {
        replicas: rollout.replicas,
        places: 2 * rollout.replicas,
        environment: rollout.environment.clone(),
        members: Members::Told,
        ..shape(Kind::Redis)
    };
    let mut load = begin(shape, over).await;
    until("all clients are in", async || load.strangers() == 0).await;
    let refused_before = load.total(|account| account.refusals);
    sleep(CALM).await;
    let started = clock::now().instant;
    let Replaced { exits, complaints, fewest } = replace_all(&mut load, rollout).await;
    let took = clock::now().instant - started;
    let is_published = load.is_published();
    let (mut row, load) = load.end().await;

    row.measure("replicas", &rollout.replicas);
    row.measure("all replaced in", &format!("{took:.1?}"));
    row.measure("events flowed to its end", &!is_published);
    // A machine that is slow enough takes longer than any estimate.
    row.promise(!is_published || settings.size == Size::Small, || {
        "the events came to an end before the rollout".to_owned()
    });
    for complaint in complaints {
        row.promise(false, || complaint);
    }
    row.promise(fewest >= rollout.replicas, || {
        format!("only {fewest} of {} pods were there to take clients at one time", rollout.replicas)
    });
    check_exits(&mut row, &exits, &times);
    check_resumes(&mut row, &load, refused_before);
    check_spread(&mut row, &load, &exits, &times);
    row
}

/// How it went.
struct Replaced {
    exits: Vec<Exit>,
    complaints: Vec<String>,
    /// Pods that were available and not leaving, at the worst moment.
    fewest: usize,
}

/// Leaves what the grace period has beyond the drain as it is.
pub(super) fn quicken(rollout: &mut Rollout, faster: u32) {
    let times = &mut rollout.times;
    let shorter = times.drain / faster;
    times.grace = times.grace.saturating_sub(times.drain.saturating_sub(shorter));
    times.drain = shorter;
    times.min_ready /= faster;
    for (name, value) in &mut rollout.environment {
        if *name == "TASKCAST_DRAIN_SECONDS" {
            *value = times.drain.as_secs().to_string();
        }
    }
}

/// What the Deployment's controller does: new pods as far as the surge allows, and for each that is available an old one
/// is deleted. Pods that are leaving are not counted, so their drains overlap.
async fn replace_all(load: &mut Load, rollout: &Rollout) -> Replaced {
    let times = &rollout.times;
    let wanted = rollout.replicas;
    let watch = |load: &Load, place: usize| {
        let world = &load.world;
        Pod::watch(place, world.places[place].operations_port, times, world.proxy.clone(), PROXY_HEARS_AFTER)
    };
    let mut old: Vec<Pod> = (0..wanted).rev().map(|place| watch(load, place)).collect();
    for pod in &mut old {
        pod.until_available(Duration::ZERO).await;
    }
    let mut complaints: Vec<_> = old.iter().map(Pod::complaints).collect();
    let (mut starting, mut new, mut created) = (FuturesUnordered::new(), Vec::new(), 0);
    let mut leaving: Vec<JoinHandle<Exit>> = Vec::new();
    let mut fewest = wanted;
    while !old.is_empty() || new.len() < wanted {
        while created < wanted && old.len() + created < wanted + rollout.max_surge {
            load.world.launch(wanted + created);
            let mut pod = watch(load, wanted + created);
            complaints.push(pod.complaints());
            let min_ready = times.min_ready;
            starting.push(async move {
                pod.until_available(min_ready).await;
                pod
            });
            created += 1;
        }
        let may_go = old.len() + new.len() + rollout.max_unavailable > wanted;
        if let Some(pod) = old.pop_if(|_| may_go) {
            fewest = fewest.min(old.len() + new.len());
            let child = load.world.places[pod.place].child.take().expect("it runs");
            let (times, proxy) = (times.clone(), load.world.proxy.clone());
            leaving.push(tokio::spawn(async move { pod.leave(child, &times, proxy, PROXY_HEARS_AFTER).await }));
        } else {
            new.push(starting.next().await.expect("a pod that starts"));
        }
    }
    let mut exits = Vec::new();
    for pod in leaving {
        exits.push(
            tokio::time::timeout(PATIENCE + times.grace, pod).await.expect("a pod that leaves").expect("no panic"),
        );
    }
    let found = |list: &std::sync::Mutex<Vec<String>>| list.lock().expect("no panic under the lock").clone();
    Replaced { exits, complaints: complaints.iter().flat_map(|list| found(list)).collect(), fewest }
}

fn check_exits(row: &mut Row, exits: &[Exit], times: &PodTimes) {
    for exit in exits {
        row.promise(exit.code == Some(0), || format!("a pod did not end in order within {:?}: {exit:?}", times.grace));
    }
    let longest = exits.iter().map(|exit| exit.took).max().unwrap_or_default();
    row.measure("longest from SIGTERM to the end of the process", &format!("{longest:.1?} of {:?}", times.drain));
}

fn check_resumes(row: &mut Row, load: &Load, refused_before: u32) {
    let departures = load.total(|account| account.departures.len() as u32);
    let closes = load.total(|account| account.closes.values().sum());
    let in_order = load.total(|account| account.closes.get("1012").copied().unwrap_or_default());
    let (refused, moves) = (load.total(|account| account.refusals) - refused_before, load.most(|a| a.departures.len()));
    let (resumed, failures) = (row.resumed, row.resume_failures.clone());
    row.measure("connections moved", &departures);
    row.measure("of one client at most", &moves);
    row.promise(departures > 0, || "nobody was connected".to_owned());
    row.promise(failures.is_empty(), || format!("resumes were refused: {failures:?}"));
    row.promise(resumed >= departures, || format!("{departures} connections moved, {resumed} resumed"));
    row.promise(closes == in_order, || format!("{} connections were not closed with 1012", closes - in_order));
    row.promise(refused == 0, || format!("{refused} handshakes met a replica that drains"));
    let waited = load.most(|account| account.longest_gap);
    row.measure("longest without a connection beyond what was told", &format!("{waited:.1?}"));
}

/// When they were told to come back, and when they did, of each pod over its drain window.
fn check_spread(row: &mut Row, load: &Load, exits: &[Exit], times: &PodTimes) {
    let slots = (times.drain.as_millis() / SLOT.as_millis()) as usize;
    for exit in exits {
        let (told, back): (Vec<Duration>, Vec<Duration>) = load
            .departures()
            .filter(|departure| is_of(departure, exit, exits))
            .map(|departure| {
                let back = departure.back.map_or(Duration::MAX, |back| back - exit.told);
                (departure.heard + departure.told - exit.told, back)
            })
            .unzip();
        let mean = told.len() as f64 / slots as f64;
        let (most_told, most_back) = (most_in_a_slot(&told), most_in_a_slot(&back));
        row.measure(
            &format!("place {}", exit.place),
            &format!(
                "{} left, {mean:.1} a second on average, told at most {most_told} (quartiles {}), back at most {most_back} ({})",
                told.len(),
                quartiles(&told),
                quartiles(&back)
            ),
        );
        row.promise(most_told as f64 <= 2.0 * mean + 2.0, || {
            format!("place {}: {most_told} clients were told the same second, {mean:.1} on average", exit.place)
        });
        let far = told.iter().filter(|told| **told > times.drain + SLOT).count();
        row.promise(far == 0, || format!("place {}: {far} clients were told to come back after the drain", exit.place));
        let away = back.iter().filter(|back| **back == Duration::MAX).count();
        row.promise(away == 0, || format!("place {}: {away} clients did not come back", exit.place));
    }
}

/// It was the last one that had been told to go.
fn is_of(departure: &Departure, exit: &Exit, exits: &[Exit]) -> bool {
    let told: Option<Instant> = exits.iter().map(|exit| exit.told).filter(|told| *told <= departure.heard).max();
    told == Some(exit.told)
}

fn most_in_a_slot(after: &[Duration]) -> usize {
    let mut slots = std::collections::BTreeMap::<u128, usize>::new();
    for after in after {
        *slots.entry(after.as_millis() / SLOT.as_millis()).or_default() += 1;
    }
    slots.values().max().copied().unwrap_or_default()
}

fn quartiles(after: &[Duration]) -> String {
    let mut sorted = after.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or_default();
    [0.25, 0.5, 0.75].map(|share| format!("{:.1} s", at(share).as_secs_f64())).join(", ")
}
