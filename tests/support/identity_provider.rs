//! Who knows tokens: a small HTTP server that answers as a test says, counts what it was asked, and can be away.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::brokers::free_port;

/// What is answered to every request.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Lines of the head, besides those that every answer has.
    pub head: Vec<String>,
    pub body: String,
    /// Passes before it is sent.
    pub delay: Duration,
}

impl Reply {
    pub fn json(body: &serde_json::Value) -> Self {
        Self { status: 200, head: Vec::new(), body: body.to_string(), delay: Duration::ZERO }
    }

    pub fn status(status: u16) -> Self {
        Self { status, head: Vec::new(), body: "{}".to_owned(), delay: Duration::ZERO }
    }

    pub fn with_head(mut self, line: &str) -> Self {
        self.head.push(line.to_owned());
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Answer = dyn Fn(&str) -> Reply + Send + Sync;

struct Shared {
    answer: Mutex<Arc<Answer>>,
    requests: Mutex<Vec<String>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

/// Listens on a port of its own until it is dropped.
pub struct IdentityProvider {
    pub port: u16,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

impl IdentityProvider {
    /// Not there yet; [`IdentityProvider::come`] makes it listen.
    pub fn away(reply: Reply) -> Self {
        let shared = Shared {
            answer: Mutex::new(Arc::new(move |_: &str| reply.clone())),
            requests: Mutex::default(),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
        };
        Self { port: free_port(), shared: Arc::new(shared), serving: None }
    }

    pub async fn start(reply: Reply) -> Self {
        let mut provider = Self::away(reply);
        provider.come().await;
        provider
    }

    pub async fn come(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("a free port");
        let shared = self.shared.clone();
        self.serving = Some(tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, shared.clone()));
            }
        }));
    }

    pub async fn leave(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn reply(&self, reply: Reply) {
        self.reply_by(move |_| reply.clone());
    }

    /// By the whole request.
    pub fn reply_by(&self, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) {
        *self.shared.answer.lock().expect("no panic") = Arc::new(answer);
    }

    /// Every request so far, head and body.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().expect("no panic").clone()
    }

    pub fn count(&self) -> usize {
        self.requests().len()
    }

    /// The most requests that were under way at the same time.
    pub fn most_under_way(&self) -> usize {
        self.shared.most_under_way.load(Ordering::SeqCst)
    }
}

impl Drop for IdentityProvider {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(mut socket: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read(&mut socket).await {
        shared.requests.lock().expect("no panic").push(request.clone());
        let now = shared.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most_under_way.fetch_max(now, Ordering::SeqCst);
        let answer = shared.answer.lock().expect("no panic").clone();
        let reply = answer(&request);
        tokio::time::sleep(reply.delay).await;
        shared.under_way.fetch_sub(1, Ordering::SeqCst);
        let mut text = format!("HTTP/1.1 {} x\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for line in &reply.head {
            write!(text, "{line}\r\n").expect("text");
        }
        let whole = format!("{text}\r\n{}", reply.body);
        if socket.write_all(whole.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return Some(text);
            }
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
