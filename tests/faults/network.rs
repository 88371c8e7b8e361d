//! A network that can be broken: a TCP proxy whose connections are cut, frozen (both ends stay open and nothing moves,
//! as when a cable is pulled) and slowed, one by one or all together.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

use crate::script::Random;

const BUFFER_BYTES: usize = 8 * 1024;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    Frozen,
    /// Ended with a reset (both sides see an error) or a plain close.
    Cut {
        reset: bool,
    },
}

struct Inner {
    target: SocketAddr,
    links: Mutex<HashMap<u64, watch::Sender<State>>>,
    /// How connections begin: those that are made while the network is broken are broken too.
    begins: watch::Sender<State>,
    next: AtomicU64,
    delay: watch::Sender<Duration>,
}

/// Listens on a port of its own and carries bytes to and from `target`.
pub struct Network {
    pub port: u16,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

impl Network {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let inner = Arc::new(Inner {
            target,
            links: Mutex::default(),
            begins: watch::Sender::new(State::Open),
            next: AtomicU64::new(0),
            delay: watch::Sender::new(Duration::ZERO),
        });
        let accepting = tokio::spawn(accept(listener, inner.clone()));
        Self { port, inner, accepting }
    }

    fn set(&self, chosen: &[u64], state: State) {
        let links = self.inner.links.lock().expect("no panic under the lock");
        for link in chosen.iter().filter_map(|id| links.get(id)) {
            link.send_replace(state);
        }
    }

    /// Breaks a random share of what is open: half of it is cut now, the other half stands still for so long and is cut
    /// then.
    pub async fn flap(&self, share: f64, lasting: Duration, random: &mut Random) {
        let mut ids: Vec<u64> = {
            let links = self.inner.links.lock().expect("no panic under the lock");
            links.iter().filter(|(_, link)| *link.borrow() == State::Open).map(|(id, _)| *id).collect()
        };
        // A map has an order of its own in every run.
        ids.sort_unstable();
        let chosen: Vec<u64> = ids.into_iter().filter(|_| random.share() < share).collect();
        let (frozen, cut): (Vec<u64>, Vec<u64>) = chosen.into_iter().partition(|_| random.below(2) == 0);
        let (reset, closed): (Vec<u64>, Vec<u64>) = cut.into_iter().partition(|_| random.below(2) == 0);
        self.set(&reset, State::Cut { reset: true });
        self.set(&closed, State::Cut { reset: false });
        self.set(&frozen, State::Frozen);
        tokio::time::sleep(lasting).await;
        self.set(&frozen, State::Cut { reset: true });
    }

    /// Everything stands still, what is yet to connect too.
    pub fn freeze(&self) {
        self.inner.begins.send_replace(State::Frozen);
        let links = self.inner.links.lock().expect("no panic under the lock");
        for link in links.values() {
            link.send_replace(State::Frozen);
        }
    }

    /// What stood still is cut, and new connections are carried again: nobody waits so long in vain for ever.
    pub fn heal(&self) {
        self.inner.begins.send_replace(State::Open);
        let links = self.inner.links.lock().expect("no panic under the lock");
        for link in links.values().filter(|link| *link.borrow() == State::Frozen) {
            link.send_replace(State::Cut { reset: true });
        }
    }

    /// Every chunk of bytes comes this much later from now on.
    pub fn delay(&self, by: Duration) {
        self.inner.delay.send_replace(by);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.accepting.abort();
        let links = self.inner.links.lock().expect("no panic under the lock");
        for link in links.values() {
            link.send_replace(State::Cut { reset: true });
        }
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    while let Ok((near, _)) = listener.accept().await {
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        let (link, state) = watch::channel(*inner.begins.borrow());
        inner.links.lock().expect("no panic under the lock").insert(id, link);
        let inner = inner.clone();
        tokio::spawn(async move {
            carry(near, &inner, state).await;
            inner.links.lock().expect("no panic under the lock").remove(&id);
        });
    }
}

async fn carry(mut near: TcpStream, inner: &Inner, mut state: watch::Receiver<State>) {
    let _ = near.set_nodelay(true);
    let Ok(mut far) = TcpStream::connect(inner.target).await else { return };
    let _ = far.set_nodelay(true);
    let delay = inner.delay.subscribe();
    let reset = {
        let (near_reader, near_writer) = near.split();
        let (far_reader, far_writer) = far.split();
        let out = copy(near_reader, far_writer, state.clone(), delay.clone());
        let back = copy(far_reader, near_writer, state.clone(), delay);
        tokio::select! {
            ((), ()) = async { tokio::join!(out, back) } => false,
            // Gone when the network is dropped.
            cut = state.wait_for(|state| matches!(state, State::Cut { .. })) => {
                cut.is_ok_and(|cut| *cut == State::Cut { reset: true })
            }
        }
    };
    if reset {
        for stream in [&near, &far] {
            let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// One direction, until its reader ends or fails. Nothing is read while frozen.
async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    delay: watch::Receiver<Duration>,
) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if state.wait_for(|state| *state == State::Open).await.is_err() {
            return;
        }
        let count = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(count) if count > 0 => count,
                _ => break,
            },
            _ = state.changed() => continue,
        };
        let by = *delay.borrow();
        if !by.is_zero() {
            tokio::time::sleep(by).await;
        }
        // Frozen while these bytes were on their way: they stay there.
        if state.wait_for(|state| *state == State::Open).await.is_err() || to.write_all(&buffer[..count]).await.is_err()
        {
            break;
        }
    }
    let _ = to.shutdown().await;
}
