//! stub
use crate::{config::Config, input::Publisher};
use std::net::SocketAddr;
use tokio_util::sync::CancellationToken;

/// A running service.
pub struct App {}

impl App {
    /// Binds both listeners and starts everything. Port 0 picks a free one.
    ///
    /// # Errors
    /// What could not be started, in words for the operator.
    pub async fn start(_config: Config) -> Result<Self, String> {
        todo!("app")
    }

    pub fn address(&self) -> SocketAddr {
        todo!("app")
    }

    pub fn operations_address(&self) -> SocketAddr {
        todo!("app")
    }

    pub fn publisher(&self) -> Publisher {
        todo!("app")
    }

    /// Runs until `stop` is cancelled, then drains.
    ///
    /// # Errors
    /// An internal task that ended although nobody asked it to.
    pub async fn run(self, _stop: CancellationToken) -> Result<(), String> {
        todo!("app")
    }
}
