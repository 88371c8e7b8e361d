//! A network that fails without saying so: a TCP proxy that stops forwarding and closes nothing.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

#[derive(Clone, Copy, Debug)]
struct Weather {
    /// Connections with a lower number are silent for good, in these directions.
    silent_below: u64,
    /// Nothing is forwarded now.
    silent: bool,
    /// Answers are held back now.
    answers_silent: bool,
    /// Answers come this much later.
    delay: Duration,
}

/// In front of a server on this machine. Connections that it made stay open as long as it lives.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: watch::Receiver<u64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calm = Weather { silent_below: 0, silent: false, answers_silent: false, delay: Duration::ZERO };
        let weather = watch::Sender::new(calm);
        let (count, connections) = watch::channel(0);
        let sky = weather.clone();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let number = *count.borrow();
                count.send_replace(number + 1);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                tokio::spawn(forward(from_client, to_server, sky.subscribe(), number, false));
                tokio::spawn(forward(from_server, to_client, sky.subscribe(), number, true));
            }
        });
        Self { address, weather, connections, task }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Nothing is forwarded any more, in either direction.
    pub fn silence(&self) {
        self.weather.send_modify(|weather| weather.silent = true);
    }

    /// Requests arrive, answers do not.
    pub fn silence_answers(&self) {
        self.weather.send_modify(|weather| weather.answers_silent = true);
    }

    /// The connections that there are never carry anything again; new ones do.
    pub fn forget(&self) {
        let connections = *self.connections.borrow();
        self.weather.send_modify(|weather| weather.silent_below = connections);
    }

    /// Only the connections that were forgotten stay silent.
    pub fn heal_new(&self) {
        self.weather.send_modify(|weather| (weather.silent, weather.answers_silent) = (false, false));
    }

    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// What was held back arrives late, and everything goes on.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| {
            (weather.silent_below, weather.silent, weather.answers_silent) = (0, false, false);
            weather.delay = Duration::ZERO;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    number: u64,
    is_answer: bool,
) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let delay = weather.borrow().delay;
        if is_answer && !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let carries = |weather: &Weather| {
            let is_silent = weather.silent || (is_answer && weather.answers_silent);
            !is_silent && number >= weather.silent_below
        };
        if weather.wait_for(carries).await.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
