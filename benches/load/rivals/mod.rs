//! What somebody would use instead of taskcast, on the same work. `benches/rivals/README.md` says how each is set up.

mod centrifuge;
mod channels;
mod common;
mod mqtt;
mod nats;
mod nchan;
mod node;
mod sockudo;

use crate::server::Server;

/// All of them, as they stand in the tables.
pub fn all() -> Vec<Box<dyn Server>> {
    let channels = |name, server, layer| Box::new(channels::Channels { name, server, layer });
    vec![
        Box::new(nats::Nats),
        Box::new(nchan::Nchan),
        Box::new(centrifuge::Centrifuge),
        Box::new(sockudo::Sockudo),
        Box::new(node::Bun),
        Box::new(node::Ws),
        Box::new(node::SocketIo),
        Box::new(mqtt::Mosquitto),
        channels("channels-uvicorn-pubsub", "uvicorn", "pubsub"),
        channels("channels-uvicorn", "uvicorn", "core"),
        channels("channels-daphne-pubsub", "daphne", "pubsub"),
        channels("channels-daphne", "daphne", "core"),
    ]
}
