//! `taskcast healthcheck`: asks `/readyz` of the operators' listener on this machine, for container images without curl.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{arguments, complain, print};
use crate::{
    config::{self, Operations},
    tls,
};

/// Connecting, asking and reading together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// More of an answer is not read.
const ANSWER_MAX_BYTES: u64 = 4096;

/// 0 or 1, whatever went wrong: container runtimes know no other codes.
pub(super) async fn run(common: &arguments::Common) -> u8 {
    let operations = match config::load_operations(&arguments::sources(common)) {
        Ok(operations) => Operations { listen: dialled(operations.listen), ..operations },
        Err(mistakes) => {
            complain(&mistakes.to_string());
            return 1;
        }
    };
    let answer = match timeout(TIMEOUT, ask(&operations)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return not_ready(&operations, &error.to_string()),
        Err(_) => return not_ready(&operations, "no answer in time"),
    };
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "200" {
        print("ready\n");
        return 0;
    }
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim());
    not_ready(&operations, &format!("status {status}. {body}"))
}

fn not_ready(operations: &Operations, why: &str) -> u8 {
    let scheme = if operations.is_encrypted { "https" } else { "http" };
    complain(&format!("not ready: {scheme}://{}/readyz: {why}\n", operations.listen));
    1
}

/// Where a listener on every address is reached from here.
fn dialled(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn ask(operations: &Operations) -> io::Result<String> {
    let address = operations.listen;
    let token = operations.settings.token.as_ref().filter(|_| operations.settings.token_for_probes);
    let authorization = token.map_or(String::new(), |token| format!("authorization: Bearer {}\r\n", token.reveal()));
    let request = format!("GET /readyz HTTP/1.1\r\nhost: {address}\r\n{authorization}connection: close\r\n\r\n");
    if operations.is_encrypted {
        exchange(tls::connect_to_self(address).await?, &request).await
    } else {
        exchange(TcpStream::connect(address).await?, &request).await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_MAX_BYTES).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        for (listen, expected) in
            [("0.0.0.0:6162", "127.0.0.1:6162"), ("[::]:1", "[::1]:1"), ("10.0.0.1:2", "10.0.0.1:2")]
        {
            assert_eq!(dialled(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
