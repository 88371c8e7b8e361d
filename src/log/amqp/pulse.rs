//! Whether the broker still answers. Owns a channel of the reader's connection on which it is asked something small, and
//! the patience with it. Refuses to know: what is read.
//!
//! AMQP's heartbeats notice a silent broker after two of their intervals, and an interval has whole seconds. A question
//! every quarter of a second tells within two seconds that nobody can be reached. Whatever the broker sends counts as an
//! answer, so one that is busy delivering is not taken for dead.

use std::{future::Future, pin::Pin, time::Duration};

use lapin::{
    Channel, ExchangeKind,
    options::ExchangeDeclareOptions,
    types::{FieldTable, ShortString},
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::link::Link;
use crate::log::health::Trouble;

const TICK: Duration = Duration::from_millis(250);
/// Silence is counted in ticks, not read from a clock: a process that was held up itself sees one late tick, and then
/// still waits for what the broker had sent meanwhile.
const SILENT_TICKS_MAX: u32 = 5;

pub(super) struct Pulse {
    channel: Channel,
    exchange: ShortString,
    ticks: Interval,
    asked: Option<Pin<Box<dyn Future<Output = lapin::Result<()>> + Send>>>,
    silent_ticks: u32,
}

impl Pulse {
    pub(super) async fn start(link: &Link, exchange: ShortString) -> Result<Self, Trouble> {
        let channel = link.channel().await?;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { channel, exchange, ticks, asked: None, silent_ticks: 0 })
    }

    /// Something came from the broker.
    pub(super) fn heard(&mut self) {
        self.silent_ticks = 0;
    }

    /// Returns only when the broker is silent or says no. Cancel safe.
    pub(super) async fn lost(&mut self, link: &Link) -> Trouble {
        loop {
            let Some(asked) = &mut self.asked else {
                self.ticks.tick().await;
                self.silent_ticks = 0;
                self.asked = Some(Box::pin(ask(self.channel.clone(), self.exchange.clone())));
                continue;
            };
            tokio::select! {
                biased;
                answered = asked => {
                    self.asked = None;
                    if let Err(error) = answered {
                        return link.trouble(&error);
                    }
                }
                _ = self.ticks.tick() => {
                    self.silent_ticks += 1;
                    if self.silent_ticks >= SILENT_TICKS_MAX {
                        return Trouble::Lost(format!("RabbitMQ at {} no longer answers", link.address));
                    }
                }
            }
        }
    }
}

/// Whether the exchange is there: it needs no permission, is answered by the node itself, and an exchange that was
/// deleted has to be made again. (A question about the queue would wait for the node that leads the stream.)
async fn ask(channel: Channel, exchange: ShortString) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange, ExchangeKind::Topic, options, FieldTable::default()).await
}
