//! A collector as a service meets one: takes OTLP over HTTP, and takes it apart by the numbers of the specification, not by the
//! types that it was written with.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A protobuf message: the fields that it has, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields(Vec<(u64, Field)>);

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Fields {
    fn parse(mut bytes: &[u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)),
                1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    Field::Bytes(take(&mut bytes, length).to_vec())
                }
                5 => Field::Number(u64::from(u32::from_le_bytes(take(&mut bytes, 4).try_into().unwrap()))),
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, field));
        }
        Self(fields)
    }

    pub fn number(&self, tag: u64) -> u64 {
        let found = self.0.iter().find_map(|(at, field)| match field {
            Field::Number(number) if *at == tag => Some(*number),
            _ => None,
        });
        found.unwrap_or_default()
    }

    pub fn all(&self, tag: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(at, field)| match field {
            Field::Bytes(bytes) if *at == tag => Some(bytes.as_slice()),
            _ => None,
        })
    }

    pub fn bytes(&self, tag: u64) -> &[u8] {
        self.all(tag).next().unwrap_or_default()
    }

    pub fn text(&self, tag: u64) -> String {
        String::from_utf8(self.bytes(tag).to_vec()).unwrap()
    }

    pub fn below(&self, tag: u64) -> impl Iterator<Item = Self> {
        self.all(tag).map(Self::parse)
    }

    /// The value of an attribute among the `KeyValue`s at `tag`, as text.
    pub fn attribute(&self, tag: u64, key: &str) -> Option<String> {
        let pair = self.below(tag).find(|pair| pair.text(1) == key)?;
        let value = Self::parse(pair.bytes(2));
        Some(if value.bytes(1).is_empty() { value.number(3).to_string() } else { value.text(1) })
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A span of OTLP, with the attributes of its resource.
#[derive(Clone, Debug)]
pub struct Span {
    pub fields: Fields,
    pub resource: Fields,
}

impl Span {
    pub fn trace_id(&self) -> String {
        hex(self.fields.bytes(1))
    }

    pub fn id(&self) -> String {
        hex(self.fields.bytes(2))
    }

    pub fn parent_id(&self) -> String {
        hex(self.fields.bytes(4))
    }

    pub fn name(&self) -> String {
        self.fields.text(5)
    }

    pub fn attribute(&self, key: &str) -> Option<String> {
        self.fields.attribute(9, key)
    }
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    /// The heads of requests.
    heads: Vec<String>,
    /// Statuses to answer with before the usual 200.
    answers: Vec<u16>,
    /// How long it takes over each answer.
    delay: Duration,
}

#[derive(Clone)]
pub struct Collector {
    pub port: u16,
    seen: Arc<Mutex<Seen>>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { port: listener.local_addr().unwrap().port(), seen: Arc::default() };
        let serving = collector.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serving.clone().serve(stream));
            }
        });
        collector
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next requests are answered so, and not taken.
    pub fn refuse(&self, statuses: &[u16]) {
        self.seen.lock().unwrap().answers.extend(statuses);
    }

    /// From now on it takes so long over each answer.
    pub fn delay(&self, delay: Duration) {
        self.seen.lock().unwrap().delay = delay;
    }

    pub fn spans(&self) -> Vec<Span> {
        self.seen.lock().unwrap().spans.clone()
    }

    pub fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }

    async fn serve(self, mut stream: TcpStream) {
        let mut bytes = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                    break at + 4;
                }
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
            };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
            let length: usize =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().trim().parse().unwrap();
            while bytes.len() < end + length {
                if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let body: Vec<u8> = bytes.drain(..end + length).skip(end).collect();
            let status = self.answer(head, &body);
            let delay = self.seen.lock().unwrap().delay;
            tokio::time::sleep(delay).await;
            let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn answer(&self, head: String, body: &[u8]) -> u16 {
        let mut seen = self.seen.lock().unwrap();
        seen.heads.push(head);
        if !seen.answers.is_empty() {
            return seen.answers.remove(0);
        }
        for of_resource in Fields::parse(body).below(1) {
            let resource = of_resource.below(1).next().unwrap();
            let spans = of_resource.below(2).flat_map(|scope| scope.below(2).collect::<Vec<_>>());
            seen.spans.extend(spans.map(|fields| Span { fields, resource: resource.clone() }));
        }
        200
    }
}
