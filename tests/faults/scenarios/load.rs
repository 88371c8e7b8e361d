//! What goes on while things break: workers that publish over every road, and clients that watch through the proxy.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use taskcast::clock;

use super::Settings;
use crate::{
    checker,
    clients::{Account, Client, Departure, Mutation, Plan, Watches},
    publisher::{Publisher, Road},
    script::{Random, Script},
    table::Row,
    world::{Kind, Members, Shape, World},
};

/// How long clients may take to be right once everything is published and nothing is broken any more. More than the
/// longest wait that they are told.
pub const SETTLE: Duration = Duration::from_secs(60);

/// For what should not come any more, but might.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The clients of one user.
const CLIENTS_PER_USER: usize = 5;

pub struct Load {
    pub world: World,
    pub clients: Vec<Client>,
    pub random: Random,
    script: Arc<Script>,
    publishers: Vec<Publisher>,
    pub started: Instant,
    /// As [`SETTLE`].
    pub settles_within: Duration,
    /// Then the last words of the replicas are no news.
    pub is_meant_to_break: bool,
}

/// How much goes on.
#[derive(Clone, Copy)]
pub struct Crowd {
    pub clients: usize,
    pub events: usize,
    /// One in so many watches everybody's tasks.
    pub all_every: usize,
}

impl Crowd {
    fn usual(settings: Settings) -> Self {
        let (clients, events) = settings.pick((80, 3_000), (500, 50_000));
        Self { clients, events, all_every: 25 }
    }
}

pub fn shape(kind: Kind) -> Shape {
    Shape { kind, replicas: 2, places: 2, environment: Vec::new(), members: Members::Asked }
}

impl Load {
    /// A world with clients in it, and workers that take `over` for all they have to say.
    pub async fn begin(settings: Settings, shape: &Shape, over: Duration) -> Self {
        Self::begin_mutated(settings, shape, over, |_| Mutation::None).await
    }

    /// With another number of clients and events.
    pub async fn begin_sized(settings: Settings, shape: &Shape, over: Duration, crowd: Crowd) -> Self {
        Self::begin_as(settings.seed, shape, over, crowd, |_| Mutation::None).await
    }

    /// With clients that have mistakes in them, by their number.
    pub async fn begin_mutated(
        settings: Settings,
        shape: &Shape,
        over: Duration,
        mutation: impl Fn(usize) -> Mutation,
    ) -> Self {
        Self::begin_as(settings.seed, shape, over, Crowd::usual(settings), mutation).await
    }

    async fn begin_as(
        seed: u64,
        shape: &Shape,
        over: Duration,
        crowd: Crowd,
        mutation: impl Fn(usize) -> Mutation,
    ) -> Self {
        let mut random = Random::new(seed);
        let world = World::start(shape).await;
        let started = clock::now().instant;
        let script = Arc::new(Script::new("task", crowd.clients / CLIENTS_PER_USER, crowd.events, &mut random));
        let clients: Vec<Client> = (0..crowd.clients)
            .map(|index| {
                let mut plan = plan(&script, index, world.front.port, mutation(index));
                if index % crowd.all_every == 1 {
                    plan.watches = Watches::All;
                }
                Client::start(plan, random.fork())
            })
            .collect();
        let publishers = publishers(&world, &script, over, &mut random);
        Self { world, clients, random, script, publishers, started, settles_within: SETTLE, is_meant_to_break: false }
    }

    /// Nothing is broken any more: waits until everything is published and everyone knows, and checks.
    pub async fn end(mut self) -> (Row, Self) {
        let mut row = Row::default();
        self.settle(&mut row).await;
        checker::check_clients(&mut row, &self.clients);
        checker::check_replicas(&mut row, &self.world).await;
        self.check_newcomers(&mut row).await;
        row.longest_outage = Some(self.world.readiness.longest_outage(self.started));
        self.count_closes(&mut row);
        (row, self)
    }

    /// The same without the checks.
    pub async fn settle(&mut self, row: &mut Row) {
        row.events = self.script.events();
        let (mut confirmed, mut unknown, mut refused) = (0, 0, 0);
        for publisher in std::mem::take(&mut self.publishers) {
            let tally = publisher.finish().await;
            confirmed += tally.confirmed.load(Ordering::Relaxed);
            unknown += tally.unknown.load(Ordering::Relaxed);
            refused += tally.refused.load(Ordering::Relaxed);
        }
        assert_eq!(confirmed, row.events, "everything has been published");
        let published = clock::now().instant;
        settle(&self.clients, self.settles_within).await;
        row.measure("settled after the last event in", &format!("{:.1?}", clock::now().instant - published));
        tokio::time::sleep(AFTERMATH).await;
        row.measure("batches sent again: unanswered", &unknown);
        row.measure("refused", &refused);
    }

    fn count_closes(&self, row: &mut Row) {
        let mut closes = std::collections::BTreeMap::<String, u32>::new();
        let (mut degraded, mut refusals, mut wait) = (0, 0, Duration::ZERO);
        for client in &self.clients {
            let account = client.account.lock().expect("no panic under the lock");
            for (code, count) in &account.closes {
                *closes.entry(code.clone()).or_default() += count;
            }
            degraded += account.degraded;
            refusals += account.refusals;
            wait = wait.max(account.longest_wait);
        }
        // What the replicas had to complain of, when something is wrong.
        if !row.broken.is_empty() && !self.is_meant_to_break {
            for place in 0..self.world.places.len() {
                eprintln!("faults: the last words of replica {place}:\n{}", self.world.log(place));
            }
        }
        let removed = self.most(|account| account.removed);
        row.promise(removed == 0, || "a client was told that a task is no longer kept".to_owned());
        row.measure("connections lost by code", &format!("{closes:?}"));
        row.measure("handshakes refused", &refusals);
        row.measure("source_degraded heard", &degraded);
        row.measure("longest wait beyond the first told delay", &format!("{wait:.1?}"));
    }

    /// Whoever comes now, to whichever replica, must be shown the same.
    async fn check_newcomers(&mut self, row: &mut Row) {
        let mut newcomers = Vec::new();
        for place in self.world.places.iter().filter(|place| place.child.is_some()) {
            let mut plan = plan(&self.script, 0, place.port, Mutation::None);
            plan.watches = Watches::All;
            newcomers.push(Client::start(plan, self.random.fork()));
        }
        settle(&newcomers, SETTLE).await;
        let mut theirs = Row::default();
        checker::check_clients(&mut theirs, &newcomers);
        for broken in theirs.broken {
            row.promise(false, || format!("for who comes now: {broken}"));
        }
    }

    /// How many clients have not been greeted yet.
    pub fn strangers(&self) -> u32 {
        self.total(|account| u32::from(account.greetings == 0))
    }

    /// Have the workers said all?
    pub fn is_published(&self) -> bool {
        self.publishers.iter().all(Publisher::has_ended)
    }

    /// Every time that a client was sent away.
    pub fn departures(&self) -> impl Iterator<Item = Departure> {
        let of = |client: &Client| client.account.lock().expect("no panic under the lock").departures.clone();
        self.clients.iter().flat_map(of)
    }

    pub fn total(&self, of: impl Fn(&Account) -> u32) -> u32 {
        self.clients.iter().map(|client| of(&client.account.lock().expect("no panic under the lock"))).sum()
    }

    pub fn most<T: Ord + Default>(&self, of: impl Fn(&Account) -> T) -> T {
        let accounts = self.clients.iter().map(|client| of(&client.account.lock().expect("no panic under the lock")));
        accounts.max().unwrap_or_default()
    }
}

fn plan(script: &Arc<Script>, index: usize, port: u16, mutation: Mutation) -> Plan {
    let watches = match index {
        _ if index % 10 == 3 => Watches::Every,
        _ => Watches::Own,
    };
    Plan { port, script: script.clone(), owner: index % script.users, watches, mutation, returns: true }
}

/// Two workers beside the broker, and two that know only HTTP.
fn publishers(world: &World, script: &Arc<Script>, over: Duration, random: &mut Random) -> Vec<Publisher> {
    let post = Road::Post { port: world.proxy_port };
    let roads = [world.broker.road(), world.broker.road(), post.clone(), post];
    let share = |index: usize| (index..script.parts.len()).step_by(roads.len()).collect();
    let start = |(index, road): (usize, &Road)| {
        Publisher::start(road.clone(), script.clone(), share(index), over, random.fork())
    };
    roads.iter().enumerate().map(start).collect()
}

/// Until all show the end of the script, or it has taken too long.
pub async fn settle(clients: &[Client], within: Duration) {
    let settled = async {
        while !clients.iter().all(Client::is_settled) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    // The checker says what is wrong then.
    let _ = tokio::time::timeout(within, settled).await;
}
