//! Where the stream ends. AMQP 0.9.1 has no question for it (the count of a passive declare is up to 5 s old and 0
//! after a restart), so a second consumer starts at the last chunk and reads until nothing comes. Owns that consumer.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::{
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::link::Link;
use crate::log::health::Trouble;

/// A stream that holds something delivers within milliseconds; this is for a broker that is busy starting.
const FIRST_DELIVERY: Duration = Duration::from_secs(1);
/// No further delivery for this long: that was the end.
const SILENCE: Duration = Duration::from_millis(50);
/// A stream that is written to all the time has no silence; what was read by then is near enough.
const READING_MAX: Duration = Duration::from_millis(500);
const PREFETCH: u16 = 500;

/// The end of the stream, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Empty,
    /// The last offset.
    At(u64),
    /// There are later ones.
    Beyond(u64),
}

pub(super) async fn find(queue: &ShortString, link: &Link) -> Result<End, Trouble> {
    let mut last = None;
    let silent = match timeout(READING_MAX + FIRST_DELIVERY, read(queue, link, &mut last)).await {
        Ok(read) => read.map(|()| true)?,
        Err(_) => false,
    };
    Ok(match last {
        // A broker that has not even begun to deliver says nothing of the stream.
        None if !silent => return Err(Trouble::Lost(format!("RabbitMQ at {} does not answer in time", link.address))),
        None => End::Empty,
        Some(offset) if silent => End::At(offset),
        Some(offset) => End::Beyond(offset),
    })
}

async fn read(queue: &ShortString, link: &Link, last: &mut Option<u64>) -> Result<(), Trouble> {
    let trouble = |error: lapin::Error| link.trouble(&error);
    let channel = link.channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.map_err(trouble)?;
    let from = consume_from(AMQPValue::LongString("last".into()));
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue.clone(), "".into(), options, from).await.map_err(trouble)?;
    let mut patience = FIRST_DELIVERY;
    while let Ok(delivery) = timeout(patience, consumer.next()).await {
        let delivery = delivery.ok_or_else(|| cancelled(queue, link))?.map_err(trouble)?;
        *last = offset(&delivery).max(*last);
        channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default()).await.map_err(trouble)?;
        patience = SILENCE;
    }
    // A channel that fails to close is gone with its connection.
    let _ = channel.close(200, "".into()).await;
    Ok(())
}

/// The arguments of a consumer that starts there.
pub(super) fn consume_from(offset: AMQPValue) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), offset);
    arguments
}

/// The offset of a delivery; only streams give one.
pub(super) fn offset(delivery: &Delivery) -> Option<u64> {
    match delivery.properties.headers().as_ref()?.inner().get("x-stream-offset")? {
        AMQPValue::LongLongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongInt(offset) => u64::try_from(*offset).ok(),
        AMQPValue::LongUInt(offset) => Some(u64::from(*offset)),
        AMQPValue::Timestamp(offset) => Some(*offset),
        _ => None,
    }
}

/// The consumer ended although the connection did not.
pub(super) fn cancelled(queue: &ShortString, link: &Link) -> Trouble {
    Trouble::Lost(format!("RabbitMQ at {} ended reading from queue {queue}: it was deleted or moved", link.address))
}
