//! What the others feel: an event that is published beside an attack, and how long it takes to the browser of somebody
//! who has nothing to do with it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use taskcast::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::Notify,
};

use crate::{
    harness::{Client, PATIENCE, token_with},
    target::{MB, Target, soon},
};

/// Rounds of quiet and attack in turns, so that whatever else the machine does meets both alike.
const ROUNDS: usize = 3;
const SAMPLES_PER_ROUND: usize = 40;

/// A difference below this is the machine's: the attacker works on it too.
const FLOOR: Duration = Duration::from_millis(12);

/// A machine that is busy elsewhere may spoil a measurement; what the attack spoils is spoilt each time.
const ATTEMPTS: usize = 3;

/// One user with one browser, and one worker.
struct Bystander {
    client: Client,
    worker: TcpStream,
    head: String,
    count: u64,
}

impl Bystander {
    async fn new(target: &Target) -> Self {
        let client = target.attach("/ws/tasks/", "bystander").await;
        let worker = TcpStream::connect(("127.0.0.1", target.port)).await.unwrap();
        worker.set_nodelay(true).unwrap();
        let token = token_with("worker", &["own"], true);
        let head = format!("POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n");
        Self { client, worker, head, count: 0 }
    }

    /// From the request that publishes to the frame in the browser.
    async fn sample(&mut self) -> Duration {
        self.count += 1;
        let event = json!({"task_id": "calm", "user_id": "bystander", "current": self.count}).to_string();
        let request = format!("{}Content-Length: {}\r\n\r\n{event}", self.head, event.len());
        let began = clock::now().instant;
        self.worker.write_all(request.as_bytes()).await.expect("the service takes events");
        let count = self.count;
        while self.client.until("task_progress").await["current"].as_u64() != Some(count) {}
        let took = began.elapsed();
        self.client.frames.clear();
        let mut answer = [0; 2048];
        let read = soon("an answer", self.worker.read(&mut answer)).await.expect("an answer");
        assert!(answer[..read].starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer[..read]));
        took
    }

    async fn samples(&mut self, target: &Target, into: &mut Vec<Duration>) {
        for _ in 0..SAMPLES_PER_ROUND {
            let before = Waits::of(target);
            let took = self.sample().await;
            into.push(took.saturating_sub(Waits::of(target).since(&before)));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// For how long the threads of the service, and this one, were able to run and the machine ran others: compilers, brokers,
/// the attacker. It is none of the service's doing, and taken off what was measured.
struct Waits {
    service: Vec<(PathBuf, u64)>,
    own: u64,
}

impl Waits {
    fn of(target: &Target) -> Self {
        let threads = fs::read_dir(format!("/proc/{}/task", target.id())).expect("its threads");
        let service = threads.filter_map(|thread| {
            let path = thread.ok()?.path();
            let waited = waited(&path.join("schedstat"))?;
            Some((path, waited))
        });
        Self { service: service.collect(), own: waited(Path::new("/proc/thread-self/schedstat")).unwrap_or_default() }
    }

    /// An event passes from thread to thread, so the one that waited most counts.
    fn since(&self, before: &Self) -> Duration {
        let threads = self.service.iter().filter_map(|(path, waited)| {
            let (_, earlier) = before.service.iter().find(|(known, _)| known == path)?;
            Some(waited.saturating_sub(*earlier))
        });
        Duration::from_nanos(threads.max().unwrap_or_default() + self.own.saturating_sub(before.own))
    }
}

/// The second number of proc(5)'s `schedstat`, in nanoseconds.
fn waited(schedstat: &Path) -> Option<u64> {
    fs::read_to_string(schedstat).ok()?.split(' ').nth(1)?.parse().ok()
}

/// How an attack tells that it goes on.
#[derive(Default)]
pub struct Strikes {
    count: AtomicU64,
    standing: Notify,
}

impl Strikes {
    pub fn add(&self, count: u64) {
        self.count.fetch_add(count, Ordering::Relaxed);
    }

    /// The attack is at its height: what is measured from now on counts.
    pub fn stand(&self) {
        self.standing.notify_one();
    }
}

fn percentile_99(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() * 99 / 100 - 1]
}

/// Attacks in turns with quiet, and demands that others' slowest hundredth takes no more than twice as long under the
/// attack, that it struck `strikes_min` times at least, and that the process never held more than `memory_max` bytes.
/// `attack` goes on until it is dropped.
pub async fn feels_nothing<A, F>(target: &Target, memory_max: u64, strikes_min: u64, attack: A)
where
    A: Fn(u16, Arc<Strikes>) -> F + Clone + Send + 'static,
    F: Future<Output = ()>,
{
    let mut bystander = Bystander::new(target).await;
    for attempt in 1..=ATTEMPTS {
        let (mut quiet, mut attacked, mut strikes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..ROUNDS {
            bystander.samples(target, &mut quiet).await;
            let attack_under_way = Attacker::start(target.port, attack.clone()).await;
            let wanted = strikes_min.div_ceil(ROUNDS as u64);
            let patience = clock::now().instant + PATIENCE;
            bystander.samples(target, &mut attacked).await;
            // A slow machine strikes more slowly, and is watched for longer.
            while attack_under_way.strikes() < wanted && clock::now().instant < patience {
                bystander.samples(target, &mut attacked).await;
            }
            strikes += attack_under_way.stop();
        }
        let (quiet, attacked) = (percentile_99(&mut quiet), percentile_99(&mut attacked));
        let peak = target.peak();
        let told = format!("p99 {quiet:?} in quiet, {attacked:?} under {strikes} strikes; at most {} MB", peak / MB);
        println!("{told}");
        assert!(strikes >= strikes_min, "that was no attack: {told}");
        assert!(peak <= memory_max, "more than {} MB: {told}", memory_max / MB);
        if attacked <= (quiet * 2).max(FLOOR) {
            return;
        }
        assert!(attempt < ATTEMPTS, "others feel it: {told}");
    }
}

pub const HALF_OPEN: u64 = 10_000;

/// So many connections that are begun and not finished; each says nothing, a part of `hello`, or all of it. The last third
/// of three says all.
pub async fn hold_half_open(port: u16, hello: &[u8], strikes: &Strikes) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for n in 0..HALF_OPEN {
        // From many addresses, so that no limit of one stands in the way.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, (n % 200) as u8, 2], 0).into()).unwrap();
        let mut stream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        let said = [&b""[..], &hello[..60], hello][(n % 3) as usize];
        stream.write_all(said).await.unwrap();
        held.push(stream);
        strikes.add(1);
    }
    held
}

/// Those of them that said all, and so are to be answered.
pub fn to_be_answered(held: &mut [TcpStream]) -> impl DoubleEndedIterator<Item = &mut TcpStream> {
    held.chunks_mut(3).filter_map(|of_each_kind| of_each_kind.get_mut(2))
}

/// An attack on a thread of its own, which gives way to the service: an attacker brings their own machine.
struct Attacker {
    strikes: Arc<Strikes>,
    stop: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Attacker {
    /// Ready when the attack is at its height.
    async fn start<A, F>(port: u16, attack: A) -> Self
    where
        A: Fn(u16, Arc<Strikes>) -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let strikes = Arc::<Strikes>::default();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let shared = strikes.clone();
        let thread = std::thread::spawn(move || {
            // On Linux this is the thread's own.
            let _ = rustix::process::setpriority_process(None, 10);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = attack(port, shared) => panic!("the attack ended by itself"),
                    _ = stopped => {}
                }
            });
        });
        let standing = tokio::time::timeout(PATIENCE, strikes.standing.notified());
        assert!(standing.await.is_ok(), "the attack did not come about");
        Self { strikes, stop, thread }
    }

    fn strikes(&self) -> u64 {
        self.strikes.count.load(Ordering::Relaxed)
    }

    fn stop(self) -> u64 {
        let _ = self.stop.send(());
        self.thread.join().expect("the attack was none");
        self.strikes.count.load(Ordering::Relaxed)
    }
}
