//! One connection to one node of the broker. Owns its socket, so that a connection that is given up really ends, what
//! the broker says of publishing on it, and the words for what can be wrong with it. Refuses to know: streams.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    Channel, Connection, ConnectionProperties, ErrorKind, Event,
    tcp::{AsyncTcpStream, OwnedIdentity, OwnedTLSConfig},
};
use socket2::{SockRef, Socket};
use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::address::Node;
use crate::log::{
    health::Trouble,
    settings::{TlsFiles, TlsPaths},
};

/// How long a connection that is left may take to say goodbye. One that is dead or blocked never would.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) struct Link {
    connection: Arc<Connection>,
    /// Where it leads, for people.
    pub address: String,
    /// What the broker gave as its reason for not taking events.
    blocked: watch::Receiver<Option<String>>,
    listener: JoinHandle<()>,
    hangup: Option<Hangup>,
}

/// Ends the socket when dropped. The library ends a connection only with the broker's consent, and keeps a thread and a
/// socket for each one that was given up while the broker was silent.
struct Hangup(Socket);

impl Drop for Hangup {
    fn drop(&mut self) {
        // What is closed already needs no closing.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

impl Link {
    /// Connects. Automatic recovery stays off: it would consume again from where the consumer once began.
    pub(super) async fn open(node: &Node, tls: &TlsPaths) -> Result<Self, Trouble> {
        let address = node.address.clone();
        let open = async {
            let runtime = lapin::runtime::default_runtime()?;
            let place = (node.uri.authority.host.as_str(), node.uri.authority.port);
            let places: Vec<SocketAddr> = tokio::net::lookup_host(place).await?.collect();
            let mut stream = AsyncTcpStream::connect(&runtime, places.as_slice()).await?;
            let AsyncTcpStream::Plain(plain) = &stream else { return Err(not_connected()) };
            let hangup = Hangup(SockRef::from(plain.get_ref()).try_clone()?);
            if node.is_encrypted() {
                let config = configuration(tls)?;
                stream = stream.into_tls(&node.uri.authority.host, config.as_ref()).await?;
            }
            let stream = Mutex::new(Some(stream));
            // The library asks once, since it is not to reconnect by itself.
            let hand_over = async move |_, _| {
                let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                stream.ok_or_else(not_connected)
            };
            let properties = ConnectionProperties::default().with_connection_name("taskcast".into());
            Ok((Connection::connector(node.uri.clone(), runtime, hand_over, properties).await?, hangup))
        };
        let (connection, hangup) = open.await.map_err(|error: lapin::Error| trouble(&address, &error))?;
        let (told, blocked) = watch::channel(None);
        let mut events = Box::pin(connection.events_listener());
        let listener = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => drop(told.send_replace(Some(reason))),
                    Event::ConnectionUnblocked => drop(told.send_replace(None)),
                    _ => {}
                }
            }
        });
        Ok(Self { connection: Arc::new(connection), address, blocked, listener, hangup: Some(hangup) })
    }

    pub(super) async fn channel(&self) -> Result<Channel, Trouble> {
        self.connection.create_channel().await.map_err(|error| self.trouble(&error))
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Why the broker takes no events now, for the operator.
    pub(super) fn blocked(&self) -> Option<String> {
        let reason = self.blocked.borrow();
        let reason = reason.as_ref()?;
        Some(format!("RabbitMQ at {} takes no events until its alarm is over: {reason}", self.address))
    }

    /// Waits until the broker takes events, as far as it has said.
    pub(super) async fn unblocked(&self) {
        // A listener that is gone says nothing any more; what is published next will.
        let _ = self.blocked.clone().wait_for(Option::is_none).await;
    }

    pub(super) fn trouble(&self, error: &lapin::Error) -> Trouble {
        trouble(&self.address, error)
    }

    /// Says goodbye and waits for the answer: what is held by this connection, a lock among them, is free then.
    pub(super) async fn close(&self) {
        // One that is dead ends when it is dropped.
        let _ = timeout(FAREWELL, self.connection.close(200, "".into())).await;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.listener.abort();
        if let (Some(hangup), Ok(runtime)) = (self.hangup.take(), tokio::runtime::Handle::try_current()) {
            let connection = self.connection.clone();
            runtime.spawn(async move {
                // What is held by it, a lock among them, ends with it, also where somebody still has a channel.
                let _ = timeout(FAREWELL, connection.close(200, "".into())).await;
                drop(hangup);
            });
        }
    }
}

/// With the certificates that are in the files now.
fn configuration(tls: &TlsPaths) -> io::Result<OwnedTLSConfig> {
    let TlsFiles { authorities, client } = tls.read().map_err(io::Error::other)?;
    let identity = client.map(|pem| OwnedIdentity::PKCS8 { pem: pem.certificate, key: pem.key });
    Ok(OwnedTLSConfig { identity, cert_chain: authorities })
}

fn not_connected() -> lapin::Error {
    io::Error::from(io::ErrorKind::NotConnected).into()
}

/// What an error means for the operator. RabbitMQ never repeats a password in its errors.
pub(super) fn trouble(address: &str, error: &lapin::Error) -> Trouble {
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return Trouble::Lost(format!("RabbitMQ at {address}: {error}"));
    };
    let words = said.get_message();
    match said.get_id() {
        403 if words.as_str().contains("Login was refused") => {
            Trouble::Misfit(format!("RabbitMQ at {address} refuses the user or password in the log's URL: {words}"))
        }
        403 => Trouble::Misfit(format!(
            "RabbitMQ at {address} does not allow the user in the log's URL what the log needs: {words}"
        )),
        530 => Trouble::Misfit(format!("RabbitMQ at {address} does not let this user in: {words}")),
        405 => Trouble::Misfit(format!("RabbitMQ at {address}: something else owns that name: {words}")),
        _ => Trouble::Lost(format!("RabbitMQ at {address}: {words}")),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPError, AMQPErrorKind, AMQPHardError, AMQPSoftError};

    use super::*;

    fn said(kind: AMQPErrorKind) -> Trouble {
        let error = AMQPError::new(kind, "words of the broker".into());
        trouble("broker:5672", &lapin::Error::from(ErrorKind::ProtocolError(error)))
    }

    /// RabbitMQ says so while a stream's coordinator is not up, of a broker that is well a moment later.
    #[test]
    fn an_internal_error_of_the_broker_is_waited_for_and_no_mistake_of_the_operator() {
        for hard in [AMQPHardError::INTERNALERROR, AMQPHardError::CONNECTIONFORCED, AMQPHardError::RESOURCEERROR] {
            assert!(matches!(said(AMQPErrorKind::Hard(hard)), Trouble::Lost(_)));
        }
        assert!(matches!(said(AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED)), Trouble::Misfit(_)));
    }
}
