//! Publishing to the exchange. Owns the connection that all appends share, and the rule that only the broker's
//! confirmation counts, and that nothing is published twice.

use std::sync::Arc;

use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{sync::Mutex, time::timeout};

use super::{AmqpLog, TIMESTAMP_HEADER};
use crate::{
    clock,
    log::{AppendError, Outgoing, backoff::Backoff, health::Trouble},
    proto::Position,
};

/// AMQP's limit of a short string.
const ROUTING_KEY_BYTES_MAX: usize = 255;
const PERSISTENT: u8 = 2;

#[derive(Default)]
pub(super) struct Appender(Mutex<Option<Arc<Link>>>);

struct Link {
    channel: Channel,
    /// Closed when dropped.
    _connection: Connection,
}

/// How far an append has come, for when it is cut short.
#[derive(Default)]
struct Progress {
    appended: usize,
    /// What the last attempt to connect failed of.
    why: Option<String>,
}

impl Appender {
    pub(super) async fn append(
        &self,
        log: &AmqpLog,
        events: &[Outgoing],
    ) -> Result<Vec<Option<Position>>, AppendError> {
        let mut progress = Progress::default();
        let limit = log.settings.append_timeout;
        let detail = match timeout(limit, self.send(log, events, &mut progress)).await {
            Ok(Ok(())) => return Ok(vec![None; events.len()]),
            Ok(Err(detail)) => detail,
            Err(_) => {
                let why = progress.why.take();
                let why = why.unwrap_or_else(|| format!("RabbitMQ at {} did not confirm", log.address));
                format!("{why} (waited {} ms)", limit.as_millis())
            }
        };
        // Confirmations that nobody waits for would pile up on the channel.
        if let Ok(mut link) = self.0.try_lock() {
            *link = None;
        }
        Err(AppendError { appended: progress.appended, detail })
    }

    async fn send(&self, log: &AmqpLog, events: &[Outgoing], progress: &mut Progress) -> Result<(), String> {
        let link = self.link(log, progress).await?;
        let mut failure = None;
        let mut in_flight = Vec::with_capacity(events.len());
        for event in events {
            match publish(log, &link.channel, event).await {
                Ok(confirm) => in_flight.push(confirm),
                Err(error) => {
                    failure = Some(log.trouble(&error).words().to_owned());
                    break;
                }
            }
        }
        for confirm in in_flight {
            let refused = match confirm.await {
                Ok(Confirmation::Ack(None)) => None,
                Ok(Confirmation::Ack(Some(_))) => {
                    Some(format!("exchange {} has no queue for it: was the binding removed?", log.exchange))
                }
                Ok(Confirmation::Nack(_) | Confirmation::NotRequested) => {
                    Some(format!("RabbitMQ at {} could not store it", log.address))
                }
                Err(error) => Some(log.trouble(&error).words().to_owned()),
            };
            match refused {
                None => progress.appended += 1,
                // What was confirmed after a hole is in the log too, but is not a beginning of the batch.
                Some(refused) => return Err(refused),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    async fn link(&self, log: &AmqpLog, progress: &mut Progress) -> Result<Arc<Link>, String> {
        let mut link = self.0.lock().await;
        if let Some(link) = link.as_ref().filter(|link| link.channel.status().connected()) {
            return Ok(link.clone());
        }
        let mut backoff = Backoff::new(log.settings.reconnect_max);
        loop {
            match connect(log).await {
                Ok(connected) => return Ok(link.insert(Arc::new(connected)).clone()),
                Err(Trouble::Misfit(words)) => return Err(words),
                Err(Trouble::Lost(words)) => progress.why = Some(words),
            }
            backoff.wait().await;
        }
    }
}

async fn connect(log: &AmqpLog) -> Result<Link, Trouble> {
    let connection = log.connect().await?;
    let lost = |error: lapin::Error| log.trouble(&error);
    let channel = connection.create_channel().await.map_err(lost)?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(lost)?;
    Ok(Link { channel, _connection: connection })
}

async fn publish(log: &AmqpLog, channel: &Channel, event: &Outgoing) -> lapin::Result<lapin::PublisherConfirm> {
    // Mandatory: an event that no queue takes must not be confirmed as if it were in the log.
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let now_ms = clock::now().unix_ms;
    let mut headers = FieldTable::default();
    headers.insert(TIMESTAMP_HEADER.into(), AMQPValue::LongLongInt(i64::try_from(now_ms).unwrap_or(i64::MAX)));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT)
        .with_timestamp(now_ms / 1_000)
        .with_headers(headers);
    channel.basic_publish(log.exchange.clone(), routing_key(&event.task_id), options, &event.payload, properties).await
}

fn routing_key(task_id: &str) -> ShortString {
    let key = format!("task.{task_id}");
    let end = key.floor_char_boundary(ROUTING_KEY_BYTES_MAX);
    // Cut to fit, so it fits.
    ShortString::try_new(&key[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_task_id_is_cut_to_a_routing_key_between_characters() {
        assert_eq!(routing_key("a.b").as_str(), "task.a.b");
        let long = routing_key(&"ä".repeat(200));
        assert_eq!(long.as_str().len(), 255);
        assert!(long.as_str().ends_with('ä'));
    }
}
