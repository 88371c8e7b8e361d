//! What a server is to this harness: how it is started, what a watcher of it says, and how an event is brought to it.
//! Refuses to know: what is measured.

use std::net::SocketAddr;

use crate::{Outcome, place::Place, processes::Processes, websocket::Outbox};

/// A kind of server. `servers/` has taskcast and the floor, `rivals/` what somebody would use instead.
pub trait Server {
    /// As it is called on the command line and in the tables: `nchan`.
    fn name(&self) -> &'static str;

    /// Programs or packages that it needs and that are not here, with the words to install them. `None`: it can start.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Starts it, with a broker of its own if it wants one, and waits until it serves.
    ///
    /// # Errors
    /// Whatever kept it from starting, in words.
    fn start(&self, place: &Place) -> Outcome<Box<dyn Instance>>;
}

/// A server that runs. Dropped, it and all that it started is gone.
///
/// A watcher goes through: TCP connection, [`Self::handshake`], the server's 101, [`Self::opened`], any number of
/// messages through [`Self::heard`] until one of them says [`Heard::ready`]; then events may be published to it.
pub trait Instance {
    /// The very version that runs, with what it depends on that matters (`nginx 1.22.1, nchan 1.3.6`).
    fn version(&self) -> String;

    fn processes(&self) -> &Processes;

    /// Where WebSockets connect.
    fn address(&self) -> SocketAddr;

    /// The request of this watcher. It is asked for before the clock runs.
    fn handshake(&self, watcher: &Watcher) -> Handshake;

    /// After the 101: what a watcher says first. Answer whether it is watching already; if not, [`Self::heard`] has to
    /// find the message that confirms it.
    fn opened(&self, _watcher: &Watcher, _out: &mut Outbox) -> bool {
        true
    }

    /// One whole message, text or binary, whatever it holds. Pings and closes of RFC 6455 are seen to before. The default
    /// takes every stamp in it for an event that was delivered.
    fn heard(&self, _watcher: &Watcher, message: &[u8], heard: &mut Heard<'_>) {
        heard.events_in(message);
    }

    /// Where events are brought to: to this server's own publishing interface, or to the broker that it reads.
    fn road(&self) -> Road;

    /// Appends to `out` the bytes that publish `payload` to all watchers of `topic`, on the connection of
    /// [`Self::road`]. Requests are pipelined: the answers are read and not looked at.
    fn publication(&self, topic: usize, payload: &[u8], out: &mut Vec<u8>);
}

/// One client. Watchers are numbered from 0 and so are topics; several may watch the same topic.
#[derive(Clone, Debug, Default)]
pub struct Watcher {
    pub number: usize,
    pub topic: usize,
    /// What a resuming client brings; only taskcast is asked to resume.
    pub cursor: Option<String>,
}

/// A request to upgrade. `Host`, `Upgrade`, `Connection`, the key and the version are added.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    /// With its query.
    pub path: String,
    /// Such as `("Sec-WebSocket-Protocol", "mqtt")`.
    pub headers: Vec<(&'static str, String)>,
}

/// The connection that events are published on, which is opened once.
#[derive(Clone, Debug)]
pub struct Road {
    pub address: SocketAddr,
    /// Sent first, before any publication (MQTT's CONNECT, an AUTH …).
    pub opening: Vec<u8>,
}

/// What became of one message.
pub struct Heard<'a> {
    pub out: &'a mut Outbox,
    pub(crate) ready: &'a mut bool,
    pub(crate) stamps: &'a mut Vec<crate::payload::Stamp>,
}

impl Heard<'_> {
    /// From now on the server delivers to this watcher all that is published to its topic.
    pub fn ready(&mut self) {
        *self.ready = true;
    }

    /// Whether [`Self::ready`] was said before.
    pub fn is_ready(&self) -> bool {
        *self.ready
    }

    /// Every event whose payload stands in these bytes: one message may hold several, with any framing between.
    pub fn events_in(&mut self, message: &[u8]) {
        crate::payload::stamps_in(message, self.stamps);
    }
}
