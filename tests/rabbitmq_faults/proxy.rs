//! A network that fails without a word: a TCP proxy that goes on taking bytes and passes none of them on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

pub struct Proxy {
    port: u16,
    /// Connections with a smaller number are dead.
    dead_below: watch::Sender<usize>,
    accepted: Arc<AtomicUsize>,
    /// Connections that the near end has not closed.
    held: watch::Receiver<usize>,
    /// How often something came from the server.
    heard: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn before(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (dead_below, dead) = watch::channel(0);
        let accepted = Arc::new(AtomicUsize::new(0));
        let (held_told, held) = watch::channel(0);
        let (heard_told, heard) = watch::channel(0);
        let numbers = accepted.clone();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let Ok(far) = TcpStream::connect(("127.0.0.1", server_port)).await else { continue };
                let (near_in, near_out) = near.into_split();
                let (far_in, far_out) = far.into_split();
                let is_dead = |dead: &watch::Receiver<usize>| {
                    let dead = dead.clone();
                    move || number < *dead.borrow()
                };
                let (dead_up, dead_down) = (is_dead(&dead), is_dead(&dead));
                held_told.send_modify(|held| *held += 1);
                let told = held_told.clone();
                tokio::spawn(async move {
                    forward(near_in, far_out, dead_up, || ()).await;
                    told.send_modify(|held| *held -= 1);
                });
                let told = heard_told.clone();
                tokio::spawn(forward(far_in, near_out, dead_down, move || told.send_modify(|heard| *heard += 1)));
            }
        });
        Self { port, dead_below, accepted, held, heard, task }
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// The connections that there are, and all that come, are dead and do not know it.
    pub fn cut(&self) {
        self.dead_below.send_replace(usize::MAX);
    }

    /// The connections that there are stay dead; new ones are not.
    pub fn heal(&self) {
        self.dead_below.send_replace(self.accepted.load(Ordering::SeqCst));
    }

    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub fn held(&self) -> watch::Receiver<usize> {
        self.held.clone()
    }

    pub fn heard(&self) -> watch::Receiver<usize> {
        self.heard.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with the near end, and takes the other direction with it.
async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    is_dead: impl Fn() -> bool,
    passed_on: impl Fn(),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if !is_dead() && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        passed_on();
    }
}
