//! The header of the PROXY protocol, version 1 and 2 (haproxy's `proxy-protocol.txt`), which a proxy that only passes bytes
//! on writes before them. Read to its last byte and not one further.
//!
//! Refuses to know: who may write one.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest line of version 1, its end included.
const LINE_MAX_BYTES: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What may follow the first 16 bytes of version 2: addresses, and what a proxy says besides (TLVs), which is skipped.
const BODY_MAX_BYTES: usize = 4096;

/// Both versions begin with no fewer bytes than these.
const BEGINNING_BYTES: usize = 12;

/// Where the connection began, if the proxy speaks of one that is not its own.
type Source = Option<SocketAddr>;

/// Reads the header off the connection; it says nothing of a source for the proxy's own checks.
///
/// # Errors
/// There is none, or none that can be understood.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Source> {
    let mut beginning = [0; BEGINNING_BYTES];
    stream.read_exact(&mut beginning).await?;
    if &beginning == SIGNATURE {
        let mut rest = [0; 4];
        stream.read_exact(&mut rest).await?;
        let [version_and_command, family, high, low] = rest;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > BODY_MAX_BYTES {
            return Err(malformed());
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        return version_2(version_and_command, family, &body).ok_or_else(malformed);
    }
    let mut line = beginning.to_vec();
    if !line.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    while !line.ends_with(b"\n") {
        let mut next = [0; LINE_MAX_BYTES];
        let room = LINE_MAX_BYTES - line.len();
        if room == 0 {
            return Err(malformed());
        }
        // Looked at first: what is behind the line is not for here.
        let seen = stream.peek(&mut next[..room]).await?;
        if seen == 0 {
            return Err(malformed());
        }
        let end = next[..seen].iter().position(|byte| *byte == b'\n').map_or(seen, |place| place + 1);
        stream.read_exact(&mut next[..end]).await?;
        line.extend_from_slice(&next[..end]);
    }
    version_1(&line).ok_or_else(malformed)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol")
}

fn version_1(line: &[u8]) -> Option<Source> {
    let text = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    let mut words = text.split(' ');
    if words.next() != Some("PROXY") {
        return None;
    }
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let (source, target): (IpAddr, IpAddr) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (port, _): (u16, u16) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let is_of_family = match family {
        "TCP4" => source.is_ipv4() && target.is_ipv4(),
        "TCP6" => source.is_ipv6() && target.is_ipv6(),
        _ => false,
    };
    (is_of_family && words.next().is_none()).then(|| Some(SocketAddr::new(source, port)))
}

fn version_2(version_and_command: u8, family: u8, body: &[u8]) -> Option<Source> {
    match version_and_command {
        // A connection of the proxy's own, a check of its health for one.
        0x20 => return Some(None),
        0x21 => {}
        _ => return None,
    }
    match family {
        // Unspecified, and sockets of the proxy's own machine: somebody without an address.
        0x00 | 0x31 | 0x32 => Some(None),
        0x11 => {
            let address: [u8; 4] = body.get(..4)?.try_into().ok()?;
            let port: [u8; 2] = body.get(8..10)?.try_into().ok()?;
            body.get(..12)?;
            Some(Some(SocketAddr::new(Ipv4Addr::from(address).into(), u16::from_be_bytes(port))))
        }
        0x21 => {
            let address: [u8; 16] = body.get(..16)?.try_into().ok()?;
            let port: [u8; 2] = body.get(32..34)?.try_into().ok()?;
            body.get(..36)?;
            Some(Some(SocketAddr::new(Ipv6Addr::from(address).into(), u16::from_be_bytes(port))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    /// Version 2 with this command and family.
    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    fn v4_body() -> Vec<u8> {
        [&[192, 0, 2, 1, 10, 0, 0, 1][..], &4711_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    fn v6_body() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().unwrap();
        [&source.octets()[..], &Ipv6Addr::LOCALHOST.octets(), &4711_u16.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    /// What is read of these pieces, each sent by itself, and what is left behind the header.
    async fn read_pieces(pieces: Vec<Vec<u8>>) -> (Result<Source, io::ErrorKind>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        near.set_nodelay(true).unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let sending = async {
            for piece in pieces {
                // Whoever refuses the header need not hear the rest of it.
                if near.write_all(&piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = near.shutdown().await;
        };
        let reading = async {
            let source = read(&mut far).await.map_err(|error| error.kind());
            let mut rest = Vec::new();
            let _ = far.read_to_end(&mut rest).await;
            (source, rest)
        };
        tokio::join!(sending, reading).1
    }

    #[tokio::test]
    async fn both_versions_are_read_to_their_last_byte_and_not_further() {
        let with_more = [v4_body(), vec![4, 0, 2, 7, 7]].concat();
        let longest = format!("PROXY TCP6 {0} {0} 65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        for (bytes, source) in [
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(), Some("192.0.2.1:4711")),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n".to_vec(), Some("[2001:db8::1]:4711")),
            (longest.into_bytes(), Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 ::1 1 2\r\n".to_vec(), None),
            (header(0x21, 0x11, &v4_body()), Some("192.0.2.1:4711")),
            (header(0x21, 0x11, &with_more), Some("192.0.2.1:4711")),
            (header(0x21, 0x21, &v6_body()), Some("[2001:db8::1]:4711")),
            (header(0x20, 0x11, &v4_body()), None),
            (header(0x20, 0, &[]), None),
            (header(0x21, 0, &[]), None),
            (header(0x21, 0x31, &[0; 216]), None),
        ] {
            let expected = Ok(source.map(|text| text.parse().unwrap()));
            let whole = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            let at_once = read_pieces(vec![whole.clone()]).await;
            assert_eq!(at_once, (expected, b"GET / HTTP/1.1\r\n".to_vec()), "{:?}", String::from_utf8_lossy(&bytes));
            let byte_by_byte = read_pieces(whole.iter().map(|byte| vec![*byte]).collect()).await;
            assert_eq!(byte_by_byte.0, expected);
            assert_eq!(byte_by_byte.1, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            b"PROXY".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443 7\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 99999 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 ::1 4711 443\r\n".to_vec(),
            b"PROXY TCP6 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY UDP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(),
            b"PROXY  TCP4 192.0.2.1 10.0.0.1 4711 443\r\n".to_vec(),
            [&b"PROXY UNKNOWN "[..], &[b'x'; 200], b"\r\n"].concat(),
            header(0x31, 0x11, &v4_body()),
            header(0x22, 0x11, &v4_body()),
            header(0x21, 0x12, &v4_body()),
            header(0x21, 0x11, &v4_body()[..11]),
            header(0x21, 0x21, &v4_body()),
            header(0x21, 0x11, &[0; BODY_MAX_BYTES + 1]),
            SIGNATURE.to_vec(),
        ] {
            let (source, _) = read_pieces(vec![bytes.clone()]).await;
            assert!(source.is_err(), "{:?}: {source:?}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(line in prop::collection::vec(any::<u8>(), 0..120), command: u8, family: u8) {
            let _ = version_1(&line);
            let _ = version_1(&[b"PROXY ", &line[..], b"\r\n"].concat());
            let _ = version_2(command, family, &line);
        }
    }
}
