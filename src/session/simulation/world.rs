//! Everything together: one log, two or three replicas, some clients, and a clock that moves when it is told.
//!
//! Refuses to know: what is right; the client and the replica judge.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use super::{
    client::Client,
    log::SimulatedLog,
    random::Random,
    replica::{Limits, Replica},
};
use crate::{
    clock::{self, Now},
    session::Sessions,
};

const STEPS: usize = 250;

/// How long a client's address waits for a replica that is behind the client, as the pump does.
const CATCH_UP: Duration = Duration::from_secs(2);

pub(super) struct World {
    random: Random,
    limits: Limits,
    log: SimulatedLog,
    replicas: Vec<Replica>,
    doors: Vec<Arc<Sessions>>,
    clients: Vec<Client>,
    now: Now,
    tells: bool,
    digest: DefaultHasher,
}

pub(super) struct Outcome {
    pub(super) digest: u64,
    pub(super) resumed: u64,
}

impl World {
    /// Runs one seed to its end. `tells`: says what happens.
    pub(super) fn run(seed: u64, tells: bool) -> Outcome {
        let mut random = Random::new(seed);
        let limits = Limits::any(&mut random);
        let replicas: Vec<_> = (0..2 + random.below(2)).map(|_| Replica::new(limits)).collect();
        let doors = replicas.iter().map(|replica| replica.shared.clone()).collect();
        let mut clients: Vec<_> = (0..=random.below(5)).map(|_| Client::any(&mut random, limits)).collect();
        clients.iter_mut().enumerate().for_each(|(number, client)| client.tells = tells.then_some(number));
        let now = Now { unix_ms: 1_800_000_000_000, ..clock::now() };
        let log = SimulatedLog::new(limits.tasks);
        let digest = DefaultHasher::new();
        let mut world = Self { random, limits, log, replicas, doors, clients, now, tells, digest };
        world.tell(|| format!("{limits:?}"));
        for _ in 0..STEPS {
            world.step();
        }
        world.settle();
        Outcome { digest: world.digest.finish(), resumed: world.clients.iter().map(|client| client.resumed).sum() }
    }

    #[expect(clippy::print_stderr, reason = "whoever replays a seed wants to see it")]
    fn tell(&self, what: impl Fn() -> String) {
        if self.tells {
            eprintln!("{}", what());
        }
    }

    fn step(&mut self) {
        let client = self.random.below(self.clients.len());
        let replica = self.random.below(self.replicas.len());
        match self.random.below(100) {
            0..=29 => {
                for _ in 0..=self.random.below(6) {
                    self.log.produce(&mut self.random, self.now.unix_ms);
                }
            }
            30..=54 => self.feed(replica),
            55..=74 => {
                if let Some(connection) = &mut self.clients[client].connection {
                    connection.run(&mut self.random, self.now);
                }
            }
            75..=82 => self.connect(client, replica),
            83..=87 => {
                self.tell(|| format!("client {client} drops"));
                self.clients[client].lose(&self.replicas, self.limits);
            }
            88..=91 => self.clients[client].speak(&mut self.random, self.limits, self.now),
            92..=94 => self.pass(),
            95 | 96 => {
                self.tell(|| format!("replica {replica} reconnects to the log"));
                self.replicas[replica].reconnect(&self.log, &mut self.random);
                self.replicas[replica].settle(self.now);
            }
            97 if self.limits.trims => {
                self.tell(|| "the log is trimmed".to_owned());
                self.log.trim(&mut self.random);
            }
            98 if self.limits.replaces && self.random.chance(50) => {
                self.tell(|| "the log is replaced".to_owned());
                self.log.replace(&mut self.random);
            }
            _ => {}
        }
        self.look();
    }

    fn look(&mut self) {
        for (number, client) in self.clients.iter_mut().enumerate() {
            client.look(&self.replicas);
            (number, client.wants()).hash(&mut self.digest);
        }
        for client in &mut self.clients {
            if client.connection.as_ref().is_some_and(|connection| connection.is_over) {
                client.lose(&self.replicas, self.limits);
            }
        }
    }

    /// Time passes; retention looks around.
    fn pass(&mut self) {
        let limit = self.random.pick(&[50, 500, 5_000]);
        self.now = self.now.after(Duration::from_millis(self.random.below(limit) as u64));
        for replica in &mut self.replicas {
            for verdict in replica.sweep(self.now) {
                self.log.append(&verdict, &mut self.random, self.now.unix_ms);
            }
        }
    }

    fn connect(&mut self, number: usize, replica: usize) {
        let client = &mut self.clients[number];
        if client.connection.is_some() {
            return;
        }
        let progress = self.doors[replica].hub.progress();
        let applied = progress.applied.map(|cursor| cursor.position);
        let is_behind = client.wants().is_some() && !(progress.replayed && applied >= client.wants());
        let until = *client.patience.get_or_insert(self.now.after(CATCH_UP));
        if is_behind && self.now.instant < until.instant {
            return;
        }
        client.connect((replica, &self.doors[replica]), self.now);
        let wants = self.clients[number].wants();
        self.tell(|| format!("client {number} connects to {replica} after {wants:?}"));
    }

    /// A replica reads a batch; between the steps of applying it, clients go on.
    fn feed(&mut self, number: usize) {
        let count = self.random.pick(&[1, 3, 10, 100]);
        let Some(batch) = self.replicas[number].read(&self.log, count, self.now) else {
            self.tell(|| format!("replica {number} starts over"));
            return;
        };
        let (first, last) = (batch.arrivals.first(), batch.arrivals.last());
        self.tell(|| format!("replica {number} reads {:?}", first.zip(last).map(|(a, b)| (a.cursor, b.cursor))));
        let (clients, random, now, limits) = (&mut self.clients, &mut self.random, self.now, self.limits);
        let shared = &self.doors[number];
        batch.hub.apply_in_steps(&batch.arrivals, now.unix_ms, || {
            if !random.chance(25) {
                return;
            }
            let client = random.pick(&(0..clients.len()).collect::<Vec<_>>());
            let client = &mut clients[client];
            match &mut client.connection {
                None if random.chance(30) && client.patience.is_none() => client.connect((number, shared), now),
                None => {}
                Some(_) if random.chance(10) => client.speak(random, limits, now),
                Some(connection) => connection.run(random, now),
            }
        });
        self.replicas[number].settle(now);
    }

    /// The log stands still, everyone catches up; then every client must be right.
    fn settle(&mut self) {
        self.tell(|| "everything comes to rest".to_owned());
        while let Some(number) = (0..self.replicas.len()).find(|&number| !self.replicas[number].is_at_end(&self.log)) {
            self.feed(number);
            self.look();
        }
        // Who waits for a replica that will never be as far as another log was, waits long enough.
        for _ in 0..2 {
            for number in 0..self.clients.len() {
                let replica = self.random.below(self.replicas.len());
                self.connect(number, replica);
            }
            self.now = self.now.after(CATCH_UP);
        }
        // Longer than any throttle, in steps; not as long as a ping, which would wake those that were forgotten.
        for _ in 0..5 {
            for client in &mut self.clients {
                if let Some(connection) = &mut client.connection {
                    connection.drain(self.now);
                }
            }
            self.look();
            self.now = self.now.after(Duration::from_millis(700));
        }
        for client in &mut self.clients {
            client.check(&self.replicas, self.limits);
        }
        for replica in &self.replicas {
            replica.check_counts();
        }
    }
}
