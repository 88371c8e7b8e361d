//! What every scenario works with: the servers that take part, the place, the sizes, the report.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    Outcome,
    crowd::Crowd,
    drive::{Measured, connect_all, measure},
    options::{Options, Size},
    place::Place,
    report::{Report, Row, number, table},
    rivals,
    server::{Instance, Server, Watcher},
    servers::{
        floor::{Floor, Mode},
        taskcast::Taskcast,
    },
    support::brokers::RabbitServer,
    tally::Tally,
};

/// Put to work before anything is measured: allocators, caches and connections warm up.
const WARM_UP: Duration = Duration::from_millis(500);
/// Of a crowd that has been at it before.
const SHORT_WARM_UP: Duration = Duration::from_millis(25);

/// How long a server is measured before it is the next one's turn: as short as what is done in it is still many events.
const SHORT_TURN: Duration = Duration::from_millis(100);
const WARM_UP_SMOKE: Duration = Duration::from_millis(50);

pub struct Lab {
    pub place: Place,
    pub size: Size,
    pub report: Report,
    options: Options,
    binary: PathBuf,
    servers: Vec<Box<dyn Server>>,
}

/// All that was measured of one server in one case.
pub struct Results {
    pub server: String,
    pub rounds: Vec<Measured>,
}

impl Lab {
    pub fn new(options: Options, place: Place, binary: PathBuf) -> Self {
        let size = options.size();
        let mut servers = everybody(&binary);
        let mut report = Report::default();
        servers.retain(|server| options.wants(server.name()));
        servers.retain(|server| match server.missing() {
            Some(missing) => {
                report.skipped.push(format!("{}: {missing}", server.name()));
                false
            }
            None => true,
        });
        Self { place, size, report, options, binary, servers }
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn seconds(&self) -> Duration {
        if self.options.smoke { Duration::from_millis(300) } else { Duration::from_secs(self.size.seconds) }
    }

    pub fn warm_up(&self) -> Duration {
        if self.options.smoke { WARM_UP_SMOKE } else { WARM_UP }
    }

    /// Figures of a smoke run mean nothing.
    pub fn judges(&self) -> bool {
        !self.options.smoke
    }

    pub fn has_taskcast(&self) -> bool {
        self.servers.iter().any(|server| server.name() == "taskcast")
    }

    /// Whether this scenario has a RabbitMQ to read. Where there is none, the report says so, and the rest goes on.
    pub fn with_rabbitmq(&mut self, scenario: &str) -> bool {
        if !self.size.with_rabbitmq {
            return false;
        }
        let missing = RabbitServer::missing();
        self.report.skipped.extend(missing.iter().map(|missing| format!("{scenario} with RabbitMQ: {missing}")));
        missing.is_none()
    }

    pub fn taskcast(&self) -> Taskcast {
        Taskcast::new(self.binary.clone())
    }

    /// Starts every server of this run, of the floor these forms. One that does not start is out of this scenario, and said
    /// to be.
    ///
    /// # Errors
    /// There is none left.
    pub fn start(&mut self, floors: &[Mode]) -> Outcome<Vec<(String, Box<dyn Instance>)>> {
        let mut started = Vec::new();
        let takes_part = |name: &str| Mode::of(name).is_none_or(|mode| floors.contains(&mode));
        for server in self.servers.iter().filter(|server| takes_part(server.name())) {
            match server.start(&self.place) {
                Ok(instance) => {
                    self.report.versions.insert(server.name().to_owned(), instance.version());
                    started.push((server.name().to_owned(), instance));
                }
                Err(error) => self.report.skipped.push(format!("{}: {error}", server.name())),
            }
        }
        if started.is_empty() {
            return Err("no server takes part".into());
        }
        Ok(started)
    }

    /// Connects a crowd to each server, warms it up, and measures the work; servers take turns, as often as is wanted. Where
    /// all crowds can be there at a time, the turns are short, so that what a shared machine does meanwhile meets every
    /// server alike. A server's failure is a line of the report.
    pub fn contest(
        &mut self,
        instances: &[(String, Box<dyn Instance>)],
        watchers: &[Watcher],
        work: impl Fn(&mut Crowd<'_>, Duration) -> Outcome<()>,
    ) -> Vec<Results> {
        let stays = instances.len() * watchers.len() <= self.place.watchers_at_once;
        let lasting = if stays { self.seconds().min(SHORT_TURN) } else { self.seconds() };
        let rounds = self.size.repeat * (self.seconds().as_millis() / lasting.as_millis()) as usize;
        let mut results: BTreeMap<usize, Vec<Measured>> = BTreeMap::new();
        let mut crowds: BTreeMap<usize, Crowd<'_>> = BTreeMap::new();
        let mut out: Vec<usize> = Vec::new();
        for _ in 0..rounds {
            for (index, (name, instance)) in instances.iter().enumerate() {
                if out.contains(&index) {
                    continue;
                }
                let waiting = crowds.remove(&index);
                let warm_up = if waiting.is_some() { self.warm_up().min(SHORT_WARM_UP) } else { self.warm_up() };
                let round = || -> Outcome<(Measured, Crowd<'_>)> {
                    let mut crowd = if let Some(crowd) = waiting {
                        crowd
                    } else {
                        let mut crowd = Crowd::new(&**instance, watchers.to_vec())?;
                        connect_all(&mut crowd)?;
                        crowd
                    };
                    work(&mut crowd, warm_up)?;
                    Ok((measure(&**instance, &mut crowd, |crowd| work(crowd, lasting))?, crowd))
                };
                match round() {
                    Ok((measured, crowd)) => {
                        results.entry(index).or_default().push(measured);
                        crowds.extend(stays.then_some((index, crowd)));
                    }
                    Err(error) => {
                        out.push(index);
                        self.report.skipped.push(format!("{name} with {} watchers: {error}", watchers.len()));
                    }
                }
            }
        }
        let named = results.into_iter().map(|(index, rounds)| Results { server: instances[index].0.clone(), rounds });
        named.collect()
    }

    /// Adds a row, and shows it.
    pub fn add(&mut self, row: Row) {
        let figures: Vec<String> =
            row.figures.iter().map(|(name, value)| format!("{name} {}", number(*value))).collect();
        crate::say(&format!("  {}, {}: {}  {}", row.case, row.server, figures.join(", "), row.remarks));
        self.report.rows.push(row);
    }

    /// The rows of a scenario, when it is over.
    pub fn show(&self, scenario: &str) {
        let rows: Vec<&Row> = self.report.rows.iter().filter(|row| row.scenario == scenario).collect();
        crate::say(&table(&rows));
    }
}

pub fn everybody(binary: &Path) -> Vec<Box<dyn Server>> {
    let floors = Mode::ALL.into_iter().map(|mode| Box::new(Floor(mode)) as Box<dyn Server>);
    let mut servers: Vec<Box<dyn Server>> = floors.collect();
    servers.push(Box::new(Taskcast::new(binary.to_owned())));
    servers.extend(rivals::all());
    servers
}

impl Results {
    pub fn median(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    pub fn sum(&self, figure: impl Fn(&Measured) -> f64) -> f64 {
        self.rounds.iter().map(figure).sum()
    }

    /// The median of what each round came to, beside the same round of another server.
    pub fn ratio(&self, other: &Self, figure: impl Fn(&Measured) -> f64) -> f64 {
        median(self.rounds.iter().zip(&other.rounds).map(|(own, other)| figure(own) / figure(other)).collect())
    }

    /// What was lost and the like in all rounds together.
    pub fn remarks(&self) -> String {
        remarks(self.rounds.iter().map(|round| &round.tally))
    }
}

/// What was lost and the like in all of these; empty if all is well.
pub fn remarks<'a>(tallies: impl IntoIterator<Item = &'a Tally>) -> String {
    let wrong = tallies.into_iter().filter(|tally| !tally.is_whole()).map(Tally::mistakes);
    wrong.collect::<Vec<String>>().join("; ")
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length.is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}
