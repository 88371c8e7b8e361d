//! An event stream for HTTP/1.0, which knows no chunks: takes them apart again, so that what they hold goes out bare, and the
//! end of the connection is the end of the stream. Some reverse proxies ask so unless they are told otherwise.
//!
//! Refuses to know: what is in the chunks, and that they could be of somebody else's making.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is written to it is a head, and then chunks.
pub(super) struct Unchunked<S> {
    socket: S,
    /// What comes next.
    next: Part,
}

enum Part {
    /// So much of the head.
    Head(usize),
    /// The length of a chunk, so far.
    Length(usize),
    /// So much of a chunk.
    Content(usize),
    /// The line break behind it, and so much of it.
    Break(usize),
}

impl<S> Unchunked<S> {
    /// `head`: the length of what comes before the first chunk.
    pub fn new(socket: S, head: usize) -> Self {
        Self { socket, next: Part::Head(head) }
    }
}

impl<S: AsyncWrite + Unpin> Unchunked<S> {
    /// What is passed on is written; the framing is swallowed. So many bytes are done with.
    fn poll_part(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (left, is_head) = match &mut self.next {
            Part::Head(left) => (left, true),
            Part::Content(left) => (left, false),
            Part::Length(length) => {
                let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit());
                let is_over = digits.clone().count() < bytes.len();
                *length = digits.clone().fold(*length, |length, digit| {
                    length << 4 | char::from(*digit).to_digit(16).unwrap_or_default() as usize
                });
                let done = digits.count();
                if !is_over {
                    return Poll::Ready(Ok(done));
                }
                // The line break has two bytes, which may come one by one.
                if bytes[done] != b'\n' {
                    return Poll::Ready(Ok(done + 1));
                }
                self.next = if *length == 0 { Part::Break(2) } else { Part::Content(*length) };
                return Poll::Ready(Ok(done + 1));
            }
            Part::Break(left) => {
                let done = bytes.len().min(*left);
                *left -= done;
                if *left == 0 {
                    self.next = Part::Length(0);
                }
                return Poll::Ready(Ok(done));
            }
        };
        let part = &bytes[..bytes.len().min(*left)];
        let written = ready!(Pin::new(&mut self.socket).poll_write(cx, part))?;
        *left -= written;
        if *left == 0 {
            self.next = if is_head { Part::Length(0) } else { Part::Break(2) };
        }
        Poll::Ready(Ok(written))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unchunked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unchunked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut done = 0;
        while done < bytes.len() {
            match self.poll_part(cx, &bytes[done..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(part)) => done += part,
                // What is done with cannot be taken back.
                Poll::Pending if done > 0 => break,
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(done))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::proto::{stream_chunk, stream_end};

    #[tokio::test]
    async fn chunks_go_out_bare_however_they_are_cut_and_however_little_the_socket_takes() {
        let start = b"HTTP/1.1 200 OK\r\n\r\n";
        let long = vec![b'x'; 300];
        let mut written = start.to_vec();
        for content in [b"data: 1\n\n".as_slice(), &long, b"a\r\n0\r\n\r\n"] {
            written.extend_from_slice(&stream_chunk(content));
        }
        written.extend_from_slice(&stream_end());
        let expected = [start.as_slice(), b"data: 1\n\n", &long, b"a\r\n0\r\n\r\n"].concat();
        for piece in [1, 2, 3, 7, 50, 1_000] {
            for room in [1, 5, 1_000] {
                let (near, mut far) = duplex(room);
                let mut socket = Unchunked::new(near, start.len());
                let pieces: Vec<Vec<u8>> = written.chunks(piece).map(<[u8]>::to_vec).collect();
                let writing = async move {
                    for piece in pieces {
                        socket.write_all(&piece).await.unwrap();
                    }
                    socket.shutdown().await.unwrap();
                };
                let mut heard = Vec::new();
                let ((), read) = tokio::join!(writing, far.read_to_end(&mut heard));
                read.unwrap();
                assert_eq!(heard, expected, "{piece} {room}");
            }
        }
    }
}
